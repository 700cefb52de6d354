// What is done to a finished row of sums: bias and clamp, a rule's message, or multiplication with
// the input. Included by product.cpp (tile by tile) and message.cpp (over whole tensors).
#pragma once

#include "kernels.hpp"
#include "scarce.hpp"
#include "simd.hpp"

namespace relprop::RELPROP_ISA {

// A panel of values of which only `count` are there; zeros where they are not, or `from` is null.
// With whole panels in place the loops below have no branch and become vectors.
struct Panel {
    alignas(64) float of[panel];

    Panel(const float *from, int count) {
        const bool whole = from && count == panel;
        for (int v = 0; v < panel; v += lanes)
            store(of + v, whole ? load(from + v) : Vec{});
        if (from && !whole)
            for (int j = 0; j < count; ++j)
                of[j] = from[j];
    }
    void put(float *to, int count) const {
        if (count == panel)
            for (int j = 0; j < panel; ++j)
                to[j] = of[j];
        else
            for (int j = 0; j < count; ++j)
                to[j] = of[j];
    }
    float sum() const { return horizontal(load(of) + load(of + lanes)); }
};

// Z+ is at least what z is without its bias, but for what rounding to the bias's size has cost.
[[gnu::always_inline]] static inline float least(float z, float b) {
    constexpr float rounding = 1.2e-7f;
    const float left = z - b - rounding * (b < 0.0f ? -b : b);
    return left > 0.0f ? left : 0.0f;
}

// Z- of a panel's neurons as what z leaves of Z+, and from their contributions where that is little
// beside what it is the difference of. Returns those channels, as bits.
static uint32_t negative_parts(const Message &m, int64_t row, int c, int count, const Panel &sum,
                               const Panel &z, const Panel &bias, float keep, const Panel &r,
                               Panel &neg) {
    Panel little(nullptr, 0);
    for (int j = 0; j < panel; ++j) {
        const float b = bias.of[j], left = z.of[j] - b, floor = least(z.of[j], b);
        const float pos = sum.of[j] > floor ? sum.of[j] : floor;
        const float kept = b < 0.0f ? keep * b : 0.0f;
        neg.of[j] = left - pos;
        const float scale = scarce_share * (pos + (b < 0.0f ? -b : b));
        little.of[j] = r.of[j] != 0.0f && -(neg.of[j] + kept) < scale ? 1.0f : 0.0f;
    }
    uint32_t marked = 0;
    if (little.sum() > 0.0f)
        for (int j = 0; j < count; ++j)
            if (little.of[j] > 0.0f) {
                neg.of[j] = negative_sum(*m.contributions, row, c + j);
                // a bias alone makes an s- too, which must not reach a product that errs
                marked |= neg.of[j] < 0.0f || bias.of[j] < 0.0f ? uint32_t{1} << j : 0;
            }
    return marked;
}

// Channels [c, c + count) of one row, count <= panel. `sums` is Z+ for alpha_beta and gamma, the
// plain sum for the rules that do not split; flat has none.
template <RuleKind kind>
static void message_row(const Message &m, int64_t row, int channels, int c, int count,
                        const float *sums, int64_t chunk) {
    Rule rule = m.rule;
    rule.kind = kind; // a constant from here on: message() loses its switch
    const bool distribute = m.bias && rule.bias == BiasMode::distribute;
    const float keep = rule.bias == BiasMode::exclude ? 0.0f : 1.0f;
    const float fan_in = m.fan_in ? m.fan_in[row % m.fan_period] : 0.0f;
    const int64_t at = row * channels + c;
    const Panel sum(sums, count), bias(m.bias ? m.bias + c : nullptr, count);
    const Panel z(m.z ? m.z + (m.period ? row % m.period : row) * channels + c : nullptr, count);
    Panel r(m.r + at, count);
    Panel neg(m.s_neg && !m.contributions ? m.s_neg + at : nullptr, count);
    Panel by_bias(nullptr, 0), by_stabilizer(nullptr, 0);

    if constexpr (kind == RuleKind::alpha_beta)
        if (m.contributions) {
            const uint32_t marked = negative_parts(m, row, c, count, sum, z, bias, keep, r, neg);
            if (m.scarce)
                m.scarce[row * m.chunks + chunk] = marked;
        }

    // A bound that holds where the product erred.
    const float bounded = m.z && (keep > 0.0f || !m.bias) ? 1.0f : 0.0f;
    for (int j = 0; j < panel; ++j) {
        const float b = bias.of[j], kept = keep * b;
        const float kept_pos = kept > 0.0f ? kept : 0.0f;
        const float kept_neg = kept < 0.0f ? kept : 0.0f;
        const float floor = bounded * least(z.of[j], b);
        Sums of{0.0f, 0.0f, 0.0f, 0.0f};
        if constexpr (kind == RuleKind::alpha_beta) {
            of.pos = (sum.of[j] > floor ? sum.of[j] : floor) + kept_pos;
            of.neg = (neg.of[j] < 0.0f ? neg.of[j] : 0.0f) + kept_neg;
        } else if constexpr (kind == RuleKind::gamma) {
            of.pos = (sum.of[j] > floor ? sum.of[j] : floor) + kept_pos;
            of.z = z.of[j];
            of.sum = z.of[j] - (b - kept);
        } else if constexpr (kind == RuleKind::epsilon) {
            of.sum = sum.of[j] - (b - kept);
        } else if constexpr (kind == RuleKind::flat) {
            of.sum = fan_in;
        } else { // z_box, w_square: what is kept of the bias is in the sums already
            of.sum = sum.of[j];
        }
        const Parts s = message(rule, of, r.of[j]);
        by_bias.of[j] = kept_pos * s.pos + kept_neg * s.neg;
        by_stabilizer.of[j] = r.of[j] - handed(rule, of, s);
        r.of[j] = s.pos;
        neg.of[j] = s.neg;
    }
    r.put(m.r + at, count);
    if (m.s_neg)
        neg.put(m.s_neg + at, count);
    if (m.share) {
        const bool handed_down = distribute && fan_in > 0.0f;
        for (int j = 0; j < count; ++j)
            m.share[at + j] = handed_down ? by_bias.of[j] / fan_in : 0.0f;
        if (handed_down)
            by_bias = Panel(nullptr, 0);
    }
    if (m.absorbed) {
        float *pair = m.absorbed + (row * m.chunks + chunk) * 2;
        pair[0] = by_bias.sum();
        pair[1] = by_stabilizer.sum();
    }
}

static inline void message_row(const Message &m, int64_t row, int channels, int c, int count,
                               const float *sums, int64_t chunk) {
    switch (m.rule.kind) {
    case RuleKind::epsilon:
        return message_row<RuleKind::epsilon>(m, row, channels, c, count, sums, chunk);
    case RuleKind::alpha_beta:
        return message_row<RuleKind::alpha_beta>(m, row, channels, c, count, sums, chunk);
    case RuleKind::gamma:
        return message_row<RuleKind::gamma>(m, row, channels, c, count, sums, chunk);
    case RuleKind::z_box:
        return message_row<RuleKind::z_box>(m, row, channels, c, count, sums, chunk);
    case RuleKind::w_square:
        return message_row<RuleKind::w_square>(m, row, channels, c, count, sums, chunk);
    case RuleKind::flat:
        return message_row<RuleKind::flat>(m, row, channels, c, count, sums, chunk);
    case RuleKind::gradient:
        return;
    }
}

// Fetches what epilogue_row will read and write of a row, while its sums are still to be computed:
// rows of the destination follow no stream that the processor foresees.
[[gnu::always_inline]] static inline void fetch_row(const Epilogue &e, int64_t row, int channels,
                                                    int c) {
    const bool message = e.kind == EpilogueKind::message;
    const float *read = message ? e.message.z : e.x, *written = message ? e.message.r : e.out;
    const int64_t at = row * channels + c;
    constexpr int line = 16;
    for (int j = 0; j < panel; j += line) {
        if (read)
            __builtin_prefetch(read + at + j);
        __builtin_prefetch(written + at + j, 1);
    }
}

[[gnu::always_inline]] static inline void get(const float *from, Vec &v) { v = load(from); }
[[gnu::always_inline]] static inline void get(const float *from, float &v) { v = *from; }
[[gnu::always_inline]] static inline void put(float *to, Vec v) { store(to, v); }
[[gnu::always_inline]] static inline void put(float *to, float v) { *to = v; }

// Forward and relevance for one channel of a row, or as many as a vector holds.
template <class T>
[[gnu::always_inline]] inline void epilogue_at(const Epilogue &e, int64_t at, int c,
                                               const float *from) {
    T sum, other;
    get(from, sum);
    if (e.kind == EpilogueKind::forward) {
        if (e.bias) {
            get(e.bias + c, other);
            sum += other;
        }
        if (e.low < e.high) { // comparisons that let NaN through
            const T low = T{} + e.low, high = T{} + e.high;
            sum = sum < low ? low : sum;
            sum = sum > high ? high : sum;
        }
    } else {
        if (e.x) {
            get(e.x + at, other);
            if (e.part != Part::all)
                other = (e.part == Part::positive ? other > T{} : other < T{}) ? other : T{};
            sum *= other;
        }
        if (e.add) {
            get(e.out + at, other);
            sum += other;
        }
    }
    put(e.out + at, sum);
}

// Channels [c, c + count) of destination row `row` from a product's finished sums.
static inline void epilogue_row(const Epilogue &e, int64_t row, int channels, int c, int count,
                                const float *sums, int64_t chunk) {
    if (e.kind == EpilogueKind::message)
        return message_row(e.message, row, channels, c, count, sums, chunk);
    const int64_t at = row * channels + c;
    int j = 0;
    for (; j + lanes <= count; j += lanes)
        epilogue_at<Vec>(e, at + j, c + j, sums + j);
    for (; j < count; ++j)
        epilogue_at<float>(e, at + j, c + j, sums + j);
}

} // namespace relprop::RELPROP_ISA
