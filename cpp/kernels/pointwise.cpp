// Activation functions, and their gradients for when relevance does not pass unchanged.
#include "activations.hpp"
#include "backend.hpp"
#include "elementary.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

// Calls body(i, count) for every vector of so many values, of which the last may hold less.
template <class Body> void each_vector(int64_t n, const Body &body) {
    parallel_for((n + slab - 1) / slab, [&](int64_t task) {
        const int64_t last = (task + 1) * slab < n ? (task + 1) * slab : n;
        int64_t i = task * slab;
        for (; i + lanes <= last; i += lanes)
            body(i, lanes);
        if (i < last)
            body(i, static_cast<int>(last - i));
    });
}

template <class F> void apply(const float *x, float *y, int64_t n, const F &f) {
    each_vector(
        n, [&](int64_t i, int count) { store_some(y + i, f(load_some(x + i, count)), count); });
}

// out = f(x, r), or is added to.
template <class F>
void apply(const float *x, const float *r, float *out, int64_t n, bool add, const F &f) {
    each_vector(n, [&](int64_t i, int count) {
        const Vec made = f(load_some(x + i, count), load_some(r + i, count));
        store_some(out + i, add ? load_some(out + i, count) + made : made, count);
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

} // namespace

void activation(Function function, float parameter, const float *x, float *y, int64_t n, Stream) {
    with_function(function, [&](auto constant) {
        apply(x, y, n, [=](Vec v) { return activated<constant(), Lanes>(v, parameter); });
    });
}

void activation_gradient(Function function, float parameter, const float *x, const float *r,
                         float *out, int64_t n, bool add, Stream) {
    with_function(function, [&](auto constant) {
        apply(x, r, out, n, add,
              [=](Vec v, Vec g) { return gradient_of<constant(), Lanes>(v, g, parameter); });
    });
}

void clip(float low, float high, const float *x, float *y, int64_t n, Stream) {
    apply(x, y, n, [=](Vec v) {
        const Vec above = v < low ? Vec{} + low : v;
        return above > high ? Vec{} + high : above;
    });
}

void clip_gradient(float low, float high, const float *y, const float *r, float *out, int64_t n,
                   bool add, Stream) {
    apply(y, r, out, n, add,
          [=](Vec v, Vec g) { return v > low ? (v < high ? g : Vec{}) : Vec{}; });
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
