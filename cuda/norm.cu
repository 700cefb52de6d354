// Batch norm that stands alone, and local response normalisation: a thread owns one value of the
// result and gathers from the windows that it is in, in the CPU's order.
#include "backend.cuh"
#include "elementwise.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

struct AffineValue {
    const float *scale, *shift;
    Periodic channel;
    __device__ AffineValue from(int64_t first) const { return {scale, shift, channel.from(first)}; }
    __device__ float operator()(int k, float x) const {
        return x * scale[channel.at(k)] + shift[channel.at(k)];
    }
};

struct AffineRelevance {
    const float *scale;
    Periodic channel;
    __device__ AffineRelevance from(int64_t first) const { return {scale, channel.from(first)}; }
    __device__ float operator()(int k, float s) const { return scale[channel.at(k)] * s; }
    __device__ float operator()(int k, float x, float s) const {
        return x * scale[channel.at(k)] * s;
    }
};

struct Normalisation {
    LocalResponseNorm p;
    Places places; // of the image
    int64_t size;  // of the image
    float scale;   // of the sum of squares
};

// Values whose windows meet: a pixel's channels as one row, or a channel's pixels as an image; and
// one of them, at (y, x).
struct Plane {
    int64_t begin;
    int height, width;
    int64_t stride; // from value to value
    int y, x;
    __device__ int64_t at(int row, int column) const {
        return begin + (static_cast<int64_t>(row) * width + column) * stride;
    }
};

__device__ Plane plane_of(const Normalisation &of, int64_t index) {
    const Image &image = of.p.image;
    const Place own = place_by(index, of.places);
    if (of.p.within_channel)
        return {own.n * of.size + own.c, image.height, image.width,
                image.channels,          own.at.y,     own.at.x};
    return {index - own.c, 1, image.channels, 1, 0, own.c};
}

// Calls body(y, x) for the values of a window around the plane's, `before` of them before it along
// each axis, in row order.
template <class Body>
__device__ void each_around(const Plane &plane, int y, int x, int before, int size,
                            const Body &body) {
    const Window rows = window_around(y, before, size, plane.height);
    const Window columns = window_around(x, before, size, plane.width);
    for (int row = rows.begin; row < rows.end; ++row)
        for (int column = columns.begin; column < columns.end; ++column)
            body(row, column);
}

// What the value at (y, x) is divided by the power beta of.
__device__ float base_of(const Normalisation &of, const Plane &plane, int y, int x) {
    float squares = 0.0f;
    each_around(plane, y, x, of.p.size / 2, of.p.size, [&](int row, int column) {
        const float a = of.p.x[plane.at(row, column)];
        squares += a * a;
    });
    return of.p.k + of.scale * squares;
}

// Calls body(y, x) for the values whose windows hold the plane's.
template <class Body>
__device__ void each_owner(const Normalisation &of, const Plane &plane, const Body &body) {
    each_around(plane, plane.y, plane.x, of.p.size - 1 - of.p.size / 2, of.p.size, body);
}

// base^beta, what the value is divided by.
__device__ float power_of(const Normalisation &of, float base) {
    if (of.p.beta == 0.75f) { // as AlexNet, CaffeNet and GoogLeNet have it
        const float root = sqrtf(base);
        return root * sqrtf(root);
    }
    return powf(base, of.p.beta);
}

// First-order Taylor terms of the output at (y, x) around the point where only its own input is
// left (Binder et al. 2016): of its own input, and of the others divided by their squares.
struct Terms {
    float alone, slope;
};

__device__ Terms terms_of(const Normalisation &of, const Plane &plane, int y, int x) {
    const float a = of.p.x[plane.at(y, x)];
    const float base = base_of(of, plane, y, x);
    return {a / power_of(of, of.p.k + of.scale * a * a),
            -2.0f * of.p.beta * of.scale * a / (power_of(of, base) * base)};
}

__global__ void local_response_norm_kernel(Normalisation of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Plane plane = plane_of(of, thread_index());
    const float base = base_of(of, plane, plane.y, plane.x);
    of.p.result[thread_index()] = of.p.x[thread_index()] / power_of(of, base);
}

// Windows of five channels, as AlexNet, CaffeNet and GoogLeNet have them: a thread owns four
// neighbours and reads the four before and behind them, which are in the cache.
constexpr int usual_size = 5;

struct UsualNormalisation {
    Normalisation of;
    Divisor fours; // of a pixel
};

