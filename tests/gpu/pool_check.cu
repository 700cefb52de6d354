// Compares the CUDA pooling kernels with the CPU's, bit for bit, on one list of geometries.
// Built with RELPROP_GPU_CHECKS; run by test_gpu.py, or by hand on a machine with a GPU, and by
// test_emulator.py where CUDA is emulated.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <vector>

#include "launch.cuh"
#include "on_device.hpp"
#include "tallies.hpp"
#include "time_limit.hpp"

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

// size, outputs, kernel, stride, pad_before, pad_after, dilation, adaptive; channels that make
// threads hold one or four, and fill 32 or not
const Case cases[] = {
    {"2x2", 8, {8, 4, 2, 2, 0, 0, 1, false}, {6, 3, 2, 2, 0, 0, 1, false}},
    {"2x2, chunks", 64, {8, 4, 2, 2, 0, 0, 1, false}, {6, 3, 2, 2, 0, 0, 1, false}},
    {"3x3 of 3, chunks", 32, {9, 3, 3, 3, 0, 0, 1, false}, {14, 5, 3, 3, 1, 0, 1, false}},
    {"4x4 of 4, chunks", 96, {8, 2, 4, 4, 0, 0, 1, false}, {13, 3, 4, 4, 0, 0, 1, false}},
    {"3x3 of 3, odd", 5, {9, 3, 3, 3, 0, 0, 1, false}, {14, 5, 3, 3, 1, 0, 1, false}},
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
    {"larger than the image", 16, {2, 1, 3, 2, 0, 0, 1, false}, {2, 1, 3, 2, 0, 0, 1, false}},
    {"higher than the image", 32, {2, 1, 3, 2, 0, 0, 1, false}, {9, 4, 3, 2, 0, 0, 1, false}},
    {"wider than the image", 5, {9, 5, 3, 2, 1, 1, 1, false}, {1, 1, 3, 2, 0, 1, 1, false}},
    {"wider, padding not counted",
     5,
     {9, 5, 3, 2, 1, 1, 1, false},
     {1, 1, 3, 2, 0, 1, 1, false},
     false},
    {"higher, 5x5 of 3", 9, {3, 1, 5, 3, 0, 0, 1, false}, {20, 7, 5, 3, 2, 2, 1, false}},
    {"higher, dilated", 4, {3, 1, 3, 3, 0, 0, 2, false}, {9, 7, 3, 1, 1, 1, 2, false}},
    {"higher, strips", 256, {2, 1, 3, 2, 0, 0, 1, false}, {129, 64, 3, 2, 0, 0, 1, false}},
    {"deeper than the volume",
     6,
     {5, 3, 3, 2, 1, 1, 1, false},
     {6, 3, 2, 2, 0, 0, 1, false},
     true,
     0,
     {2, 1, 3, 2, 0, 0, 1, false}},
    {"deeper than a plane",
     32,
     {17, 9, 3, 2, 1, 1, 1, false},
     {18, 9, 3, 2, 1, 1, 1, false},
     true,
     0,
     {1, 1, 3, 3, 0, 0, 1, false}},
    {"2x2, a rest", 8, {17, 8, 2, 2, 0, 0, 1, false}, {7, 3, 2, 2, 0, 0, 1, false}},
    {"2x2, ceil mode", 5, {17, 9, 2, 2, 0, 0, 1, false}, {7, 4, 2, 2, 0, 0, 1, false}},
    {"3x3 apart, padded", 12, {16, 6, 3, 3, 1, 1, 1, false}, {17, 6, 3, 3, 1, 1, 1, false}},
    {"1x1, gaps", 4, {7, 3, 1, 3, 0, 0, 1, false}, {8, 4, 1, 2, 0, 0, 1, false}},
    {"apart, gaps", 3, {19, 4, 3, 5, 1, 0, 1, false}, {11, 3, 2, 4, 0, 0, 1, false}},
    {"apart, dilated", 8, {17, 3, 3, 6, 1, 1, 2, false}, {11, 4, 2, 3, 0, 0, 2, false}},
    {"apart, volume",
     4,
     {6, 3, 2, 2, 0, 0, 1, false},
     {7, 3, 2, 2, 0, 0, 1, false},
     true,
     0,
     {4, 2, 2, 2, 0, 0, 1, false}},
    {"adaptive, even", 20, {12, 3, 0, 0, 0, 0, 1, true}, {10, 5, 0, 0, 0, 0, 1, true}},
    {"one window", 4, {5, 1, 3, 1, 0, 0, 1, false}, {6, 1, 4, 1, 0, 0, 1, false}},
    {"3x3 of 2, tiles", 40, {33, 17, 3, 2, 1, 1, 1, false}, {47, 24, 3, 2, 1, 1, 1, false}},
    {"3x3 of 2, ceil mode, tiles",
     33,
     {32, 16, 3, 2, 0, 0, 1, false},
     {18, 9, 3, 2, 0, 0, 1, false}},
    {"3x3 of 1, tiles", 64, {17, 17, 3, 1, 1, 1, 1, false}, {33, 33, 3, 1, 1, 1, 1, false}},
    {"3x3 of 1, no padding", 7, {16, 14, 3, 1, 0, 0, 1, false}, {31, 29, 3, 1, 0, 0, 1, false}},
    {"2x2 of 1, tiles", 36, {17, 16, 2, 1, 0, 0, 1, false}, {20, 21, 2, 1, 1, 1, 1, false}},
    {"5x5 of 1", 8, {14, 14, 5, 1, 2, 2, 1, false}, {20, 20, 5, 1, 2, 2, 1, false}},
    {"5x5 of 3", 9, {35, 11, 5, 3, 0, 0, 1, false}, {20, 7, 5, 3, 2, 2, 1, false}},
    {"3x3 of 2 and 1", 4, {18, 8, 3, 2, 0, 0, 1, false}, {17, 17, 3, 1, 1, 1, 1, false}},
    {"5x2 of 1 and 3", 6, {18, 14, 5, 1, 0, 0, 1, false}, {17, 6, 2, 3, 0, 0, 1, false}},
    {"15x17, a byte's all", 4, {20, 6, 15, 1, 0, 0, 1, false}, {24, 8, 17, 1, 0, 0, 1, false}},
    {"16x16, beyond a byte", 4, {20, 5, 16, 1, 0, 0, 1, false}, {24, 9, 16, 1, 0, 0, 1, false}},
    {"3x3 of 1, strips", 256, {18, 18, 3, 1, 1, 1, 1, false}, {26, 26, 3, 1, 1, 1, 1, false}},
    {"3x3 of 2, strips", 256, {38, 19, 3, 2, 1, 1, 1, false}, {26, 13, 3, 2, 0, 1, 1, false}},
    {"2x2 of 1, strips", 129, {35, 34, 2, 1, 0, 0, 1, false}, {36, 35, 2, 1, 0, 0, 1, false}},
    {"3x3 of 1, strips, odd", 257, {18, 18, 3, 1, 1, 1, 1, false}, {26, 26, 3, 1, 1, 1, 1, false}},
    {"3x3 of 2, strips, odd", 257, {38, 19, 3, 2, 1, 1, 1, false}, {26, 13, 3, 2, 0, 1, 1, false}},
    {"2x2 of 1, strips, fours",
     128,
     {35, 34, 2, 1, 0, 0, 1, false},
     {36, 35, 2, 1, 0, 0, 1, false}},
    {"3x3 of 1, strips, padding not counted",
     256,
     {18, 18, 3, 1, 1, 1, 1, false},
     {26, 26, 3, 1, 1, 1, 1, false},
     false},
    {"3x3 of 1, strips, divisor",
     256,
     {18, 18, 3, 1, 1, 1, 1, false},
     {26, 26, 3, 1, 1, 1, 1, false},
     true,
     4},
    {"adaptive, fours", 8, {10, 3, 0, 0, 0, 0, 1, true}, {7, 5, 0, 0, 0, 0, 1, true}},
    {"signal", 32, {1, 1, 1, 1, 0, 0, 1, false}, {50, 25, 3, 2, 1, 1, 1, false}},
    {"signal along y", 3, {50, 48, 3, 1, 0, 0, 1, false}, {1, 1, 1, 1, 0, 0, 1, false}},
    {"single pixel", 1, {1, 1, 1, 1, 0, 0, 1, false}, {1, 1, 1, 1, 0, 0, 1, false}},
};

