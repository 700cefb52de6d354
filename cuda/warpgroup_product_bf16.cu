// Hopper's products in bfloat16.
#include "warpgroup_product.cuh"

namespace relprop::cuda {

void warpgroup_product_bf16(const Product &p, Stream stream) {
    launch_warpgroup_product<Precision::bf16>(p, stream);
}

} // namespace relprop::cuda
