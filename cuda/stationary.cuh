// Products whose weights stay: of 1x1 layers with few channels, whose pixels lie one behind the
// other. A block holds its channels' weights in shared memory and goes from tile to tile; while one
// is finished, the next ones' pixels are copied. Where slices are few, finding a tile, waiting for
// its first slice and finishing it would otherwise be all there is. Sums run in the order of
// product_warpgroup.cuh, bit for bit.
#pragma once

#include "arrival.cuh"
#include "fast_paths.hpp"
#include "gather.cuh"
#include "slice_sums.cuh"
#include "turn.cuh"
#include "warpgroup_sums.cuh"

namespace relprop::cuda {

// `kilobytes`: of weights that a block has room for.
template <int rows_, int channels_, int kilobytes, int stages_, int speed_, int blocks_>
struct StationaryTile
    : WarpgroupTile<rows_, channels_, rows_ / warpgroup_rows, 1, stages_, false, speed_, blocks_> {
    static constexpr TileWay way = TileWay::stationary;
    static constexpr int weight_bytes = kilobytes << 10;
};

template <Precision precision, class T> struct StationaryMemory {
    static constexpr int sums_apart = Memory<precision, T>::sums_apart;
    static constexpr int parts = parts_of<precision, T>;
    static constexpr int of_slice = parts * T::channels * slice; // weights

    Weight<precision> weights[T::weight_bytes / sizeof(Weight<precision>)]; // [slices][of_slice]
    float pixels[T::stages][T::rows * slice];                               // by place_in_slice
    float sums[T::rows * sums_apart];
    TilePlaces<T::rows> places; // of which finish_tile reads where rows go
    // the launch's: as constants, the compiler would hold them in registers from tile to tile
    ProductArguments of;
    Arrival::Held there[T::stages], done[T::stages], weights_there;
};

struct StationaryArguments {
    ProductArguments of;
    int64_t columns; // of tiles
};

// Whether pixel number i of the source becomes number i of the destination, and a tile's weights
// have room.
template <Precision precision, class T> bool has_stationary(const Product &p) {
    const TapGrid &grid = p.grid;
    const auto same = [](const Pixel &a, const Pixel &b) {
        return a.z == b.z && a.y == b.y && a.x == b.x;
    };
    const auto all_of = [&](const Image &image) {
        return same({image.depth, image.height, image.width}, grid.size);
    };
    const bool in_place = grid.tap_count == 1 && same(grid.least, {}) && same(grid.most, {}) &&
                          same(grid.step, {1, 1, 1}) && same(grid.out_step, {1, 1, 1}) &&
                          same(grid.out, {}) && all_of(grid.from) && all_of(grid.to);
    using Own = StationaryMemory<precision, T>;
    return in_place && grid.groups == 1 && p.run == grid.from.channels && p.run % slice == 0 &&
           by_fours(p) &&
           slices_of(p) * Own::of_slice * sizeof(Weight<precision>) <= sizeof(Own::weights) &&
           parts_of_product(p).count == 1 && fits_shared(sizeof(Own)) &&
           !goes_without(FastPath::stationary);
}

// How many columns of tiles are worked on at once, each by a block for each of its tiles. All
// blocks have as many tiles, but for the last.
template <class T> int columns_at_once(const Product &p, int processors) {
    const int64_t columns = columns_of<T>(p);
    const int most = larger(processors * T::blocks / channel_tiles<T>(p), 1);
    const int64_t of_block = (columns + most - 1) / most;
    return static_cast<int>((columns + of_block - 1) / of_block);
}

// By one thread of those that copy: all weights of a block.
template <Precision precision, class T, class Own>
__device__ __forceinline__ void copy_all_weights(const Product &p, Own &memory, const TileAt &at) {
    WeightBulkCopy<precision, T> weights(p, at);
    const int per_source = slices_of(p) / p.sources;
    Arrival there(shared_at(&memory.weights_there), 0);
    there.arrive_before(slices_of(p) * weights.bytes());
    SharedAt to = shared_at(memory.weights);
    for (int source = 0; source < p.sources; ++source) {
        weights.start(source, 0);
        for (int i = 0; i < per_source; ++i) {
            weights.begin(there, to);
            weights.go_on();
            to += Own::of_slice * static_cast<int>(sizeof(Weight<precision>));
        }
    }
}

// By all of those: the pixels of a block's tiles, slice by slice.
template <class T, class Own>
__device__ __forceinline__ void copy_pixels(const StationaryArguments &a, Own &memory,
                                            int64_t column, int64_t step) {
    constexpr int across = slice / 4, down = T::copiers / across, rows = T::rows / down;
    static_assert(T::rows % down == 0 && down % 8 == 0); // all rows of a thread have one order
    const Product &p = a.of.product;
    const int thread = static_cast<int>(threadIdx.x) % T::copiers;
    const int first = thread / across, k = thread % across * 4, channels = p.run;
    const int place = place_in_slice(first, k) * static_cast<int>(sizeof(float));
    const SharedAt there = shared_at(memory.there), done = shared_at(memory.done);
    const SharedAt pixels = shared_at(memory.pixels[0]) + place;
    Turn<T> turn;
    for (; column < a.columns; column += step) {
        const int64_t row = column * T::rows + first;
        const int64_t left = a.of.pixels.count - row;
        for (int source = 0; source < p.sources; ++source) {
            const float *from = p.source[source].data + row * channels + k;
            for (int channel = 0; channel < channels; channel += slice, turn.go_on()) {
                if (turn.time > 0)
                    Arrival(done, turn.stage).await(turn.time - 1);
                const SharedAt to =
                    pixels + turn.stage * static_cast<int>(sizeof(memory.pixels[0]));
#pragma unroll
                for (int i = 0; i < rows; ++i) {
                    const bool held = i * down < left;
                    copy_async<16, false>(
                        to + i * down * slice * static_cast<int>(sizeof(float)),
                        held ? from + channel + i * down * channels : p.source[source].data, held);
                }
                Arrival(there, turn.stage).arrive_with_copies();
            }
        }
    }
    close_copies();
    await_copies<0>(); // they must not outlive their threads
}

// Where the factors of a tile's slices are read: see SliceSums.
template <class Own> class StationaryOperands {
  public:
    __device__ StationaryOperands(Own &memory, int slices) : memory_(memory), slices_(slices) {}

    template <class Sums> __device__ __forceinline__ const float *pixels(Sums &, int stage) {
        return memory_.pixels[stage];
    }
    __device__ __forceinline__ const auto *weights(int) {
        return memory_.weights + number_ * Own::of_slice;
    }
    __device__ __forceinline__ void read() { number_ = number_ + 1 == slices_ ? 0 : number_ + 1; }

  private:
    Own &memory_;
    int slices_, number_ = 0; // of the slice in its tile
};

// By those that compute: the tiles of a block, one after the other.
template <Precision precision, class T, class Own>
__device__ __forceinline__ void compute_tiles(const StationaryArguments &a, Own &memory, TileAt at,
                                              int64_t step) {
    const int count = slices_of(a.of.product);
    SliceSums<precision, T, StationaryOperands<Own>> slices(memory, {memory, count});
    Arrival(shared_at(&memory.weights_there), 0).await(0);
    for (; at.column < a.columns; at.column += step) {
        const int64_t first = at.column * T::rows;
        for (int row = threadIdx.x; row < T::rows; row += T::threads)
            memory.places.to[row] = first + row < a.of.pixels.count ? first + row : -1;
        slices.add(count);
        finish_product<T>(memory.of, at, memory, slices.sums);
        slices.sums.begin_anew();
        T::sync(); // the next tile's take their place
    }
}

template <Precision precision, class T>
__global__ void __launch_bounds__(T::threads + T::copiers, T::blocks)
    stationary_kernel(const __grid_constant__ StationaryArguments a) {
#ifdef RELPROP_WARPGROUPS
    auto &memory = *shared_memory<StationaryMemory<precision, T>>();
    const TileAt at = tile_at<T>(a.of);
    const int64_t step = gridDim.x / a.of.channel_tiles;
    if (threadIdx.x == 0) {
        memory.of = a.of;
        for (int stage = 0; stage < T::stages; ++stage) {
            Arrival(shared_at(memory.there), stage).begin(T::copiers);
            Arrival(shared_at(memory.done), stage).begin(T::warps);
        }
        Arrival(shared_at(&memory.weights_there), 0).begin(1);
        show_to_tensor_cores();
    }
    __syncthreads();

    // alike in a warp, and the compiler knows it
    const int warp = __shfl_sync(all_lanes, static_cast<int>(threadIdx.x) / warp_lanes, 0);
    if (warp >= T::warps) {
        give_registers<T::of_copiers>();
        if (threadIdx.x % T::copiers == 0)
            copy_all_weights<precision, T>(a.of.product, memory, at);
        copy_pixels<T>(a, memory, at.column, step);
    } else {
        take_registers<T::of_computing>();
        compute_tiles<precision, T>(a, memory, at, step);
    }
#else
    __trap(); // never launched on other GPUs
#endif
}

template <Precision precision, class T>
void launch_stationary(const Product &p, int columns_at_once, Stream stream) {
    const StationaryArguments arguments{arguments_of<T>(p), columns_of<T>(p)};
    constexpr auto kernel = stationary_kernel<precision, T>;
    RELPROP_LAUNCH_BLOCKS(kernel, arguments, columns_at_once * arguments.of.channel_tiles,
                          T::threads + T::copiers, sizeof(StationaryMemory<precision, T>), stream);
}

} // namespace relprop::cuda