__global__ void usual_local_response_norm_kernel(UsualNormalisation usual, int64_t count) {
    constexpr int width = 4, before = usual_size / 2;
    if (thread_index() >= count)
        return;
    const Normalisation &of = usual.of;
    const int64_t first = thread_index() * width;
    const int64_t number = thread_index() - divided(thread_index(), usual.fours) * usual.fours.by;
    const Lanes<width> own = load<width>(of.p.x + first);
    Lanes<width> below{}, above{};
    if (number > 0)
        below = load<width>(of.p.x + first - width);
    if (number < usual.fours.by - 1)
        above = load<width>(of.p.x + first + width);
    float values[3 * width];
#pragma unroll
    for (int i = 0; i < width; ++i) {
        values[i] = below.at[i];
        values[width + i] = own.at[i];
        values[2 * width + i] = above.at[i];
    }
    Lanes<width> result;
#pragma unroll
    for (int i = 0; i < width; ++i) {
        float squares = 0.0f;
#pragma unroll
        for (int j = 0; j < usual_size; ++j) {
            const float a = values[width + i - before + j];
            squares += a * a;
        }
        result.at[i] = own.at[i] / power_of(of, of.p.k + of.scale * squares);
    }
    store(of.p.result + first, result);
}

__global__ void local_response_norm_sums_kernel(Normalisation of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Plane plane = plane_of(of, thread_index());
    const Terms terms = terms_of(of, plane, plane.y, plane.x);
    float sum = 0.0f;
    each_around(plane, plane.y, plane.x, of.p.size / 2, of.p.size, [&](int row, int column) {
        const float a = of.p.x[plane.at(row, column)];
        sum += row == plane.y && column == plane.x ? terms.alone : terms.slope * a * a;
    });
    of.p.result[thread_index()] = sum;
}

__global__ void local_response_norm_relevance_kernel(Normalisation of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Plane plane = plane_of(of, thread_index());
    const float a = of.p.x[thread_index()];
    float sum = of.p.add ? of.p.result[thread_index()] : 0.0f;
    each_owner(of, plane, [&](int y, int x) {
        const Terms terms = terms_of(of, plane, y, x);
        const float term = y == plane.y && x == plane.x ? terms.alone : terms.slope * a * a;
        sum += term * of.p.s[plane.at(y, x)];
    });
    of.p.result[thread_index()] = sum;
}

// dy_k / dx_i = [i = k] base_k^-beta - 2 beta scale x_k x_i base_k^-(beta + 1) for i in k's window
__global__ void local_response_norm_gradient_kernel(Normalisation of, int64_t count) {
    if (thread_index() >= count)
        return;
    const int64_t own = thread_index();
    const Plane plane = plane_of(of, own);
    float direct = 0.0f, through = 0.0f;
    each_owner(of, plane, [&](int y, int x) {
        const float base = base_of(of, plane, y, x), divisor = power_of(of, base);
        const int64_t at = plane.at(y, x);
        through += of.p.s[at] * of.p.x[at] / (divisor * base);
        direct = at == own ? of.p.s[at] / divisor : direct;
    });
    const float r = direct - 2.0f * of.p.beta * of.scale * of.p.x[own] * through;
    of.p.result[own] = of.p.add ? of.p.result[own] + r : r;
}

// ---- launchers

Normalisation arguments_of(const LocalResponseNorm &p) {
    const float size = static_cast<float>(p.size);
    return {p, places_of(p.image), p.image.size(),
            p.alpha / (p.within_channel ? size * size : size)};
}

int64_t values_of(const LocalResponseNorm &p) { return p.n * p.image.size(); }

} // namespace

void affine(const Affine &p, Stream stream) {
    const AffineValue value{p.scale, p.shift, {divisor_of(p.channels)}};
    elementwise(value, p.rows * p.channels, p.result, false, stream, p.x);
}

void affine_relevance(const Affine &p, Stream stream) {
    const AffineRelevance relevance{p.scale, {divisor_of(p.channels)}};
    const int64_t n = p.rows * p.channels;
    if (p.x)
        elementwise(relevance, n, p.result, p.add, stream, p.x, p.s);
    else
        elementwise(relevance, n, p.result, p.add, stream, p.s);
}

void local_response_norm(const LocalResponseNorm &p, Stream stream) {
    const int channels = p.image.channels;
    int width = 1;
    with_width({p.x, p.result}, {channels}, [&](auto of_lanes) { width = of_lanes; });
    if (width == 4 && p.size == usual_size && !p.within_channel)
        RELPROP_LAUNCH(usual_local_response_norm_kernel,
                       (UsualNormalisation{arguments_of(p), divisor_of(channels / width)}),
                       values_of(p) / width, stream);
    else
        RELPROP_LAUNCH(local_response_norm_kernel, arguments_of(p), values_of(p), stream);
}

void local_response_norm_sums(const LocalResponseNorm &p, Stream stream) {
    RELPROP_LAUNCH(local_response_norm_sums_kernel, arguments_of(p), values_of(p), stream);
}

void local_response_norm_relevance(const LocalResponseNorm &p, Stream stream) {
    RELPROP_LAUNCH(local_response_norm_relevance_kernel, arguments_of(p), values_of(p), stream);
}

void local_response_norm_gradient(const LocalResponseNorm &p, Stream stream) {
    RELPROP_LAUNCH(local_response_norm_gradient_kernel, arguments_of(p), values_of(p), stream);
}

} // namespace relprop::cuda
