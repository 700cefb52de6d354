// Pooling, forward and relevance. Relevance is scattered window by window; a task owns some rows
// of one sample's input, so no two tasks write to the same place. A window that reaches into the
// rows of two tasks is looked at twice, and each hands down what is its own.
#include "backend.hpp"
#include "doubles.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

// Vectors of channels at once: what is found so far stays in registers over all taps of a window.
constexpr int wide = lanes == 16 ? 4 : 8, wide_with_places = 4;

constexpr int fetched = 16; // floats that the processor fetches at once

// Used and not const, so that it counts as unknown: the compiler makes one instruction of the
// smaller of two values, but not of a value and a constant. No Vec, whose initialisation might run
// where the instruction set is missing.
[[gnu::used]] float infinity = __builtin_inff();

typedef int32_t Places __attribute__((vector_size(lanes * 4)));

Image input_image(const Pool &p) { return {p.z.size, p.y.size, p.x.size, p.channels}; }
Image output_image(const Pool &p) { return {p.z.outputs, p.y.outputs, p.x.outputs, p.channels}; }

// A window in space.
struct Windows {
    Window z, y, x;
};

// Input positions of the three axes.
struct Box {
    Cover z, y, x;
};

// Calls body(input offset of the tap) for the taps of a window, in row order.
template <class Body>
[[gnu::always_inline]] inline void each_tap(const Pool &p, const Windows &at, const Body &body) {
    for (int z = at.z.begin; z < at.z.end; z += at.z.step)
        for (int y = at.y.begin; y < at.y.end; y += at.y.step) {
            const int row = (z * p.y.size + y) * p.x.size; // fits: an image has < 2^31 values
            for (int x = at.x.begin; x < at.x.end; x += at.x.step)
                body((row + x) * p.channels);
        }
}

// Of a window's first tap.
int offset_of(const Pool &p, const Windows &at) {
    return static_cast<int>(row_of(input_image(p), 0, {at.z.begin, at.y.begin, at.x.begin})) *
           p.channels;
}

float divisor_of(const Pool &p, const Windows &at) {
    return average_divisor(p.divisor, p.count_include_pad, at.z, at.y, at.x);
}

// Calls body(offset of the sample's input, windows, offset of the output pixel).
template <class Body> void each_output_row(const Pool &p, const Body &body) {
    parallel_for(p.n * p.z.outputs * p.y.outputs, [&](int64_t task) {
        const auto [n, at, _] = place_at(task, {p.z.outputs, p.y.outputs, 1, 1});
        Windows windows{window_at(p.z, at.z), window_at(p.y, at.y), {}};
        for (int x = 0; x < p.x.outputs; ++x) {
            windows.x = window_at(p.x, x);
            body(n * input_image(p).size(), windows, (task * p.x.outputs + x) * p.channels);
        }
    });
}

// The windows that may reach into some positions of an axis.
Cover windows_over(const PoolAxis &axis, const Cover &part) {
    return {windows_over(axis, part.first).first, windows_over(axis, part.last).last};
}

// What of a window lies there.
Window within(Window window, const Cover &part) {
    if (window.begin < part.first)
        window.begin += ceil_div(part.first - window.begin, window.step) * window.step;
    window.end = smaller(window.end, part.last + 1);
    return window;
}

void clear(const Pool &p, int64_t in, const Box &part) {
    const int64_t row = (part.x.last - part.x.first + 1) * static_cast<int64_t>(p.channels);
    for (int z = part.z.first; z <= part.z.last; ++z)
        for (int y = part.y.first; y <= part.y.last; ++y) {
            float *to =
                p.result + in + row_of(input_image(p), 0, {z, y, part.x.first}) * p.channels;
            for (int64_t i = 0; i < row; ++i)
                to[i] = 0.0f;
        }
}

