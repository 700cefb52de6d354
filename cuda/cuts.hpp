// The ways in which Hopper's products (product_warpgroup.cuh) may be cut into blocks.
#pragma once

#include <limits>
#include <vector>

#include "kernels.hpp"

namespace relprop::cuda {

// Tiles of one shape, each by so many blocks.
struct Cut {
    double cost = std::numeric_limits<double>::infinity(); // predicted; see cost_of
    int rows = 0, channels = 0;                            // of a tile
    bool patches = false;                                  // a tile's pixels are copied once
    int blocks = 1;                                        // of a tile
    void (*launch)(const Product &, int blocks, Stream) = nullptr;
};

// All that a product of one part can have on this GPU. Each gives the same bits.
std::vector<Cut> cuts_float32(const Product &);
std::vector<Cut> cuts_tf32(const Product &);
std::vector<Cut> cuts_bf16(const Product &);

} // namespace relprop::cuda
