// The products of 3 x 3 layers of stride 1 by Winograd's minimal filtering (Lavin & Gray 2016):
// tiles of the source and the weights are taken to points where the convolution is a product for
// each point, 2.25 (2 x 2 outputs per tile) or 4 times (4 x 4) fewer multiplications. Each tile is
// computed alike whatever its neighbours, the batch and the number of threads.
#include "backend.hpp"
#include "epilogue.hpp"
#include "pack.hpp"
#include "panels.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

constexpr int block_panels = 8;                // panels per task
constexpr int most_tiles = 8 * tile_rows;      // per task
constexpr int64_t in_cache = int64_t{1} << 20; // floats of a task's tiles at all points

constexpr int side_of(int outputs) { return outputs + 2; }
constexpr int points_of(int outputs) { return side_of(outputs) * side_of(outputs); }

// The points of F(4, 3) beside 0 and infinity are +-p and +-1/p: with p = sqrt(1/2) rounding is
// half of what the customary +-1 and +-2 give.
constexpr float p = 0.70710678f, q = 1.41421356f;

// A row of a tile at the points: B^T d.
template <int outputs>
[[gnu::always_inline]] inline void to_points(const Vec (&d)[side_of(outputs)],
                                             Vec (&t)[side_of(outputs)]) {
    if constexpr (outputs == 2) {
        t[0] = d[0] - d[2];
        t[1] = d[1] + d[2];
        t[2] = d[2] - d[1];
        t[3] = d[1] - d[3];
    } else {
        const Vec even_p = d[4] - 2.0f * d[2], odd_p = p * (d[3] - 2.0f * d[1]);
        const Vec even_q = d[4] - 0.5f * d[2], odd_q = q * (d[3] - 0.5f * d[1]);
        t[0] = d[0] - 2.5f * d[2] + d[4];
        t[1] = even_p + odd_p;
        t[2] = even_p - odd_p;
        t[3] = even_q + odd_q;
        t[4] = even_q - odd_q;
        t[5] = d[1] - 2.5f * d[3] + d[5];
    }
}

// The outputs from the products at the points: A^T t.
template <int outputs>
[[gnu::always_inline]] inline void from_points(const Vec (&t)[side_of(outputs)],
                                               Vec (&y)[outputs]) {
    if constexpr (outputs == 2) {
        y[0] = t[0] + t[1] + t[2];
        y[1] = t[1] - t[2] - t[3];
    } else {
        const Vec even_p = t[1] + t[2], odd_p = p * (t[1] - t[2]);
        const Vec even_q = t[3] + t[4], odd_q = q * (t[3] - t[4]);
        y[0] = t[0] + even_p + even_q;
        y[1] = odd_p + odd_q;
        y[2] = 0.5f * even_p + 2.0f * even_q;
        y[3] = 0.5f * odd_p + 2.0f * odd_q + t[5];
    }
}

// Half a vector of weights, in double precision.
constexpr int half = lanes / 2;
typedef double Half __attribute__((vector_size(half * 8)));
typedef float HalfVec __attribute__((vector_size(half * 4), aligned(4), may_alias));

[[gnu::always_inline]] inline Half widened(const float *from) {
    return __builtin_convertvector(*reinterpret_cast<const HalfVec *>(from), Half);
}
[[gnu::always_inline]] inline void store_narrowed(float *to, Half v) {
    *reinterpret_cast<HalfVec *>(to) = __builtin_convertvector(v, HalfVec);
}

// Weights at the points: G g.
template <int outputs>
[[gnu::always_inline]] inline void weights_to_points(const Half (&g)[3],
                                                     Half (&t)[side_of(outputs)]) {
    if constexpr (outputs == 2) {
        t[0] = g[0];
        t[1] = 0.5 * (g[0] + g[1] + g[2]);
        t[2] = 0.5 * (g[0] - g[1] + g[2]);
        t[3] = g[2];
    } else {
        const Half at_p = g[1] * static_cast<double>(p), at_q = g[1] * static_cast<double>(q);
        t[0] = g[0];
        t[1] = (g[0] + at_p + 0.5 * g[2]) / -1.5;
        t[2] = (g[0] - at_p + 0.5 * g[2]) / -1.5;
        t[3] = (g[0] + at_q + 2.0 * g[2]) / 6.0;
        t[4] = (g[0] - at_q + 2.0 * g[2]) / 6.0;
        t[5] = g[2];
    }
}

