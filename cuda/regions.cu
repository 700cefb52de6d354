// Relevance by regions of the image and by channels: float64 sums in one order whatever the batch.
// A block sums a part of a sample, and reads its values and labels once. A lane adds up neighbours
// of one region, and where the region changes, its warp takes the sum into its own memory; those of
// the warps, and then those of the parts, are added in their order.
#include "backend.cuh"
#include "lanes.cuh"
#include "launch.cuh"
#include "sums.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

constexpr int region_threads = 256;
constexpr int region_warps = region_threads / warp_lanes;
constexpr int nobody = 255; // the region of a pixel that has none
constexpr int most_regions =
    255; // of a block, a byte each; where there are more, blocks share them
constexpr int most_channels = 256; // whose sums a block takes along
constexpr int quads = 2;           // of neighbours, that a lane has under way at once
constexpr int warp_pixels = quads * 4 * warp_lanes, block_pixels = region_warps * warp_pixels;

struct RegionsArguments {
    Regions p;     // its sums are those of the parts: [n, parts, count, 3], [n, parts, channels]
    int64_t part;  // pixels
    int regions;   // of a block, at most
    bool channels; // whether channels are summed as well
};

// The pixels next to each other in one region that a lane has met last.
struct Run {
    int region = nobody;
    int pixels = 0;
    double sum = 0.0, positive = 0.0;
};

// Adds the runs that end to their regions' sums [regions][3]; where several lanes have the same
// region, in the order of the lanes. All lanes of a warp call it.
__device__ void add_runs(const Run &run, bool ends, double *sums) {
    const bool real = ends && run.region != nobody;
    const unsigned like = __match_any_sync(all_lanes, real ? run.region : -1 - lane_index());
    const int turn = __popc(like & ((1u << lane_index()) - 1));
    for (int now = 0; __any_sync(all_lanes, real && turn >= now); ++now) {
        if (real && turn == now) {
            double *of = sums + 3 * run.region;
            of[0] += run.sum;
            of[1] += run.positive;
            of[2] += run.pixels;
        }
        __syncwarp();
    }
}

// Four neighbours from place `at` on, or `none` where they lie behind the end.
template <int width>
__device__ __forceinline__ Lanes<4> load_quad(const float *from, int at, int end, float none) {
    Lanes<4> quad{none, none, none, none};
#pragma unroll
    for (int i = 0; i < 4; i += width)
        if (at + i < end) {
            const Lanes<width> some = load<width>(from + at + i);
#pragma unroll
            for (int lane = 0; lane < width; ++lane)
                quad.at[i + lane] = some.at[lane];
        }
    return quad;
}

template <int width>
__global__ void __launch_bounds__(region_threads)
    regions_kernel(const __grid_constant__ RegionsArguments of) {
    const Regions &p = of.p;
    const int lane = lane_index(), warp = static_cast<int>(threadIdx.x) / warp_lanes;
    const int first_region = static_cast<int>(blockIdx.z) * of.regions;
    const int regions = smaller(of.regions, p.count - first_region);
    const int channels = of.channels && blockIdx.z == 0 ? p.channels : 0;
    auto *const sums = shared_memory<double>();                        // [warps][regions][3]
    double *const channel_sums = sums + region_warps * 3 * of.regions; // [warps][channels]
    double *const own_sums = sums + warp * 3 * of.regions;
    double *const own_channel_sums = channel_sums + warp * channels;
    for (int i = lane; i < 3 * of.regions; i += warp_lanes)
        own_sums[i] = 0.0;
    for (int i = lane; i < channels; i += warp_lanes)
        own_channel_sums[i] = 0.0;
    __syncwarp();

    const int64_t sample = blockIdx.y, begin = blockIdx.x * of.part;
    const int size = static_cast<int>(begin + of.part < p.pixels ? of.part : p.pixels - begin);
    const float *values = p.values + sample * p.channels * p.pixels + begin;
    const auto *labels = reinterpret_cast<const float *>(
        p.labels + (p.shared_labels ? 0 : sample * p.pixels) + begin);
    Run run;
    for (int first = warp * warp_pixels; first < size; first += block_pixels) {
        const int at = first + 4 * lane;
        uint32_t region[quads] = {}; // of four neighbours
        bool any = false;
#pragma unroll
        for (int k = 0; k < quads; ++k) {
            const Lanes<4> bits =
                load_quad<width>(labels, at + k * 4 * warp_lanes, size, __int_as_float(-1));
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int label = __float_as_int(bits.at[i]) - first_region;
                const bool own = label >= 0 && label < regions;
                region[k] |= static_cast<uint32_t>(own ? label : nobody) << 8 * i;
                any |= own;
            }
        }
        if (channels == 0 && !__any_sync(all_lanes, any))
            continue; // nothing of this block's
        double relevance[quads][4] = {};
        Lanes<4> next[quads] = {};
        const auto fetch = [&](int c) {
#pragma unroll
            for (int k = 0; k < quads; ++k)
                next[k] =
                    load_quad<width>(values + c * p.pixels, at + k * 4 * warp_lanes, size, 0.0f);
        };
        if (p.channels > 0)
            fetch(0);
        for (int c = 0; c < p.channels; ++c) {
            Lanes<4> held[quads];
#pragma unroll
            for (int k = 0; k < quads; ++k)
                held[k] = next[k];
            if (c + 1 < p.channels)
                fetch(c + 1); // while these are added
            double own = 0.0;
#pragma unroll
            for (int k = 0; k < quads; ++k)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const auto value = static_cast<double>(held[k].at[i]);
                    relevance[k][i] += value;
                    own += value;
                }
            if (channels > 0) {
                own = warp_sum(own);
                if (lane == 0)
                    own_channel_sums[c] += own;
            }
        }
