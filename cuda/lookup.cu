// Embedding: rows looked up by ids, and the sums over rows that relevance becomes.
#include "backend.cuh"
#include "launch.cuh"
#include "sums.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

struct LookupArguments {
    Lookup p;
    Divisor features;
};

__global__ void lookup_kernel(LookupArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Lookup &p = of.p;
    const int64_t i = divided(thread_index(), of.features);
    const float id = p.ids[i];
    const bool known = id >= 0.0f && id < static_cast<float>(p.vocabulary);
    const int64_t at = known ? static_cast<int64_t>(id) * p.features : 0;
    p.result[thread_index()] = known ? p.weight[at + thread_index() - i * p.features] : nanf("");
}

// A warp sums the features of one id.
__global__ void lookup_relevance_kernel(Lookup p) {
    const int64_t i = warp_index();
    if (i >= p.ids_count)
        return;
    double sum = 0.0;
    for (int f = lane_index(); f < p.features; f += warp_lanes)
        sum += static_cast<double>(p.r[i * p.features + f]);
    const float total = static_cast<float>(warp_sum(sum));
    if (lane_index() == 0)
        p.result[i] = p.add ? p.result[i] + total : total;
}

} // namespace

// ---- launchers

void lookup(const Lookup &p, Stream stream) {
    const LookupArguments arguments{p, divisor_of(p.features)};
    RELPROP_LAUNCH(lookup_kernel, arguments, p.ids_count * p.features, stream);
}

void lookup_relevance(const Lookup &p, Stream stream) {
    RELPROP_LAUNCH_BLOCKS(lookup_relevance_kernel, p, blocks_of_warps(p.ids_count), block_threads,
                          0, stream);
}

} // namespace relprop::cuda