// Memory that a thread keeps for its tasks, so that none waits for the system's pages.
struct Scratch {
    float *data = nullptr;
    int64_t size = 0;

    float *take(int64_t floats) {
        if (floats > size) {
            delete[] data;
            data = new float[floats + 16];
            size = floats;
        }
        const auto at = reinterpret_cast<uintptr_t>(data);
        return data + (64 - at % 64) % 64 / sizeof(float);
    }
    ~Scratch() { delete[] data; }
};
thread_local Scratch scratch;

// Whether any of these floats is not zero. The first mostly is, if any is.
bool any_of(const float *values, int count) {
    for (int i = 0; i < count; ++i)
        if (!(values[i] == 0.0f)) // NaN is not
            return true;
    return false;
}

// Everything about a product that all its tasks share.
template <int outputs> struct Layer {
    static constexpr int side = side_of(outputs), points = points_of(outputs);
    const Product &of;
    int tiles_y, tiles_x;
    int64_t tiles;    // of the whole batch
    int stride;       // floats between the tiles of a point: whole vectors of channels
    int panel_blocks; // that a block of tiles is worked on for, each by a task
    int per_task;     // tiles

    explicit Layer(const Product &product)
        : of(product), tiles_y(ceil_div(product.grid.size.y, outputs)),
          tiles_x(ceil_div(product.grid.size.x, outputs)), tiles(product.n * tiles_y * tiles_x),
          stride(ceil_div(product.run, lanes) * lanes),
          panel_blocks(ceil_div(panels_of(product.grid.to.channels), block_panels)) {
        const int64_t fits = in_cache / (points * (product.sources * stride + panel));
        const int most = larger(tile_rows, smaller(static_cast<int>(fits), most_tiles));
        // As many tiles in each task, and as many tasks for each thread.
        const int64_t blocks = (tiles + most - 1) / most;
        const int64_t tasks = (blocks * panel_blocks + threads() - 1) / threads() * threads();
        const int64_t even = (tiles * panel_blocks + tasks - 1) / tasks;
        per_task = larger(static_cast<int>(even), tiles < tile_rows ? 1 : tile_rows);
    }

    struct At {
        int64_t n;
        int y, x; // first output
    };
    At tile_at(int64_t tile) const {
        const int64_t row = tile / tiles_x;
        return {row / tiles_y, static_cast<int>(row % tiles_y) * outputs,
                static_cast<int>(tile % tiles_x) * outputs};
    }

    // The pixels that one output reads, as bits of a tile's.
    static constexpr uint64_t window = uint64_t{7} | uint64_t{7} << side | uint64_t{7} << 2 * side;

    // One tile of a source at all points, every `apart` floats. Returns which of its pixels are not
    // zero, as bits.
    uint64_t tile_to_points(const float *source, const At &tile, float *out, int64_t apart) const {
        const Image &from = of.grid.from;
        const float *pixel[side][side];
        uint64_t lives = 0;
        for (int y = 0; y < side; ++y)
            for (int x = 0; x < side; ++x) {
                const int sy = tile.y + of.grid.taps[0].y + y, sx = tile.x + of.grid.taps[0].x + x;
                const bool real = sy >= 0 && sy < from.height && sx >= 0 && sx < from.width;
                pixel[y][x] =
                    real ? source + row_of(from, tile.n, {0, sy, sx}) * from.channels : of.zeros;
                lives |= uint64_t{real && any_of(pixel[y][x], of.run)} << (y * side + x);
            }
        for (int c = 0; c < stride; c += lanes) {
            Vec d[side][side];
            const int held = smaller(lanes, of.run - c);
            for (int x = 0; x < side; ++x) {
                Vec column[side], at[side];
                for (int y = 0; y < side; ++y)
                    column[y] = load_some(pixel[y][x] + c, held);
                to_points<outputs>(column, at);
                for (int y = 0; y < side; ++y)
                    d[y][x] = at[y];
            }
            for (int y = 0; y < side; ++y) {
                Vec at[side];
                to_points<outputs>(d[y], at);
                for (int x = 0; x < side; ++x)
                    store(out + (y * side + x) * apart + c, at[x]);
            }
        }
        return lives;
    }

    // Channels [channel, channel + count) of a tile's outputs from its products at the points. Who
    // reads nothing but zeros has exactly zero, not what its neighbours' rounding leaves.
    void finish(const At &tile, uint64_t lives, const float *products, int64_t apart, int channel,
                int count, int64_t chunk) const {
        alignas(64) static constexpr float nothing[panel] = {};
        alignas(64) float sums[outputs][outputs][panel];
        for (int v = 0; v < panel; v += lanes) {
            Vec d[outputs][side];
            for (int x = 0; x < side; ++x) {
                Vec column[side], y[outputs];
                for (int i = 0; i < side; ++i)
                    column[i] = load(products + (i * side + x) * apart + v);
                from_points<outputs>(column, y);
                for (int i = 0; i < outputs; ++i)
                    d[i][x] = y[i];
            }
            for (int i = 0; i < outputs; ++i) {
                Vec y[outputs];
                from_points<outputs>(d[i], y);
                for (int x = 0; x < outputs; ++x)
                    store(&sums[i][x][v], y[x]);
            }
        }
        for (int y = 0; y < smaller(outputs, of.grid.size.y - tile.y); ++y)
            for (int x = 0; x < smaller(outputs, of.grid.size.x - tile.x); ++x)
                epilogue_row(of.epilogue, row_of(of.grid.to, tile.n, {0, tile.y + y, tile.x + x}),
                             of.grid.to.channels, channel, count,
                             lives >> (y * side + x) & window ? sums[y][x] : nothing, chunk);
    }
};

