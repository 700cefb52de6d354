// Pooling on the GPU, forward and relevance. A thread owns one value of the result, or those of
// four channels, and gathers what belongs to it, windows in row order: no atomics, and the sums are
// the CPU's bit for bit. Winners are found again from the input, so that no index map is kept
// between the sweeps. Neighbouring threads own neighbouring channels, so that every read is
// coalesced.
#include "backend.cuh"
#include "lanes.cuh"
#include "launch.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

__host__ __device__ Image input_image(const Pool &p) {
    return {p.z.size, p.y.size, p.x.size, p.channels};
}

__host__ __device__ Image output_image(const Pool &p) {
    return {p.z.outputs, p.y.outputs, p.x.outputs, p.channels};
}

// A window in space.
struct Windows {
    Window z, y, x;
};

__device__ Windows windows_at(const Pool &p, const Pixel &at) {
    return {window_at(p.z, at.z), window_at(p.y, at.y), window_at(p.x, at.x)};
}

template <int width>
__device__ Lanes<width> input_at(const Pool &p, int64_t n, const Pixel &at, int c) {
    return load<width>(p.in + row_of(input_image(p), n, at) * p.channels + c);
}

// Calls body(pixel) for the real inputs of a window, in row order, until it returns false.
template <class Body> __device__ void each_tap(const Windows &w, const Body &body) {
    for (int z = w.z.begin; z < w.z.end; z += w.z.step)
        for (int y = w.y.begin; y < w.y.end; y += w.y.step)
            for (int x = w.x.begin; x < w.x.end; x += w.x.step)
                if (!body(Pixel{z, y, x}))
                    return;
}

// Calls body(windows, offset of the output) for the windows that read an input, in row order.
template <class Body>
__device__ void each_reader(const Pool &p, const Place &in, const Body &body) {
    const Cover zs = windows_over(p.z, in.at.z), ys = windows_over(p.y, in.at.y),
                xs = windows_over(p.x, in.at.x);
    for (int z = zs.first; z <= zs.last; ++z)
        for (int y = ys.first; y <= ys.last; ++y)
            for (int x = xs.first; x <= xs.last; ++x) {
                const Windows w = windows_at(p, {z, y, x});
                if (reads(w.z, in.at.z) && reads(w.y, in.at.y) && reads(w.x, in.at.x))
                    body(w, row_of(output_image(p), in.n, {z, y, x}) * p.channels + in.c);
            }
}

template <int width> struct Flags {
    bool at[width];
};

// Which channels of an input are beaten in a window that reads it: they are neither its first
// maximum nor the last NaN in it.
template <int width>
__device__ Flags<width> beaten(const Pool &p, const Place &in, const Lanes<width> &own,
                               const Windows &w) {
    Flags<width> lost = {};
    bool earlier = true;
    each_tap(w, [&](const Pixel &at) {
        if (at.z == in.at.z && at.y == in.at.y && at.x == in.at.x) {
            earlier = false;
            return true;
        }
        const Lanes<width> others = input_at<width>(p, in.n, at, in.c);
        bool all = true;
        for (int lane = 0; lane < width; ++lane) {
            const float a = own.at[lane], b = others.at[lane];
            if (isnan(b) ? !isnan(a) || !earlier : b > a || (earlier && b == a))
                lost.at[lane] = true;
            all = all && lost.at[lane];
        }
        return !all;
    });
    return lost;
}

struct PoolArguments {
    Pool p;
    Places places; // of the result
};

template <int width> __global__ void max_pool_kernel(PoolArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Pool &p = of.p;
    const Place out = place_by(thread_index() * width, of.places);
    const Windows w = windows_at(p, out.at);
    Lanes<width> best = input_at<width>(p, out.n, {w.z.begin, w.y.begin, w.x.begin}, out.c);
    each_tap(w, [&](const Pixel &at) {
        const Lanes<width> a = input_at<width>(p, out.n, at, out.c);
        for (int lane = 0; lane < width; ++lane) // a NaN in the window is its maximum
            if (a.at[lane] > best.at[lane] || isnan(a.at[lane]))
                best.at[lane] = a.at[lane];
        return true;
    });
    store(p.result + thread_index() * width, best);
}

