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
    constexpr int ways = 8; // sums side by side, so that additions need not wait for each other
    parallel_for(n, [&](int64_t sample) {
        const float *v = values + sample * size;
        double sum[ways] = {}, magnitude[ways] = {};
        int64_t i = 0;
        for (; i + ways <= size; i += ways)
            for (int w = 0; w < ways; ++w) {
                const double value = v[i + w];
                sum[w] += value;
                magnitude[w] += value < 0.0 ? -value : value;
            }
        for (; i < size; ++i) {
            const double value = v[i];
            sum[0] += value;
            magnitude[0] += value < 0.0 ? -value : value;
        }
        for (int w = 1; w < ways; ++w) {
            sum[0] += sum[w];
            magnitude[0] += magnitude[w];
        }
        out[sample * out_stride] = sum[0];
        out[sample * out_stride + 1] = magnitude[0];
    });
}

} // namespace relprop::RELPROP_ISA
