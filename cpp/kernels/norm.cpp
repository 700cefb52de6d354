// Batch norm that stands alone, and local response normalisation.
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
    const int begin = centre - size / 2;
    return {larger(begin, 0), size < length - begin ? begin + size : length, 1, size};
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

// Across channels and in windows of a usual size, whole rows at once.
static void local_response_norm_rows(const LocalResponseNorm &p) {
    constexpr int stretch = 256; // channels at once
    const int channels = p.image.channels, before = p.size / 2;
    each_row(p.n * p.image.pixels(), channels, [&](int64_t at) {
        for (int first = 0; first < channels; first += stretch) {
            const int count = smaller(stretch, channels - first);
            float squares[stretch + widest_window], base[stretch];
            for (int i = 0; i < count + p.size - 1; ++i) {
                const int c = first - before + i;
                const float x = c >= 0 && c < channels ? p.x[at + c] : 0.0f;
                squares[i] = x * x;
            }
            for (int j = 0; j < count; ++j)
                base[j] = squares[j];
            for (int i = 1; i < p.size; ++i)
                for (int j = 0; j < count; ++j)
                    base[j] += squares[i + j];
            for (int j = 0; j < count; ++j)
                base[j] = p.k + scale_of(p) * base[j];
            const float *x = p.x + at + first;
            float *y = p.result + at + first;
            if (p.beta == 0.75f) // as AlexNet, CaffeNet and GoogLeNet have it
                for (int j = 0; j < count; ++j) {
                    const float root = __builtin_sqrtf(base[j]);
                    y[j] = x[j] / (root * __builtin_sqrtf(root));
                }
            else
                for (int j = 0; j < count; ++j)
                    y[j] = x[j] * power(base[j], -p.beta);
        }
    });
}

void local_response_norm(const LocalResponseNorm &p, Stream) {
    if (!p.within_channel && p.size <= widest_window)
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

} // namespace relprop::RELPROP_ISA
