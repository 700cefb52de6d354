// Activation functions, and their gradients for when relevance does not pass unchanged.
#include "activations.hpp"
#include "backend.cuh"
#include "elementwise.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

template <Function function> struct Activation {
    float parameter;
    __device__ float operator()(int, float v) const {
        return activated<function, Scalar>(v, parameter);
    }
};

template <Function function> struct ActivationGradient {
    float parameter;
    __device__ float operator()(int, float v, float g) const {
        return gradient_of<function, Scalar>(v, g, parameter);
    }
};

struct Clip {
    float low, high;
    __device__ float operator()(int, float v) const {
        const float above = v < low ? low : v;
        return above > high ? high : above;
    }
};

struct ClipGradient {
    float low, high;
    __device__ float operator()(int, float v, float g) const {
        return v > low && v < high ? g : 0.0f;
    }
};

struct Slopes {
    const float *slope;
    Periodic channel;
    __device__ float at(int k) const { return slope[channel.at(k)]; }
    __device__ Slopes from(int64_t first) const { return {slope, channel.from(first)}; }
};

struct PreluValue {
    Slopes slopes;
    __device__ PreluValue from(int64_t first) const { return {slopes.from(first)}; }
    __device__ float operator()(int k, float x) const { return x < 0.0f ? slopes.at(k) * x : x; }
};

struct PreluGradient {
    Slopes slopes;
    __device__ PreluGradient from(int64_t first) const { return {slopes.from(first)}; }
    __device__ float operator()(int k, float x, float r) const {
        return x > 0.0f ? r : slopes.at(k) * r;
    }
};

} // namespace

// ---- launchers

void activation(Function function, float parameter, const float *x, float *y, int64_t n,
                Stream stream) {
    with_function(function, [&](auto constant) {
        elementwise(Activation<constant()>{parameter}, n, y, false, stream, x);
    });
}

void activation_gradient(Function function, float parameter, const float *x, const float *r,
                         float *out, int64_t n, bool add, Stream stream) {
    with_function(function, [&](auto constant) {
        elementwise(ActivationGradient<constant()>{parameter}, n, out, add, stream, x, r);
    });
}

void clip(float low, float high, const float *x, float *y, int64_t n, Stream stream) {
    elementwise(Clip{low, high}, n, y, false, stream, x);
}

void clip_gradient(float low, float high, const float *y, const float *r, float *out, int64_t n,
                   bool add, Stream stream) {
    elementwise(ClipGradient{low, high}, n, out, add, stream, y, r);
}

void prelu(const Prelu &p, Stream stream) {
    const Slopes slopes{p.slope, {divisor_of(p.period)}};
    elementwise(PreluValue{slopes}, p.n, p.result, false, stream, p.x);
}

void prelu_gradient(const Prelu &p, Stream stream) {
    const Slopes slopes{p.slope, {divisor_of(p.period)}};
    elementwise(PreluGradient{slopes}, p.n, p.result, p.add, stream, p.x, p.r);
}

} // namespace relprop::cuda
