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

// An epilogue as a kernel takes it.
struct EpilogueArguments {
    Epilogue epilogue;
    MessageArguments message;
    bool by_fours; // four neighbouring channels are loaded and stored at once
};

inline EpilogueArguments arguments_of(const Product &p, int out) {
    const Epilogue &e = p.epilogue;
    EpilogueArguments arguments{e, arguments_of(e.message), false};
    const Message &m = e.message;
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

// How many values or fours of values a thread finishes at once: what it reads of memory is on its
// way before any is finished. Of messages, as many as registers hold: T::messages_at_once.
constexpr int values_at_once = 4;

// What a lane makes of its channels of a row: a rule's message,
template <RuleKind kind, int width_> class RuleLanes {
  public:
    static constexpr int width = width_;

    RuleLanes() = default;
    __device__ __forceinline__ RuleLanes(const EpilogueArguments &a, int64_t row, int channels,
                                         int c, bool real)
        : message_(a.message, row, channels, c, real) {}

    __device__ __forceinline__ uint32_t finish(const EpilogueArguments &a, int64_t row,
                                               int channels, int c, bool real,
                                               const Lanes<width> &sums, Tally &tally) {
        return message_.finish(a.message, row, channels, c, real, sums, tally);
    }

  private:
    MessageLanes<kind, width> message_;
};

// or relevance, which is complete then, and of that the message of the layer below, whose z is x.
template <int width_> class SentLanes {
  public:
    static constexpr int width = width_;

    SentLanes() = default;
    __device__ __forceinline__ SentLanes(const EpilogueArguments &a, int64_t row, int channels,
                                         int c, bool real)
        : message_(a.message.message, c, real) {
        if (real)
            beside_ = {a.epilogue, row * channels + c, c};
    }

    __device__ __forceinline__ uint32_t finish(const EpilogueArguments &a, int64_t row,
                                               int channels, int c, bool real,
                                               const Lanes<width> &sums, Tally &tally) {
        message_.r = relevance_of(a.epilogue, sums, beside_);
        return message_.finish(a.message, row, channels, c, real, beside_.x, tally);
    }

  private:
    Beside<width> beside_;
    MessageLanes<RuleKind::epsilon, width> message_;
};

template <class Own, class T>
__device__ void message_tile(const EpilogueArguments &a, const Channels &channels,
                             const TilePlaces<T::rows> &places, const float *sums, int apart) {
    constexpr int width = Own::width;
    constexpr int lanes = chunk_channels / width, of_warp = warp_lanes / lanes; // chunks
    constexpr int messages_at_once = T::messages_at_once;
    const int warp = static_cast<int>(threadIdx.x) / warp_lanes, lane = lane_index() % lanes;
    const int chunks = ceil_div(channels.held, chunk_channels), all = T::rows * chunks;
    for (int first = warp * of_warp; first < all; first += T::warps * of_warp * messages_at_once) {
        Own own[messages_at_once];
        int64_t to[messages_at_once];
        int row[messages_at_once], c[messages_at_once];
#pragma unroll
        for (int i = 0; i < messages_at_once; ++i) {
            const int number = first + i * T::warps * of_warp + lane_index() / lanes;
            row[i] = number / chunks;
            c[i] = number % chunks * chunk_channels + lane * width;
            to[i] = row[i] < T::rows ? places.to[row[i]] : -1;
            own[i] = {a, to[i], channels.all, channels.first + c[i],
                      to[i] >= 0 && c[i] < channels.held};
        }
#pragma unroll
        for (int i = 0; i < messages_at_once; ++i) {
            const bool real = to[i] >= 0 && c[i] < channels.held;
            const Lanes<width> sum =
                real ? load<width>(sums + row[i] * apart + c[i]) : Lanes<width>{};
            Tally tally;
            const uint32_t marked =
                own[i].finish(a, to[i], channels.all, channels.first + c[i], real, sum, tally);
            store_chunk<lanes>(a.message.message, to[i], channels.chunk + c[i] / chunk_channels,
                               tally, marked << lane * width, to[i] >= 0);
        }
    }
}

template <RuleKind kind, class T>
__device__ void message_tile(const EpilogueArguments &a, const Channels &channels,
                             const TilePlaces<T::rows> &places, const float *sums, int apart) {
    if (a.by_fours)
        message_tile<RuleLanes<kind, 4>, T>(a, channels, places, sums, apart);
    else
        message_tile<RuleLanes<kind, 1>, T>(a, channels, places, sums, apart);
}

template <class T>
__device__ void message_tile(const EpilogueArguments &a, const Channels &channels,
                             const TilePlaces<T::rows> &places, const float *sums, int apart) {
    if (a.epilogue.sends) {
        if (a.by_fours)
            return message_tile<SentLanes<4>, T>(a, channels, places, sums, apart);
        return message_tile<SentLanes<1>, T>(a, channels, places, sums, apart);
    }
    switch (a.message.message.rule.kind) {
    case RuleKind::epsilon:
        return message_tile<RuleKind::epsilon, T>(a, channels, places, sums, apart);
    case RuleKind::alpha_beta:
        return message_tile<RuleKind::alpha_beta, T>(a, channels, places, sums, apart);
    case RuleKind::gamma:
        return message_tile<RuleKind::gamma, T>(a, channels, places, sums, apart);
    case RuleKind::z_box:
        return message_tile<RuleKind::z_box, T>(a, channels, places, sums, apart);
    case RuleKind::w_square:
        return message_tile<RuleKind::w_square, T>(a, channels, places, sums, apart);
    case RuleKind::flat:
        return message_tile<RuleKind::flat, T>(a, channels, places, sums, apart);
    case RuleKind::gradient:
        return;
    }
}

template <class T, int width>
__device__ void value_tile(const Epilogue &e, const Channels &channels,
                           const TilePlaces<T::rows> &places, const float *sums, int apart) {
    constexpr int across = T::channels / width;
    for (int first = static_cast<int>(threadIdx.x); first < T::rows * across;
         first += T::threads * values_at_once) {
        Beside<width> beside[values_at_once];
        int64_t at[values_at_once];
#pragma unroll
        for (int i = 0; i < values_at_once; ++i) {
            const int number = first + i * T::threads, row = number / across;
            const int c = number % across * width;
            const int64_t to = row < T::rows && c < channels.held ? places.to[row] : -1;
            at[i] = to < 0 ? -1 : to * channels.all + channels.first + c;
            if (at[i] >= 0)
                beside[i] = {e, at[i], channels.first + c};
        }
#pragma unroll
        for (int i = 0; i < values_at_once; ++i) {
            const int number = first + i * T::threads;
            if (at[i] >= 0)
                epilogue_values(
                    e, at[i], load<width>(sums + number / across * apart + number % across * width),
                    beside[i]);
        }
    }
}

template <class T>
__device__ void value_tile(const EpilogueArguments &a, const Channels &channels,
                           const TilePlaces<T::rows> &places, const float *sums, int apart) {
    if (a.by_fours)
        value_tile<T, 4>(a.epilogue, channels, places, sums, apart);
    else
        value_tile<T, 1>(a.epilogue, channels, places, sums, apart);
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
