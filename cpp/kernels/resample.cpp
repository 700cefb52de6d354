// Interpolation, forward and relevance: each row sums what it reads, or what its readers hand down.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {

namespace {

constexpr int at_once = 64; // channels

// What a row's readers hand down to `count` of its channels, from the float `at` on: one pixel may
// have become a whole image.
void sum_readers(const Resample &p, int64_t first_reader, int64_t row, int channel, int64_t at,
                 int count) {
    double sum[at_once] = {};
    if (p.add)
        for (int c = 0; c < count; ++c)
            sum[c] = static_cast<double>(p.result[at + c]);
    for (int32_t k = p.offsets[row]; k < p.offsets[row + 1]; ++k) {
        const float weight = p.reader_weight[k];
        const float *s = p.s + (first_reader + p.reader[k]) * p.channels + channel;
        for (int c = 0; c < count; ++c) {
            const float share = p.in ? weight * p.in[at + c] : weight;
            sum[c] += static_cast<double>(share * s[c]);
        }
    }
    for (int c = 0; c < count; ++c)
        p.result[at + c] = static_cast<float>(sum[c]);
}

} // namespace

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
            for (int c = 0; c < p.channels; c += at_once)
                sum_readers(p, n * p.to_rows, row, c, at + c,
                            c + at_once < p.channels ? at_once : p.channels - c);
        }
    });
}

} // namespace relprop::RELPROP_ISA
