// A rung of the ladder, not part of the product: sums split by the sign of each weight.
//
//     g++ -std=c++20 -O3 -march=native benchmarks/ladder/sign_split.cpp -o /tmp/sign_split &&
//     /tmp/sign_split
//
// W+ and W- have no weight in common, so Z+ and Z- of a 1 x 1 layer need one multiplication for
// each weight, where two dense products need two. Vectors hold pixels, weights are broadcast from
// lists ordered by output, sign and block of inputs. Prints GFLOP/s of one dense product's work.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

constexpr int lanes = 16;
typedef float Vec __attribute__((vector_size(lanes * 4)));
typedef float UnalignedVec __attribute__((vector_size(lanes * 4), aligned(4), may_alias));

static Vec load(const float *p) { return *reinterpret_cast<const UnalignedVec *>(p); }
static void store(float *p, Vec v) { *reinterpret_cast<UnalignedVec *>(p) = v; }

struct Entry {
    float weight;
    int32_t offset; // of the input's pixels in the panel
};

// sums[vectors] (+)= the entries' weights times their pixels.
template <int vectors>
__attribute__((noinline)) void part(const Entry *entry, int count, const float *panel, float *sums,
                                    bool first) {
    Vec acc[vectors];
    for (int v = 0; v < vectors; ++v)
        acc[v] = first ? Vec{} : load(sums + v * lanes);
    for (int i = 0; i < count; ++i)
        for (int v = 0; v < vectors; ++v)
            acc[v] += entry[i].weight * load(panel + entry[i].offset + v * lanes);
    for (int v = 0; v < vectors; ++v)
        store(sums + v * lanes, acc[v]);
}

float random_number() { return static_cast<float>(rand()) / RAND_MAX - 0.5f; }

template <int vectors> double gflops(int pixels, int inputs, int outputs, int block) {
    constexpr int width = vectors * lanes;
    std::vector<float> x(static_cast<size_t>(pixels) * inputs),
        weights(static_cast<size_t>(outputs) * inputs);
    std::generate(x.begin(), x.end(), random_number);
    std::generate(weights.begin(), weights.end(), random_number);
    std::vector<float> panel(static_cast<size_t>(inputs) * width),
        sums(static_cast<size_t>(outputs) * 2 * width);
    std::vector<Entry> entries;
    std::vector<int> counts;
    for (int first = 0; first < inputs; first += block)
        for (int j = 0; j < outputs; ++j)
            for (bool positive : {true, false}) {
                const size_t before = entries.size();
                for (int k = first; k < std::min(inputs, first + block); ++k)
                    if (const float w = weights[static_cast<size_t>(j) * inputs + k];
                        (w > 0.0f) == positive)
                        entries.push_back({w, k * width});
                counts.push_back(static_cast<int>(entries.size() - before));
            }

    double best = 1e9;
    for (int turn = 0; turn < 7; ++turn) {
        const auto started = std::chrono::steady_clock::now();
        for (int at = 0; at + width <= pixels; at += width) {
            const float *from = x.data() + static_cast<size_t>(at) * inputs;
            for (int first = 0; first < inputs; first += lanes)
                for (int i = 0; i < width; ++i)
                    for (int k = first; k < std::min(inputs, first + lanes); ++k)
                        panel[static_cast<size_t>(k) * width + i] =
                            from[static_cast<size_t>(i) * inputs + k];
            const Entry *entry = entries.data();
            const int *count = counts.data();
            for (int first = 0; first < inputs; first += block)
                for (int j = 0; j < outputs * 2; ++j, entry += *count++)
                    part<vectors>(entry, *count, panel.data(),
                                  sums.data() + static_cast<size_t>(j) * width, first == 0);
        }
        best = std::min(
            best,
            std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
    }
    return 2.0 * (pixels / width * width) * inputs * outputs / best / 1e9;
}

int main() {
    constexpr std::array<std::array<int, 3>, 6> layers = {{{3072, 64, 256},
                                                           {3072, 256, 64},
                                                           {768, 512, 128},
                                                           {768, 128, 512},
                                                           {192, 1024, 256},
                                                           {192, 256, 1024}}};
    for (const auto &[pixels, inputs, outputs] : layers) {
        printf("%4d pixels, %4d to %4d channels:", pixels, inputs, outputs);
        for (int block : {32, 64, 128, 1024})
            printf("  blocks of %d: %.0f %.0f %.0f", block,
                   gflops<4>(pixels, inputs, outputs, block),
                   gflops<6>(pixels, inputs, outputs, block),
                   gflops<8>(pixels, inputs, outputs, block));
        printf("\n");
    }
}
