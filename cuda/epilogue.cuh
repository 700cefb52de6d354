// What is done to one finished sum of a product: bias and clamp, a rule's message, or
// multiplication with the input. cpp/kernels/epilogue.hpp does the same by vectors. A lane holds a
// channel of a row or four, as many lanes as that takes a chunk.
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

// Calls body(constant) with a rule's kind as a constant of the compiler's. The rules that do not
// split have one message, epsilon's; a gradient has none.
template <class Body> void with_rule(RuleKind kind, const Body &body) {
    switch (kind) {
    case RuleKind::alpha_beta:
        return body(std::integral_constant<RuleKind, RuleKind::alpha_beta>{});
    case RuleKind::gamma:
        return body(std::integral_constant<RuleKind, RuleKind::gamma>{});
    case RuleKind::gradient:
        return;
    default:
        return body(std::integral_constant<RuleKind, RuleKind::epsilon>{});
    }
}

// Where a lane is: its channels of a row.
struct LanePlace {
    int64_t row;
    int channels, c; // all of a row, and the lane's first
    bool real;       // neither beyond the last row nor beyond the last channel

    __device__ int64_t at() const { return row * channels + c; }
};

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
};

inline __device__ float fan_in_of(const Message &m, int64_t row) {
    return m.share || m.rule.kind == RuleKind::flat ? m.fan_in[row % m.fan_period] : 0.0f;
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

// The message of a neuron. Adds to its chunk's tally. What it asks is the same for all neurons of
// a launch, so that a lane's neurons are computed beside each other.
template <RuleKind kind>
__device__ __forceinline__ void send(const Message &m, Neuron &of_neuron, Tally &tally) {
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
        of.z = z + (b - kept);
        of.sum = z;
    } else { // what is kept of the bias is in the sums already
        of.sum = m.rule.kind == RuleKind::flat ? of_neuron.fan_in : sum;
    }
    const Parts<float> s = message(rule, of, r);
    tally.by_stabilizer += r - handed(rule, of, s);
    tally.sum += r;
    tally.magnitudes += fabsf(r);
    of_neuron.r = s.pos;
    of_neuron.s_neg = s.neg;
}

// A lane's channels of a bias; none where there is none.
template <int width>
__device__ __forceinline__ Lanes<width> bias_at(const float *bias, const LanePlace &place) {
    return place.real && bias ? load<width>(bias + place.c) : Lanes<width>{};
}

