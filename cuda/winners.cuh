// Max pooling's relevance goes to each window's winner: its first maximum, or the last NaN in it.
// Winners are found again from the input, so that no index map is kept between the sweeps. An input
// that several windows read gathers from them in row order: no atomics, and the sums are the CPU's
// bit for bit.
#pragma once

#include "epilogue.cuh"
#include "windows.cuh"

namespace relprop::cuda {

// ---- finding them

// The first maximum of what came so far, or the last NaN, and its number.
template <int width> struct Best {
    Lanes<width> value;
    int number[width];

    __device__ __forceinline__ void take(int lane, float other, int other_number) {
        bool better = other > value.at[lane];
        better |= isnan(other);
        value.at[lane] = better ? other : value.at[lane];
        number[lane] = better ? other_number : number[lane];
    }
};

// Which of a window's inputs wins, by number(pixel).
template <int width, int side, class Number>
__device__ __forceinline__ Best<width> best_of(const Pool &p, const Place &out,
                                               const Number &number) {
    Pixel first{0, larger(out.at.y * p.y.stride - p.y.pad_before, 0),
                larger(out.at.x * p.x.stride - p.x.pad_before, 0)};
    if constexpr (side == 0) {
        const Windows w = windows_at(p, out.at);
        first = {w.z.begin, w.y.begin, w.x.begin};
    }
    const int first_number = number(first);
    Best<width> best;
#pragma unroll
    for (int lane = 0; lane < width; ++lane) {
        best.value.at[lane] = -INFINITY;
        best.number[lane] = first_number;
    }
    each_value<width, side>(p, out, -INFINITY, [&](const Lanes<width> &values, const Pixel &at) {
        const int own = number(at);
#pragma unroll
        for (int lane = 0; lane < width; ++lane)
            best.take(lane, values.at[lane], own);
    });
    return best;
}

// The best of a window's row, by its column.
template <int width, int side>
__device__ __forceinline__ Best<width> best_of_row(const Pool &p, const float *sample, int y,
                                                   int left) {
    Lanes<width> values[side];
    load_row(p, sample, y, left, -INFINITY, values);
    Best<width> best{values[0], {}};
#pragma unroll
    for (int lane = 0; lane < width; ++lane) {
        best.number[lane] = larger(-left, 0); // the first inside, if all are -inf
#pragma unroll
        for (int x = 1; x < side; ++x)
            best.take(lane, values[x].at[lane], x);
    }
    return best;
}

// Calls body(k, best, numbered by row and column) for the windows at output row y + k, k < count:
// what two of them have in common is looked at once.
template <int width, int side, int stride, class Body>
__device__ __forceinline__ void each_best(const Pool &p, const float *sample, int y, int x,
                                          int count, const Body &body) {
    const int left = x * stride - p.x.pad_before;
    Best<width> rows[side];
#pragma unroll
    for (int k = 0; k < strip<stride>; ++k) {
        if (k >= count)
            return;
        const int top = (y + k) * stride - p.y.pad_before;
        next_rows<stride>(rows, k == 0, [&](int i, Best<width> &row) {
            row = best_of_row<width, side>(p, sample, top + i, left);
        });
        Best<width> best = rows[0];
#pragma unroll
        for (int lane = 0; lane < width; ++lane) {
            best.number[lane] += larger(-top, 0) * side;
#pragma unroll
            for (int i = 1; i < side; ++i)
                best.take(lane, rows[i].value.at[lane], rows[i].number[lane] + i * side);
        }
        body(k, best);
    }
}

// ---- what becomes of the relevance of an input

// Channels c to c + width - 1 of a sample's inputs, the first of them row `row` of all.
struct InputLanes {
    const float *in;
    float *result;
    int64_t row;
    int c;
};

__device__ inline InputLanes input_lanes(const Pool &p, int64_t n, int c) {
    const int64_t row = row_of(input_image(p), n, {});
    return {p.in + row * p.channels + c, p.result + row * p.channels + c, row, c};
}

// It is stored, or what is sent of it: then a chunk's lanes have one pixel.
template <bool sends, int width>
__device__ __forceinline__ void put(const Pool &p, const MessageArguments &sent,
                                    const InputLanes &lanes, int pixel, const Lanes<width> &sum) {
    const int at = pixel * p.channels;
    if constexpr (sends)
        send_on(sent, {lanes.row + pixel, p.channels, lanes.c, true}, load<width>(lanes.in + at),
                sum);
    else
        store(lanes.result + at, sum);
}

// ---- windows that share no input: a thread owns one, and what lies before the next

struct ApartArguments {
    Pool p;
    Places places; // of the outputs
    int64_t count; // of threads
    MessageArguments sent;
};

template <int width, int side, bool sends>
__global__ void max_pool_relevance_apart_kernel(const __grid_constant__ ApartArguments of) {
    if (thread_index() >= of.count)
        return;
    const Pool p = known<false>(of.p);
    const Image image = input_image(p);
    const Place out = place_by(thread_index() * width, of.places);
    const auto number = [&](const Pixel &at) { return static_cast<int>(row_of(image, 0, at)); };
    const Lanes<width> r = load<width>(p.r + thread_index() * width);
    const Best<width> best = best_of<width, side>(p, out, number);
    const Cover zs = cell_of(p.z, out.at.z), ys = cell_of(p.y, out.at.y),
                xs = cell_of(p.x, out.at.x);
    const InputLanes lanes = input_lanes(p, out.n, out.c);
    for (int z = zs.first; z <= zs.last; ++z)
        for (int y = ys.first; y <= ys.last; ++y)
            for (int x = xs.first; x <= xs.last; ++x) {
                const int own = number({z, y, x});
                Lanes<width> sum = {};
                if (p.add)
                    sum = load<width>(lanes.result + own * p.channels);
                for (int lane = 0; lane < width; ++lane)
                    if (best.number[lane] == own)
                        sum.at[lane] += r.at[lane];
                put<sends>(p, of.sent, lanes, own, sum);
            }
}

// ---- windows that overlap in a plane: a block owns a tile of inputs

constexpr int tile_channels = 32; // of a block's inputs
constexpr int most_taps = 255;    // of a window, as a byte numbers them

// How inputs are cut: into cells of as many as the stride has, each where a window begins or would
// begin, and those into tiles.
struct Tiling {
    Pool p;
    Places tiles; // of an image: chunks of channels, across, down
    int height;   // of a tile, in cells
    Divisor width;
    int reach_y, reach_x; // windows that read an input, along each axis
    int64_t windows;      // over a tile, as many as there may be
    MessageArguments sent;
};

// The winners of one channel, or of four neighbours, by their number in the window; a byte each.
template <int width> using Numbers = std::conditional_t<width == 4, uint32_t, uint8_t>;

constexpr int nobody = 255;

template <int width> __device__ Numbers<width> packed(const Best<width> &best) {
    uint32_t numbers = 0;
    for (int lane = 0; lane < width; ++lane)
        numbers |= static_cast<uint32_t>(best.number[lane]) << 8 * lane;
    return static_cast<Numbers<width>>(numbers);
}

// What an axis of a tile has: its cells, the inputs in them, and the windows that read these.
struct TileAxis {
    Cover cells, inputs, windows;
    __device__ int count() const { return windows.last - windows.first + 1; }
};

__device__ inline TileAxis tile_axis(const PoolAxis &axis, int reach, int tile, int size) {
    const int first = tile * size, end = first + size;
    const int cells = ceil_div(axis.size + axis.pad_before, axis.stride);
    return {{first, smaller(end, cells) - 1},
            {larger(first * axis.stride - axis.pad_before, 0),
             smaller(end * axis.stride - axis.pad_before, axis.size) - 1},
            {larger(first - reach + 1, 0), smaller(end, axis.outputs) - 1}};
}

// The tile of a block.
struct Tile {
    int64_t n;
    int c; // of the thread's first channel
    TileAxis y, x;
};

// A thread's place in its tile: its channels, and its turn among those that have the same.
template <int width> struct TileThread {
    static constexpr int lanes = tile_channels / width, turns = block_threads / lanes;
    int lane = static_cast<int>(threadIdx.x) % lanes, turn = static_cast<int>(threadIdx.x) / lanes;
};

// Finds the winners of the windows over a tile: [down][across][lanes].
template <int width, int side, int stride>
__device__ void find_winners(const Pool &p, const Tile &tile, Numbers<width> *winners) {
    using Thread = TileThread<width>;
    constexpr int each = strip<stride>;
    const Thread thread;
    const int down = tile.y.count(), across = tile.x.count();
    for (int i = thread.turn; i < ceil_div(down, each) * across; i += Thread::turns) {
        const int row = i / across * each, column = i % across;
        const int y = tile.y.windows.first + row, x = tile.x.windows.first + column;
        Numbers<width> *to = winners + (row * across + column) * Thread::lanes + thread.lane;
        if constexpr (side == 0) {
            const int top = y * p.y.stride - p.y.pad_before, left = x * p.x.stride - p.x.pad_before;
            const auto number = [&](const Pixel &at) {
                return (at.y - top) * p.x.kernel + at.x - left;
            };
            *to = packed(best_of<width, 0>(p, {tile.n, {0, y, x}, tile.c}, number));
        } else {
            const float *sample = channel_of(p, tile.n, tile.c);
            each_best<width, side, stride>(p, sample, y, x, down - row,
                                           [&](int k, const Best<width> &best) {
                                               to[k * across * Thread::lanes] = packed(best);
                                           });
        }
    }
}

template <int width>
__device__ __forceinline__ void take(uint32_t winners, int number, const Lanes<width> &r,
                                     Lanes<width> &sum) {
#pragma unroll
    for (int lane = 0; lane < width; ++lane)
        if ((winners >> 8 * lane & 255) == static_cast<uint32_t>(number))
            sum.at[lane] += r.at[lane];
}

// Hands the inputs of a cell what they win.
template <bool sends, int width>
__device__ void hand_down(const Tiling &of, const Tile &tile, int cell_y, int cell_x,
                          const Numbers<width> *winners, const float *relevance,
                          const InputLanes &lanes) {
    const Pool &p = of.p;
    const int top = cell_y * p.y.stride - p.y.pad_before;
    const int left = cell_x * p.x.stride - p.x.pad_before;
    for (int y = larger(top, 0); y < smaller(top + p.y.stride, p.y.size); ++y)
        for (int x = larger(left, 0); x < smaller(left + p.x.stride, p.x.size); ++x) {
            const int own = y * p.x.size + x;
            Lanes<width> sum = {};
            if (p.add)
                sum = load<width>(lanes.result + own * p.channels);
            for (int back_y = of.reach_y - 1; back_y >= 0; --back_y)
                for (int back_x = of.reach_x - 1; back_x >= 0; --back_x) {
                    const int at_y = y - top + back_y * p.y.stride;
                    const int at_x = x - left + back_x * p.x.stride;
                    const int from_y = cell_y - back_y, from_x = cell_x - back_x;
                    if (at_y >= p.y.kernel || at_x >= p.x.kernel || from_y < 0 || from_x < 0 ||
                        from_y >= p.y.outputs || from_x >= p.x.outputs)
                        continue;
                    const int window = (from_y - tile.y.windows.first) * tile.x.count() + from_x -
                                       tile.x.windows.first;
                    const int output = from_y * p.x.outputs + from_x;
                    take(winners[window * TileThread<width>::lanes], at_y * p.x.kernel + at_x,
                         load<width>(relevance + output * p.channels), sum);
                }
            put<sends>(p, of.sent, lanes, own, sum);
        }
}

// The same for a strip of cells, one below the other; what a window gives to which of their inputs
// is known to the compiler.
template <bool sends, int width, int side, int stride, int cells>
__device__ void hand_down_strip(const Tiling &of, const Tile &tile, int cell_y, int cell_x,
                                const Numbers<width> *winners, const float *relevance,
                                const InputLanes &lanes) {
    constexpr int reach = (side + stride - 1) / stride, rows = cells * stride;
    const Pool &p = of.p;
    const Cover &down = tile.y.windows, &across = tile.x.windows;
    const int top = cell_y * stride - p.y.pad_before, left = cell_x * stride - p.x.pad_before;
    const auto inside = [&](int y, int x) {
        return y >= 0 && y <= tile.y.inputs.last && x >= 0 && x <= tile.x.inputs.last;
    };
    Lanes<width> sums[rows][stride] = {};
    if (p.add)
#pragma unroll
        for (int i = 0; i < rows * stride; ++i)
            if (inside(top + i / stride, left + i % stride))
                sums[i / stride][i % stride] =
                    load<width>(lanes.result +
                                ((top + i / stride) * p.x.size + left + i % stride) * p.channels);
    if (down.first <= down.last && across.first <= across.last)
#pragma unroll
        for (int i = 0; i < (cells + reach - 1) * reach; ++i) {
            const int row = i / reach - (reach - 1), column = i % reach - (reach - 1);
            const int y = smaller(larger(cell_y + row, down.first), down.last);
            const int x = smaller(larger(cell_x + column, across.first), across.last);
            const Lanes<width> r = load<width>(relevance + (y * p.x.outputs + x) * p.channels);
            uint32_t won = winners[((y - down.first) * tile.x.count() + x - across.first) *
                                   TileThread<width>::lanes];
            if (y != cell_y + row || x != cell_x + column)
                won = ~0u; // there is no such window
#pragma unroll
            for (int k = 0; k < rows * stride; ++k) {
                const int at_y = k / stride - row * stride, at_x = k % stride - column * stride;
                if (at_y >= 0 && at_y < side && at_x >= 0 && at_x < side)
                    take(won, at_y * side + at_x, r, sums[k / stride][k % stride]);
            }
        }
#pragma unroll
    for (int i = 0; i < rows * stride; ++i)
        if (inside(top + i / stride, left + i % stride))
            put<sends>(p, of.sent, lanes, (top + i / stride) * p.x.size + left + i % stride,
                       sums[i / stride][i % stride]);
}

template <int width, int side, int stride, bool sends>
__global__ void __launch_bounds__(block_threads)
    max_pool_relevance_tiles_kernel(const __grid_constant__ Tiling of) {
    using Thread = TileThread<width>;
    const Thread thread;
    const Pool &p = of.p;
    auto *winners = shared_memory<Numbers<width>>();
    const Place at = place_by(blockIdx.x, of.tiles);
    const int across = static_cast<int>(of.width.by);
    const Tile tile{at.n, at.c * tile_channels + thread.lane * width,
                    tile_axis(p.y, of.reach_y, at.at.y, of.height),
                    tile_axis(p.x, of.reach_x, at.at.x, across)};
    const bool real = tile.c < p.channels;
    if (real)
        find_winners<width, side, stride>(p, tile, winners);
    __syncthreads();
    if (!real)
        return;
    winners += thread.lane;
    const float *relevance = p.r + row_of(output_image(p), tile.n, {}) * p.channels + tile.c;
    const InputLanes lanes = input_lanes(p, tile.n, tile.c);
    constexpr int cells = strip<stride> / (stride == 0 ? 1 : stride);
    const int bands = ceil_div(tile.y.cells.last - tile.y.cells.first + 1, cells);
    for (int i = thread.turn; i < bands * across; i += Thread::turns) {
        const int band = static_cast<int>(divided(i, of.width));
        const int y = tile.y.cells.first + band * cells, x = tile.x.cells.first + i - band * across;
        if (x > tile.x.cells.last)
            continue;
        if constexpr (side == 0)
            hand_down<sends, width>(of, tile, y, x, winners, relevance, lanes);
        else
            hand_down_strip<sends, width, side, stride, cells>(of, tile, y, x, winners, relevance,
                                                               lanes);
    }
}

// ---- whatever else overlaps: a thread owns an input and looks for who beats it in each window

template <int width> struct Flags {
    bool at[width];
};

// Which channels of an input are beaten in a window that reads it.
template <int width>
__device__ Flags<width> beaten(const Pool &p, const Place &in, const Lanes<width> &own,
                               const Windows &w) {
    Flags<width> lost = {};
    bool earlier = true;
    each_tap(w, [&](const Pixel &at) {
        if (at.z == in.at.z && at.y == in.at.y && at.x == in.at.x) {
            earlier = false;
            return true;
        }
        const Lanes<width> others = input_at<width>(p, in.n, at, in.c);
        bool all = true;
        for (int lane = 0; lane < width; ++lane) {
            const float a = own.at[lane], b = others.at[lane];
            if (isnan(b) ? !isnan(a) || !earlier : b > a || (earlier && b == a))
                lost.at[lane] = true;
            all = all && lost.at[lane];
        }
        return !all;
    });
    return lost;
}

struct OverlapArguments {
    Pool p;
    Strides strides;
    Places places; // of the inputs
};

template <int width> __global__ void max_pool_relevance_kernel(OverlapArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Pool &p = of.p;
    float *result = p.result + thread_index() * width;
    const Place in = place_by(thread_index() * width, of.places);
    const Lanes<width> own = input_at<width>(p, in.n, in.at, in.c);
    Lanes<width> sum = {};
    if (p.add)
        sum = load<width>(result);
    each_reader(p, of.strides, in, [&](const Windows &w, int64_t out) {
        const Flags<width> lost = beaten(p, in, own, w);
        const Lanes<width> r = load<width>(p.r + out);
        for (int lane = 0; lane < width; ++lane)
            if (!lost.at[lane])
                sum.at[lane] += r.at[lane];
    });
    store(result, sum);
}

} // namespace relprop::cuda
