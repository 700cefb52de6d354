// The two products of every linear layer (see Product in kernels.hpp), as an implicit matrix
// product: a tile of tile_rows pixels times one panel of channels stays in registers over the
// whole summed dimension, so each value is summed in one fixed order whatever the batch, the
// tiling or the number of threads. Pixels are read in place, through a table of tap offsets.
#include "backend.hpp"
#include "epilogue.hpp"
#include "narrow.hpp"
#include "panels.hpp"
#include "parallel.hpp"
#include "parts.hpp"

namespace relprop::RELPROP_ISA {
namespace {

constexpr int block_rows = tile_rows * 16; // pixels per task at most: they share a table of places
constexpr int block_panels = 8;            // panels per task at most
constexpr int64_t outside = -1;

// Whether every pixel of the grid reads its own place alone and writes it: 1 x 1 layers.
bool same_places(const TapGrid &grid) {
    const auto same = [](int from, int size, int to, int step, int out_step, int tap, int out) {
        return from == size && to == size && step == 1 && out_step == 1 && tap == 0 && out == 0;
    };
    if (grid.tap_count != 1)
        return false;
    const Pixel &tap = grid.taps[0], &step = grid.step, &apart = grid.out_step, &out = grid.out;
    return same(grid.from.depth, grid.size.z, grid.to.depth, step.z, apart.z, tap.z, out.z) &&
           same(grid.from.height, grid.size.y, grid.to.height, step.y, apart.y, tap.y, out.y) &&
           same(grid.from.width, grid.size.x, grid.to.width, step.x, apart.x, tap.x, out.x);
}

// Where up to block_rows pixels read and write: offsets into the source of every tap,
// [tiles][tap_count][tile_rows], and rows of the destination.
struct Places {
    int64_t *taps;
    int64_t row[block_rows];

