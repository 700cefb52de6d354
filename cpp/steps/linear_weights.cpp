// The weights of a Linear: in which versions each direction reads them, by which kernel, and packed
// for it. See linear.hpp.
#include <algorithm>
#include <cmath>

#include "steps/linear.hpp"

namespace relprop {

bool Linear::splits() const {
    return rule_.kind == RuleKind::alpha_beta || rule_.kind == RuleKind::gamma;
}

// Where no relevance arrives for z <= 0, gamma's two messages are one up to a factor.
bool Linear::needs_negative_part() const {
    if (rule_.kind == RuleKind::gamma)
        return !(around_.supported && around_.input_nonnegative);
    return rule_.kind == RuleKind::alpha_beta && rule_.beta > 0.0f;
}

// The clamp must have left z as it was, wherever relevance arrives.
bool Linear::takes_difference() const {
    const bool clamped = around_.low < around_.high;
    const bool kept = !clamped || (around_.supported && std::isinf(around_.high));
    return rule_.kind == RuleKind::alpha_beta && rule_.beta > 0.0f && kept && !transposed_ &&
           !depthwise_ && winograd_wanted_;
}

// Winograd's filtering is faster still.
bool Linear::selects(const Kernels &kernels, const std::vector<Phase> &back) const {
    const int read = out_.channels / conv_.groups;
    const auto serves = [&](const Phase &phase) {
        return kernels.selects(grid_of(phase), read) &&
               !winograd_outputs(kernels, phase, read, Version::positive);
    };
    return needs_negative_part() && !depthwise_ && !dense_ &&
           std::all_of(back.begin(), back.end(), serves);
}

int Linear::winograd_backward(Version version) const {
    return backward_.front().winograd[static_cast<int>(version)];
}

// Winograd's product of s- errs in proportion to the largest one nearby.
bool Linear::treats_scarce() const {
    return takes_difference() && winograd_backward(Version::negative);
}

std::vector<Version> Linear::forward_versions() const {
    switch (rule_.kind) {
    case RuleKind::alpha_beta:
    case RuleKind::gamma:
        if (!around_.input_nonnegative || (rule_.beta > 0.0f && !takes_difference()))
            return {Version::plain, Version::positive, Version::negative};
        return {Version::plain, Version::positive};
    case RuleKind::z_box:
        return {Version::plain, Version::positive, Version::negative};
    case RuleKind::w_square:
        return {Version::plain, Version::square};
    default:
        return {Version::plain};
    }
}

std::vector<Version> Linear::backward_versions() const {
    if (selects_)
        return {Version::plain};
    switch (rule_.kind) {
    case RuleKind::epsilon:
    case RuleKind::gradient:
        return {Version::plain};
    case RuleKind::alpha_beta:
        if (rule_.beta > 0.0f || !around_.input_nonnegative)
            return {Version::positive, Version::negative};
        return {Version::positive};
    case RuleKind::gamma:
        if (needs_negative_part())
            return {Version::positive, Version::negative};
        return {Version::gamma};
    case RuleKind::z_box:
        return {Version::positive, Version::negative};
    case RuleKind::w_square:
        return {Version::square};
    case RuleKind::flat:
        return {};
    }
    return {};
}

// Winograd's filtering errs by some 1e-7 of the largest value nearby, not of the sum itself. Where
// a message divides by nearly nothing, or stands for an empty part, that would reach its
// neighbours; where the layer is supported, relevance arrives in proportion to z, and Z+ >= z. Z-
// can be next to nothing all the same, so that such neurons are treated apart where it is a
// difference, and so can any sum whose bias is left out. The gradient divides by nothing.
int Linear::winograd_outputs(const Kernels &kernels, const Phase &phase, int run,
                             Version version) const {
    const bool split = version == Version::positive || version == Version::gamma ||
                       (version == Version::negative && takes_difference());
    const bool safe = splits() && around_.input_nonnegative;
    const bool proportional = around_.supported && rule_.bias != BiasMode::exclude &&
                              (version == Version::plain || (split && safe));
    if (!(proportional || rule_.kind == RuleKind::gradient) ||
        (merged_ && run == in_.channels)) // the forward product, whose taps are merged
        return 0;
    return kernels.winograd_outputs(grid_of(phase), run);
}

// Packs each version of the weights that is needed for one phase.
Linear::Packed Linear::pack(const Kernels &kernels, std::span<const float> weights,
                            const Fingerprint &of, const Phase &phase, bool of_adjoint,
                            const std::vector<Version> &needed) const {
    const int to = conv_.to.channels / conv_.groups, from = conv_.from.channels / conv_.groups;
    const int read = of_adjoint ? to : from, written = of_adjoint ? from : to;
    const Image kernel = {conv_.kernel.z, conv_.kernel.y, conv_.kernel.x};
    std::vector<int64_t> tap_at;
    for (const Pixel &tap : phase.kernel)
        tap_at.push_back(row_of(kernel, 0, tap));
    const int taps = static_cast<int>(tap_at.size());
    const int row = merged_ && !of_adjoint ? conv_.kernel.x : 1; // taps that are merged to one
    const int64_t from_step = kernel.pixels(), to_step = from_step * from;
    Packing packing{};
    packing.groups = conv_.groups;
    packing.tap_count = taps / row;
    packing.run = depthwise_ ? 0 : read * row;
    packing.out = depthwise_ ? conv_.groups : written;
    packing.read = read;
    packing.tap_at = tap_at.data();
    packing.group_step = to_step * to;
    packing.read_step = of_adjoint ? to_step : from_step;
    packing.written_step = depthwise_ || !of_adjoint ? to_step : from_step;
    packing.gamma = rule_.gamma;
    Packed packed{laid(kernels, row > 1 ? merged(phase) : phase), read * row, {}, {}};
    const bool back = of_adjoint != transposed_;
    for (Version version : needed) {
        packing.version = version;
        const int outputs = // which choose between no messages
            back && selects_ ? 0 : winograd_outputs(kernels, phase, read, version);
        packed.winograd[static_cast<int>(version)] = outputs;
        packed.weights[static_cast<int>(version)] =
            PackedWeights(kernels, packing, outputs, weights.data(), of);
    }
    return packed;
}

// All taps of the kernel at once: what a pixel of the output hands to each of them.
Linear::Packed Linear::pack_all_taps(const Kernels &kernels, std::span<const float> weights,
                                     const Fingerprint &of,
                                     const std::vector<Version> &needed) const {
    const int channels = handed_channels(fold_of());
    const size_t row = weights.size() / static_cast<size_t>(out_.channels);
    std::vector<float> filled(static_cast<size_t>(channels) * static_cast<size_t>(out_.channels));
    for (size_t c = 0; c < static_cast<size_t>(out_.channels); ++c)
        std::copy_n(weights.data() + c * row, row,
                    filled.data() + c * static_cast<size_t>(channels));
    const Image to{1, out_.height, out_.width, channels};
    Conv single;
    single.from = out_;
    single.to = to;
    const Phase phase = convolution(single).front();
    const int64_t at = 0;
    Packing packing{};
    packing.groups = packing.tap_count = 1;
    packing.run = packing.read = out_.channels;
    packing.out = channels;
    packing.tap_at = &at;
    packing.read_step = channels;
    packing.written_step = 1;
    packing.gamma = rule_.gamma;
    Packed packed{laid(kernels, phase), out_.channels, {}, {}};
    for (Version version : needed) {
        packing.version = version;
        packed.weights[static_cast<int>(version)] =
            PackedWeights(kernels, packing, 0, filled.data(), of);
    }
    return packed;
}

// They are read from where the weights lie, [channels of to][channels of the group][kernel].
void Linear::place_contributions(const Kernels &kernels, std::span<const float> weights,
                                 const Phase &phase) {
    contributions_ = laid(kernels, phase);
    std::vector<int64_t> taps;
    for (const Pixel &tap : phase.kernel)
        taps.push_back(row_of({conv_.kernel.z, conv_.kernel.y, conv_.kernel.x}, 0, tap));
    contribution_taps_ = {kernels, std::move(taps)};
    if (kernels.device)
        contribution_weights_ = {kernels, {weights.begin(), weights.end()}};
}

// ---- taps --------------------------------------------------------------------------------------

TapGrid Linear::Taps::read() const {
    TapGrid all = grid;
    all.taps = taps.data();
    all.tap_count = static_cast<int>(taps.size());
    return all;
}

Linear::Taps Linear::laid(const Kernels &kernels, const Phase &phase) const {
    return {grid_of(phase), {kernels, phase.taps}};
}

// One tap for a whole row of the kernel, as the weights are packed.
Phase Linear::merged(const Phase &phase) const {
    Phase rows = phase;
    rows.taps.clear();
    each_pixel({conv_.kernel.z, conv_.kernel.y, 1},
               [&](const Pixel &k) { rows.taps.push_back(moved(k, conv_.dilation, {})); });
    Image &from = rows.grid.from;
    from.depth += conv_.before.z + conv_.after.z;
    from.height += conv_.before.y + conv_.after.y;
    from.width += conv_.before.x + conv_.after.x;
    return rows;
}

} // namespace relprop
