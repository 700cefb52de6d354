// Interpolation, forward and relevance: each row sums what it reads, or what its readers hand down.
// A thread owns one channel of a row, or four.
#include "backend.cuh"
#include "lanes.cuh"
#include "launch.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

struct ResampleArguments {
    Resample p;
    Divisor channels, rows; // rows per sample of the result
};

// A value of the result.
struct Spot {
    int64_t n, row, at; // `at` counts floats
    int c;
};

__device__ Spot spot_at(const ResampleArguments &of, int64_t at) {
    const int64_t row = divided(at, of.channels), n = divided(row, of.rows);
    return {n, row - n * of.rows.by, at, static_cast<int>(at - row * of.channels.by)};
}

template <int width> __global__ void resample_kernel(ResampleArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Resample &p = of.p;
    const Spot to = spot_at(of, thread_index() * width);
    const float *in = p.in + to.n * p.from_rows * p.channels + to.c;
    Lanes<width> sum = {};
    for (int t = 0; t < p.taps; ++t) {
        const float weight = p.weight[to.row * p.taps + t];
        const int64_t row = p.index[to.row * p.taps + t];
        const Lanes<width> a = load<width>(in + row * p.channels);
        for (int lane = 0; lane < width; ++lane)
            sum.at[lane] += weight * a.at[lane];
    }
    store(p.result + to.at, sum);
}

template <int width>
__global__ void resample_relevance_kernel(ResampleArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Resample &p = of.p;
    const Spot from = spot_at(of, thread_index() * width);
    const float *s = p.s + from.n * p.to_rows * p.channels + from.c;
    Lanes<width> in = {}, result = {};
    if (p.in)
        in = load<width>(p.in + from.at);
    if (p.add)
        result = load<width>(p.result + from.at);
    double sum[width]; // one pixel may have become a whole image
    for (int lane = 0; lane < width; ++lane)
        sum[lane] = result.at[lane];
    for (int32_t k = p.offsets[from.row]; k < p.offsets[from.row + 1]; ++k) {
        const float weight = p.reader_weight[k];
        const Lanes<width> handed = load<width>(s + static_cast<int64_t>(p.reader[k]) * p.channels);
        for (int lane = 0; lane < width; ++lane)
            sum[lane] += (p.in ? weight * in.at[lane] : weight) * handed.at[lane];
    }
    for (int lane = 0; lane < width; ++lane)
        result.at[lane] = static_cast<float>(sum[lane]);
    store(p.result + from.at, result);
}

} // namespace

// ---- launchers

void resample(const Resample &p, Stream stream) {
    const ResampleArguments arguments{p, divisor_of(p.channels), divisor_of(p.to_rows)};
    with_width({p.in, p.result}, {p.channels}, [&](auto width) {
        RELPROP_LAUNCH(resample_kernel<width()>, arguments, p.n * p.to_rows * p.channels / width(),
                       stream);
    });
}

void resample_relevance(const Resample &p, Stream stream) {
    const ResampleArguments arguments{p, divisor_of(p.channels), divisor_of(p.from_rows)};
    with_width({p.in, p.s, p.result}, {p.channels}, [&](auto width) {
        RELPROP_LAUNCH(resample_relevance_kernel<width()>, arguments,
                       p.n * p.from_rows * p.channels / width(), stream);
    });
}

} // namespace relprop::cuda
