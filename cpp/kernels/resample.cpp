// Interpolation, forward and relevance. Relevance is scattered row by row; a task owns some
// channels of one sample, so no two tasks write to the same place.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {

void resample(const Resample &p, Stream) {
    const int64_t block = slab / p.channels > 0 ? slab / p.channels : 1;
    const int64_t blocks = (p.to_rows + block - 1) / block;
    parallel_for(p.n * blocks, [&](int64_t task) {
        const int64_t n = task / blocks, first = task % blocks * block;
        const int64_t last = first + block < p.to_rows ? first + block : p.to_rows;
        const float *in = p.in + n * p.from_rows * p.channels;
        for (int64_t row = first; row < last; ++row) {
            float *out = p.result + (n * p.to_rows + row) * p.channels;
            for (int c = 0; c < p.channels; ++c)
                out[c] = 0.0f;
            for (int t = 0; t < p.taps; ++t) {
                const float weight = p.weight[row * p.taps + t];
                const float *a = in + static_cast<int64_t>(p.index[row * p.taps + t]) * p.channels;
                for (int c = 0; c < p.channels; ++c)
                    out[c] += weight * a[c];
            }
        }
    });
}

void resample_relevance(const Resample &p, Stream) {
    constexpr int strip = 64; // channels that a task owns at most
    const int strips = ceil_div(p.channels, strip);
    parallel_for(p.n * strips, [&](int64_t task) {
        const int64_t n = task / strips;
        const int first = static_cast<int>(task % strips) * strip;
        const int count = smaller(strip, p.channels - first);
        const int64_t sample = n * p.from_rows * p.channels + first;
        if (!p.add)
            for (int64_t row = 0; row < p.from_rows; ++row)
                for (int c = 0; c < count; ++c)
                    p.result[sample + row * p.channels + c] = 0.0f;
        for (int64_t row = 0; row < p.to_rows; ++row) {
            const float *s = p.s + (n * p.to_rows + row) * p.channels + first;
            for (int t = 0; t < p.taps; ++t) {
                const float weight = p.weight[row * p.taps + t];
                const int64_t at =
                    sample + static_cast<int64_t>(p.index[row * p.taps + t]) * p.channels;
                for (int c = 0; c < count; ++c) {
                    const float share = p.in ? weight * p.in[at + c] : weight;
                    p.result[at + c] += share * s[c];
                }
            }
        }
    });
}

} // namespace relprop::RELPROP_ISA
