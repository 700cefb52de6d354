// Values that only change places: slices, pads, reshapes, permutations, broadcasts (one index
// table serves them all), and the two memory orders of images.
#include "backend.cuh"
#include "launch.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

struct GatherArguments {
    Gather p;
    Divisor size; // floats per sample of the result
};

__global__ void gather_kernel(GatherArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Gather &p = of.p;
    const int64_t n = divided(thread_index(), of.size);
    const int32_t from = p.index[thread_index() - n * p.to_size];
    p.out[thread_index()] = from >= 0 ? p.in[n * p.from_size + from] : p.value;
}

__global__ void gather_relevance_kernel(GatherArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Gather &p = of.p;
    const int64_t n = divided(thread_index(), of.size), i = thread_index() - n * p.from_size;
    const float *r = p.in + n * p.to_size;
    float sum = p.add ? p.out[thread_index()] : 0.0f;
    for (int32_t k = p.offsets[i]; k < p.offsets[i + 1]; ++k)
        sum += r[p.reader[k]];
    p.out[thread_index()] = sum;
}

// out[n][column][row] = in[n][row][column].
struct Transposition {
    const float *in;
    float *out;
    int64_t rows, columns;
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
__global__ void transpose_values_kernel(Transposition t, int64_t count) {
    if (thread_index() >= count)
        return;
    const int64_t line = divided(thread_index(), t.row_count), row = thread_index() - line * t.rows;
    const int64_t n = divided(line, t.column_count), column = line - n * t.columns;
    t.out[thread_index()] = t.in[(n * t.rows + row) * t.columns + column];
}

// ---- launchers

void transpose(const float *in, float *out, int64_t n, int64_t rows, int64_t columns,
               Stream stream) {
    if (rows < tile / 2 || columns < tile / 2) {
        const Transposition values{in, out, rows, columns, divisor_of(rows), divisor_of(columns)};
        RELPROP_LAUNCH(transpose_values_kernel, values, n * rows * columns, stream);
        return;
    }
    const int64_t down = (rows + tile - 1) / tile, across = (columns + tile - 1) / tile;
    const Transposition tiles{in, out, rows, columns, divisor_of(down), divisor_of(across)};
    RELPROP_LAUNCH_BLOCKS(transpose_tiles_kernel, tiles, n * down * across, tile * tile_steps, 0,
                          stream);
}

} // namespace

void gather(const Gather &p, Stream stream) {
    const GatherArguments arguments{p, divisor_of(p.to_size)};
    RELPROP_LAUNCH(gather_kernel, arguments, p.n * p.to_size, stream);
}

void gather_relevance(const Gather &p, Stream stream) {
    const GatherArguments arguments{p, divisor_of(p.from_size)};
    RELPROP_LAUNCH(gather_relevance_kernel, arguments, p.n * p.from_size, stream);
}

void to_channels_last(const float *in, float *out, int64_t n, Image image, Stream stream) {
    transpose(in, out, n, image.channels, image.pixels(), stream);
}

void to_channels_first(const float *in, float *out, int64_t n, Image image, Stream stream) {
    transpose(in, out, n, image.pixels(), image.channels, stream);
}

} // namespace relprop::cuda