struct Step {
    const char *name;
    void (*run)(const Kernels &, const Pool &);
    bool relevance;
    bool add;
    bool special; // values may be infinite: the CPU multiplies averages' by 0 here and there
    bool sends = false;
};

void max_forward(const Kernels &k, const Pool &p) { k.max_pool(p, nullptr); }
void max_relevance(const Kernels &k, const Pool &p) { k.max_pool_relevance(p, nullptr); }
void average_forward(const Kernels &k, const Pool &p) { k.average_pool(p, nullptr); }
void average_relevance(const Kernels &k, const Pool &p) { k.average_pool_relevance(p, nullptr); }

const Step steps[] = {
    {"max_pool", max_forward, false, false, true},
    {"average_pool", average_forward, false, false, true},
    {"max_pool_relevance", max_relevance, true, false, true},
    {"max_pool_relevance, added", max_relevance, true, true, true},
    {"max_pool_relevance, sent", max_relevance, true, false, true, true},
    {"max_pool_relevance, added and sent", max_relevance, true, true, true, true},
    {"average_pool_relevance", average_relevance, true, false, false},
    {"average_pool_relevance, added", average_relevance, true, true, false},
};

using Values = std::vector<float>;

std::mt19937 generator(0);

constexpr int64_t some = 1'000'003; // not a multiple of what a row or a sample has

