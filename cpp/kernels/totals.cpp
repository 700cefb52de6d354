// The ledger's sums: float64 over a fixed order, whatever the batch and the number of threads.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {

void sum_absorbed(const float *absorbed, int64_t n, int64_t pairs, double *out, int64_t out_stride,
                  Stream) {
    parallel_for(n, [&](int64_t sample) {
        double bias = 0.0, stabilizer = 0.0;
        for (int64_t i = sample * pairs; i < (sample + 1) * pairs; ++i) {
            bias += absorbed[2 * i];
            stabilizer += absorbed[2 * i + 1];
        }
        out[sample * out_stride] += bias;
        out[sample * out_stride + 1] += stabilizer;
    });
}

void totals(const float *values, int64_t n, int64_t size, double *out, int64_t out_stride, Stream) {
    typedef double Wide __attribute__((vector_size(lanes * 8)));
    const int64_t parts = (size + slab - 1) / slab;
    double *partial = new double[2 * n * parts]; // [n, parts, 2]
    parallel_for(n * parts, [&](int64_t task) {
        const float *v = values + task / parts * size;
        int64_t i = task % parts * slab;
        const int64_t last = i + slab < size ? i + slab : size;
        Wide sums = {}, magnitudes = {};
        for (; i + lanes <= last; i += lanes) {
            const Vec value = load(v + i), absolute = value < 0.0f ? -value : value;
            sums += __builtin_convertvector(value, Wide);
            magnitudes += __builtin_convertvector(absolute, Wide);
        }
        double sum = 0.0, magnitude = 0.0;
        for (; i < last; ++i) {
            sum += v[i];
            magnitude += v[i] < 0.0f ? -v[i] : v[i];
        }
        for (int lane = 0; lane < lanes; ++lane) {
            sum += sums[lane];
            magnitude += magnitudes[lane];
        }
        partial[2 * task] = sum;
        partial[2 * task + 1] = magnitude;
    });
    for (int64_t sample = 0; sample < n; ++sample) {
        double sum = 0.0, magnitude = 0.0;
        for (int64_t part = sample * parts; part < (sample + 1) * parts; ++part) {
            sum += partial[2 * part];
            magnitude += partial[2 * part + 1];
        }
        out[sample * out_stride] = sum;
        out[sample * out_stride + 1] = magnitude;
    }
    delete[] partial;
}

} // namespace relprop::RELPROP_ISA
