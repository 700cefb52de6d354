// How product.cpp treats layers with few output channels; see narrow.cpp.
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace relprop::RELPROP_ISA {

bool is_narrow(int groups, int run, int out);
void narrow(const Product &p);
int64_t pack_narrow(const Packing &of, const float *weights, float *packed);

} // namespace relprop::RELPROP_ISA
