// The CUDA kernels that are there, as declared for CUDA's value of Kernels (backend.cu).
#pragma once

#include "kernels.hpp"

namespace relprop::cuda {

int64_t pack(const Packing &, const float *weights, float *packed);
int64_t pack_bf16(const Packing &, const float *weights, float *packed);
void product_float32(const Product &, Stream);
void product_tf32(const Product &, Stream);
void product_bf16(const Product &, Stream);
void depthwise(const Product &, Stream);

void max_pool(const Pool &, Stream);
void max_pool_relevance(const Pool &, Stream);
void average_pool(const Pool &, Stream);
void average_pool_relevance(const Pool &, Stream);

} // namespace relprop::cuda
