// Softmax of rows.
#include "backend.hpp"
#include "elementary.hpp"
#include "rows.hpp"

namespace relprop::RELPROP_ISA {
namespace {

void put(const RowSoftmax &p, int64_t at, float r) { p.result[at] = p.add ? p.result[at] + r : r; }

} // namespace

void softmax(const RowSoftmax &p, Stream) {
    each_row(p.rows, p.width, [&](int64_t at) {
        float most = p.x[at];
        for (int i = 1; i < p.width; ++i)
            most = p.x[at + i] > most ? p.x[at + i] : most;
        for (int i = 0; i < p.width; i += lanes)
            store_some(p.result + at + i, Lanes::exp(load_some(p.x + at + i, p.width - i) - most),
                       p.width - i);
        const double sum =
            sum_over(p.width, [&](int i) { return static_cast<double>(p.result[at + i]); });
        const auto scale = static_cast<float>(1.0 / sum);
        for (int i = 0; i < p.width; ++i)
            p.result[at + i] *= scale;
    });
}

// Input i brings y_j ([i = j] - y_i) x_i to output j, the expansion's constant the rest.
void softmax_relevance(const RowSoftmax &p, Stream) {
    each_row(p.rows, p.width, [&](int64_t at) {
        const float *x = p.x + at, *y = p.y + at, *r = p.r + at;
        const auto sum =
            static_cast<float>(sum_over(p.width, [&](int i) { return static_cast<double>(r[i]); }));
        const auto mean = static_cast<float>(
            sum_over(p.width, [&](int i) { return static_cast<double>(y[i]) * x[i]; }));
        for (int i = 0; i < p.width; ++i)
            p.constant[at + i] = r[i] * (1.0f - (x[i] - mean));
        for (int i = 0; i < p.width; ++i)
            put(p, at + i, x[i] * (r[i] - y[i] * sum));
    });
}

void softmax_gradient(const RowSoftmax &p, Stream) {
    each_row(p.rows, p.width, [&](int64_t at) {
        const float *y = p.y + at, *r = p.r + at;
        const auto sum = static_cast<float>(
            sum_over(p.width, [&](int i) { return static_cast<double>(y[i]) * r[i]; }));
        for (int i = 0; i < p.width; ++i)
            put(p, at + i, y[i] * (r[i] - sum));
    });
}

} // namespace relprop::RELPROP_ISA
