// What the kernels of pooling share: where their windows lie, which of them read an input, and the
// values under them.
#pragma once

#include "lanes.cuh"
#include "launch.cuh"

namespace relprop::cuda {

__host__ __device__ inline Image input_image(const Pool &p) {
    return {p.z.size, p.y.size, p.x.size, p.channels};
}

__host__ __device__ inline Image output_image(const Pool &p) {
    return {p.z.outputs, p.y.outputs, p.x.outputs, p.channels};
}

// A window in space.
struct Windows {
    Window z, y, x;
};

__device__ inline Windows windows_at(const Pool &p, const Pixel &at) {
    return {window_at(p.z, at.z), window_at(p.y, at.y), window_at(p.x, at.x)};
}

// Adaptive windows that are all of one size are plain ones, whose places take no division.
inline PoolAxis plain(const PoolAxis &axis) {
    if (!axis.adaptive || axis.size % axis.outputs != 0)
        return axis;
    const int each = axis.size / axis.outputs;
    return {axis.size, axis.outputs, each, each, 0, 0, 1, false};
}

inline Pool plain(Pool p) {
    p.z = plain(p.z);
    p.y = plain(p.y);
    p.x = plain(p.x);
    return p;
}

inline bool adaptive(const Pool &p) { return p.z.adaptive || p.y.adaptive || p.x.adaptive; }

// The pool, for a kernel that is compiled for windows that are not adaptive: their code is left
// out.
template <bool any_adaptive> __device__ __forceinline__ Pool known(Pool p) {
    if constexpr (!any_adaptive)
        p.z.adaptive = p.y.adaptive = p.x.adaptive = false;
    return p;
}

// The strides of a pool's axes, where threads divide by them.
struct Strides {
    Divisor z, y, x;
};

inline Strides strides_of(const Pool &p) {
    const auto of = [](const PoolAxis &axis) {
        return divisor_of(axis.adaptive ? 1 : axis.stride);
    };
    return {of(p.z), of(p.y), of(p.x)};
}

// windows_over for an axis that is not adaptive, with the stride as a Divisor.
__host__ __device__ inline Cover windows_by(const PoolAxis &axis, const Divisor &stride,
                                            int position) {
    const int reach = position + axis.pad_before, span = axis.dilation * (axis.kernel - 1);
    const int first = reach - span + axis.stride - 1;
    return {first <= 0 ? 0 : static_cast<int>(divided(first, stride)),
            smaller(static_cast<int>(divided(reach, stride)), axis.outputs - 1)};
}

template <int width>
__device__ Lanes<width> input_at(const Pool &p, int64_t n, const Pixel &at, int c) {
    return load<width>(p.in + row_of(input_image(p), n, at) * p.channels + c);
}

// Calls body(pixel) for the real inputs of a window, in row order, until it returns false.
template <class Body> __device__ void each_tap(const Windows &w, const Body &body) {
    for (int z = w.z.begin; z < w.z.end; z += w.z.step)
        for (int y = w.y.begin; y < w.y.end; y += w.y.step)
            for (int x = w.x.begin; x < w.x.end; x += w.x.step)
                if (!body(Pixel{z, y, x}))
                    return;
}

// Calls body(output, window) for the windows along an axis that read an input's position.
template <class Body>
__device__ __forceinline__ void each_reader(const PoolAxis &axis, const Divisor &stride,
                                            int position, const Body &body) {
    const Cover over =
        axis.adaptive ? windows_over(axis, position) : windows_by(axis, stride, position);
    for (int output = over.first; output <= over.last; ++output) {
        const Window w = window_at(axis, output);
        if (w.step == 1 || reads(w, position)) // what is dense and covers a position reads it
            body(output, w);
    }
}

// Calls body(windows, offset of the output) for the windows that read an input, in row order.
template <class Body>
__device__ void each_reader(const Pool &p, const Strides &strides, const Place &in,
                            const Body &body) {
    each_reader(p.z, strides.z, in.at.z, [&](int z, const Window &depth) {
        each_reader(p.y, strides.y, in.at.y, [&](int y, const Window &rows) {
            each_reader(p.x, strides.x, in.at.x, [&](int x, const Window &columns) {
                body(Windows{depth, rows, columns},
                     row_of(output_image(p), in.n, {z, y, x}) * p.channels + in.c);
            });
        });
    });
}

// ---- windows along an axis that share no input

inline bool apart(const PoolAxis &axis) {
    return axis.outputs == 1 || (!axis.adaptive && axis.stride > axis.dilation * (axis.kernel - 1));
}

inline bool apart(const Pool &p) { return apart(p.z) && apart(p.y) && apart(p.x); }

// The inputs from the begin of one window to that of the next; all of them belong to some window.
__device__ inline Cover cell_of(const PoolAxis &axis, int output) {
    const int next = output + 1 < axis.outputs ? window_at(axis, output + 1).begin : axis.size;
    return {output == 0 ? 0 : window_at(axis, output).begin, smaller(next, axis.size) - 1};
}

// ---- windows of `side` x `side` neighbours, all of whose values a thread loads at once

// Whether windows lie in a plane, and what each reads are neighbours.
inline bool planar(const Pool &p) {
    const auto dense = [](const PoolAxis &axis) { return !axis.adaptive && axis.dilation == 1; };
    const Window depth = window_at(p.z, 0);
    return p.z.size == 1 && p.z.outputs == 1 && depth.begin == 0 && depth.end == 1 && dense(p.y) &&
           dense(p.x);
}

template <int side> using Side = std::integral_constant<int, side>;

// Calls body(Side<3>) or body(Side<2>) where that is what windows are, and body(Side<0>) elsewhere.
template <class Body> void with_side(const Pool &p, const Body &body) {
    const int side = planar(p) && p.y.kernel == p.x.kernel ? p.y.kernel : 0;
    if (side == 3)
        body(Side<3>{});
    else if (side == 2)
        body(Side<2>{});
    else
        body(Side<0>{});
}

// Calls body(Side, Side) with the side and the stride of windows that overlap, where both are known
// to the compiler, and body(Side<0>, Side<0>) elsewhere.
template <class Body> void with_overlap(const Pool &p, const Body &body) {
    const int stride = p.y.stride == p.x.stride ? p.y.stride : 0;
    with_side(p, [&](auto side) {
        if constexpr (side() == 3) {
            if (stride == 1)
                return body(side, Side<1>{});
            if (stride == 2)
                return body(side, Side<2>{});
        } else if constexpr (side() == 2) {
            if (stride == 1)
                return body(side, Side<1>{});
        }
        body(Side<0>{}, Side<0>{});
    });
}

// `side` neighbours of row y of a sample's channels, from column `left` on; `filler` in the place
// of what lies outside the image.
template <int width, int side>
__device__ __forceinline__ void load_row(const Pool &p, const float *sample, int y, int left,
                                         float filler, Lanes<width> (&values)[side]) {
    const bool inside = y >= 0 && y < p.y.size;
#pragma unroll
    for (int i = 0; i < side; ++i) {
        const int x = left + i;
#pragma unroll
        for (int lane = 0; lane < width; ++lane)
            values[i].at[lane] = filler;
        if (inside && x >= 0 && x < p.x.size) // an image has < 2^31 values
            values[i] = load<width>(sample + (y * p.x.size + x) * p.channels);
    }
}

// The first of a sample's values of a channel.
__device__ inline const float *channel_of(const Pool &p, int64_t n, int c) {
    return p.in + row_of(input_image(p), n, {}) * p.channels + c;
}

// Calls body(value, pixel) for an output's window, in row order. Where the side is known, `filler`
// comes in the place of what lies outside the image.
template <int width, int side, class Body>
__device__ __forceinline__ void each_value(const Pool &p, const Place &out, float filler,
                                           const Body &body) {
    if constexpr (side == 0) {
        constexpr int at_once = 4; // so many are on their way before one is looked at
        const Windows w = windows_at(p, out.at);
        for (int z = w.z.begin; z < w.z.end; z += w.z.step)
            for (int y = w.y.begin; y < w.y.end; y += w.y.step)
                for (int x = w.x.begin; x < w.x.end; x += at_once * w.x.step) {
                    Lanes<width> values[at_once];
#pragma unroll
                    for (int i = 0; i < at_once; ++i)
                        if (x + i * w.x.step < w.x.end)
                            values[i] = input_at<width>(p, out.n, {z, y, x + i * w.x.step}, out.c);
#pragma unroll
                    for (int i = 0; i < at_once; ++i)
                        if (x + i * w.x.step < w.x.end)
                            body(values[i], Pixel{z, y, x + i * w.x.step});
                }
    } else {
        const int top = out.at.y * p.y.stride - p.y.pad_before;
        const int left = out.at.x * p.x.stride - p.x.pad_before;
        const float *sample = channel_of(p, out.n, out.c);
        Lanes<width> values[side][side];
#pragma unroll
        for (int y = 0; y < side; ++y)
            load_row(p, sample, top + y, left, filler, values[y]);
#pragma unroll
        for (int y = 0; y < side; ++y)
#pragma unroll
            for (int x = 0; x < side; ++x)
                body(values[y][x], Pixel{0, top + y, left + x});
    }
}

// ---- strips of a plane, one place below the other, that a thread goes down

template <int stride> constexpr int strip = 8 / stride;
template <> inline constexpr int strip<0> = 1; // where the stride is not known

struct StripArguments {
    Pool p;
    Places strips;
};

// The neighbours of a row that a window reads.
template <int width, int side> struct Row {
    Lanes<width> at[side];
};

// The rows that the next place of a strip needs: all of the first, else those that the place before
// had not, by load(number, row).
template <int stride, class Row, int side, class Load>
__device__ __forceinline__ void next_rows(Row (&rows)[side], bool first, const Load &load) {
#pragma unroll
    for (int i = 0; i < side; ++i) {
        const int again = i + stride;
        if (first || again >= side)
            load(i, rows[i]);
        else
            rows[i] = rows[again < side ? again : i];
    }
}

} // namespace relprop::cuda
