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

// What is held for one group of channels.
struct Held {
    int out; // channels
    int64_t depth;
};

// How a product wants its weights: put() lays the one at `place` of a channel's depth, of a group
// whose weights begin at `to` and are `size` in all. Beyond the last channel and the last place lie
// zeros.
template <class Weight_, Weight_ (*rounded)(float)> struct Rows {
    using Weight = Weight_;
    static constexpr int channels_held(int out) { return out; }
    static int64_t size(const Held &held) { return held.out * held.depth; }
    static void put(float w, Weight *to, const Held &held, int channel, int64_t place) {
        to[channel * held.depth + place] = rounded(w);
    }
};

float as_it_is(float w) { return w; }

using Plain = Rows<float, as_it_is>;
using PlainBf16 = Rows<uint16_t, to_bf16>;

// Warpgroups have slices of all channels copied as they lie, and the tensor cores read them so: in
// no order but their own, and rounding nothing.
template <class Weight_, int parts> struct Slices {
    using Weight = Weight_;
    static constexpr int channels_held(int out) { return held_channels(out); }
    static int64_t size(const Held &held) { return held_channels(held.out) * held.depth * parts; }
    static Weight *slice_at(Weight *to, const Held &held, int64_t place, int part) {
        return to + (place / slice * parts + part) * held_channels(held.out) * slice;
    }
};

struct WarpgroupTf32 : Slices<float, 1> {
    static void put(float w, float *to, const Held &held, int channel, int64_t place) {
        const int k = warpgroup_place_tf32(static_cast<int>(place % slice));
        slice_at(to, held, place, 0)[place_in_slice(channel, k)] = to_tf32(w);
    }
};

// A float is the sum of three bfloat16: a slice of each.
struct WarpgroupFloat32 : Slices<uint16_t, 3> {
    static void put(float w, uint16_t *to, const Held &held, int channel, int64_t place) {
        const int k = warpgroup_place_bf16(static_cast<int>(place % slice));
        for (int part = 0; part < 3; ++part) {
            const uint16_t nearest = to_bf16(w);
            slice_at(to, held, place, part)[place_in_half_slice(channel, k)] = nearest;
            w -= std::bit_cast<float>(uint32_t{nearest} << 16);
        }
    }
};

struct WarpgroupBf16 : Slices<uint16_t, 1> {
    static void put(float w, uint16_t *to, const Held &held, int channel, int64_t place) {
        const int k = warpgroup_place_bf16(static_cast<int>(place % slice));
        slice_at(to, held, place, 0)[place_in_half_slice(channel, k)] = to_bf16(w);
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

// Channels [first, last) of a group, as many as lie at once; `from` are the first's weights.
template <Version version, class Order>
void lay_rows(const Packing &of, const float *from, int first, int last, const Held &held,
              typename Order::Weight *to) {
    const float shrink = shrink_of(of.gamma);
    const int of_run = of.run / of.read; // taps of the kernel
    const int real = smaller(last, of.out);
    for (int r = 0; r < of.read; ++r)
        for (int row = first; row < real; ++row)
            for (int t = 0; t < of.tap_count * of_run; ++t)
                Order::put(
                    in_version<version>(
                        from[r * of.read_step + (row - first) * of.written_step + of.tap_at[t]],
                        shrink),
                    to, held, row,
                    place_in_depth(of.tap_count, of.run, t / of_run, t % of_run * of.read + r));
    for (int row = first; row < last; ++row)
        for (int64_t k = row < of.out ? static_cast<int64_t>(of.tap_count) * of.run : 0;
             k < held.depth; ++k)
            Order::put(0.0f, to, held, row, k);
}

// For each channel written of each group what it multiplies. Returns how many floats.
template <class Order> int64_t pack_rows(const Packing &of, const float *weights, float *packed) {
    if (of.run == 0)
        return pack_depthwise(of, weights, packed);
    using Weight = typename Order::Weight;
    const Held held = {of.out, depth_of(of.tap_count, of.run)};
    const int channels = Order::channels_held(of.out), blocks = ceil_div(channels, rows_at_once);
    const int64_t size = Order::size(held);
    if (packed)
        with_version(of.version, [&](auto version) {
            parallel_for(static_cast<int64_t>(of.groups) * blocks, [&](int64_t task) {
                const int64_t group = task / blocks;
                const int first = static_cast<int>(task % blocks) * rows_at_once;
                lay_rows<version, Order>(of,
                                         weights + group * of.group_step + first * of.written_step,
                                         first, smaller(first + rows_at_once, channels), held,
                                         reinterpret_cast<Weight *>(packed) + group * size);
            });
        });
    constexpr int64_t in_a_float = sizeof(float) / sizeof(Weight); // a slice is even
    return of.groups * size / in_a_float;
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
