// Values that only change places: slices, pads, reshapes, permutations, broadcasts (one index
// table serves them all), and the two memory orders of images.
#include "backend.cuh"
#include "launch.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

// A thread moves several values, a block apart from each other, so that all are under way at once.
constexpr int moved = 4;

// The number of the thread's value k.
__device__ int64_t value_index(int k) {
    return (static_cast<int64_t>(blockIdx.x) * moved + k) * block_threads + threadIdx.x;
}

// Threads for so many values.
int64_t movers(int64_t values) {
    constexpr int64_t each = moved * block_threads; // of a block
    return (values + each - 1) / each * block_threads;
}

struct GatherArguments {
    Gather p;
    Divisor size;   // floats per sample of the result
    Divisor width;  // floats of a place
    int64_t values; // of the result
};

// Where value i of the result is: its sample, place and float of the place.
struct Moved {
    int64_t n, place, rest;
};

__device__ Moved moved_at(const GatherArguments &of, int64_t i) {
    const int64_t n = divided(i, of.size), at = i - n * of.size.by;
    const int64_t place = divided(at, of.width);
    return {n, place, at - place * of.width.by};
}

__global__ void gather_kernel(GatherArguments of, int64_t) {
    const Gather &p = of.p;
    Moved at[moved] = {};
    int32_t from[moved];
    float held[moved];
#pragma unroll
    for (int k = 0; k < moved; ++k) {
        from[k] = -1;
        if (const int64_t i = value_index(k); i < of.values) {
            at[k] = moved_at(of, i);
            from[k] = p.index[at[k].place];
        }
    }
#pragma unroll
    for (int k = 0; k < moved; ++k)
        held[k] =
            from[k] >= 0
                ? p.in[at[k].n * p.from_size + static_cast<int64_t>(from[k]) * p.width + at[k].rest]
                : p.value;
#pragma unroll
    for (int k = 0; k < moved; ++k)
        if (const int64_t i = value_index(k); i < of.values)
            p.out[i] = held[k];
}

// Most places have one reader, if any: the first of each are on their way together.
__global__ void gather_relevance_kernel(GatherArguments of, int64_t) {
    const Gather &p = of.p;
    Moved at[moved] = {};
    int32_t begin[moved] = {}, end[moved] = {}, reader[moved];
    double sum[moved] = {}; // a broadcast has many readers
#pragma unroll
    for (int k = 0; k < moved; ++k)
        if (const int64_t i = value_index(k); i < of.values) {
            at[k] = moved_at(of, i);
            begin[k] = p.offsets[at[k].place];
            end[k] = p.offsets[at[k].place + 1];
            if (p.add && begin[k] < end[k])
                sum[k] = p.out[i];
        }
    const auto given = [&](int k, int32_t by) {
        return p.in[at[k].n * p.to_size + static_cast<int64_t>(by) * p.width + at[k].rest];
    };
#pragma unroll
    for (int k = 0; k < moved; ++k)
        reader[k] = begin[k] < end[k] ? p.reader[begin[k]] : -1;
#pragma unroll
    for (int k = 0; k < moved; ++k)
        if (reader[k] >= 0)
            sum[k] += given(k, reader[k]);
#pragma unroll
    for (int k = 0; k < moved; ++k)
        if (const int64_t i = value_index(k);
            i < of.values && (reader[k] >= 0 || !p.add)) { // what nobody reads is there already
            for (int32_t other = begin[k] + 1; other < end[k]; ++other)
                sum[k] += given(k, p.reader[other]);
            p.out[i] = static_cast<float>(sum[k]);
        }
}

// out[n][column][row] = in[n][row][column].
struct Transposition {
    const float *in;
    float *out;
    int64_t rows, columns, values;   // values of all matrices
    Divisor row_count, column_count; // where threads divide: of values; of tiles
};

constexpr int tile = 32, tile_steps = 8; // a thread moves tile / tile_steps values

// A block moves one tile by way of shared memory, so that it reads and writes whole lines.
__global__ void transpose_tiles_kernel(Transposition t) {
    __shared__ float held[tile][tile + 1]; // one more, so that a column lies in 32 banks
    const int x = static_cast<int>(threadIdx.x) % tile, y = static_cast<int>(threadIdx.x) / tile;
    const int64_t block = blockIdx.x, band = divided(block, t.column_count);
    const int64_t n = divided(band, t.row_count);
    const int64_t column = (block - band * t.column_count.by) * tile;
    const int64_t row = (band - n * t.row_count.by) * tile;
    const float *in = t.in + n * t.rows * t.columns;
    float *out = t.out + n * t.rows * t.columns;
    for (int i = y; i < tile; i += tile_steps)
        if (row + i < t.rows && column + x < t.columns)
            held[i][x] = in[(row + i) * t.columns + column + x];
    __syncthreads();
    for (int i = y; i < tile; i += tile_steps)
        if (column + i < t.columns && row + x < t.rows)
            out[(column + i) * t.rows + row + x] = held[x][i];
}

// The same where a tile would be mostly empty, as with the three channels of a photo.
__global__ void transpose_values_kernel(Transposition t, int64_t) {
    float held[moved] = {};
#pragma unroll
    for (int k = 0; k < moved; ++k)
        if (const int64_t i = value_index(k); i < t.values) {
            const int64_t line = divided(i, t.row_count), row = i - line * t.rows;
            const int64_t n = divided(line, t.column_count), column = line - n * t.columns;
            held[k] = t.in[(n * t.rows + row) * t.columns + column];
        }
#pragma unroll
    for (int k = 0; k < moved; ++k)
        if (const int64_t i = value_index(k); i < t.values)
            t.out[i] = held[k];
}

// ---- launchers

void transpose(const float *in, float *out, int64_t n, int64_t rows, int64_t columns,
               Stream stream) {
    if (rows < tile / 2 || columns < tile / 2) {
        const Transposition values{
            in, out, rows, columns, n * rows * columns, divisor_of(rows), divisor_of(columns)};
        RELPROP_LAUNCH(transpose_values_kernel, values, movers(values.values), stream);
        return;
    }
    const int64_t down = (rows + tile - 1) / tile, across = (columns + tile - 1) / tile;
    const Transposition tiles{
        in, out, rows, columns, n * rows * columns, divisor_of(down), divisor_of(across)};
    RELPROP_LAUNCH_BLOCKS(transpose_tiles_kernel, tiles, n * down * across, tile * tile_steps, 0,
                          stream);
}

} // namespace

void gather(const Gather &p, Stream stream) {
    const GatherArguments arguments{p, divisor_of(p.to_size), divisor_of(p.width), p.n * p.to_size};
    RELPROP_LAUNCH(gather_kernel, arguments, movers(arguments.values), stream);
}

void gather_relevance(const Gather &p, Stream stream) {
    const GatherArguments arguments{p, divisor_of(p.from_size), divisor_of(p.width),
                                    p.n * p.from_size};
    RELPROP_LAUNCH(gather_relevance_kernel, arguments, movers(arguments.values), stream);
}

void to_channels_last(const float *in, float *out, int64_t n, Image image, Stream stream) {
    transpose(in, out, n, image.channels, image.pixels(), stream);
}

void to_channels_first(const float *in, float *out, int64_t n, Image image, Stream stream) {
    transpose(in, out, n, image.pixels(), image.channels, stream);
}

} // namespace relprop::cuda
