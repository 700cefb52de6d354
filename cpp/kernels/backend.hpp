// The kernels of one instruction set, as declared for its value of Kernels.
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace relprop::RELPROP_ISA {

#include "kernel_functions.hpp"

int64_t pack(const Packing &, const float *weights, float *packed);
void product(const Product &, Stream);
int64_t product_scratch(const Product &);
void dense(const Product &, Stream);
void dense_adjoint(const Product &, Stream);
bool selects(const TapGrid &, int run);
int winograd_outputs(const TapGrid &, int run);
int64_t winograd_pack(const Packing &, int outputs, const float *weights, float *packed);
void winograd(const Product &, int outputs, Stream);
int64_t multiply_adds(int64_t rounds, Stream);

} // namespace relprop::RELPROP_ISA
