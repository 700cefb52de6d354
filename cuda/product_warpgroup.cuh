// The products of product.cuh by Hopper's warpgroups (sm_90a). A block computes a tile, and where
// there are too few tiles to keep a GPU busy, several blocks share one: each sums some parts of the
// summed dimension, and the last to be done adds them. Which parts there are, and so the order of
// the sums, depends on the layer alone. Included once for each precision
// (product_warpgroup_*.cu).
#pragma once

#include <limits>

#include "backend.cuh"
#include "gather.cuh"
#include "parts.hpp"
#include "product_parts.hpp"
#include "tiles.cuh"
#include "warpgroup_sums.cuh"

namespace relprop::cuda {

// ---- kernel

struct WarpgroupArguments {
    ProductArguments of;
    ProductParts parts;
    unsigned *arrived; // [tiles]  blocks that are done, where several share a tile; 0 before, after
    float *sums;       // [tiles][parts][floats of a tile]  their sums
};

// Leaves word that this block's parts are done, and returns whether all others' are.
__device__ inline bool arrives_last(unsigned &arrived, bool &last) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(&arrived, 1u) + 1 == gridDim.y;
        if (last)
            arrived = 0; // for the next product
    }
    __syncthreads();
    __threadfence();
    return last;
}

// The slice behind a part's last.
__device__ inline int end_of(const ProductParts &parts, int part, int slices) {
    return smaller((part + 1) * parts.slices, slices);
}

// Slices that are on their way to shared memory.
template <class T, class Sums> constexpr int slices_ahead = T::stages - 1 - Sums::under_way;

template <int set, Precision precision, class T, int width>
__device__ __forceinline__ void add_slice(SliceCopy<precision, T, width> &slices, int i,
                                          const Memory<precision, T> &memory,
                                          WarpgroupSums<precision, T> &sums) {
    constexpr int ahead = slices_ahead<T, WarpgroupSums<precision, T>>;
    static_assert(ahead >= 1);
    await_copies<ahead - 1>(); // the slice is there for this thread,
    show_to_tensor_cores();
    __syncthreads(); // for all of them, and those before it are done with
    slices.copy();
    const auto &stage = memory.stage[i % T::stages];
    sums.template add<set>(stage.pixels, stage.weights[0]);
}

template <Precision precision, class T, int width>
__global__ void __launch_bounds__(T::threads, T::blocks)
    warpgroup_kernel(const __grid_constant__ WarpgroupArguments a) {
#ifdef RELPROP_WARPGROUPS
    using Sums = WarpgroupSums<precision, T>;
    auto &memory = *shared_memory<Memory<precision, T>>();
    const TileAt at = tile_at<T>(a.of);
    find_tile<T>(a.of, at, memory.places, memory.reads);

    const int blocks = static_cast<int>(gridDim.y), block = static_cast<int>(blockIdx.y);
    const int first_part = block * a.parts.count / blocks;
    const int last_part = (block + 1) * a.parts.count / blocks;
    const int count = slices_of(a.of.product);

    Sums sums;
    int i = first_part * a.parts.slices;
    SliceCopy<precision, T, width> slices(a.of.product, memory, at, i,
                                          end_of(a.parts, last_part - 1, count));
    for (int copied = 0; copied < slices_ahead<T, Sums>; ++copied)
        slices.copy();
    // where parts' sums are kept: this block's own, one after the other in one place, or all
    float *kept = blocks == 1 ? memory.aside
                              : a.sums + static_cast<int64_t>(blockIdx.x) * a.parts.count *
                                             (T::rows * T::channels);
    for (int part = first_part; part < last_part; ++part) {
        const int end = end_of(a.parts, part, count);
        while (i + 1 < end) {
            add_slice<0>(slices, i++, memory, sums);
            add_slice<1>(slices, i++, memory, sums);
        }
        if (i < end)
            add_slice<0>(slices, i++, memory, sums);
        sums.finish();
        if constexpr (T::in_parts)
            sums.leave(blocks == 1 ? kept : kept + part * (T::rows * T::channels),
                       blocks == 1 && part > 0);
    }
    if constexpr (T::in_parts) {
        if (blocks > 1 && !arrives_last(a.arrived[blockIdx.x], memory.last))
            return;
        sums.take(kept, blocks == 1 ? 1 : a.parts.count);
    }
    await_copies<0>();
    __syncthreads(); // sums take the place of slices
    finish_product<T>(a.of, at, memory, sums);
#else
    __trap(); // never launched on other GPUs
#endif
}

