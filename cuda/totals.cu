// The ledger's sums: float64 over a fixed order, whatever the batch. A block sums a part of a
// sample; its threads take stretches in turn, each stretch the next values of all of them. The last
// block of a sample to end adds up what all of them left.
#include "backend.cuh"
#include "lanes.cuh"
#include "launch.cuh"
#include "sums.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

constexpr int totals_threads = 256;
constexpr int loads = 4; // that a thread has under way at once

// Two sums side by side: of values and magnitudes, or by bias and by stabilizer.
struct Pair {
    double first = 0.0, second = 0.0;
};

// Which sums there are, and what becomes of them.
enum class Sum { totals, absorbed, book };

// Calls body(i, value) for a thread's share of `size` values, four neighbours in a row at a time,
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

template <Sum what> __device__ void put(const Totals &p, int64_t sample, const Pair &sums) {
    double *out = p.out + sample * p.out_stride;
    if (what == Sum::totals) {
        out[0] = sums.first;
        out[1] = sums.second;
        return;
    }
    out[0] += sums.first;
    if (what == Sum::absorbed)
        out[1] += sums.second;
}

// Leaves a block's sums and returns whether it is the last of its sample to do so.
__device__ bool leave(Pair *left, double *scratch, int64_t sample, const Pair &sums) {
    __shared__ bool last;
    if (threadIdx.x == 0) {
        left[blockIdx.x] = sums;
        __threadfence();
        auto *arrived = reinterpret_cast<unsigned *>(scratch + sample);
        last = atomicAdd(arrived, 1u) + 1 == gridDim.x;
        if (last)
            *arrived = 0; // for the next sums
    }
    __syncthreads();
    __threadfence();
    return last;
}

template <Sum what, int width>
__global__ void __launch_bounds__(totals_threads) totals_kernel(const __grid_constant__ Totals p) {
    const int64_t sample = blockIdx.y, first = blockIdx.x * totals_part;
    const int64_t size = p.size - first < totals_part ? p.size - first : totals_part;
    Pair own;
    each_share<width>(p.values + sample * p.size + first, size, [&](int i, float value) {
        if (what == Sum::absorbed) {
            (i % 2 == 0 ? own.first : own.second) += static_cast<double>(value);
        } else {
            const auto wide = static_cast<double>(value);
            own.first += wide;
            own.second += fabs(wide);
        }
    });
    const Pair sums = block_sums(own);
    if (gridDim.x == 1) {
        if (threadIdx.x == 0)
            put<what>(p, sample, sums);
        return;
    }
    Pair *left = reinterpret_cast<Pair *>(p.scratch + p.n) + sample * gridDim.x;
    if (!leave(left, p.scratch, sample, sums))
        return;
    Pair all;
    const volatile Pair *of_others = left; // not from this multiprocessor's own cache
    for (unsigned part = threadIdx.x; part < gridDim.x; part += totals_threads) {
        all.first += of_others[part].first;
        all.second += of_others[part].second;
    }
    const Pair total = block_sums(all);
    if (threadIdx.x == 0)
        put<what>(p, sample, total);
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
        put<Sum::book>(p.totals, sample, sums);
}

// ---- launchers

template <Sum what> void launch_sums(const Totals &p, Stream stream) {
    with_width({p.values}, {p.size}, [&](auto width) {
        constexpr auto kernel = totals_kernel<what, width()>;
        RELPROP_LAUNCH_BLOCKS(kernel, p, Grid(totals_parts(p.size), p.n), totals_threads, 0,
                              stream);
    });
}

} // namespace

void totals(const Totals &p, Stream stream) { launch_sums<Sum::totals>(p, stream); }

void sum_absorbed(const Totals &p, Stream stream) { launch_sums<Sum::absorbed>(p, stream); }

void book(const Totals &p, const int32_t *places, int64_t count, Stream stream) {
    if (!places)
        return launch_sums<Sum::book>(p, stream);
    const BookPlaces some{p, places, count};
    RELPROP_LAUNCH_BLOCKS(book_places_kernel, some, p.n, totals_threads, 0, stream);
}

} // namespace relprop::cuda
