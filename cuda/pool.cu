// Pooling on the GPU, forward and relevance. A thread owns one value of the result, or those of
// four channels, and gathers what belongs to it, windows in row order: no atomics, and the sums are
// the CPU's bit for bit. Neighbouring threads own neighbouring channels, so that every read is
// coalesced.
#include <optional>

#include "averages.cuh"
#include "backend.cuh"
#include "windows.cuh"
#include "winners.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

struct PoolArguments {
    Pool p;
    Strides strides;
    Places places; // of the result
};

template <int width, int side> __global__ void max_pool_kernel(PoolArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Place out = place_by(thread_index() * width, of.places);
    Lanes<width> best;
    for (int lane = 0; lane < width; ++lane)
        best.at[lane] = -INFINITY;
    each_value<width, side>(of.p, out, -INFINITY, [&](const Lanes<width> &a, const Pixel &) {
        for (int lane = 0; lane < width; ++lane) // a NaN in the window is its maximum
            best.at[lane] =
                a.at[lane] > best.at[lane] || isnan(a.at[lane]) ? a.at[lane] : best.at[lane];
    });
    store(of.p.result + thread_index() * width, best);
}

// The same where windows overlap: what they have in common is loaded once.
template <int width, int side, int stride>
__global__ void max_pool_strips_kernel(StripArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Pool &p = of.p;
    const Place at = place_by(thread_index() * width, of.strips);
    const int y = at.at.y * strip<stride>;
    each_best<width, side, stride>(p, channel_of(p, at.n, at.c), y, at.at.x, p.y.outputs - y,
                                   [&](int k, const Best<width> &best) {
                                       const int64_t row =
                                           row_of(output_image(p), at.n, {0, y + k, at.at.x});
                                       store(p.result + row * p.channels + at.c, best.value);
                                   });
}

template <class Number, int width, int side>
__device__ __forceinline__ Lanes<width> sum_of_window(const Pool &p, const Place &out) {
    Number sum[width] = {};
    each_value<width, side>(p, out, 0.0f, [&](const Lanes<width> &a, const Pixel &) {
        for (int lane = 0; lane < width; ++lane)
            sum[lane] += a.at[lane];
    });
    Lanes<width> rounded;
    for (int lane = 0; lane < width; ++lane)
        rounded.at[lane] = static_cast<float>(sum[lane]);
    return rounded;
}

template <int width, int side>
__global__ void average_pool_kernel(PoolArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Pool p = known<side == 0>(of.p);
    const Place out = place_by(thread_index() * width, of.places);
    const Windows w = windows_at(p, out.at);
    const bool many = int64_t{taps_of(w.z)} * taps_of(w.y) * taps_of(w.x) > most_summed_as_floats;
    static_assert(side * side <= most_summed_as_floats);
    Lanes<width> sum = side == 0 && many ? sum_of_window<double, width, side>(p, out)
                                         : sum_of_window<float, width, side>(p, out);
    const float divisor = average_divisor(p.divisor, p.count_include_pad, w.z, w.y, w.x);
    for (int lane = 0; lane < width; ++lane)
        sum.at[lane] /= divisor;
    store(p.result + thread_index() * width, sum);
}

template <int width, bool any_adaptive>
__global__ void average_pool_relevance_kernel(PoolArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Pool p = known<any_adaptive>(of.p);
    float *result = p.result + thread_index() * width;
    const Place in = place_by(thread_index() * width, of.places);
    Lanes<width> own = {}, sum = {};
    if (p.in)
        own = load<width>(p.in + thread_index() * width);
    if (p.add)
        sum = load<width>(result);
    each_reader(p, of.strides, in, [&](const Windows &w, int64_t out) {
        const Lanes<width> s =
            weighted<width>(p, out, average_divisor(p.divisor, p.count_include_pad, w.z, w.y, w.x));
        for (int lane = 0; lane < width; ++lane)
            sum.at[lane] += (p.in ? own.at[lane] : 1.0f) * s.at[lane];
    });
    store(result, sum);
}

