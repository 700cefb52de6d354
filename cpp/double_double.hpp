// Sums as pairs of float64, as python/relprop/aggregation/double_double.py explains and computes
// them; in one pass over memory here, where every image of a dataset is added.
#pragma once

#include <cstdint>

namespace relprop {

// Adds `count` values to the first `count` pairs, and their squares to the next.
void add_moments(const double *values, int64_t count, double *high, double *low);

} // namespace relprop
