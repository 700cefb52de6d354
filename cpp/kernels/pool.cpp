// Pooling, forward and relevance. Relevance is scattered window by window; a task owns some
// channels of one sample, so no two tasks write to the same place.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

constexpr int strip = 64; // channels that a task owns at most

int64_t strips_of(const Pool &p) { return ceil_div(p.channels, strip); }

Image input_image(const Pool &p) { return {p.z.size, p.y.size, p.x.size, p.channels}; }
Image output_image(const Pool &p) { return {p.z.outputs, p.y.outputs, p.x.outputs, p.channels}; }

// A window in space.
struct Windows {
    Window z, y, x;
};

// Calls body(input offset of the tap, ordinal of the tap) for the taps of a window, in row order.
template <class Body>
[[gnu::always_inline]] inline void each_tap(const Pool &p, const Windows &at, const Body &body) {
    int tap = 0;
    for (int z = at.z.begin; z < at.z.end; z += at.z.step)
        for (int y = at.y.begin; y < at.y.end; y += at.y.step)
            for (int x = at.x.begin; x < at.x.end; x += at.x.step)
                body(row_of(input_image(p), 0, {z, y, x}) * p.channels, tap++);
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

void clear(const Pool &p, int64_t n, int first, int count) {
    if (p.add)
        return;
    const int64_t pixels = input_image(p).pixels();
    for (int64_t i = n * pixels; i < (n + 1) * pixels; ++i)
        for (int c = 0; c < count; ++c)
            p.result[i * p.channels + first + c] = 0.0f;
}

// Calls body(offset of the sample's input, windows, offset of the output pixel's channels) for
// every window of the task's sample, after clearing the task's part of the result.
template <class Body> void each_window(const Pool &p, const Body &body) {
    parallel_for(p.n * strips_of(p), [&](int64_t task) {
        const int64_t n = task / strips_of(p);
        const int first = static_cast<int>(task % strips_of(p)) * strip;
        const int count = smaller(strip, p.channels - first);
        clear(p, n, first, count);
        const int64_t in = n * input_image(p).size() + first;
        int64_t out = n * output_image(p).size() + first;
        for (int z = 0; z < p.z.outputs; ++z)
            for (int y = 0; y < p.y.outputs; ++y)
                for (int x = 0; x < p.x.outputs; ++x, out += p.channels)
                    body(in, {window_at(p.z, z), window_at(p.y, y), window_at(p.x, x)}, out, count);
    });
}

} // namespace

void max_pool(const Pool &p, Stream) {
    each_output_row(p, [&](int64_t in, const Windows &at, int64_t out) {
        float *best = p.result + out;
        each_tap(p, at, [&](int64_t offset, int tap) {
            const float *a = p.in + in + offset;
            if (tap == 0)
                for (int c = 0; c < p.channels; ++c)
                    best[c] = a[c];
            else
                for (int c = 0; c < p.channels; ++c) // not less: lets NaN through
                    best[c] = a[c] <= best[c] ? best[c] : a[c];
        });
    });
}

void max_pool_relevance(const Pool &p, Stream) {
    each_window(p, [&](int64_t in, const Windows &at, int64_t out, int count) {
        float best[strip];
        int winner[strip];
        each_tap(p, at, [&](int64_t offset, int tap) {
            const float *a = p.in + in + offset;
            for (int c = 0; c < count; ++c) { // ties go to the first, as in torch
                const bool better = tap == 0 || a[c] > best[c];
                winner[c] = better ? tap : winner[c];
                best[c] = better ? a[c] : best[c];
            }
        });
        each_tap(p, at, [&](int64_t offset, int tap) {
            float *r = p.result + in + offset;
            for (int c = 0; c < count; ++c) {
                const float s = p.r[out + c]; // read in any case, so that the loop becomes vectors
                r[c] += winner[c] == tap ? s : 0.0f;
            }
        });
    });
}

void average_pool(const Pool &p, Stream) {
    each_output_row(p, [&](int64_t in, const Windows &at, int64_t out) {
        float *sum = p.result + out;
        const float divisor = divisor_of(p, at);
        for (int c = 0; c < p.channels; ++c)
            sum[c] = 0.0f;
        each_tap(p, at, [&](int64_t offset, int) {
            const float *a = p.in + in + offset;
            for (int c = 0; c < p.channels; ++c)
                sum[c] += a[c];
        });
        for (int c = 0; c < p.channels; ++c)
            sum[c] /= divisor;
    });
}

void average_pool_relevance(const Pool &p, Stream) {
    each_window(p, [&](int64_t in, const Windows &at, int64_t out, int count) {
        const float divisor = divisor_of(p, at);
        each_tap(p, at, [&](int64_t offset, int) {
            float *r = p.result + in + offset;
            if (!p.in) {
                for (int c = 0; c < count; ++c)
                    r[c] += p.r[out + c] / divisor;
                return;
            }
            const float *a = p.in + in + offset;
            for (int c = 0; c < count; ++c)
                r[c] += a[c] * p.r[out + c] / divisor;
        });
    });
}

} // namespace relprop::RELPROP_ISA
