// Weights as the products read them: gathered from where they lie, in the version that is asked
// for. Each is read once and written once.
#include "pack.hpp"
#include "backend.hpp"
#include "narrow.hpp"
#include "panels.hpp"
#include "parallel.hpp"
#include "version.hpp"

namespace relprop::RELPROP_ISA {
namespace {

template <Version version> void take(float *w, int64_t count, float shrink) {
    for (int64_t i = 0; i < count; ++i)
        w[i] = in_version<version>(w[i], shrink);
}

void take_version(const Packing &of, float *w, int64_t count) {
    const float shrink = shrink_of(of.gamma);
    switch (of.version) {
    case Version::plain:
        return;
    case Version::positive:
        return take<Version::positive>(w, count, shrink);
    case Version::negative:
        return take<Version::negative>(w, count, shrink);
    case Version::gamma:
        return take<Version::gamma>(w, count, shrink);
    case Version::square:
        return take<Version::square>(w, count, shrink);
    }
}

// [tap_count][channels], padded to whole panels
int64_t pack_depthwise(const Packing &of, const float *weights, float *packed) {
    const int64_t stride = static_cast<int64_t>(panels_of(of.out)) * panel;
    if (packed)
        for (int c = 0; c < of.out; c += panel)
            lay_weights(of, weights, 0, 0, 1, c, panel, packed + c, stride);
    return of.tap_count * stride;
}

} // namespace

void lay_weights(const Packing &of, const float *weights, int group, int first, int count,
                 int channel, int width, float *to, int64_t apart) {
    const int taps = of.run > 0 ? of.tap_count * (of.run / of.read) : of.tap_count;
    const int held = smaller(width, of.out - channel);
    const float *from = weights + group * of.group_step + first * of.read_step +
                        static_cast<int64_t>(channel) * of.written_step;
    for (int t = 0; t < taps; ++t) {
        const float *at = from + of.tap_at[t];
        float *tap = to + t * apart;
        if (held < width)
            for (int i = 0; i < count * width; ++i)
                tap[i] = 0.0f;
        // the inner loop follows what lies close together
        if (of.written_step == 1)
            for (int r = 0; r < count; ++r)
                for (int c = 0; c < held; ++c)
                    tap[r * width + c] = at[r * of.read_step + c];
        else if (of.written_step < of.read_step)
            for (int r = 0; r < count; ++r)
                for (int c = 0; c < held; ++c)
                    tap[r * width + c] = at[r * of.read_step + c * of.written_step];
        else
            for (int c = 0; c < held; ++c)
                for (int r = 0; r < count; ++r)
                    tap[r * width + c] = at[r * of.read_step + c * of.written_step];
        take_version(of, tap, static_cast<int64_t>(count) * width);
    }
}

// Panels one after the other, each [tap][run][channels of the panel]; the last is narrow where
// one vector holds it.
int64_t pack(const Packing &of, const float *weights, float *packed) {
    if (of.run == 0)
        return pack_depthwise(of, weights, packed);
    if (is_narrow(of.groups, of.run, of.out))
        return pack_narrow(of, weights, packed);
    const int64_t depth = static_cast<int64_t>(of.tap_count) * of.run;
    const int panels = panels_of(of.out);
    const int64_t per_group = depth * ((panels - 1) * panel + width_of(of.out, panels - 1));
    if (packed)
        parallel_for(static_cast<int64_t>(of.groups) * panels, [&](int64_t task) {
            const int g = static_cast<int>(task / panels);
            const int q = static_cast<int>(task % panels), width = width_of(of.out, q);
            float *to = packed + g * per_group + static_cast<int64_t>(q) * depth * panel;
            for (int r = 0; r < of.read; r += laid_at_once)
                lay_weights(of, weights, g, r, smaller(laid_at_once, of.read - r), q * panel, width,
                            to + static_cast<int64_t>(r) * width,
                            static_cast<int64_t>(of.read) * width);
        });
    return of.groups * per_group;
}

} // namespace relprop::RELPROP_ISA
