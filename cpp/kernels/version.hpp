// What becomes of weights in the versions that rules ask for (see Version): of one weight, or of a
// vector of them. Included by pack.cpp, once for all runs, and by dense.cpp, as they are read.
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace relprop::RELPROP_ISA {

// What gamma's version makes of negative weights.
static inline float shrink_of(float gamma) { return 1.0f / (1.0f + gamma); }

template <Version version, class T>
[[gnu::always_inline]] static inline T in_version(T w, float shrink) {
    if constexpr (version == Version::positive) // comparisons that let NaN through
        return w < T{} ? T{} : w;
    else if constexpr (version == Version::negative)
        return w > T{} ? T{} : w;
    else if constexpr (version == Version::gamma) // what s+ = (1 + gamma) S meets where s- = S
        return w > T{} ? w : w * shrink;
    else if constexpr (version == Version::square)
        return w * w;
    else
        return w;
}

} // namespace relprop::RELPROP_ISA
