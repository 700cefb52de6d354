// Neurons whose Z- is scarce beside Z+ (see Contributions in kernels.hpp).
#pragma once

#include "contributions.hpp"
#include "simd.hpp"

namespace relprop::RELPROP_ISA {

// The sum of a neuron's negative contributions.
float negative_sum(const Contributions &of, int64_t row, int channel);

} // namespace relprop::RELPROP_ISA