// Calls body(offset of the sample's input, window, what of it the task owns, offset of the output
// pixel) for every window, part by part of the input, each part cleared before. Parts are rows, or
// pixels of a signal, as many as stay in the second cache together with what is read beside them.
template <class Body> void each_window(const Pool &p, const Body &body) {
    const PoolAxis &cut = p.y.size > 1 ? p.y : p.x;
    const int64_t line = input_image(p).size() / cut.size;
    const int step = cut.adaptive ? 1 : cut.stride;
    const int64_t steps = 4 * slab / line / step > 0 ? 4 * slab / line / step : 1;
    const int size = static_cast<int>(steps * step < cut.size ? steps * step : cut.size);
    const int parts = ceil_div(cut.size, size);
    parallel_for(p.n * parts, [&](int64_t task) {
        const int first = static_cast<int>(task % parts) * size;
        Box part{{0, p.z.size - 1}, {0, p.y.size - 1}, {0, p.x.size - 1}};
        (p.y.size > 1 ? part.y : part.x) = Cover{first, smaller(first + size, cut.size) - 1};
        const int64_t in = task / parts * input_image(p).size();
        if (!p.add)
            clear(p, in, part);
        const Cover zs = windows_over(p.z, part.z), ys = windows_over(p.y, part.y),
                    xs = windows_over(p.x, part.x);
        Windows all, own;
        for (int z = zs.first; z <= zs.last; ++z) {
            own.z = all.z = window_at(p.z, z);
            for (int y = ys.first; y <= ys.last; ++y) {
                all.y = window_at(p.y, y);
                own.y = within(all.y, part.y);
                for (int x = xs.first; x <= xs.last; ++x) {
                    all.x = window_at(p.x, x);
                    own.x = within(all.x, part.x);
                    body(in, all, own,
                         row_of(output_image(p), task / parts, {z, y, x}) * p.channels);
                }
            }
        }
    });
}

// Calls body.template operator()<vectors>(channel, count, done) for runs of channels: wide ones
// first, then vectors. The last vector begins before what is left, if it must, over `done` lanes
// that had their turn; only where there is no whole vector of channels has it fewer lanes to touch.
template <int most, class Body>
[[gnu::always_inline]] inline void each_run(int channels, const Body &body) {
    int c = 0;
    for (; c + most * lanes <= channels; c += most * lanes)
        body.template operator()<most>(c, lanes, 0);
    for (; c + lanes <= channels; c += lanes)
        body.template operator()<1>(c, lanes, 0);
    if (c < channels && channels > lanes)
        body.template operator()<1>(channels - lanes, lanes, c - (channels - lanes));
    else if (c < channels)
        body.template operator()<1>(0, channels, 0);
}

// Zeros in place of the lanes before `first`.
[[gnu::always_inline]] inline Vec without(Vec v, int first) {
    Places left;
    for (int lane = 0; lane < lanes; ++lane)
        left[lane] = lane >= first ? -1 : 0;
    return left ? v : Vec{};
}

// How far the window after next lies: every tap is a stream of its own, in pieces of a few
// channels, which the processor does not foresee.
int64_t ahead_of(const Pool &p) {
    return 2 * static_cast<int64_t>(smaller(p.x.stride, p.x.size)) * p.channels;
}

// Vector v of a tap's channels.
[[gnu::always_inline]] inline Vec read(const float *tap, int v, int count, int64_t ahead) {
    tap += v * lanes;
    if (v * lanes % fetched == 0)
        __builtin_prefetch(tap + ahead);
    return load_some(tap, count);
}

} // namespace

void max_pool(const Pool &p, Stream) {
    const int64_t ahead = ahead_of(p);
    each_output_row(p, [&](int64_t in, const Windows &at, int64_t out) {
        each_run<wide>(p.channels, [&]<int vectors>(int channel, int count, int) {
            const float *a = p.in + in + channel;
            Vec best[vectors];
            for (int v = 0; v < vectors; ++v)
                best[v] = Vec{} - infinity;
            each_tap(p, at, [&](int offset) {
                for (int v = 0; v < vectors; ++v) { // a NaN in the window is its maximum
                    const Vec other = read(a + offset, v, count, ahead);
                    const Vec larger = other > best[v] ? other : best[v]; // best, if that is NaN
                    best[v] = (Vec)((Places)larger | (other != other));   // all bits set are NaN
                }
            });
            for (int v = 0; v < vectors; ++v)
                store_some(p.result + out + channel + v * lanes, best[v], count);
        });
    });
}

