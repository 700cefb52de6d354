// What becomes of the finished sums of a tile, by epilogue.cuh: of a product, from shared memory.
#pragma once

#include "epilogue.cuh"
#include "lanes.cuh"
#include "places.cuh"

namespace relprop::cuda {

// Whether a message is what an epilogue ends with.
RELPROP_HD bool has_message(const Epilogue &e) {
    return e.kind == EpilogueKind::message || e.sends;
}

constexpr int most_read_beside = 3;

// An epilogue as a kernel takes it.
struct EpilogueArguments {
    Epilogue epilogue;
    MessageArguments message;
    bool by_fours; // four neighbouring channels are loaded and stored at once
    const float *read_beside[most_read_beside]; // [rows, channels]  by each tile; or null
};

inline EpilogueArguments arguments_of(const Product &p, int out) {
    const Epilogue &e = p.epilogue;
    EpilogueArguments arguments{e, arguments_of(e.message), false, {}};
    const Message &m = e.message;
    if (e.kind == EpilogueKind::message) {
        arguments.read_beside[0] = m.r;
        arguments.read_beside[1] = m.period ? nullptr : m.z;
        arguments.read_beside[2] = m.contributions ? nullptr : m.s_neg;
    } else if (e.kind == EpilogueKind::relevance) {
        arguments.read_beside[0] = e.x;
        arguments.read_beside[1] = e.add ? e.out : nullptr;
    }
    const std::vector<const float *> pointers =
        e.kind == EpilogueKind::message
            ? std::vector<const float *>{m.r, m.s_neg, m.z, m.bias, m.share}
            : std::vector<const float *>{e.out, e.bias, e.x, e.sends ? m.bias : nullptr};
    with_width(pointers, {out}, [&](auto width) { arguments.by_fours = width == 4; });
    return arguments;
}

// Where a tile's channels lie.
struct Channels {
    int all;   // of a row
    int first; // the tile's, in a row
    int held;  // the tile's, but for those beyond the last of its group
    int chunk; // of `first`
};

// Has the second-level cache bring what the end of a tile reads beside its sums, while the last of
// these are still multiplied. By `threads` threads, of which this is one.
template <int rows>
__device__ __forceinline__ void ask_for_end(const EpilogueArguments &a, const Channels &channels,
                                            const TilePlaces<rows> &places, int thread,
                                            int threads) {
    constexpr int line = 32; // floats
    const int lines = ceil_div(channels.held, line);
    for (const float *beside : a.read_beside)
        if (beside)
            for (int i = thread; i < rows * lines; i += threads) {
                const int64_t to = places.to[i / lines];
                if (to >= 0)
                    ask_for(beside + to * channels.all + channels.first + i % lines * line);
            }
}

// What a lane makes of its channels of a row. Each reads what it needs of memory when it is made,
// and bias() what is alike in all rows. A rule's message,
template <RuleKind kind, int width_> class RuleLanes {
  public:
    static constexpr int width = width_;

    __device__ __forceinline__ static Lanes<width> bias(const EpilogueArguments &a,
                                                        const LanePlace &place) {
        return bias_at<width>(a.message.message.bias, place);
    }

    RuleLanes() = default;
    __device__ __forceinline__ RuleLanes(const EpilogueArguments &a, const LanePlace &place)
        : message_(a.message, place) {}

    __device__ __forceinline__ void finish(const EpilogueArguments &a, const LanePlace &place,
                                           int64_t chunk, const Lanes<width> &sums,
                                           const Lanes<width> &bias) {
        constexpr int lanes = chunk_channels / width;
        Tally tally;
        const uint32_t marked = message_.finish(a.message, place, sums, bias, tally);
        store_chunk<lanes>(a.message.message, place.row, chunk, tally,
                           marked << lane_index() % lanes * width, place.row >= 0);
    }

  private:
    MessageLanes<kind, width> message_;
};

// relevance, which is complete then, and of that the message of the layer below, whose z is x,
template <int width_> class SentLanes {
  public:
    static constexpr int width = width_;

    __device__ __forceinline__ static Lanes<width> bias(const EpilogueArguments &a,
                                                        const LanePlace &place) {
        return bias_at<width>(a.message.message.bias, place);
    }

    SentLanes() = default;
    __device__ __forceinline__ SentLanes(const EpilogueArguments &a, const LanePlace &place) {
        if (place.real)
            beside_ = {a.epilogue, place.at()};
    }

    __device__ __forceinline__ void finish(const EpilogueArguments &a, const LanePlace &place,
                                           int64_t chunk, const Lanes<width> &sums,
                                           const Lanes<width> &bias) {
        MessageLanes<RuleKind::epsilon, width> message;
        message.r = relevance_of(a.epilogue, sums, beside_);
        Tally tally;
        message.finish(a.message, place, beside_.x, bias, tally);
        store_chunk<chunk_channels / width>(a.message.message, place.row, chunk, tally, 0,
                                            place.row >= 0);
    }

  private:
    Beside<width> beside_;
};

// relevance alone,
template <int width_> class RelevanceLanes {
  public:
    static constexpr int width = width_;

    __device__ __forceinline__ static Lanes<width> bias(const EpilogueArguments &,
                                                        const LanePlace &) {
        return {};
    }

    RelevanceLanes() = default;
    __device__ __forceinline__ RelevanceLanes(const EpilogueArguments &a, const LanePlace &place) {
        if (place.real)
            beside_ = {a.epilogue, place.at()};
    }

    __device__ __forceinline__ void finish(const EpilogueArguments &a, const LanePlace &place,
                                           int64_t, const Lanes<width> &sums,
                                           const Lanes<width> &) {
        if (place.real)
            store(a.epilogue.out + place.at(), relevance_of(a.epilogue, sums, beside_));
    }

  private:
    Beside<width> beside_;
};

// or a value of the forward pass.
template <int width_> class ForwardLanes {
  public:
    static constexpr int width = width_;

    __device__ __forceinline__ static Lanes<width> bias(const EpilogueArguments &a,
                                                        const LanePlace &place) {
        return bias_at<width>(a.epilogue.bias, place);
    }

    ForwardLanes() = default;
    __device__ __forceinline__ ForwardLanes(const EpilogueArguments &, const LanePlace &) {}

    __device__ __forceinline__ void finish(const EpilogueArguments &a, const LanePlace &place,
                                           int64_t, const Lanes<width> &sums,
                                           const Lanes<width> &bias) {
        if (place.real)
            store(a.epilogue.out + place.at(), forward_of(a.epilogue, sums, bias));
    }
};

// A thread has the same channels in all of its rows. What it reads of memory for some rows,
// T::rows_at_once of them, is on its way while those before are finished.
template <class Own, class T>
__device__ __forceinline__ void finish_rows(const EpilogueArguments &a, const Channels &channels,
                                            const TilePlaces<T::rows> &places, const float *sums,
                                            int apart) {
    constexpr int width = Own::width, across = T::channels / width, down = T::threads / across;
    constexpr int rows = T::rows / down; // of a thread
    // one where channels are not a multiple of four: few layers, and half of all ends
    constexpr int most = width == 1 ? 1 : T::rows_at_once;
    constexpr int at_once = most < rows ? most : rows, step = down * at_once;
    static_assert(T::threads % across == 0 && T::rows % step == 0);
    const int first = static_cast<int>(threadIdx.x) / across;
    const int of_tile = static_cast<int>(threadIdx.x) % across * width;
    const int c = channels.first + of_tile;
    const int64_t chunk = channels.chunk + of_tile / chunk_channels;
    const bool held = of_tile < channels.held;
    const bool has_chunk = of_tile / chunk_channels * chunk_channels < channels.held;
    const Lanes<width> bias = Own::bias(a, {0, channels.all, c, held});
    const auto place_in = [&](int64_t row) {
        return LanePlace{row, channels.all, c, held && row >= 0};
    };

    Own own[at_once];
    int64_t to[at_once];
    const auto read = [&](int i, int from) {
        to[i] = has_chunk ? places.to[from + first + i * down] : -1;
        own[i] = {a, place_in(to[i])};
    };
#pragma unroll
    for (int i = 0; i < at_once; ++i)
        read(i, 0);
#pragma unroll 1
    for (int from = 0; from < T::rows; from += step)
#pragma unroll
        for (int i = 0; i < at_once; ++i) {
            const float *sum = sums + (from + first + i * down) * apart + of_tile;
            own[i].finish(a, place_in(to[i]), chunk, load<width>(sum), bias);
            if (from + step < T::rows)
                read(i, from + step);
        }
}

template <template <int> class Own, class T>
__device__ __forceinline__ void finish_rows(const EpilogueArguments &a, const Channels &channels,
                                            const TilePlaces<T::rows> &places, const float *sums,
                                            int apart) {
    if (a.by_fours)
        finish_rows<Own<4>, T>(a, channels, places, sums, apart);
    else
        finish_rows<Own<1>, T>(a, channels, places, sums, apart);
}

template <RuleKind kind> struct LanesOf {
    template <int width> using Own = RuleLanes<kind, width>;
};

template <class T>
__device__ void message_tile(const EpilogueArguments &a, const Channels &channels,
                             const TilePlaces<T::rows> &places, const float *sums, int apart) {
    if (a.epilogue.sends)
        return finish_rows<SentLanes, T>(a, channels, places, sums, apart);
    switch (a.message.message.rule.kind) { // the same cases as with_rule's
    case RuleKind::alpha_beta:
        return finish_rows<LanesOf<RuleKind::alpha_beta>::Own, T>(a, channels, places, sums, apart);
    case RuleKind::gamma:
        return finish_rows<LanesOf<RuleKind::gamma>::Own, T>(a, channels, places, sums, apart);
    case RuleKind::gradient:
        return;
    default:
        return finish_rows<LanesOf<RuleKind::epsilon>::Own, T>(a, channels, places, sums, apart);
    }
}

template <class T>
__device__ void value_tile(const EpilogueArguments &a, const Channels &channels,
                           const TilePlaces<T::rows> &places, const float *sums, int apart) {
    if (a.epilogue.kind == EpilogueKind::relevance)
        finish_rows<RelevanceLanes, T>(a, channels, places, sums, apart);
    else
        finish_rows<ForwardLanes, T>(a, channels, places, sums, apart);
}

// sums: [rows][apart]
template <class T>
__device__ void finish_tile(const EpilogueArguments &a, const Channels &channels,
                            const TilePlaces<T::rows> &places, const float *sums, int apart) {
    if (has_message(a.epilogue))
        message_tile<T>(a, channels, places, sums, apart);
    else
        value_tile<T>(a, channels, places, sums, apart);
}

} // namespace relprop::cuda
