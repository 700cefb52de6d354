// Vectors of the instruction set that this translation unit is compiled for. The files of
// cpp/kernels are compiled once per set, each time into a namespace of its own; they use nothing
// of the standard library whose inline functions could be merged across sets.
#pragma once

#include <cstdint>

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

// Sum of a vector's lanes, always in the same order: halves onto halves.
typedef float Four __attribute__((vector_size(16)));
[[gnu::always_inline]] static inline float horizontal(Four v) {
    return (v[0] + v[2]) + (v[1] + v[3]);
}
#if defined(RELPROP_AVX2) || defined(RELPROP_AVX512)
typedef float Eight __attribute__((vector_size(32)));
[[gnu::always_inline]] static inline float horizontal(Eight v) {
    return horizontal(__builtin_shufflevector(v, v, 0, 1, 2, 3) +
                      __builtin_shufflevector(v, v, 4, 5, 6, 7));
}
#endif
#if defined(RELPROP_AVX512)
[[gnu::always_inline]] static inline float horizontal(Vec v) {
    return horizontal(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                      __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
}
#endif

// Elementwise kernels cut every sample alike, so that a value never depends on the batch.
constexpr int64_t slab = 16384; // floats per task

} // namespace relprop::RELPROP_ISA