// The same where windows share no input: a thread owns the inputs of a row that lie from the begin
// of one window to that of the next, which one window reads, if any.
template <int width>
__global__ void average_pool_relevance_apart_kernel(PoolArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Pool p = known<false>(of.p);
    const Place at = place_by(thread_index() * width, of.places);
    const Window columns = window_at(p.x, at.at.x);
    Lanes<width> s = {};
    bool read = false; // the row
    each_reader(p.z, of.strides.z, at.at.z, [&](int z, const Window &depth) {
        each_reader(p.y, of.strides.y, at.at.y, [&](int y, const Window &rows) {
            s = weighted<width>(
                p, row_of(output_image(p), at.n, {z, y, at.at.x}) * p.channels + at.c,
                average_divisor(p.divisor, p.count_include_pad, depth, rows, columns));
            read = true;
        });
    });
    const Cover cell = cell_of(p.x, at.at.x);
    for (int x = cell.first; x <= cell.last; ++x) {
        const int64_t place =
            row_of(input_image(p), at.n, {at.at.z, at.at.y, x}) * p.channels + at.c;
        Lanes<width> own = {}, sum = {};
        if (p.in)
            own = load<width>(p.in + place);
        if (p.add)
            sum = load<width>(p.result + place);
        if (read && x >= columns.begin && x < columns.end &&
            (columns.step == 1 || reads(columns, x)))
            for (int lane = 0; lane < width; ++lane)
                sum.at[lane] += (p.in ? own.at[lane] : 1.0f) * s.at[lane];
        store(p.result + place, sum);
    }
}

// ---- launchers

// Calls body(width, arguments, threads) for a result that is an image.
template <class Body> void over(const Pool &given, const Image &image, const Body &body) {
    const Pool p = plain(given);
    const PoolArguments arguments{p, strides_of(p), places_of(image)};
    with_width({p.in, p.r, p.result}, {p.channels},
               [&](auto width) { body(width, arguments, p.n * image.size() / width()); });
}

struct Strips {
    StripArguments arguments;
    int64_t threads;
};

// Of `rows` x `columns` places, where they keep a GPU busy as well.
template <int width, int stride>
std::optional<Strips> strips_of(const Pool &p, int rows, int columns) {
    constexpr int64_t enough = 1024; // threads of a multiprocessor, each with four channels
    const Image strips{1, ceil_div(rows, strip<stride>), columns, p.channels};
    if (p.n * strips.size() / 4 < enough * multiprocessors())
        return std::nullopt;
    return Strips{{p, places_of(strips)}, p.n * strips.size() / width};
}

int reach_of(const PoolAxis &axis) { return ceil_div(axis.kernel, axis.stride); }

int cells_of(const PoolAxis &axis) { return ceil_div(axis.size + axis.pad_before, axis.stride); }

// Tiles of one size, `most` cells along each axis at most.
Tiling tiling_of(const Pool &p, int most) {
    const auto even = [most](int cells) { return ceil_div(cells, ceil_div(cells, most)); };
    const int down = cells_of(p.y), across = cells_of(p.x);
    const int height = even(down), width = even(across);
    const Image tiles{1, ceil_div(down, height), ceil_div(across, width),
                      ceil_div(p.channels, tile_channels)};
    const int reach_y = reach_of(p.y), reach_x = reach_of(p.x);
    return {p,
            places_of(tiles),
            height,
            divisor_of(width),
            reach_y,
            reach_x,
            int64_t{height + reach_y - 1} * (width + reach_x - 1),
            p.sent ? arguments_of(*p.sent) : MessageArguments{}};
}

int64_t tiles_of(const Tiling &of) {
    return of.p.n * of.tiles.height.by * of.tiles.width.by * of.tiles.channels.by;
}

// Large tiles share more of what windows read; small ones keep more of the GPU busy.
Tiling tiling_of(const Pool &p) {
    constexpr int large = 16, small = 8;
    constexpr int64_t enough = 8; // blocks of a multiprocessor
    const Tiling tiling = tiling_of(p, large);
    return tiles_of(tiling) >= enough * multiprocessors() ? tiling : tiling_of(p, small);
}

constexpr int64_t most_shared = 48 * 1024; // bytes of a block that every device has

int64_t winners_bytes(const Tiling &of) { return of.windows * tile_channels; }

bool fits_tiles(const Pool &p) {
    return planar(p) && int64_t{p.y.kernel} * p.x.kernel <= most_taps &&
           winners_bytes(tiling_of(p)) <= most_shared;
}

template <int width, int side, int stride, bool sends>
void launch_tiles(const Tiling &of, Stream stream) {
    constexpr auto kernel = max_pool_relevance_tiles_kernel<width, side, stride, sends>;
    RELPROP_LAUNCH_BLOCKS(kernel, of, tiles_of(of), block_threads,
                          static_cast<size_t>(winners_bytes(of)), stream);
}

