// Products of two matrices that are both values, as attention has them, in float32 whatever the
// precision of the layers' products: a block computes a tile of one product, from slices of both
// factors in shared memory. A value is summed in one order whatever the tile.
#include "backend.cuh"
#include "lanes.cuh"
#include "launch.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

constexpr int product_threads = 128;
constexpr int thread_rows = 8, thread_columns = 16; // as which they lie in a tile
constexpr int slice = 16;                           // of the depth
constexpr int enough = 2;        // tiles of a multiprocessor; smaller ones where there are fewer
constexpr int longest_run = 128; // products summed in a row, as on the host (panels.hpp)
static_assert(longest_run % slice == 0);

struct Tiles {
    MatrixProduct p;
    Divisor across, of_matrix; // how many there are
};

// A thread's places in the slices of one factor, which lie [slice][room] in shared memory: element
// i is `apart` floats behind the one before, `step` places further along the tile's side and `deep`
// along the depth. Threads next to each other read neighbours in memory.
template <int side> struct Slices {
    static constexpr int room = side + 4; // so that columns do not meet in the same banks
    static constexpr int each = side * slice / product_threads;

    const float *at;
    int64_t apart, next; // next: to the following slice
    int place, step, places;
    int depth, deep;
    float fetched[each];

    // The factor is [places][depth] or, `turned`, [depth][places], from place `first` on.
    __device__ Slices(const float *factor, int all_places, int all_depth, bool turned, int first)
        : places(all_places - first) {
        const int thread = static_cast<int>(threadIdx.x);
        const int64_t by_place = turned ? 1 : all_depth, by_depth = turned ? all_places : 1;
        place = turned ? thread % side : thread / slice;
        depth = turned ? thread / side : thread % slice;
        step = turned ? 0 : product_threads / slice;
        deep = turned ? product_threads / side : 0;
        at = factor + (first + place) * by_place + depth * by_depth;
        apart = step * by_place + deep * by_depth;
        next = slice * by_depth;
    }
    // What is left of the depth: 0 beyond it.
    __device__ __forceinline__ void fetch(int left) {
#pragma unroll
        for (int i = 0; i < each; ++i)
            fetched[i] =
                place + i * step < places && depth + i * deep < left ? at[i * apart] : 0.0f;
        at += next;
    }
    __device__ __forceinline__ void put(float *shared) const {
#pragma unroll
        for (int i = 0; i < each; ++i)
            shared[(depth + i * deep) * room + place + i * step] = fetched[i];
    }
};

// A thread's share of a tile.
template <int rows, int columns> struct Sums {
    float at[rows][columns] = {};
};

// Adds the products of one slice.
template <int rows, int columns>
__device__ __forceinline__ void multiply(const float *a, const float *b, int row, int column,
                                         Sums<rows, columns> &sums) {
    constexpr int a_room = Slices<rows * thread_rows>::room;
    constexpr int b_room = Slices<columns * thread_columns>::room;
#pragma unroll
    for (int k = 0; k < slice; ++k) {
        Lanes<4> of_a[rows / 4];
#pragma unroll
        for (int i = 0; i < rows / 4; ++i)
            of_a[i] = load<4>(a + k * a_room + row + 4 * i);
        const Lanes<columns> of_b = load<columns>(b + k * b_room + column);
#pragma unroll
        for (int i = 0; i < rows; ++i)
#pragma unroll
            for (int j = 0; j < columns; ++j)
                sums.at[i][j] = fmaf(of_a[i / 4].at[i % 4], of_b.at[j], sums.at[i][j]);
    }
}

