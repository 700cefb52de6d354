// Products of layers whose every channel reads itself alone. A block computes a tile of pixels and
// channels, a thread one channel or four neighbours of a pixel at a time. Sums run over sources and
// taps in their order, as the CPU's do.
#include "backend.cuh"
#include "finish.cuh"
#include "launch.cuh"
#include "parts.hpp"
#include "places.cuh"

namespace relprop::cuda {

// ---- kernel

namespace {

struct DepthwiseTile {
    static constexpr int rows = 16, channels = 128;
    static constexpr int warps = 8, threads = warps * warp_lanes;
    static constexpr int rows_at_once = 1; // other blocks hide how long memory takes
};

struct DepthwiseArguments {
    Product product;
    EpilogueArguments epilogue;
    Pixels pixels;
    int channel_tiles;
};

struct DepthwiseMemory {
    Lanes<4> sums[DepthwiseTile::rows * DepthwiseTile::channels / 4];
    TilePlaces<DepthwiseTile::rows> places;
};

// Channels c ... of a pixel whose source lies at `from`, under a tap at 0, 0, 0.
template <int width>
__device__ Lanes<width> sum_taps(const Product &p, const Pixel &at, int64_t from, int c) {
    Lanes<width> sum{};
    for (int s = 0; s < p.sources; ++s)
        for (int t = 0; t < p.grid.tap_count; ++t) {
            const Pixel tap = p.grid.taps[t];
            if (!inside(p.grid.from, {at.z + tap.z, at.y + tap.y, at.x + tap.x}))
                continue;
            const int channels = p.grid.from.channels;
            const int64_t there = from + row_of(p.grid.from, 0, tap) * channels + c;
            const auto a = load<width>(p.source[s].data + there);
            const auto w =
                load<width>(p.source[s].weights + static_cast<int64_t>(t) * channels + c);
#pragma unroll
            for (int i = 0; i < width; ++i)
                sum.at[i] = fmaf(a.at[i], w.at[i], sum.at[i]);
        }
    return sum;
}

// Messages have a kernel of their own: their registers would keep others from hiding how long
// memory takes.
template <int width, bool messages>
__global__ void __launch_bounds__(DepthwiseTile::threads)
    depthwise_kernel(const __grid_constant__ DepthwiseArguments a) {
    auto &memory = *shared_memory<DepthwiseMemory>();
    const Product &p = a.product;
    const int channels = p.grid.to.channels;
    const int first = static_cast<int>(blockIdx.x % a.channel_tiles) * DepthwiseTile::channels;
    const int held = smaller(DepthwiseTile::channels, channels - first);
    const int64_t tile = blockIdx.x / a.channel_tiles;
    find_places(p.grid, a.pixels, tile * DepthwiseTile::rows, 0, memory.places);
    __syncthreads();

    float *sums = memory.sums[0].at;
    constexpr int across = DepthwiseTile::channels / width;
    for (int i = threadIdx.x; i < DepthwiseTile::rows * across; i += DepthwiseTile::threads) {
        const int row = i / across, c = i % across * width;
        if (c < held && memory.places.to[row] >= 0)
            store(sums + row * DepthwiseTile::channels + c,
                  sum_taps<width>(p, memory.places.at[row], memory.places.from[row], first + c));
    }
    __syncthreads();
    const Channels of_tile{channels, first, held, first / chunk_channels};
    if constexpr (messages)
        message_tile<DepthwiseTile>(a.epilogue, of_tile, memory.places, sums,
                                    DepthwiseTile::channels);
    else
        value_tile<DepthwiseTile>(a.epilogue, of_tile, memory.places, sums,
                                  DepthwiseTile::channels);
}

// ---- launcher

void launch_depthwise(const Product &p, Stream stream) {
    const int channels = p.grid.to.channels;
    const Pixels pixels = pixels_of(p.grid, p.n);
    if (pixels.count == 0)
        return;
    const DepthwiseArguments arguments{p, arguments_of(p, channels), pixels,
                                       ceil_div(channels, DepthwiseTile::channels)};
    const int64_t blocks =
        (pixels.count + DepthwiseTile::rows - 1) / DepthwiseTile::rows * arguments.channel_tiles;
    with_width({p.source[0].data, p.source[0].weights, p.source[1].data, p.source[1].weights},
               {channels}, [&](auto width) {
                   const bool messages = has_message(p.epilogue);
                   const auto kernel =
                       messages ? depthwise_kernel<width, true> : depthwise_kernel<width, false>;
                   RELPROP_LAUNCH_BLOCKS(kernel, arguments, blocks, DepthwiseTile::threads,
                                         sizeof(DepthwiseMemory), stream);
               });
}

} // namespace

void depthwise(const Product &p, Stream stream) {
    run_parts(p, [&](const Product &part) { launch_depthwise(part, stream); });
}

} // namespace relprop::cuda
