// Memory of a backend: of the host, in huge pages where they fit, or of its device. Nobody fills it
// before its owner does.
#pragma once

#include <memory>
#include <vector>

#include "kernels.hpp"
#include "pages.hpp"

namespace relprop {

class Memory {
  public:
    Memory(const Kernels &kernels, int64_t floats); // throws std::bad_alloc, DeviceOutOfMemory
    ~Memory();
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;

    float *data() const { return data_; }
    int64_t floats() const { return floats_; }
    void fill(const void *from, int64_t bytes); // with bytes of the host; done when it returns

  private:
    const Kernels &kernels_;
    int64_t floats_;
    std::unique_ptr<Pages> pages_; // null where a device has it
    float *data_ = nullptr;
};

// Constants that a step's kernels read, in the memory of their backend.
template <class T> class Resident {
  public:
    Resident() = default;
    Resident(const Kernels &kernels, std::vector<T> values) : size_(values.size()) {
        if (!kernels.device) {
            host_ = std::move(values);
        } else if (size_ > 0) {
            const auto bytes = static_cast<int64_t>(size_ * sizeof(T));
            memory_ = std::make_unique<Memory>(kernels, (bytes + 3) / 4);
            memory_->fill(values.data(), bytes);
        }
    }
    // Null where there are none.
    const T *data() const {
        if (memory_)
            return reinterpret_cast<const T *>(memory_->data());
        return host_.empty() ? nullptr : host_.data();
    }
    size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }

  private:
    size_t size_ = 0;
    std::vector<T> host_;
    std::unique_ptr<Memory> memory_;
};

} // namespace relprop
