// Both ends of the passes: what relevance begins with, and whether results are finite.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

int64_t first_of_largest(const float *scores, int64_t count) {
    int64_t best = 0;
    for (int64_t i = 1; i < count; ++i)
        best = scores[i] > scores[best] ? i : best;
    return best;
}

} // namespace

void begin(const Beginning &p, Stream) {
    const int64_t size = p.image.size(), pixels = p.image.pixels();
    parallel_for(p.n, [&](int64_t sample) {
        const float *scores = p.scores + sample * size;
        float *relevance = p.relevance + sample * size;
        if (!p.mask && p.argmax)
            p.targets[sample] = first_of_largest(scores, size);
        for (int64_t i = 0; i < size; ++i) {
            const bool chosen = p.mask ? p.mask[sample * size + i] != 0 : i == p.targets[sample];
            const int64_t place = p.channels_first ? i % pixels * p.image.channels + i / pixels : i;
            relevance[place] = !chosen ? 0.0f : p.one ? 1.0f : scores[i];
        }
    });
}

void check_finite(const float *values, int64_t n, int64_t *bad, Stream) {
    uint32_t any = 0;
    for (int64_t i = 0; i < n; ++i)
        any |= values[i] * 0.0f == 0.0f ? 0 : 1;
    *bad = -1;
    if (any)
        while (values[++*bad] * 0.0f == 0.0f) {
        }
}

} // namespace relprop::RELPROP_ISA
