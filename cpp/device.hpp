// What a device beside the host offers but for kernels: memory, copies and streams. A backend whose
// memory is the host's has none.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>

namespace relprop {

using Stream = void *; // a CUDA stream; the CPU ignores it

// Thrown where the device has no memory left.
struct DeviceOutOfMemory : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Functions of one kind of device, each for the thread that calls it. Streams and memory are those
// of the device that `use` named last.
struct Device {
    void (*require)(int index); // throws std::runtime_error where there is no such device
    int (*use)(int index); // returns whose turn it was before, -1 where that need not come back
    void (*use_again)(int before);
    void *(*allocate)(int64_t bytes); // throws DeviceOutOfMemory
    void (*release)(void *memory);
    void *(*allocate_pinned)(int64_t bytes); // the host's, for copies beside computing
    void (*release_pinned)(void *memory);
    int64_t (*free_bytes)(); // that allocate could still give
    Stream (*make_stream)();
    void (*end_stream)(Stream);
    // From or to the device, once all that was given to the stream is done. The host's memory must
    // stay as it is until then.
    void (*copy)(void *to, const void *from, int64_t bytes, Stream);
    void (*wait)(Stream); // until all that was given to the stream is done
    // A mark in a stream keeps the moment at which all that was given to it before is done.
    void *(*mark)(Stream);
    double (*seconds_between)(void *earlier, void *later); // marks that streams have come to
    void (*end_mark)(void *mark);
    // Keeps what the work gives to the stream, one of make_stream's, instead of doing it. The work
    // may neither wait nor allocate.
    void *(*record)(Stream, const std::function<void()> &work);
    void (*replay)(void *recorded, Stream); // gives all of it to the stream
    void (*end_recorded)(void *recorded);
    // The index of the device whose memory the pointer is to, -1 for any other.
    int (*owner)(const void *pointer);
};

// While it lives, its thread uses a device; whoever else has work in this thread finds their own
// in use afterwards.
class Using {
  public:
    Using(const Device *device, int index) // nothing where the device is the host
        : device_(device), before_(device ? device->use(index) : -1) {}
    ~Using() {
        if (before_ >= 0)
            device_->use_again(before_);
    }
    Using(const Using &) = delete;
    Using &operator=(const Using &) = delete;

  private:
    const Device *device_;
    int before_;
};

} // namespace relprop
