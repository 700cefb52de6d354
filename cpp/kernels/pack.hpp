// How weights are read where they are packed; see pack.cpp.
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace relprop::RELPROP_ISA {

constexpr int laid_at_once = 16; // channels read: what lies in one line of the cache

// to[tap * apart + r * width + c] is the weight of each tap of the kernel, of channel `first` + r
// read, r < count, and channel `channel` + c written, c < width; zero where that is beyond the
// last.
void lay_weights(const Packing &of, const float *weights, int group, int first, int count,
                 int channel, int width, float *to, int64_t apart);

} // namespace relprop::RELPROP_ISA
