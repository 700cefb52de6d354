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

// Sum of a vector's lanes, always in the same order.
static inline float horizontal(Vec v) {
    float a[lanes];
    store(a, v);
    for (int width = lanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i)
            a[i] += a[i + width];
    return a[0];
}

// Elementwise kernels cut every sample alike, so that a value never depends on the batch.
constexpr int64_t slab = 16384; // floats per task

} // namespace relprop::RELPROP_ISA
