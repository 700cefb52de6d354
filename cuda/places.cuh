// Where the pixels lie that a block computes.
#pragma once

#include <cuda_runtime.h>

#include "kernels.hpp"

namespace relprop::cuda {

// Where the pixels of a tile's rows lie.
template <int rows> struct TilePlaces {
    int64_t from[rows]; // offset in the source of what a tap at 0, 0, 0 reads first
    int64_t to[rows];   // row of the destination, -1 beyond the last
    Pixel at[rows];     // pixel of the source under a tap at 0, 0, 0
};

// No tap leads into the image from here, nor does this as a tap lead into it.
constexpr int nowhere = INT32_MIN / 2;

// What finding them takes, of a grid and a batch.
struct Pixels {
    Places grid; // divisors of its size
    int64_t count;
};

inline Pixels pixels_of(const TapGrid &grid, int64_t n) {
    return {places_of({grid.size.z, grid.size.y, grid.size.x, 1}),
            n * grid.size.z * grid.size.y * grid.size.x};
}

// Finds the places of a tile's pixels, of which the first is number `first` of all; they are read
// from channel `channel` on.
template <int rows>
__device__ void find_places(const TapGrid &grid, const Pixels &pixels, int64_t first, int channel,
                            TilePlaces<rows> &places) {
    for (int row = threadIdx.x; row < rows; row += blockDim.x) {
        const bool real = first + row < pixels.count;
        const Place place = place_by(real ? first + row : 0, pixels.grid);
        const Pixel at = moved(place.at, grid.step, {});
        places.from[row] = row_of(grid.from, place.n, at) * grid.from.channels + channel;
        places.at[row] = real ? at : Pixel{nowhere, nowhere, nowhere};
        places.to[row] =
            real ? row_of(grid.to, place.n, moved(place.at, grid.out_step, grid.out)) : -1;
    }
}

// A row of a tile, as its pixels are copied: where a tap at 0, 0, 0 reads first, in bytes from the
// source, and which taps lead from its pixel into the image, as bits, so that nobody computes that
// again for each slice. Of more taps than a number has bits, the first.
struct alignas(16) RowRead {
    int64_t from;
    uint64_t taps;
};

constexpr int most_marked_taps = 64;

template <int rows>
__device__ void find_reads(const TapGrid &grid, const TilePlaces<rows> &places,
                           RowRead (&reads)[rows]) {
    const int count = smaller(grid.tap_count, most_marked_taps);
    for (int row = threadIdx.x; row < rows; row += blockDim.x) {
        uint64_t taps = 0;
        for (int t = 0; t < count; ++t)
            taps |= uint64_t{inside(grid.from, moved(places.at[row], {1, 1, 1}, grid.taps[t]))}
                    << t;
        reads[row] = {places.from[row] * static_cast<int64_t>(sizeof(float)), taps};
    }
}

// How far a tap leads from what a tap at 0, 0, 0 reads, in floats.
inline __device__ int64_t step_of(const TapGrid &grid, int tap) {
    return row_of(grid.from, 0, grid.taps[tap]) * grid.from.channels;
}

// Of the taps that have bits.
inline __device__ void find_steps(const TapGrid &grid, int64_t (&steps)[most_marked_taps]) {
    const int count = smaller(grid.tap_count, most_marked_taps);
    for (int tap = threadIdx.x; tap < count; tap += blockDim.x)
        steps[tap] = step_of(grid, tap);
}

} // namespace relprop::cuda
