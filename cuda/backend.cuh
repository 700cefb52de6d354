// The CUDA kernels that are there, as declared for CUDA's value of Kernels (backend.cu).
#pragma once

#include "kernels.hpp"

namespace relprop::cuda {

void max_pool(const Pool &, Stream);
void max_pool_relevance(const Pool &, Stream);
void average_pool(const Pool &, Stream);
void average_pool_relevance(const Pool &, Stream);

} // namespace relprop::cuda
