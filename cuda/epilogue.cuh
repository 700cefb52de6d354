// What is done to one finished sum of a product: bias and clamp, a rule's message, or
// multiplication with the input. cpp/kernels/epilogue.hpp does the same by vectors. A warp holds
// the channels of one chunk of a row, a lane each.
#pragma once

#include <type_traits>

#include <cuda_runtime.h>

#include "contributions.hpp"
#include "lanes.cuh"
#include "sums.cuh"

namespace relprop::cuda {

// Channels of a row that one warp holds: what tally and scarce of Message are cut by.
constexpr int chunk_channels = warp_lanes;

// A message as a kernel takes it: the contributions lie beside it, not behind a pointer of the
// host. A kernel's parameter that holds one is `const __grid_constant__`: others are copied to each
// thread's stack for negative_sum.
struct MessageArguments {
    Message message;
    Contributions contributions;
    bool differs = false; // Z- is what z leaves of Z+; summed from contributions where it is little
};

inline MessageArguments arguments_of(const Message &message) {
    MessageArguments arguments{message, {}, message.contributions != nullptr};
    if (message.contributions)
        arguments.contributions = *message.contributions;
    return arguments;
}

// Calls body(constant) with a rule's kind as a constant of the compiler's; a gradient has no
// message.
template <class Body> void with_rule(RuleKind kind, const Body &body) {
    switch (kind) {
    case RuleKind::epsilon:
        return body(std::integral_constant<RuleKind, RuleKind::epsilon>{});
    case RuleKind::alpha_beta:
        return body(std::integral_constant<RuleKind, RuleKind::alpha_beta>{});
    case RuleKind::gamma:
        return body(std::integral_constant<RuleKind, RuleKind::gamma>{});
    case RuleKind::z_box:
        return body(std::integral_constant<RuleKind, RuleKind::z_box>{});
    case RuleKind::w_square:
        return body(std::integral_constant<RuleKind, RuleKind::w_square>{});
    case RuleKind::flat:
        return body(std::integral_constant<RuleKind, RuleKind::flat>{});
    case RuleKind::gradient:
        return;
    }
}

// What the ledger is told of a neuron, or of several.
struct Tally {
    float by_bias = 0.0f, by_stabilizer = 0.0f, sum = 0.0f, magnitudes = 0.0f;
};

// The sum of a neuron's negative contributions, by a warp together. Seldom called, and kept out of
// its callers' registers.
inline __device__ __noinline__ float negative_sum(const Contributions &of, int64_t row,
                                                  int channel) {
    const TapGrid &grid = of.grid;
    const Place to = place_at(row, {grid.to.depth, grid.to.height, grid.to.width, 1});
    float sum = 0.0f;
    for (int t = 0; t < grid.tap_count; ++t) {
        const Pixel from = moved(to.at, grid.step, grid.taps[t]);
        if (!inside(grid.from, from))
            continue;
        const float *a = source_of(of, row_of(grid.from, to.n, from), channel);
        const float *w = weights_of(of, channel, t);
        for (int k = lane_index(); k < of.run; k += warp_lanes) {
            const float product = a[k] * w[k * of.step];
            sum += product < 0.0f ? product : 0.0f;
        }
    }
    return warp_sum(sum);
}

// A neuron and what its message makes of it.
struct Neuron {
    float sum;    // Z+ for alpha_beta and gamma, the plain sum for the rules that do not split
    float r;      // in: relevance, out: s+
    float s_neg;  // in: Z- for alpha_beta, out: s-
    float z;      // with its bias
    float bias;   // 0: none
    float fan_in; // real inputs, where that matters
    float share;  // out: of the bias, per real input
};

template <RuleKind kind> __device__ float fan_in_of(const Message &m, int64_t row) {
    return m.share || kind == RuleKind::flat ? m.fan_in[row % m.fan_period] : 0.0f;
}

// The row of z that belongs to a row.
inline __device__ int64_t z_row_of(const Message &m, int64_t row) {
    return m.period ? row % m.period : row;
}

// Whether s_neg holds Z-.
template <RuleKind kind> __device__ bool reads_negative(const MessageArguments &a) {
    return kind == RuleKind::alpha_beta && a.message.s_neg && !a.differs;
}

// How much of the bias is in the sums.
__device__ inline float keep_of(const Rule &rule) {
    return rule.bias == BiasMode::exclude ? 0.0f : 1.0f;
}

// Sets a neuron's Z- to what z leaves of Z+, or to the sum of its contributions where that is
// little. Returns whether it is scarce. All lanes of a warp call it; not all need be `real`.
inline __device__ bool find_negative(const MessageArguments &a, int64_t row, int c, bool real,
                                     Neuron &of_neuron) {
    const float z = of_neuron.z, b = of_neuron.bias, kept = keep_of(a.message.rule) * b;
    const float most = least(z, b), pos = of_neuron.sum > most ? of_neuron.sum : most;
    of_neuron.s_neg = z - b - pos;
    const float scale = scarce_share * (pos + (b < 0.0f ? -b : b));
    const bool little =
        real && of_neuron.r != 0.0f && -(of_neuron.s_neg + (kept < 0.0f ? kept : 0.0f)) < scale;
    for (unsigned left = __ballot_sync(all_lanes, little); left != 0; left &= left - 1) {
        const int lane = __ffs(static_cast<int>(left)) - 1;
        const float sum = negative_sum(a.contributions, __shfl_sync(all_lanes, row, lane),
                                       __shfl_sync(all_lanes, c, lane));
        if (lane == lane_index())
            of_neuron.s_neg = sum;
    }
    // a bias alone makes an s- too, which must not reach a product that errs
    return little && (of_neuron.s_neg < 0.0f || b < 0.0f);
}

// The message of a neuron. Adds to its chunk's tally.
template <RuleKind kind> __device__ void send(const Message &m, Neuron &of_neuron, Tally &tally) {
    Rule rule = m.rule;
    rule.kind = kind; // a constant from here on: message() loses its switch
    const float keep = keep_of(rule);
    const float sum = of_neuron.sum, r = of_neuron.r, z = of_neuron.z, b = of_neuron.bias;
    const float kept = keep * b;
    const float kept_pos = kept > 0.0f ? kept : 0.0f, kept_neg = kept < 0.0f ? kept : 0.0f;
    // a bound that holds where the product erred
    const float floor = m.z && (keep > 0.0f || !m.bias) ? least(z, b) : 0.0f;
    Sums<float> of{};
    if constexpr (kind == RuleKind::alpha_beta) {
        of.pos = (sum > floor ? sum : floor) + kept_pos;
        of.neg = (of_neuron.s_neg < 0.0f ? of_neuron.s_neg : 0.0f) + kept_neg;
    } else if constexpr (kind == RuleKind::gamma) {
        of.pos = (sum > floor ? sum : floor) + kept_pos;
        of.z = z;
        of.sum = z - (b - kept);
    } else if constexpr (kind == RuleKind::epsilon) {
        of.sum = sum - (b - kept);
    } else if constexpr (kind == RuleKind::flat) {
        of.sum = of_neuron.fan_in;
    } else { // z_box, w_square: what is kept of the bias is in the sums already
        of.sum = sum;
    }
    const Parts<float> s = message(rule, of, r);
    const float by_bias = kept_pos * s.pos + kept_neg * s.neg;
    const bool handed_down = m.share && of_neuron.fan_in > 0.0f; // to every input alike
    tally.by_stabilizer += r - handed(rule, of, s);
    tally.sum += r;
    tally.magnitudes += fabsf(r);
    if (m.bias && !handed_down)
        tally.by_bias += by_bias;
    of_neuron.r = s.pos;
    of_neuron.s_neg = s.neg;
    of_neuron.share = handed_down ? by_bias / of_neuron.fan_in : 0.0f;
}

// Channels [c, c + width) of a row, from memory to memory: s+ over r, s- to s_neg, and the share.
// All lanes of a warp call its functions; those that are not `real` have none.
template <RuleKind kind, int width> struct MessageLanes {
    Lanes<width> r{}, z{};

    MessageLanes() = default;
    __device__ __forceinline__ MessageLanes(const MessageArguments &a, int64_t row, int channels,
                                            int c, bool real)
        : MessageLanes(a, row, channels, c, real, a.message.r + row * channels + c) {}
    // Of relevance that lies elsewhere.
    __device__ __forceinline__ MessageLanes(const MessageArguments &a, int64_t row, int channels,
                                            int c, bool real, const float *given) {
        const Message &m = a.message;
        const int64_t at = row * channels + c;
        if (!real)
            return;
        r = load<width>(given);
        if (m.z)
            z = load<width>(m.z + z_row_of(m, row) * channels + c);
        if (m.bias)
            bias_ = load<width>(m.bias + c);
        if (reads_negative<kind>(a))
            s_neg_ = load<width>(m.s_neg + at);
        fan_in_ = fan_in_of<kind>(m, row);
    }
    // Of a sum whose relevance and z are in registers.
    __device__ __forceinline__ MessageLanes(const Message &m, int c, bool real) {
        if (real && m.bias)
            bias_ = load<width>(m.bias + c);
    }

    // Given what the product, or z, makes of them. Returns the scarce ones, as bits.
    __device__ __forceinline__ uint32_t finish(const MessageArguments &a, int64_t row, int channels,
                                               int c, bool real, const Lanes<width> &sums,
                                               Tally &tally) {
        const Message &m = a.message;
        const int64_t at = row * channels + c;
        Lanes<width> share{};
        uint32_t marked = 0;
#pragma unroll
        for (int i = 0; i < width; ++i) {
            Neuron neuron{sums.at[i], r.at[i], s_neg_.at[i], z.at[i], bias_.at[i], fan_in_, 0.0f};
            if (kind == RuleKind::alpha_beta && a.differs)
                marked |= uint32_t{find_negative(a, row, c + i, real, neuron)} << i;
            if (real)
                send<kind>(m, neuron, tally);
            r.at[i] = neuron.r;
            s_neg_.at[i] = neuron.s_neg;
            share.at[i] = neuron.share;
        }
        if (!real)
            return 0;
        store(m.r + at, r);
        if (m.s_neg)
            store(m.s_neg + at, s_neg_);
        if (m.share)
            store(m.share + at, share);
        return marked;
    }

  private:
    Lanes<width> bias_{}, s_neg_{};
    float fan_in_ = 0.0f;
};

// What `lanes` neighbours of a warp tell of their chunk of a row, and the bits of those that
// are scarce; all that the mask names call it, those beyond the last channel with nothing, and
// those beyond the last row are not `real`.
template <int lanes>
__device__ void store_chunk(const Message &m, int64_t row, int64_t chunk, Tally tally,
                            uint32_t marked, bool real, unsigned mask = all_lanes) {
    if (m.tally)
        tally = {warp_sum<lanes>(tally.by_bias, mask), warp_sum<lanes>(tally.by_stabilizer, mask),
                 warp_sum<lanes>(tally.sum, mask), warp_sum<lanes>(tally.magnitudes, mask)};
    if (m.scarce)
        marked = warp_sum<lanes>(marked, mask); // no two have the same bit
    if (!real || lane_index() % lanes != 0)
        return;
    if (m.scarce)
        m.scarce[row * m.chunks + chunk] = marked;
    if (m.tally)
        store(m.tally + (row * m.chunks + chunk) * tally_sums,
              Lanes<tally_sums>{{tally.by_bias, tally.by_stabilizer, tally.sum, tally.magnitudes}});
}

// The message of a layer whose relevance r is complete, x being its z; it goes where r would. All
// lanes that hold a chunk of a row call it together.
template <int width>
__device__ __forceinline__ void send_on(const MessageArguments &a, int64_t row, int channels, int c,
                                        bool real, const Lanes<width> &x, const Lanes<width> &r) {
    constexpr int lanes = chunk_channels / width;
    MessageLanes<RuleKind::epsilon, width> own(a.message, c, real);
    own.r = r;
    Tally tally;
    own.finish(a, row, channels, c, real, x, tally);
    store_chunk<lanes>(a.message, row, c / chunk_channels, tally, 0, real, neighbours<lanes>());
}

// x, or 0 where it is not of this part.
inline __device__ float part_of(Part part, float x) {
    if (part == Part::all)
        return x;
    return (part == Part::positive ? x > 0.0f : x < 0.0f) ? x : 0.0f;
}

// What else becomes part of one channel of a row, or of four neighbours.
template <int width> struct Beside {
    Lanes<width> bias{}, x{}, before{};

    Beside() = default;
    __device__ __forceinline__ Beside(const Epilogue &e, int64_t at, int c) {
        const bool forward = e.kind == EpilogueKind::forward;
        if (forward && e.bias)
            bias = load<width>(e.bias + c);
        if (!forward && e.x)
            x = load<width>(e.x + at);
        if (!forward && e.add)
            before = load<width>(e.out + at);
    }
};

// Relevance, from its finished sums.
template <int width>
__device__ __forceinline__ Lanes<width> relevance_of(const Epilogue &e, Lanes<width> sums,
                                                     const Beside<width> &beside) {
#pragma unroll
    for (int i = 0; i < width; ++i) {
        if (e.x)
            sums.at[i] *= part_of(e.part, beside.x.at[i]);
        if (e.add)
            sums.at[i] += beside.before.at[i];
    }
    return sums;
}

// Forward and relevance.
template <int width>
__device__ __forceinline__ void epilogue_values(const Epilogue &e, int64_t at, Lanes<width> sums,
                                                const Beside<width> &beside) {
    if (e.kind == EpilogueKind::relevance)
        return store(e.out + at, relevance_of(e, sums, beside));
#pragma unroll
    for (int i = 0; i < width; ++i) {
        float &sum = sums.at[i];
        if (e.bias)
            sum += beside.bias.at[i];
        if (e.low < e.high) { // comparisons that let NaN through
            sum = sum < e.low ? e.low : sum;
            sum = sum > e.high ? e.high : sum;
        }
    }
    store(e.out + at, sums);
}

} // namespace relprop::cuda
