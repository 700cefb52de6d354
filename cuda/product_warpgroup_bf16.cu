// Hopper's products in bfloat16.
#include "product_warpgroup.cuh"

namespace relprop::cuda {

void product_warpgroup_bf16(const Product &p, Stream stream) {
    launch_product_by_warpgroups<Precision::bf16>(p, stream);
}

std::vector<Cut> cuts_bf16(const Product &p) { return cuts_of<Precision::bf16>(p); }

} // namespace relprop::cuda
