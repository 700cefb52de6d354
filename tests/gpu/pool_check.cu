// Compares the CUDA pooling kernels with the CPU's, bit for bit, on one list of geometries.
// Built with RELPROP_GPU_CHECKS; run by test_gpu.py, or by hand on a machine with a GPU, and by
// test_emulator.py where CUDA is emulated.
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "launch.cuh"

namespace {

using namespace relprop;

struct Case {
    const char *name;
    int channels;
    PoolAxis y, x;
    bool count_include_pad = true;
    int divisor = 0;
    PoolAxis z = {1, 1, 1, 1, 0, 0, 1, false};
};

// size, outputs, kernel, stride, pad_before, pad_after, dilation, adaptive
const Case cases[] = {
    {"2x2", 8, {8, 4, 2, 2, 0, 0, 1, false}, {6, 3, 2, 2, 0, 0, 1, false}},
    {"3x3 overlapping", 33, {9, 4, 3, 2, 0, 0, 1, false}, {11, 5, 3, 2, 0, 0, 1, false}},
    {"padded", 5, {7, 4, 3, 2, 1, 1, 1, false}, {7, 7, 3, 1, 1, 1, 1, false}},
    {"padding not counted", 5, {7, 4, 3, 2, 1, 1, 1, false}, {7, 7, 3, 1, 1, 1, 1, false}, false},
    {"divisor", 5, {7, 4, 3, 2, 1, 1, 1, false}, {7, 7, 3, 1, 1, 1, 1, false}, true, 4},
    {"asymmetric", 3, {6, 3, 3, 2, 0, 1, 1, false}, {6, 3, 3, 2, 1, 0, 1, false}},
    {"ceil mode", 16, {7, 4, 3, 2, 0, 0, 1, false}, {8, 4, 3, 2, 0, 0, 1, false}},
    {"dilated", 4, {9, 3, 3, 2, 0, 0, 2, false}, {9, 7, 3, 1, 1, 1, 2, false}},
    {"adaptive", 7, {10, 3, 0, 0, 0, 0, 1, true}, {7, 5, 0, 0, 0, 0, 1, true}},
    {"global", 300, {7, 1, 0, 0, 0, 0, 1, true}, {7, 1, 0, 0, 0, 0, 1, true}},
    {"volume",
     6,
     {5, 3, 3, 2, 1, 1, 1, false},
     {6, 3, 2, 2, 0, 0, 1, false},
     false,
     0,
     {5, 4, 2, 1, 0, 0, 1, false}},
    {"single pixel", 1, {1, 1, 1, 1, 0, 0, 1, false}, {1, 1, 1, 1, 0, 0, 1, false}},
};

struct Step {
    const char *name;
    void (*run)(const Kernels &, const Pool &);
    bool relevance;
    bool add;
};

void max_forward(const Kernels &k, const Pool &p) { k.max_pool(p, nullptr); }
void max_relevance(const Kernels &k, const Pool &p) { k.max_pool_relevance(p, nullptr); }
void average_forward(const Kernels &k, const Pool &p) { k.average_pool(p, nullptr); }
void average_relevance(const Kernels &k, const Pool &p) { k.average_pool_relevance(p, nullptr); }

const Step steps[] = {
    {"max_pool", max_forward, false, false},
    {"average_pool", average_forward, false, false},
    {"max_pool_relevance", max_relevance, true, false},
    {"max_pool_relevance, added", max_relevance, true, true},
    {"average_pool_relevance", average_relevance, true, false},
    {"average_pool_relevance, added", average_relevance, true, true},
};

using Values = std::vector<float>;

// Few distinct values, so that windows hold ties.
Values draw(int64_t count) {
    static std::mt19937 generator(0);
    std::uniform_int_distribution<int> digits(-9, 9);
    Values values(static_cast<size_t>(count));
    for (float &value : values)
        value = 0.1f * static_cast<float>(digits(generator));
    return values;
}

class OnDevice {
  public:
    explicit OnDevice(const Values &values) : size_(values.size() * sizeof(float)) {
        RELPROP_CHECK(cudaMalloc(&data_, size_));
        RELPROP_CHECK(cudaMemcpy(data_, values.data(), size_, cudaMemcpyHostToDevice));
    }
    OnDevice(const OnDevice &) = delete;
    OnDevice &operator=(const OnDevice &) = delete;
    ~OnDevice() { cudaFree(data_); }
    float *data() const { return static_cast<float *>(data_); }
    void read(Values &values) const {
        RELPROP_CHECK(cudaMemcpy(values.data(), data_, size_, cudaMemcpyDeviceToHost));
    }

  private:
    size_t size_;
    void *data_ = nullptr;
};

bool agree(const Case &of, const Step &step, int64_t n) {
    const Values in = draw(n * of.z.size * of.y.size * of.x.size * of.channels);
    const Values r = draw(n * of.z.outputs * of.y.outputs * of.x.outputs * of.channels);
    Values expected = step.relevance ? draw(static_cast<int64_t>(in.size())) : Values(r.size());
    Values got = expected;

    Pool pool{};
    pool.n = n;
    pool.channels = of.channels;
    pool.z = of.z;
    pool.y = of.y;
    pool.x = of.x;
    pool.count_include_pad = of.count_include_pad;
    pool.divisor = of.divisor;
    pool.add = step.add;

    Pool host = pool;
    host.in = in.data();
    host.r = r.data();
    host.result = expected.data();
    step.run(cpu_kernels(), host);

    const OnDevice device_in(in), device_r(r), device_result(got);
    Pool device = pool;
    device.in = device_in.data();
    device.r = device_r.data();
    device.result = device_result.data();
    step.run(cuda_kernels(0, Precision::float32), device);
    device_result.read(got);

    const bool same = std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0;
    std::printf("%-4s %-30s %s\n", same ? "ok" : "FAIL", step.name, of.name);
    return same;
}

} // namespace

int main() {
    try {
        bool all = true;
        for (const Case &of : cases)
            for (const Step &step : steps)
                all = agree(of, step, 3) && all;
        return all ? 0 : 1;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
