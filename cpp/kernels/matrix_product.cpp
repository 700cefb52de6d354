// Products of two matrices that are both values, as attention has them: panels of the second are
// packed, a tile of tile_rows rows and one panel of columns stays in registers. Each value is
// summed in one order whatever the number of threads.
#include "backend.hpp"
#include "panels.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

constexpr int block_rows = tile_rows * 16; // of a task, which packs for itself

// Columns [first, first + panel) of b, zeros beyond the last: packed[depth][panel].
void pack_columns(const MatrixProduct &p, const float *b, int first, float *packed) {
    const int64_t down = p.b_turned ? 1 : p.columns, across = p.b_turned ? p.depth : 1;
    const int count = smaller(panel, p.columns - first);
    for (int k = 0; k < p.depth; ++k)
        for (int j = 0; j < panel; ++j)
            packed[k * panel + j] = j < count ? b[k * down + (first + j) * across] : 0.0f;
}

// tile_rows rows of a, where they begin in `rows` and `step` apart along the depth, by a packed
// panel: sums[tile_rows][panel].
void tile(const float *const *rows, int64_t step, int depth, const float *packed, float *sums) {
    for (int begun = 0; begun < depth; begun += longest_run) {
        const int stop = smaller(depth, begun + longest_run);
        Vec acc[tile_rows][2] = {};
        for (int k = begun; k < stop; ++k) {
            const Vec left = load(packed + k * panel), right = load(packed + k * panel + lanes);
            for (int m = 0; m < tile_rows; ++m) {
                acc[m][0] += rows[m][k * step] * left;
                acc[m][1] += rows[m][k * step] * right;
            }
        }
        for (int m = 0; m < tile_rows; ++m)
            for (int v = 0; v < 2; ++v) {
                float *sum = sums + m * panel + v * lanes;
                store(sum, begun > 0 ? load(sum) + acc[m][v] : acc[m][v]);
            }
    }
}

void finish(const MatrixProduct &p, const float *sums, int64_t at, int count) {
    for (int j = 0; j < count; ++j) {
        const float sum = p.factor * sums[j];
        const float value = p.times ? p.times[at + j] * sum : sum;
        p.out[at + j] = p.add ? p.out[at + j] + value : value;
    }
}

} // namespace

void matrix_product(const MatrixProduct &p, Stream) {
    const int64_t blocks = ceil_div(p.rows, block_rows);
    parallel_for(p.count * blocks, [&](int64_t task) {
        const int64_t matrix = task / blocks;
        const int begin = static_cast<int>(task % blocks) * block_rows;
        const int end = smaller(p.rows, begin + block_rows);
        const float *a = p.a + matrix * p.rows * p.depth;
        const float *b = p.b + matrix * p.depth * p.columns;
        const int64_t down = p.a_turned ? 1 : p.depth, step = p.a_turned ? p.rows : 1;
        float *packed = new float[static_cast<int64_t>(p.depth) * panel];
        float sums[tile_rows * panel];
        for (int first = 0; first < p.columns; first += panel) {
            pack_columns(p, b, first, packed);
            for (int row = begin; row < end; row += tile_rows) {
                const float *rows[tile_rows]; // those beyond the last repeat it
                for (int m = 0; m < tile_rows; ++m)
                    rows[m] = a + smaller(row + m, end - 1) * down;
                tile(rows, step, p.depth, packed, sums);
                for (int m = 0; m < smaller(tile_rows, end - row); ++m)
                    finish(p, sums + m * panel, (matrix * p.rows + row + m) * p.columns + first,
                           smaller(panel, p.columns - first));
            }
        }
        delete[] packed;
    });
}

} // namespace relprop::RELPROP_ISA
