// Checked calls and checked launches. Included by every .cu file; nothing else in cuda/ starts a
// kernel or reads an error.
#pragma once

#include <cstdint>
#include <string>

#include <cuda_runtime.h>

#include "error.hpp"
#include "kernels.hpp"

namespace relprop {

// Throws CudaError unless `status` is success; `what` names the call or the kernel.
inline void require_success(cudaError_t status, const char *what, const char *file, int line) {
    if (status != cudaSuccess)
        throw CudaError(std::string(what) + " (" + file + ":" + std::to_string(line) +
                        "): " + cudaGetErrorString(status) + ".");
}

constexpr int block_threads = 256;

// The index of this thread among all of its launch.
__device__ __forceinline__ int64_t thread_index() {
    return static_cast<int64_t>(blockIdx.x) * block_threads + threadIdx.x;
}

// kernel<<<...>>>(arguments, count) with one thread for each of `count` values; see RELPROP_LAUNCH.
template <class Arguments>
void launch(void (*kernel)(Arguments, int64_t), const Arguments &arguments, int64_t count,
            Stream stream, const char *name, const char *file, int line) {
    if (count == 0) // an empty batch; CUDA refuses an empty grid
        return;
    const int64_t blocks = (count + block_threads - 1) / block_threads;
    if (blocks > INT32_MAX)
        throw CudaError(std::string(name) + ": " + std::to_string(count) +
                        " values are too many for one launch; use smaller batches.");
    kernel<<<static_cast<unsigned>(blocks), block_threads, 0, static_cast<cudaStream_t>(stream)>>>(
        arguments, count);
    require_success(cudaGetLastError(), name, file, line);
}

} // namespace relprop

#define RELPROP_CHECK(call) ::relprop::require_success((call), #call, __FILE__, __LINE__)
#define RELPROP_LAUNCH(kernel, arguments, count, stream)                                           \
    ::relprop::launch(kernel, arguments, count, stream, #kernel, __FILE__, __LINE__)
