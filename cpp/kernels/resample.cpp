// Interpolation, forward and relevance: each row sums what it reads, or what its readers hand down.
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
    const int64_t block = slab / p.channels > 0 ? slab / p.channels : 1;
    const int64_t blocks = (p.from_rows + block - 1) / block;
    parallel_for(p.n * blocks, [&](int64_t task) {
        const int64_t n = task / blocks, first = task % blocks * block;
        const int64_t last = first + block < p.from_rows ? first + block : p.from_rows;
        for (int64_t row = first; row < last; ++row) {
            const int64_t at = (n * p.from_rows + row) * p.channels;
            float *out = p.result + at;
            if (!p.add)
                for (int c = 0; c < p.channels; ++c)
                    out[c] = 0.0f;
            for (int32_t k = p.offsets[row]; k < p.offsets[row + 1]; ++k) {
                const float weight = p.reader_weight[k];
                const float *s = p.s + (n * p.to_rows + p.reader[k]) * p.channels;
                for (int c = 0; c < p.channels; ++c) {
                    const float share = p.in ? weight * p.in[at + c] : weight;
                    out[c] += share * s[c];
                }
            }
        }
    });
}

} // namespace relprop::RELPROP_ISA
