// The products of product.cuh by Hopper's warpgroups (sm_90a). A block computes a tile, and where
// there are too few tiles to keep a GPU busy, several blocks share one: each sums some parts of the
// summed dimension, and the last to be done adds them. Which parts there are, and so the order of
// the sums, depends on the layer alone. Included once for each precision
// (product_warpgroup_*.cu).
#pragma once

#include "backend.cuh"
#include "cuts.hpp"
#include "gather.cuh"
#include "parts.hpp"
#include "patches.cuh"
#include "product_parts.hpp"
#include "slice_sums.cuh"
#include "tiles.cuh"
#include "turn.cuh"
#include "whole_slices.cuh"

namespace relprop::cuda {

// ---- kernel

struct WarpgroupArguments {
    ProductArguments of;
    ProductParts parts;
    bool whole_slices; // see whole_slices.cuh
    unsigned *arrived; // [tiles]  blocks that are done, where several share a tile; 0 before, after
    float *sums;       // [tiles][parts][floats of a tile]  their sums
};

// Leaves word that this block's parts are done, and returns whether all others' are.
template <class T> __device__ bool arrives_last(unsigned &arrived, bool &last) {
    __threadfence();
    sync_first<T::threads>();
    if (threadIdx.x == 0) {
        last = atomicAdd(&arrived, 1u) + 1 == gridDim.y;
        if (last)
            arrived = 0; // for the next product
    }
    sync_first<T::threads>();
    __threadfence();
    return last;
}

// The slice behind a part's last.
__device__ inline int end_of(const ProductParts &parts, int part, int slices) {
    return smaller((part + 1) * parts.slices, slices);
}

// Slices [first, last), `width` floats at a time.
template <int width, Precision precision, class T>
__device__ __forceinline__ void copy_by(const Product &p, Memory<precision, T> &memory,
                                        const TileAt &at, int first, int last) {
    SliceCopy<precision, T, width> slices(p, memory, at, first, last);
    const SharedAt there = shared_at(memory.there), done = shared_at(memory.done);
    for (Turn<T> turn; slices.left(); turn.go_on()) {
        if (turn.time > 0)
            Arrival(done, turn.stage).await(turn.time - 1);
        slices.copy(turn.stage);
        Arrival(there, turn.stage).arrive_with_copies();
    }
}

// The same, by the group that copies, which asks for the width itself (see product_kernel).
template <Precision precision, class T>
__device__ __forceinline__ void copy_slices(const WarpgroupArguments &a,
                                            Memory<precision, T> &memory, const TileAt &at,
                                            int first, int last) {
    const Product &p = a.of.product;
    if (a.whole_slices)
        WholeSliceCopy<precision, T>(p, memory, at).copy(first, last);
    else if (a.of.by_fours)
        copy_by<4>(p, memory, at, first, last);
    else
        copy_by<1>(p, memory, at, first, last);
    ask_for_end(a.of.epilogue, channels_of<T>(p, at), memory.places,
                static_cast<int>(threadIdx.x) - T::threads, T::copiers);
    close_copies();
    await_copies<0>(); // they must not outlive their threads
}

// A block's share of a tile's parts.
struct Share {
    int first, last;
};

// Adds a block's share of a tile, and finishes the tile where all is added.
template <Precision precision, class T>
__device__ __forceinline__ void compute_tile(const WarpgroupArguments &a, const Share &share,
                                             const TileAt &at, Memory<precision, T> &memory) {
    const int blocks = static_cast<int>(gridDim.y), count = slices_of(a.of.product);
    using Own = Memory<precision, T>;
    SliceSums<precision, T, Own, SlicePixels<Own>> slices(memory, {memory});
    // where parts' sums are kept: this block's own, one after the other in one place, or all
    float *kept = blocks == 1 ? memory.aside
                              : a.sums + static_cast<int64_t>(blockIdx.x) * a.parts.count *
                                             (T::rows * T::channels);
    for (int part = share.first; part < share.last; ++part) {
        slices.add(end_of(a.parts, part, count) - part * a.parts.slices);
        if constexpr (T::in_parts)
            slices.sums.leave(blocks == 1 ? kept : kept + part * (T::rows * T::channels),
                              blocks == 1 && part > 0);
    }
    if constexpr (T::in_parts) {
        if (blocks > 1 && !arrives_last<T>(a.arrived[blockIdx.x], memory.last))
            return;
        slices.sums.take(kept, blocks == 1 ? 1 : a.parts.count);
    }
    T::sync(); // sums take the place of slices
    finish_product<T>(a.of, at, memory, slices.sums);
}

template <Precision precision, class T>
__global__ void __launch_bounds__(T::threads + T::copiers, T::blocks)
    warpgroup_kernel(const __grid_constant__ WarpgroupArguments a) {
#ifdef RELPROP_WARPGROUPS
    auto &memory = *shared_memory<Memory<precision, T>>();
    const TileAt at = tile_at<T>(a.of);
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < T::stages; ++stage) {
            Arrival(shared_at(memory.there), stage).begin(T::copiers + 1);
            Arrival(shared_at(memory.done), stage).begin(T::warps);
        }
        show_to_tensor_cores();
    }
    find_tile<T>(a.of, at, memory);

    const int blocks = static_cast<int>(gridDim.y), block = static_cast<int>(blockIdx.y);
    const Share share = {block * a.parts.count / blocks, (block + 1) * a.parts.count / blocks};
    // alike in a warp, and the compiler knows it
    const int warp = __shfl_sync(all_lanes, static_cast<int>(threadIdx.x) / warp_lanes, 0);
    if (warp >= T::warps) {
        give_registers<T::of_copiers>();
        copy_slices(a, memory, at, share.first * a.parts.slices,
                    end_of(a.parts, share.last - 1, slices_of(a.of.product)));
    } else {
        take_registers<T::of_computing>();
        compute_tile(a, share, at, memory);
    }
