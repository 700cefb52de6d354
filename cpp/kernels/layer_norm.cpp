// Layer norm, RMS norm, and with a group of channels as a row group norm.
#include "backend.hpp"
#include "rows.hpp"

namespace relprop::RELPROP_ISA {
namespace {

struct Statistics {
    float mean, scale; // 1 / deviation
};

Statistics statistics_of(const RowNorm &p, const float *x) {
    const double mean =
        p.centred ? sum_over(p.width, [&](int i) { return static_cast<double>(x[i]); }) / p.width
                  : 0.0;
    const double square = sum_over(p.width, [&](int i) {
        const double from_mean = x[i] - mean;
        return from_mean * from_mean;
    });
    return {static_cast<float>(mean),
            static_cast<float>(1.0 / __builtin_sqrt(square / p.width + p.epsilon))};
}

float weight_at(const RowNorm &p, int i) { return p.weight ? p.weight[i] : 1.0f; }
float weighed(const RowNorm &p, int64_t at, int i) { return weight_at(p, i) * p.s[at + i]; }

// What the mean takes back of each.
float mean_of(const RowNorm &p, int64_t at) {
    if (!p.centred)
        return 0.0f;
    const auto term = [&](int i) { return static_cast<double>(weighed(p, at, i)); };
    return static_cast<float>(sum_over(p.width, term) / p.width);
}

void put(const RowNorm &p, int64_t at, float r) { p.result[at] = p.add ? p.result[at] + r : r; }

} // namespace

void layer_norm(const RowNorm &p, Stream) {
    each_row(p.rows, p.width, [&](int64_t at) {
        const Statistics of = statistics_of(p, p.x + at);
        for (int i = 0; i < p.width; ++i) {
            const float normal = (p.x[at + i] - of.mean) * of.scale;
            p.result[at + i] = normal * weight_at(p, i) + (p.bias ? p.bias[i] : 0.0f);
        }
    });
}

// y_j = w_j (x_j - mean) / deviation: input i brings x_i (w_j [i = j] - w_j / width) / deviation.
void layer_norm_relevance(const RowNorm &p, Stream) {
    each_row(p.rows, p.width, [&](int64_t at) {
        const Statistics of = statistics_of(p, p.x + at);
        const float mean = mean_of(p, at);
        for (int i = 0; i < p.width; ++i)
            put(p, at + i, p.x[at + i] * of.scale * (weighed(p, at, i) - mean));
    });
}

// The same without x, and less what goes by way of the deviation.
void layer_norm_gradient(const RowNorm &p, Stream) {
    each_row(p.rows, p.width, [&](int64_t at) {
        const Statistics of = statistics_of(p, p.x + at);
        const float mean = mean_of(p, at);
        const auto normal = [&](int i) { return (p.x[at + i] - of.mean) * of.scale; };
        const auto term = [&](int i) { return static_cast<double>(weighed(p, at, i)) * normal(i); };
        const auto through = static_cast<float>(sum_over(p.width, term) / p.width);
        for (int i = 0; i < p.width; ++i)
            put(p, at + i, of.scale * (weighed(p, at, i) - mean - normal(i) * through));
    });
}

} // namespace relprop::RELPROP_ISA
