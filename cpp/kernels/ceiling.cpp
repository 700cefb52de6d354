// What the processor's multipliers give at best: multiplications and sums that touch no memory, as
// many chains of them as a tile of product.cpp has, so that none waits for the one before it.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

// Not inlined, and with numbers that the caller alone knows: nothing can be computed beforehand.
[[gnu::noinline]] float run(int64_t rounds, float factor, float summand) {
    const Vec a = Vec{} + factor, b = Vec{} + summand;
    Vec chain[tile_rows][2];
    for (int m = 0; m < tile_rows; ++m)
        for (int v = 0; v < 2; ++v)
            chain[m][v] = b * static_cast<float>(2 * m + v);
    for (int64_t round = 0; round < rounds; ++round)
        for (int m = 0; m < tile_rows; ++m)
            for (int v = 0; v < 2; ++v)
                chain[m][v] = chain[m][v] * a + b;
    Vec sum = {};
    for (int m = 0; m < tile_rows; ++m)
        for (int v = 0; v < 2; ++v)
            sum += chain[m][v];
    return horizontal(sum);
}

} // namespace

int64_t multiply_adds(int64_t rounds, Stream) {
    const int64_t each = threads();
    parallel_for(each, [&](int64_t) {
        volatile float factor = 0.5f, summand = 1.0f; // the chains stay near 2
        volatile float kept = run(rounds, factor, summand);
        (void)kept;
    });
    return each * rounds * tile_rows * panel;
}

} // namespace relprop::RELPROP_ISA
