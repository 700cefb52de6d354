// Both ends of the passes: what relevance begins with, and whether results are finite.
#include "backend.cuh"
#include "lanes.cuh"
#include "launch.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

struct BeginArguments {
    Beginning p;
    Divisor size, pixels;
};

struct Candidate {
    float score;
    int64_t at;
};

__device__ Candidate better_of(const Candidate &a, const Candidate &b) {
    return b.score > a.score || (b.score == a.score && b.at < a.at) ? b : a;
}

// Each sample's first of the largest scores, a block for each. A NaN wins where it is the first
// score, and never elsewhere: nothing is larger than it, and it is larger than nothing.
__global__ void targets_kernel(BeginArguments of) {
    __shared__ Candidate candidates[block_threads];
    const Beginning &p = of.p;
    const int64_t size = of.size.by;
    const float *scores = p.scores + blockIdx.x * size;
    Candidate best{scores[0], 0};
    for (int64_t i = threadIdx.x; i < size; i += block_threads)
        if (scores[i] > best.score)
            best = {scores[i], i};
    candidates[threadIdx.x] = best;
    for (unsigned by = block_threads / 2; by > 0; by /= 2) {
        __syncthreads();
        if (threadIdx.x < by)
            candidates[threadIdx.x] =
                better_of(candidates[threadIdx.x], candidates[threadIdx.x + by]);
    }
    if (threadIdx.x == 0)
        p.targets[blockIdx.x] = candidates[0].at;
}

__global__ void begin_kernel(BeginArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Beginning &p = of.p;
    const int64_t sample = divided(thread_index(), of.size);
    const int64_t i = thread_index() - sample * of.size.by;
    const bool chosen = p.mask ? p.mask[thread_index()] != 0 : i == p.targets[sample];
    const int64_t channel = divided(i, of.pixels), pixel = i - channel * of.pixels.by;
    const int64_t place = p.channels_first ? pixel * p.image.channels + channel : i;
    const float value = p.one ? 1.0f : p.scores[thread_index()];
    p.relevance[sample * of.size.by + place] = chosen ? value : 0.0f;
}

struct Check {
    const float *values;
    int64_t n;
    int64_t *bad;
};

// -1 is the largest of unsigned numbers, so that every index is less.
__global__ void none_bad_kernel(Check p, int64_t) {
    if (thread_index() == 0)
        *p.bad = -1;
}

template <int width> __device__ void check(const Check &p, int64_t first) {
    const Lanes<width> values = load<width>(p.values + first);
    for (int lane = 0; lane < width; ++lane)
        if (!(values.at[lane] * 0.0f == 0.0f))
            atomicMin(reinterpret_cast<unsigned long long *>(p.bad),
                      static_cast<unsigned long long>(first + lane));
}

template <int width> __global__ void check_finite_kernel(Check p, int64_t) {
    const int64_t first = thread_index() * width;
    if (first + width <= p.n)
        check<width>(p, first);
    else
        for (int64_t i = first; i < p.n; ++i)
            check<1>(p, i);
}

} // namespace

// ---- launchers

void begin(const Beginning &p, Stream stream) {
    const int64_t size = p.image.size();
    const BeginArguments arguments{p, divisor_of(size), divisor_of(p.image.pixels())};
    if (!p.mask && p.argmax)
        RELPROP_LAUNCH_BLOCKS(targets_kernel, arguments, p.n, block_threads, 0, stream);
    RELPROP_LAUNCH(begin_kernel, arguments, p.n * size, stream);
}

void check_finite(const float *values, int64_t n, int64_t *bad, Stream stream) {
    const Check p{values, n, bad};
    RELPROP_LAUNCH(none_bad_kernel, p, 1, stream);
    with_width({values}, {}, [&](auto width) {
        RELPROP_LAUNCH(check_finite_kernel<width()>, p, (n + width() - 1) / width(), stream);
    });
}

} // namespace relprop::cuda
