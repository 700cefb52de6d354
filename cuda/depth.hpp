// The order of the summed index, of which packed weights hold all, and of a slice of it in shared
// memory. Included by pack.cpp, which writes weights, and by the products, which read them.
#pragma once

#include <cstdint>

#include "host_device.hpp"

namespace relprop::cuda {

// Floats of a row that a product holds in shared memory at once.
constexpr int slice = 32;

// Of a channel of packed weights: what all taps read, then zeros up to whole slices.
RELPROP_HD int64_t depth_of(int tap_count, int run) {
    return (static_cast<int64_t>(tap_count) * run + slice - 1) / slice * slice;
}

// Whether one slice after the other goes through all taps, so that what neighbouring taps read
// again is near, or one tap after the other through all that it reads.
RELPROP_HD bool taps_first(int tap_count, int run) { return tap_count > 1 && run % slice == 0; }

// Where float k of what a tap reads lies in the depth.
RELPROP_HD int64_t place_in_depth(int tap_count, int run, int tap, int k) {
    if (taps_first(tap_count, run))
        return (static_cast<int64_t>(k / slice) * tap_count + tap) * slice + k % slice;
    return static_cast<int64_t>(tap) * run + k;
}

// The float `k` of a slice of a row, a slice being one line of shared memory's banks. Four floats
// in a row stay together and change places with others by the row's number, so that the eight rows
// that a warp reads at once lie in other banks.
RELPROP_HD constexpr int place_in_slice(int row, int k) {
    return row * slice + ((k / 4) ^ (row % 8)) * 4 + k % 4;
}

// The bfloat16 `k` of a slice of a row, as a warpgroup reads it: eight stay together, and two rows
// are one line of the banks.
RELPROP_HD constexpr int place_in_half_slice(int row, int k) {
    return row * slice + ((k / 8) ^ (row / 2 % 4)) * 8 + k % 8;
}

} // namespace relprop::cuda
