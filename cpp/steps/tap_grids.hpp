// The grids of taps of a convolution and of its adjoint (a transposed convolution). Used by
// linear.cpp, which computes one with the other's help: what one does forward, the other does
// backward.
#pragma once

#include <vector>

#include "kernels.hpp"

namespace relprop {

// Geometry of a convolution from the image `from` to `to`; a dense layer is one of single pixels.
struct Conv {
    Image from, to;
    Pixel kernel = {1, 1, 1};
    Pixel stride = {1, 1, 1};
    Pixel before, after; // zero padding
    Pixel dilation = {1, 1, 1};
    int groups = 1;
};

// A grid, the place in the kernel that belongs to each of its taps, and the taps themselves.
struct Phase {
    TapGrid grid; // its taps are set when it is used
    std::vector<Pixel> taps;
    std::vector<Pixel> kernel; // place in the kernel, for each tap
};

// The grid with its taps, as long as the phase lives.
TapGrid grid_of(const Phase &phase);

// Reads the image `from`, writes `to`: one phase.
std::vector<Phase> convolution(const Conv &conv);

// Reads `to`, writes `from`: one phase for each residue of the stride.
std::vector<Phase> adjoint(const Conv &conv);

// Calls body(pixel) for every pixel of a box, the last axis fastest.
template <class Body> void each_pixel(const Pixel &size, const Body &body) {
    for (int z = 0; z < size.z; ++z)
        for (int y = 0; y < size.y; ++y)
            for (int x = 0; x < size.x; ++x)
                body(Pixel{z, y, x});
}

// For each destination pixel the number of taps that fall on real source pixels.
std::vector<float> real_taps(const std::vector<Phase> &phases);

} // namespace relprop
