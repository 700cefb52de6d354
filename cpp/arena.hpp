// Places buffers with known lifetimes in one block of memory. Used by stage.cpp.
#pragma once

#include <cstdint>
#include <vector>

namespace relprop {

struct Buffer {
    int64_t size; // floats
    int begin;    // first and last moment at which it is in use
    int end;
    int64_t *at; // where its offset goes
};

// Gives every buffer an offset such that buffers alive at the same moment do not overlap, and
// returns the size of the whole. Greedy by size: within a few percent of the lower bound on
// networks, where lifetimes are nested by the two passes.
int64_t place(std::vector<Buffer> buffers);

} // namespace relprop
