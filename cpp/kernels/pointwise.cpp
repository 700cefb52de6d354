// Activation functions. Their relevance passes unchanged, so they have a forward side only.
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

void clip(float low, float high, const float *x, float *y, int64_t n, Stream) {
    apply(x, y, n, [=](float v) {
        const float above = v < low ? low : v;
        return above > high ? high : above;
    });
}

void prelu(const Prelu &p, Stream) {
    parallel_for((p.n + slab - 1) / slab, [&](int64_t task) {
        const int64_t last = (task + 1) * slab < p.n ? (task + 1) * slab : p.n;
        int64_t at = task * slab % p.period;
        for (int64_t i = task * slab; i < last; ++i) {
            p.y[i] = p.x[i] < 0.0f ? p.slope[at] * p.x[i] : p.x[i];
            at = at + 1 < p.period ? at + 1 : 0;
        }
    });
}

} // namespace relprop::RELPROP_ISA