// Channels [c, c + width) of a row, from memory to memory: s+ over r, s- to s_neg, and the share.
// All lanes of a warp call its functions; those that are not `real` have none.
template <RuleKind kind, int width> struct MessageLanes {
    Lanes<width> r{}, z{};

    MessageLanes() = default;
    __device__ __forceinline__ MessageLanes(const MessageArguments &a, const LanePlace &place)
        : MessageLanes(a, place, a.message.r + place.at()) {}
    // Of relevance that lies elsewhere.
    __device__ __forceinline__ MessageLanes(const MessageArguments &a, const LanePlace &place,
                                            const float *given) {
        const Message &m = a.message;
        if (!place.real)
            return;
        r = load<width>(given);
        if (m.z)
            z = load<width>(m.z + z_row_of(m, place.row) * place.channels + place.c);
        if (reads_negative<kind>(a))
            s_neg_ = load<width>(m.s_neg + place.at());
        fan_in_ = fan_in_of(m, place.row);
    }

    // Given what the product, or z, makes of them, and their bias. Returns the scarce ones, as
    // bits.
    __device__ __forceinline__ uint32_t finish(const MessageArguments &a, const LanePlace &place,
                                               const Lanes<width> &sums, const Lanes<width> &bias,
                                               Tally &tally) {
        const Message &m = a.message;
        uint32_t marked = 0;
        if (kind == RuleKind::alpha_beta && a.differs)
            marked = find_negative(a, place, sums, bias);
#pragma unroll
        for (int i = 0; i < width; ++i) {
            Neuron neuron{sums.at[i], r.at[i], s_neg_.at[i], z.at[i], bias.at[i], fan_in_};
            send<kind>(m, neuron, tally);
            r.at[i] = neuron.r;
            s_neg_.at[i] = neuron.s_neg;
        }
        const bool handed_down = m.share && fan_in_ > 0.0f; // to every input alike
        Lanes<width> by_bias{};
        if (m.bias)
#pragma unroll
            for (int i = 0; i < width; ++i) {
                const float kept = keep_of(m.rule) * bias.at[i];
                by_bias.at[i] = kept * (kept > 0.0f ? r.at[i] : s_neg_.at[i]);
                tally.by_bias += handed_down ? 0.0f : by_bias.at[i];
            }
        if (!place.real) {
            tally = {};
            return 0;
        }
        store(m.r + place.at(), r);
        if (m.s_neg)
            store(m.s_neg + place.at(), s_neg_);
        if (m.share) {
#pragma unroll
            for (int i = 0; i < width; ++i)
                by_bias.at[i] = handed_down ? by_bias.at[i] / fan_in_ : 0.0f;
            store(m.share + place.at(), by_bias);
        }
        return marked;
    }

  private:
    // Sets Z- to what z leaves of Z+, or to the sum of a neuron's contributions where that is
    // little: of all lanes of a warp, one after the other. Returns the scarce ones.
    __device__ __forceinline__ uint32_t find_negative(const MessageArguments &a,
                                                      const LanePlace &place,
                                                      const Lanes<width> &sums,
                                                      const Lanes<width> &bias) {
        const float keep = keep_of(a.message.rule);
        uint32_t little = 0;
#pragma unroll
        for (int i = 0; i < width; ++i) {
            const float b = bias.at[i], kept = keep * b, most = least(z.at[i], b);
            const float pos = sums.at[i] > most ? sums.at[i] : most;
            s_neg_.at[i] = z.at[i] - b - pos;
            const float scale = scarce_share * (pos + (b < 0.0f ? -b : b));
            const bool is_little = place.real && r.at[i] != 0.0f &&
                                   -(s_neg_.at[i] + (kept < 0.0f ? kept : 0.0f)) < scale;
            little |= uint32_t{is_little} << i;
        }
        for (unsigned left = __ballot_sync(all_lanes, little != 0); left != 0; left &= left - 1) {
            const int lane = __ffs(static_cast<int>(left)) - 1;
            const uint32_t of_lane = __shfl_sync(all_lanes, little, lane);
            const int64_t of_row = __shfl_sync(all_lanes, place.row, lane);
            const int first = __shfl_sync(all_lanes, place.c, lane);
#pragma unroll
            for (int i = 0; i < width; ++i)
                if (of_lane >> i & 1) {
                    const float sum = negative_sum(a.contributions, of_row, first + i);
                    s_neg_.at[i] = lane == lane_index() ? sum : s_neg_.at[i];
                }
        }
        uint32_t marked = 0;
#pragma unroll
        for (int i = 0; i < width; ++i) // a bias alone makes an s- too, which must not reach a
                                        // product that errs
            marked |= uint32_t{s_neg_.at[i] < 0.0f || bias.at[i] < 0.0f} << i;
        return marked & little;
    }

    Lanes<width> s_neg_{};
    float fan_in_ = 0.0f;
};

// The sums of four values over `lanes` neighbours of a warp: in each quarter of them that of one
// value, in their order.
template <int lanes> __device__ float sum_of_four(const float (&value)[4], unsigned mask) {
    const bool upper = (lane_index() & lanes / 2) != 0, later = (lane_index() & lanes / 4) != 0;
    float half[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const float own = upper ? value[2 + i] : value[i], others = upper ? value[i] : value[2 + i];
        half[i] = own + __shfl_xor_sync(mask, others, lanes / 2);
    }
    const float own = later ? half[1] : half[0], others = later ? half[0] : half[1];
    float sum = own + __shfl_xor_sync(mask, others, lanes / 4);
    for (int by = lanes / 8; by > 0; by /= 2)
        sum += __shfl_xor_sync(mask, sum, by);
    return sum;
}

