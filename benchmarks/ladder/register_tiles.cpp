// A rung of the ladder, not part of the product: how many rows and vectors a tile should hold.
//
//     g++ -std=c++20 -O3 -march=native benchmarks/ladder/register_tiles.cpp -o /tmp/tiles &&
//     /tmp/tiles
//
// out[rows][vectors * 16] = v[rows][depth] @ weights[depth][vectors * 16], sums in registers, one
// value of v broadcast to all lanes: the inner loop of product.cpp and winograd.cpp. Every shape
// does the same work on weights that fit the second cache, as 36 points of a Winograd layer do.
// Prints GFLOP/s, the best of thirty.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

constexpr int lanes = 16;
typedef float Vec __attribute__((vector_size(lanes * 4)));
typedef float UnalignedVec __attribute__((vector_size(lanes * 4), aligned(4), may_alias));

static Vec load(const float *p) { return *reinterpret_cast<const UnalignedVec *>(p); }
static void store(float *p, Vec v) { *reinterpret_cast<UnalignedVec *>(p) = v; }

template <int rows, int vectors>
__attribute__((noinline)) void multiply(const float *v, int depth, const float *weights,
                                        float *out) {
    Vec acc[rows][vectors];
    for (int m = 0; m < rows; ++m)
        for (int i = 0; i < vectors; ++i)
            acc[m][i] = Vec{};
    for (int k = 0; k < depth; ++k) {
        Vec b[vectors];
        for (int i = 0; i < vectors; ++i)
            b[i] = load(weights + (k * vectors + i) * lanes);
        for (int m = 0; m < rows; ++m)
            for (int i = 0; i < vectors; ++i)
                acc[m][i] += v[m * depth + k] * b[i];
    }
    for (int m = 0; m < rows; ++m)
        for (int i = 0; i < vectors; ++i)
            store(out + (m * vectors + i) * lanes, acc[m][i]);
}

template <int rows, int vectors> void measure(int depth) {
    constexpr int points = 36, tiles = 48;
    const int groups = tiles / rows, panels = 12 / vectors;
    const int64_t weights_apart = static_cast<int64_t>(depth) * vectors * lanes;
    std::vector<float> v(static_cast<size_t>(points) * tiles * depth, 0.5f),
        weights(static_cast<size_t>(points * panels * weights_apart), 0.25f),
        out(static_cast<size_t>(rows) * vectors * lanes);
    double best = 1e9;
    for (int turn = 0; turn < 30; ++turn) {
        const auto started = std::chrono::steady_clock::now();
        for (int panel = 0; panel < panels; ++panel)
            for (int point = 0; point < points; ++point)
                for (int group = 0; group < groups; ++group)
                    multiply<rows, vectors>(
                        v.data() + static_cast<int64_t>(point * tiles + group * rows) * depth,
                        depth, weights.data() + (panel * points + point) * weights_apart,
                        out.data());
        best = std::min(
            best,
            std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
    }
    printf("  %2d x %d: %3.0f", rows, vectors,
           2.0 * points * groups * rows * depth * panels * vectors * lanes / best / 1e9);
}

int main() {
    for (int depth : {64, 128, 256}) {
        printf("depth %3d:", depth);
        measure<24, 1>(depth);
        measure<12, 2>(depth);
        measure<8, 3>(depth);
        measure<6, 4>(depth);
        measure<6, 2>(depth);
        measure<4, 2>(depth);
        measure<3, 2>(depth);
        measure<1, 2>(depth);
        printf("\n");
    }
}
