// Neurons whose Z- is scarce beside Z+ (see Contributions in kernels.hpp).
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace relprop::RELPROP_ISA {

// Below this share of Z+ and the bias, z - b - Z+ has lost too much to rounding.
constexpr float scarce_share = 1.0f / 16;

// The sum of a neuron's negative contributions.
float negative_sum(const Contributions &of, int64_t row, int channel);

} // namespace relprop::RELPROP_ISA
