// The CUDA kernels, as declared for CUDA's values of Kernels (backend.cu).
#pragma once

#include "kernels.hpp"

namespace relprop::cuda {

#include "kernel_functions.hpp"

extern const Device device;

// by Precision
int64_t pack(const Packing &, const float *weights, float *packed); // float32 and TF32
int64_t pack_bf16(const Packing &, const float *weights, float *packed);
void product_float32(const Product &, Stream);
void product_tf32(const Product &, Stream);
void product_bf16(const Product &, Stream);

// the same on Hopper, by warpgroups
int64_t pack_warpgroup_float32(const Packing &, const float *weights, float *packed);
int64_t pack_warpgroup_tf32(const Packing &, const float *weights, float *packed);
int64_t pack_warpgroup_bf16(const Packing &, const float *weights, float *packed);
void product_warpgroup_float32(const Product &, Stream);
void product_warpgroup_tf32(const Product &, Stream);
void product_warpgroup_bf16(const Product &, Stream);

} // namespace relprop::cuda