    Places(const TapGrid &grid, int64_t first, int rows) {
        const int tiles = ceil_div(rows, tile_rows);
        taps = new int64_t[static_cast<int64_t>(tiles) * grid.tap_count * tile_rows];
        if (same_places(grid)) {
            for (int i = 0; i < tiles * tile_rows; ++i) {
                row[i] = first + smaller(i, rows - 1);
                taps[i] = row[i] * grid.from.channels;
            }
            return;
        }
        auto [n, at, _] = place_at(first, {grid.size.z, grid.size.y, grid.size.x, 1});
        for (int i = 0; i < tiles * tile_rows; ++i) {
            row[i] = row_of(grid.to, n, moved(at, grid.out_step, grid.out));
            int64_t *out = taps + (i / tile_rows) * grid.tap_count * tile_rows + i % tile_rows;
            for (int t = 0; t < grid.tap_count; ++t, out += tile_rows) {
                const Pixel from = moved(at, grid.step, grid.taps[t]);
                *out = inside(grid.from, from) ? row_of(grid.from, n, from) * grid.from.channels
                                               : outside;
            }
            // places beyond the last pixel repeat it; their results are not stored
            if (i + 1 < rows && ++at.x == grid.size.x) {
                at.x = 0;
                if (++at.y == grid.size.y) {
                    at.y = 0;
                    if (++at.z == grid.size.z) {
                        at.z = 0;
                        ++n;
                    }
                }
            }
        }
    }
    ~Places() { delete[] taps; }
    Places(const Places &) = delete;
    Places &operator=(const Places &) = delete;
};

// sums[rows][panel] = or += acc, which starts anew.
template <int rows, int vectors>
[[gnu::always_inline]] inline void collect(float *sums, bool add, Vec (&acc)[rows][vectors]) {
    for (int m = 0; m < rows; ++m)
        for (int v = 0; v < vectors; ++v) {
            float *sum = sums + m * panel + v * lanes;
            store(sum, add ? load(sum) + acc[m][v] : acc[m][v]);
            acc[m][v] = Vec{};
        }
}

// rows x (vectors * lanes) sums over all sources and taps, written to sums[rows][panel].
template <int rows, int vectors>
void tile(const Product &p, const int64_t *offsets, int64_t channel, const float *const *weights,
          float *sums) {
    Vec acc[rows][vectors];
    for (int m = 0; m < rows; ++m)
        for (int v = 0; v < vectors; ++v)
            acc[m][v] = Vec{};
    bool begun = false;
    int left = longest_run;
    for (int s = 0; s < p.sources; ++s) {
        const float *w = weights[s];
        const float *data = p.source[s].data + channel;
        for (int t = 0; t < p.grid.tap_count; ++t) {
            const float *a[rows];
            for (int m = 0; m < rows; ++m) {
                const int64_t offset = offsets[t * tile_rows + m];
                a[m] = offset == outside ? p.zeros : data + offset;
            }
            for (int k = 0; k < p.run;) {
                const int stop = smaller(p.run, k + left);
                left -= stop - k;
                for (; k < stop; ++k, w += vectors * lanes) {
                    Vec b[vectors];
                    for (int v = 0; v < vectors; ++v)
                        b[v] = load(w + v * lanes);
                    for (int m = 0; m < rows; ++m)
                        for (int v = 0; v < vectors; ++v)
                            acc[m][v] += a[m][k] * b[v];
                }
                if (left == 0) {
                    collect<rows, vectors>(sums, begun, acc);
                    begun = true;
                    left = longest_run;
                }
            }
        }
    }
    if (!begun || left < longest_run)
        collect<rows, vectors>(sums, begun, acc);
}

// The same where each weight meets one of two sources, chosen by its sign: one multiplication for
// both.
template <int rows, int vectors>
void selecting_tile(const Product &p, const int64_t *offsets, int64_t channel,
                    const float *const *weights, float *sums) {
    Vec acc[rows][vectors] = {};
    bool begun = false;
    int left = longest_run;
    const float *w = weights[0];
    for (int t = 0; t < p.grid.tap_count; ++t) {
        const float *pos[rows], *neg[rows];
        for (int m = 0; m < rows; ++m) {
            const int64_t offset = offsets[t * tile_rows + m];
            pos[m] = offset == outside ? p.zeros : p.source[0].data + channel + offset;
            neg[m] = offset == outside ? p.zeros : p.source[1].data + channel + offset;
        }
        for (int k = 0; k < p.run;) {
            const int stop = smaller(p.run, k + left);
            left -= stop - k;
            for (; k < stop; ++k, w += vectors * lanes) {
                Vec b[vectors];
                for (int v = 0; v < vectors; ++v)
                    b[v] = load(w + v * lanes);
                for (int m = 0; m < rows; ++m) {
                    const Vec of_pos = broadcast(pos[m][k]), of_neg = broadcast(neg[m][k]);
                    for (int v = 0; v < vectors; ++v)
                        acc[m][v] += by_sign_of(b[v], of_pos, of_neg) * b[v];
                }
            }
            if (left == 0) {
                collect<rows, vectors>(sums, begun, acc);
                begun = true;
                left = longest_run;
            }
        }
    }
    if (!begun || left < longest_run)
        collect<rows, vectors>(sums, begun, acc);
}

// The same for depthwise layers: every channel has its own input, weights are [tap][channels].
template <int rows, int vectors>
void depthwise_tile(const Product &p, const int64_t *offsets, int64_t channel,
                    const float *const *weights, float *sums) {
    Vec acc[rows][vectors] = {};
    const int64_t stride = static_cast<int64_t>(ceil_div(p.grid.to.channels, panel)) * panel;
    for (int s = 0; s < p.sources; ++s) {
        const float *w = weights[s];
        const float *data = p.source[s].data + channel;
        for (int t = 0; t < p.grid.tap_count; ++t, w += stride) {
            for (int m = 0; m < rows; ++m) {
                const int64_t offset = offsets[t * tile_rows + m];
                const float *a = offset == outside ? p.zeros : data + offset;
                for (int v = 0; v < vectors; ++v)
                    acc[m][v] += load(a + v * lanes) * load(w + v * lanes);
            }
        }
    }
    for (int m = 0; m < rows; ++m)
        for (int v = 0; v < vectors; ++v)
            store(sums + m * panel + v * lanes, acc[m][v]);
}

using Tile = void (*)(const Product &, const int64_t *, int64_t, const float *const *, float *);

enum class Kind { dense, selecting, depthwise };

template <int rows> Tile pick(Kind kind, bool wide) {
    switch (kind) {
    case Kind::selecting:
        return wide ? selecting_tile<rows, 2> : selecting_tile<rows, 1>;
    case Kind::depthwise:
        return wide ? depthwise_tile<rows, 2> : depthwise_tile<rows, 1>;
    default:
        return wide ? tile<rows, 2> : tile<rows, 1>;
    }
}

// The smallest compiled tile that holds `rows` pixels.
Tile pick_tile(int rows, Kind kind, bool wide) {
    if (rows <= 1)
        return pick<1>(kind, wide);
    if (rows <= tile_rows / 4)
        return pick<tile_rows / 4>(kind, wide);
    if (rows <= tile_rows / 2)
        return pick<tile_rows / 2>(kind, wide);
    if (rows <= tile_rows * 3 / 4)
        return pick<tile_rows * 3 / 4>(kind, wide);
    return pick<tile_rows>(kind, wide);
}

// How a product is cut into tasks: as even as can be, for the thread that works longest to have the
// least to do. No value depends on it.
struct Cut {
    int64_t rows;
    int panels;

