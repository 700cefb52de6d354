// How product.cpp and winograd.cpp cut output channels into panels, and their sums into runs.
#pragma once

#include "layers.hpp"
#include "simd.hpp"

namespace relprop::RELPROP_ISA {

static inline int panels_of(int out) { return ceil_div(out, panel); }
// The last panel is narrow where one vector holds it.
static inline int width_of(int out, int p) { return out - p * panel > lanes ? panel : lanes; }

// Products summed in a row before their sum joins the others: rounding then grows with the number
// of such runs, not of products.
constexpr int longest_run = 128;

} // namespace relprop::RELPROP_ISA