template <int width, bool sends> void launch_tiles(const Tiling &of, Stream stream) {
    with_overlap(of.p, [&](auto side, auto stride) {
        launch_tiles<width, side(), stride(), sends>(of, stream);
    });
}

template <int width, bool sends> void launch_apart(const Pool &p, Stream stream) {
    const int64_t count = p.n * output_image(p).size() / width;
    const ApartArguments arguments{p, places_of(output_image(p)), count,
                                   sends ? arguments_of(*p.sent) : MessageArguments{}};
    with_side(p, [&](auto side) {
        RELPROP_LAUNCH_BLOCKS((max_pool_relevance_apart_kernel<width, side(), sends>), arguments,
                              (count + block_threads - 1) / block_threads, block_threads, 0,
                              stream);
    });
}

} // namespace

void max_pool(const Pool &p, Stream stream) {
    over(p, output_image(p), [&](auto width, const PoolArguments &arguments, int64_t count) {
        with_overlap(arguments.p, [&](auto side, auto stride) {
            if constexpr (side() > 0)
                if (const auto strips =
                        strips_of<width(), stride()>(arguments.p, p.y.outputs, p.x.outputs))
                    return RELPROP_LAUNCH((max_pool_strips_kernel<width(), side(), stride()>),
                                          strips->arguments, strips->threads, stream);
            with_side(arguments.p, [&](auto any) {
                RELPROP_LAUNCH((max_pool_kernel<width(), any()>), arguments, count, stream);
            });
        });
    });
}

void max_pool_relevance(const Pool &given, Stream stream) {
    const Pool p = plain(given);
    const float *bias = p.sent ? p.sent->bias : nullptr;
    bool sent = false;
    with_width({p.in, p.r, p.result, bias}, {p.channels}, [&](auto width) {
        if (!apart(p) && !fits_tiles(p)) {
            const OverlapArguments arguments{p, strides_of(p), places_of(input_image(p))};
            RELPROP_LAUNCH(max_pool_relevance_kernel<width()>, arguments,
                           p.n * input_image(p).size() / width(), stream);
            return;
        }
        const auto launch = [&](auto sends) {
            if (apart(p))
                launch_apart<width(), sends()>(p, stream);
            else
                launch_tiles<width(), sends()>(tiling_of(p), stream);
        };
        if constexpr (width() == 4) // whole chunks have the lanes of a thread's neighbours
            if ((sent = p.sent && p.channels % chunk_channels == 0))
                return launch(std::true_type{});
        launch(std::false_type{});
    });
    if (p.sent && !sent)
        message(*p.sent, p.n * row_of(input_image(p), 1, {}), p.channels, stream);
}

void average_pool(const Pool &p, Stream stream) {
    over(p, output_image(p), [&](auto width, const PoolArguments &arguments, int64_t count) {
        with_overlap(arguments.p, [&](auto side, auto stride) {
            if constexpr (side() > 0)
                if (const auto strips =
                        strips_of<width(), stride()>(arguments.p, p.y.outputs, p.x.outputs))
                    return RELPROP_LAUNCH((average_pool_strips_kernel<width(), side(), stride()>),
                                          strips->arguments, strips->threads, stream);
            with_side(arguments.p, [&](auto any) {
                RELPROP_LAUNCH((average_pool_kernel<width(), any()>), arguments, count, stream);
            });
        });
    });
}

void average_pool_relevance(const Pool &given, Stream stream) {
    const Pool p = plain(given);
    const bool one = apart(p);
    const Image owned{p.z.size, p.y.size, one ? p.x.outputs : p.x.size, p.channels};
    over(p, owned, [&](auto width, const PoolArguments &arguments, int64_t count) {
        if (one) {
            RELPROP_LAUNCH((average_pool_relevance_apart_kernel<width()>), arguments, count,
                           stream);
            return;
        }
        bool by_strips = false;
        with_overlap(p, [&](auto side, auto stride) {
            if constexpr (stride() == 1)
                if (const auto strips = strips_of<width(), 1>(p, p.y.size, p.x.size)) {
                    by_strips = true;
                    RELPROP_LAUNCH((average_pool_relevance_strips_kernel<width(), side()>),
                                   strips->arguments, strips->threads, stream);
                }
        });
        if (by_strips)
            return;
        if (adaptive(p))
            RELPROP_LAUNCH((average_pool_relevance_kernel<width(), true>), arguments, count,
                           stream);
        else
            RELPROP_LAUNCH((average_pool_relevance_kernel<width(), false>), arguments, count,
                           stream);
    });
}

} // namespace relprop::cuda
