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

// Sums side by side.
template <int count> struct Doubles {
    double at[count] = {};
};

// What is summed, and what becomes of it: how many sums there are, how a value joins those of a
// thread, being its i-th of four neighbours, and where a sample's go.
struct Whole {
    static constexpr int sums = 2; // of values and of magnitudes
    Totals p;
    __device__ static void add(Doubles<sums> &own, int, double value) {
        own.at[0] += value;
        own.at[1] += fabs(value);
    }
    __device__ void put(int64_t sample, const Doubles<sums> &of) const {
        p.out[sample * p.out_stride] = of.at[0];
        p.out[sample * p.out_stride + 1] = of.at[1];
    }
};

struct Booked {
    static constexpr int sums = 1;
    Totals p;
    __device__ static void add(Doubles<sums> &own, int, double value) { own.at[0] += value; }
    __device__ void put(int64_t sample, const Doubles<sums> &of) const {
        p.out[sample * p.out_stride] += of.at[0];
    }
};

struct Told {
    static constexpr int sums = tally_sums;
    Tallies p;
    __device__ static void add(Doubles<sums> &own, int i, double value) { own.at[i] += value; }
    __device__ void put(int64_t sample, const Doubles<sums> &of) const {
        for (int i = 0; i < 2; ++i) {
            if (p.absorbed)
                p.absorbed[sample * p.absorbed_stride + i] += of.at[i];
            if (p.totals)
                p.totals[sample * p.totals_stride + i] = of.at[2 + i];
        }
    }
};

// Values of each sample, and scratch of n + n * blocks * sums doubles, the first n of them 0.
template <class What> struct SumArguments {
    What what;
    const float *values;
    int64_t n, size;
    double *scratch;
};

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
template <int count> __device__ Doubles<count> block_sums(const Doubles<count> &own) {
    __shared__ double apart[count][totals_threads / warp_lanes];
    Doubles<count> all;
    for (int i = 0; i < count; ++i)
        all.at[i] = block_sum(own.at[i], apart[i]);
    return all;
}

// Leaves a block's sums and returns whether it is the last of its sample to do so.
template <int count>
__device__ bool leave(Doubles<count> *left, double *scratch, int64_t sample,
                      const Doubles<count> &sums) {
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

template <class What, int width>
__global__ void __launch_bounds__(totals_threads)
    totals_kernel(const __grid_constant__ SumArguments<What> p) {
    using Own = Doubles<What::sums>;
    const int64_t sample = blockIdx.y, first = blockIdx.x * totals_part;
    const int64_t size = p.size - first < totals_part ? p.size - first : totals_part;
    Own own;
    each_share<width>(p.values + sample * p.size + first, size,
                      [&](int i, float value) { What::add(own, i, static_cast<double>(value)); });
    const Own sums = block_sums(own);
    if (gridDim.x == 1) {
        if (threadIdx.x == 0)
            p.what.put(sample, sums);
        return;
    }
    Own *left = reinterpret_cast<Own *>(p.scratch + p.n) + sample * gridDim.x;
    if (!leave(left, p.scratch, sample, sums))
        return;
    Own all;
    const auto *of_others = reinterpret_cast<const volatile double *>(left);
    // volatile: not from this multiprocessor's own cache
    for (unsigned part = threadIdx.x; part < gridDim.x; part += totals_threads)
        for (int i = 0; i < What::sums; ++i)
            all.at[i] += of_others[part * What::sums + i];
    const Own total = block_sums(all);
    if (threadIdx.x == 0)
        p.what.put(sample, total);
}

struct BookPlaces {
    Totals totals;
    const int32_t *places; // [count]
    int64_t count;
};

__global__ void __launch_bounds__(totals_threads) book_places_kernel(BookPlaces p) {
    const int64_t sample = blockIdx.x;
    const float *values = p.totals.values + sample * p.totals.size;
    Doubles<1> own;
    for (int64_t i = threadIdx.x; i < p.count; i += totals_threads)
        Booked::add(own, 0, static_cast<double>(values[p.places[i]]));
    const Doubles<1> sums = block_sums(own);
    if (threadIdx.x == 0)
        Booked{p.totals}.put(sample, sums);
}

// ---- launchers

template <class What> void launch_sums(const SumArguments<What> &p, Stream stream) {
    with_width({p.values}, {p.size}, [&](auto width) {
        constexpr auto kernel = totals_kernel<What, width()>;
        RELPROP_LAUNCH_BLOCKS(kernel, p, Grid(totals_parts(p.size), p.n), totals_threads, 0,
                              stream);
    });
}

template <class What> SumArguments<What> arguments_of(const Totals &p) {
    return {{p}, p.values, p.n, p.size, p.scratch};
}

} // namespace

void totals(const Totals &p, Stream stream) { launch_sums(arguments_of<Whole>(p), stream); }

void sum_tallies(const Tallies &p, Stream stream) {
    launch_sums(SumArguments<Told>{{p}, p.tally, p.n, p.count * tally_sums, p.scratch}, stream);
}

void book(const Totals &p, const int32_t *places, int64_t count, Stream stream) {
    if (!places)
        return launch_sums(arguments_of<Booked>(p), stream);
    const BookPlaces some{p, places, count};
    RELPROP_LAUNCH_BLOCKS(book_places_kernel, some, p.n, totals_threads, 0, stream);
}

} // namespace relprop::cuda
