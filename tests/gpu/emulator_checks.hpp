// What the programs that check the emulator share: memory, kernels that start as the project's own
// do, and how checks run. Without arguments a program runs what must succeed; `emulator_check
// <name>` runs one that must end the program. Run by test_emulator.py.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "checks.hpp"
#include "launch.cuh"

namespace relprop {

// ---- memory of a device, read back at once

class Floats {
  public:
    explicit Floats(size_t count) : count_(count) {
        RELPROP_CHECK(cudaMalloc(&data_, count * sizeof(float)));
    }
    explicit Floats(const std::vector<float> &values) : Floats(values.size()) {
        RELPROP_CHECK(cudaMemcpy(data_, values.data(), count_ * sizeof(float), cudaMemcpyDefault));
    }
    Floats(const Floats &) = delete;
    Floats &operator=(const Floats &) = delete;
    ~Floats() { cudaFree(data_); }
    float *data() const { return data_; }
    std::vector<float> read() const {
        std::vector<float> values(count_);
        RELPROP_CHECK(cudaMemcpy(values.data(), data_, count_ * sizeof(float), cudaMemcpyDefault));
        return values;
    }

  private:
    size_t count_;
    float *data_ = nullptr;
};

inline std::vector<float> ascending(size_t count) {
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i)
        values[i] = static_cast<float>(i);
    return values;
}

// ---- kernels

struct Arrays {
    const float *in;
    float *out;
};

__global__ void twice_kernel(Arrays a, int64_t count) {
    if (thread_index() < count)
        a.out[thread_index()] = 2.0f * a.in[thread_index()];
}

constexpr int threads = 256;

// Sums of a block's values, by a tree in shared memory.
__global__ void __launch_bounds__(threads) tree_kernel(const __grid_constant__ Arrays a) {
    __shared__ float tree[threads];
    const unsigned i = threadIdx.x;
    tree[i] = a.in[blockIdx.x * threads + i];
    for (unsigned half = threads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (i < half)
            tree[i] += tree[i + half];
    }
    if (i == 0)
        a.out[blockIdx.x] = tree[0];
}

constexpr Arrays none{nullptr, nullptr};

// ---- checks

// A program: `die` runs what is named, and returns where that did not end it.
template <size_t count>
int run(const Check (&checks)[count], int (*die)(const std::string &), int given,
        char **arguments) {
    if (given == 1)
        return run(checks);
    return exit_code([&] {
        const int left = die(arguments[1]);
        RELPROP_CHECK(cudaDeviceSynchronize());
        std::printf("%s did not end the program\n", arguments[1]);
        return left;
    });
}

} // namespace relprop
