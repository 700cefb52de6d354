// What the runtime's calls share: each thread's error and its device.
#pragma once

#include "cuda_runtime.h"

namespace relprop::emulator {

constexpr int devices = 2; // so that the second is tested

cudaError_t result(cudaError_t); // returns it, and keeps it as the last error if it is one
cudaError_t require(bool good, cudaError_t otherwise);
int current_device();

} // namespace relprop::emulator
