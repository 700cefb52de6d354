// See double_double.hpp. No multiplication is joined with a sum here, which would round but once.
#include "double_double.hpp"

namespace relprop {
namespace {

inline void add(double value, double &high, double &low) {
    const double total = high + value, of_value = total - high;
    const double rest = (high - (total - of_value)) + (value - of_value) + low;
    high = total + rest;
    low = rest - (high - total);
}

} // namespace

void add_moments(const double *values, int64_t count, double *high, double *low) {
    for (int64_t i = 0; i < count; ++i)
        add(values[i], high[i], low[i]);
    for (int64_t i = 0; i < count; ++i)
        add(values[i] * values[i], high[count + i], low[count + i]);
}

} // namespace relprop
