// Chance, the same in every run of a program: RELPROP_EMULATED_SEED chooses another.
#pragma once

#include <random>

namespace relprop::emulator {

std::minstd_rand &dice(); // of this thread

} // namespace relprop::emulator
