// The same share for every real input of a neuron (flat; bias="distribute"): sums over the
// channels of a group first, so what remains is a box sum over one channel per group.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {

void spread(const Spread &p, Stream) {
    const int per_group = p.from.channels / p.groups;
    parallel_for(p.n * p.from.height, [&](int64_t task) {
        for (int64_t i = task * p.from.width; i < (task + 1) * p.from.width; ++i)
            for (int g = 0; g < p.groups; ++g) {
                const float *share = p.share + i * p.from.channels + g * per_group;
                double sum = 0.0;
                for (int c = 0; c < per_group; ++c)
                    sum += share[c];
                p.sums[i * p.groups + g] = static_cast<float>(sum);
            }
    });
    const int channels = p.to.channels / p.groups;
    parallel_for(p.n * p.to.height, [&](int64_t task) {
        const int64_t n = task / p.to.height;
        const int y = static_cast<int>(task % p.to.height);
        for (int x = 0; x < p.to.width; ++x)
            for (int g = 0; g < p.groups; ++g) {
                float sum = 0.0f;
                for (int ky = 0; ky < p.kernel_y; ++ky) {
                    const int oy = y + p.top - ky * p.dilation_y;
                    if (oy < 0 || oy % p.stride_y != 0 || oy / p.stride_y >= p.from.height)
                        continue;
                    for (int kx = 0; kx < p.kernel_x; ++kx) {
                        const int ox = x + p.left - kx * p.dilation_x;
                        if (ox < 0 || ox % p.stride_x != 0 || ox / p.stride_x >= p.from.width)
                            continue;
                        const int64_t at =
                            (n * p.from.height + oy / p.stride_y) * p.from.width + ox / p.stride_x;
                        sum += p.sums[at * p.groups + g];
                    }
                }
                float *out = p.out + (task * p.to.width + x) * p.to.channels + g * channels;
                for (int c = 0; c < channels; ++c)
                    out[c] = p.add ? out[c] + sum : sum;
            }
    });
}

} // namespace relprop::RELPROP_ISA
