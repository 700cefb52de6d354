// Vectors of float64, for sums of floats: several side by side, so that none waits for the one
// before it.
#pragma once

#include "simd.hpp"

namespace relprop::RELPROP_ISA {

// Vectors of a register's width: wider ones the compiler takes apart by way of memory.
constexpr int half = lanes / 2;
typedef float Half __attribute__((vector_size(half * 4)));
typedef float UnalignedHalf __attribute__((vector_size(half * 4), aligned(4), may_alias));
typedef double Double __attribute__((vector_size(half * 8)));
typedef double UnalignedDouble __attribute__((vector_size(half * 8), aligned(8), may_alias));
typedef int64_t Bits __attribute__((vector_size(half * 8)));

// Said lane by lane, it becomes one instruction; g++ 12 converts whole vectors by halves.
template <int... lane>
[[gnu::always_inline]] static inline Double widened(Half v, std::integer_sequence<int, lane...>) {
    return Double{v[lane]...};
}
[[gnu::always_inline]] static inline Double widened(const float *v) {
    return widened(*reinterpret_cast<const UnalignedHalf *>(v),
                   std::make_integer_sequence<int, half>());
}

constexpr int chains = 4; // sums side by side
constexpr int stretch = chains * half;

} // namespace relprop::RELPROP_ISA
