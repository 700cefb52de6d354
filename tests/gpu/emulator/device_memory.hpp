// The memory of the emulated devices: out of reach of the host, so that code which reads a device's
// pointer as its own crashes here as it would beside a GPU, but while kernels and copies have
// access.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

namespace relprop::emulator {

// While one lives, every thread reaches the memory of every device.
class Access {
  public:
    Access();
    ~Access();
    Access(const Access &) = delete;
    Access &operator=(const Access &) = delete;
};

// One device's memory. Its methods are for one thread at a time.
class DeviceMemory {
  public:
    explicit DeviceMemory(size_t bytes);
    size_t size() const { return size_; }
    size_t used() const { return used_; }

    void *allocate(size_t bytes);     // begins as NaN; null where there is no room
    bool release(const void *memory); // whether it was the beginning of an allocation
    // The bytes from a pointer to the end of its allocation, 0 where it points into none.
    size_t room(const void *pointer) const;
    // Whether no kernel wrote right behind an allocation.
    bool intact() const;

  private:
    using Allocations = std::map<uintptr_t, size_t>; // sizes by beginnings

    Allocations allocations_;
    uintptr_t begin_;
    size_t size_;
    size_t used_ = 0;
};

} // namespace relprop::emulator
