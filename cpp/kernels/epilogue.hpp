// What is done to a finished row of sums: bias and clamp, a rule's message, or multiplication with
// the input. Included by product.cpp (tile by tile) and message.cpp (over whole tensors).
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace relprop::RELPROP_ISA {

// Channels [c, c + count) of one row, count <= panel. `sums` is Z+ for alpha_beta and gamma, the
// plain sum for the rules that do not split; flat has none.
template <RuleKind kind>
static void message_row(const Message &m, int64_t row, int channels, int c, int count,
                        const float *sums, int64_t chunk) {
    Rule rule = m.rule;
    rule.kind = kind; // a constant from here on: message() loses its switch
    const bool keep_bias = m.bias != nullptr && rule.bias != BiasMode::exclude;
    const bool distribute = keep_bias && rule.bias == BiasMode::distribute;
    const float fan_in = m.fan_in ? m.fan_in[row % m.fan_period] : 0.0f;
    const int64_t at = row * channels + c;
    const float *z = m.z ? m.z + (m.period ? row % m.period : row) * channels + c : nullptr;
    float *r = m.r + at;
    float *neg = m.s_neg ? m.s_neg + at : nullptr;

    alignas(64) float by_bias[panel] = {}, by_stabilizer[panel] = {};
    for (int j = 0; j < count; ++j) {
        const float b = m.bias ? m.bias[c + j] : 0.0f;
        const float kept = keep_bias ? b : 0.0f;
        const float kept_pos = kept > 0.0f ? kept : 0.0f;
        const float kept_neg = kept < 0.0f ? kept : 0.0f;
        Sums of{0.0f, 0.0f, 0.0f, 0.0f};
        // Z+ with its bias is at least z: a bound that holds where the product erred.
        const float floor = z && b == kept && z[j] > b ? z[j] - b : 0.0f;
        if constexpr (kind == RuleKind::alpha_beta) {
            of.pos = (sums[j] > floor ? sums[j] : floor) + kept_pos;
            of.neg = neg ? (neg[j] < 0.0f ? neg[j] : 0.0f) + kept_neg : 0.0f;
        } else if constexpr (kind == RuleKind::gamma) {
            of.pos = (sums[j] > floor ? sums[j] : floor) + kept_pos;
            of.z = z[j];
            of.sum = z[j] - (b - kept);
        } else if constexpr (kind == RuleKind::epsilon) {
            of.sum = sums[j] - (b - kept);
        } else if constexpr (kind == RuleKind::flat) {
            of.sum = fan_in;
        } else { // z_box, w_square: what is kept of the bias is in the sums already
            of.sum = sums[j];
        }
        const Parts s = message(rule, of, r[j]);
        by_bias[j] = kept_pos * s.pos + kept_neg * s.neg;
        by_stabilizer[j] = r[j] - handed(rule, of, s);
        r[j] = s.pos;
        if (neg)
            neg[j] = s.neg;
    }
    if (m.share)
        for (int j = 0; j < count; ++j) {
            const bool handed_down = distribute && fan_in > 0.0f;
            m.share[at + j] = handed_down ? by_bias[j] / fan_in : 0.0f;
            by_bias[j] = handed_down ? 0.0f : by_bias[j];
        }
    if (m.absorbed) {
        float *pair = m.absorbed + (row * m.chunks + chunk) * 2;
        pair[0] = horizontal(load(by_bias) + load(by_bias + lanes));
        pair[1] = horizontal(load(by_stabilizer) + load(by_stabilizer + lanes));
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
    }
}

// Channels [c, c + count) of destination row `row` from a product's finished sums.
static inline void epilogue_row(const Epilogue &e, int64_t row, int channels, int c, int count,
                                const float *sums, int64_t chunk) {
    const int64_t at = row * channels + c;
    switch (e.kind) {
    case EpilogueKind::forward:
        for (int j = 0; j < count; ++j) {
            float y = sums[j] + (e.bias ? e.bias[c + j] : 0.0f);
            if (e.low < e.high) { // comparisons that let NaN through
                y = y < e.low ? e.low : y;
                y = y > e.high ? e.high : y;
            }
            e.out[at + j] = y;
        }
        return;
    case EpilogueKind::relevance:
        for (int j = 0; j < count; ++j) {
            const float r = e.x ? e.x[at + j] * sums[j] : sums[j];
            e.out[at + j] = e.add ? e.out[at + j] + r : r;
        }
        return;
    case EpilogueKind::message:
        message_row(e.message, row, channels, c, count, sums, chunk);
        return;
    }
}

} // namespace relprop::RELPROP_ISA
