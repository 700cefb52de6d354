// A copy of a vector in the GPU's memory, while it lives: for the checks beside this file.
#pragma once

#include <vector>

#include "launch.cuh"

namespace relprop {

template <class T> class OnDevice {
  public:
    explicit OnDevice(const std::vector<T> &values) : bytes_(values.size() * sizeof(T)) {
        RELPROP_CHECK(cudaMalloc(&data_, bytes_ + 1)); // an empty vector has a place, too
        RELPROP_CHECK(cudaMemcpy(data_, values.data(), bytes_, cudaMemcpyHostToDevice));
    }
    OnDevice(const OnDevice &) = delete;
    OnDevice &operator=(const OnDevice &) = delete;
    ~OnDevice() { cudaFree(data_); }

    T *data() const { return static_cast<T *>(data_); }
    void read(std::vector<T> &values) const {
        RELPROP_CHECK(cudaMemcpy(values.data(), data_, bytes_, cudaMemcpyDeviceToHost));
    }

  private:
    size_t bytes_;
    void *data_ = nullptr;
};

} // namespace relprop
