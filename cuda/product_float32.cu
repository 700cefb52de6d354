// Products in the precision of float32: four products of TF32.
#include "product.cuh"

namespace relprop::cuda {

void product_float32(const Product &p, Stream stream) {
    launch_product<Precision::float32>(p, stream);
}

} // namespace relprop::cuda
