// Warps that work by themselves, and sums over the threads of a warp or a block, always in the same
// order.
#pragma once

#include "launch.cuh"

namespace relprop::cuda {

constexpr int warp_lanes = 32;
constexpr unsigned all_lanes = 0xffffffffu;

// The index of this warp among all of its launch, and of this thread in it.
__device__ __forceinline__ int64_t warp_index() { return thread_index() / warp_lanes; }
__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x) % warp_lanes; }

// Blocks of block_threads that hold so many warps; the last one may hold more.
inline int64_t blocks_of_warps(int64_t warps) {
    constexpr int64_t each = block_threads / warp_lanes;
    return (warps + each - 1) / each;
}

// The `lanes` neighbours of a warp of which this thread is one, as a mask.
template <int lanes> __device__ unsigned neighbours() {
    if constexpr (lanes == warp_lanes)
        return all_lanes;
    else
        return ((1u << lanes) - 1) << lane_index() / lanes * lanes;
}

// The sum over each `lanes` neighbours of a warp, in all of them; all that the mask names must call
// it.
template <int lanes = warp_lanes, class Number>
__device__ Number warp_sum(Number value, unsigned mask = all_lanes) {
    for (int by = lanes / 2; by > 0; by /= 2)
        value += __shfl_xor_sync(mask, value, by);
    return value;
}

// The sum over a block of whole warps, in its first thread; all threads must call it. `apart` is
// shared memory, one number for each warp, that nothing else uses.
template <class Number> __device__ Number block_sum(Number value, Number *apart) {
    const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
    value = warp_sum(value);
    if (lane_index() == 0)
        apart[warp] = value;
    __syncthreads();
    Number sum = 0;
    if (threadIdx.x == 0)
        for (int w = 0; w < static_cast<int>(blockDim.x) / warp_lanes; ++w)
            sum += apart[w];
    return sum;
}

} // namespace relprop::cuda
