// The two products of every linear layer (see Product in kernels.hpp), as an implicit matrix
// product on tensor cores, by instructions of single warps. A block computes a tile, pixels times
// channels, over the whole summed dimension, in slices that are copied to shared memory while those
// before them are multiplied. A value is summed in one order whatever the batch, its place in it
// and the shape of the tile. Included once for each precision (product_*.cu).
#pragma once

#include "backend.cuh"
#include "gather.cuh"
#include "parts.hpp"
#include "tiles.cuh"
#include "warp_sums.cuh"

namespace relprop::cuda {

// ---- kernel

// Adds all slices of a tile, which are copied `width` floats at a time.
template <int width, Precision precision, class T>
__device__ __forceinline__ void add_slices(const Product &p, Memory<precision, T> &memory,
                                           const TileAt &at, WarpSums<precision, T> &sums) {
    const int count = slices_of(p);
    SliceCopy<precision, T, width> slices(p, memory, at, 0, count);
    const auto copy = [&](int number) { // a slice, or nothing
        if (slices.left())
            slices.copy(number % T::stages);
        close_copies();
    };
    for (int i = 0; i < T::stages - 1; ++i)
        copy(i);
    for (int i = 0; i < count; ++i) {
        await_copies<T::stages - 2>(); // the slice is there for this thread,
        __syncthreads();               // for all of them, and the one before is done with
        copy(i + T::stages - 1);
        const auto &stage = memory.stage[i % T::stages];
        sums.add(stage.pixels, stage.weights[0]);
        if (sums_in_runs<precision> && (i + 1) % slices_of_run == 0)
            sums.set_aside(memory.aside, i >= slices_of_run);
    }
    if (sums_in_runs<precision> && count >= slices_of_run)
        sums.take_back(memory.aside);
}

// It asks for the width itself: a kernel for each would have the ends of all rules twice, and take
// twice as long to compile.
template <Precision precision, class T>
__global__ void __launch_bounds__(T::threads, T::blocks)
    product_kernel(const __grid_constant__ ProductArguments a) {
    auto &memory = *shared_memory<Memory<precision, T>>();
    const TileAt at = tile_at<T>(a);
    find_tile<T>(a, at, memory);

    WarpSums<precision, T> sums;
    if (a.by_fours)
        add_slices<4>(a.product, memory, at, sums);
    else
        add_slices<1>(a.product, memory, at, sums);
    await_copies<0>();
    __syncthreads(); // sums take the place of slices
    finish_product<T>(a, at, memory, sums);
}

// ---- launcher

template <Precision precision, class T> void launch_tiles(const Product &p, Stream stream) {
    constexpr auto kernel = product_kernel<precision, T>;
    RELPROP_LAUNCH_BLOCKS(kernel, arguments_of<T>(p), tiles<T>(p), T::threads,
                          sizeof(Memory<precision, T>), stream);
}

// Whether tiles of this shape fit a GPU, keep it busy and are not half empty.
template <Precision precision, class T> bool serves(const Product &p) {
    constexpr int64_t enough = 200; // more than a GPU has multiprocessors
    return p.grid.to.channels / p.grid.groups > T::channels / 2 && tiles<T>(p) >= enough &&
           fits_shared(sizeof(Memory<precision, T>));
}

template <Precision precision> void launch_product(const Product &p, Stream stream) {
    using Huge = Tile<128, 128, 2, 4, 3, 1>;
    using Large = Tile<128, 64, 4, 2, 3, 2>;
    using Medium = Tile<64, 64, 2, 2, 4, 2>;
    using Small = Tile<64, 32, 2, 2, 4, 3>;
    if (pixels_of(p.grid, p.n).count == 0)
        return;
    run_parts(p, [&](const Product &part) {
        if (serves<precision, Huge>(part))
            launch_tiles<precision, Huge>(part, stream);
        else if (serves<precision, Large>(part))
            launch_tiles<precision, Large>(part, stream);
        else if (serves<precision, Medium>(part))
            launch_tiles<precision, Medium>(part, stream);
        else
            launch_tiles<precision, Small>(part, stream);
    });
}

} // namespace relprop::cuda