    Cut(int64_t pixels, int groups, int all_panels) {
        const int64_t tiles = (pixels + tile_rows - 1) / tile_rows, all = threads();
        const int64_t few_blocks = (pixels + block_rows - 1) / block_rows;
        const int few_cuts = ceil_div(all_panels, block_panels);
        double least = 0.0;
        for (int64_t blocks = few_blocks; blocks < few_blocks + all && blocks <= tiles; ++blocks)
            for (int cuts = few_cuts; cuts < few_cuts + 2 * all && cuts <= all_panels; ++cuts) {
                const int64_t of_block = (tiles + blocks - 1) / blocks;
                const int of_cut = ceil_div(all_panels, cuts);
                const int64_t turns = (blocks * groups * cuts + all - 1) / all;
                constexpr double places = 0.5; // what finding them costs, in panels
                const double cost = static_cast<double>(turns * of_block) * (of_cut + places);
                if (least == 0.0 || cost < least) {
                    least = cost;
                    rows = of_block * tile_rows;
                    panels = of_cut;
                }
            }
    }
};

void run_product(const Product &p, Kind kind) {
    const bool depthwise = kind == Kind::depthwise;
    const int groups = depthwise ? 1 : p.grid.groups;
    const int out = p.grid.to.channels / groups;
    const int panels = panels_of(out);
    const int64_t pixels = p.n * p.grid.size.z * p.grid.size.y * p.grid.size.x;
    if (pixels == 0)
        return;
    const Cut cut(pixels, groups, panels);
    const int64_t blocks = (pixels + cut.rows - 1) / cut.rows;
    const int panel_blocks = ceil_div(panels, cut.panels);
    const int64_t per_panel = static_cast<int64_t>(p.grid.tap_count) * p.run * panel;
    const int64_t per_group = static_cast<int64_t>(p.grid.tap_count) * p.run *
                              ((panels - 1) * panel + width_of(out, panels - 1));

    parallel_for(blocks * groups * panel_blocks, [&](int64_t task) {
        const int panel_block = static_cast<int>(task % panel_blocks);
        const int group = static_cast<int>(task / panel_blocks % groups);
        const int64_t first = task / panel_blocks / groups * cut.rows;
        const int rows = static_cast<int>(pixels - first < cut.rows ? pixels - first : cut.rows);
        const Places places(p.grid, first, rows);
        alignas(64) float sums[tile_rows * panel];
        const int last_panel = smaller((panel_block + 1) * cut.panels, panels);
        for (int q = panel_block * cut.panels; q < last_panel; ++q) {
            const int count = smaller(panel, out - q * panel);
            const bool wide = width_of(out, q) == panel;
            const float *weights[2];
            int64_t channel;
            for (int s = 0; s < p.sources; ++s)
                weights[s] = depthwise ? p.source[s].weights + q * panel
                                       : p.source[s].weights + group * per_group + q * per_panel;
            if (depthwise)
                channel = q * panel;
            else
                channel = static_cast<int64_t>(group) * (p.grid.from.channels / groups);
            for (int row = 0; row < rows; row += tile_rows) {
                const int held = smaller(tile_rows, rows - row);
                for (int m = 0; m < held; ++m)
                    fetch_row(p.epilogue, places.row[row + m], p.grid.to.channels,
                              group * out + q * panel);
                pick_tile(held, kind,
                          wide)(p, places.taps + static_cast<int64_t>(row) * p.grid.tap_count,
                                channel, weights, sums);
                for (int m = 0; m < held; ++m)
                    epilogue_row(p.epilogue, places.row[row + m], p.grid.to.channels,
                                 group * out + q * panel, count, sums + m * panel,
                                 static_cast<int64_t>(group) * panels + q);
            }
        }
    });
}

} // namespace

void product(const Product &p, Stream) {
    if (is_narrow(p.grid.groups, p.run, p.grid.to.channels))
        narrow(p);
    else
        run_parts(p, [](const Product &part) {
            run_product(part, part.selects ? Kind::selecting : Kind::dense);
        });
}

// A thread has the sums of whole products.
int64_t product_scratch(const Product &) { return 0; }

// Selections and multiply-adds run side by side in registers of 16 lanes on a Zen 5 (1.35 products
// for the two), take turns on an Intel, and cost more than a second product in registers of 8.
bool selects(const TapGrid &grid, int run) {
    return lanes == 16 && wanted_winograd() != 0 && !is_narrow(grid.groups, run, grid.to.channels);
}

void depthwise(const Product &p, Stream) {
    run_parts(p, [](const Product &part) { run_product(part, Kind::depthwise); });
}

} // namespace relprop::RELPROP_ISA
