// Batch norm that stands alone, and local response normalisation.
#include "backend.hpp"
#include "rows.hpp"

namespace relprop::RELPROP_ISA {
namespace {

// Values whose windows meet: a pixel's channels as one row, or a channel's pixels as an image.
struct Plane {
    int64_t begin;
    int height, width;
    int64_t stride; // from value to value
    int64_t at(int y, int x) const {
        return begin + (static_cast<int64_t>(y) * width + x) * stride;
    }
};

template <class Body> void each_plane(const LocalResponseNorm &p, const Body &body) {
    const int channels = p.image.channels;
    const int64_t pixels = p.image.size() / channels;
    if (p.within_channel)
        return parallel_for(p.n * channels, [&](int64_t task) {
            body(Plane{task / channels * p.image.size() + task % channels, p.image.height,
                       p.image.width, channels});
        });
    each_row(p.n * pixels, channels, [&](int64_t at) { body(Plane{at, 1, channels, 1}); });
}

template <class Body> void each_value(const Plane &plane, const Body &body) {
    for (int y = 0; y < plane.height; ++y)
        for (int x = 0; x < plane.width; ++x)
            body(y, x, plane.at(y, x));
}

// A window along one axis: size / 2 before its centre, the rest behind, as in torch and Caffe.
Window around(int centre, int size, int length) {
    return window_around(centre, size / 2, size, length);
}

// Calls body(place) for every value of the window around (y, x).
template <class Body>
void each_neighbour(const LocalResponseNorm &p, const Plane &plane, int y, int x,
                    const Body &body) {
    const Window rows = around(y, p.size, plane.height), columns = around(x, p.size, plane.width);
    for (int row = rows.begin; row < rows.end; ++row) {
        int64_t at = plane.at(row, columns.begin);
        for (int column = columns.begin; column < columns.end; ++column, at += plane.stride)
            body(at);
    }
}

float scale_of(const LocalResponseNorm &p) {
    const float size = static_cast<float>(p.size);
    return p.alpha / (p.within_channel ? size * size : size);
}

// What the value at (y, x) is multiplied with the power -beta of.
float base_of(const LocalResponseNorm &p, const Plane &plane, int y, int x) {
    float squares = 0.0f;
    each_neighbour(p, plane, y, x, [&](int64_t i) { squares += p.x[i] * p.x[i]; });
    return p.k + scale_of(p) * squares;
}

constexpr int widest_window = 16; // that rows at once are computed for

float power(float base, float exponent) { return __builtin_powf(base, exponent); }

// First-order Taylor terms of the output at (y, x), whose place is `own`, around the point where
// only its own input is left (Binder et al. 2016): calls body(place, term) over the window.
template <class Body>
void each_term(const LocalResponseNorm &p, const Plane &plane, int y, int x, int64_t own,
               const Body &body) {
    const float scale = scale_of(p), a = p.x[own];
    const float alone = a * power(p.k + scale * a * a, -p.beta);
    const float slope = -2.0f * p.beta * scale * a * power(base_of(p, plane, y, x), -p.beta - 1.0f);
    each_neighbour(p, plane, y, x,
                   [&](int64_t i) { body(i, i == own ? alone : slope * p.x[i] * p.x[i]); });
}

// Across channels and in windows of a usual size, whole rows at once, so many channels in one go.
constexpr int stretch = 256, widest_stretch = stretch + widest_window;

// The bases of `count` channels of a row from `first` on, some of which may lie beyond its ends.
void bases_of(const LocalResponseNorm &p, int64_t row, int first, int count, float *base) {
    float squares[widest_stretch + widest_window];
    for (int i = 0; i < count + p.size - 1; ++i) {
        const int c = first - p.size / 2 + i;
        const float x = c >= 0 && c < p.image.channels ? p.x[row + c] : 0.0f;
        squares[i] = x * x;
    }
    for (int j = 0; j < count; ++j)
        base[j] = squares[j];
    for (int i = 1; i < p.size; ++i)
        for (int j = 0; j < count; ++j)
            base[j] += squares[i + j];
    for (int j = 0; j < count; ++j)
        base[j] = p.k + scale_of(p) * base[j];
}

// base^beta, what the value is divided by.
void divisors_of(const LocalResponseNorm &p, const float *base, int count, float *divisor) {
    if (p.beta == 0.75f) // as AlexNet, CaffeNet and GoogLeNet have it
        for (int j = 0; j < count; ++j) {
            const float root = __builtin_sqrtf(base[j]);
            divisor[j] = root * __builtin_sqrtf(root);
        }
    else
        for (int j = 0; j < count; ++j)
            divisor[j] = power(base[j], p.beta);
}

template <class Body> void each_stretch(const LocalResponseNorm &p, const Body &body) {
    each_row(p.n * p.image.pixels(), p.image.channels, [&](int64_t row) {
        for (int first = 0; first < p.image.channels; first += stretch)
            body(row, first, smaller(stretch, p.image.channels - first));
    });
}

void local_response_norm_rows(const LocalResponseNorm &p) {
    each_stretch(p, [&](int64_t row, int first, int count) {
        float base[stretch], divisor[stretch];
        bases_of(p, row, first, count, base);
        divisors_of(p, base, count, divisor);
        for (int j = 0; j < count; ++j)
            p.result[row + first + j] = p.x[row + first + j] / divisor[j];
    });
}

// dy_k / dx_i = [i = k] base_k^-beta - 2 beta scale x_k x_i base_k^-(beta + 1) for i in k's window
void local_response_norm_gradient_rows(const LocalResponseNorm &p) {
    const int before = p.size - 1 - p.size / 2; // channels whose windows reach up to this one
    each_stretch(p, [&](int64_t row, int first, int count) {
        const int read = count + p.size - 1;
        float base[widest_stretch], divisor[widest_stretch], through[widest_stretch], sum[stretch];
        bases_of(p, row, first - before, read, base);
        divisors_of(p, base, read, divisor);
        for (int j = 0; j < read; ++j) {
            const int c = first - before + j;
            const bool real = c >= 0 && c < p.image.channels;
            through[j] = real ? p.s[row + c] * p.x[row + c] / (divisor[j] * base[j]) : 0.0f;
        }
        for (int j = 0; j < count; ++j)
            sum[j] = through[j];
        for (int i = 1; i < p.size; ++i)
            for (int j = 0; j < count; ++j)
                sum[j] += through[i + j];
        const float slope = 2.0f * p.beta * scale_of(p);
        for (int j = 0; j < count; ++j) {
            const int64_t at = row + first + j;
            const float r = p.s[at] / divisor[before + j] - slope * p.x[at] * sum[j];
            p.result[at] = p.add ? p.result[at] + r : r;
        }
    });
}

bool by_rows(const LocalResponseNorm &p) { return !p.within_channel && p.size <= widest_window; }

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
            const float share = p.x ? p.x[at + c] * p.scale[c] : p.scale[c];
            const float r = share * p.s[at + c];
            p.result[at + c] = p.add ? p.result[at + c] + r : r;
        }
    });
}

