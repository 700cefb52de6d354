// Runs that a device has recorded. What a run gives to its stream, some 500 launches, is given
// again in one call.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "device.hpp"

namespace relprop {

// What RELPROP_GRAPHS says; throws std::runtime_error where that is odd.
bool wants_recordings();

// What some work gave to a stream.
class Recording {
  public:
    // Throws std::runtime_error where the device cannot record the work.
    Recording(const Device &device, Stream own, const std::function<void()> &work);
    ~Recording(); // once all work is done
    Recording(const Recording &) = delete;
    Recording &operator=(const Recording &) = delete;
    void replay(Stream stream) const { device_.replay(recorded_, stream); }

  private:
    const Device &device_;
    void *recorded_;
};

// The recordings of a few works, each known by all that its launches depend on: sizes, choices, and
// the addresses of what they read and write.
class Recordings {
  public:
    using Key = std::vector<uintptr_t>;
    static constexpr size_t most = 8;

    explicit Recordings(const Device &device) : device_(device) {}
    // Gives the work to the stream, first plainly, which loads kernels and may ask the device for
    // what no recording may; then as a recording, made on a stream of one's own (make_stream).
    void run(const Key &key, Stream own, Stream stream, const std::function<void(Stream)> &work);
    void forget() { known_.clear(); } // once all work is done

  private:
    struct Known {
        Key key;
        std::unique_ptr<Recording> recording; // null after the first run
    };
    const Device &device_;
    std::vector<Known> known_; // the last used last
};

} // namespace relprop
