// Neurons whose Z- is scarce beside Z+, contribution by contribution: its sum, and what it hands
// down. They are few, so that plain loops over their inputs cost next to nothing.
#include "scarce.hpp"
#include "backend.hpp"
#include "panels.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

[[gnu::always_inline]] inline Vec negative(Vec v) { return v < 0.0f ? v : Vec{}; }
[[gnu::always_inline]] inline float negative(float v) { return v < 0.0f ? v : 0.0f; }

// Floats that lie `step` apart.
[[gnu::always_inline]] inline Vec load_apart(const float *from, int64_t step) {
    if (step == 1)
        return load(from);
    float some[lanes];
    for (int lane = 0; lane < lanes; ++lane)
        some[lane] = from[lane * step];
    return load(some);
}

// Calls body(channel) for every channel of an output row that is marked.
template <class Body>
void each_marked(const TapGrid &grid, const uint32_t *words, const Body &body) {
    const int panels = panels_of(outputs_of(grid));
    for (int chunk = 0; chunk < grid.groups * panels; ++chunk)
        for (uint32_t left = words[chunk]; left != 0; left &= left - 1)
            body(chunk / panels * outputs_of(grid) + chunk % panels * panel + __builtin_ctz(left));
}

// An input row of a layer of stride 1 takes what the marked neurons above it hand down, tap by tap
// in one fixed order.
void take(const Scarce &job, int64_t chunks, int64_t n, int z, int y) {
    const Contributions &of = job.contributions;
    const TapGrid &grid = of.grid;
    for (int t = 0; t < grid.tap_count; ++t) {
        const Pixel tap = grid.taps[t];
        const Pixel at = {z - tap.z, y - tap.y, 0};
        if (!inside(grid.to, at))
            continue;
        for (int x = 0; x < grid.to.width; ++x) {
            const Pixel from = {z, y, x + tap.x};
            if (!inside(grid.from, from))
                continue;
            const int64_t row = row_of(grid.to, n, {at.z, at.y, x});
            const int64_t source = row_of(grid.from, n, from);
            each_marked(grid, job.marked + row * chunks, [&](int channel) {
                const float s = job.s_neg[row * grid.to.channels + channel];
                const float *a = source_of(of, source, channel);
                const float *w = weights_of(of, channel, t);
                float *out = job.relevance + (a - of.x);
                int k = 0;
                for (; k + lanes <= of.run; k += lanes)
                    store(out + k,
                          load(out + k) +
                              s * negative(load(a + k) * load_apart(w + k * of.step, of.step)));
                for (; k < of.run; ++k)
                    out[k] += s * negative(a[k] * w[k * of.step]);
            });
        }
    }
}

} // namespace

float negative_sum(const Contributions &of, int64_t row, int channel) {
    const TapGrid &grid = of.grid;
    const auto [n, at, _] = place_at(row, {grid.to.depth, grid.to.height, grid.to.width, 1});
    Vec sums = {};
    float rest = 0.0f;
    for (int t = 0; t < grid.tap_count; ++t) {
        const Pixel from = moved(at, grid.step, grid.taps[t]);
        if (!inside(grid.from, from))
            continue;
        const float *a = source_of(of, row_of(grid.from, n, from), channel);
        const float *w = weights_of(of, channel, t);
        int k = 0;
        for (; k + lanes <= of.run; k += lanes)
            sums += negative(load(a + k) * load_apart(w + k * of.step, of.step));
        for (; k < of.run; ++k)
            rest += negative(a[k] * w[k * of.step]);
    }
    return horizontal(sums) + rest;
}

bool scarce(const Scarce &job, Stream) {
    const TapGrid &grid = job.contributions.grid;
    const int64_t n = job.contributions.n, rows = n * grid.to.pixels();
    const int64_t chunks = static_cast<int64_t>(grid.groups) * panels_of(outputs_of(grid));
    uint32_t any = 0;
    for (int64_t i = 0; i < rows * chunks; ++i)
        any |= job.marked[i];
    if (any == 0)
        return false;
    const int64_t per_row = static_cast<int64_t>(grid.from.width) * grid.from.channels;
    parallel_for(n * grid.from.depth * grid.from.height, [&](int64_t task) {
        if (!job.add)
            for (int64_t i = 0; i < per_row; ++i)
                job.relevance[task * per_row + i] = 0.0f;
        const auto [sample, at, _] = place_at(task, {grid.from.depth, grid.from.height, 1, 1});
        take(job, chunks, sample, at.z, at.y);
    });
    parallel_for(n * grid.to.depth * grid.to.height, [&](int64_t task) {
        for (int64_t row = task * grid.to.width; row < (task + 1) * grid.to.width; ++row)
            each_marked(grid, job.marked + row * chunks,
                        [&](int channel) { job.s_neg[row * grid.to.channels + channel] = 0.0f; });
    });
    return true;
}

} // namespace relprop::RELPROP_ISA
