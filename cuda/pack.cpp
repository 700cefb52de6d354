// Weights as CUDA's products read them: gathered from where they lie, in the version that is asked
// for and as each kind of product wants them. Packing is the host's work, once for each layer.
#include <bit>
#include <type_traits>

#include "backend.cuh"
#include "depth.hpp"
#include "parallel.hpp"
#include "version.hpp"
#include "warpgroup_order.hpp"

namespace relprop::cuda {
namespace {

constexpr int rows_at_once = 16; // what they read lies close together in one direction or the other

// bfloat16, the nearest; ties go to the even one.
uint16_t to_bf16(float w) {
    const uint32_t bits = std::bit_cast<uint32_t>(w);
    return w == w ? static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : 0x7fff;
}

// The nearest of the floats with 10 bits of mantissa; ties go away from 0, as on the device.
float to_tf32(float w) {
    constexpr uint32_t cut = 13;
    const uint32_t bits = std::bit_cast<uint32_t>(w);
    return w == w ? std::bit_cast<float>((bits + (1u << (cut - 1))) >> cut << cut) : w;
}

// How a product wants its weights: put() lays the one at `place` of a row's depth, which takes
// `parts` times as much.
struct Plain {
    using Weight = float;
    static constexpr int parts = 1;
    static void put(float w, float *row, int64_t place) { row[place] = w; }
};

struct PlainBf16 {
    using Weight = uint16_t;
    static constexpr int parts = 1;
    static void put(float w, uint16_t *row, int64_t place) { row[place] = to_bf16(w); }
};

// Tensor cores that read memory themselves take no order but their own, and round nothing.
struct WarpgroupTf32 {
    using Weight = float;
    static constexpr int parts = 1;
    static void put(float w, float *row, int64_t place) {
        row[place / slice * slice + warpgroup_place_tf32(static_cast<int>(place % slice))] =
            to_tf32(w);
    }
};

// A slice of what TF32 holds of the weights, then one of what it leaves.
struct WarpgroupFloat32 {
    using Weight = float;
    static constexpr int parts = 2;
    static void put(float w, float *row, int64_t place) {
        float *to = row + place / slice * parts * slice +
                    warpgroup_place_tf32(static_cast<int>(place % slice));
        to[0] = to_tf32(w);
        to[slice] = to_tf32(w - to[0]);
    }
};

struct WarpgroupBf16 {
    using Weight = uint16_t;
    static constexpr int parts = 1;
    static void put(float w, uint16_t *row, int64_t place) {
        row[place / slice * slice + warpgroup_place_bf16(static_cast<int>(place % slice))] =
            to_bf16(w);
    }
};

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
template <Version version, class Order>
void lay_rows(const Packing &of, const float *from, int rows, typename Order::Weight *to,
              int64_t depth) {
    const float shrink = shrink_of(of.gamma);
    const int of_run = of.run / of.read; // taps of the kernel
    const int64_t row_step = depth * Order::parts;
    for (int r = 0; r < of.read; ++r)
        for (int row = 0; row < rows; ++row)
            for (int t = 0; t < of.tap_count * of_run; ++t)
                Order::put(
                    in_version<version>(
                        from[r * of.read_step + row * of.written_step + of.tap_at[t]], shrink),
                    to + row * row_step,
                    place_in_depth(of.tap_count, of.run, t / of_run, t % of_run * of.read + r));
    for (int row = 0; row < rows; ++row)
        for (int64_t k = static_cast<int64_t>(of.tap_count) * of.run; k < depth; ++k)
            Order::put(0.0f, to + row * row_step, k);
}

// [groups][out][depth]: for each channel written what it multiplies, and zeros up to whole slices.
// Returns how many floats.
template <class Order> int64_t pack_rows(const Packing &of, const float *weights, float *packed) {
    if (of.run == 0)
        return pack_depthwise(of, weights, packed);
    using Weight = typename Order::Weight;
    const int64_t depth = depth_of(of.tap_count, of.run);
    const int blocks = ceil_div(of.out, rows_at_once);
    if (packed)
        with_version(of.version, [&](auto version) {
            parallel_for(static_cast<int64_t>(of.groups) * blocks, [&](int64_t task) {
                const int64_t group = task / blocks, row = task % blocks * rows_at_once;
                lay_rows<version, Order>(of,
                                         weights + group * of.group_step + row * of.written_step,
                                         smaller(rows_at_once, of.out - static_cast<int>(row)),
                                         reinterpret_cast<Weight *>(packed) +
                                             (group * of.out + row) * depth * Order::parts,
                                         depth);
            });
        });
    constexpr int64_t in_a_float = sizeof(float) / sizeof(Weight); // a slice is even
    return of.groups * of.out * depth * Order::parts / in_a_float;
}

} // namespace

int64_t pack(const Packing &of, const float *weights, float *packed) {
    return pack_rows<Plain>(of, weights, packed);
}

int64_t pack_bf16(const Packing &of, const float *weights, float *packed) {
    return pack_rows<PlainBf16>(of, weights, packed);
}

int64_t pack_warpgroup_float32(const Packing &of, const float *weights, float *packed) {
    return pack_rows<WarpgroupFloat32>(of, weights, packed);
}

int64_t pack_warpgroup_tf32(const Packing &of, const float *weights, float *packed) {
    return pack_rows<WarpgroupTf32>(of, weights, packed);
}

int64_t pack_warpgroup_bf16(const Packing &of, const float *weights, float *packed) {
    return pack_rows<WarpgroupBf16>(of, weights, packed);
}

} // namespace relprop::cuda
