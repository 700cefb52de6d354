// A rung of the ladder, not part of the product: which of the warpgroups' tiles are fast for which
// layers, on a Hopper.
//
//     nvcc -std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -fmad=false -Icpp -Icuda \
//         benchmarks/ladder/product_tiles.cu build/gpu/librelprop_core.a -o /tmp/tiles &&
//         /tmp/tiles
//
// Prints TFLOP/s and GB/s (bytes that must be read and written), medians of five launches. The
// first argument is a precision (tf32, bf16 or float32); for profilers the second chooses a layer
// by its number, the third one of its cuts (cuts.hpp).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "backend.cuh"
#include "cuts.hpp"
#include "launch.cuh"
#include "product_parts.hpp"

namespace {

using namespace relprop;
using namespace relprop::cuda;

struct Layer {
    const char *name;
    int n, size, in, out, kernel;
};

constexpr Layer layers[] = {
    {"3x3 224", 128, 224, 64, 64, 3},  {"3x3 112", 128, 112, 128, 128, 3},
    {"3x3 56", 128, 56, 256, 256, 3},  {"3x3 28", 128, 28, 512, 512, 3},
    {"3x3 14", 128, 14, 512, 512, 3},  {"3x3 56", 128, 56, 64, 64, 3},
    {"3x3 28", 128, 28, 128, 128, 3},  {"3x3 7", 128, 7, 512, 512, 3},
    {"1x1 56", 128, 56, 64, 256, 1},   {"1x1 56", 128, 56, 256, 64, 1},
    {"1x1 28", 128, 28, 128, 512, 1},  {"1x1 28", 128, 28, 512, 128, 1},
    {"1x1 14", 128, 14, 256, 1024, 1}, {"1x1 14", 128, 14, 1024, 256, 1},
    {"1x1 7", 128, 7, 512, 2048, 1},   {"1x1 7", 128, 7, 2048, 512, 1},
};

class Timer {
  public:
    Timer() {
        RELPROP_CHECK(cudaEventCreate(&begin_));
        RELPROP_CHECK(cudaEventCreate(&end_));
    }
    template <class Run> double seconds(const Run &run) {
        std::vector<float> all;
        run();
        for (int i = 0; i < 5; ++i) {
            float ms = 0;
            RELPROP_CHECK(cudaEventRecord(begin_));
            run();
            RELPROP_CHECK(cudaEventRecord(end_));
            RELPROP_CHECK(cudaEventSynchronize(end_));
            RELPROP_CHECK(cudaEventElapsedTime(&ms, begin_, end_));
            all.push_back(ms);
        }
        std::nth_element(all.begin(), all.begin() + 2, all.end());
        return all[2] * 1e-3;
    }

  private:
    cudaEvent_t begin_, end_;
};

__global__ void noise(float *to, int64_t count) {
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < count; i += gridDim.x * 256ll) {
        uint32_t x = static_cast<uint32_t>(i) * 2654435761u + 12345u;
        x ^= x >> 15, x *= 2246822519u, x ^= x >> 13, x *= 3266489917u, x ^= x >> 16;
        to[i] = static_cast<float>(static_cast<int32_t>(x)) * 4.6566e-10f;
    }
}

float *fill(int64_t count) {
    float *at = nullptr;
    RELPROP_CHECK(cudaMalloc(&at, static_cast<size_t>(count) * 4));
    noise<<<1024, 256>>>(at, count);
    RELPROP_CHECK(cudaGetLastError());
    return at;
}

void print(const char *what, const Layer &l, double seconds) {
    const double pixels = double{1} * l.n * l.size * l.size;
    const double operations = 2 * pixels * l.in * l.out * l.kernel * l.kernel;
    const double bytes =
        4 * (pixels * (l.in + l.out) + double{1} * l.in * l.out * l.kernel * l.kernel);
    std::printf("%-8s %4d->%4d  %-22s %8.3f ms %6.0f TFLOP/s %6.0f GB/s\n", l.name, l.in, l.out,
                what, seconds * 1e3, operations / seconds * 1e-12, bytes / seconds * 1e-9);
}

