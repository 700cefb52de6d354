// Products in TF32.
#include "product.cuh"

namespace relprop::cuda {

void product_tf32(const Product &p, Stream stream) { launch_product<Precision::tf32>(p, stream); }

} // namespace relprop::cuda
