// Hopper's products in the precision of float32: six products of bfloat16.
#include "product_warpgroup.cuh"

namespace relprop::cuda {

void product_warpgroup_float32(const Product &p, Stream stream) {
    launch_product_by_warpgroups<Precision::float32>(p, stream);
}

std::vector<Cut> cuts_float32(const Product &p) { return cuts_of<Precision::float32>(p); }

} // namespace relprop::cuda
