// What becomes of the finished sums of a tile, by epilogue.cuh: of a product, from shared memory.
#pragma once

#include "epilogue.cuh"
#include "lanes.cuh"
#include "places.cuh"

namespace relprop::cuda {

// An epilogue as a kernel takes it.
struct EpilogueArguments {
    Epilogue epilogue;
    MessageArguments message;
    bool by_fours; // four neighbouring channels are stored at once; never for messages
};

inline EpilogueArguments arguments_of(const Product &p, int out) {
    const Epilogue &e = p.epilogue;
    EpilogueArguments arguments{e, arguments_of(e.message), false};
    if (e.kind != EpilogueKind::message)
        with_width({e.out, e.bias, e.x}, {out},
                   [&](auto width) { arguments.by_fours = width == 4; });
    return arguments;
}

// Where a tile's channels lie.
struct Channels {
    int all;   // of a row
    int first; // the tile's, in a row
    int held;  // the tile's, but for those beyond the last of its group
    int chunk; // of `first`
};

template <RuleKind kind, class T>
__device__ void message_tile(const MessageArguments &a, const Channels &channels,
                             const TilePlaces<T::rows> &places, const float *sums, int apart) {
    const int lane = threadIdx.x % warp_lanes;
    for (int row = threadIdx.x / warp_lanes; row < T::rows; row += T::warps) {
        const int64_t to = places.to[row];
        if (to < 0)
            return;
        for (int first = 0; first < channels.held; first += chunk_channels) {
            const int c = first + lane;
            Absorbed absorbed;
            const bool real = c < channels.held;
            const bool scarce =
                message_value<kind>(a, to, channels.all, channels.first + c,
                                    real ? sums[row * apart + c] : 0.0f, real, absorbed);
            store_chunk(a.message, to, channels.chunk + first / chunk_channels, absorbed, scarce);
        }
    }
}

template <class T>
__device__ void message_tile(const MessageArguments &a, const Channels &channels,
                             const TilePlaces<T::rows> &places, const float *sums, int apart) {
    switch (a.message.rule.kind) {
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
    for (int i = threadIdx.x; i < T::rows * across; i += T::threads) {
        const int row = i / across, c = i % across * width;
        const int64_t to = places.to[row];
        if (to >= 0 && c < channels.held)
            epilogue_values(e, to * channels.all + channels.first + c, channels.first + c,
                            load<width>(sums + row * apart + c));
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
    if (a.epilogue.kind == EpilogueKind::message)
        message_tile<T>(a.message, channels, places, sums, apart);
    else
        value_tile<T>(a, channels, places, sums, apart);
}

} // namespace relprop::cuda
