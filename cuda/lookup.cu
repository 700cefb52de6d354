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
__global__ void lookup_relevance_kernel(Lookup p, int64_t count) {
    if (thread_index() >= count)
        return;
    const int64_t i = thread_index() / warp_lanes;
    const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
    double sum = 0.0;
    for (int f = lane; f < p.features; f += warp_lanes)
        sum += static_cast<double>(p.r[i * p.features + f]);
    const float total = static_cast<float>(warp_sum(sum));
    if (lane == 0)
        p.result[i] = p.add ? p.result[i] + total : total;
}

} // namespace

// ---- launchers

void lookup(const Lookup &p, Stream stream) {
    const LookupArguments arguments{p, divisor_of(p.features)};
    RELPROP_LAUNCH(lookup_kernel, arguments, p.ids_count * p.features, stream);
}

void lookup_relevance(const Lookup &p, Stream stream) {
    RELPROP_LAUNCH(lookup_relevance_kernel, p, p.ids_count * warp_lanes, stream);
}

} // namespace relprop::cuda
