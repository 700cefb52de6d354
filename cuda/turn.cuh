// Where the threads of a block are in the circle of stages.
#pragma once

#include <cuda_runtime.h>

namespace relprop::cuda {

template <class T> struct Turn {
    int stage = 0, time = 0; // how often it was this stage's turn before
    __device__ __forceinline__ void go_on() {
        if (++stage == T::stages) {
            stage = 0;
            ++time;
        }
    }
};

} // namespace relprop::cuda
