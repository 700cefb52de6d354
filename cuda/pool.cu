// Pooling on the GPU, forward and relevance. A thread owns one value of the result and gathers
// what belongs to it, windows in row order: no atomics, and the sums are the CPU's bit for bit.
// Winners are found again from the input, so that no index map is kept between the sweeps.
// Neighbouring threads own neighbouring channels, so that every read is coalesced.
#include "backend.cuh"
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

__device__ float input_at(const Pool &p, int64_t n, const Pixel &at, int c) {
    return p.in[row_of(input_image(p), n, at) * p.channels + c];
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

// Whether an input is the first maximum of a window that reads it, or the last NaN in it.
__device__ bool wins(const Pool &p, const Place &in, const Windows &w) {
    const float own = input_at(p, in.n, in.at, in.c);
    bool beaten = false, earlier = true;
    each_tap(w, [&](const Pixel &at) {
        if (at.z == in.at.z && at.y == in.at.y && at.x == in.at.x) {
            earlier = false;
        } else {
            const float other = input_at(p, in.n, at, in.c);
            beaten =
                isnan(other) ? !isnan(own) || !earlier : other > own || (earlier && other == own);
        }
        return !beaten;
    });
    return !beaten;
}

__global__ void max_pool_kernel(Pool p, int64_t count) {
    if (thread_index() >= count)
        return;
    const Place out = place_at(thread_index(), output_image(p));
    const Windows w = windows_at(p, out.at);
    float best = input_at(p, out.n, {w.z.begin, w.y.begin, w.x.begin}, out.c);
    each_tap(w, [&](const Pixel &at) {
        const float a = input_at(p, out.n, at, out.c);
        best = a > best || isnan(a) ? a : best; // a NaN in the window is its maximum
        return true;
    });
    p.result[thread_index()] = best;
}

__global__ void average_pool_kernel(Pool p, int64_t count) {
    if (thread_index() >= count)
        return;
    const Place out = place_at(thread_index(), output_image(p));
    const Windows w = windows_at(p, out.at);
    float sum = 0.0f;
    each_tap(w, [&](const Pixel &at) {
        sum += input_at(p, out.n, at, out.c);
        return true;
    });
    p.result[thread_index()] = sum / average_divisor(p.divisor, p.count_include_pad, w.z, w.y, w.x);
}

__global__ void max_pool_relevance_kernel(Pool p, int64_t count) {
    if (thread_index() >= count)
        return;
    const Place in = place_at(thread_index(), input_image(p));
    float sum = p.add ? p.result[thread_index()] : 0.0f;
    each_reader(p, in, [&](const Windows &w, int64_t out) {
        if (wins(p, in, w))
            sum += p.r[out];
    });
    p.result[thread_index()] = sum;
}

__global__ void average_pool_relevance_kernel(Pool p, int64_t count) {
    if (thread_index() >= count)
        return;
    const Place in = place_at(thread_index(), input_image(p));
    const float a = p.in ? p.in[thread_index()] : 1.0f;
    float sum = p.add ? p.result[thread_index()] : 0.0f;
    each_reader(p, in, [&](const Windows &w, int64_t out) {
        sum += a * p.r[out] / average_divisor(p.divisor, p.count_include_pad, w.z, w.y, w.x);
    });
    p.result[thread_index()] = sum;
}

// ---- launchers

int64_t input_values(const Pool &p) { return p.n * input_image(p).size(); }

int64_t output_values(const Pool &p) { return p.n * output_image(p).size(); }

} // namespace

void max_pool(const Pool &p, Stream stream) {
    RELPROP_LAUNCH(max_pool_kernel, p, output_values(p), stream);
}

void max_pool_relevance(const Pool &p, Stream stream) {
    RELPROP_LAUNCH(max_pool_relevance_kernel, p, input_values(p), stream);
}

void average_pool(const Pool &p, Stream stream) {
    RELPROP_LAUNCH(average_pool_kernel, p, output_values(p), stream);
}

void average_pool_relevance(const Pool &p, Stream stream) {
    RELPROP_LAUNCH(average_pool_relevance_kernel, p, input_values(p), stream);
}

} // namespace relprop::cuda