// Of a precision.
struct Way {
    std::vector<Cut> (*cuts)(const Product &);
    void (*product)(const Product &, Stream);
};

int chosen = -1;

void all(const Way &way, const Product &p, const Layer &l, Timer &timer) {
    int number = 0;
    for (const Cut &cut : way.cuts(p)) {
        const bool worth = l.out > cut.channels / 2 && (cut.blocks & (cut.blocks - 1)) == 0;
        if (!worth || (chosen >= 0 && number++ != chosen))
            continue;
        char what[64];
        std::snprintf(what, sizeof what, "%s %dx%d x%d", cut.patches ? "patch" : "tile", cut.rows,
                      cut.channels, cut.blocks);
        print(what, l, timer.seconds([&] { cut.launch(p, cut.blocks, nullptr); }));
    }
}

void measure(const Way &way, const Layer &l, Timer &timer) {
    std::vector<Pixel> taps;
    const int before = l.kernel / 2;
    for (int y = 0; y < l.kernel; ++y)
        for (int x = 0; x < l.kernel; ++x)
            taps.push_back({0, y - before, x - before});
    Pixel *on = nullptr;
    RELPROP_CHECK(cudaMalloc(&on, taps.size() * sizeof(Pixel)));
    RELPROP_CHECK(cudaMemcpy(on, taps.data(), taps.size() * sizeof(Pixel), cudaMemcpyHostToDevice));
    Product p;
    p.grid.from = {1, l.size, l.size, l.in};
    p.grid.to = {1, l.size, l.size, l.out};
    p.grid.size = {1, l.size, l.size};
    p.grid.step = p.grid.out_step = {1, 1, 1};
    p.grid.taps = on;
    p.grid.tap_count = static_cast<int>(taps.size());
    p.grid.least = taps.front();
    p.grid.most = taps.back();
    p.grid.groups = 1;
    p.n = l.n;
    p.run = l.in;
    p.sources = 1;
    const int64_t pixels = int64_t{1} * l.n * l.size * l.size;
    p.source[0].data = fill(pixels * l.in);
    p.source[0].weights = fill(int64_t{2} * l.in * l.out * l.kernel * l.kernel);
    p.epilogue.out = fill(pixels * l.out);
    const int64_t scratch = most_shared_tiles + most_shared_sums;
    p.scratch = fill(scratch);
    RELPROP_CHECK(cudaMemset(p.scratch, 0, most_shared_tiles * 4));
    all(way, p, l, timer);
    if (chosen < 0)
        print("as chosen", l, timer.seconds([&] { way.product(p, nullptr); }));
    for (void *at : {(void *)p.source[0].data, (void *)p.source[0].weights, (void *)p.epilogue.out,
                     (void *)p.scratch, (void *)on})
        RELPROP_CHECK(cudaFree(at));
}

void measure_all(const Way &way, int only) {
    Timer timer;
    int i = 0;
    for (const Layer &l : layers)
        if (only < 0 || only == i++) {
            Layer of = l;
            if (chosen >= 0)
                of.n = 32;
            measure(way, of, timer);
        }
}

} // namespace

int main(int count, char **arguments) {
    const std::string precision = count > 1 ? arguments[1] : "tf32";
    const int only = count > 2 ? std::atoi(arguments[2]) : -1;
    chosen = count > 3 ? std::atoi(arguments[3]) : -1;
    if (precision == "tf32")
        measure_all({cuts_tf32, product_warpgroup_tf32}, only);
    else if (precision == "bf16")
        measure_all({cuts_bf16, product_warpgroup_bf16}, only);
    else
        measure_all({cuts_float32, product_warpgroup_float32}, only);
}
