// Hopper's products in the precision of float32: three products of TF32.
#include "warpgroup_product.cuh"

namespace relprop::cuda {

void warpgroup_product_float32(const Product &p, Stream stream) {
    launch_warpgroup_product<Precision::float32>(p, stream);
}

} // namespace relprop::cuda
