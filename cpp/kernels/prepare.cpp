// A linear layer's source, transformed and padded: parts of one sign, distance to a bound, ones.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

float transformed(Transform transform, float x, float minus) {
    switch (transform) {
    case Transform::copy:
        return x;
    case Transform::positive:
        return x > 0.0f ? x : 0.0f;
    case Transform::negative:
        return x < 0.0f ? x : 0.0f;
    case Transform::minus:
        return x - minus;
    case Transform::one:
        return 1.0f;
    }
    return x;
}

} // namespace

void prepare(const Prepare &p, Stream) {
    const int width = p.left + p.image.width + p.right;
    const int height = p.top + p.image.height + p.bottom;
    const int channels = p.image.channels;
    parallel_for(p.n * height, [&](int64_t task) {
        const int64_t n = task / height;
        const int y = static_cast<int>(task % height) - p.top;
        float *out = p.out + task * width * channels;
        const bool real = y >= 0 && y < p.image.height;
        for (int x = 0; x < width; ++x, out += channels) {
            const int column = x - p.left;
            if (!real || column < 0 || column >= p.image.width) {
                for (int c = 0; c < channels; ++c)
                    out[c] = 0.0f;
                continue;
            }
            const float *in =
                p.x ? p.x + ((n * p.image.height + y) * p.image.width + column) * channels
                    : nullptr;
            for (int c = 0; c < channels; ++c)
                out[c] = transformed(p.transform, in ? in[c] : 0.0f, p.minus ? p.minus[c] : 0.0f);
        }
    });
}

} // namespace relprop::RELPROP_ISA
