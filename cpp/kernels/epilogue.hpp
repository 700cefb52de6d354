// What is done to a finished row of sums: bias and clamp, a rule's message, or multiplication with
// the input. Included by product.cpp (tile by tile) and message.cpp (over whole tensors).
#pragma once

#include "kernels.hpp"
#include "scarce.hpp"
#include "simd.hpp"

namespace relprop::RELPROP_ISA {

// Sums Z- of a vector's neurons from their contributions where it is little beside what it is the
// difference of. Returns those channels, as bits.
[[gnu::noinline]] static uint32_t sum_little(const Message &m, int64_t row, int c, int count,
                                             Vec little, Vec bias, Vec &neg) {
    uint32_t marked = 0;
    for (int j = 0; j < count; ++j)
        if (little[j] > 0.0f) {
            const float sum = negative_sum(*m.contributions, row, c + j);
            neg[j] = sum;
            // a bias alone makes an s- too, which must not reach a product that errs
            marked |= sum < 0.0f || bias[j] < 0.0f ? uint32_t{1} << j : 0;
        }
    return marked;
}

// What a row's message has in common.
struct MessageRow {
    float keep;       // of the bias in the sums
    float fan_in;     // real inputs of the neurons, where that matters
    float bounded;    // 1 where the sums have a bound that holds where the product erred
    bool handed_down; // what the bias absorbed, to every input alike

    MessageRow(const Message &m, int64_t row)
        : keep(m.rule.bias == BiasMode::exclude ? 0.0f : 1.0f),
          fan_in(m.share || m.rule.kind == RuleKind::flat ? m.fan_in[row % m.fan_period] : 0.0f),
          bounded(m.z && (keep > 0.0f || !m.bias) ? 1.0f : 0.0f),
          handed_down(m.share && fan_in > 0.0f) {}
};

// What the ledger is told of a chunk, lane by lane.
struct Tally {
    Vec by_bias = {}, by_stabilizer = {}, sum = {}, magnitudes = {};

    [[gnu::always_inline]] void weigh(Vec r) {
        sum += r;
        magnitudes += r < 0.0f ? -r : r;
    }
    [[gnu::always_inline]] void store(float *to, bool biased) const {
        to[0] = biased ? horizontal(by_bias) : 0.0f;
        to[1] = horizontal(by_stabilizer);
        to[2] = horizontal(sum);
        to[3] = horizontal(magnitudes);
    }
};

static inline float *tally_of(const Message &m, int64_t row, int64_t chunk) {
    return m.tally ? m.tally + (row * m.chunks + chunk) * tally_sums : nullptr;
}

// `held` channels of a row from c on, at most a vector of them. `sums` is Z+ for alpha_beta and
// gamma, the plain sum for the rules that do not split; flat has none. Returns the scarce ones.
template <RuleKind kind>
[[gnu::always_inline]] static inline uint32_t
message_vector(const Message &m, const MessageRow &of_row, int64_t row, int channels, int c,
               int held, const float *sums, Tally &told) {
    Rule rule = m.rule;
    rule.kind = kind; // a constant from here on: message() loses its switch
    const int64_t at = row * channels + c;
    const int64_t z_at = (m.period ? row % m.period : row) * channels + c;
    const Vec sum = sums ? load_some(sums, held) : Vec{};
    const Vec b = m.bias ? load_some(m.bias + c, held) : Vec{};
    const Vec z = m.z ? load_some(m.z + z_at, held) : Vec{};
    const Vec r = load_some(m.r + at, held);
    const Vec kept = of_row.keep * b;
    const Vec kept_pos = kept > 0.0f ? kept : Vec{}, kept_neg = kept < 0.0f ? kept : Vec{};
    const Vec floor = of_row.bounded * least(z, b);
    uint32_t marked = 0;
    Sums<Vec> of{};
    if constexpr (kind == RuleKind::alpha_beta) {
        of.pos = (sum > floor ? sum : floor) + kept_pos;
        if (m.contributions) { // Z- is what z leaves of Z+
            const Vec most = least(z, b), pos = sum > most ? sum : most;
            of.neg = z - b - pos;
            const Vec scale = scarce_share * (pos + (b < 0.0f ? -b : b));
            const Vec scarce = -(of.neg + kept_neg) < scale ? Vec{} + 1.0f : Vec{};
            const Vec little = r != 0.0f ? scarce : Vec{};
            if (any(little))
                marked = sum_little(m, row, c, held, little, b, of.neg);
        } else if (m.s_neg) {
            of.neg = load_some(m.s_neg + at, held);
        }
        of.neg = (of.neg < 0.0f ? of.neg : Vec{}) + kept_neg;
    } else if constexpr (kind == RuleKind::gamma) {
        of.pos = (sum > floor ? sum : floor) + kept_pos;
        of.z = z + (b - kept);
        of.sum = z;
    } else { // what is kept of the bias is in the sums already
        of.sum = m.rule.kind == RuleKind::flat ? Vec{} + of_row.fan_in : sum;
    }
    const Parts<Vec> s = message(rule, of, r);
    const Vec by_bias = kept_pos * s.pos + kept_neg * s.neg;
    told.by_stabilizer += r - handed(rule, of, s);
    told.weigh(r);
    store_some(m.r + at, s.pos, held);
    if (m.s_neg)
        store_some(m.s_neg + at, s.neg, held);
    if (m.share)
        store_some(m.share + at, of_row.handed_down ? by_bias / of_row.fan_in : Vec{}, held);
    if (!of_row.handed_down)
        told.by_bias += by_bias;
    return marked;
}

// Channels [c, c + count) of one row, count <= panel. Apart from a product's loops, whose registers
// it would take.
template <RuleKind kind>
[[gnu::noinline]] static void message_row(const Message &m, int64_t row, int channels, int c,
                                          int count, const float *sums, int64_t chunk) {
    const MessageRow of_row(m, row);
    Tally told;
    uint32_t marked = 0;
    const auto vector = [&](int v, int held) __attribute__((always_inline)) {
        marked |= message_vector<kind>(m, of_row, row, channels, c + v, held,
                                       sums ? sums + v : nullptr, told)
                  << v;
    };
    if (count == panel) {
        vector(0, lanes);
        vector(lanes, lanes);
    } else {
        for (int v = 0; v < count; v += lanes)
            vector(v, smaller(lanes, count - v));
    }
    if (m.scarce)
        m.scarce[row * m.chunks + chunk] = marked;
    if (float *tally = tally_of(m, row, chunk))
        told.store(tally, m.bias);
}

// The rules that do not split have one message.
static inline void message_row(const Message &m, int64_t row, int channels, int c, int count,
                               const float *sums, int64_t chunk) {
    switch (m.rule.kind) {
    case RuleKind::alpha_beta:
        return message_row<RuleKind::alpha_beta>(m, row, channels, c, count, sums, chunk);
    case RuleKind::gamma:
        return message_row<RuleKind::gamma>(m, row, channels, c, count, sums, chunk);
    case RuleKind::gradient:
        return;
    default:
        return message_row<RuleKind::epsilon>(m, row, channels, c, count, sums, chunk);
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
    if (e.sends)
        message_row<RuleKind::epsilon>(e.message, row, channels, c, count, e.x + at, chunk);
}

} // namespace relprop::RELPROP_ISA
