// The backward product of neurons whose Z- is scarce beside Z+, contribution by contribution. A
// warp owns some channels of one input row and looks for marked neurons above it: there are few,
// and their words are read by all lanes at once.
#include "backend.cuh"
#include "epilogue.cuh"
#include "launch.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

struct ScarceArguments {
    Scarce job;
    int64_t warp_count;
    Places warps; // of the input, its channels replaced by the warps that hold them
    int chunks;   // of a group's outputs
    int shares;   // of a group's inputs, a warp each
};

// Calls body(channel) for the marked neurons of a group in an output row, ascending. All lanes of a
// warp must call it, with the same arguments.
template <class Body>
__device__ void each_marked(const ScarceArguments &of, int64_t row, int group, const Body &body) {
    const TapGrid &grid = of.job.contributions.grid;
    const uint32_t *words = of.job.marked + (row * grid.groups + group) * of.chunks;
    for (int first = 0; first < of.chunks; first += warp_lanes) {
        const int mine = first + lane_index();
        const uint32_t own = mine < of.chunks ? words[mine] : 0;
        for (unsigned some = __ballot_sync(all_lanes, own != 0); some != 0; some &= some - 1) {
            const int chunk = first + __ffs(static_cast<int>(some)) - 1;
            for (uint32_t left = words[chunk]; left != 0; left &= left - 1)
                body(group * outputs_of(grid) + chunk * chunk_channels +
                     __ffs(static_cast<int>(left)) - 1);
        }
    }
}

// In a layer of stride 1, tap by tap in one fixed order.
__global__ void scarce_kernel(ScarceArguments of) {
    if (warp_index() >= of.warp_count)
        return;
    const Contributions &c = of.job.contributions;
    const TapGrid &grid = c.grid;
    const Place own = place_by(warp_index(), of.warps);
    const int group = own.c / of.shares;
    const int k = own.c % of.shares * warp_lanes + lane_index();
    const int64_t source = row_of(grid.from, own.n, own.at);
    const int64_t at = source * grid.from.channels + group * c.run + k;
    const bool real = k < c.run;
    const float x = real ? c.x[at] : 0.0f;
    float sum = real && of.job.add ? of.job.relevance[at] : 0.0f;
    for (int t = 0; t < grid.tap_count; ++t) {
        const Pixel tap = grid.taps[t];
        const Pixel above = {own.at.z - tap.z, own.at.y - tap.y, own.at.x - tap.x};
        if (!inside(grid.to, above))
            continue;
        const int64_t row = row_of(grid.to, own.n, above);
        each_marked(of, row, group, [&](int channel) {
            if (!real)
                return;
            const float product = x * weights_of(c, channel, t)[k * c.step];
            const float s = of.job.s_neg[row * grid.to.channels + channel];
            sum += s * (product < 0.0f ? product : 0.0f);
        });
    }
    if (real)
        of.job.relevance[at] = sum;
}

// What is handed down here is not to be handed down again.
__global__ void clear_marked_kernel(ScarceArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const uint32_t word = of.job.marked[thread_index()];
    if (word == 0)
        return;
    const TapGrid &grid = of.job.contributions.grid;
    const int64_t chunks = static_cast<int64_t>(grid.groups) * of.chunks;
    const int64_t row = thread_index() / chunks;
    const int chunk = static_cast<int>(thread_index() % chunks);
    const int first = chunk / of.chunks * outputs_of(grid) + chunk % of.chunks * chunk_channels;
    for (uint32_t left = word; left != 0; left &= left - 1)
        of.job.s_neg[row * grid.to.channels + first + __ffs(static_cast<int>(left)) - 1] = 0.0f;
}

} // namespace

// ---- launchers

// Whether any was marked the device alone knows: its answer would have to be waited for.
bool scarce(const Scarce &job, Stream stream) {
    const Contributions &c = job.contributions;
    const TapGrid &grid = c.grid;
    const int shares = ceil_div(c.run, warp_lanes);
    Image warps = grid.from;
    warps.channels = grid.groups * shares;
    const ScarceArguments arguments{job, c.n * warps.size(), places_of(warps),
                                    chunks(1, outputs_of(grid)), shares};
    RELPROP_LAUNCH_BLOCKS(scarce_kernel, arguments, blocks_of_warps(arguments.warp_count),
                          block_threads, 0, stream);
    RELPROP_LAUNCH(clear_marked_kernel, arguments,
                   c.n * grid.to.pixels() * chunks(grid.groups, outputs_of(grid)), stream);
    return true;
}

} // namespace relprop::cuda
