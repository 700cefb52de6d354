// Where branches meet: sums, products with a message, maxima, concatenation.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

// Calls body(first, last) over [0, n) in slabs.
template <class Body> void each_slab(int64_t n, const Body &body) {
    parallel_for((n + slab - 1) / slab, [&](int64_t task) {
        body(task * slab, (task + 1) * slab < n ? (task + 1) * slab : n);
    });
}

} // namespace

void add(const float *a, const float *b, float *out, int64_t n, bool clamp, Stream) {
    each_slab(n, [&](int64_t first, int64_t last) {
        if (clamp)
            for (int64_t i = first; i < last; ++i) {
                const float sum = a[i] + b[i];
                out[i] = sum < 0.0f ? 0.0f : sum;
            }
        else
            for (int64_t i = first; i < last; ++i)
                out[i] = a[i] + b[i];
    });
}

void multiply(const float *a, const float *b, float *out, int64_t n, bool add, Stream) {
    each_slab(n, [&](int64_t first, int64_t last) {
        if (add)
            for (int64_t i = first; i < last; ++i) {
                const float product = a[i] * b[i];
                out[i] += product;
            }
        else
            for (int64_t i = first; i < last; ++i)
                out[i] = a[i] * b[i];
    });
}

void maximum(const float *a, const float *b, float *out, int64_t n, Stream) {
    each_slab(n, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) // NaN is the largest of all
            out[i] = a[i] < b[i] || b[i] != b[i] ? b[i] : a[i];
    });
}

void maximum_relevance(const float *x, const float *y, float *r, float *out, int64_t n, bool add,
                       Stream) {
    each_slab(n, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
            const bool wins = x[i] == y[i];
            const float taken = wins ? r[i] : 0.0f;
            r[i] = wins ? 0.0f : r[i]; // ties go to the first
            out[i] = add ? out[i] + taken : taken;
        }
    });
}

void carry(const float *from, float scale, float *to, int64_t n, bool add, Stream) {
    each_slab(n, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
            const float value = scale * from[i];
            to[i] = add ? to[i] + value : value;
        }
    });
}

void fill(float value, float *to, int64_t n, Stream) {
    each_slab(n, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i)
            to[i] = value;
    });
}

void blocks(const Blocks &p, Stream) {
    const int64_t per_task = slab / p.size > 0 ? slab / p.size : 1;
    parallel_for((p.count + per_task - 1) / per_task, [&](int64_t task) {
        const int64_t last = (task + 1) * per_task < p.count ? (task + 1) * per_task : p.count;
        for (int64_t block = task * per_task; block < last; ++block) {
            const float *from = p.from + block * p.from_stride;
            float *to = p.to + block * p.to_stride;
            for (int64_t i = 0; i < p.size; ++i)
                to[i] = p.add ? to[i] + from[i] : from[i];
        }
    });
}

} // namespace relprop::RELPROP_ISA
