// The ledger's sums: float64 over a fixed order, whatever the batch and the number of threads.
#include "backend.hpp"
#include "doubles.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {

void sum_tallies(const Tallies &p, Stream) {
    static_assert(stretch % tally_sums == 0);
    parallel_for(p.n, [&](int64_t sample) {
        const float *tally = p.tally + sample * p.count * tally_sums;
        const float *last = tally + p.count * tally_sums;
        Double sums[chains] = {};
        for (; last - tally >= stretch; tally += stretch)
            for (int k = 0; k < chains; ++k)
                sums[k] += widened(tally + k * half);
        double of[tally_sums] = {};
        for (; tally < last; tally += tally_sums)
            for (int i = 0; i < tally_sums; ++i)
                of[i] += tally[i];
        for (int i = 0; i < stretch; ++i)
            of[i % tally_sums] += sums[i / half][i % half];
        for (int i = 0; i < 2; ++i) {
            if (p.absorbed)
                p.absorbed[sample * p.absorbed_stride + i] += of[i];
            if (p.totals)
                p.totals[sample * p.totals_stride + i] = of[2 + i];
        }
    });
}

void totals(const Totals &p, Stream) {
    const int64_t parts = (p.size + slab - 1) / slab;
    double *partial = new double[2 * p.n * parts]; // [n, parts, 2]
    parallel_for(p.n * parts, [&](int64_t task) {
        const float *v = p.values + task / parts * p.size;
        int64_t i = task % parts * slab;
        const int64_t last = i + slab < p.size ? i + slab : p.size;
        Double sums[chains] = {}, magnitudes[chains] = {};
        for (; i + stretch <= last; i += stretch)
            for (int k = 0; k < chains; ++k) {
                const Double value = widened(v + i + k * half);
                sums[k] += value;
                magnitudes[k] += (Double)((Bits)value & INT64_MAX); // without its sign
            }
        double sum = 0.0, magnitude = 0.0;
        for (; i < last; ++i) {
            sum += v[i];
            magnitude += v[i] < 0.0f ? -v[i] : v[i];
        }
        for (int k = 0; k < chains; ++k)
            for (int lane = 0; lane < half; ++lane) {
                sum += sums[k][lane];
                magnitude += magnitudes[k][lane];
            }
        partial[2 * task] = sum;
        partial[2 * task + 1] = magnitude;
    });
    for (int64_t sample = 0; sample < p.n; ++sample) {
        double sum = 0.0, magnitude = 0.0;
        for (int64_t part = sample * parts; part < (sample + 1) * parts; ++part) {
            sum += partial[2 * part];
            magnitude += partial[2 * part + 1];
        }
        p.out[sample * p.out_stride] = sum;
        p.out[sample * p.out_stride + 1] = magnitude;
    }
    delete[] partial;
}

void book(const Totals &p, const int32_t *places, int64_t count, Stream stream) {
    if (!places) {
        double *sums = new double[2 * p.n];
        Totals of = p;
        of.out = sums;
        of.out_stride = 2;
        totals(of, stream);
        for (int64_t sample = 0; sample < p.n; ++sample)
            p.out[sample * p.out_stride] += sums[2 * sample];
        delete[] sums;
        return;
    }
    for (int64_t sample = 0; sample < p.n; ++sample)
        for (int64_t i = 0; i < count; ++i)
            p.out[sample * p.out_stride] +=
                static_cast<double>(p.values[sample * p.size + places[i]]);
}

} // namespace relprop::RELPROP_ISA
