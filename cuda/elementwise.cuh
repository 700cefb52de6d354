// Kernels whose result at a place depends on the values at that place alone: a file gives the
// function, and this one its loads and stores.
#pragma once

#include "lanes.cuh"
#include "launch.cuh"

namespace relprop::cuda {

// out[i] = f(i, in[0][i], ...), or is added to. out may be one of the inputs.
template <int inputs, class F> struct Elementwise {
    F f;
    int64_t n;
    float *out;
    bool add;
    const float *in[inputs > 0 ? inputs : 1];
};

template <int inputs, int width, class F>
__device__ float value_of(const F &f, int64_t i, const Lanes<width> *in, int lane) {
    if constexpr (inputs == 0)
        return f(i);
    else if constexpr (inputs == 1)
        return f(i, in[0].at[lane]);
    else
        return f(i, in[0].at[lane], in[1].at[lane]);
}

template <int width, int inputs, class F>
__device__ void compute(const Elementwise<inputs, F> &p, int64_t first) {
    Lanes<width> in[inputs > 0 ? inputs : 1], out = {};
    for (int k = 0; k < inputs; ++k)
        in[k] = load<width>(p.in[k] + first);
    if (p.add)
        out = load<width>(p.out + first);
    for (int lane = 0; lane < width; ++lane) {
        const float value = value_of<inputs>(p.f, first + lane, in, lane);
        out.at[lane] = p.add ? out.at[lane] + value : value;
    }
    store(p.out + first, out);
}

template <int width, int inputs, class F>
__global__ void elementwise_kernel(Elementwise<inputs, F> p, int64_t) {
    const int64_t first = thread_index() * width;
    if (first + width <= p.n)
        compute<width>(p, first);
    else
        for (int64_t i = first; i < p.n; ++i)
            compute<1>(p, i);
}

// `f` is called on the device: a struct with a const __device__ operator(), by value.
template <class F, class... Input>
void elementwise(const F &f, int64_t n, float *out, bool add, Stream stream, const Input *...in) {
    constexpr int inputs = sizeof...(Input);
    const Elementwise<inputs, F> arguments{f, n, out, add, {in...}};
    with_width({out, in...}, {}, [&](auto width) {
        RELPROP_LAUNCH((elementwise_kernel<width(), inputs, F>), arguments,
                       (n + width() - 1) / width(), stream);
    });
}

} // namespace relprop::cuda