// ---- launcher

// How a product is cut: into tiles of a shape, and each into so many blocks.
struct Cut {
    double cost = std::numeric_limits<double>::infinity();
    int blocks = 1; // of a tile
    void (*launch)(const Product &, int blocks, Stream) = nullptr;
};

template <Precision precision, class T>
void launch_warpgroup_tiles(const Product &p, int blocks, Stream stream) {
    constexpr auto by_four = warpgroup_kernel<precision, T, 4>,
                   by_one = warpgroup_kernel<precision, T, 1>;
    const auto kernel = by_fours(p) ? by_four : by_one;
    WarpgroupArguments arguments{arguments_of<T>(p), {1, slices_of(p)}, nullptr, nullptr};
    if (T::in_parts)
        arguments.parts = parts_of_product(p);
    if (blocks > 1) {
        arguments.arrived = reinterpret_cast<unsigned *>(p.scratch);
        arguments.sums = p.scratch + most_shared_tiles;
    }
    RELPROP_LAUNCH_BLOCKS(kernel, arguments, Grid(tiles<T>(p), blocks), T::threads,
                          sizeof(Memory<precision, T>), stream);
}

// Takes tiles of this shape where they cost less: waves of blocks, times what a block takes.
template <Precision precision, class T> void consider(const Product &p, int processors, Cut &best) {
    const ProductParts parts = parts_of_product(p);
    if (T::in_parts != (parts.count > 1) || !fits_shared(sizeof(Memory<precision, T>)))
        return;
    constexpr int start_and_end = 8; // of a block, in slices
    const int64_t count = tiles<T>(p);
    const bool shares = T::in_parts && p.scratch && count <= most_shared_tiles &&
                        count * parts.count * T::rows * T::channels <= most_shared_sums;
    for (int blocks = 1; blocks <= (shares ? parts.count : 1); ++blocks) {
        const auto waves = static_cast<double>((count * blocks + processors - 1) / processors);
        const int slices = ceil_div(parts.count, blocks) * parts.slices + start_and_end;
        const double cost = waves * slices * T::rows * T::channels / T::speed;
        if (cost < best.cost)
            best = {cost, blocks, launch_warpgroup_tiles<precision, T>};
    }
}

// The shapes among which each product finds its own. Speeds are shares of the tensor cores' rate in
// hundredths: predicted from what a tile reads of the second-level cache for each product, and to
// be measured.
template <class... T> struct TileShapes {};

template <Precision> struct TilesOf {
    using Shapes = TileShapes<
        WarpgroupTile<256, 128, 2, 1, 4, false, 100>, WarpgroupTile<256, 64, 2, 1, 4, false, 80>,
        WarpgroupTile<128, 128, 2, 1, 4, false, 80>, WarpgroupTile<128, 64, 2, 1, 4, false, 65>,
        WarpgroupTile<64, 64, 1, 1, 4, false, 50>, WarpgroupTile<128, 32, 2, 1, 4, false, 50>,
        WarpgroupTile<128, 128, 2, 1, 4, true, 75>, WarpgroupTile<64, 64, 1, 1, 4, true, 50>>;
};

// Twice the registers, and more of shared memory.
template <> struct TilesOf<Precision::float32> {
    using Shapes = TileShapes<
        WarpgroupTile<128, 128, 2, 1, 4, false, 80>, WarpgroupTile<128, 64, 2, 1, 4, false, 65>,
        WarpgroupTile<64, 64, 1, 1, 4, false, 50>, WarpgroupTile<128, 32, 2, 1, 4, false, 50>,
        WarpgroupTile<128, 128, 2, 1, 3, true, 75>, WarpgroupTile<64, 64, 1, 1, 4, true, 50>>;
};

template <Precision precision> using Tiles = typename TilesOf<precision>::Shapes;

template <Precision precision, class... T> Cut cut_of(const Product &p, TileShapes<T...>) {
    const int processors = attribute_of_gpu(cudaDevAttrMultiProcessorCount);
    Cut best;
    (consider<precision, T>(p, processors, best), ...);
    return best;
}

template <Precision precision> void launch_product_by_warpgroups(const Product &p, Stream stream) {
    if (pixels_of(p.grid, p.n).count == 0)
        return;
    run_parts(p, [&](const Product &part) {
        const Cut cut = cut_of<precision>(part, Tiles<precision>());
        cut.launch(part, cut.blocks, stream);
    });
}

} // namespace relprop::cuda
