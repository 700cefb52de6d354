// A tile of a product, which one block computes: its shape, and how it lies in shared memory.
#pragma once

#include <type_traits>

#include "arrival.cuh"
#include "depth.hpp"
#include "places.cuh"

namespace relprop::cuda {

// Slices after which the sums of a float32 product are set aside and begin anew: rounding then
// grows with the number of such runs, not of products.
constexpr int slices_of_run = 8;
template <Precision precision> constexpr bool sums_in_runs = precision == Precision::float32;

// rows: pixels; channels: of the destination, a multiple of chunk_channels. Slices are copied while
// those before them are multiplied: `stages` lie in shared memory at once. `blocks` are to fit a
// multiprocessor.
template <int rows_, int channels_, int warps_down_, int warps_across_, int stages_, int blocks_>
struct Tile {
    static constexpr int rows = rows_, channels = channels_;
    static constexpr int warps_across = warps_across_, warps = warps_down_ * warps_across_;
    static constexpr int threads = warps * 32, copiers = threads; // all of them copy
    static constexpr int stages = stages_, blocks = blocks_;
    static constexpr int rows_at_once = blocks > 1 ? 1 : 2; // see finish.cuh
    static constexpr bool by_warpgroups = false;
    template <Precision precision> static constexpr bool sets_aside = sums_in_runs<precision>;
    static constexpr int warp_rows = rows / warps_down_, warp_channels = channels / warps_across;
    static_assert(warp_rows % 16 == 0 && warp_channels % 8 == 0);
    __device__ static void sync() { __syncthreads(); }
};

// Packed weights in halves of a float for bfloat16.
template <Precision precision> struct WeightOf {
    using Type = float;
};
template <> struct WeightOf<Precision::bf16> {
    using Type = uint16_t;
};
template <Precision precision> using Weight = typename WeightOf<precision>::Type;

// In how many parts weights lie, and what a part of one is: warpgroups read a float32 as three
// bfloat16, which have all of its bits.
template <Precision precision, class T>
constexpr bool in_three = T::by_warpgroups && precision == Precision::float32;
template <Precision precision, class T> constexpr int parts_of = in_three<precision, T> ? 3 : 1;
template <Precision precision, class T>
using WeightPart = std::conditional_t<in_three<precision, T>, uint16_t, Weight<precision>>;

template <Precision precision, class T> struct Memory {
    static constexpr int sums_apart = T::channels + 8; // so that eight rows lie in other banks

    struct Stage {
        float pixels[T::rows * slice]; // by place_in_slice
        WeightPart<precision, T> weights[parts_of<precision, T>]
                                        [T::channels * slice]; // by WeightCopy
    };
    union {
        Stage stage[T::stages];
        float sums[T::rows * sums_apart];
    };
    float aside[T::template sets_aside<precision> ? T::rows * T::channels : 1]; // of each thread
    TilePlaces<T::rows> places;
    RowRead reads[T::rows];
    int64_t steps[most_marked_taps]; // by find_steps
    // of each stage, by warpgroups: a slice is there, and it is done with
    Arrival::Held there[T::stages], done[T::stages];
    bool last; // whether all other blocks of the tile are done
};

} // namespace relprop::cuda
