// Products with up to four output channels, which would leave most of a panel empty: the relevance
// of an image's colours. Vectors hold input channels here, and are summed up at the end.
#include "narrow.hpp"
#include "epilogue.hpp"
#include "pack.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {
namespace {

constexpr int block = 64;   // pixels per task
constexpr int together = 4; // pixels that share a load of the weights

template <int out> void run(const Product &p) {
    const TapGrid &grid = p.grid;
    const int64_t pixels = p.n * grid.size.z * grid.size.y * grid.size.x;
    parallel_for((pixels + block - 1) / block, [&](int64_t task) {
        const int64_t stop = (task + 1) * block < pixels ? (task + 1) * block : pixels;
        for (int64_t first = task * block; first < stop; first += together) {
            // places beyond the last pixel repeat it; their results are not stored
            Place place[together];
            for (int m = 0; m < together; ++m)
                place[m] = place_at(first + m < stop ? first + m : stop - 1,
                                    {grid.size.z, grid.size.y, grid.size.x, 1});
            Vec acc[together][out] = {};
            for (int s = 0; s < p.sources; ++s) {
                const float *weights = p.source[s].weights;
                for (int t = 0; t < grid.tap_count; ++t) {
                    const float *from[together];
                    for (int m = 0; m < together; ++m) {
                        const Pixel at = moved(place[m].at, grid.step, grid.taps[t]);
                        from[m] = inside(grid.from, at)
                                      ? p.source[s].data +
                                            row_of(grid.from, place[m].n, at) * grid.from.channels
                                      : p.zeros;
                    }
                    for (int c = 0; c < p.run; c += lanes, weights += out * lanes) {
                        Vec b[out];
                        for (int j = 0; j < out; ++j)
                            b[j] = load(weights + j * lanes);
                        for (int m = 0; m < together; ++m)
                            for (int j = 0; j < out; ++j)
                                acc[m][j] += load(from[m] + c) * b[j];
                    }
                }
            }
            for (int m = 0; m < together && first + m < stop; ++m) {
                float sums[panel] = {};
                for (int j = 0; j < out; ++j)
                    sums[j] = horizontal(acc[m][j]);
                const Pixel to = moved(place[m].at, grid.out_step, grid.out);
                epilogue_row(p.epilogue, row_of(grid.to, place[m].n, to), out, 0, out, sums, 0);
            }
        }
    });
}

} // namespace

bool is_narrow(int groups, int run, int out) {
    return groups == 1 && out <= 4 && run > 0 && run % lanes == 0;
}

void narrow(const Product &p) {
    switch (p.grid.to.channels) {
    case 1:
        return run<1>(p);
    case 2:
        return run<2>(p);
    case 3:
        return run<3>(p);
    default:
        return run<4>(p);
    }
}

// [tap_count][run / lanes][out][lanes]
int64_t pack_narrow(const Packing &of, const float *weights, float *packed) {
    const int64_t inputs = static_cast<int64_t>(of.tap_count) * of.run;
    if (packed) {
        float *laid = new float[inputs * of.out];
        lay_weights(of, weights, 0, 0, of.read, 0, of.out, laid,
                    static_cast<int64_t>(of.read) * of.out);
        for (int64_t i = 0; i < inputs; ++i)
            for (int j = 0; j < of.out; ++j)
                packed[(i / lanes * of.out + j) * lanes + i % lanes] = laid[i * of.out + j];
        delete[] laid;
    }
    return inputs * of.out;
}

} // namespace relprop::RELPROP_ISA
