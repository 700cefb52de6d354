// A linear layer's source, transformed and padded: parts of one sign, distance to a bound, ones.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

// A run of pixels of a row, all their channels; the compiler makes vectors of what has no minus.
void transform(const Prepare &p, const float *in, float *out, int64_t count) {
    switch (p.transform) {
    case Transform::copy:
        for (int64_t i = 0; i < count; ++i)
            out[i] = in[i];
        return;
    case Transform::positive:
        for (int64_t i = 0; i < count; ++i)
            out[i] = in[i] > 0.0f ? in[i] : 0.0f;
        return;
    case Transform::negative:
        for (int64_t i = 0; i < count; ++i)
            out[i] = in[i] < 0.0f ? in[i] : 0.0f;
        return;
    case Transform::minus:
        for (int64_t i = 0; i < count; i += p.image.channels)
            for (int c = 0; c < p.image.channels; ++c)
                out[i + c] = in[i + c] - p.minus[c];
        return;
    case Transform::one:
        for (int64_t i = 0; i < count; ++i)
            out[i] = 1.0f;
        return;
    }
}

void clear(float *out, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
        out[i] = 0.0f;
}

} // namespace

void prepare(const Prepare &p, Stream) {
    const int depth = p.before.z + p.image.depth + p.after.z;
    const int height = p.before.y + p.image.height + p.after.y;
    const int64_t channels = p.image.channels, inner = p.image.width * channels;
    const int64_t before = p.before.x * channels, after = p.after.x * channels;
    parallel_for(p.n * depth * height, [&](int64_t task) {
        auto [n, at, _] = place_at(task, {depth, height, 1, 1});
        at.z -= p.before.z;
        at.y -= p.before.y;
        float *out = p.out + task * (before + inner + after);
        if (!inside(p.image, at))
            return clear(out, before + inner + after);
        clear(out, before);
        const float *in = p.x ? p.x + row_of(p.image, n, at) * channels : nullptr;
        transform(p, in, out + before, inner);
        clear(out + before + inner, after);
    });
}

} // namespace relprop::RELPROP_ISA
