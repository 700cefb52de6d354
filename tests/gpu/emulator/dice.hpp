// Chance, the same in every run of a program: RELPROP_EMULATED_SEED chooses another.
#pragma once

#include <cstddef>

namespace relprop::emulator {

size_t draw_below(size_t end); // for this thread: 0 to end - 1

} // namespace relprop::emulator