#else
    __trap(); // never launched on other GPUs
#endif
}

// ---- launcher

template <Precision precision, class T>
void launch_warpgroup_tiles(const Product &p, int blocks, Stream stream) {
    WarpgroupArguments arguments{
        arguments_of<T>(p), {1, slices_of(p)}, has_whole_slices<T>(p), nullptr, nullptr};
    if (T::in_parts)
        arguments.parts = parts_of_product(p);
    if (blocks > 1) {
        arguments.arrived = reinterpret_cast<unsigned *>(p.scratch);
        arguments.sums = p.scratch + most_shared_tiles;
    }
    constexpr auto kernel = warpgroup_kernel<precision, T>;
    RELPROP_LAUNCH_BLOCKS(kernel, arguments, Grid(tiles<T>(p), blocks), T::threads + T::copiers,
                          sizeof(Memory<precision, T>), stream);
}

// Whether blocks may share tiles of this shape: there is room for their sums.
template <class T> bool may_share(const Product &p) {
    const int64_t count = tiles<T>(p);
    return T::in_parts && p.scratch && count <= most_shared_tiles &&
           count * parts_of_product(p).count * T::rows * T::channels <= most_shared_sums;
}

// Waves of blocks, times what a block takes.
template <class T> double cost_of(int64_t blocks, int slices, int processors) {
    constexpr int start_and_end = 8; // of a block, in slices
    const int64_t at_once = int64_t{processors} * T::blocks;
    const auto waves = static_cast<double>((blocks + at_once - 1) / at_once);
    return waves * T::blocks * (slices + start_and_end) * T::rows * T::channels / T::speed;
}

template <Precision precision, class T>
void launch_patch_tiles(const Product &p, int, Stream stream) {
    launch_patches<precision, T>(p, stream);
}

template <Precision precision, class T, class Visit>
void each_cut_into_patches(const Product &p, int processors, const Visit &visit) {
    if (!has_patches(p) || parts_of_product(p).count > 1 ||
        !fits_shared(sizeof(PatchMemory<precision, T>)))
        return;
    const double cost = cost_of<T>(p.n * patch_tiles<T>(p).size(), slices_of(p), processors);
    visit(Cut{cost, T::rows, T::channels, true, 1, launch_patch_tiles<precision, T>});
}

