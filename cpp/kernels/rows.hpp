// Kernels that work row by row, and sums over a row.
#pragma once

#include "parallel.hpp"
#include "simd.hpp"

namespace relprop::RELPROP_ISA {

// Calls body(where the row begins) for each.
template <class Body> static inline void each_row(int64_t rows, int width, const Body &body) {
    const int64_t block = slab / width > 0 ? slab / width : 1;
    parallel_for((rows + block - 1) / block, [&](int64_t task) {
        const int64_t last = (task + 1) * block < rows ? (task + 1) * block : rows;
        for (int64_t row = task * block; row < last; ++row)
            body(row * width);
    });
}

// The float64 sum of term(i) for i in [0, width): some sums side by side, so that none waits for
// the one before it.
template <class Term>
[[gnu::always_inline]] static inline double sum_over(int width, const Term &term) {
    constexpr int apart = 16;
    double sums[apart] = {};
    int i = 0;
    for (; i + apart <= width; i += apart)
        for (int k = 0; k < apart; ++k)
            sums[k] += term(i + k);
    for (int k = 0; i + k < width; ++k)
        sums[k] += term(i + k);
    double sum = 0.0;
    for (int k = 0; k < apart; ++k)
        sum += sums[k];
    return sum;
}

} // namespace relprop::RELPROP_ISA