// out[rows][panel] (+)= v[rows][depth] @ weights[depth][vectors * lanes]
template <int rows, int vectors>
void multiply(const float *v, int stride, const float *weights, int depth, float *out, bool add) {
    for (int first = 0; first < depth; first += longest_run) {
        const int last = smaller(depth, first + longest_run);
        Vec acc[rows][vectors] = {};
        for (int k = first; k < last; ++k) {
            Vec b[vectors];
            for (int i = 0; i < vectors; ++i)
                b[i] = load(weights + (k * vectors + i) * lanes);
            for (int m = 0; m < rows; ++m)
                for (int i = 0; i < vectors; ++i)
                    acc[m][i] += v[m * stride + k] * b[i];
        }
        for (int m = 0; m < rows; ++m)
            for (int i = 0; i < vectors; ++i) {
                float *to = out + m * panel + i * lanes;
                store(to, add ? load(to) + acc[m][i] : acc[m][i]);
            }
        add = true;
    }
}

using Multiply = void (*)(const float *, int, const float *, int, float *, bool);

// For just so many rows: what a layer's tiles leave of the last group would cost as much as a
// whole.
template <int vectors, int rows = tile_rows> Multiply pick(int held) {
    if constexpr (rows > 1)
        if (held < rows)
            return pick<vectors, rows - 1>(held);
    return multiply<rows, vectors>;
}

template <int outputs> void run(const Product &of) {
    const Layer<outputs> layer(of);
    constexpr int points = points_of(outputs);
    const int out = of.grid.to.channels, panels = panels_of(out);
    const int panel_blocks = layer.panel_blocks;
    const int64_t blocks = (layer.tiles + layer.per_task - 1) / layer.per_task;
    const int64_t apart = static_cast<int64_t>(layer.per_task) * layer.stride;
    const int64_t per_source = points * apart;
    const int64_t products_apart = static_cast<int64_t>(layer.per_task) * panel;

    parallel_for(blocks * panel_blocks, [&](int64_t task) {
        const int64_t first = task / panel_blocks * layer.per_task;
        const int first_panel = static_cast<int>(task % panel_blocks) * block_panels;
        const int held = static_cast<int>(layer.tiles - first < layer.per_task ? layer.tiles - first
                                                                               : layer.per_task);
        // rows of the products, as even as can be
        const int step = ceil_div(held, ceil_div(held, tile_rows));
        float *at_points = scratch.take(of.sources * per_source + points * products_apart);
        float *products = at_points + of.sources * per_source;
        uint64_t lives[most_tiles] = {};
        for (int s = 0; s < of.sources; ++s)
            for (int t = 0; t < held; ++t)
                lives[t] |=
                    layer.tile_to_points(of.source[s].data, layer.tile_at(first + t),
                                         at_points + s * per_source + t * layer.stride, apart);
        for (int at = first_panel; at < smaller(first_panel + block_panels, panels); ++at) {
            const int width = width_of(out, at);
            const int64_t per_point = static_cast<int64_t>(of.run) * width;
            for (int point = 0; point < points; ++point)
                for (int t = 0; t < held; t += step) {
                    const int rows = smaller(step, held - t);
                    const Multiply multiply = width == panel ? pick<2>(rows) : pick<1>(rows);
                    for (int s = 0; s < of.sources; ++s)
                        multiply(at_points + s * per_source + point * apart + t * layer.stride,
                                 layer.stride,
                                 of.source[s].weights +
                                     static_cast<int64_t>(at) * points * of.run * panel +
                                     point * per_point,
                                 of.run, products + point * products_apart + t * panel, s > 0);
                }
            for (int t = 0; t < held; ++t)
                layer.finish(layer.tile_at(first + t), lives[t], products + t * panel,
                             products_apart, at * panel, smaller(panel, out - at * panel), at);
        }
    });
}