template <Precision precision, class T, class Visit>
void each_cut_into_slices(const Product &p, int processors, const Visit &visit) {
    const ProductParts parts = parts_of_product(p);
    if (T::in_parts != (parts.count > 1) || !fits_shared(sizeof(Memory<precision, T>)))
        return;
    const int64_t count = tiles<T>(p);
    const int most_blocks = may_share<T>(p) ? parts.count : 1;
    for (int blocks = 1; blocks <= most_blocks; ++blocks) {
        const int slices = ceil_div(parts.count, blocks) * parts.slices;
        const double cost = cost_of<T>(count * blocks, slices, processors);
        visit(Cut{cost, T::rows, T::channels, false, blocks, launch_warpgroup_tiles<precision, T>});
    }
}

template <Precision precision, class T, class Visit>
void each_cut_of_shape(const Product &p, int processors, const Visit &visit) {
    if constexpr (T::way == TileWay::patches)
        each_cut_into_patches<precision, T>(p, processors, visit);
    else
        each_cut_into_slices<precision, T>(p, processors, visit);
}

// The shapes among which each product finds its own. Speeds are hundredths of what large products
// reach in TF32, measured on an H100 in layers of 512 channels
// (benchmarks/ladder/product_tiles.cu). Those of patches were predicted, and measured to choose
// them where they are fastest, and nowhere else, on an H200.
template <class... T> struct TileShapes {};

template <Precision> struct TilesOf {
    using Shapes = TileShapes<
        WarpgroupTile<128, 256, 2, 1, 4, false, 93>, WarpgroupTile<256, 128, 2, 1, 4, false, 77>,
        WarpgroupTile<64, 128, 1, 1, 4, false, 56, 2>, WarpgroupTile<256, 64, 2, 1, 4, false, 48>,
        WarpgroupTile<64, 64, 1, 1, 4, false, 41, 2>, WarpgroupTile<128, 32, 1, 1, 4, false, 31, 2>,
        WarpgroupTile<128, 128, 2, 1, 4, true, 52>, WarpgroupTile<64, 64, 1, 1, 4, true, 36, 2>,
        PatchTile<16, 16, 128, 2, 4, 85>, PatchTile<8, 16, 64, 1, 4, 60, 2>>;
};

// Twice the registers, and more of shared memory. Speeds are hundredths of the first's, measured
// when float32 took three products of TF32.
template <> struct TilesOf<Precision::float32> {
    using Shapes = TileShapes<
        WarpgroupTile<128, 128, 2, 1, 4, false, 100>, WarpgroupTile<128, 64, 2, 1, 4, false, 76>,
        WarpgroupTile<64, 64, 1, 1, 4, false, 77, 2>, WarpgroupTile<128, 32, 1, 1, 4, false, 60, 2>,
        WarpgroupTile<128, 128, 2, 1, 3, true, 77>, WarpgroupTile<64, 64, 1, 1, 3, true, 71, 2>>;
};

template <Precision precision> using Tiles = typename TilesOf<precision>::Shapes;

template <Precision precision, class Visit, class... T>
void each_cut(const Product &p, const Visit &visit, TileShapes<T...>) {
    const int processors = multiprocessors();
    (each_cut_of_shape<precision, T>(p, processors, visit), ...);
}

template <Precision precision> std::vector<Cut> cuts_of(const Product &p) {
    std::vector<Cut> cuts;
    each_cut<precision>(p, [&](const Cut &cut) { cuts.push_back(cut); }, Tiles<precision>());
    return cuts;
}

template <Precision precision> Cut cheapest_cut(const Product &p) {
    Cut best;
    each_cut<precision>(
        p,
        [&](const Cut &cut) {
            if (cut.cost < best.cost)
                best = cut;
        },
        Tiles<precision>());
    return best;
}

template <Precision precision> void launch_product_by_warpgroups(const Product &p, Stream stream) {
    if (pixels_of(p.grid, p.n).count == 0)
        return;
    run_parts(p, [&](const Product &part) {
        const Cut cut = cheapest_cut<precision>(part);
        cut.launch(part, cut.blocks, stream);
    });
}

} // namespace relprop::cuda