void local_response_norm(const LocalResponseNorm &p, Stream) {
    if (by_rows(p))
        return local_response_norm_rows(p);
    each_plane(p, [&](const Plane &plane) {
        each_value(plane, [&](int y, int x, int64_t own) {
            p.result[own] = p.x[own] * power(base_of(p, plane, y, x), -p.beta);
        });
    });
}

void local_response_norm_sums(const LocalResponseNorm &p, Stream) {
    each_plane(p, [&](const Plane &plane) {
        each_value(plane, [&](int y, int x, int64_t own) {
            float sum = 0.0f;
            each_term(p, plane, y, x, own, [&](int64_t, float term) { sum += term; });
            p.result[own] = sum;
        });
    });
}

void local_response_norm_relevance(const LocalResponseNorm &p, Stream) {
    each_plane(p, [&](const Plane &plane) {
        if (!p.add)
            each_value(plane, [&](int, int, int64_t own) { p.result[own] = 0.0f; });
        each_value(plane, [&](int y, int x, int64_t own) {
            each_term(p, plane, y, x, own,
                      [&](int64_t i, float term) { p.result[i] += term * p.s[own]; });
        });
    });
}

void local_response_norm_gradient(const LocalResponseNorm &p, Stream) {
    if (by_rows(p))
        return local_response_norm_gradient_rows(p);
    each_plane(p, [&](const Plane &plane) {
        if (!p.add)
            each_value(plane, [&](int, int, int64_t own) { p.result[own] = 0.0f; });
        each_value(plane, [&](int y, int x, int64_t own) {
            const float base = base_of(p, plane, y, x);
            const float direct = p.s[own] * power(base, -p.beta);
            const float through = 2.0f * p.beta * scale_of(p) * p.x[own] * direct / base;
            p.result[own] += direct;
            each_neighbour(p, plane, y, x, [&](int64_t i) { p.result[i] -= through * p.x[i]; });
        });
    });
}

} // namespace relprop::RELPROP_ISA
