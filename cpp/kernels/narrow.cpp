// Products with up to four output channels, which would leave most of a panel empty: the relevance
// of an image's colours. Vectors hold input channels here, and are summed up at the end.
#include "narrow.hpp"

#include "epilogue.hpp"
#include "pack.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

// Pixels of a row that share a load of the weights, as many as the registers hold.
constexpr int together(int out) { return out < 4 ? (lanes == 16 ? 8 : 4) : (lanes == 16 ? 6 : 3); }

// What a tap reads for pixels x, x + 1, ... of a row of the grid, for those beyond its end what it
// reads for the last; false where that row is outside.
template <int pixels>
[[gnu::always_inline]] inline bool find(const Product &p, const float *data, int64_t n,
                                        const Pixel &at, int tap, const float *(&from)[pixels]) {
    const TapGrid &grid = p.grid;
    const int last = smaller(pixels, grid.size.x - at.x) - 1;
    const Pixel first = moved(at, grid.step, grid.taps[tap]);
    if (!inside(grid.from, {first.z, first.y, 0}))
        return false;
    const float *row = data + row_of(grid.from, n, {first.z, first.y, 0}) * grid.from.channels;
    const int64_t step = grid.step.x; // of any size
    if (last == pixels - 1 && first.x >= 0 && first.x + last * step < grid.from.width) {
        const float *begin = row + static_cast<int64_t>(first.x) * grid.from.channels;
        for (int m = 0; m < pixels; ++m)
            from[m] = begin + m * step * grid.from.channels;
    } else {
        for (int m = 0; m < pixels; ++m) {
            const int64_t x = first.x + smaller(m, last) * step;
            from[m] = x >= 0 && x < grid.from.width ? row + x * grid.from.channels : p.zeros;
        }
    }
    return true;
}

template <int pixels, int out>
void sum_sources(const Product &p, int64_t n, const Pixel &at, Vec (&acc)[pixels][out]) {
    for (int s = 0; s < p.sources; ++s)
        for (int t = 0; t < p.grid.tap_count; ++t) {
            const float *from[pixels];
            if (!find(p, p.source[s].data, n, at, t, from))
                continue;
            const float *weights = p.source[s].weights + static_cast<int64_t>(t) * p.run * out;
            for (int c = 0; c < p.run; c += lanes, weights += out * lanes) {
                Vec b[out];
                for (int j = 0; j < out; ++j)
                    b[j] = load(weights + j * lanes);
                for (int m = 0; m < pixels; ++m)
                    for (int j = 0; j < out; ++j)
                        acc[m][j] += load(from[m] + c) * b[j];
            }
        }
}

// Two sources, exchanged for the outputs whose x is negative.
template <int pixels, int out>
void sum_by_sign(const Product &p, int64_t n, const Pixel &at, Vec (&acc)[pixels][out]) {
    const Pixel to = moved(at, p.grid.out_step, p.grid.out);
    const float *x = p.epilogue.x + row_of(p.grid.to, n, to) * out;
    const int held = smaller(pixels, p.grid.size.x - at.x);
    bool exchanged[pixels][out] = {};
    for (int m = 0; m < held; ++m)
        for (int j = 0; j < out; ++j)
            exchanged[m][j] = x[static_cast<int64_t>(m) * p.grid.out_step.x * out + j] < 0.0f;
    for (int t = 0; t < p.grid.tap_count; ++t) {
        const float *from[2][pixels], *source[2][pixels][out];
        if (!find(p, p.source[0].data, n, at, t, from[0]) ||
            !find(p, p.source[1].data, n, at, t, from[1]))
            continue;
        for (int m = 0; m < pixels; ++m)
            for (int j = 0; j < out; ++j) {
                source[0][m][j] = from[exchanged[m][j]][m];
                source[1][m][j] = from[!exchanged[m][j]][m];
            }
        const int64_t weights = static_cast<int64_t>(t) * p.run * out;
        for (int c = 0; c < p.run; c += lanes)
            for (int s = 0; s < 2; ++s) {
                Vec b[out];
                for (int j = 0; j < out; ++j)
                    b[j] = load(p.source[s].weights + weights + c * out + j * lanes);
                for (int m = 0; m < pixels; ++m)
                    for (int j = 0; j < out; ++j)
                        acc[m][j] += load(source[s][m][j] + c) * b[j];
            }
    }
}

template <int out> void run(const Product &p) {
    constexpr int pixels = together(out);
    const TapGrid &grid = p.grid;
    parallel_for(p.n * grid.size.z * grid.size.y, [&](int64_t task) {
        auto [n, at, _] = place_at(task, {grid.size.z, grid.size.y, 1, 1});
        for (at.x = 0; at.x < grid.size.x; at.x += pixels) {
            Vec acc[pixels][out] = {};
            if (p.by_sign)
                sum_by_sign(p, n, at, acc);
            else
                sum_sources(p, n, at, acc);
            for (int m = 0; m < smaller(pixels, grid.size.x - at.x); ++m) {
                float sums[panel] = {};
                for (int j = 0; j < out; ++j)
                    sums[j] = horizontal(acc[m][j]);
                const Pixel to = moved({at.z, at.y, at.x + m}, grid.out_step, grid.out);
                epilogue_row(p.epilogue, row_of(grid.to, n, to), out, 0, out, sums, 0);
            }
        }
    });
}

} // namespace

bool is_narrow(int groups, int run, int out) {
    return groups == 1 && out <= 4 && run > 0 && run % lanes == 0;
}

void narrow(const Product &p) {
    switch (p.grid.to.channels) {
    case 1:
        return run<1>(p);
    case 2:
        return run<2>(p);
    case 3:
        return run<3>(p);
    default:
        return run<4>(p);
    }
}

// [tap_count][run / lanes][out][lanes]
int64_t pack_narrow(const Packing &of, const float *weights, float *packed) {
    const int64_t inputs = static_cast<int64_t>(of.tap_count) * of.run;
    if (packed) {
        float *laid = new float[inputs * of.out];
        lay_weights(of, weights, 0, 0, of.read, 0, of.out, laid,
                    static_cast<int64_t>(of.read) * of.out);
        for (int64_t i = 0; i < inputs; ++i)
            for (int j = 0; j < of.out; ++j)
                packed[(i / lanes * of.out + j) * lanes + i % lanes] = laid[i * of.out + j];
        delete[] laid;
    }
    return inputs * of.out;
}

} // namespace relprop::RELPROP_ISA
