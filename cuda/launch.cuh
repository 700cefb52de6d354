// Checked calls and checked launches. Included by every .cu file; nothing else in cuda/ starts a
// kernel, reads an error, or knows that the tests also run kernels on the host (RELPROP_EMULATED,
// tests/gpu/emulator).
#pragma once

#include <cstdint>
#include <string>

#include <cuda_runtime.h>

#ifdef RELPROP_EMULATED
#include "emulator.hpp"
#endif
#include "error.hpp"
#include "kernels.hpp"

namespace relprop {

// Throws CudaError unless `status` is success; `what` names the call or the kernel.
inline void require_success(cudaError_t status, const char *what, const char *file, int line) {
    if (status == cudaSuccess)
        return;
    cudaGetLastError(); // the error is told here; the next launch must not find it
    throw CudaError(std::string(what) + " (" + file + ":" + std::to_string(line) +
                    "): " + cudaGetErrorString(status) + ".");
}

#define RELPROP_CHECK(call) ::relprop::require_success((call), #call, __FILE__, __LINE__)

namespace cuda {

// What the current GPU says of itself.
inline int attribute_of_gpu(cudaDeviceAttr attribute) {
    int current = 0, value = 0;
    RELPROP_CHECK(cudaGetDevice(&current));
    RELPROP_CHECK(cudaDeviceGetAttribute(&value, attribute, current));
    return value;
}

inline int multiprocessors() { return attribute_of_gpu(cudaDevAttrMultiProcessorCount); }

} // namespace cuda

constexpr int block_threads = 256;

// The index of this thread among all of its launch; see RELPROP_LAUNCH.
__device__ __forceinline__ int64_t thread_index() {
    return static_cast<int64_t>(blockIdx.x) * block_threads + threadIdx.x;
}

// The block's dynamic shared memory, aligned to 1024 bytes; see RELPROP_LAUNCH_BLOCKS.
template <class T> __device__ __forceinline__ T *shared_memory() {
#ifdef RELPROP_EMULATED
    return static_cast<T *>(emulator::dynamic_shared());
#else
    extern __shared__ __align__(1024) unsigned char dynamic_shared[];
    return reinterpret_cast<T *>(dynamic_shared);
#endif
}

// Blocks of a launch, before it is known whether CUDA takes as many.
struct Grid {
    Grid(int64_t x_, int64_t y_ = 1, int64_t z_ = 1) : x(x_), y(y_), z(z_) {}
    Grid(const dim3 &blocks) : Grid(blocks.x, blocks.y, blocks.z) {}
    bool empty() const { return x <= 0 || y <= 0 || z <= 0; }
    bool too_large() const { return x > INT32_MAX || y > UINT16_MAX || z > UINT16_MAX; }
    int64_t x, y, z;
};

// kernel<<<grid, threads, shared_bytes, stream>>>(arguments...), checked. Threads that are not
// `cooperative` neither wait for each other nor exchange anything.
template <class... Arguments>
void launch(void (*kernel)(Arguments...), const Arguments &...arguments, const Grid &grid,
            const dim3 &threads, size_t shared_bytes, [[maybe_unused]] bool cooperative,
            Stream stream, const char *name, const char *file, int line) {
    if (grid.empty()) // an empty batch; CUDA refuses an empty grid
        return;
    if (grid.too_large())
        throw CudaError(std::string(name) + ": " + std::to_string(grid.x) + " x " +
                        std::to_string(grid.y) + " x " + std::to_string(grid.z) +
                        " blocks are too many for one launch; use smaller batches.");
    constexpr size_t unasked =
        48 * 1024;              // of dynamic shared memory; CUDA wants to be asked for more
    if (shared_bytes > unasked) // for all that there is: another thread's launch may need more
        require_success(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 cuda::attribute_of_gpu(cudaDevAttrMaxSharedMemoryPerBlockOptin)),
            name, file, line);
    const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                      static_cast<unsigned>(grid.z));
    const auto on = static_cast<cudaStream_t>(stream);
#ifdef RELPROP_EMULATED
    emulator::run(blocks, threads, shared_bytes, on, [=] { kernel(arguments...); }, cooperative);
#else
    kernel<<<blocks, threads, shared_bytes, on>>>(arguments...);
#endif
    require_success(cudaGetLastError(), name, file, line);
}

// One thread for each of `count` values; see RELPROP_LAUNCH.
template <class Arguments>
void launch_values(void (*kernel)(Arguments, int64_t), const Arguments &arguments, int64_t count,
                   Stream stream, const char *name, const char *file, int line) {
    const int64_t blocks = count / block_threads + (count % block_threads > 0);
    launch<Arguments, int64_t>(kernel, arguments, count, blocks, block_threads, 0, false, stream,
                               name, file, line);
}

// Blocks of threads that work together; see RELPROP_LAUNCH_BLOCKS.
template <class Arguments>
void launch_blocks(void (*kernel)(Arguments), const Arguments &arguments, const Grid &grid,
                   const dim3 &threads, size_t shared_bytes, Stream stream, const char *name,
                   const char *file, int line) {
    launch<Arguments>(kernel, arguments, grid, threads, shared_bytes, true, stream, name, file,
                      line);
}

} // namespace relprop

// kernel(arguments, count) with one thread for each of `count` values, which finds its own by
// thread_index().
#define RELPROP_LAUNCH(kernel, arguments, count, stream)                                           \
    ::relprop::launch_values(kernel, arguments, count, stream, #kernel, __FILE__, __LINE__)

// kernel(arguments) with a grid (a number of blocks or a dim3) of blocks of `threads` (a number or
// a dim3), which share `shared_bytes` found by shared_memory().
#define RELPROP_LAUNCH_BLOCKS(kernel, arguments, grid, threads, shared_bytes, stream)              \
    ::relprop::launch_blocks(kernel, arguments, grid, threads, shared_bytes, stream, #kernel,      \
                             __FILE__, __LINE__)