// What `lanes` neighbours of a warp tell of their chunk of a row, and the bits of those that
// are scarce; all that the mask names call it, those beyond the last channel with nothing, and
// those beyond the last row are not `real`.
template <int lanes>
__device__ void store_chunk(const Message &m, int64_t row, int64_t chunk, const Tally &tally,
                            uint32_t marked, bool real, unsigned mask = all_lanes) {
    const int64_t at = row * m.chunks + chunk;
    const int lane = lane_index() % lanes;
    if (m.tally) {
        static_assert(tally_sums == 4);
        const float sum = sum_of_four<lanes>(
            {tally.by_bias, tally.by_stabilizer, tally.sum, tally.magnitudes}, mask);
        if (real && lane % (lanes / 4) == 0)
            m.tally[at * tally_sums + lane / (lanes / 4)] = sum;
    }
    if (m.scarce) {
        marked = warp_sum<lanes>(marked, mask); // no two have the same bit
        if (real && lane == 0)
            m.scarce[at] = marked;
    }
}

// The message of a layer whose relevance r is complete, x being its z; it goes where r would. All
// lanes that hold a chunk of a row call it together.
template <int width>
__device__ __forceinline__ void send_on(const MessageArguments &a, const LanePlace &place,
                                        const Lanes<width> &x, const Lanes<width> &r) {
    constexpr int lanes = chunk_channels / width;
    MessageLanes<RuleKind::epsilon, width> own;
    own.r = r;
    Tally tally;
    own.finish(a, place, x, bias_at<width>(a.message.bias, place), tally);
    const unsigned mask = neighbours<lanes>();
    // whose channel is there if any of the chunk's is
    const int first = lane_index() / lanes * lanes;
    store_chunk<lanes>(a.message, place.row, place.c / chunk_channels, tally, 0,
                       __shfl_sync(mask, place.real, first), mask);
}

// What else becomes part of one channel of a row, or of four neighbours: of relevance.
template <int width> struct Beside {
    Lanes<width> x{}, before{};

    Beside() = default;
    __device__ __forceinline__ Beside(const Epilogue &e, int64_t at) {
        if (e.x)
            x = load<width>(e.x + at);
        if (e.add)
            before = load<width>(e.out + at);
    }
};

// Relevance, from its finished sums.
template <int width>
__device__ __forceinline__ Lanes<width> relevance_of(const Epilogue &e, Lanes<width> sums,
                                                     const Beside<width> &beside) {
    Lanes<width> x = beside.x;
    if (e.part == Part::positive)
#pragma unroll
        for (int i = 0; i < width; ++i)
            x.at[i] = x.at[i] > 0.0f ? x.at[i] : 0.0f;
    if (e.part == Part::negative)
#pragma unroll
        for (int i = 0; i < width; ++i)
            x.at[i] = x.at[i] < 0.0f ? x.at[i] : 0.0f;
    if (e.x)
#pragma unroll
        for (int i = 0; i < width; ++i)
            sums.at[i] *= x.at[i];
    if (e.add)
#pragma unroll
        for (int i = 0; i < width; ++i)
            sums.at[i] += beside.before.at[i];
    return sums;
}

// A forward value, from its finished sum.
template <int width>
__device__ __forceinline__ Lanes<width> forward_of(const Epilogue &e, Lanes<width> sums,
                                                   const Lanes<width> &bias) {
    if (e.bias)
#pragma unroll
        for (int i = 0; i < width; ++i)
            sums.at[i] += bias.at[i];
    if (e.low < e.high) // comparisons that let NaN through
#pragma unroll
        for (int i = 0; i < width; ++i) {
            float &sum = sums.at[i];
            sum = sum < e.low ? e.low : sum;
            sum = sum > e.high ? e.high : sum;
        }
    return sums;
}

} // namespace relprop::cuda
