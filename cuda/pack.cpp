// Weights as CUDA's products read them: gathered from where they lie, in the version that is asked
// for. Packing is the host's work, once for each layer.
#include <bit>
#include <type_traits>

#include "backend.cuh"
#include "depth.hpp"
#include "parallel.hpp"
#include "version.hpp"

namespace relprop::cuda {
namespace {

constexpr int rows_at_once = 16; // what they read lies close together in one direction or the other

void put(float w, float &to) { to = w; }

// bfloat16, the nearest; ties go to the even one.
void put(float w, uint16_t &to) {
    const uint32_t bits = std::bit_cast<uint32_t>(w);
    to = w == w ? static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : 0x7fff;
}

// Calls body(constant) with the version as a constant of the compiler's.
template <class Body> void with_version(Version version, const Body &body) {
    switch (version) {
    case Version::plain:
        return body(std::integral_constant<Version, Version::plain>{});
    case Version::positive:
        return body(std::integral_constant<Version, Version::positive>{});
    case Version::negative:
        return body(std::integral_constant<Version, Version::negative>{});
    case Version::gamma:
        return body(std::integral_constant<Version, Version::gamma>{});
    case Version::square:
        return body(std::integral_constant<Version, Version::square>{});
    }
}

// [tap_count][channels]
int64_t pack_depthwise(const Packing &of, const float *weights, float *packed) {
    const float shrink = shrink_of(of.gamma);
    if (packed)
        with_version(of.version, [&](auto version) {
            for (int t = 0; t < of.tap_count; ++t)
                for (int64_t c = 0; c < of.out; ++c)
                    packed[t * of.out + c] =
                        in_version<version>(weights[of.tap_at[t] + c * of.written_step], shrink);
        });
    return static_cast<int64_t>(of.tap_count) * of.out;
}

// Channels written, as many as lie at once: to [rows][depth].
template <Version version, class Weight>
void lay_rows(const Packing &of, const float *from, int rows, Weight *to, int64_t depth) {
    const float shrink = shrink_of(of.gamma);
    const int64_t taps = static_cast<int64_t>(of.tap_count) * (of.run / of.read);
    for (int r = 0; r < of.read; ++r)
        for (int row = 0; row < rows; ++row)
            for (int64_t t = 0; t < taps; ++t)
                put(in_version<version>(
                        from[r * of.read_step + row * of.written_step + of.tap_at[t]], shrink),
                    to[row * depth + t * of.read + r]);
    for (int row = 0; row < rows; ++row)
        for (int64_t k = taps * of.read; k < depth; ++k)
            put(0.0f, to[row * depth + k]);
}

// [groups][out][depth]: for each channel written what it multiplies, tap after tap, and zeros up to
// whole slices. Returns how many.
template <class Weight> int64_t pack_rows(const Packing &of, const float *weights, Weight *packed) {
    const int64_t depth = depth_of(of.tap_count, of.run);
    const int blocks = ceil_div(of.out, rows_at_once);
    if (packed)
        with_version(of.version, [&](auto version) {
            parallel_for(static_cast<int64_t>(of.groups) * blocks, [&](int64_t task) {
                const int64_t group = task / blocks, row = task % blocks * rows_at_once;
                lay_rows<version>(of, weights + group * of.group_step + row * of.written_step,
                                  smaller(rows_at_once, of.out - static_cast<int>(row)),
                                  packed + (group * of.out + row) * depth, depth);
            });
        });
    return of.groups * of.out * depth;
}

} // namespace

int64_t pack(const Packing &of, const float *weights, float *packed) {
    if (of.run == 0)
        return pack_depthwise(of, weights, packed);
    return pack_rows(of, weights, packed);
}

int64_t pack_bf16(const Packing &of, const float *weights, float *packed) {
    if (of.run == 0)
        return pack_depthwise(of, weights, packed);
    return pack_rows(of, weights, reinterpret_cast<uint16_t *>(packed)) / 2; // a slice is even
}

} // namespace relprop::cuda
