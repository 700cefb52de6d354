// See tap_grids.hpp.
#include "steps/tap_grids.hpp"

#include <algorithm>

namespace relprop {

std::vector<Phase> convolution(const Conv2d &conv) {
    Phase phase;
    phase.grid.from = conv.from;
    phase.grid.to = conv.to;
    phase.grid.groups = conv.groups;
    phase.grid.height = conv.to.height;
    phase.grid.width = conv.to.width;
    phase.grid.step_y = conv.stride_y;
    phase.grid.step_x = conv.stride_x;
    for (int ky = 0; ky < conv.kernel_y; ++ky)
        for (int kx = 0; kx < conv.kernel_x; ++kx) {
            phase.kernel.push_back({ky, kx});
            phase.taps.push_back(
                {ky * conv.dilation_y - conv.top, kx * conv.dilation_x - conv.left});
        }
    return {phase};
}

std::vector<Phase> adjoint(const Conv2d &conv) {
    std::vector<Phase> phases;
    for (int py = 0; py < std::min(conv.stride_y, conv.from.height); ++py)
        for (int px = 0; px < std::min(conv.stride_x, conv.from.width); ++px) {
            Phase phase;
            phase.grid.from = conv.to;
            phase.grid.to = conv.from;
            phase.grid.groups = conv.groups;
            phase.grid.height = ceil_div(conv.from.height - py, conv.stride_y);
            phase.grid.width = ceil_div(conv.from.width - px, conv.stride_x);
            phase.grid.out_step_y = conv.stride_y;
            phase.grid.out_step_x = conv.stride_x;
            phase.grid.out_y = py;
            phase.grid.out_x = px;
            for (int ky = 0; ky < conv.kernel_y; ++ky)
                for (int kx = 0; kx < conv.kernel_x; ++kx) {
                    const int y = py + conv.top - ky * conv.dilation_y;
                    const int x = px + conv.left - kx * conv.dilation_x;
                    if (y % conv.stride_y == 0 && x % conv.stride_x == 0) {
                        phase.kernel.push_back({ky, kx});
                        phase.taps.push_back({y / conv.stride_y, x / conv.stride_x});
                    }
                }
            phases.push_back(std::move(phase));
        }
    return phases;
}

std::vector<float> real_taps(const std::vector<Phase> &phases) {
    const Image &to = phases.front().grid.to;
    std::vector<float> counts(static_cast<size_t>(to.height) * static_cast<size_t>(to.width));
    for (const Phase &phase : phases) {
        const TapGrid &grid = phase.grid;
        for (int y = 0; y < grid.height; ++y)
            for (int x = 0; x < grid.width; ++x) {
                int count = 0;
                for (const Tap &tap : phase.taps) {
                    const int sy = y * grid.step_y + tap.y, sx = x * grid.step_x + tap.x;
                    count += sy >= 0 && sy < grid.from.height && sx >= 0 && sx < grid.from.width;
                }
                const int row = (y * grid.out_step_y + grid.out_y) * to.width +
                                x * grid.out_step_x + grid.out_x;
                counts[static_cast<size_t>(row)] = static_cast<float>(count);
            }
    }
    return counts;
}

} // namespace relprop
