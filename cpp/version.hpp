// What becomes of weights in the versions that rules ask for (see Version): of one weight, or of a
// vector of them. Included where they are packed, once for all runs, and where they are read as
// they are.
#pragma once

#include "kernels.hpp"

namespace relprop {

// What gamma's version makes of negative weights.
RELPROP_HD float shrink_of(float gamma) { return 1.0f / (1.0f + gamma); }

template <Version version, class T> RELPROP_HD T in_version(T w, float shrink) {
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

} // namespace relprop
