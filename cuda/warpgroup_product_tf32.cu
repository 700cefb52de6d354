// Hopper's products in TF32.
#include "warpgroup_product.cuh"

namespace relprop::cuda {

void warpgroup_product_tf32(const Product &p, Stream stream) {
    launch_warpgroup_product<Precision::tf32>(p, stream);
}

} // namespace relprop::cuda
