// The tiles that a product is cut into: how many there are, and where each lies.
#pragma once

#include "finish.cuh"
#include "launch.cuh"
#include "places.cuh"

namespace relprop::cuda {

struct ProductArguments {
    Product product;
    EpilogueArguments epilogue;
    Pixels pixels;
    int channel_tiles; // of a group
    bool by_fours;
};

template <class T> int channel_tiles(const Product &p) {
    return ceil_div(p.grid.to.channels / p.grid.groups, T::channels);
}

// Whether pixels can be copied by fours of floats.
inline bool by_fours(const Product &p) {
    bool fours = p.run % 4 == 0 && p.grid.from.channels % 4 == 0;
    for (int s = 0; s < p.sources; ++s)
        fours = fours && reinterpret_cast<uintptr_t>(p.source[s].data) % 16 == 0;
    return fours;
}

template <class T> ProductArguments arguments_of(const Product &p) {
    const int out = p.grid.to.channels / p.grid.groups;
    return {p, arguments_of(p, out), pixels_of(p.grid, p.n), channel_tiles<T>(p), by_fours(p)};
}

template <class T> int64_t tiles(const Product &p) {
    return (pixels_of(p.grid, p.n).count + T::rows - 1) / T::rows * p.grid.groups *
           channel_tiles<T>(p);
}

// Whether a block may have that much of shared memory.
inline bool fits_shared(size_t bytes) {
    return bytes <= static_cast<size_t>(attribute_of_gpu(cudaDevAttrMaxSharedMemoryPerBlockOptin));
}

// Where a tile lies: its group, its first channel in that, and its column of tiles.
struct TileAt {
    int64_t column;
    int group, first;
};

template <class T> __device__ TileAt tile_at(const ProductArguments &a) {
    // neighbouring blocks read the same pixels
    const int64_t column = blockIdx.x / a.channel_tiles;
    return {column / a.product.grid.groups, static_cast<int>(column % a.product.grid.groups),
            static_cast<int>(blockIdx.x % a.channel_tiles) * T::channels};
}

// Finds what the copies of a tile need to know.
template <class T, class Memory>
__device__ void find_tile(const ProductArguments &a, const TileAt &at, Memory &memory) {
    const Product &p = a.product;
    find_places(p.grid, a.pixels, at.column * T::rows, at.group * p.run, memory.places);
    find_steps(p.grid, memory.steps);
    __syncthreads();
    find_reads(p.grid, memory.places, memory.reads);
    __syncthreads();
}

template <class T> __device__ Channels channels_of(const Product &p, const TileAt &at) {
    const int out = p.grid.to.channels / p.grid.groups;
    return {p.grid.to.channels, at.group * out + at.first, smaller(T::channels, out - at.first),
            at.group * ceil_div(out, chunk_channels) + at.first / chunk_channels};
}

// Hands a tile's sums to the epilogue, by way of shared memory.
template <class T, class Memory, class Sums>
__device__ void finish_product(const ProductArguments &a, const TileAt &at, Memory &memory,
                               const Sums &sums) {
    sums.store(memory.sums, Memory::sums_apart);
    T::sync();
    finish_tile<T>(a.epilogue, channels_of<T>(a.product, at), memory.places, memory.sums,
                   Memory::sums_apart);
}

} // namespace relprop::cuda
