// Softmax of rows.
#include "backend.hpp"
#include "rows.hpp"

namespace relprop::RELPROP_ISA {
namespace {

typedef int32_t Int __attribute__((vector_size(lanes * 4)));

// exp of numbers that are at most 0, to a bit or two; 0 below exp's normal numbers. As 2^n times
// the exponential of what is left, at most ln(2) / 2 in size, by its Taylor polynomial. (libm's
// takes one number at a time, and was three quarters of a softmax.)
Vec exponential(Vec x) {
    constexpr float least = -87.3f;
    constexpr float shift = 12582912.0f; // 1.5 * 2^23: the sum's last bits are a whole number
    const Vec bounded = x < least ? Vec{} + least : x;
    const Vec shifted = bounded * 1.44269504f + shift;
    const Vec n = shifted - shift;
    const Vec r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f; // ln(2), in two parts
    Vec sum = Vec{} + 1.0f / 5040;
    for (const float factor : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
        sum = sum * r + factor;
    const Int power = ((Int)shifted + 127) << 23;
    return x < least ? Vec{} : sum * (Vec)power;
}

void put(const RowSoftmax &p, int64_t at, float r) { p.result[at] = p.add ? p.result[at] + r : r; }

} // namespace

void softmax(const RowSoftmax &p, Stream) {
    each_row(p.rows, p.width, [&](int64_t at) {
        float most = p.x[at];
        for (int i = 1; i < p.width; ++i)
            most = p.x[at + i] > most ? p.x[at + i] : most;
        for (int i = 0; i < p.width; i += lanes)
            store_some(p.result + at + i, exponential(load_some(p.x + at + i, p.width - i) - most),
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
