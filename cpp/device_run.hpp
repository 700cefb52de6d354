// A Plan's run on a device: samples go through lanes, each with a stream and memory of its own, so
// that one copies while another computes.
#pragma once

#include <memory>

#include "plan.hpp"
#include "recording.hpp"

namespace relprop {

// Memory of the host that a device copies from and to beside computing.
class Pinned {
  public:
    Pinned(const Device &device, int64_t bytes);
    ~Pinned();
    Pinned(const Pinned &) = delete;
    Pinned &operator=(const Pinned &) = delete;
    char *data() const { return data_; }
    int64_t bytes() const { return bytes_; }

  private:
    const Device &device_;
    int64_t bytes_;
    char *data_;
};

// What a run of up to so many samples needs, kept by the Plan for the next one.
class Lane {
  public:
    explicit Lane(const Kernels &kernels);
    ~Lane(); // once all work is done
    Lane(const Lane &) = delete;
    Lane &operator=(const Lane &) = delete;
    // Makes room; throws DeviceOutOfMemory.
    void reserve(int64_t arena_floats, int64_t bytes, int64_t pinned_bytes);

    const Kernels &kernels;
    Stream stream;
    std::unique_ptr<Memory> arena;
    std::unique_ptr<Memory> arrays; // of the request, as far as the device has to have them
    std::unique_ptr<Pinned> pinned; // and what of them comes from the host or goes there
    Recordings recordings;          // of runs in this memory
};

// Throws what Plan::run throws.
void run_on_device(const Plan &plan, const Request &request);

} // namespace relprop
