// Vectors of the instruction set that this translation unit is compiled for. The files of
// cpp/kernels are compiled once per set, each time into a namespace of its own; they use nothing
// of the standard library whose inline functions could be merged across sets.
#pragma once

#include <cstdint>
#include <utility>
#if defined(RELPROP_AVX512)
#include <immintrin.h>
#endif

#if defined(RELPROP_AVX512)
#define RELPROP_ISA avx512
#elif defined(RELPROP_AVX2)
#define RELPROP_ISA avx2
#else
#define RELPROP_ISA portable
#endif

namespace relprop::RELPROP_ISA {

// lanes: floats per vector. tile_rows: pixels of a product tile; tile_rows * 2 accumulators, two
// weight vectors and a broadcast must fit the registers.
#if defined(RELPROP_AVX512)
constexpr int lanes = 16, tile_rows = 12;
#elif defined(RELPROP_AVX2)
constexpr int lanes = 8, tile_rows = 6;
#else
constexpr int lanes = 4, tile_rows = 4;
#endif
constexpr int panel = 2 * lanes; // channels of a product tile

typedef float Vec __attribute__((vector_size(lanes * 4)));
typedef float UnalignedVec __attribute__((vector_size(lanes * 4), aligned(4), may_alias));

[[gnu::always_inline]] static inline Vec load(const float *p) {
    return *reinterpret_cast<const UnalignedVec *>(p);
}
[[gnu::always_inline]] static inline void store(float *p, Vec v) {
    *reinterpret_cast<UnalignedVec *>(p) = v;
}

// The first `count` values, as far as a vector holds them; zeros beyond.
[[gnu::always_inline]] static inline Vec load_some(const float *from, int count) {
    if (count >= lanes)
        return load(from);
    float some[lanes] = {};
    for (int lane = 0; lane < count; ++lane)
        some[lane] = from[lane];
    return load(some);
}
[[gnu::always_inline]] static inline void store_some(float *to, Vec v, int count) {
    if (count >= lanes)
        return store(to, v);
    float some[lanes];
    store(some, v);
    for (int lane = 0; lane < count; ++lane)
        to[lane] = some[lane];
}

// One value in all lanes, in a register of its own.
[[gnu::always_inline]] static inline Vec broadcast(float value) {
    Vec all = Vec{} + value;
#if defined(RELPROP_AVX512)
    all = _mm512_set1_ps(value);
    asm("" : "+v"(all)); // g++ would join it to a selection, as a shuffle
#endif
    return all;
}

// Lane by lane what goes with a weight: `neg` where it is negative, `pos` elsewhere.
[[gnu::always_inline]] static inline Vec by_sign_of(Vec weight, Vec pos, Vec neg) {
#if defined(RELPROP_AVX512)
    const __mmask16 negative = _mm512_movepi32_mask(_mm512_castps_si512(weight));
    return _mm512_mask_blend_ps(negative, pos, neg);
#else
    return weight < 0.0f ? neg : pos;
#endif
}

// A vector's lanes, the one at `by` first; said lane by lane, it becomes a shuffle.
template <int by, int... lane>
[[gnu::always_inline]] static inline Vec rotated(Vec v, std::integer_sequence<int, lane...>) {
    return Vec{v[(lane + by) % lanes]...};
}

// Sum of a vector's lanes, always in the same order: the upper half onto the lower one, again and
// again.
template <int width = lanes / 2> [[gnu::always_inline]] static inline float horizontal(Vec v) {
    v += rotated<width>(v, std::make_integer_sequence<int, lanes>());
    if constexpr (width > 1)
        return horizontal<width / 2>(v);
    else
        return v[0];
}

// Whether any of some lanes that are nowhere negative is not zero.
[[gnu::always_inline]] static inline bool any(Vec v) {
#if defined(RELPROP_AVX512)
    return _mm512_test_epi32_mask(_mm512_castps_si512(v), _mm512_castps_si512(v)) != 0;
#else
    return horizontal(v) > 0.0f;
#endif
}

// Elementwise kernels cut every sample alike, so that a value never depends on the batch.
constexpr int64_t slab = 16384; // floats per task

} // namespace relprop::RELPROP_ISA
