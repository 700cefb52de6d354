// Activation functions, and their gradients for when relevance does not pass unchanged.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

float sigmoid(float x) { return 1.0f / (1.0f + __builtin_expf(-x)); }

float hard_sigmoid(float x) {
    const float y = x + 3.0f;
    return (y < 0.0f ? 0.0f : y > 6.0f ? 6.0f : y) / 6.0f;
}

template <class F> void apply(const float *x, float *y, int64_t n, const F &f) {
    parallel_for((n + slab - 1) / slab, [&](int64_t task) {
        const int64_t last = (task + 1) * slab < n ? (task + 1) * slab : n;
        for (int64_t i = task * slab; i < last; ++i)
            y[i] = f(x[i]);
    });
}

// out = f(x, r), or is added to.
template <class F>
void apply(const float *x, const float *r, float *out, int64_t n, bool add, const F &f) {
    parallel_for((n + slab - 1) / slab, [&](int64_t task) {
        const int64_t last = (task + 1) * slab < n ? (task + 1) * slab : n;
        if (add)
            for (int64_t i = task * slab; i < last; ++i)
                out[i] += f(x[i], r[i]);
        else
            for (int64_t i = task * slab; i < last; ++i)
                out[i] = f(x[i], r[i]);
    });
}

// Calls body(i, slope) for every value.
template <class Body> void each_slope(const Prelu &p, const Body &body) {
    parallel_for((p.n + slab - 1) / slab, [&](int64_t task) {
        const int64_t last = (task + 1) * slab < p.n ? (task + 1) * slab : p.n;
        int64_t at = task * slab % p.period;
        for (int64_t i = task * slab; i < last; ++i) {
            body(i, p.slope[at]);
            at = at + 1 < p.period ? at + 1 : 0;
        }
    });
}

// The sigmoid's derivative, in a form that does not cancel.
float bump(float x) {
    const float e = __builtin_expf(x < 0.0f ? x : -x);
    return e / ((1.0f + e) * (1.0f + e));
}

} // namespace

void activation(Function function, float parameter, const float *x, float *y, int64_t n, Stream) {
    switch (function) {
    case Function::leaky_relu:
        return apply(x, y, n, [=](float v) { return v < 0.0f ? parameter * v : v; });
    case Function::elu:
        return apply(x, y, n,
                     [=](float v) { return v < 0.0f ? parameter * __builtin_expm1f(v) : v; });
    case Function::silu:
        return apply(x, y, n, [](float v) { return v * sigmoid(v); });
    case Function::gelu:
        return apply(x, y, n,
                     [](float v) { return 0.5f * v * __builtin_erfcf(-0.70710678118654752f * v); });
    case Function::gelu_tanh:
        return apply(x, y, n, [](float v) {
            const float inner = 0.79788456080286536f * (v + 0.044715f * v * v * v);
            return 0.5f * v * (1.0f + __builtin_tanhf(inner));
        });
    case Function::sigmoid:
        return apply(x, y, n, sigmoid);
    case Function::tanh:
        return apply(x, y, n, [](float v) { return __builtin_tanhf(v); });
    case Function::hard_sigmoid:
        return apply(x, y, n, hard_sigmoid);
    case Function::hard_swish:
        return apply(x, y, n, [](float v) { return v * hard_sigmoid(v); });
    case Function::softplus: // log(1 + exp(v)) without overflow
        return apply(x, y, n, [](float v) {
            const float rest = __builtin_log1pf(__builtin_expf(v < 0.0f ? v : -v));
            return v > 0.0f ? v + rest : rest;
        });
    }
}

void activation_gradient(Function function, float parameter, const float *x, const float *r,
                         float *out, int64_t n, bool add, Stream) {
    switch (function) {
    case Function::leaky_relu:
        return apply(x, r, out, n, add,
                     [=](float v, float g) { return v > 0.0f ? g : parameter * g; });
    case Function::elu:
        return apply(x, r, out, n, add, [=](float v, float g) {
            return v > 0.0f ? g : parameter * __builtin_expf(v) * g;
        });
    case Function::silu:
        return apply(x, r, out, n, add,
                     [](float v, float g) { return (sigmoid(v) + v * bump(v)) * g; });
    case Function::gelu:
        return apply(x, r, out, n, add, [](float v, float g) {
            const float share = 0.5f * __builtin_erfcf(-0.70710678118654752f * v);
            const float density = 0.39894228040143268f * __builtin_expf(-0.5f * v * v);
            return (share + v * density) * g;
        });
    case Function::gelu_tanh: // (1 + tanh(u)) / 2 = sigmoid(2 u)
        return apply(x, r, out, n, add, [](float v, float g) {
            const float twice = 1.5957691216057307f * (v + 0.044715f * v * v * v);
            const float slope = 1.5957691216057307f * (1.0f + 0.134145f * v * v);
            return (sigmoid(twice) + v * bump(twice) * slope) * g;
        });
    case Function::sigmoid:
        return apply(x, r, out, n, add, [](float v, float g) { return bump(v) * g; });
    case Function::tanh:
        return apply(x, r, out, n, add, [](float v, float g) { return 4.0f * bump(2.0f * v) * g; });
    case Function::hard_sigmoid:
        return apply(x, r, out, n, add,
                     [](float v, float g) { return v > -3.0f && v < 3.0f ? g / 6.0f : 0.0f; });
    case Function::hard_swish:
        return apply(x, r, out, n, add, [](float v, float g) {
            return v <= -3.0f ? 0.0f : v < 3.0f ? (v / 3.0f + 0.5f) * g : g;
        });
    case Function::softplus:
        return apply(x, r, out, n, add, [](float v, float g) { return sigmoid(v) * g; });
    }
}

void clip(float low, float high, const float *x, float *y, int64_t n, Stream) {
    apply(x, y, n, [=](float v) {
        const float above = v < low ? low : v;
        return above > high ? high : above;
    });
}

void clip_gradient(float low, float high, const float *y, const float *r, float *out, int64_t n,
                   bool add, Stream) {
    apply(y, r, out, n, add, [=](float v, float g) { return (v > low) & (v < high) ? g : 0.0f; });
}

void prelu(const Prelu &p, Stream) {
    each_slope(
        p, [&](int64_t i, float slope) { p.result[i] = p.x[i] < 0.0f ? slope * p.x[i] : p.x[i]; });
}

void prelu_gradient(const Prelu &p, Stream) {
    each_slope(p, [&](int64_t i, float slope) {
        const float g = p.x[i] > 0.0f ? p.r[i] : slope * p.r[i];
        p.result[i] = p.add ? p.result[i] + g : g;
    });
}

} // namespace relprop::RELPROP_ISA
