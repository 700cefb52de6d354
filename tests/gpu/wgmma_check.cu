// Checks what cuda/wgmma.cuh says of Hopper's instructions, each by itself: which lane holds what,
// how weights lie in shared memory, and that the bits that a factor has too many are not read.
// Runs on a GPU of that kind, or under tests/gpu/emulator.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "launch.cuh"
#include "on_device.hpp"
#include "tiles.cuh"
#include "warpgroup_sums.cuh"

namespace {

using namespace relprop;
using namespace relprop::cuda;

struct Arguments {
    const float *a; // [64][8], or [64][16] of bfloat16
    const float *b; // [n][32]: of a slice, in the order in which it lies
    float *sums;    // [64][n]  in: what is added to
    int part;       // of the slice: its factors are [8 part, 8 part + 8), or 16
};

template <Precision precision, int n, bool begins>
__global__ void __launch_bounds__(warpgroup_threads)
    product_kernel(const __grid_constant__ Arguments p) {
#ifdef RELPROP_WARPGROUPS
    constexpr bool halves = precision == Precision::bf16;
    constexpr int depth = halves ? 16 : 8;
    auto *b = shared_memory<Weight<precision>>();
    for (int i = threadIdx.x; i < n * slice; i += warpgroup_threads) {
        const int row = i / slice, k = i % slice;
        if constexpr (halves)
            b[place_in_half_slice(row, k)] = static_cast<uint16_t>(to_bf16(p.b[i], 0.0f));
        else
            b[place_in_slice(row, k)] = p.b[i];
    }
    show_to_tensor_cores();
    __syncthreads();
    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, lane = threadIdx.x % 4;
    float sum[n / 2];
    for (int i = 0; i < n / 2; ++i)
        sum[i] = p.sums[(row + i / 2 % 2 * 8) * n + i / 4 * 8 + lane * 2 + i % 2];
    uint32_t a[4];
    for (int i = 0; i < 4; ++i) {
        const float *of_row = p.a + (row + i % 2 * 8) * depth;
        if constexpr (halves) {
            const float *two = of_row + i / 2 * 8 + lane * 2;
            a[i] = to_bf16(two[0], two[1]);
        } else {
            a[i] = __float_as_uint(of_row[i / 2 * 4 + lane]);
        }
    }
    const uint64_t at = descriptor_of<slice * sizeof(Weight<precision>)>(b) +
                        static_cast<uint64_t>(p.part * 32 / 16);
    show_registers();
    if constexpr (begins)
        begin_warpgroup_bf16(sum, a, at);
    else if constexpr (halves)
        multiply_warpgroup_bf16(sum, a, at);
    else
        multiply_warpgroup_tf32(sum, a, at);
    close_products();
    await_products<0>();
    for (int i = 0; i < n / 2; ++i)
        p.sums[(row + i / 2 % 2 * 8) * n + i / 4 * 8 + lane * 2 + i % 2] = sum[i];
#else
    __trap();
#endif
}

std::mt19937 generator(1);

std::vector<float> draw(size_t count) {
    std::uniform_real_distribution<float> number(-1.0f, 1.0f);
    std::vector<float> values(count);
    for (float &value : values)
        value = number(generator);
    return values;
}

// What tensor cores read of a float: TF32 cuts it off, bfloat16 was rounded before.
double read_of(Precision precision, float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t read = precision == Precision::tf32
                              ? bits & ~0x1fffu
                              : (bits + 0x7fffu + (bits >> 16 & 1)) & 0xffff0000u;
    return static_cast<double>(std::bit_cast<float>(read));
}

// `begins`: what the sums hold before does not count.
template <Precision precision, int n, bool begins = false> bool agrees(const char *name) {
    constexpr int depth = precision == Precision::bf16 ? 16 : 8;
    double most = 0.0;
    for (int part = 0; part < slice / depth; ++part) {
        const std::vector<float> a = draw(warpgroup_rows * depth), b = draw(n * slice);
        std::vector<float> before = draw(warpgroup_rows * n), after = before;
        if (begins)
            std::fill(before.begin(), before.end(), std::numeric_limits<float>::quiet_NaN());
        const OnDevice<float> a_there(a), b_there(b), sums(before);
        RELPROP_LAUNCH_BLOCKS((product_kernel<precision, n, begins>),
                              (Arguments{a_there.data(), b_there.data(), sums.data(), part}), 1,
                              warpgroup_threads, n * slice * sizeof(float), nullptr);
        RELPROP_CHECK(cudaDeviceSynchronize());
        sums.read(after);
        for (size_t row = 0; row < warpgroup_rows; ++row)
            for (size_t c = 0; c < n; ++c) {
                double sum = begins ? 0.0 : static_cast<double>(before[row * n + c]);
                for (size_t k = 0; k < depth; ++k)
                    sum += read_of(precision, a[row * depth + k]) *
                           read_of(precision, b[c * slice + static_cast<size_t>(part) * depth + k]);
                const double off = std::abs(static_cast<double>(after[row * n + c]) - sum);
                most = std::max(most, std::isnan(off) ? 1.0 : off);
            }
    }
    const bool good = most < 4e-6; // sums of up to 16, cut off
    std::printf("%-4s %-26s %.1e\n", good ? "ok" : "FAIL", name, most);
    return good;
}

} // namespace

int main() {
    try {
        if (attribute_of_gpu(cudaDevAttrComputeCapabilityMajor) != 9) {
            std::puts("left out: these instructions are Hopper's alone");
            return 0;
        }
        bool all = agrees<Precision::tf32, 64>("64 x 64, TF32");
        all = agrees<Precision::tf32, 32>("64 x 32, TF32") && all;
        all = agrees<Precision::tf32, 128>("64 x 128, TF32") && all;
        all = agrees<Precision::tf32, 256>("64 x 256, TF32") && all;
        all = agrees<Precision::bf16, 64>("64 x 64, bfloat16") && all;
        all = agrees<Precision::bf16, 256>("64 x 256, bfloat16") && all;
        all = agrees<Precision::bf16, 32>("64 x 32, bfloat16") && all;
        all = agrees<Precision::bf16, 128>("64 x 128, bfloat16") && all;
        all = agrees<Precision::bf16, 32, true>("64 x 32, bfloat16, begun") && all;
        all = agrees<Precision::bf16, 64, true>("64 x 64, bfloat16, begun") && all;
        all = agrees<Precision::bf16, 128, true>("64 x 128, bfloat16, begun") && all;
        return all ? 0 : 1;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
