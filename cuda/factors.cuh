// Factors of a product in each precision, from the floats that shared memory holds. A lane takes
// four floats of a row at once: sums may run in any order, so that what an instruction calls the
// summed index t and t + 4 are neighbours in memory.
#pragma once

#include "kernels.hpp"
#include "mma.cuh"

namespace relprop::cuda {

// Four neighbours of one row: of a pixel's channels, or of the weights of one channel.
template <Precision> struct Four;

template <> struct Four<Precision::tf32> {
    uint32_t value[4];

    Four() = default;
    __device__ explicit Four(const float4 &of)
        : value{round_to_tf32(of.x), round_to_tf32(of.y), round_to_tf32(of.z),
                round_to_tf32(of.w)} {}
};

// What TF32 leaves of a float makes a second one: the two have 22 bits of its 24.
template <> struct Four<Precision::float32> {
    uint32_t big[4], small[4];

    Four() = default;
    __device__ explicit Four(const float4 &of) {
        const float whole[4] = {of.x, of.y, of.z, of.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            big[i] = to_tf32(whole[i]);
            small[i] = to_tf32(whole[i] - from_tf32(big[i]));
        }
    }
};

template <> struct Four<Precision::bf16> {
    uint32_t pair[2];

    Four() = default;
    __device__ explicit Four(const float4 &of) : pair{to_bf16(of.x, of.y), to_bf16(of.z, of.w)} {}
    __device__ Four(uint32_t first, uint32_t second) : pair{first, second} {}
};

// A float is the sum of three bfloat16: each takes the nearest of what those before it leave.
struct ThreeParts {
    uint32_t pair[3][2]; // of each part, of two neighbours the first in the lower half

    __device__ explicit ThreeParts(float4 of) {
#pragma unroll
        for (int part = 0; part < 3; ++part) {
            pair[part][0] = to_bf16(of.x, of.y);
            pair[part][1] = to_bf16(of.z, of.w);
            of.x -= lower_bf16(pair[part][0]);
            of.y -= upper_bf16(pair[part][0]);
            of.z -= lower_bf16(pair[part][1]);
            of.w -= upper_bf16(pair[part][1]);
        }
    }
};

// What a lane holds of eight products in a row of an instruction, from its fours of rows g and
// g + 8 and of column g.
__device__ __forceinline__ void multiply_pair(const uint32_t (&upper)[4],
                                              const uint32_t (&lower)[4],
                                              const uint32_t (&column)[4], int first,
                                              float (&sum)[4]) {
    multiply_tf32(sum, {upper[first], lower[first], upper[first + 1], lower[first + 1]},
                  {column[first], column[first + 1]});
}

// sum[16 x 8] += what these fours and those of the other lanes make: 16 products for each.
__device__ __forceinline__ void multiply(const Four<Precision::tf32> &upper,
                                         const Four<Precision::tf32> &lower,
                                         const Four<Precision::tf32> &column, float (&sum)[4]) {
    multiply_pair(upper.value, lower.value, column.value, 0, sum);
    multiply_pair(upper.value, lower.value, column.value, 2, sum);
}

// Tensor cores cut sums off instead of rounding them, which would add up over thousands of
// products: each run of 16 starts from zero, with its small parts, and joins the others by an
// addition that rounds. What small parts make with each other is about a float's last bit, and is
// missed where large sums cancel.
__device__ __forceinline__ void multiply(const Four<Precision::float32> &upper,
                                         const Four<Precision::float32> &lower,
                                         const Four<Precision::float32> &column, float (&sum)[4]) {
    float run[4] = {};
#pragma unroll
    for (int first = 0; first < 4; first += 2) {
        multiply_pair(upper.small, lower.small, column.small, first, run);
        multiply_pair(upper.small, lower.small, column.big, first, run);
        multiply_pair(upper.big, lower.big, column.small, first, run);
    }
#pragma unroll
    for (int first = 0; first < 4; first += 2)
        multiply_pair(upper.big, lower.big, column.big, first, run);
#pragma unroll
    for (int i = 0; i < 4; ++i)
        sum[i] += run[i];
}

__device__ __forceinline__ void multiply(const Four<Precision::bf16> &upper,
                                         const Four<Precision::bf16> &lower,
                                         const Four<Precision::bf16> &column, float (&sum)[4]) {
    multiply_bf16(sum, {upper.pair[0], lower.pair[0], upper.pair[1], lower.pair[1]}, column.pair);
}

} // namespace relprop::cuda
