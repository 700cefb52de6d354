// The grids of taps of a convolution and of its adjoint (a transposed convolution). Used by
// linear.cpp, which computes one with the other's help: what one does forward, the other does
// backward.
#pragma once

#include <vector>

#include "kernels.hpp"

namespace relprop {

// Geometry of a convolution from the image `from` to `to`; a dense layer is one of 1 x 1 images.
struct Conv2d {
    Image from, to;
    int kernel_y = 1, kernel_x = 1;
    int stride_y = 1, stride_x = 1;
    int top = 0, bottom = 0, left = 0, right = 0;
    int dilation_y = 1, dilation_x = 1;
    int groups = 1;
};

// A grid, the place in the kernel that belongs to each of its taps, and the taps themselves.
struct Phase {
    TapGrid grid; // its taps are set when it is used
    std::vector<Tap> taps;
    std::vector<Tap> kernel; // (y, x) in the kernel, for each tap
};

// Reads the image `from`, writes `to`: one phase.
std::vector<Phase> convolution(const Conv2d &conv);

// Reads `to`, writes `from`: one phase for each residue of the stride.
std::vector<Phase> adjoint(const Conv2d &conv);

// For each destination pixel the number of taps that fall on real source pixels.
std::vector<float> real_taps(const std::vector<Phase> &phases);

} // namespace relprop
