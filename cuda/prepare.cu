// A linear layer's source, transformed and padded: parts of one sign, distance to a bound, ones.
#include "backend.cuh"
#include "lanes.cuh"
#include "launch.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

struct PrepareArguments {
    Prepare p;
    Places places; // of the image with its border
};

__device__ float transformed(const Prepare &p, float v, int c) {
    switch (p.transform) {
    case Transform::positive:
        return v > 0.0f ? v : 0.0f;
    case Transform::negative:
        return v < 0.0f ? v : 0.0f;
    case Transform::minus:
        return v - p.minus[c];
    case Transform::one:
        return 1.0f;
    default:
        return v;
    }
}

template <int width> __global__ void prepare_kernel(PrepareArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Prepare &p = of.p;
    const auto [n, to, c] = place_by(thread_index() * width, of.places);
    const Pixel at = {to.z - p.before.z, to.y - p.before.y, to.x - p.before.x};
    Lanes<width> values = {};
    if (inside(p.image, at)) {
        if (p.x)
            values = load<width>(p.x + row_of(p.image, n, at) * p.image.channels + c);
        for (int lane = 0; lane < width; ++lane)
            values.at[lane] = transformed(p, values.at[lane], c + lane);
    }
    store(p.out + thread_index() * width, values);
}

} // namespace

// ---- launchers

void prepare(const Prepare &p, Stream stream) {
    const Image bordered = {p.before.z + p.image.depth + p.after.z,
                            p.before.y + p.image.height + p.after.y,
                            p.before.x + p.image.width + p.after.x, p.image.channels};
    const PrepareArguments arguments{p, places_of(bordered)};
    with_width({p.x, p.out}, {p.image.channels}, [&](auto width) {
        RELPROP_LAUNCH(prepare_kernel<width()>, arguments, p.n * bordered.size() / width(), stream);
    });
}

} // namespace relprop::cuda
