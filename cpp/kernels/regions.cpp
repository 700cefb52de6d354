// Relevance by regions of the image and by channels: float64 sums in one order whatever the batch
// and the number of threads.
#include "backend.hpp"
#include "doubles.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {

namespace {

constexpr int64_t at_once = 1024; // pixels whose relevance stays near while channels are summed

double total_of(const Double *sums, double rest) {
    for (int k = 0; k < chains; ++k)
        for (int lane = 0; lane < half; ++lane)
            rest += sums[k][lane];
    return rest;
}

// Adds a channel's values to the pixels' relevance and returns their sum.
double add_channel(const float *values, int64_t count, double *relevance) {
    Double sums[chains] = {};
    int64_t i = 0;
    for (; i + stretch <= count; i += stretch)
        for (int k = 0; k < chains; ++k) {
            const Double value = widened(values + i + k * half);
            *reinterpret_cast<UnalignedDouble *>(relevance + i + k * half) += value;
            sums[k] += value;
        }
    double rest = 0.0;
    for (; i < count; ++i) {
        relevance[i] += values[i];
        rest += values[i];
    }
    return total_of(sums, rest);
}

// Adds neighbours of one region to its sums; a NaN is neither less than 0 nor left out.
void add_run(const double *relevance, int64_t count, double *sums) {
    Double all[chains] = {}, positive[chains] = {};
    int64_t i = 0;
    for (; i + stretch <= count; i += stretch)
        for (int k = 0; k < chains; ++k) {
            const Double value =
                *reinterpret_cast<const UnalignedDouble *>(relevance + i + k * half);
            all[k] += value;
            positive[k] += value < 0.0 ? Double{} : value;
        }
    double rest = 0.0, positive_rest = 0.0;
    for (; i < count; ++i) {
        rest += relevance[i];
        positive_rest += relevance[i] < 0.0 ? 0.0 : relevance[i];
    }
    const bool long_run = count >= stretch;
    sums[0] += long_run ? total_of(all, rest) : rest;
    sums[1] += long_run ? total_of(positive, positive_rest) : positive_rest;
    sums[2] += static_cast<double>(count);
}

void add_runs(const double *relevance, const int32_t *labels, int64_t count, double *sums) {
    for (int64_t i = 0, end = 0; i < count; i = end) {
        for (end = i + 1; end < count && labels[end] == labels[i];)
            ++end;
        if (labels[i] >= 0)
            add_run(relevance + i, end - i, sums + int64_t{3} * labels[i]);
    }
}

} // namespace

void regions(const Regions &p, Stream) {
    parallel_for(p.n, [&](int64_t sample) {
        const float *values = p.values + sample * p.channels * p.pixels;
        const int32_t *labels = p.labels + (p.shared_labels ? 0 : sample * p.pixels);
        double *sums = p.sums + sample * p.count * 3;
        double *channel_sums = p.channel_sums + sample * p.channels;
        for (int64_t i = 0; i < int64_t{3} * p.count; ++i)
            sums[i] = 0.0;
        for (int c = 0; c < p.channels; ++c)
            channel_sums[c] = 0.0;
        for (int64_t first = 0; first < p.pixels; first += at_once) {
            const int64_t count = p.pixels - first < at_once ? p.pixels - first : at_once;
            double relevance[at_once] = {};
            for (int c = 0; c < p.channels; ++c)
                channel_sums[c] += add_channel(values + c * p.pixels + first, count, relevance);
            add_runs(relevance, labels + first, count, sums);
        }
    });
}

} // namespace relprop::RELPROP_ISA
