// Embedding: rows looked up by ids, and the sums over rows that relevance becomes.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

// Calls body(i) for every id, in slabs of about as many floats.
template <class Body> void each_id(const Lookup &p, const Body &body) {
    const int64_t block = slab / p.features > 0 ? slab / p.features : 1;
    parallel_for((p.ids_count + block - 1) / block, [&](int64_t task) {
        const int64_t last = (task + 1) * block < p.ids_count ? (task + 1) * block : p.ids_count;
        for (int64_t i = task * block; i < last; ++i)
            body(i);
    });
}

} // namespace

void lookup(const Lookup &p, Stream) {
    each_id(p, [&](int64_t i) {
        const float id = p.ids[i];
        float *y = p.result + i * p.features;
        const bool known = id >= 0.0f && id < static_cast<float>(p.vocabulary);
        const float *row = p.weight + (known ? static_cast<int64_t>(id) : 0) * p.features;
        for (int f = 0; f < p.features; ++f)
            y[f] = known ? row[f] : __builtin_nanf("");
    });
}

void lookup_relevance(const Lookup &p, Stream) {
    each_id(p, [&](int64_t i) {
        const float *r = p.r + i * p.features;
        double sum = 0.0;
        for (int f = 0; f < p.features; ++f)
            sum += static_cast<double>(r[f]);
        const float total = static_cast<float>(sum);
        p.result[i] = p.add ? p.result[i] + total : total;
    });
}

} // namespace relprop::RELPROP_ISA
