// Weights as CUDA's products read them: gathered from where they lie, in the version that is asked
// for. Packing is the host's work, once for each layer.
#include <bit>

#include "backend.cuh"
#include "depth.hpp"
#include "parallel.hpp"
#include "version.hpp"

namespace relprop::cuda {
namespace {

float taken(const Packing &of, float w) {
    const float shrink = shrink_of(of.gamma);
    switch (of.version) {
    case Version::plain:
        return w;
    case Version::positive:
        return in_version<Version::positive>(w, shrink);
    case Version::negative:
        return in_version<Version::negative>(w, shrink);
    case Version::gamma:
        return in_version<Version::gamma>(w, shrink);
    case Version::square:
        return in_version<Version::square>(w, shrink);
    }
    return w;
}

void put(float w, float &to) { to = w; }

// bfloat16, the nearest; ties go to the even one.
void put(float w, uint16_t &to) {
    const uint32_t bits = std::bit_cast<uint32_t>(w);
    to = w == w ? static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : 0x7fff;
}

// [tap_count][channels]
int64_t pack_depthwise(const Packing &of, const float *weights, float *packed) {
    if (packed)
        for (int t = 0; t < of.tap_count; ++t)
            for (int64_t c = 0; c < of.out; ++c)
                packed[t * of.out + c] = taken(of, weights[of.tap_at[t] + c * of.written_step]);
    return static_cast<int64_t>(of.tap_count) * of.out;
}

// [groups][out][depth]: for each channel written what it is multiplied by, tap after tap, and zeros
// up to a whole slice. Returns how many.
template <class Weight> int64_t pack_rows(const Packing &of, const float *weights, Weight *packed) {
    const int64_t depth = depth_of(of.tap_count, of.run);
    const int64_t used = static_cast<int64_t>(of.tap_count) * of.run;
    if (packed)
        parallel_for(static_cast<int64_t>(of.groups) * of.out, [&](int64_t row) {
            const float *from =
                weights + row / of.out * of.group_step + row % of.out * of.written_step;
            Weight *to = packed + row * depth;
            for (int64_t k = 0; k < used; ++k)
                put(taken(of, from[of.tap_at[k / of.read] + k % of.read * of.read_step]), to[k]);
            for (int64_t k = used; k < depth; ++k)
                put(0.0f, to[k]);
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
