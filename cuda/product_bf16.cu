// Products in bfloat16.
#include "product.cuh"

namespace relprop::cuda {

void product_bf16(const Product &p, Stream stream) { launch_product<Precision::bf16>(p, stream); }

} // namespace relprop::cuda