template <int width> __global__ void average_pool_kernel(PoolArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Pool &p = of.p;
    const Place out = place_by(thread_index() * width, of.places);
    const Windows w = windows_at(p, out.at);
    Lanes<width> sum = {};
    each_tap(w, [&](const Pixel &at) {
        const Lanes<width> a = input_at<width>(p, out.n, at, out.c);
        for (int lane = 0; lane < width; ++lane)
            sum.at[lane] += a.at[lane];
        return true;
    });
    const float divisor = average_divisor(p.divisor, p.count_include_pad, w.z, w.y, w.x);
    for (int lane = 0; lane < width; ++lane)
        sum.at[lane] /= divisor;
    store(p.result + thread_index() * width, sum);
}

template <int width> __global__ void max_pool_relevance_kernel(PoolArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Pool &p = of.p;
    float *result = p.result + thread_index() * width;
    const Place in = place_by(thread_index() * width, of.places);
    const Lanes<width> own = input_at<width>(p, in.n, in.at, in.c);
    Lanes<width> sum = {};
    if (p.add)
        sum = load<width>(result);
    each_reader(p, in, [&](const Windows &w, int64_t out) {
        const Flags<width> lost = beaten(p, in, own, w);
        const Lanes<width> r = load<width>(p.r + out);
        for (int lane = 0; lane < width; ++lane)
            if (!lost.at[lane])
                sum.at[lane] += r.at[lane];
    });
    store(result, sum);
}

template <int width>
__global__ void average_pool_relevance_kernel(PoolArguments of, int64_t count) {
    if (thread_index() >= count)
        return;
    const Pool &p = of.p;
    float *result = p.result + thread_index() * width;
    const Place in = place_by(thread_index() * width, of.places);
    Lanes<width> own = {}, sum = {};
    if (p.in)
        own = load<width>(p.in + thread_index() * width);
    if (p.add)
        sum = load<width>(result);
    each_reader(p, in, [&](const Windows &w, int64_t out) {
        const float divisor = average_divisor(p.divisor, p.count_include_pad, w.z, w.y, w.x);
        const Lanes<width> s = load<width>(p.r + out);
        for (int lane = 0; lane < width; ++lane)
            sum.at[lane] += (p.in ? own.at[lane] : 1.0f) * s.at[lane] / divisor;
    });
    store(result, sum);
}

// ---- launchers

// Calls body(width, arguments, threads) for a result that is an image.
template <class Body> void over(const Pool &p, const Image &image, const Body &body) {
    const PoolArguments arguments{p, places_of(image)};
    with_width({p.in, p.r, p.result}, {p.channels},
               [&](auto width) { body(width, arguments, p.n * image.size() / width()); });
}

} // namespace

void max_pool(const Pool &p, Stream stream) {
    over(p, output_image(p), [&](auto width, const PoolArguments &arguments, int64_t count) {
        RELPROP_LAUNCH(max_pool_kernel<width()>, arguments, count, stream);
    });
}

void max_pool_relevance(const Pool &p, Stream stream) {
    over(p, input_image(p), [&](auto width, const PoolArguments &arguments, int64_t count) {
        RELPROP_LAUNCH(max_pool_relevance_kernel<width()>, arguments, count, stream);
    });
}

void average_pool(const Pool &p, Stream stream) {
    over(p, output_image(p), [&](auto width, const PoolArguments &arguments, int64_t count) {
        RELPROP_LAUNCH(average_pool_kernel<width()>, arguments, count, stream);
    });
}

void average_pool_relevance(const Pool &p, Stream stream) {
    over(p, input_image(p), [&](auto width, const PoolArguments &arguments, int64_t count) {
        RELPROP_LAUNCH(average_pool_relevance_kernel<width()>, arguments, count, stream);
    });
}

} // namespace relprop::cuda