#pragma unroll
        for (int k = 0; k < quads; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int own = region[k] >> 8 * i & 255;
                const bool ends = own != run.region;
                if (__any_sync(all_lanes, ends)) {
                    add_runs(run, ends, own_sums);
                    if (ends)
                        run = {own};
                }
                const double value = relevance[k][i];
                run.sum += value;
                run.positive += value < 0.0 ? 0.0 : value; // a NaN is not less
                ++run.pixels;
            }
    }
    add_runs(run, true, own_sums);
    __syncthreads();

    const auto total = [](const double *of_warps, int i, int apart) {
        double sum = 0.0;
        for (int w = 0; w < region_warps; ++w)
            sum += of_warps[w * apart + i];
        return sum;
    };
    const int64_t part = sample * gridDim.x + blockIdx.x;
    for (int i = static_cast<int>(threadIdx.x); i < 3 * regions; i += region_threads)
        p.sums[3 * (part * p.count + first_region) + i] = total(sums, i, 3 * of.regions);
    for (int c = static_cast<int>(threadIdx.x); c < channels; c += region_threads)
        p.channel_sums[part * channels + c] = total(channel_sums, c, channels);
}

// out[row][i] = the sum of parts[row][...][i].
struct Parts {
    const double *parts;
    double *out;
    int64_t count; // of parts of a row
    Divisor size;
};

__global__ void add_parts_kernel(Parts p, int64_t count) {
    if (thread_index() >= count)
        return;
    const int64_t row = divided(thread_index(), p.size), i = thread_index() - row * p.size.by;
    double sum = 0.0;
    for (int64_t part = 0; part < p.count; ++part)
        sum += p.parts[(row * p.count + part) * p.size.by + i];
    p.out[thread_index()] = sum;
}

// One channel of a sample, where there are too many to be summed on the way.
__global__ void __launch_bounds__(region_threads)
    channel_sums_kernel(const __grid_constant__ Regions p) {
    __shared__ double apart[region_warps];
    const int64_t row = blockIdx.y * static_cast<int64_t>(p.channels) + blockIdx.x;
    double own = 0.0;
    for (int64_t pixel = threadIdx.x; pixel < p.pixels; pixel += region_threads)
        own += static_cast<double>(p.values[row * p.pixels + pixel]);
    const double sum = block_sum(own, apart);
    if (threadIdx.x == 0)
        p.channel_sums[row] = sum;
}

// ---- launchers

void add_parts(const double *parts, double *out, int64_t rows, int64_t count, int64_t size,
               Stream stream) {
    if (size == 0)
        return; // no divisor
    const Parts arguments{parts, out, count, divisor_of(size)};
    RELPROP_LAUNCH(add_parts_kernel, arguments, rows * size, stream);
}

} // namespace

void regions(const Regions &p, Stream stream) {
    const int64_t parts = larger(1, static_cast<int>(regions_parts(p.pixels, p.count)));
    const bool channels = p.channels <= most_channels;
    const int regions = smaller(p.count, most_regions);
    RegionsArguments of{p, regions_part(p.count), regions, channels};
    if (parts > 1) {
        of.p.sums = p.scratch;
        of.p.channel_sums = p.scratch + p.n * parts * 3 * p.count;
    }
    const Grid grid(parts, p.n, ceil_div(p.count, regions));
    const auto bytes = sizeof(double) * region_warps * (3 * regions + (channels ? p.channels : 0));
    with_width({p.values, reinterpret_cast<const float *>(p.labels)}, {p.pixels}, [&](auto width) {
        RELPROP_LAUNCH_BLOCKS(regions_kernel<width()>, of, grid, region_threads, bytes, stream);
    });
    if (parts > 1) {
        add_parts(of.p.sums, p.sums, p.n, parts, int64_t{3} * p.count, stream);
        if (channels)
            add_parts(of.p.channel_sums, p.channel_sums, p.n, parts, p.channels, stream);
    }
    if (!channels)
        RELPROP_LAUNCH_BLOCKS(channel_sums_kernel, p, Grid(p.channels, p.n), region_threads, 0,
                              stream);
}

} // namespace relprop::cuda
