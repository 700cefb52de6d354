// How the summed dimension of a layer with small images is cut into parts, which blocks may share.
// It depends on the layer alone, so that a value is summed in one order whatever the batch.
#pragma once

#include "depth.hpp"
#include "kernels.hpp"

namespace relprop::cuda {

// How many slices a product's sums run over.
RELPROP_HD int slices_of(const Product &p) {
    return p.sources * static_cast<int>(depth_of(p.grid.tap_count, p.run) / slice);
}

struct ProductParts {
    int count;
    int slices; // of a part; the last may have fewer
};

constexpr int least_slices_of_part = 16, most_parts = 16;
constexpr int64_t small_image = 100;          // pixels; of larger ones there are tiles enough
constexpr int64_t most_shared_sums = 4 << 20; // floats of blocks' sums that are kept

inline ProductParts parts_of_product(const Product &p) {
    const TapGrid &grid = p.grid;
    const int slices = slices_of(p);
    const int64_t pixels = int64_t{grid.size.z} * grid.size.y * grid.size.x;
    if (pixels > small_image || slices <= least_slices_of_part)
        return {1, slices};
    const int of_part = larger(ceil_div(slices, most_parts), least_slices_of_part);
    return {ceil_div(slices, of_part), of_part};
}

// Floats that a product may use for the sums of parts, whatever its batch.
inline int64_t scratch_of_product(const Product &p) {
    return parts_of_product(p).count > 1 ? most_shared_tiles + most_shared_sums : 0;
}

} // namespace relprop::cuda
