// The same share for every real input of a neuron (flat; bias="distribute"): sums over the
// channels of a group first, so what remains is a sum over taps of one channel per group.
#include "backend.cuh"
#include "launch.cuh"
#include "sums.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

struct GroupSums {
    const float *share; // [groups, per_group]
    int64_t groups;     // rows * groups
    int per_group;      // channels
    float *sums;        // [groups]
};

__global__ void group_sums_kernel(GroupSums p, int64_t count) {
    if (thread_index() >= count)
        return;
    double sum = 0.0;
    for (int c = 0; c < p.per_group; ++c)
        sum += static_cast<double>(p.share[thread_index() * p.per_group + c]);
    p.sums[thread_index()] = static_cast<float>(sum);
}

// The same by a warp for each group.
__global__ void wide_group_sums_kernel(GroupSums p) {
    const int64_t group = warp_index();
    if (group >= p.groups)
        return;
    double sum = 0.0;
    for (int c = lane_index(); c < p.per_group; c += warp_lanes)
        sum += static_cast<double>(p.share[group * p.per_group + c]);
    sum = warp_sum(sum);
    if (lane_index() == 0)
        p.sums[group] = static_cast<float>(sum);
}

struct SpreadArguments {
    Spread p;
    Places places; // of the grid, with all channels of the destination
    int per_group; // channels
};

__global__ void spread_kernel(SpreadArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Spread &p = of.p;
    const TapGrid &grid = p.grid;
    const Place own = place_by(thread_index(), of.places);
    const int group = own.c / of.per_group;
    float sum = 0.0f;
    for (int t = 0; t < grid.tap_count; ++t) {
        const Pixel from = moved(own.at, grid.step, grid.taps[t]);
        if (inside(grid.from, from))
            sum += p.sums[row_of(grid.from, own.n, from) * grid.groups + group];
    }
    const int64_t row = row_of(grid.to, own.n, moved(own.at, grid.out_step, grid.out));
    float *out = p.out + row * grid.to.channels + own.c;
    *out = p.add ? *out + sum : sum;
}

} // namespace

// ---- launchers

void group_sums(const float *share, int64_t rows, int channels, int groups, float *sums,
                Stream stream) {
    const GroupSums p{share, rows * groups, channels / groups, sums};
    if (p.per_group < warp_lanes)
        RELPROP_LAUNCH(group_sums_kernel, p, p.groups, stream);
    else
        RELPROP_LAUNCH_BLOCKS(wide_group_sums_kernel, p, blocks_of_warps(p.groups), block_threads,
                              0, stream);
}

void spread(const Spread &p, Stream stream) {
    const TapGrid &grid = p.grid;
    const Image image = {grid.size.z, grid.size.y, grid.size.x, grid.to.channels};
    const SpreadArguments arguments{p, places_of(image), grid.to.channels / grid.groups};
    RELPROP_LAUNCH(spread_kernel, arguments, p.n * image.size(), stream);
}

} // namespace relprop::cuda
