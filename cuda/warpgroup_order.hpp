// The order of a slice of weights that a warpgroup's products read (wgmma.cuh): their instructions
// sum over 8 or 16 neighbours, of which a lane holds some of the pixels' factors. Lanes take 8
// neighbours of a row of pixels, as memory gives them at once, and so the weights that meet them
// lie apart. Included by pack.cpp.
#pragma once

#include "host_device.hpp"

namespace relprop::cuda {

// Weights lie in slices of all channels of a group, of which this many lie there: zeros up to whole
// steps of the tensor cores.
RELPROP_HD constexpr int held_channels(int out) { return (out + 7) / 8 * 8; }

// Where the weight goes that lies at k of a slice. Lane t has the pixels' factors 8 t to 8 t + 7
// and gives each of four instructions two, the summed index's t and t + 4.
constexpr int warpgroup_place_tf32(int k) {
    const int lane = k / 8, instruction = k % 8 / 2, second = k % 2;
    return instruction * 8 + second * 4 + lane;
}

// Each of two instructions gets four: the summed index's 2 t, 2 t + 1, 2 t + 8 and 2 t + 9.
constexpr int warpgroup_place_bf16(int k) {
    const int lane = k / 8, instruction = k % 8 / 4, second = k % 4 / 2;
    return instruction * 16 + second * 8 + lane * 2 + k % 2;
}

} // namespace relprop::cuda
