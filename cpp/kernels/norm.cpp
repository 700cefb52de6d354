// Batch norm that stands alone, and local response normalisation across channels.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

template <class Body> void each_row(int64_t rows, int channels, const Body &body) {
    const int64_t block = slab / channels > 0 ? slab / channels : 1;
    parallel_for((rows + block - 1) / block, [&](int64_t task) {
        const int64_t last = (task + 1) * block < rows ? (task + 1) * block : rows;
        for (int64_t row = task * block; row < last; ++row)
            body(row * channels);
    });
}

// The window of channels around c: size / 2 before, the rest behind, as in torch and Caffe.
Window channels_around(const LocalResponseNorm &p, int c) {
    const int begin = c - p.size / 2;
    return {larger(begin, 0), smaller(begin + p.size, p.channels), 1, p.size};
}

// 1 + c S with c = alpha / size, in units of k: the base that is raised to -beta.
float base_of(const LocalResponseNorm &p, const float *x, int c) {
    const Window window = channels_around(p, c);
    float squares = 0.0f;
    for (int i = window.begin; i < window.end; ++i)
        squares += x[i] * x[i];
    return p.k + p.alpha / static_cast<float>(p.size) * squares;
}

float power(float base, float exponent) { return __builtin_powf(base, exponent); }

// First-order Taylor terms of output c at the point where only x_c is left (Binder et al. 2016):
// calls body(i, m_ci) for every channel i of the window.
template <class Body>
void each_term(const LocalResponseNorm &p, const float *x, int c, const Body &body) {
    const float scale = p.alpha / static_cast<float>(p.size);
    const float own = x[c] * power(p.k + scale * x[c] * x[c], -p.beta);
    const float slope = -2.0f * p.beta * scale * x[c] * power(base_of(p, x, c), -p.beta - 1.0f);
    const Window window = channels_around(p, c);
    for (int i = window.begin; i < window.end; ++i)
        body(i, i == c ? own : slope * x[i] * x[i]);
}

} // namespace

void affine(const Affine &p, Stream) {
    each_row(p.rows, p.channels, [&](int64_t at) {
        for (int c = 0; c < p.channels; ++c)
            p.result[at + c] = p.x[at + c] * p.scale[c] + p.shift[c];
    });
}

void affine_relevance(const Affine &p, Stream) {
    each_row(p.rows, p.channels, [&](int64_t at) {
        for (int c = 0; c < p.channels; ++c) {
            const float r = p.x[at + c] * p.scale[c] * p.s[at + c];
            p.result[at + c] = p.add ? p.result[at + c] + r : r;
        }
    });
}

void local_response_norm(const LocalResponseNorm &p, Stream) {
    each_row(p.rows, p.channels, [&](int64_t at) {
        for (int c = 0; c < p.channels; ++c)
            p.result[at + c] = p.x[at + c] * power(base_of(p, p.x + at, c), -p.beta);
    });
}

void local_response_norm_sums(const LocalResponseNorm &p, Stream) {
    each_row(p.rows, p.channels, [&](int64_t at) {
        for (int c = 0; c < p.channels; ++c) {
            float sum = 0.0f;
            each_term(p, p.x + at, c, [&](int, float term) { sum += term; });
            p.result[at + c] = sum;
        }
    });
}

void local_response_norm_relevance(const LocalResponseNorm &p, Stream) {
    each_row(p.rows, p.channels, [&](int64_t at) {
        if (!p.add)
            for (int c = 0; c < p.channels; ++c)
                p.result[at + c] = 0.0f;
        for (int c = 0; c < p.channels; ++c)
            each_term(p, p.x + at, c,
                      [&](int i, float term) { p.result[at + i] += term * p.s[at + c]; });
    });
}

} // namespace relprop::RELPROP_ISA
