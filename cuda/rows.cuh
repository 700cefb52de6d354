// Kernels that work row by row: a team of threads, a warp or a block, has a row, whose values its
// threads keep in registers where there is room. Which thread has which values depends on the width
// alone, and with it the order of sums.
#pragma once

#include "lanes.cuh"
#include "launch.cuh"
#include "sums.cuh"

namespace relprop::cuda {

// `threads` of a row, each of which has groups of `group` neighbours, loads `lanes` of them at once
// and keeps up to `held` groups; 0: any number, which it reads and computes again when they are
// asked for.
template <int threads_, int group_, int lanes_, int held_> struct Team {
    static constexpr int threads = threads_, group = group_, lanes = lanes_, held = held_;
    static constexpr int block = threads < 128 ? 128 : threads;
    static constexpr int rows = block / threads; // of a block
    static int64_t blocks(int64_t rows_) { return (rows_ + rows - 1) / rows; }
};

// Calls body(Team{}) with the team for rows of so many values, which lie in these arrays.
template <int group, int lanes, class Body> void with_team_of(int width, const Body &body) {
    constexpr bool usual = lanes == group; // arrays of a Plan are aligned
    if (width <= 256)
        body(Team<warp_lanes, group, lanes, usual ? 8 / group : 0>{});
    else if (width <= 1024)
        body(Team<warp_lanes, group, lanes, usual ? 32 / group : 0>{});
    else if (width <= 8192)
        body(Team<256, group, lanes, usual ? 32 / group : 0>{});
    else
        body(Team<512, group, lanes, 0>{}); // two for a multiprocessor
}
template <class Body>
void with_team(const std::vector<const float *> &arrays, int width, const Body &body) {
    if (width % 4 != 0)
        return with_team_of<1, 1>(width, body);
    with_width(arrays, {}, [&](auto lanes) { with_team_of<4, lanes()>(width, body); });
}

// f of each neighbour in groups.
template <class F, int group, class... Groups>
__device__ __forceinline__ Lanes<group> mapped(const F &f, const Lanes<group> &first,
                                               const Groups &...others) {
    Lanes<group> result;
#pragma unroll
    for (int i = 0; i < group; ++i)
        result.at[i] = f(first.at[i], others.at[i]...);
    return result;
}

// Values that are read when they are asked for.
template <class Of> struct Array {
    const float *from; // the thread's first

    // The k-th group of a thread, which begins `at` places behind its first.
    __device__ __forceinline__ Lanes<Of::group> group(int, int at) const {
        Lanes<Of::group> values;
#pragma unroll
        for (int i = 0; i < Of::group; i += Of::lanes) {
            const Lanes<Of::lanes> some = load<Of::lanes>(from + at + i);
#pragma unroll
            for (int lane = 0; lane < Of::lanes; ++lane)
                values.at[i + lane] = some.at[lane];
        }
        return values;
    }
};

// The same, or, without an array, one value everywhere.
template <class Of> struct Weights {
    const float *from;
    float otherwise;

    __device__ __forceinline__ Lanes<Of::group> group(int k, int at) const {
        if (from)
            return Array<Of>{from}.group(k, at);
        Lanes<Of::group> values;
#pragma unroll
        for (int i = 0; i < Of::group; ++i)
            values.at[i] = otherwise;
        return values;
    }
};

// Values that a thread keeps, or computes when they are asked for.
template <class Of, class Compute> struct Kept {
    Compute compute;
    Lanes<Of::group> kept[Of::held > 0 ? Of::held : 1];

    __device__ __forceinline__ Lanes<Of::group> group(int k, int at) const {
        if constexpr (Of::held > 0)
            return kept[k];
        else
            return compute(k, at);
    }
};

// The row that this thread's team has. What a function asks of a row, all threads of its team must
// ask.
template <class Of> struct Row {
    int first;     // place of the thread's
    int64_t begin; // of that place in arrays of rows
    int size;      // of the row, from there on

    __device__ Row(int width)
        : first(static_cast<int>(threadIdx.x) % Of::threads * Of::group),
          begin(index() * width + first), size(width - first) {}

    __device__ static int64_t index() {
        return static_cast<int64_t>(blockIdx.x) * Of::rows +
               static_cast<int>(threadIdx.x) / Of::threads;
    }

    // Calls body(k, at) for each group of this thread's.
    template <class Body> __device__ __forceinline__ void each_group(const Body &body) const {
        constexpr int apart = Of::threads * Of::group;
        if constexpr (Of::held > 0) {
#pragma unroll
            for (int k = 0; k < Of::held; ++k)
                if (k * apart < size)
                    body(k, k * apart);
        } else {
            for (int64_t at = 0; at < size; at += apart)
                body(0, static_cast<int>(at));
        }
    }

    __device__ Array<Of> array(const float *rows) const { return {rows + begin}; }
    // The same of every row, or one value.
    __device__ Weights<Of> weights(const float *values, float otherwise) const {
        return {values ? values + first : nullptr, otherwise};
    }

    // f of values.
    template <class F, class... Values>
    __device__ __forceinline__ auto keep(const F &f, const Values &...values) const {
        const auto compute = [=](int k, int at) { return mapped(f, values.group(k, at)...); };
        Kept<Of, decltype(compute)> result{compute, {}};
        if constexpr (Of::held > 0)
            each_group([&](int k, int at) { result.kept[k] = compute(k, at); });
        return result;
    }
    __device__ __forceinline__ auto read(const float *rows) const {
        return keep([](float value) { return value; }, array(rows));
    }

    // The sum of term(values) over the row, in float64.
    template <class Term, class... Values>
    __device__ __forceinline__ double sum(const Term &term, const Values &...values) const {
        double sums[Of::group] = {};
        each_group([&](int k, int at) { add_terms(sums, term, values.group(k, at)...); });
        double sum = sums[0];
#pragma unroll
        for (int i = 1; i < Of::group; ++i)
            sum += sums[i];
        if constexpr (Of::threads == warp_lanes) {
            return warp_sum(sum);
        } else {
            constexpr int warps = Of::threads / warp_lanes;
            __shared__ double apart[warps], all;
            sum = block_sum(sum, apart);
            if (threadIdx.x == 0)
                all = sum;
            __syncthreads();
            return all;
        }
    }

    // The largest of the values that are numbers. To be asked for once.
    template <class Values> __device__ __forceinline__ float most(const Values &values) const {
        float most = -INFINITY;
        each_group([&](int k, int at) {
            const Lanes<Of::group> own = values.group(k, at);
#pragma unroll
            for (int i = 0; i < Of::group; ++i)
                most = fmaxf(most, own.at[i]);
        });
        for (int by = warp_lanes / 2; by > 0; by /= 2)
            most = fmaxf(most, __shfl_xor_sync(all_lanes, most, by));
        if constexpr (Of::threads > warp_lanes) {
            constexpr int warps = Of::threads / warp_lanes;
            __shared__ float apart[warps];
            if (lane_index() == 0)
                apart[static_cast<int>(threadIdx.x) / warp_lanes] = most;
            __syncthreads();
            for (int w = 0; w < warps; ++w)
                most = fmaxf(most, apart[w]);
        }
        return most;
    }

    // rows = f(values), or that is added to them: those that are there are all asked for before one
    // of them is needed.
    template <class F, class... Values>
    __device__ __forceinline__ void put(float *rows, bool add, const F &f,
                                        const Values &...values) const {
        if (!add) {
            each_group([&](int k, int at) {
                write(rows + begin + at, mapped(f, values.group(k, at)...));
            });
            return;
        }
        const auto before = read(rows);
        each_group([&](int k, int at) {
            const auto sum = [](float old, float more) { return old + more; };
            write(rows + begin + at,
                  mapped(sum, before.group(k, at), mapped(f, values.group(k, at)...)));
        });
    }

  private:
    template <class Term, class... Groups>
    __device__ static __forceinline__ void add_terms(double (&sums)[Of::group], const Term &term,
                                                     const Groups &...groups) {
#pragma unroll
        for (int i = 0; i < Of::group; ++i)
            sums[i] += term(groups.at[i]...);
    }

    __device__ static __forceinline__ void write(float *to, const Lanes<Of::group> &values) {
#pragma unroll
        for (int i = 0; i < Of::group; i += Of::lanes) {
            Lanes<Of::lanes> some;
#pragma unroll
            for (int lane = 0; lane < Of::lanes; ++lane)
                some.at[lane] = values.at[i + lane];
            store(to + i, some);
        }
    }
};

} // namespace relprop::cuda
