// The ledger's sums: float64 over a fixed order, whatever the batch. A block sums a sample; its
// threads take stretches in turn, each stretch the next values of all of them.
#include "backend.cuh"
#include "lanes.cuh"
#include "launch.cuh"
#include "sums.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

constexpr int totals_threads = 1024;
constexpr int loads = 4; // that a thread has under way at once

// Two sums side by side: of values and magnitudes, or by bias and by stabilizer.
struct Pair {
    double first = 0.0, second = 0.0;
};

struct Totals {
    const float *values; // [n, size]
    int64_t size;
    double *out; // [n]  every out_stride
    int64_t out_stride;
};

// Calls body(float) for a thread's share of `size` values, four neighbours in a row at a time,
// which are loaded at once where width is 4: the order is the same.
template <int width, class Body>
__device__ void each_share(const float *values, int64_t size, const Body &body) {
    constexpr int64_t stride = 4 * totals_threads;
    int64_t at = 4 * static_cast<int64_t>(threadIdx.x);
    for (; at + (loads - 1) * stride + 4 <= size; at += loads * stride) {
        Lanes<width> held[loads][4 / width];
        for (int k = 0; k < loads; ++k)
            for (int part = 0; part < 4 / width; ++part)
                held[k][part] = load<width>(values + at + k * stride + part * width);
        for (int k = 0; k < loads; ++k)
            for (int i = 0; i < 4; ++i)
                body(i, held[k][i / width].at[i % width]);
    }
    for (; at < size; at += stride)
        for (int i = 0; i < 4 && at + i < size; ++i)
            body(i, values[at + i]);
}

// The block's sums, in its first thread.
__device__ Pair block_sums(const Pair &own) {
    __shared__ double apart[2][totals_threads / warp_lanes];
    return {block_sum(own.first, apart[0]), block_sum(own.second, apart[1])};
}

template <int width> __global__ void __launch_bounds__(totals_threads) totals_kernel(Totals p) {
    const int64_t sample = blockIdx.x;
    Pair own;
    each_share<width>(p.values + sample * p.size, p.size, [&](int, float value) {
        own.first += static_cast<double>(value);
        own.second += static_cast<double>(value < 0.0f ? -value : value);
    });
    const Pair sums = block_sums(own);
    if (threadIdx.x != 0)
        return;
    p.out[sample * p.out_stride] = sums.first;
    p.out[sample * p.out_stride + 1] = sums.second;
}

template <int width>
__global__ void __launch_bounds__(totals_threads) sum_absorbed_kernel(Totals p) {
    const int64_t sample = blockIdx.x;
    Pair own;
    each_share<width>(p.values + sample * p.size, p.size, [&](int i, float value) {
        (i % 2 == 0 ? own.first : own.second) += static_cast<double>(value);
    });
    const Pair sums = block_sums(own);
    if (threadIdx.x != 0)
        return;
    p.out[sample * p.out_stride] += sums.first;
    p.out[sample * p.out_stride + 1] += sums.second;
}

template <int width> __global__ void __launch_bounds__(totals_threads) book_kernel(Totals p) {
    const int64_t sample = blockIdx.x;
    Pair own;
    each_share<width>(p.values + sample * p.size, p.size,
                      [&](int, float value) { own.first += static_cast<double>(value); });
    const Pair sums = block_sums(own);
    if (threadIdx.x == 0)
        p.out[sample * p.out_stride] += sums.first;
}

struct BookPlaces {
    Totals totals;
    const int32_t *places; // [count]
    int64_t count;
};

__global__ void __launch_bounds__(totals_threads) book_places_kernel(BookPlaces p) {
    const int64_t sample = blockIdx.x;
    const float *values = p.totals.values + sample * p.totals.size;
    Pair own;
    for (int64_t i = threadIdx.x; i < p.count; i += totals_threads)
        own.first += static_cast<double>(values[p.places[i]]);
    const Pair sums = block_sums(own);
    if (threadIdx.x == 0)
        p.totals.out[sample * p.totals.out_stride] += sums.first;
}

} // namespace

// ---- launchers

void sum_absorbed(const float *absorbed, int64_t n, int64_t pairs, double *out, int64_t out_stride,
                  Stream stream) {
    const Totals p{absorbed, 2 * pairs, out, out_stride};
    with_width({absorbed}, {p.size}, [&](auto width) {
        RELPROP_LAUNCH_BLOCKS(sum_absorbed_kernel<width()>, p, n, totals_threads, 0, stream);
    });
}

void totals(const float *values, int64_t n, int64_t size, double *out, int64_t out_stride,
            Stream stream) {
    const Totals p{values, size, out, out_stride};
    with_width({values}, {size}, [&](auto width) {
        RELPROP_LAUNCH_BLOCKS(totals_kernel<width()>, p, n, totals_threads, 0, stream);
    });
}

void book(const float *values, int64_t n, int64_t size, const int32_t *places, int64_t count,
          double *out, int64_t out_stride, Stream stream) {
    const Totals p{values, size, out, out_stride};
    if (places) {
        const BookPlaces some{p, places, count};
        RELPROP_LAUNCH_BLOCKS(book_places_kernel, some, n, totals_threads, 0, stream);
        return;
    }
    with_width({values}, {size}, [&](auto width) {
        RELPROP_LAUNCH_BLOCKS(book_kernel<width()>, p, n, totals_threads, 0, stream);
    });
}

} // namespace relprop::cuda
