// Where branches meet: sums, products with a message, maxima, concatenation.
#include "backend.cuh"
#include "elementwise.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

struct Sum {
    bool clamp;
    __device__ float operator()(int64_t, float a, float b) const {
        const float sum = a + b;
        return clamp && sum < 0.0f ? 0.0f : sum;
    }
};

struct Multiplication {
    __device__ float operator()(int64_t, float a, float b) const { return a * b; }
};

struct Maximum { // NaN is the largest of all
    __device__ float operator()(int64_t, float a, float b) const {
        return a < b || isnan(b) ? b : a;
    }
};

// What relevance an input of a maximum y takes that it reaches, or leaves where it does not.
struct Taken {
    const float *r;
    __device__ float operator()(int64_t i, float x, float y) const { return x == y ? r[i] : 0.0f; }
};

struct Left {
    const float *r;
    __device__ float operator()(int64_t i, float x, float y) const { return x == y ? 0.0f : r[i]; }
};

struct Scaled {
    float scale;
    __device__ float operator()(int64_t, float x) const { return scale * x; }
};

struct Constant {
    float value;
    __device__ float operator()(int64_t) const { return value; }
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
    elementwise(Taken{r}, n, out, add, stream, x, y);
    elementwise(Left{r}, n, r, false, stream, x, y); // ties go to the first
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
