// Average pooling whose windows overlap in a plane: a thread goes down a strip of outputs, or of
// inputs, and loads once what neighbours in it have in common. Sums run in row order and are the
// CPU's bit for bit.
#pragma once

#include "windows.cuh"

namespace relprop::cuda {

template <int width, int side, int stride>
__global__ void average_pool_strips_kernel(StripArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Pool p = known<false>(of.p);
    const Place at = place_by(thread_index() * width, of.strips);
    const int first = at.at.y * strip<stride>, left = at.at.x * stride - p.x.pad_before;
    const float *sample = channel_of(p, at.n, at.c);
    const Window depth = window_at(p.z, 0), columns = window_at(p.x, at.at.x);
    Row<width, side> rows[side];
#pragma unroll
    for (int k = 0; k < strip<stride>; ++k) {
        const int y = first + k;
        if (y >= p.y.outputs)
            return;
        next_rows<stride>(rows, k == 0, [&](int i, Row<width, side> &row) {
            load_row(p, sample, y * stride - p.y.pad_before + i, left, 0.0f, row.at);
        });
        Lanes<width> sum = {};
#pragma unroll
        for (int i = 0; i < side; ++i)
#pragma unroll
            for (int j = 0; j < side; ++j)
#pragma unroll
                for (int lane = 0; lane < width; ++lane)
                    sum.at[lane] += rows[i].at[j].at[lane];
        const float divisor =
            average_divisor(p.divisor, p.count_include_pad, depth, window_at(p.y, y), columns);
#pragma unroll
        for (int lane = 0; lane < width; ++lane)
            sum.at[lane] /= divisor;
        store(p.result + row_of(output_image(p), at.n, {0, y, at.at.x}) * p.channels + at.c, sum);
    }
}

// What an output hands to each input of its window, but for the input's value.
template <int width>
__device__ __forceinline__ Lanes<width> weighted(const Pool &p, int64_t out, float divisor) {
    const float weight = 1.0f / divisor;
    Lanes<width> s = load<width>(p.r + out);
#pragma unroll
    for (int lane = 0; lane < width; ++lane)
        s.at[lane] *= weight;
    return s;
}

// Of row y of outputs, from column `left` on; nothing of who is not there. columns: what they
// count.
template <int width, int side>
__device__ __forceinline__ void load_weighted(const Pool &p, const Place &at, int y, int left,
                                              const float (&columns)[side], Row<width, side> &row) {
    const float rows = counted(p.count_include_pad, window_at(p.z, 0)) *
                       counted(p.count_include_pad, window_at(p.y, y));
#pragma unroll
    for (int j = 0; j < side; ++j) {
        const int x = left + j;
        row.at[j] = {};
        if (y < 0 || y >= p.y.outputs || x < 0 || x >= p.x.outputs)
            continue;
        row.at[j] = weighted<width>(p, row_of(output_image(p), at.n, {0, y, x}) * p.channels + at.c,
                                    average_divisor(p.divisor, rows * columns[j]));
    }
}

// Of windows one input apart.
template <int width, int side>
__global__ void average_pool_relevance_strips_kernel(StripArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Pool p = known<false>(of.p);
    const Place at = place_by(thread_index() * width, of.strips);
    const int first = at.at.y * strip<1>, left = at.at.x + p.x.pad_before - side + 1;
    float columns[side];
#pragma unroll
    for (int j = 0; j < side; ++j)
        columns[j] = counted(p.count_include_pad, window_at(p.x, left + j));
    Row<width, side> rows[side];
#pragma unroll
    for (int k = 0; k < strip<1>; ++k) {
        const int y = first + k, top = y + p.y.pad_before - side + 1;
        if (y >= p.y.size)
            return;
        next_rows<1>(rows, k == 0, [&](int i, Row<width, side> &row) {
            load_weighted(p, at, top + i, left, columns, row);
        });
        const int64_t place = row_of(input_image(p), at.n, {0, y, at.at.x}) * p.channels + at.c;
        Lanes<width> own, sum = {};
#pragma unroll
        for (int lane = 0; lane < width; ++lane)
            own.at[lane] = 1.0f;
        if (p.in)
            own = load<width>(p.in + place);
        if (p.add)
            sum = load<width>(p.result + place);
#pragma unroll
        for (int i = 0; i < side; ++i)
#pragma unroll
            for (int j = 0; j < side; ++j) {
                const int row = top + i, column = left + j;
                if (row < 0 || row >= p.y.outputs || column < 0 || column >= p.x.outputs)
                    continue; // no window: what is infinite stays so
#pragma unroll
                for (int lane = 0; lane < width; ++lane)
                    sum.at[lane] += own.at[lane] * rows[i].at[j].at[lane];
            }
        store(p.result + place, sum);
    }
}

} // namespace relprop::cuda
