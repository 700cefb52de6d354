// Pixels as patches: of layers whose taps lie within 3 x 3 neighbours, all that the taps of a tile
// read of 32 channels is copied to shared memory once, and each tap's factors are read from there.
// Where a layer has few channels, copies would otherwise take longer than products. The tile is a
// rectangle of the grid, and sums run in the order of product_warpgroup.cuh, bit for bit.
#pragma once

#include "arrival.cuh"
#include "fast_paths.hpp"
#include "gather.cuh"
#include "slice_sums.cuh"
#include "tiles.cuh"
#include "turn.cuh"
#include "warpgroup_sums.cuh"

namespace relprop::cuda {

constexpr int patch_margin = 2; // by which taps lie apart, at most
constexpr int most_patch_taps = (patch_margin + 1) * (patch_margin + 1);
constexpr int least_patch_taps = 4; // fewer share too little

// A tile of lines x width pixels. Rows of 16 are neighbours in a line, as a warp holds them, and
// those 64 rows apart have one order in shared memory (see place_in_slice), as eight lines do.
template <int lines_, int width_, int channels_, int groups, int stages_, int speed_,
          int blocks_ = 1>
struct PatchTile
    : WarpgroupTile<lines_ * width_, channels_, groups, 1, stages_, false, speed_, blocks_> {
    static constexpr TileWay way = TileWay::patches;
    static constexpr int lines = lines_, width = width_;
    static constexpr int pitch = width + 4; // of which width + patch_margin are read
    static constexpr int pixels = (lines + patch_margin) * pitch;
    __host__ __device__ static constexpr int pixel_of(int row) {
        return row / width * pitch + row % width;
    }
    static_assert(width % 16 == 0 && warpgroup_rows / width * pitch % 8 == 0 && pixels % 8 == 0);
};

struct TwoPatches {
    static constexpr int stages = 2; // patches that lie in shared memory at once
};

template <Precision precision, class T> struct PatchMemory {
    static constexpr int sums_apart = Memory<precision, T>::sums_apart;

    struct Stage {
        WeightPart<precision, T> weights[parts_of<precision, T>][T::channels * slice];
    };
    union {
        float patch[TwoPatches::stages][T::pixels * slice]; // by place_in_slice
        float sums[T::rows * sums_apart];
    };
    Stage stage[T::stages];
    TilePlaces<T::rows> places;  // of which finish_tile reads where rows go
    int shifts[most_patch_taps]; // by which a tap leads on in a patch, in pixels
    Arrival::Held there[T::stages], done[T::stages];
    Arrival::Held patch_there[TwoPatches::stages], patch_done[TwoPatches::stages];

    // weights begin where the tensor cores want them to
    static_assert(sizeof(patch) % 1024 == 0 && sizeof(sums) % 1024 == 0);
};

struct PatchArguments {
    ProductArguments of;
    Places tiles; // of an image
};

// Whether a product's pixels can be copied as patches.
inline bool has_patches(const Product &p) {
    const TapGrid &grid = p.grid;
    const Pixel &least = grid.least, &most = grid.most;
    const bool near = least.z == 0 && most.z == 0 && most.y - least.y <= patch_margin &&
                      most.x - least.x <= patch_margin && least.y <= most.y;
    return near && grid.tap_count >= least_patch_taps && grid.tap_count <= most_patch_taps &&
           grid.groups == 1 && grid.from.depth == 1 && grid.size.z == 1 && grid.step.y == 1 &&
           grid.step.x == 1 && p.run % slice == 0 && by_fours(p) && grid.from.size() <= INT32_MAX &&
           !goes_without(FastPath::patches);
}

// The tiles of an image.
template <class T> Image patch_tiles(const Product &p) {
    return {1, ceil_div(p.grid.size.y, T::lines), ceil_div(p.grid.size.x, T::width),
            channel_tiles<T>(p)};
}

// A tile's first pixel of the grid, and its channels.
struct PatchAt {
    int64_t n;
    int y, x;
    TileAt tile;
};

template <class T> __device__ PatchAt patch_at(const PatchArguments &a) {
    const Place at = place_by(blockIdx.x, a.tiles); // neighbouring blocks read the same pixels
    return {at.n, at.at.y * T::lines, at.at.x * T::width, {0, 0, at.c * T::channels}};
}

// Finds what copies and sums need to know.
template <class T, class Memory>
__device__ void find_patch(const PatchArguments &a, const PatchAt &at, Memory &memory) {
    const TapGrid &grid = a.of.product.grid;
    for (int row = threadIdx.x; row < T::rows; row += blockDim.x) {
        const Pixel pixel{0, at.y + row / T::width, at.x + row % T::width};
        const bool real = pixel.y < grid.size.y && pixel.x < grid.size.x;
        memory.places.to[row] =
            real ? row_of(grid.to, at.n, moved(pixel, grid.out_step, grid.out)) : -1;
    }
    for (int tap = threadIdx.x; tap < grid.tap_count; tap += blockDim.x) {
        const Pixel to = grid.taps[tap];
        memory.shifts[tap] = (to.y - grid.least.y) * T::pitch + to.x - grid.least.x;
    }
}

// By one thread of the first warp that copies: the weights of all slices.
template <Precision precision, class T, class Memory>
__device__ __forceinline__ void copy_weights(const Product &p, Memory &memory, const TileAt &at) {
    const SharedAt done = shared_at(memory.done);
    const int per_source = slices_of(p) / p.sources;
    WeightBulkCopy<precision, T> weights(p, at);
    Turn<T> turn;
    for (int source = 0; source < p.sources; ++source) {
        weights.start(source, 0);
        for (int i = 0; i < per_source; ++i, turn.go_on()) {
            if (turn.time > 0)
                Arrival(done, turn.stage).await(turn.time - 1);
            weights.copy(memory, turn.stage);
        }
    }
}

// By the other warps that copy: the patches of all slices of channels.
template <class T, class Memory>
__device__ __forceinline__ void copy_patches(const ProductArguments &a, Memory &memory,
                                             const PatchAt &at) {
    constexpr int read = T::width + patch_margin, all = (T::lines + patch_margin) * read;
    constexpr int across = slice / 4, down = (T::copiers - warp_lanes) / across;
    const int thread = static_cast<int>(threadIdx.x) % T::copiers - warp_lanes;
    const int first = thread / across, k = thread % across * 4;
    const Product &p = a.product;
    const Image &image = p.grid.from;
    const int top = at.y + p.grid.least.y, left = at.x + p.grid.least.x;
    const int64_t sample = row_of(image, at.n, {}) * image.channels + k;
    const SharedAt there = shared_at(memory.patch_there), done = shared_at(memory.patch_done);
    Turn<TwoPatches> turn;
    for (int source = 0; source < p.sources; ++source)
        for (int channel = 0; channel < p.run; channel += slice, turn.go_on()) {
            const float *from = p.source[source].data + sample + channel;
            if (turn.time > 0)
                Arrival(done, turn.stage).await(turn.time - 1);
            const SharedAt to = shared_at(memory.patch[turn.stage]);
            for (int pixel = first; pixel < all; pixel += down) {
                const int line = pixel / read, column = pixel % read;
                const Pixel of{0, top + line, left + column};
                const int place = place_in_slice(line * T::pitch + column, k);
                copy_async<16, false>(to + place * static_cast<int>(sizeof(float)),
                                      from + (of.y * image.width + of.x) * image.channels,
                                      inside(image, of));
            }
            Arrival(there, turn.stage).arrive_with_copies();
        }
    ask_for_end(a.epilogue, channels_of<T>(p, at.tile), memory.places, thread,
                T::copiers - warp_lanes);
    close_copies();
    await_copies<0>(); // they must not outlive their threads
}

// Where a tap's factors are read: see SliceSums.
template <class Memory> class PatchPixels {
  public:
    __device__ PatchPixels(Memory &memory, int taps)
        : memory_(memory), there_(shared_at(memory.patch_there)),
          done_(shared_at(memory.patch_done)), taps_(taps) {}

    template <class Sums> __device__ __forceinline__ const float *begin(Sums &sums, int) {
        if (tap_ == 0)
            Arrival(there_, turn_.stage).await(turn_.time);
        sums.read_from(memory_.shifts[tap_]);
        return memory_.patch[turn_.stage];
    }

    __device__ __forceinline__ void end() { // the factors are in registers
        if (++tap_ < taps_)
            return;
        tap_ = 0;
        Arrival(done_, turn_.stage).arrive_as_warp();
        turn_.go_on();
    }

  private:
    Memory &memory_;
    SharedAt there_, done_;
    int taps_, tap_ = 0;
    Turn<TwoPatches> turn_;
};

template <Precision precision, class T>
__global__ void __launch_bounds__(T::threads + T::copiers, T::blocks)
    patches_kernel(const __grid_constant__ PatchArguments a) {
#ifdef RELPROP_WARPGROUPS
    using Own = PatchMemory<precision, T>;
    auto &memory = *shared_memory<Own>();
    const PatchAt at = patch_at<T>(a);
    const Product &p = a.of.product;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < T::stages; ++stage) {
            Arrival(shared_at(memory.there), stage).begin(1);
            Arrival(shared_at(memory.done), stage).begin(T::warps);
        }
        for (int patch = 0; patch < TwoPatches::stages; ++patch) {
            Arrival(shared_at(memory.patch_there), patch).begin(T::copiers - warp_lanes);
            Arrival(shared_at(memory.patch_done), patch).begin(T::warps);
        }
        show_to_tensor_cores();
    }
    find_patch<T>(a, at, memory);
    __syncthreads();

    // alike in a warp, and the compiler knows it
    const int warp = __shfl_sync(all_lanes, static_cast<int>(threadIdx.x) / warp_lanes, 0);
    if (warp >= T::warps) {
        give_registers<T::of_copiers>();
        if (warp > T::warps)
            copy_patches<T>(a.of, memory, at);
        else if (lane_index() == 0)
            copy_weights<precision, T>(p, memory, at.tile);
    } else {
        take_registers<T::of_computing>();
        SliceSums<precision, T, Own, PatchPixels<Own>> slices(memory, {memory, p.grid.tap_count});
        slices.add(slices_of(p));
        T::sync(); // sums take the place of slices
        finish_product<T>(a.of, at.tile, memory, slices.sums);
    }
#else
    __trap(); // never launched on other GPUs
#endif
}

template <Precision precision, class T> void launch_patches(const Product &p, Stream stream) {
    const Image tiles = patch_tiles<T>(p);
    const PatchArguments arguments{arguments_of<T>(p), places_of(tiles)};
    constexpr auto kernel = patches_kernel<precision, T>;
    RELPROP_LAUNCH_BLOCKS(kernel, arguments, p.n * tiles.size(), T::threads + T::copiers,
                          sizeof(PatchMemory<precision, T>), stream);
}

} // namespace relprop::cuda