// So many values of a list, over and over from a place that is drawn: to draw each of a large
// case's would take most of the time.
Values drawn_from(const Values &list, int64_t count) {
    Values values;
    values.reserve(static_cast<size_t>(count));
    size_t at = generator() % list.size();
    while (values.size() < static_cast<size_t>(count)) {
        const size_t end = std::min(list.size(), at + static_cast<size_t>(count) - values.size());
        values.insert(values.end(), list.begin() + static_cast<std::ptrdiff_t>(at),
                      list.begin() + static_cast<std::ptrdiff_t>(end));
        at = 0;
    }
    return values;
}

// Few distinct values, so that windows hold ties.
Values list_of_digits() {
    std::uniform_int_distribution<int> digits(-9, 9);
    Values values(some);
    for (float &value : values)
        value = 0.1f * static_cast<float>(digits(generator));
    return values;
}

Values draw(int64_t count) {
    static const Values list = list_of_digits();
    return drawn_from(list, count);
}

// The same with some NaN, and with `percent` of them the least value there is.
Values list_of_special(int percent) {
    Values values = list_of_digits();
    std::uniform_int_distribution<int> numbers(0, 99);
    for (float &value : values) {
        const int number = numbers(generator);
        if (number < percent)
            value = -std::numeric_limits<float>::infinity();
        else if (number == 99)
            value = std::numeric_limits<float>::quiet_NaN();
    }
    return values;
}

Values draw_special(int64_t count, int percent) {
    static std::map<int, Values> lists;
    if (lists.count(percent) == 0)
        lists[percent] = list_of_special(percent);
    return drawn_from(lists[percent], count);
}

// Bit for bit, but that any NaN is like another.
bool same(const Values &a, const Values &b) {
    for (size_t i = 0; i < a.size(); ++i)
        if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0 &&
            !(std::isnan(a[i]) && std::isnan(b[i])))
            return false;
    return a.size() == b.size();
}

// Epsilon's, but for where things lie.
Message message_of(const Kernels &kernels, int channels) {
    Message m;
    m.rule.epsilon = 0.01f;
    m.chunks = kernels.chunks(1, channels);
    return m;
}

// Sums in another order: of up to some hundreds of values up to 3.
bool near(const Values &a, const Values &b) {
    for (size_t i = 0; i < a.size(); ++i)
        if (!(std::abs(a[i] - b[i]) <= 1e-3f || (std::isnan(a[i]) && std::isnan(b[i])) ||
              a[i] == b[i]))
            return false;
    return a.size() == b.size();
}

bool agree(const Case &of, const Step &step, int64_t n, int least) {
    const int64_t size = n * of.z.size * of.y.size * of.x.size * of.channels;
    const Values in = least > 0 ? draw_special(size, least) : draw(size);
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

    const int64_t rows = size / of.channels;
    const Kernels &cpu = cpu_kernels(), &cuda = cuda_kernels(0, Precision::float32);
    const Values bias = draw(of.channels);
    Message host_message = message_of(cpu, of.channels), device_message = host_message;
    device_message.chunks = cuda.chunks(1, of.channels);
    Values told(static_cast<size_t>(rows * host_message.chunks * tally_sums));
    Values device_told(static_cast<size_t>(rows * device_message.chunks * tally_sums));

    const auto run = [&](const Kernels &on, Message &message, const float *of_in, const float *of_r,
                         const float *of_bias, float *result, float *tally) {
        message.r = result;
        message.z = of_in;
        message.bias = of_bias;
        message.tally = tally;
        pool.in = of_in;
        pool.r = of_r;
        pool.result = result;
        pool.sent = step.sends ? &message : nullptr;
        step.run(on, pool);
    };
    run(cpu, host_message, in.data(), r.data(), bias.data(), expected.data(), told.data());

    const OnDevice<float> device_in(in), device_r(r), device_result(got), device_bias(bias),
        device_tally(device_told);
    run(cuda, device_message, device_in.data(), device_r.data(), device_bias.data(),
        device_result.data(), device_tally.data());
    device_result.read(got);
    device_tally.read(device_told);

    const bool right = same(got, expected) && near(per_row(device_told, device_message.chunks),
                                                   per_row(told, host_message.chunks));
    std::printf("%-4s %-30s %s, %d %% -inf\n", right ? "ok" : "FAIL", step.name, of.name, least);
    return right;
}

} // namespace

int main() {
    try {
        TimeLimit limit;
        bool all = true;
        const int64_t n = 3 + cuda::multiprocessors() / 4; // so that strips are taken
        for (const Case &of : cases)
            for (const Step &step : steps)
                for (const int least : {0, 10, 95})
                    if ((least == 0 || step.special) && !limit.reached())
                        all = agree(of, step, n, least) && all;
        return all ? 0 : 1;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
