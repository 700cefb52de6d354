// The same share for every real input of a neuron (flat; bias="distribute"): sums over the
// channels of a group first, so what remains is a sum over taps of one channel per group.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {

void group_sums(const float *share, int64_t rows, int channels, int groups, float *sums, Stream) {
    const int per_group = channels / groups;
    const int64_t block = slab / channels > 0 ? slab / channels : 1;
    parallel_for((rows + block - 1) / block, [&](int64_t task) {
        const int64_t last = (task + 1) * block < rows ? (task + 1) * block : rows;
        for (int64_t i = task * block * groups; i < last * groups; ++i) {
            double sum = 0.0;
            for (int c = 0; c < per_group; ++c)
                sum += share[i * per_group + c];
            sums[i] = static_cast<float>(sum);
        }
    });
}

void spread(const Spread &p, Stream) {
    const TapGrid &grid = p.grid;
    const int channels = grid.to.channels / grid.groups;
    parallel_for(p.n * grid.size.z * grid.size.y, [&](int64_t task) {
        auto [n, at, _] = place_at(task, {grid.size.z, grid.size.y, 1, 1});
        for (at.x = 0; at.x < grid.size.x; ++at.x) {
            const int64_t row = row_of(grid.to, n, moved(at, grid.out_step, grid.out));
            for (int g = 0; g < grid.groups; ++g) {
                float sum = 0.0f;
                for (int t = 0; t < grid.tap_count; ++t) {
                    const Pixel from = moved(at, grid.step, grid.taps[t]);
                    if (inside(grid.from, from))
                        sum += p.sums[row_of(grid.from, n, from) * grid.groups + g];
                }
                float *out = p.out + row * grid.to.channels + g * channels;
                for (int c = 0; c < channels; ++c)
                    out[c] = p.add ? out[c] + sum : sum;
            }
        }
    });
}

} // namespace relprop::RELPROP_ISA
