// The two products of every linear layer (see Product in kernels.hpp), as an implicit matrix
// product on tensor cores. A block computes a tile, pixels times channels, over the whole summed
// dimension, in slices that are copied to shared memory while those before them are multiplied. A
// value is summed in one order whatever the batch, its place in it and the shape of the tile.
// Included once for each precision (product_*.cu).
#pragma once

#include "backend.cuh"
#include "finish.cuh"
#include "gather.cuh"
#include "launch.cuh"
#include "parts.hpp"
#include "warp_sums.cuh"

namespace relprop::cuda {

// ---- kernel

struct ProductArguments {
    Product product;
    EpilogueArguments epilogue;
    Pixels pixels;
    int channel_tiles; // of a group
};

// Copies the slices of all sources, pixels and weights, to one stage after the other.
template <Precision precision, class T, int width> class SliceCopy {
  public:
    __device__ SliceCopy(const Product &p, Memory<precision, T> &memory, int group, int first)
        : memory_(memory), pixels_(p, memory.places), weights_(p, group, first),
          per_source_(static_cast<int>(depth_of(p.grid.tap_count, p.run) / slice)),
          slices_(p.sources * per_source_) {}

    __device__ int slices() const { return slices_; }

    // Begins to copy slice i, one after the other; past the last, nothing.
    __device__ void copy(int i) {
        if (i < slices_) {
            if (left_ == 0) {
                pixels_.start(source_);
                weights_.start(source_++);
                left_ = per_source_;
            }
            auto &stage = memory_.stage[i % T::stages];
            pixels_.copy(stage.pixels);
            weights_.copy(stage.weights);
            --left_;
        }
        close_copies();
    }

  private:
    Memory<precision, T> &memory_;
    PixelCopy<T, width> pixels_;
    WeightCopy<precision, T> weights_;
    int per_source_, slices_;
    int source_ = 0; // the next
    int left_ = 0;   // slices of the one before
};

template <Precision precision, class T, int width>
__global__ void __launch_bounds__(T::threads, T::blocks)
    product_kernel(const __grid_constant__ ProductArguments a) {
    auto &memory = *shared_memory<Memory<precision, T>>();
    const Product &p = a.product;
    // neighbouring blocks read the same pixels
    const int64_t column = blockIdx.x / a.channel_tiles;
    const int first = static_cast<int>(blockIdx.x % a.channel_tiles) * T::channels;
    const int group = static_cast<int>(column % p.grid.groups);
    find_places(p.grid, a.pixels, column / p.grid.groups * T::rows, group * p.run, memory.places);
    __syncthreads();

    WarpSums<precision, T> sums;
    SliceCopy<precision, T, width> slices(p, memory, group, first);
    for (int i = 0; i < T::stages - 1; ++i)
        slices.copy(i);
    for (int i = 0; i < slices.slices(); ++i) {
        await_copies<T::stages - 2>(); // the slice is there for this thread,
        __syncthreads();               // for all of them, and the one before is done with
        slices.copy(i + T::stages - 1);
        const auto &stage = memory.stage[i % T::stages];
        sums.add(stage.pixels, stage.weights);
        if (sums_in_runs<precision> && (i + 1) % slices_of_run == 0)
            sums.set_aside(memory.aside, i >= slices_of_run);
    }
    if (sums_in_runs<precision> && slices.slices() >= slices_of_run)
        sums.take_back(memory.aside);
    await_copies<0>();
    __syncthreads(); // sums take the place of slices
    constexpr int apart = Memory<precision, T>::sums_apart;
    sums.store(memory.sums, apart);
    __syncthreads();
    const int out = p.grid.to.channels / p.grid.groups;
    finish_tile<T>(a.epilogue,
                   {p.grid.to.channels, group * out + first, smaller(T::channels, out - first),
                    group * ceil_div(out, chunk_channels) + first / chunk_channels},
                   memory.places, memory.sums, apart);
}

// ---- launcher

// Whether pixels can be copied by fours of floats.
inline bool by_fours(const Product &p) {
    bool fours = p.run % 4 == 0 && p.grid.from.channels % 4 == 0;
    for (int s = 0; s < p.sources; ++s)
        fours = fours && reinterpret_cast<uintptr_t>(p.source[s].data) % 16 == 0;
    return fours;
}

template <class T> int channel_tiles(const Product &p) {
    return ceil_div(p.grid.to.channels / p.grid.groups, T::channels);
}

template <class T> int64_t tiles(const Product &p) {
    return (pixels_of(p.grid, p.n).count + T::rows - 1) / T::rows * p.grid.groups *
           channel_tiles<T>(p);
}

template <Precision precision, class T> void launch_tiles(const Product &p, Stream stream) {
    const int out = p.grid.to.channels / p.grid.groups;
    const ProductArguments arguments{p, arguments_of(p, out), pixels_of(p.grid, p.n),
                                     channel_tiles<T>(p)};
    constexpr auto by_four = product_kernel<precision, T, 4>,
                   by_one = product_kernel<precision, T, 1>;
    const auto kernel = by_fours(p) ? by_four : by_one;
    RELPROP_LAUNCH_BLOCKS(kernel, arguments, tiles<T>(p), T::threads, sizeof(Memory<precision, T>),
                          stream);
}

// What a block may have of shared memory.
inline int most_shared() {
    int current = 0, bytes = 0;
    RELPROP_CHECK(cudaGetDevice(&current));
    RELPROP_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, current));
    return bytes;
}

// Whether tiles of this shape fit a GPU, keep it busy and are not half empty.
template <Precision precision, class T> bool serves(const Product &p) {
    constexpr int64_t enough = 200; // more than a GPU has multiprocessors
    return p.grid.to.channels / p.grid.groups > T::channels / 2 && tiles<T>(p) >= enough &&
           sizeof(Memory<precision, T>) <= static_cast<size_t>(most_shared());
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
