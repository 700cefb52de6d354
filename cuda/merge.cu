// Where branches meet: sums, products with a message, maxima, concatenation.
#include "backend.cuh"
#include "elementwise.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

struct Sum {
    bool clamp;
    __device__ float operator()(int, float a, float b) const {
        const float sum = a + b;
        return clamp && sum < 0.0f ? 0.0f : sum;
    }
};

struct Multiplication {
    __device__ float operator()(int, float a, float b) const { return a * b; }
};

struct Maximum { // NaN is the largest of all
    __device__ float operator()(int, float a, float b) const { return a < b || isnan(b) ? b : a; }
};

struct Scaled {
    float scale;
    __device__ float operator()(int, float x) const { return scale * x; }
};

struct Constant {
    float value;
    __device__ float operator()(int) const { return value; }
};

struct BlocksArguments {
    Blocks p;
    Divisor size;
};

template <int width> __global__ void blocks_kernel(BlocksArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Blocks &p = of.p;
    const int64_t block = divided(thread_index() * width, of.size);
    const int64_t at = thread_index() * width - block * p.size;
    float *to = p.to + block * p.to_stride + at;
    Lanes<width> values = load<width>(p.from + block * p.from_stride + at);
    if (p.add) {
        const Lanes<width> there = load<width>(to);
        for (int lane = 0; lane < width; ++lane)
            values.at[lane] = there.at[lane] + values.at[lane];
    }
    store(to, values);
}

struct MaximumRelevance {
    const float *x, *y;
    float *r, *out;
    int64_t n;
    bool add;
};

// Where an input x reaches the maximum y it takes what is left of the relevance r: ties go to the
// first.
template <int width> __device__ void take_maximum(const MaximumRelevance &p, int64_t at) {
    const Lanes<width> x = load<width>(p.x + at), y = load<width>(p.y + at);
    Lanes<width> r = load<width>(p.r + at), out = {};
    if (p.add)
        out = load<width>(p.out + at);
    for (int lane = 0; lane < width; ++lane) {
        const bool reaches = x.at[lane] == y.at[lane];
        const float taken = reaches ? r.at[lane] : 0.0f;
        out.at[lane] = p.add ? out.at[lane] + taken : taken;
        r.at[lane] = reaches ? 0.0f : r.at[lane];
    }
    store(p.out + at, out);
    store(p.r + at, r);
}

template <int width> __global__ void maximum_relevance_kernel(MaximumRelevance p, int64_t) {
    const int64_t first = thread_index() * width;
    if (first + width <= p.n)
        take_maximum<width>(p, first);
    else
        for (int64_t i = first; i < p.n; ++i)
            take_maximum<1>(p, i);
}

} // namespace

// ---- launchers

void add(const float *a, const float *b, float *out, int64_t n, bool clamp, Stream stream) {
    elementwise(Sum{clamp}, n, out, false, stream, a, b);
}

void multiply(const float *a, const float *b, float *out, int64_t n, bool add, Stream stream) {
    elementwise(Multiplication{}, n, out, add, stream, a, b);
}

void maximum(const float *a, const float *b, float *out, int64_t n, Stream stream) {
    elementwise(Maximum{}, n, out, false, stream, a, b);
}

void maximum_relevance(const float *x, const float *y, float *r, float *out, int64_t n, bool add,
                       Stream stream) {
    const MaximumRelevance arguments{x, y, r, out, n, add};
    with_width({x, y, r, out}, {}, [&](auto width) {
        RELPROP_LAUNCH(maximum_relevance_kernel<width()>, arguments, (n + width() - 1) / width(),
                       stream);
    });
}

void carry(const float *from, float scale, float *to, int64_t n, bool add, Stream stream) {
    elementwise(Scaled{scale}, n, to, add, stream, from);
}

void fill(float value, float *to, int64_t n, Stream stream) {
    elementwise(Constant{value}, n, to, false, stream);
}

void blocks(const Blocks &p, Stream stream) {
    const BlocksArguments arguments{p, divisor_of(p.size)};
    with_width({p.from, p.to}, {p.size, p.from_stride, p.to_stride}, [&](auto width) {
        RELPROP_LAUNCH(blocks_kernel<width()>, arguments, p.count * p.size / width(), stream);
    });
}

} // namespace relprop::cuda
