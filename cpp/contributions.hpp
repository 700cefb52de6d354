// What a neuron's sums are known from beside a product: bounds that z gives, and the contributions
// x w one by one where Z- is scarce beside Z+ (see Contributions in kernels.hpp). For both devices.
#pragma once

#include "kernels.hpp"

namespace relprop {

// Below this share of Z+ and the bias, z - b - Z+ has lost too much to rounding.
constexpr float scarce_share = 1.0f / 16;

// Z+ is at least what z is without its bias, but for what rounding to the bias's size has cost.
template <class Number> RELPROP_HD Number least(Number z, Number b) {
    constexpr float rounding = 1.2e-7f;
    const Number left = z - b - rounding * (b < 0.0f ? -b : b);
    return left > 0.0f ? left : Number{};
}

RELPROP_HD int outputs_of(const TapGrid &grid) { return grid.to.channels / grid.groups; }

// What a tap reads for a channel of the output: its group's channels of a pixel.
RELPROP_HD const float *source_of(const Contributions &of, int64_t row, int channel) {
    return of.x + row * of.grid.from.channels +
           static_cast<int64_t>(channel / outputs_of(of.grid)) * of.run;
}

// The weights of a channel and a tap, each `step` floats from the one before.
RELPROP_HD const float *weights_of(const Contributions &of, int channel, int tap) {
    return of.weights + channel * of.channel_step + of.tap_at[tap];
}

} // namespace relprop
