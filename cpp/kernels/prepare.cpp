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
    const int depth = p.before.z + p.image.depth + p.after.z;
    const int height = p.before.y + p.image.height + p.after.y;
    const int width = p.before.x + p.image.width + p.after.x;
    const int channels = p.image.channels;
    parallel_for(p.n * depth * height, [&](int64_t task) {
        auto [n, at, _] = place_at(task, {depth, height, 1, 1});
        at.z -= p.before.z;
        at.y -= p.before.y;
        float *out = p.out + task * width * channels;
        for (int x = 0; x < width; ++x, out += channels) {
            at.x = x - p.before.x;
            if (!inside(p.image, at)) {
                for (int c = 0; c < channels; ++c)
                    out[c] = 0.0f;
                continue;
            }
            const float *in = p.x ? p.x + row_of(p.image, n, at) * channels : nullptr;
            for (int c = 0; c < channels; ++c)
                out[c] = transformed(p.transform, in ? in[c] : 0.0f, p.minus ? p.minus[c] : 0.0f);
        }
    });
}

} // namespace relprop::RELPROP_ISA
