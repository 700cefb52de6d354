// Kernels whose result at a place depends on the values at that place alone: a file gives the
// function, and this one its loads and stores. A thread computes two groups of neighbours, so that
// loads of both are under way at once.
#pragma once

#include "lanes.cuh"
#include "launch.cuh"

namespace relprop::cuda {

// out[i] = f(k, in[0][i], ...), or is added to, where i is place k of its group of neighbours. out
// may be one of the inputs. A function that depends on the place has from(first), which returns the
// function of the group from place `first` on: what it divides for, it divides for once.
template <int inputs, class F> struct Elementwise {
    F f;
    int64_t n;
    float *out;
    bool add;
    const float *in[inputs > 0 ? inputs : 1];
};

template <class F> __device__ F from(const F &f, int64_t first) {
    if constexpr (requires { f.from(first); })
        return f.from(first);
    else
        return f;
}

template <int inputs, int width, class F>
__device__ float value_of(const F &f, int k, const Lanes<width> *in) {
    if constexpr (inputs == 0)
        return f(k);
    else if constexpr (inputs == 1)
        return f(k, in[0].at[k]);
    else
        return f(k, in[0].at[k], in[1].at[k]);
}

// The values that a group of neighbours takes, from place `first` on.
template <int inputs, int width> struct Group {
    Lanes<width> in[inputs > 0 ? inputs : 1], out = {};
};

template <int width, int inputs, class F>
__device__ Group<inputs, width> load_group(const Elementwise<inputs, F> &p, int64_t first) {
    Group<inputs, width> group;
    for (int k = 0; k < inputs; ++k)
        group.in[k] = load<width>(p.in[k] + first);
    if (p.add)
        group.out = load<width>(p.out + first);
    return group;
}

template <int width, int inputs, class F>
__device__ void compute(const Elementwise<inputs, F> &p, int64_t first,
                        Group<inputs, width> group) {
    const F f = from(p.f, first);
    for (int lane = 0; lane < width; ++lane) {
        const float value = value_of<inputs>(f, lane, group.in);
        group.out.at[lane] = p.add ? group.out.at[lane] + value : value;
    }
    store(p.out + first, group.out);
}

// Up to a whole group at the end.
template <int width, int inputs, class F>
__device__ void compute_rest(const Elementwise<inputs, F> &p, int64_t first) {
    for (int64_t i = first; i < first + width && i < p.n; ++i)
        compute<1>(p, i, load_group<1>(p, i));
}

template <int width, int inputs, class F>
__global__ void elementwise_kernel(Elementwise<inputs, F> p, int64_t) {
    constexpr int64_t apart = int64_t{width} * block_threads;
    const int64_t first = blockIdx.x * 2 * apart + threadIdx.x * width, second = first + apart;
    if (second + width <= p.n) {
        const Group<inputs, width> one = load_group<width>(p, first);
        const Group<inputs, width> other = load_group<width>(p, second);
        compute(p, first, one);
        compute(p, second, other);
    } else {
        compute_rest<width>(p, first);
        compute_rest<width>(p, second);
    }
}

// Values that repeat with a period, as those of channels do.
struct Periodic {
    Divisor period;
    int first = 0; // value of the group

    __device__ Periodic from(int64_t place) const {
        return {period, static_cast<int>(place - divided(place, period) * period.by)};
    }
    __device__ int at(int k) const {
        int i = first + k;
        while (i >= period.by)
            i -= static_cast<int>(period.by);
        return i;
    }
};

// `f` is called on the device: a struct with a const __device__ operator(), by value.
template <class F, class... Input>
void elementwise(const F &f, int64_t n, float *out, bool add, Stream stream, const Input *...in) {
    constexpr int inputs = sizeof...(Input);
    const Elementwise<inputs, F> arguments{f, n, out, add, {in...}};
    with_width({out, in...}, {}, [&](auto width) {
        constexpr int64_t each = 2 * int64_t{width()} * block_threads; // of a block
        RELPROP_LAUNCH((elementwise_kernel<width(), inputs, F>), arguments,
                       (n + each - 1) / each * block_threads, stream);
    });
}

} // namespace relprop::cuda
