// What the multipliers give at best: multiplications and sums that touch no memory, in chains
// enough that none waits for the one before it.
#include "backend.cuh"
#include "launch.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

constexpr int thread_chains = 16, multiprocessor_threads = 2048;

struct Chains {
    int64_t rounds;
    float factor, summand; // that the compiler does not know: nothing can be computed beforehand
    float *kept;           // for a sum that no chain reaches
};

__global__ void chains_kernel(Chains p, int64_t count) {
    if (thread_index() >= count)
        return;
    float chain[thread_chains];
    for (int k = 0; k < thread_chains; ++k)
        chain[k] = p.summand * static_cast<float>(k);
    for (int64_t round = 0; round < p.rounds; ++round)
        for (int k = 0; k < thread_chains; ++k)
            chain[k] = fmaf(chain[k], p.factor, p.summand);
    float sum = 0.0f;
    for (int k = 0; k < thread_chains; ++k)
        sum += chain[k];
    if (sum < 0.0f)
        *p.kept = sum;
}

} // namespace

// ---- launchers

int64_t multiply_adds(int64_t rounds, Stream stream) {
    int index = 0, multiprocessors = 0;
    RELPROP_CHECK(cudaGetDevice(&index));
    RELPROP_CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, index));
    const int64_t threads = static_cast<int64_t>(multiprocessors) * multiprocessor_threads;
    const Chains chains{rounds, 0.5f, 1.0f, nullptr}; // the chains stay near 2
    RELPROP_LAUNCH(chains_kernel, chains, threads, stream);
    return threads * rounds * thread_chains;
}

} // namespace relprop::cuda
