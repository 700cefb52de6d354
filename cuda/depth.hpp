// How much of the summed index packed weights hold. Included by pack.cpp, which writes them, and by
// the products, which read them.
#pragma once

#include <cstdint>

#include "host_device.hpp"

namespace relprop::cuda {

// Floats of a row that a product holds in shared memory at once.
constexpr int slice = 32;

// Of a channel of packed weights: tap after tap, then zeros up to whole slices.
RELPROP_HD int64_t depth_of(int tap_count, int run) {
    return (static_cast<int64_t>(tap_count) * run + slice - 1) / slice * slice;
}

} // namespace relprop::cuda
