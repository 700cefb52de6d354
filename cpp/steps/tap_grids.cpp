// See tap_grids.hpp.
#include "steps/tap_grids.hpp"

#include <algorithm>
#include <optional>

namespace relprop {

namespace {

// Along one axis, the source of an adjoint's tap `k` at the first pixel of a phase, in strides;
// none where it falls between two pixels.
std::optional<int> tap_of(int first, int before, int k, int dilation, int stride) {
    const int64_t at = static_cast<int64_t>(first) + before - static_cast<int64_t>(k) * dilation;
    if (at % stride != 0)
        return std::nullopt;
    return static_cast<int>(at / stride);
}

} // namespace

TapGrid grid_of(const Phase &phase) {
    TapGrid grid = phase.grid;
    grid.taps = phase.taps.data();
    grid.tap_count = static_cast<int>(phase.taps.size());
    if (phase.taps.empty())
        return grid;
    grid.least = grid.most = phase.taps.front();
    for (const Pixel &tap : phase.taps) {
        grid.least = {std::min(grid.least.z, tap.z), std::min(grid.least.y, tap.y),
                      std::min(grid.least.x, tap.x)};
        grid.most = {std::max(grid.most.z, tap.z), std::max(grid.most.y, tap.y),
                     std::max(grid.most.x, tap.x)};
    }
    return grid;
}

std::vector<Phase> convolution(const Conv &conv) {
    Phase phase;
    phase.grid.from = conv.from;
    phase.grid.to = conv.to;
    phase.grid.groups = conv.groups;
    phase.grid.size = {conv.to.depth, conv.to.height, conv.to.width};
    phase.grid.step = conv.stride;
    each_pixel(conv.kernel, [&](const Pixel &k) {
        phase.kernel.push_back(k);
        phase.taps.push_back(
            moved(k, conv.dilation, {-conv.before.z, -conv.before.y, -conv.before.x}));
    });
    return {phase};
}

std::vector<Phase> adjoint(const Conv &conv) {
    const Pixel residues = {std::min(conv.stride.z, conv.from.depth),
                            std::min(conv.stride.y, conv.from.height),
                            std::min(conv.stride.x, conv.from.width)};
    std::vector<Phase> phases;
    each_pixel(residues, [&](const Pixel &first) {
        Phase phase;
        phase.grid.from = conv.to;
        phase.grid.to = conv.from;
        phase.grid.groups = conv.groups;
        phase.grid.size = {ceil_div(conv.from.depth - first.z, conv.stride.z),
                           ceil_div(conv.from.height - first.y, conv.stride.y),
                           ceil_div(conv.from.width - first.x, conv.stride.x)};
        phase.grid.out_step = conv.stride;
        phase.grid.out = first;
        each_pixel(conv.kernel, [&](const Pixel &k) {
            const auto z = tap_of(first.z, conv.before.z, k.z, conv.dilation.z, conv.stride.z);
            const auto y = tap_of(first.y, conv.before.y, k.y, conv.dilation.y, conv.stride.y);
            const auto x = tap_of(first.x, conv.before.x, k.x, conv.dilation.x, conv.stride.x);
            if (z && y && x) {
                phase.kernel.push_back(k);
                phase.taps.push_back({*z, *y, *x});
            }
        });
        // in row order, as those of a convolution
        std::reverse(phase.kernel.begin(), phase.kernel.end());
        std::reverse(phase.taps.begin(), phase.taps.end());
        phases.push_back(std::move(phase));
    });
    return phases;
}

std::vector<float> real_taps(const std::vector<Phase> &phases) {
    const Image &to = phases.front().grid.to;
    std::vector<float> counts(static_cast<size_t>(to.pixels()));
    for (const Phase &phase : phases) {
        const TapGrid &grid = phase.grid;
        each_pixel(grid.size, [&](const Pixel &at) {
            int count = 0;
            for (const Pixel &tap : phase.taps)
                count += inside(grid.from, moved(at, grid.step, tap));
            const int64_t row = row_of(to, 0, moved(at, grid.out_step, grid.out));
            counts[static_cast<size_t>(row)] = static_cast<float>(count);
        });
    }
    return counts;
}

} // namespace relprop