template <int outputs> int64_t pack(const Packing &of, const float *weights, float *packed) {
    constexpr int side = side_of(outputs), points = points_of(outputs);
    const int panels = panels_of(of.out);
    const int64_t floats = static_cast<int64_t>(points) * of.run *
                           ((panels - 1) * panel + width_of(of.out, panels - 1));
    if (!packed)
        return floats;
    parallel_for(panels, [&](int64_t at) {
        const int width = width_of(of.out, static_cast<int>(at));
        float *to = packed + at * points * of.run * panel;
        for (int first = 0; first < of.run; first += laid_at_once) {
            float laid[9][laid_at_once * panel];
            const int held = smaller(laid_at_once, of.run - first);
            lay_weights(of, weights, 0, first, held, static_cast<int>(at) * panel, width, laid[0],
                        laid_at_once * panel);
            for (int i = 0; i < held * width; i += half) {
                Half across[3][side], full[side];
                for (int x = 0; x < 3; ++x) {
                    const Half g[3] = {widened(laid[x] + i), widened(laid[3 + x] + i),
                                       widened(laid[6 + x] + i)};
                    weights_to_points<outputs>(g, across[x]);
                }
                for (int y = 0; y < side; ++y) {
                    const Half g[3] = {across[0][y], across[1][y], across[2][y]};
                    weights_to_points<outputs>(g, full);
                    for (int x = 0; x < side; ++x)
                        store_narrowed(to + (y * side + x) * static_cast<int64_t>(of.run) * width +
                                           static_cast<int64_t>(first) * width + i,
                                       full[x]);
                }
            }
        }
    });
    return floats;
}

} // namespace

// A product costs its multiplications and, once for all the tiles of an image, its weights coming
// from memory, which take as long as `streaming` tiles. The factors are what the transforms cost.
int winograd_outputs(const TapGrid &grid, int run) {
    if (grid.tap_count != 9) // where the stride leaves pixels out there is none
        return 0;
    const Pixel &a = grid.taps[0], &b = grid.taps[8];
    const auto ones = [](const Pixel &step) { return step.z == 1 && step.y == 1 && step.x == 1; };
    if (b.z != a.z || b.y - a.y != 2 || b.x - a.x != 2 || a.z != 0 || grid.groups != 1 ||
        grid.from.depth != 1 || grid.to.depth != 1 || !ones(grid.step) || !ones(grid.out_step))
        return 0;
    if (wanted_winograd() >= 0)
        return wanted_winograd();
    if (run < panel || grid.to.channels < lanes)
        return 0;
    const auto cost = [&](int outputs, int products, double transforms) {
        const double tiles =
            static_cast<double>(ceil_div(grid.size.y, outputs)) * ceil_div(grid.size.x, outputs);
        constexpr double streaming = 32;
        return products * (tiles * transforms + streaming);
    };
    const double plain = cost(1, 9, 1.0), two = cost(2, points_of(2), 1.4),
                 four = cost(4, points_of(4), 2.0);
    if (plain < two && plain < four)
        return 0;
    return two < four ? 2 : 4;
}

void winograd(const Product &of, int outputs, Stream) { outputs == 2 ? run<2>(of) : run<4>(of); }

int64_t winograd_pack(const Packing &of, int outputs, const float *weights, float *packed) {
    return outputs == 2 ? pack<2>(of, weights, packed) : pack<4>(of, weights, packed);
}

} // namespace relprop::RELPROP_ISA
