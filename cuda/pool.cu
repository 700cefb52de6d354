// Pooling on the GPU, forward and relevance. A thread owns one value of the result and gathers
// what belongs to it, windows in row order: no atomics, and the sums are the CPU's bit for bit.
// Winners are found again from the input, so that no index map is kept between the sweeps.
// Neighbouring threads own neighbouring channels, so that every read is coalesced.
#include "backend.cuh"
#include "launch.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

__device__ int64_t input_offset(const Pool &p, int64_t n, int y, int x, int c) {
    return ((n * p.y.size + y) * p.x.size + x) * p.channels + c;
}

__device__ int64_t output_offset(const Pool &p, int64_t n, int y, int x, int c) {
    return ((n * p.y.outputs + y) * p.x.outputs + x) * p.channels + c;
}

// Whether input (y, x) is the first maximum of a window that covers it.
__device__ bool wins(const Pool &p, int64_t n, Window wy, Window wx, int y, int x, int c) {
    const float own = p.in[input_offset(p, n, y, x, c)];
    for (int iy = wy.begin; iy < wy.end; iy += wy.step)
        for (int ix = wx.begin; ix < wx.end; ix += wx.step) {
            const float other = p.in[input_offset(p, n, iy, ix, c)];
            const bool earlier = iy < y || (iy == y && ix < x);
            if (other > own || (earlier && other == own))
                return false;
        }
    return true;
}

__global__ void max_pool_kernel(Pool p, int64_t count) {
    if (thread_index() >= count)
        return;
    const Place out = place_at(thread_index(), p.y.outputs, p.x.outputs, p.channels);
    const Window wy = window_at(p.y, out.y), wx = window_at(p.x, out.x);
    float best = p.in[input_offset(p, out.n, wy.begin, wx.begin, out.c)];
    for (int y = wy.begin; y < wy.end; y += wy.step)
        for (int x = wx.begin; x < wx.end; x += wx.step) {
            const float a = p.in[input_offset(p, out.n, y, x, out.c)];
            best = a <= best ? best : a; // not less: lets NaN through
        }
    p.result[thread_index()] = best;
}

__global__ void average_pool_kernel(Pool p, int64_t count) {
    if (thread_index() >= count)
        return;
    const Place out = place_at(thread_index(), p.y.outputs, p.x.outputs, p.channels);
    const Window wy = window_at(p.y, out.y), wx = window_at(p.x, out.x);
    float sum = 0.0f;
    for (int y = wy.begin; y < wy.end; y += wy.step)
        for (int x = wx.begin; x < wx.end; x += wx.step)
            sum += p.in[input_offset(p, out.n, y, x, out.c)];
    p.result[thread_index()] = sum / average_divisor(p.divisor, p.count_include_pad, wy, wx);
}

__global__ void max_pool_relevance_kernel(Pool p, int64_t count) {
    if (thread_index() >= count)
        return;
    const Place in = place_at(thread_index(), p.y.size, p.x.size, p.channels);
    const Cover ys = windows_over(p.y, in.y), xs = windows_over(p.x, in.x);
    float sum = p.add ? p.result[thread_index()] : 0.0f;
    for (int oy = ys.first; oy <= ys.last; ++oy) {
        const Window wy = window_at(p.y, oy);
        for (int ox = xs.first; ox <= xs.last; ++ox) {
            const Window wx = window_at(p.x, ox);
            if (reads(wy, in.y) && reads(wx, in.x) && wins(p, in.n, wy, wx, in.y, in.x, in.c))
                sum += p.r[output_offset(p, in.n, oy, ox, in.c)];
        }
    }
    p.result[thread_index()] = sum;
}

__global__ void average_pool_relevance_kernel(Pool p, int64_t count) {
    if (thread_index() >= count)
        return;
    const Place in = place_at(thread_index(), p.y.size, p.x.size, p.channels);
    const Cover ys = windows_over(p.y, in.y), xs = windows_over(p.x, in.x);
    const float a = p.in[thread_index()];
    float sum = p.add ? p.result[thread_index()] : 0.0f;
    for (int oy = ys.first; oy <= ys.last; ++oy) {
        const Window wy = window_at(p.y, oy);
        for (int ox = xs.first; ox <= xs.last; ++ox) {
            const Window wx = window_at(p.x, ox);
            if (reads(wy, in.y) && reads(wx, in.x))
                sum += a * p.r[output_offset(p, in.n, oy, ox, in.c)] /
                       average_divisor(p.divisor, p.count_include_pad, wy, wx);
        }
    }
    p.result[thread_index()] = sum;
}

// ---- launchers

int64_t input_values(const Pool &p) { return p.n * p.y.size * p.x.size * p.channels; }

int64_t output_values(const Pool &p) { return p.n * p.y.outputs * p.x.outputs * p.channels; }

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
