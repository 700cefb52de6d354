// Relevance by regions of the image and by channels: float64 sums in one order whatever the batch.
// A block sums one region, whose pixels it finds by their labels, or one channel.
#include "backend.cuh"
#include "launch.cuh"
#include "sums.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

constexpr int region_threads = 256;
constexpr int region_warps = region_threads / warp_lanes;

__global__ void __launch_bounds__(region_threads)
    regions_kernel(const __grid_constant__ Regions p) {
    __shared__ double apart[3][region_warps];
    const int64_t sample = blockIdx.y;
    const auto region = static_cast<int32_t>(blockIdx.x);
    const float *values = p.values + sample * p.channels * p.pixels;
    const int32_t *labels = p.labels + (p.shared_labels ? 0 : sample * p.pixels);
    double own[3] = {}; // sum, sum of the positive part, pixels
    for (int64_t pixel = threadIdx.x; pixel < p.pixels; pixel += region_threads)
        if (labels[pixel] == region) {
            double value = 0.0;
            for (int c = 0; c < p.channels; ++c)
                value += static_cast<double>(values[c * p.pixels + pixel]);
            own[0] += value;
            own[1] += value < 0.0 ? 0.0 : value; // a NaN is not less
            own[2] += 1.0;
        }
    double *sums = p.sums + (sample * p.count + region) * 3;
    for (int i = 0; i < 3; ++i) {
        const double sum = block_sum(own[i], apart[i]);
        if (threadIdx.x == 0)
            sums[i] = sum;
    }
}

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

} // namespace

// ---- launchers

void regions(const Regions &p, Stream stream) {
    RELPROP_LAUNCH_BLOCKS(regions_kernel, p, Grid(p.count, p.n), region_threads, 0, stream);
    RELPROP_LAUNCH_BLOCKS(channel_sums_kernel, p, Grid(p.channels, p.n), region_threads, 0, stream);
}

} // namespace relprop::cuda