// rows x columns of each thread.
template <int rows, int columns>
__global__ void __launch_bounds__(product_threads)
    matrix_product_kernel(const __grid_constant__ Tiles of) {
    constexpr int tile_rows = rows * thread_rows, tile_columns = columns * thread_columns;
    using A = Slices<tile_rows>;
    using B = Slices<tile_columns>;
    constexpr int of_slices = slice * (A::room + B::room), of_tile = tile_rows * B::room;
    __shared__ __align__(16) float shared[of_slices > of_tile ? of_slices : of_tile];
    float *const shared_a = shared, *const shared_b = shared + slice * A::room;

    const MatrixProduct &p = of.p;
    const int64_t matrix = divided(blockIdx.x, of.of_matrix);
    const int64_t tile = blockIdx.x - matrix * of.of_matrix.by, down = divided(tile, of.across);
    const int first_row = static_cast<int>(down) * tile_rows;
    const int first_column = static_cast<int>(tile - down * of.across.by) * tile_columns;
    A a(p.a + matrix * p.rows * p.depth, p.rows, p.depth, p.a_turned, first_row);
    B b(p.b + matrix * p.depth * p.columns, p.columns, p.depth, !p.b_turned, first_column);

    // A warp's threads lie 4 x 8, so that few of them read different banks at once.
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const int row = (warp / 2 * 4 + lane / 8) * rows, column = (warp % 2 * 8 + lane % 8) * columns;
    Sums<rows, columns> sums, run;
    a.fetch(p.depth);
    b.fetch(p.depth);
    for (int begun = 0; begun < p.depth; begun += slice) {
        a.put(shared_a);
        b.put(shared_b);
        __syncthreads();
        const int left = p.depth - begun - slice;
        if (left > 0) { // while these are multiplied
            a.fetch(left);
            b.fetch(left);
        }
        multiply(shared_a, shared_b, row, column, run);
        __syncthreads();
        if (left <= 0 || (begun + slice) % longest_run == 0) {
#pragma unroll
            for (int i = 0; i < rows; ++i)
#pragma unroll
                for (int j = 0; j < columns; ++j)
                    sums.at[i][j] += run.at[i][j];
            run = {};
        }
    }

    // through shared memory, so that threads next to each other write neighbours
#pragma unroll
    for (int i = 0; i < rows; ++i) {
        Lanes<columns> of_row;
#pragma unroll
        for (int j = 0; j < columns; ++j)
            of_row.at[j] = sums.at[i][j];
        store(shared + (row + i) * B::room + column, of_row);
    }
    __syncthreads();
    const int own = static_cast<int>(threadIdx.x) % tile_columns;
    const int begin = static_cast<int>(threadIdx.x) / tile_columns;
    if (own >= p.columns - first_column)
        return;
    const int64_t corner = (matrix * p.rows + first_row) * p.columns + first_column + own;
    const int count = smaller(tile_rows, p.rows - first_row);
    for (int i = begin; i < count; i += product_threads / tile_columns) {
        const int64_t at = corner + static_cast<int64_t>(i) * p.columns;
        const float sum = p.factor * shared[i * B::room + own];
        const float value = p.times ? p.times[at] * sum : sum;
        p.out[at] = p.add ? p.out[at] + value : value;
    }
}

// ---- launchers

template <int rows, int columns> Tiles tiles_of(const MatrixProduct &p) {
    const int down = ceil_div(p.rows, rows * thread_rows);
    const int across = ceil_div(p.columns, columns * thread_columns);
    return {p, divisor_of(across), divisor_of(int64_t{down} * across)};
}

int64_t blocks_of(const Tiles &of) { return of.p.count * of.of_matrix.by; }

} // namespace

void matrix_product(const MatrixProduct &p, Stream stream) {
    if (p.rows == 0 || p.columns == 0)
        return; // no divisor
    const Tiles large = tiles_of<8, 4>(p), small = tiles_of<4, 2>(p);
    if (blocks_of(large) >= enough * multiprocessors())
        RELPROP_LAUNCH_BLOCKS((matrix_product_kernel<8, 4>), large, blocks_of(large),
                              product_threads, 0, stream);
    else
        RELPROP_LAUNCH_BLOCKS((matrix_product_kernel<4, 2>), small, blocks_of(small),
                              product_threads, 0, stream);
}

} // namespace relprop::cuda
