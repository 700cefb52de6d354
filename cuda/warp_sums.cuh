// The sums of a tile while they grow, in the registers of its warps.
#pragma once

#include "factors.cuh"
#include "tile.cuh"

namespace relprop::cuda {

// Four weights of a row of a slice, from its float k on.
template <Precision precision>
__device__ __forceinline__ Four<precision> weights_at(const float *weights, int row, int k) {
    return Four<precision>(*reinterpret_cast<const float4 *>(weights + place_in_slice(row, k)));
}

// Rows of bfloat16 are short: lanes that read 16 bytes at once meet in no bank as they are.
template <Precision>
__device__ __forceinline__ Four<Precision::bf16> weights_at(const uint16_t *weights, int row,
                                                            int k) {
    const uint4 eight = *reinterpret_cast<const uint4 *>(weights + row * slice + k / 8 * 8);
    return k % 8 == 0 ? Four<Precision::bf16>(eight.x, eight.y)
                      : Four<Precision::bf16>(eight.z, eight.w);
}

// What a lane holds: of each 16 rows and 8 channels of its warp what mma.cuh says.
template <Precision precision, class T> class WarpSums {
  public:
    __device__ WarpSums()
        : row_(threadIdx.x / 32 / T::warps_across * T::warp_rows + threadIdx.x % 32 / 4),
          channel_(threadIdx.x / 32 % T::warps_across * T::warp_channels), lane_(threadIdx.x % 32) {
    }

    // Adds the products of one slice.
    __device__ __forceinline__ void add(const float *pixels, const Weight<precision> *weights) {
#pragma unroll halves
        for (int half = 0; half < 8; half += 4) {
            const int k = lane_ % 4 * 8 + half;
            Four<precision> upper[down], lower[down];
#pragma unroll
            for (int i = 0; i < down; ++i) {
                upper[i] = pixels_at(pixels, row_ + i * 16, k);
                lower[i] = pixels_at(pixels, row_ + i * 16 + 8, k);
            }
#pragma unroll
            for (int j = 0; j < across; ++j) {
                const Four<precision> column =
                    weights_at<precision>(weights, channel_ + j * 8 + lane_ / 4, k);
#pragma unroll
                for (int i = 0; i < down; ++i)
                    multiply(upper[i], lower[i], column, sums_[i][j]);
            }
        }
    }

    // Adds the sums to what was set aside, if there is any, and begins anew.
    __device__ __forceinline__ void set_aside(float *aside, bool any) {
        each([&](float &sum, int i) {
            float &total = aside[i * T::threads + threadIdx.x];
            total = any ? total + sum : sum;
            sum = 0.0f;
        });
    }

    __device__ __forceinline__ void take_back(const float *aside) {
        each([&](float &sum, int i) { sum = aside[i * T::threads + threadIdx.x] + sum; });
    }

    // Writes them to shared memory: [rows][apart].
    __device__ __forceinline__ void store(float *to, int apart) const {
#pragma unroll
        for (int i = 0; i < down; ++i)
#pragma unroll
            for (int j = 0; j < across; ++j) {
                float *at = to + (row_ + i * 16) * apart + channel_ + j * 8 + lane_ % 4 * 2;
                *reinterpret_cast<float2 *>(at) = {sums_[i][j][0], sums_[i][j][1]};
                *reinterpret_cast<float2 *>(at + 8 * apart) = {sums_[i][j][2], sums_[i][j][3]};
            }
    }

  private:
    // what two halves of a slice take at once, where each is in two parts, no registers hold
    static constexpr int halves = precision == Precision::float32 ? 1 : 2;
    static constexpr int down = T::warp_rows / 16, across = T::warp_channels / 8;

    __device__ static __forceinline__ Four<precision> pixels_at(const float *pixels, int row,
                                                                int k) {
        return Four<precision>(*reinterpret_cast<const float4 *>(pixels + place_in_slice(row, k)));
    }

    // Calls body(sum, its number).
    template <class Body> __device__ __forceinline__ void each(const Body &body) {
#pragma unroll
        for (int i = 0; i < down; ++i)
#pragma unroll
            for (int j = 0; j < across; ++j)
#pragma unroll
                for (int k = 0; k < 4; ++k)
                    body(sums_[i][j][k], (i * across + j) * 4 + k);
    }

    int row_, channel_; // the lane's first row, the warp's first channel
    int lane_;
    float sums_[down][across][4] = {};
};

} // namespace relprop::cuda