void max_pool_relevance(const Pool &p, Stream stream) {
    const int64_t ahead = ahead_of(p);
    each_window(p, [&](int64_t in, const Windows &all, const Windows &own, int64_t out) {
        const int first = offset_of(p, all);
        each_run<wide_with_places>(p.channels, [&]<int vectors>(int channel, int count, int done) {
            const float *a = p.in + in + channel;
            Vec best[vectors], r[vectors];
            Places winner[vectors];
            for (int v = 0; v < vectors; ++v) {
                best[v] = Vec{} - infinity;
                winner[v] = Places{} + first;
            }
            const Vec top = Vec{} + infinity;
            each_tap(p, all, [&](int offset) { // as in torch, the first of equals or the last NaN
                for (int v = 0; v < vectors; ++v) {
                    const Vec other = read(a + offset, v, count, ahead);
                    winner[v] = best[v] >= other ? winner[v] : Places{} + offset;
                    const Vec bounded = other < top ? other : top; // after NaN, no number is better
                    best[v] = bounded > best[v] ? bounded : best[v];
                }
            });
            for (int v = 0; v < vectors; ++v)
                r[v] = without(load_some(p.r + out + channel + v * lanes, count), done);
            float *result = p.result + in + channel;
            each_tap(p, own, [&](int offset) {
                for (int v = 0; v < vectors; ++v) {
                    float *to = result + offset + v * lanes;
                    store_some(to, load_some(to, count) + (winner[v] == offset ? r[v] : Vec{}),
                               count);
                }
            });
        });
    });
    if (p.sent)
        message(*p.sent, p.n * Image{p.z.size, p.y.size, p.x.size, 1}.pixels(), p.channels, stream);
}

namespace {

void average_few(const Pool &p, int64_t in, const Windows &at, int64_t out) {
    const float divisor = divisor_of(p, at);
    const int64_t ahead = ahead_of(p);
    each_run<wide>(p.channels, [&]<int vectors>(int channel, int count, int) {
        const float *a = p.in + in + channel;
        Vec sum[vectors] = {};
        each_tap(p, at, [&](int offset) {
            for (int v = 0; v < vectors; ++v)
                sum[v] += read(a + offset, v, count, ahead);
        });
        for (int v = 0; v < vectors; ++v)
            store_some(p.result + out + channel + v * lanes, sum[v] / divisor, count);
    });
}

void average_many(const Pool &p, int64_t in, const Windows &at, int64_t out) {
    const float divisor = divisor_of(p, at);
    each_run<wide>(p.channels, [&]<int vectors>(int channel, int count, int) {
        const float *a = p.in + in + channel;
        Double sum[2 * vectors] = {};
        each_tap(p, at, [&](int offset) {
            float some[lanes];
            const bool whole = count >= lanes;
            if (!whole)
                store(some, load_some(a + offset, count));
            for (int h = 0; h < 2 * vectors; ++h)
                sum[h] += widened((whole ? a + offset : some) + h * half);
        });
        for (int v = 0; v < vectors; ++v) {
            float whole[lanes];
            for (int lane = 0; lane < lanes; ++lane)
                whole[lane] = static_cast<float>(sum[2 * v + lane / half][lane % half]);
            store_some(p.result + out + channel + v * lanes, load(whole) / divisor, count);
        }
    });
}

} // namespace

void average_pool(const Pool &p, Stream) {
    each_output_row(p, [&](int64_t in, const Windows &at, int64_t out) {
        const int64_t taps = int64_t{taps_of(at.z)} * taps_of(at.y) * taps_of(at.x);
        (taps > most_summed_as_floats ? average_many : average_few)(p, in, at, out);
    });
}

void average_pool_relevance(const Pool &p, Stream) {
    each_window(p, [&](int64_t in, const Windows &all, const Windows &own, int64_t out) {
        const float weight = 1.0f / divisor_of(p, all);
        each_run<wide>(p.channels, [&]<int vectors>(int channel, int count, int done) {
            const float *a = p.in ? p.in + in + channel : nullptr;
            float *result = p.result + in + channel;
            Vec r[vectors];
            for (int v = 0; v < vectors; ++v)
                r[v] = without(load_some(p.r + out + channel + v * lanes, count), done) * weight;
            each_tap(p, own, [&](int offset) {
                for (int v = 0; v < vectors; ++v) {
                    float *to = result + offset + v * lanes;
                    const Vec x = a ? load_some(a + offset + v * lanes, count) : Vec{} + 1.0f;
                    store_some(to, load_some(to, count) + x * r[v], count);
                }
            });
        });
    });
}

} // namespace relprop::RELPROP_ISA
