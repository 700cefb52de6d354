// Both products of a dense layer, from weights [out][in] where they lie, in any version: nothing is
// packed. Vectors hold neighbouring inputs. Forward their lanes are added at the end, backward each
// lane is a sum of its own; every value is summed in one order, whatever the rows beside it.
#include "backend.hpp"
#include "epilogue.hpp"
#include "panels.hpp"
#include "parallel.hpp"
#include "parts.hpp"
#include "version.hpp"

namespace relprop::RELPROP_ISA {
namespace {

// A tile: samples times outputs, whose sums (forward) or messages (backward) fill the registers.
constexpr int rows_at_once = tile_rows / 3, outputs_at_once = lanes == 16 ? 6 : 4;
constexpr int block_rows = 24; // samples that share one reading of the weights

// The weights that a tile reads: inputs [0, count) of neighbouring outputs.
struct Strip {
    const float *weights;
    int64_t apart; // floats between outputs
    int outputs;   // that are there
    int count;
    float shrink; // see version.hpp
};

template <int... lane>
[[gnu::always_inline]] static inline Vec numbered(std::integer_sequence<int, lane...>) {
    return Vec{lane...};
}

// The last `count` floats of a row, fewer than a vector has lanes: in its last lanes, behind zeros.
// Of a row that is a vector long all may be read that lies before them, never what lies beyond.
[[gnu::always_inline]] static inline Vec row_end(const float *p, int count, bool long_row) {
    if (long_row) {
        const Vec number = numbered(std::make_integer_sequence<int, lanes>());
        const Vec all = load(p + count - lanes);
        return number < static_cast<float>(lanes - count) ? Vec{} : all;
    }
    float some[lanes] = {};
    for (int i = 0; i < count; ++i)
        some[lanes - count + i] = p[i];
    return load(some);
}

// Kernels for every version and number of rows up to rows_at_once: `Tile<version, rows>::sum`.
template <template <Version, int> class Tile, Version version, int rows = rows_at_once>
auto of_rows(int held) {
    if constexpr (rows > 1)
        if (held < rows)
            return of_rows<Tile, version, rows - 1>(held);
    return Tile<version, rows>::sum;
}

template <template <Version, int> class Tile> auto pick(Version version, int held) {
    switch (version) {
    case Version::positive:
        return of_rows<Tile, Version::positive>(held);
    case Version::negative:
        return of_rows<Tile, Version::negative>(held);
    case Version::gamma:
        return of_rows<Tile, Version::gamma>(held);
    case Version::square:
        return of_rows<Tile, Version::square>(held);
    default:
        return of_rows<Tile, Version::plain>(held);
    }
}

// ---- forward -----------------------------------------------------------------------------------

constexpr int run = 32 * lanes; // inputs whose products are summed before the sum joins the others
constexpr int task_outputs = 3 * panel; // whole tiles, and whole panels

template <Version version, int rows> struct Forward {
    // totals[rows][outputs_at_once] += x[rows][count] @ weights, lane by lane.
    static void sum(const Strip &strip, const float *from, int64_t from_step, bool long_row,
                    Vec *totals) {
        const float *w[outputs_at_once], *x[rows];
        for (int j = 0; j < outputs_at_once; ++j) // beyond the last, it once more
            w[j] = strip.weights + smaller(j, strip.outputs - 1) * strip.apart;
        for (int m = 0; m < rows; ++m)
            x[m] = from + m * from_step;
        Vec acc[rows][outputs_at_once];
        for (int m = 0; m < rows; ++m)
            for (int j = 0; j < outputs_at_once; ++j)
                acc[m][j] = Vec{};
        const int count = strip.count;
        const float shrink = strip.shrink;
        int k = 0;
        for (; k + lanes <= count; k += lanes) {
            // so many streams of memory the machine foresees too late
            for (int j = 0; j < outputs_at_once; ++j)
                __builtin_prefetch(w[j] + k + run);
            Vec b[outputs_at_once];
            for (int j = 0; j < outputs_at_once; ++j)
                b[j] = in_version<version>(load(w[j] + k), shrink);
            for (int m = 0; m < rows; ++m) {
                const Vec a = load(x[m] + k);
                for (int j = 0; j < outputs_at_once; ++j)
                    acc[m][j] += a * b[j];
            }
        }
        if (k < count)
            for (int j = 0; j < outputs_at_once; ++j) {
                const Vec b = in_version<version>(row_end(w[j] + k, count - k, long_row), shrink);
                for (int m = 0; m < rows; ++m)
                    acc[m][j] += row_end(x[m] + k, count - k, long_row) * b;
            }
        for (int m = 0; m < rows; ++m)
            for (int j = 0; j < outputs_at_once; ++j)
                totals[m * outputs_at_once + j] += acc[m][j];
    }
};

void run_forward(const Product &p) {
    const int in = p.grid.from.channels, out = p.grid.to.channels;
    const int blocks = ceil_div(out, task_outputs);
    parallel_for((p.n + block_rows - 1) / block_rows * blocks, [&](int64_t task) {
        const int first = static_cast<int>(task % blocks) * task_outputs;
        const int count = smaller(task_outputs, out - first);
        const int64_t row = task / blocks * block_rows;
        const int rows = static_cast<int>(p.n - row < block_rows ? p.n - row : block_rows);
        float sums[block_rows * task_outputs];
        for (int o = 0; o < count; o += outputs_at_once) {
            const int held = smaller(outputs_at_once, count - o);
            Vec totals[block_rows * outputs_at_once];
            for (int i = 0; i < rows * outputs_at_once; ++i)
                totals[i] = Vec{};
            for (int k = 0; k < in; k += run)
                for (int m = 0; m < rows; m += rows_at_once)
                    for (int i = 0; i < p.sources; ++i) {
                        const auto &[data, weights, version] = p.source[i];
                        const auto sum = pick<Forward>(version, smaller(rows_at_once, rows - m));
                        sum({weights + static_cast<int64_t>(first + o) * in + k, in, held,
                             smaller(run, in - k), shrink_of(p.gamma)},
                            data + (row + m) * in + k, in, in >= lanes,
                            totals + m * outputs_at_once);
                    }
            for (int m = 0; m < rows; ++m)
                for (int j = 0; j < held; ++j)
                    sums[m * task_outputs + o + j] = horizontal(totals[m * outputs_at_once + j]);
        }
        for (int m = 0; m < rows; ++m)
            for (int c = 0; c < count; c += panel)
                epilogue_row(p.epilogue, row + m, out, first + c, smaller(panel, count - c),
                             sums + m * task_outputs + c, (first + c) / panel);
    });
}

// ---- backward ----------------------------------------------------------------------------------

constexpr int most_sums = 512; // vectors that stay in the first cache
constexpr int most_block = 64; // vectors of inputs that a task takes at most
constexpr int outputs_in_a_run = 20 * outputs_at_once; // as `run` is of inputs

// sums[rows][block] += s[rows][outputs] @ weights at input k, in one order of roundings whether
// `read` finds a whole vector or less.
template <Version version, int rows, int outputs, class Read>
[[gnu::always_inline]] inline void add_vector(const Strip &w, const Vec (&s)[rows][outputs], int k,
                                              const Read &read, Vec *sums, int block) {
    Vec sum[rows];
    for (int m = 0; m < rows; ++m)
        sum[m] = Vec{};
    for (int j = 0; j < outputs; ++j) {
        const Vec b = in_version<version>(read(w.weights + j * w.apart + k), w.shrink);
        for (int m = 0; m < rows; ++m)
            sum[m] += s[m][j] * b;
    }
    for (int m = 0; m < rows; ++m)
        sums[m * block + k / lanes] += sum[m];
}

// sums[rows][block] += s[rows][outputs] @ weights. `turns` tiles share the work of fetching the
// weights that come next, which are too far away for the machine to foresee.
template <Version version, int rows, int outputs>
[[gnu::always_inline]] inline void add_outputs(const Strip &strip, const float *from,
                                               int64_t from_step, bool long_row, int turn,
                                               int turns, Vec *sums, int block) {
    const Strip w = strip;
    Vec s[rows][outputs];
    for (int m = 0; m < rows; ++m)
        for (int j = 0; j < outputs; ++j)
            s[m][j] = Vec{} + from[m * from_step + j];
    int k = 0;
    for (; k + lanes <= w.count; k += lanes) {
        for (int j = turn; j < outputs; j += turns)
            __builtin_prefetch(w.weights + (outputs + j) * w.apart + k);
        add_vector<version, rows, outputs>(w, s, k, load, sums, block);
    }
    if (k < w.count)
        add_vector<version, rows, outputs>(
            w, s, k, [&](const float *p) { return row_end(p, w.count - k, long_row); }, sums,
            block);
}

template <Version version, int rows> struct Adjoint {
    static void sum(const Strip &strip, const float *from, int64_t from_step, bool long_row,
                    int turn, int turns, Vec *sums, int block) {
        if (strip.outputs == outputs_at_once)
            add_outputs<version, rows, outputs_at_once>(strip, from, from_step, long_row, turn,
                                                        turns, sums, block);
        else
            add_outputs<version, rows, 1>(strip, from, from_step, long_row, turn, turns, sums,
                                          block);
    }
};

void run_adjoint(const Product &p) {
    const int out = p.grid.from.channels, in = p.grid.to.channels;
    const int most = static_cast<int>(p.n < block_rows ? p.n : block_rows);
    const int block = smaller(most_sums / larger(most, 1), most_block);
    // Blocks begin where the lines of memory do, if the rows of weights do so alike.
    const int beyond =
        static_cast<int>(reinterpret_cast<uintptr_t>(p.source[0].weights) / sizeof(float) % lanes);
    const int blocks = ceil_div(in + beyond, block * lanes);
    parallel_for((p.n + block_rows - 1) / block_rows * blocks, [&](int64_t task) {
        const int begin = static_cast<int>(task % blocks) * block * lanes - beyond;
        const int first = larger(begin, 0), count = smaller(begin + block * lanes, in) - first;
        const int64_t row = task / blocks * block_rows;
        const int rows = static_cast<int>(p.n - row < block_rows ? p.n - row : block_rows);
        const bool long_row = first + count >= lanes;
        Vec totals[most_sums], sums[most_sums];
        for (int i = 0; i < rows * block; ++i)
            totals[i] = sums[i] = Vec{};
        for (int o = 0, held; o < out; o += held) {
            held = o + outputs_at_once <= out ? outputs_at_once : 1;
            for (int m = 0; m < rows; m += rows_at_once)
                for (int i = 0; i < p.sources; ++i) {
                    const auto &[data, weights, version] = p.source[i];
                    const auto sum = pick<Adjoint>(version, smaller(rows_at_once, rows - m));
                    sum({weights + static_cast<int64_t>(o) * in + first, in, held, count,
                         shrink_of(p.gamma)},
                        data + (row + m) * out + o, out, long_row,
                        rows == 1 ? outputs_at_once : m / rows_at_once,
                        ceil_div(rows, rows_at_once), sums + m * block, block);
                }
            if ((o + held) % outputs_in_a_run == 0 || o + held == out)
                for (int i = 0; i < rows * block; ++i) {
                    totals[i] += sums[i];
                    sums[i] = Vec{};
                }
        }
        for (int m = 0; m < rows; ++m)
            for (int k = 0; k < count; k += panel) {
                float of[panel] = {};
                const int held = smaller(panel, count - k);
                for (int c = 0; c < held; c += lanes) {
                    store(of + c, totals[m * block + (k + c) / lanes]);
                    const int there = held - c;
                    for (int i = 0; i < there && there < lanes; ++i) // see row_end
                        of[c + i] = of[c + lanes - there + i];
                }
                epilogue_row(p.epilogue, row + m, in, first + k, held, of, 0);
            }
    });
}

} // namespace

void dense(const Product &p, Stream) { run_parts(p, run_forward); }

void dense_adjoint(const Product &p, Stream stream) {
    Product apart = p; // blocks end elsewhere than the chunks of messages do
    apart.epilogue.sends = false;
    run_parts(apart, run_adjoint);
    if (p.epilogue.sends)
        message(p.epilogue.message, p.n, p.grid.to.channels, stream);
}

} // namespace relprop::RELPROP_ISA
