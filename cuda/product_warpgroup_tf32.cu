// Hopper's products in TF32.
#include "product_warpgroup.cuh"

namespace relprop::cuda {

void product_warpgroup_tf32(const Product &p, Stream stream) {
    launch_product_by_warpgroups<Precision::tf32>(p, stream);
}

std::vector<Cut> cuts_tf32(const Product &p) { return cuts_of<Precision::tf32>(p); }

} // namespace relprop::cuda
