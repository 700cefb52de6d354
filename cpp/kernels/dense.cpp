// The backward product of a dense layer from the weights packed for its forward product, so that
// one store serves both directions. Vectors hold channels that are summed here, and their lanes
// are added at the end: every value in one order, whatever the rows beside it.
#include "backend.hpp"
#include "epilogue.hpp"
#include "panels.hpp"
#include "parallel.hpp"
#include "parts.hpp"

namespace relprop::RELPROP_ISA {
namespace {

constexpr int most_rows = tile_rows / 3; // whose messages to two panels fill the registers
constexpr int block_rows = 24;
constexpr int most_totals = 512; // vectors that stay in the first cache

// What all rows of a block read: `channels` channels of one or two panels.
struct Strip {
    const float *weights;
    int64_t apart; // floats between the panels
    int64_t ahead; // to the strip that comes next; too far away for the machine to foresee
    int channels;
    int turns;    // tiles that share the work of fetching what is ahead
    bool fetches; // few rows wait for memory whatever they do
};

// totals[rows][block] += s[rows][vectors * lanes] @ weights, lane by lane.
template <int rows, int vectors>
void tile(const Strip &strip, const float *const *s, int turn, Vec *totals, int block) {
    constexpr int wide = vectors == 1 ? 1 : 2; // vectors of a panel
    const auto at = [&](int k, int v) {
        return strip.weights + v / wide * strip.apart + (k * wide + v % wide) * lanes;
    };
    Vec a[rows][vectors];
    for (int m = 0; m < rows; ++m)
        for (int v = 0; v < vectors; ++v)
            a[m][v] = load(s[m] + v * lanes);
    int next = turn * strip.channels / strip.turns;
    int wait = strip.fetches ? strip.turns : 0;
    for (int k = 0; k < strip.channels; ++k) {
        if (--wait == 0) {
            for (int v = 0; v < vectors; ++v)
                __builtin_prefetch(at(next, v) + strip.ahead);
            ++next;
            wait = strip.turns;
        }
        Vec b[vectors];
        for (int v = 0; v < vectors; ++v)
            b[v] = load(at(k, v));
        for (int m = 0; m < rows; ++m) {
            Vec sum = a[m][0] * b[0];
            for (int v = 1; v < vectors; ++v)
                sum += a[m][v] * b[v];
            totals[m * block + k] += sum;
        }
    }
}

using Tile = void (*)(const Strip &, const float *const *, int, Vec *, int);

template <int vectors, int rows = most_rows> Tile pick(int held) {
    if constexpr (rows > 1)
        if (held < rows)
            return pick<vectors, rows - 1>(held);
    return tile<rows, vectors>;
}

void run_adjoint(const Product &p) {
    const int from = p.grid.from.channels, to = p.grid.to.channels, panels = panels_of(from);
    const int whole = width_of(from, panels - 1) == panel ? panels : panels - 1;
    const int64_t per_panel = static_cast<int64_t>(to) * panel;
    // as many channels as their sums' room allows, for the memory's sake
    const int most = static_cast<int>(p.n < block_rows ? p.n : block_rows);
    const int block = larger(most_totals / larger(most, 1) / panel, 1) * panel;
    const int blocks = ceil_div(to, block);

    parallel_for((p.n + block_rows - 1) / block_rows * blocks, [&](int64_t task) {
        const int first = static_cast<int>(task % blocks) * block;
        const int channels = smaller(block, to - first);
        const int64_t row = task / blocks * block_rows;
        const int rows = static_cast<int>(p.n - row < block_rows ? p.n - row : block_rows);
        Vec totals[block_rows * panel + most_totals]; // a block is one panel at least
        for (int i = 0; i < rows * block; ++i)
            totals[i] = Vec{};
        for (int i = 0; i < p.sources; ++i)
            for (int q = 0, count; q < panels; q += count) {
                count = q + 1 < whole ? 2 : 1;
                const int width = q < whole ? count * panel : lanes;
                const int held = smaller(width, from - q * panel);
                const Strip strip{p.source[i].weights + q * per_panel +
                                      static_cast<int64_t>(first) * smaller(width, panel),
                                  per_panel,
                                  q + 2 * count <= whole ? count * per_panel : 0,
                                  channels,
                                  ceil_div(rows, most_rows),
                                  rows > 2};
                for (int turn = 0; turn < strip.turns; ++turn) {
                    const int m = turn * most_rows, some = smaller(most_rows, rows - m);
                    const float *s[most_rows];
                    float padded[most_rows][2 * panel];
                    for (int j = 0; j < some; ++j) {
                        s[j] = p.source[i].data + (row + m + j) * from + q * panel;
                        if (held == width)
                            continue;
                        for (int c = 0; c < width; ++c) // zeros where the last panel ends
                            padded[j][c] = c < held ? s[j][c] : 0.0f;
                        s[j] = padded[j];
                    }
                    const Tile sum = width == 2 * panel ? pick<4>(some)
                                     : width == panel   ? pick<2>(some)
                                                        : pick<1>(some);
                    sum(strip, s, turn, totals + m * block, block);
                }
            }
        for (int m = 0; m < rows; ++m)
            for (int k = 0; k < channels; k += panel) {
                float sums[panel];
                const int count = smaller(panel, channels - k);
                for (int c = 0; c < count; ++c)
                    sums[c] = horizontal(totals[m * block + k + c]);
                epilogue_row(p.epilogue, row + m, to, first + k, count, sums, (first + k) / panel);
            }
    });
}

} // namespace

void dense_adjoint(const Product &p, Stream) { run_parts(p, run_adjoint); }

} // namespace relprop::RELPROP_ISA
