// See memory.hpp.
#include "memory.hpp"

#include <cstring>

namespace relprop {

Memory::Memory(const Kernels &kernels, int64_t floats) : kernels_(kernels), floats_(floats) {
    if (!kernels.device) {
        pages_ = std::make_unique<Pages>(floats);
        data_ = pages_->data();
        return;
    }
    const Using device(kernels.device, kernels.device_index);
    data_ = static_cast<float *>(
        kernels.device->allocate(floats * static_cast<int64_t>(sizeof(float))));
}

Memory::~Memory() {
    if (kernels_.device)
        kernels_.device->release(data_);
}

void Memory::fill(const void *from, int64_t bytes) {
    if (!kernels_.device) {
        std::memcpy(data_, from, static_cast<size_t>(bytes));
        return;
    }
    const Using device(kernels_.device, kernels_.device_index);
    kernels_.device->copy(data_, from, bytes, nullptr);
    kernels_.device->wait(nullptr);
}

} // namespace relprop
