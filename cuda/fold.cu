// The way back through a layer that reads few channels, as an image's, in two steps: one product
// gives what each pixel of the output hands to every tap of the kernel, so that all its channels
// are of use to the tensor cores, and here each pixel of the input sums up what it is handed. A
// block owns a square of inputs, and shared memory holds what their outputs hand down.
#include "backend.cuh"
#include "epilogue.cuh"
#include "launch.cuh"
#include "mma.cuh"

namespace relprop::cuda {

// ---- kernel

namespace {

constexpr int64_t most_shared = 96 * 1024; // bytes of a block that every device can be asked for

// Of a square with so many pixels per side, the outputs along an axis that read it, at most.
int reach_of(int side, int kernel, int stride) { return (side + kernel - 2) / stride + 1; }

struct FoldArguments {
    Fold p;
    int side; // of a square, in pixels
    Places squares;
};

// The outputs along an axis that read inputs first ... last, inclusive.
__device__ inline Cover readers_of(int first, int last, int before, int kernel, int stride,
                                   int outputs) {
    const int reach = first + before - (kernel - 1);
    return {reach <= 0 ? 0 : ceil_div(reach, stride),
            smaller((last + before) / stride, outputs - 1)};
}

__global__ void fold_kernel(const __grid_constant__ FoldArguments of) {
    const Fold &p = of.p;
    const Image &from = p.from, &to = p.to;
    const int held = handed_channels(p);
    const Place square = place_by(blockIdx.x, of.squares);
    const int top = square.at.y * of.side, left = square.at.x * of.side;
    const Cover rows = readers_of(top, smaller(top + of.side, from.height) - 1, p.before.y,
                                  p.kernel.y, p.stride.y, to.height);
    const Cover columns = readers_of(left, smaller(left + of.side, from.width) - 1, p.before.x,
                                     p.kernel.x, p.stride.x, to.width);
    const int across = columns.last - columns.first + 1; // may be 0, as rows may

    auto *handed = shared_memory<float>();
    for (int row = rows.first; row <= rows.last; ++row) { // all are under way at once
        const float *there = p.handed + row_of(to, square.n, {0, row, columns.first}) * held;
        const SharedAt here = shared_at(handed + (row - rows.first) * across * held);
        for (int i = 4 * static_cast<int>(threadIdx.x); i < across * held;
             i += 4 * static_cast<int>(blockDim.x))
            copy_async<16, false>(here + i * static_cast<int>(sizeof(float)), there + i, true);
    }
    close_copies();
    await_copies<0>();
    __syncthreads();

    const int y = top + static_cast<int>(threadIdx.x) / of.side;
    const int x = left + static_cast<int>(threadIdx.x) % of.side;
    if (y >= from.height || x >= from.width)
        return;
    const int64_t row = row_of(from, square.n, {0, y, x});
    for (int c = 0; c < from.channels; ++c) {
        float sum = 0.0f;
        int out_y = (y + p.before.y) / p.stride.y;
        for (int ky = y + p.before.y - out_y * p.stride.y; ky < p.kernel.y;
             ky += p.stride.y, --out_y) {
            int out_x = (x + p.before.x) / p.stride.x;
            for (int kx = x + p.before.x - out_x * p.stride.x; kx < p.kernel.x;
                 kx += p.stride.x, --out_x)
                if (out_y >= rows.first && out_y <= rows.last && out_x >= columns.first &&
                    out_x <= columns.last) {
                    const int at = (out_y - rows.first) * across + out_x - columns.first;
                    sum += handed[at * held + (c * p.kernel.y + ky) * p.kernel.x + kx];
                }
        }
        const int64_t at = row * from.channels + c;
        store(p.epilogue.out + at,
              relevance_of(p.epilogue, Lanes<1>{{sum}}, Beside<1>(p.epilogue, at)));
    }
}

// ---- launcher

int64_t shared_bytes(const Fold &p, int side) {
    return int64_t{reach_of(side, p.kernel.y, p.stride.y)} *
           reach_of(side, p.kernel.x, p.stride.x) * handed_channels(p) *
           static_cast<int64_t>(sizeof(float));
}

constexpr int large = 16, small = 8; // sides of a square

} // namespace

bool folds(const Fold &p) {
    constexpr int least_taps = 4, share = 4;
    return p.from.channels * share <= p.to.channels && p.kernel.y * p.kernel.x >= least_taps &&
           shared_bytes(p, small) <= most_shared;
}

void fold(const Fold &p, Stream stream) {
    const int side = shared_bytes(p, large) <= most_shared ? large : small;
    const Image squares{1, ceil_div(p.from.height, side), ceil_div(p.from.width, side), 1};
    const FoldArguments arguments{p, side, places_of(squares)};
    RELPROP_LAUNCH_BLOCKS(fold_kernel, arguments, p.n * squares.pixels(), side * side,
                          static_cast<size_t>(shared_bytes(p, side)), stream);
}

} // namespace relprop::cuda
