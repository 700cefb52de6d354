// Compares CUDA's kernels for values (all but pooling and products, which have checks of their own)
// with the CPU's: each case runs on both with the same memory, and all of it is compared
// afterwards. Built with RELPROP_GPU_CHECKS; run by test_gpu.py, or by hand on a machine with a
// GPU.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "launch.cuh"
#include "time_limit.hpp"

namespace {

using namespace relprop;

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

enum class Type { exact, float32, float64, unchecked };

// Memory of a case, as the host and as the device has it.
struct Block {
    std::vector<char> initial, host;
    char *device = nullptr;
    Type type;
    double scale; // differences are relative to it and the value

    Block(std::vector<char> bytes, Type type_, double scale_ = 1.0)
        : initial(bytes), host(bytes), type(type_), scale(scale_) {
        RELPROP_CHECK(cudaMalloc(reinterpret_cast<void **>(&device), initial.size() + 1));
        RELPROP_CHECK(cudaMemcpy(device, initial.data(), initial.size(), cudaMemcpyHostToDevice));
    }
    Block(const Block &) = delete;
    Block &operator=(const Block &) = delete;
    ~Block() { cudaFree(device); }
    std::vector<char> read() const {
        std::vector<char> bytes(initial.size());
        RELPROP_CHECK(cudaMemcpy(bytes.data(), device, bytes.size(), cudaMemcpyDeviceToHost));
        return bytes;
    }
};

// What a case runs with: kernels, and where they find what the case calls by its place on the host.
struct Side {
    const Kernels &kernels;
    const std::deque<Block> &blocks;

    template <class T> T *operator()(T *at) const {
        if (!kernels.device)
            return at;
        for (const Block &block : blocks) {
            const auto begin = reinterpret_cast<uintptr_t>(block.host.data());
            const auto place = reinterpret_cast<uintptr_t>(at);
            if (place >= begin && place < begin + block.host.size())
                return reinterpret_cast<T *>(block.device + (place - begin));
        }
        return nullptr;
    }
    template <class T> void put(T *to, const std::vector<T> &values) const {
        const size_t bytes = values.size() * sizeof(T);
        if (kernels.device)
            RELPROP_CHECK(cudaMemcpy((*this)(to), values.data(), bytes, cudaMemcpyHostToDevice));
        else
            std::memcpy(to, values.data(), bytes);
    }
};

template <class T>
double difference(const char *got, const char *expected, size_t bytes, double scale) {
    double worst = 0.0;
    for (size_t i = 0; i + sizeof(T) <= bytes; i += sizeof(T)) {
        T a, b;
        std::memcpy(&a, got + i, sizeof(T));
        std::memcpy(&b, expected + i, sizeof(T));
        if (std::isnan(a) && std::isnan(b))
            continue;
        const double error = std::fabs(static_cast<double>(a) - static_cast<double>(b)) /
                             (scale + std::fabs(static_cast<double>(b)));
        if (!(error <= worst) && a != b)
            worst = std::isnan(error) ? HUGE_VAL : error;
    }
    return worst;
}

// The distance of what the device has from what the host has.
double difference(const Block &block) {
    const std::vector<char> got = block.read();
    const std::vector<char> &expected = block.host;
    switch (block.type) {
    case Type::float32:
        return difference<float>(got.data(), expected.data(), got.size(), block.scale);
    case Type::float64:
        return difference<double>(got.data(), expected.data(), got.size(), block.scale);
    case Type::exact:
        return got == expected ? 0.0 : HUGE_VAL;
    case Type::unchecked:
        return 0.0;
    }
    return HUGE_VAL;
}

std::mt19937 generator(0);

int64_t draw(int64_t below) {
    return std::uniform_int_distribution<int64_t>(0, below - 1)(generator);
}

class Case {
  public:
    template <class T>
    T *give(const std::vector<T> &values, Type type = Type::exact, double scale = 1.0) {
        const char *bytes = reinterpret_cast<const char *>(values.data());
        blocks_.emplace_back(std::vector<char>(bytes, bytes + values.size() * sizeof(T)), type,
                             scale);
        return reinterpret_cast<T *>(blocks_.back().host.data());
    }
    // Few distinct values, so that some are equal and some are 0.
    float *floats(int64_t count, float scale = 0.1f) {
        std::vector<float> values(static_cast<size_t>(count));
        for (float &value : values)
            value = scale * static_cast<float>(draw(41) - 20);
        return give(values, Type::float32);
    }
    float *positive(int64_t count) {
        std::vector<float> values(static_cast<size_t>(count));
        for (float &value : values)
            value = 0.1f * static_cast<float>(draw(20) + 1);
        return give(values, Type::float32);
    }
    // `scale` for sums of numbers so large in all, of which little may be left.
    double *doubles(int64_t count, double scale = 1.0) {
        return give(std::vector<double>(static_cast<size_t>(count), 0.5), Type::float64, scale);
    }
    // For sums over samples of up to `size` values or tallies.
    double *scratch(int64_t n, int64_t size) {
        return reinterpret_cast<double *>(unchecked(2 * n * tallies_scratch(size)));
    }
    float *unchecked(int64_t count) {
        return give(std::vector<float>(static_cast<size_t>(count), 0.0f), Type::unchecked);
    }

    using Body = std::function<void(const Side &)>;

    // Runs on both and compares all memory, bit for bit where `bound` is 0.
    void run(const std::string &name, double bound, const Body &body) {
        if (limit.reached())
            return;
        body({cpu_kernels(), blocks_});
        body({cuda_kernels(0, Precision::float32), blocks_});
        RELPROP_CHECK(cudaDeviceSynchronize());
        double worst = 0.0;
        for (const Block &block : blocks_)
            worst = std::max(worst, difference(block));
        const bool same = worst <= bound;
        std::printf("%-4s %-50s %g\n", same ? "ok" : "FAIL", name.c_str(), worst);
        failures += !same;
    }

    static inline int failures = 0;
    static inline TimeLimit limit;

  private:
    std::deque<Block> blocks_;
};

void report(const char *name, bool right) {
    std::printf("%-4s %s\n", right ? "ok" : "FAIL", name);
    Case::failures += !right;
}

constexpr double rounding = 2e-5; // of what the devices compute in another order or another way
constexpr Stream stream = nullptr;

std::string with(const std::string &name, const std::string &what, bool add) {
    return name + ", " + what + (add ? ", added" : "");
}

// ---- merge.cu

void check_merges() {
    for (const int64_t n : {1, 3, 4, 1027, 2048, 70000})
        for (const int64_t by : {0, 1}) // a place that is not aligned
            for (const bool flag : {false, true}) {
                const std::string what = std::to_string(n) + " from " + std::to_string(by);
                const auto run = [&](const char *name, const auto &body) {
                    Case of;
                    const float *a = of.floats(n + by) + by, *b = of.floats(n + by) + by;
                    float *r = of.floats(n + by) + by, *out = of.floats(n + by) + by;
                    of.run(with(name, what, flag), 0.0,
                           [&](const Side &on) { body(on, on(a), on(b), on(r), on(out)); });
                };
                using F = float;
                run("add", [&](const Side &on, const F *a, const F *b, F *, F *out) {
                    on.kernels.add(a, b, out, n, flag, stream);
                });
                run("multiply", [&](const Side &on, const F *a, const F *b, F *, F *out) {
                    on.kernels.multiply(a, b, out, n, flag, stream);
                });
                run("maximum", [&](const Side &on, const F *a, const F *b, F *, F *out) {
                    on.kernels.maximum(a, b, out, n, stream);
                });
                run("maximum_relevance", [&](const Side &on, const F *a, const F *b, F *r, F *out) {
                    on.kernels.maximum_relevance(a, b, r, out, n, flag, stream);
                });
                run("carry", [&](const Side &on, const F *a, const F *, F *, F *out) {
                    on.kernels.carry(a, 0.3f, out, n, flag, stream);
                });
                run("fill", [&](const Side &on, const F *, const F *, F *, F *out) {
                    on.kernels.fill(0.3f, out, n, stream);
                });
            }
}

void check_blocks() {
    struct Shape {
        int64_t count, size, from_stride, to_stride;
    };
    for (const Shape &s : {Shape{5, 3, 3, 7}, Shape{5, 8, 12, 16}, Shape{300, 64, 64, 128}})
        for (const bool add : {false, true}) {
            Case of;
            const float *from = of.floats(s.count * s.from_stride);
            float *to = of.floats(s.count * s.to_stride);
            of.run(with("blocks", std::to_string(s.size), add), 0.0, [&](const Side &on) {
                on.kernels.blocks(
                    {s.count, s.size, on(from), s.from_stride, on(to), s.to_stride, add}, stream);
            });
        }
}

// ---- pointwise.cu

void check_activations() {
    for (int f = 0; f <= static_cast<int>(Function::softplus); ++f)
        for (const bool add : {false, true}) {
            const auto function = static_cast<Function>(f);
            const int64_t n = 4099;
            Case of;
            const float *x = of.floats(n, 0.4f), *r = of.floats(n);
            float *y = of.floats(n), *out = of.floats(n);
            of.run(with("activation", std::to_string(f), add), rounding, [&](const Side &on) {
                on.kernels.activation(function, 0.2f, on(x), on(y), n, stream);
                on.kernels.activation_gradient(function, 0.2f, on(x), on(r), on(out), n, add,
                                               stream);
            });
        }
}

void check_slopes() {
    for (const int64_t period : {1, 2, 3, 5, 8})
        for (const bool add : {false, true}) {
            const int64_t n = 8000;
            Case of;
            const float *x = of.floats(n), *r = of.floats(n), *slope = of.floats(period);
            float *y = of.floats(n), *out = of.floats(n), *clipped = of.floats(n);
            of.run(with("prelu, clip", std::to_string(period), add), 0.0, [&](const Side &on) {
                on.kernels.prelu({n, period, on(slope), on(x), nullptr, on(y), false}, stream);
                on.kernels.prelu_gradient({n, period, on(slope), on(x), on(r), on(out), add},
                                          stream);
                on.kernels.clip(-0.5f, 0.7f, on(x), on(clipped), n, stream);
                on.kernels.clip_gradient(-0.5f, 0.7f, on(clipped), on(r), on(out), n, add, stream);
            });
        }
}

// ---- norm.cu

void check_affine() {
    for (const int channels : {1, 2, 3, 64})
        for (const bool add : {false, true}) {
            const int64_t rows = 777, n = rows * channels;
            Case of;
            const float *x = of.floats(n), *s = of.floats(n);
            const float *scale = of.floats(channels), *shift = of.floats(channels);
            float *y = of.floats(n), *r = of.floats(n), *gradient = of.floats(n);
            of.run(with("affine", std::to_string(channels), add), 0.0, [&](const Side &on) {
                Affine p{rows, channels, on(x), on(scale), on(shift), on(s), on(y), add};
                on.kernels.affine(p, stream);
                p.result = on(r);
                on.kernels.affine_relevance(p, stream);
                p.x = nullptr;
                p.result = on(gradient);
                on.kernels.affine_relevance(p, stream);
            });
        }
}

void check_local_response_norm() {
    for (const int channels : {4, 19, 20})
        for (const bool within : {false, true})
            for (const int size : {1, 4, 5, 17})
                for (const float beta : {0.75f, 0.6f})
                    for (const bool add : {false, true}) {
                        LocalResponseNorm p{2,       {1, 6, 5, channels},
                                            within,  size,
                                            0.9f,    beta,
                                            1.5f,    nullptr,
                                            nullptr, nullptr,
                                            add};
                        const int64_t n = p.n * p.image.size();
                        Case of;
                        const float *x = of.floats(n), *s = of.floats(n);
                        float *y = of.floats(n), *sums = of.floats(n), *r = of.floats(n);
                        float *gradient = of.floats(n);
                        const std::string what = std::to_string(size) + (within ? " within" : "") +
                                                 " of " + std::to_string(channels);
                        of.run(with("local_response_norm", what, add), rounding,
                               [&](const Side &on) {
                                   p.x = on(x);
                                   p.s = on(s);
                                   p.result = on(y);
                                   on.kernels.local_response_norm(p, stream);
                                   p.result = on(sums);
                                   on.kernels.local_response_norm_sums(p, stream);
                                   p.result = on(r);
                                   on.kernels.local_response_norm_relevance(p, stream);
                                   p.result = on(gradient);
                                   on.kernels.local_response_norm_gradient(p, stream);
                               });
                    }
}

// ---- layer_norm.cu, softmax.cu

struct RowsCase {
    int64_t rows;
    int width, by; // by: floats that arrays begin behind an aligned place

    std::string name() const {
        return std::to_string(rows) + " of " + std::to_string(width) +
               (by > 0 ? " from " + std::to_string(by) : "");
    }
};

const RowsCase row_cases[] = {{1, 1, 0},    {9, 1, 0},    {40, 3, 0},    {5, 7, 0},
                              {41, 8, 0},   {3, 8, 1},    {6, 197, 0},   {130, 49, 0},
                              {7, 768, 0},  {2, 768, 3},  {5, 1023, 0},  {1, 1024, 0},
                              {2, 1025, 0}, {3, 1028, 1}, {2, 5000, 0},  {1, 5000, 1},
                              {2, 8192, 0}, {2, 9001, 0}, {2, 10000, 0}, {1, 10000, 2}};

void check_layer_norm() {
    for (const RowsCase &c : row_cases)
        for (const bool centred : {false, true})
            for (const int arrays : {0, 1, 2}) // weight, and bias
                for (const bool add : {false, true}) {
                    const int64_t n = c.rows * c.width;
                    Case of;
                    const auto floats = [&](int64_t count) {
                        return of.floats(count + c.by) + c.by;
                    };
                    const float *x = floats(n), *s = floats(n);
                    const float *weight = floats(c.width), *bias = floats(c.width);
                    float *y = floats(n), *r = floats(n), *gradient = floats(n);
                    const std::string what = c.name() + (centred ? " centred, " : ", ") +
                                             std::to_string(arrays) + " arrays";
                    of.run(with("layer_norm", what, add), rounding, [&](const Side &on) {
                        RowNorm p{c.rows,
                                  c.width,
                                  centred,
                                  1e-3f,
                                  on(x),
                                  arrays > 0 ? on(weight) : nullptr,
                                  arrays > 1 ? on(bias) : nullptr,
                                  on(s),
                                  on(y),
                                  add};
                        on.kernels.layer_norm(p, stream);
                        p.result = on(r);
                        on.kernels.layer_norm_relevance(p, stream);
                        p.result = on(gradient);
                        on.kernels.layer_norm_gradient(p, stream);
                    });
                }
}

void check_softmax() {
    for (const RowsCase &c : row_cases)
        for (const bool add : {false, true}) {
            const int64_t n = c.rows * c.width;
            Case of;
            const auto floats = [&] { return of.floats(n + c.by) + c.by; };
            std::vector<float> drawn;
            for (int64_t i = 0; i < n + c.by; ++i)
                drawn.push_back(0.4f * static_cast<float>(draw(41) - 20));
            if (add) // a row's largest value leaves the others almost nothing
                for (int64_t row = 0; row < c.rows; ++row)
                    drawn[static_cast<size_t>(c.by + row * c.width + draw(c.width))] = 100.0f;
            const float *x = of.give(drawn, Type::float32) + c.by, *r = floats();
            float *y = floats(), *constant = floats(), *relevance = floats(), *gradient = floats();
            of.run(with("softmax", c.name(), add), rounding, [&](const Side &on) {
                RowSoftmax p{c.rows, c.width, on(x), on(y), on(r), on(y), on(constant), add};
                on.kernels.softmax(p, stream);
                p.result = on(relevance);
                on.kernels.softmax_relevance(p, stream);
                p.result = on(gradient);
                on.kernels.softmax_gradient(p, stream);
            });
        }
    constexpr float far = HUGE_VALF; // places that a mask leaves out, and what is no distribution
    Case of;
    const float *x = of.give(std::vector<float>{1,         -far,      2,    3,     -far,  0.5f, //
                                                -far,      -far,      -far, -far,  -far,  -far, //
                                                1,         nan_value, 2,    3,     4,     5,    //
                                                nan_value, 1,         2,    3,     4,     5,    //
                                                1,         far,       2,    3,     4,     5,    //
                                                90,        -90,       0,    1e30f, 1e30f, -1e30f});
    float *y = of.floats(36);
    of.run("softmax, infinite", rounding, [&](const Side &on) {
        on.kernels.softmax({6, 6, on(x), nullptr, nullptr, on(y), nullptr, false}, stream);
    });
}

// ---- matrix_product.cu

struct MatricesCase {
    int64_t count;
    int rows, depth, columns;
};

void check_matrix_product() {
    for (const MatricesCase &c : {MatricesCase{1, 1, 1, 1},
                                  {3, 7, 5, 11},
                                  {2, 13, 131, 17},
                                  {1, 67, 300, 37},
                                  {1, 31, 128, 33},
                                  {1, 197, 64, 197},
                                  {2, 197, 197, 64},
                                  {5, 64, 16, 64},
                                  {1, 2, 1000, 3},
                                  {300, 19, 33, 21}}) // tiles are large on every GPU
        for (const bool a_turned : {false, true})
            for (const bool b_turned : {false, true})
                for (const bool times : {false, true})
                    for (const bool add : {false, true}) {
                        const int64_t n = c.count * c.rows * c.columns;
                        Case of;
                        const float *a = of.floats(c.count * c.rows * c.depth);
                        const float *b = of.floats(c.count * c.depth * c.columns);
                        const float *by = of.floats(n);
                        float *out = of.floats(n);
                        const std::string what =
                            std::to_string(c.count) + " of " + std::to_string(c.rows) + " x " +
                            std::to_string(c.depth) + " x " + std::to_string(c.columns) +
                            (a_turned ? ", a turned" : "") + (b_turned ? ", b turned" : "") +
                            (times ? ", times" : "");
                        of.run(with("matrix_product", what, add), rounding, [&](const Side &on) {
                            on.kernels.matrix_product({c.count, c.rows, c.depth, c.columns, on(a),
                                                       on(b), a_turned, b_turned, 0.3f,
                                                       times ? on(by) : nullptr, on(out), add},
                                                      stream);
                        });
                    }
}

// Of values with one sign, rounding grows with what is summed in a row.
void check_long_products() {
    const int depth = 50000;
    Case of;
    const float *a = of.positive(3 * depth), *b = of.positive(5 * depth);
    float *out = of.floats(15);
    of.run("matrix_product, a long sum", 1e-6, [&](const Side &on) {
        on.kernels.matrix_product(
            {1, 3, depth, 5, on(a), on(b), false, true, 1.0f, nullptr, on(out), false}, stream);
    });
}

// Rows and products are the same bits by themselves, in a batch, and where their values are not
// aligned.
void check_rows_of_batches() {
    const Kernels &kernels = cuda_kernels(0, Precision::float32);
    const auto drawn = [](int64_t count) {
        std::vector<float> values;
        for (int64_t i = 0; i < count; ++i) // sums round
            values.push_back(std::ldexp(static_cast<float>(draw(1 << 20)) - 5e5f,
                                        -static_cast<int>(20 + draw(10))));
        return values;
    };
    using Body = std::function<void(int64_t n, const float *, const float *, float *)>;
    // whether n items of these values give the bits that they give one after the other
    const auto same = [&](int64_t n, const std::vector<float> &a, const std::vector<float> &b,
                          int64_t size, const Body &body) {
        const auto results = [&](int64_t first, int64_t items, int64_t by) {
            const auto part = [&](const std::vector<float> &values) {
                const auto each = static_cast<int64_t>(values.size()) / n;
                const auto begin = values.begin() + first * each;
                std::vector<float> own(static_cast<size_t>(by), 0.0f);
                own.insert(own.end(), begin, begin + items * each);
                return own;
            };
            std::deque<Block> blocks;
            const auto room = [&](const std::vector<float> &values) {
                const char *bytes = reinterpret_cast<const char *>(values.data());
                blocks.emplace_back(std::vector<char>(bytes, bytes + values.size() * sizeof(float)),
                                    Type::unchecked);
                return reinterpret_cast<float *>(blocks.back().device) + by;
            };
            const float *of_a = room(part(a)), *of_b = room(part(b));
            float *out = room(std::vector<float>(static_cast<size_t>(by + items * size), 0.0f));
            body(items, of_a, of_b, out);
            RELPROP_CHECK(cudaDeviceSynchronize());
            const std::vector<char> bytes = blocks.back().read();
            return std::vector<char>(bytes.begin() + by * 4, bytes.end());
        };
        const std::vector<char> all = results(0, n, 0);
        for (const int64_t i : {int64_t{0}, n / 2, n - 1})
            for (const int64_t by : {0, 1}) {
                const std::vector<char> one = results(i, 1, by);
                if (std::memcmp(one.data(), all.data() + i * size * 4, one.size()) != 0)
                    return false;
            }
        return true;
    };
    for (const int width : {8, 197, 768, 1028, 5000, 10000}) {
        const int64_t n = 5;
        const std::vector<float> x = drawn(n * width), s = drawn(n * width);
        const auto of_norm = [&](void (*kernel)(const RowNorm &, Stream)) {
            return same(
                n, x, s, width, [&](int64_t rows, const float *a, const float *b, float *to) {
                    kernel({rows, width, true, 1e-5f, a, nullptr, nullptr, b, to, false}, stream);
                });
        };
        const auto of_softmax = [&](void (*kernel)(const RowSoftmax &, Stream)) {
            return same(n, x, s, width,
                        [&](int64_t rows, const float *a, const float *b, float *to) {
                            kernel({rows, width, a, b, a, to, nullptr, true}, stream);
                        });
        };
        report(("layer norm of a batch, " + std::to_string(width)).c_str(),
               of_norm(kernels.layer_norm) && of_norm(kernels.layer_norm_relevance) &&
                   of_norm(kernels.layer_norm_gradient));
        report(("softmax of a batch, " + std::to_string(width)).c_str(),
               of_softmax(kernels.softmax) && of_softmax(kernels.softmax_gradient));
    }
    const int64_t n = 300; // products whose tiles are large, and small ones
    const int rows = 19, depth = 300, columns = 21;
    report("matrix product of a batch",
           same(n, drawn(n * rows * depth), drawn(n * depth * columns), rows * columns,
                [&](int64_t count, const float *a, const float *b, float *to) {
                    kernels.matrix_product(
                        {count, rows, depth, columns, a, b, false, true, 1.0f, nullptr, to, false},
                        stream);
                }));
}

// ---- resample.cu, move.cu, lookup.cu

// Who reads each of `size` places, and with which of the reading list's entries.
struct Readers {
    std::vector<int32_t> offsets, entries;

    Readers(const std::vector<int32_t> &index, int64_t size) : offsets{0} {
        for (int32_t place = 0; place < size; ++place) {
            for (size_t i = 0; i < index.size(); ++i)
                if (index[i] == place)
                    entries.push_back(static_cast<int32_t>(i));
            offsets.push_back(static_cast<int32_t>(entries.size()));
        }
    }
};

void check_resample() {
    for (const int channels : {3, 8})
        for (const bool add : {false, true}) {
            const int64_t n = 2, from_rows = 12, to_rows = 30;
            const int taps = 4;
            std::vector<int32_t> index;
            for (int64_t i = 0; i < to_rows * taps; ++i)
                index.push_back(static_cast<int32_t>(draw(from_rows)));
            Readers readers(index, from_rows);
            Case of;
            const float *weight = of.floats(to_rows * taps);
            std::vector<float> reader_weight;
            for (int32_t &entry : readers.entries) {
                reader_weight.push_back(weight[entry]);
                entry /= taps;
            }
            const int32_t *at = of.give(index), *offsets = of.give(readers.offsets);
            const int32_t *reader = of.give(readers.entries);
            const float *by = of.give(reader_weight);
            const float *in = of.floats(n * from_rows * channels);
            float *s = of.floats(n * to_rows * channels);
            float *r = of.floats(n * from_rows * channels);
            float *gradient = of.floats(n * from_rows * channels);
            of.run(with("resample", std::to_string(channels), add), 0.0, [&](const Side &on) {
                Resample p{};
                p.n = n;
                p.from_rows = from_rows;
                p.to_rows = to_rows;
                p.channels = channels;
                p.taps = taps;
                p.index = on(at);
                p.weight = on(weight);
                p.offsets = on(offsets);
                p.reader = on(reader);
                p.reader_weight = on(by);
                p.in = on(in);
                p.s = on(s);
                p.add = add;
                p.result = on(r);
                on.kernels.resample_relevance(p, stream);
                p.in = nullptr;
                p.result = on(gradient);
                on.kernels.resample_relevance(p, stream);
                p.in = on(in);
                p.result = on(s);
                on.kernels.resample(p, stream);
            });
        }
}

void check_gather() {
    for (const bool add : {false, true})
        for (const auto &[places, width] : {std::pair{131, 1}, {1024, 1}, {131, 3}, {70, 64}}) {
            const int64_t n = 3, read = places / 2 - 15;
            const int64_t to_size = int64_t{1} * places * width, from_size = read * width;
            std::vector<int32_t> index;
            for (int64_t i = 0; i < places; ++i)
                index.push_back(static_cast<int32_t>(draw(read + 5)) - 5);
            const Readers readers(index, read);
            Case of;
            const int32_t *at = of.give(index), *offsets = of.give(readers.offsets);
            const int32_t *reader = of.give(readers.entries);
            const float *in = of.floats(n * from_size);
            float *out = of.floats(n * to_size), *r = of.floats(n * from_size);
            of.run(with("gather", std::to_string(to_size), add), 0.0, [&](const Side &on) {
                Gather p{n,          from_size, to_size, width,   on(at), on(offsets),
                         on(reader), 0.25f,     on(in),  on(out), false};
                on.kernels.gather(p, stream);
                p.in = on(out);
                p.out = on(r);
                p.add = add;
                on.kernels.gather_relevance(p, stream);
            });
        }
}

void check_memory_orders() {
    for (const Image &image : {Image{1, 7, 9, 3}, Image{1, 33, 5, 64}, Image{2, 3, 4, 35},
                               Image{1, 1, 1, 100}, Image{1, 64, 64, 1}, Image{1, 32, 32, 3}}) {
        const int64_t n = 3;
        Case of;
        const float *in = of.floats(n * image.size());
        float *last = of.floats(n * image.size()), *first = of.floats(n * image.size());
        const std::string what =
            std::to_string(image.pixels()) + " x " + std::to_string(image.channels);
        of.run(with("to_channels_last, first", what, false), 0.0, [&](const Side &on) {
            on.kernels.to_channels_last(on(in), on(last), n, image, stream);
            on.kernels.to_channels_first(on(in), on(first), n, image, stream);
        });
    }
}

void check_lookup() {
    for (const int features : {1, 31, 200})
        for (const bool add : {false, true}) {
            const int64_t vocabulary = 7;
            Case of;
            const float *weight = of.floats(vocabulary * features);
            const float *ids = of.give(std::vector<float>{0, 6, 3, -1, 7, 3, nan_value, 2, 1});
            const int64_t count = 9;
            float *y = of.floats(count * features), *out = of.floats(count);
            const float *r = of.floats(count * features);
            of.run(with("lookup", std::to_string(features), add), 0.0, [&](const Side &on) {
                Lookup p{count, vocabulary, features, on(weight), on(ids), on(r), on(y), add};
                on.kernels.lookup(p, stream);
                p.result = on(out);
                on.kernels.lookup_relevance(p, stream);
            });
        }
}

// ---- prepare.cu, spread.cu

void check_prepare() {
    for (int t = 0; t <= static_cast<int>(Transform::one); ++t)
        for (const int channels : {3, 8}) {
            const Image image{2, 4, 5, channels};
            const Pixel before{0, 1, 2}, after{1, 1, 0};
            const int64_t n = 2, size = 3 * 6 * 7 * channels;
            Case of;
            const float *x = of.floats(n * image.size()), *minus = of.floats(channels);
            float *out = of.floats(n * size);
            const auto transform = static_cast<Transform>(t);
            const bool one = transform == Transform::one;
            of.run(with("prepare", std::to_string(t), false), 0.0, [&](const Side &on) {
                on.kernels.prepare(
                    {transform, n, image, before, after, one ? nullptr : on(x), on(minus), on(out)},
                    stream);
            });
        }
}

std::vector<Pixel> square_of_taps(int from, int to) {
    std::vector<Pixel> taps;
    for (int y = from; y < to; ++y)
        for (int x = from; x < to; ++x)
            taps.push_back({0, y, x});
    return taps;
}

void check_spread() {
    for (const int per_group : {1, 3, 40})
        for (const bool add : {false, true}) {
            const int64_t n = 2;
            const int groups = 2, channels = groups * per_group;
            const std::vector<Pixel> taps = square_of_taps(-1, 2);
            Case of;
            const Pixel *tap = of.give(taps);
            TapGrid grid;
            grid.from = {1, 5, 6, channels};
            grid.to = {1, 10, 12, channels};
            grid.groups = groups;
            grid.tap_count = static_cast<int>(taps.size());
            grid.size = {1, 5, 6};
            grid.out_step = {1, 2, 2};
            grid.out = {0, 1, 0};
            const int64_t rows = n * grid.from.pixels();
            const float *share = of.floats(rows * channels);
            float *sums = of.floats(rows * groups), *out = of.floats(n * grid.to.size());
            of.run(with("group_sums, spread", std::to_string(per_group), add), 0.0,
                   [&](const Side &on) {
                       on.kernels.group_sums(on(share), rows, channels, groups, on(sums), stream);
                       grid.taps = on(tap);
                       on.kernels.spread({grid, n, on(sums), on(out), add}, stream);
                   });
        }
}

// ---- message.cu, scarce.cu

void check_message() {
    for (int kind = 0; kind < static_cast<int>(RuleKind::gradient); ++kind)
        for (int bias_mode = 0; bias_mode < 4; ++bias_mode) // 3: no bias
            for (const int channels : {1, 10, 32, 40, 75}) {
                const int64_t n = 3, pixels = 7, rows = n * pixels, size = rows * channels;
                Rule rule{static_cast<RuleKind>(kind),
                          static_cast<BiasMode>(bias_mode % 3),
                          1e-3f,
                          2.0f,
                          1.0f,
                          0.25f};
                const bool flat = rule.kind == RuleKind::flat;
                const bool splits =
                    rule.kind == RuleKind::alpha_beta || rule.kind == RuleKind::gamma;
                Case of;
                float *r = of.floats(size), *s_neg = of.floats(size), *share = of.floats(size);
                const int64_t period = rule.kind == RuleKind::w_square ? pixels : 0;
                const float *z = of.floats((period ? period : rows) * channels);
                const float *bias = of.floats(channels), *fan_in = of.positive(pixels);
                // each device cuts rows into chunks of its own
                float *tally = of.unchecked(tally_sums * size);
                float *told = of.unchecked(3 * tally_sums * size);
                double *out = of.doubles(n * 20, static_cast<double>(pixels * channels));
                double *scratch = of.scratch(n, size);
                std::vector<Branch> branches;
                for (int i = 0; i < 10; ++i)
                    branches.push_back( // those that are sent have sums that little is left of
                        {of.floats(size, i % 4 == 0 ? 1e-3f : 0.1f), of.floats(size), i % 2 == 0});
                float *again = of.floats(size), *of_again = of.floats(size);
                of.run("message, rule " + std::to_string(kind) + ", bias " +
                           std::to_string(bias_mode) + ", " + std::to_string(channels),
                       rounding, [&](const Side &on) {
                           std::vector<Branch> there = branches;
                           for (Branch &branch : there)
                               branch = {on(branch.x), on(branch.out), branch.add};
                           std::vector<Message> sent(3); // the last beyond what one launch takes
                           for (int i = 0; i < 3; ++i) {
                               Branch &branch = there[static_cast<size_t>(4 * i)];
                               Message &m = sent[static_cast<size_t>(i)];
                               m.rule.epsilon = 1e-2f;
                               m.rule.bias = static_cast<BiasMode>(i % 2); // absorb, exclude
                               m.r = branch.out;
                               m.z = branch.x;
                               m.bias = i == 2 ? nullptr : on(bias);
                               m.tally = on(told) + i * tally_sums * size;
                               m.chunks = on.kernels.chunks(1, channels);
                               branch.sent = &m;
                           }
                           Message m;
                           m.rule = rule;
                           m.r = on(r);
                           m.s_neg = splits ? on(s_neg) : nullptr;
                           m.z = flat ? nullptr : on(z);
                           m.period = period;
                           m.bias = bias_mode == 3 ? nullptr : on(bias);
                           m.fan_in = on(fan_in);
                           m.fan_period = pixels;
                           m.share = bias_mode == 2 ? on(share) : nullptr;
                           m.tally = on(tally);
                           m.chunks = on.kernels.chunks(1, channels);
                           m.branches = there.data();
                           m.branch_count = static_cast<int>(there.size());
                           on.kernels.message(m, rows, channels, stream);
                           const auto sum = [&](const float *of_chunks, int at) {
                               double *to = on(out) + 5 * at;
                               on.kernels.sum_tallies({n, pixels * m.chunks, of_chunks, to, 20,
                                                       to + 2, 20, on(scratch)},
                                                      stream);
                           };
                           sum(m.tally, 0);
                           for (int i = 0; i < 3; ++i)
                               sum(sent[static_cast<size_t>(i)].tally, i + 1);
                           m.r = on(again); // of which branches alone take theirs
                           m.arrived = true;
                           there[0] = {on(branches[1].x), on(of_again), true};
                           m.branch_count = 1;
                           on.kernels.message(m, rows, channels, stream);
                       });
            }
}

// A 3 x 3 layer of stride 1.
TapGrid layer(int groups, int in, int out) {
    TapGrid grid;
    grid.from = {1, 6, 5, groups * in};
    grid.to = {1, 6, 5, groups * out};
    grid.groups = groups;
    grid.tap_count = 9;
    grid.size = {1, 6, 5};
    return grid;
}

// What z says of Z+ in place of a product makes every Z- little: each is summed one by one.
void check_negative_sums() {
    for (const int in : {5, 33})
        for (const int out : {10, 70, 72}) {
            TapGrid grid = layer(1, in, out);
            const int64_t n = 2, rows = n * grid.to.pixels();
            Case of;
            const Pixel *taps = of.give(square_of_taps(-1, 2));
            const float *x = of.floats(n * grid.from.size());
            const float *weights = of.floats(static_cast<int64_t>(out) * 9 * in);
            const int64_t *tap_at = of.give(std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8});
            const float *z = of.floats(rows * out, 1.0f), *bias = of.floats(out);
            float *r = of.floats(rows * out), *s_neg = of.floats(rows * out);
            float *words = of.unchecked(rows * out), *relevance = of.floats(n * grid.from.size());
            of.run("message with contributions, " + std::to_string(in) + " to " +
                       std::to_string(out),
                   rounding, [&](const Side &on) {
                       grid.taps = on(taps);
                       const Contributions contributions{
                           grid, n, in, on(x), on(weights), on(tap_at), int64_t{in} * 9, 9};
                       Message m;
                       m.rule.kind = RuleKind::alpha_beta;
                       m.rule.alpha = 2.0f;
                       m.rule.beta = 1.0f;
                       m.r = on(r);
                       m.s_neg = on(s_neg);
                       m.z = on(z);
                       m.bias = on(bias);
                       m.chunks = on.kernels.chunks(1, out);
                       m.contributions = &contributions;
                       m.scarce = reinterpret_cast<uint32_t *>(on(words));
                       on.kernels.message(m, rows, out, stream);
                       on.kernels.scarce({contributions, m.scarce, m.s_neg, on(relevance), true},
                                         stream);
                   });
        }
}

// From the formula: each pixel of the output hands to each tap.
void plain_fold(const Fold &p) {
    const int channels = p.from.channels, taps = p.kernel.y * p.kernel.x;
    std::vector<float> sums(static_cast<size_t>(p.n * p.from.size()));
    for (int64_t row = 0; row < p.n * p.to.pixels(); ++row) {
        const Place out = place_at(row, {1, p.to.height, p.to.width, 1});
        for (int tap = 0; tap < taps; ++tap) {
            const Pixel in =
                moved(out.at, p.stride,
                      {0, tap / p.kernel.x - p.before.y, tap % p.kernel.x - p.before.x});
            for (int c = 0; c < channels && inside(p.from, in); ++c)
                sums[static_cast<size_t>(row_of(p.from, out.n, in) * channels + c)] +=
                    p.handed[row * handed_channels(p) + c * taps + tap];
        }
    }
    for (size_t i = 0; i < sums.size(); ++i) {
        const float x = p.epilogue.x ? p.epilogue.x[i] : 1.0f;
        const float of_part = p.epilogue.part == Part::positive && x < 0.0f ? 0.0f : x;
        p.epilogue.out[i] = of_part * sums[i] + (p.epilogue.add ? p.epilogue.out[i] : 0.0f);
    }
}

void check_fold() {
    struct Layer {
        int channels, height, width, kernel, stride, before, out_height, out_width;
    };
    // the last for squares of eight; outputs that none or all read; inputs that none reads
    for (const Layer &l : {Layer{3, 37, 50, 7, 2, 3, 19, 25},
                           {3, 20, 33, 3, 1, 1, 20, 33},
                           {1, 30, 31, 5, 1, 0, 26, 27},
                           {4, 50, 40, 11, 4, 2, 11, 9},
                           {2, 17, 16, 2, 3, 0, 6, 5},
                           {1, 33, 18, 7, 1, 3, 33, 18}})
        for (const bool add : {false, true})
            for (const bool gradient : {false, true}) {
                Fold p{{1, l.height, l.width, l.channels},
                       {1, l.out_height, l.out_width, 64},
                       {1, l.kernel, l.kernel},
                       {1, l.stride, l.stride},
                       {0, l.before, l.before},
                       3,
                       nullptr,
                       {}};
                Case of;
                const float *handed = of.floats(p.n * p.to.pixels() * handed_channels(p));
                const float *x = of.floats(p.n * p.from.size());
                float *out = of.floats(p.n * p.from.size());
                of.run(
                    with("fold", std::to_string(l.kernel) + " of " + std::to_string(l.stride), add),
                    rounding, [&](const Side &on) {
                        Fold there = p;
                        there.handed = on(handed);
                        there.epilogue.kind = EpilogueKind::relevance;
                        there.epilogue.out = on(out);
                        there.epilogue.x = gradient ? nullptr : on(x);
                        there.epilogue.part = gradient ? Part::all : Part::positive;
                        there.epilogue.add = add;
                        if (on.kernels.device)
                            on.kernels.fold(there, stream);
                        else
                            plain_fold(there);
                    });
            }
}

int channels_of_a_chunk(const Kernels &kernels) {
    int channels = 1;
    while (kernels.chunks(1, channels + 1) == 1)
        ++channels;
    return channels;
}

void check_scarce() {
    for (const int groups : {1, 3})
        for (const int out : {10, 70})
            for (const bool add : {false, true}) {
                TapGrid grid = layer(groups, 40, out);
                const int64_t n = 2, rows = n * grid.to.pixels();
                Case of;
                const Pixel *taps = of.give(square_of_taps(-1, 2));
                const float *x = of.floats(n * grid.from.size());
                const float *weights = of.floats(static_cast<int64_t>(groups) * out * 9 * 40);
                const int64_t *tap_at = of.give(std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8});
                float *s_neg = of.floats(rows * groups * out);
                auto *words = reinterpret_cast<uint32_t *>(of.unchecked(rows * groups * out));
                float *relevance = of.floats(n * grid.from.size());
                std::vector<bool> marked;
                for (int64_t i = 0; i < rows * groups * out; ++i)
                    marked.push_back(draw(20) == 0);
                of.run(with("scarce", std::to_string(groups) + " groups", add), rounding,
                       [&](const Side &on) {
                           const int each = channels_of_a_chunk(on.kernels);
                           const int chunks = on.kernels.chunks(1, out);
                           std::vector<uint32_t> bits(static_cast<size_t>(rows) * groups * chunks);
                           for (size_t i = 0; i < marked.size(); ++i) {
                               const size_t c = i % out, group = i / out;
                               bits[group * chunks + c / each] |= uint32_t{marked[i]} << c % each;
                           }
                           on.put(words, bits);
                           grid.taps = on(taps);
                           const Contributions c{grid,        n,          40,     on(x),
                                                 on(weights), on(tap_at), 40 * 9, 9};
                           on.kernels.scarce({c, on(words), on(s_neg), on(relevance), add}, stream);
                       });
            }
}

// ---- totals.cu, ends.cu

void check_totals() {
    for (const int64_t size : {1, 5, 4096, 16384, 50001, 200000}) {
        const int64_t n = 3;
        Case of;
        const float *values = of.floats(n * size), *tally = of.floats(tally_sums * n * size);
        double *out = of.doubles(8 * n);
        std::vector<int32_t> some;
        for (int64_t i = 0; i < 2000; ++i)
            some.push_back(static_cast<int32_t>(draw(size)));
        const int32_t *places = of.give(some);
        double *scratch = of.scratch(n, size);
        of.run(with("totals", std::to_string(size), false), 1e-12, [&](const Side &on) {
            const auto sums = [&](const float *of_values, int64_t count, int at) {
                return Totals{n, count, of_values, on(out) + at, 8, on(scratch)};
            };
            on.kernels.totals(sums(on(values), size, 0), stream);
            on.kernels.sum_tallies(
                {n, size, on(tally), on(out) + 2, 8, on(out) + 6, 8, on(scratch)}, stream);
            on.kernels.book(sums(on(values), size, 4), nullptr, 0, stream);
            on.kernels.book(sums(on(values), size, 5), on(places), 2000, stream);
        });
    }
}

// ---- regions.cu

// One label for stretches of 1 to 2 * `stretch` neighbours; -1 is one of them.
std::vector<int32_t> draw_labels(int64_t pixels, int count, int64_t stretch) {
    std::vector<int32_t> labels;
    while (static_cast<int64_t>(labels.size()) < pixels) {
        const auto label = static_cast<int32_t>(draw(count + 1)) - 1;
        for (int64_t i = draw(2 * stretch); i >= 0 && static_cast<int64_t>(labels.size()) < pixels;
             --i)
            labels.push_back(label);
    }
    return labels;
}

struct RegionsCase {
    int64_t n, pixels;
    int channels, count;
    int64_t stretch; // of neighbours with one label
};

void check_regions() {
    for (const bool shared : {false, true})
        for (const RegionsCase &c : {RegionsCase{3, 1, 3, 1, 1},
                                     {3, 7, 3, 3, 1},
                                     {1, 5000, 3, 1, 1},
                                     {3, 5000, 3, 3, 400},
                                     {3, 5001, 1, 40, 2},
                                     {40, 516, 2, 5, 30},
                                     {2, 8192, 3, 12, 100},
                                     {2, 20002, 3, 12, 100}, // several parts
                                     {2, 20004, 3, 2, 1},
                                     {1, 30000, 3, 300, 10}, // several ranges of regions
                                     {2, 12345, 3, 5000, 3},
                                     {2, 9000, 0, 3, 10},     // the pixels of nothing
                                     {2, 100, 257, 4, 10}}) { // more channels than go along
            Case of;
            std::vector<float> relevance(static_cast<size_t>(c.n * c.channels * c.pixels));
            for (float &value : relevance)
                value = 0.1f * static_cast<float>(draw(41) - 20);
            if (c.channels > 0)
                relevance.back() = nan_value;
            const float *values = of.give(relevance);
            const int32_t *labels =
                of.give(draw_labels((shared ? 1 : c.n) * c.pixels, c.count, c.stretch));
            double *sums = of.doubles(c.n * c.count * 3);
            double *channel_sums = of.doubles(c.n * c.channels);
            double *scratch = reinterpret_cast<double *>(
                of.unchecked(2 * c.n * regions_scratch(c.pixels, c.count, c.channels)));
            const std::string what = std::to_string(c.count) + " of " + std::to_string(c.pixels);
            of.run(with("regions", what + (shared ? ", shared" : ""), false), 1e-12,
                   [&](const Side &on) {
                       on.kernels.regions({c.n, c.pixels, c.channels, c.count, on(values),
                                           on(labels), shared, on(sums), on(channel_sums),
                                           on(scratch)},
                                          stream);
                   });
        }
}

// A sample's sums are the same bits by itself, in a batch, and where its values are not aligned.
void check_sums_of_batches() {
    const RegionsCase c{3, 20004, 3, 12, 50};
    const Kernels &kernels = cuda_kernels(0, Precision::float32);
    std::deque<Block> blocks;
    const auto room = [&](int64_t bytes) {
        blocks.emplace_back(std::vector<char>(static_cast<size_t>(bytes), 0), Type::unchecked);
        return blocks.back().device;
    };
    const int64_t size = c.channels * c.pixels, each = 3 * c.count + c.channels;
    std::vector<float> relevance;
    for (int64_t i = 0; i < c.n * size; ++i)
        relevance.push_back(std::ldexp(static_cast<float>(draw(1 << 20)) - 5e5f, // sums round
                                       -static_cast<int>(draw(60))));
    const std::vector<int32_t> labels = draw_labels(c.pixels, c.count, c.stretch);
    const auto sums_of = [&](int64_t first, int64_t n, int64_t by) {
        auto *values = reinterpret_cast<float *>(room((n * size + by) * 4)) + by;
        auto *at = reinterpret_cast<int32_t *>(room(c.pixels * 4));
        auto *out = reinterpret_cast<double *>(room(n * each * 8));
        auto *scratch = reinterpret_cast<double *>(
            room(n * regions_scratch(c.pixels, c.count, c.channels) * 8));
        RELPROP_CHECK(cudaMemcpy(values, relevance.data() + first * size,
                                 static_cast<size_t>(n * size) * 4, cudaMemcpyHostToDevice));
        RELPROP_CHECK(cudaMemcpy(at, labels.data(), labels.size() * 4, cudaMemcpyHostToDevice));
        kernels.regions({n, c.pixels, c.channels, c.count, values, at, true, out,
                         out + n * 3 * c.count, scratch},
                        stream);
        RELPROP_CHECK(cudaDeviceSynchronize());
        return blocks[blocks.size() - 2].read();
    };
    const std::vector<char> all = sums_of(0, c.n, 0);
    bool same = true;
    for (int64_t i = 0; i < c.n; ++i)
        for (const int64_t by : {0, 1}) {
            const std::vector<char> one = sums_of(i, 1, by);
            const auto regions = static_cast<size_t>(3 * c.count) * 8;
            const auto channels = static_cast<size_t>(c.channels) * 8;
            const auto sample = static_cast<size_t>(i);
            same = same && std::memcmp(one.data(), all.data() + sample * regions, regions) == 0 &&
                   std::memcmp(one.data() + regions,
                               all.data() + static_cast<size_t>(c.n) * regions + sample * channels,
                               channels) == 0;
        }
    report("regions of a batch", same);
}

void check_begin() {
    for (const bool channels_first : {false, true})
        for (const bool one : {false, true})
            for (const int how : {0, 1, 2}) { // targets, argmax, mask
                const Image image{1, 4, 5, 50};
                const int64_t n = 3, size = image.size();
                Case of;
                float *scores = of.floats(n * size), *relevance = of.floats(n * size);
                int64_t *targets = of.give(std::vector<int64_t>{7, 0, size - 1});
                std::vector<uint8_t> bits;
                for (int64_t i = 0; i < n * size; ++i)
                    bits.push_back(draw(4) == 0);
                const uint8_t *mask = of.give(bits);
                of.run("begin, " + std::to_string(how), 0.0, [&](const Side &on) {
                    on.kernels.begin({n, image, channels_first, on(scores), one, how == 1,
                                      on(targets), how == 2 ? on(mask) : nullptr, on(relevance)},
                                     stream);
                });
            }
    // nothing is larger than a NaN that comes first, and one that comes later is not larger
    Case of;
    const float *scores = of.give(std::vector<float>{nan_value, 2, 3, 1, nan_value, 3});
    int64_t *targets = of.give(std::vector<int64_t>{9, 9});
    float *relevance = of.floats(6);
    of.run("begin, NaN", 0.0, [&](const Side &on) {
        on.kernels.begin(
            {2, {1, 1, 1, 3}, false, on(scores), false, true, on(targets), nullptr, on(relevance)},
            stream);
    });
}

void check_finite() {
    for (const int64_t n : {1, 6, 5000})
        for (const int64_t bad : {-1, 0, 5, 4999}) {
            if (bad >= n)
                continue;
            std::vector<float> values(static_cast<size_t>(n), 1.0f);
            for (int64_t i = bad; i >= 0 && i < n; i += 7)
                values[static_cast<size_t>(i)] = i % 2 ? nan_value : HUGE_VALF;
            Case of;
            const float *at = of.give(values);
            int64_t *found = of.give(std::vector<int64_t>{77});
            of.run("check_finite, " + std::to_string(bad), 0.0,
                   [&](const Side &on) { on.kernels.check_finite(on(at), n, on(found), stream); });
        }
}

// ---- device.cu, and the divisions of layers.hpp

template <class Error, class Body> bool throws(const Body &body) {
    try {
        body();
    } catch (const Error &) {
        return true;
    }
    return false;
}

void check_device() {
    const Device &device = *cuda_kernels(0, Precision::float32).device;
    const int64_t bytes = 1 << 20, far_too_much = int64_t{1} << 50;
    const Stream own = device.make_stream();
    auto *there = static_cast<char *>(device.allocate(bytes));
    auto *here = static_cast<char *>(device.allocate_pinned(2 * bytes));
    std::memset(here, 7, static_cast<size_t>(bytes));
    device.copy(there, here, bytes, own);
    device.copy(here + bytes, there, bytes, own);
    device.wait(own);
    report("copy", std::memcmp(here, here + bytes, static_cast<size_t>(bytes)) == 0);
    report("owner", device.owner(there) == 0 && device.owner(there + bytes - 1) == 0 &&
                        device.owner(here) == -1 && device.owner(&bytes) == -1);
    report("free_bytes", device.free_bytes() > 0);
    device.release_pinned(here);
    device.release(there);
    device.end_stream(own);
    report("out of memory", throws<DeviceOutOfMemory>([&] { device.allocate(far_too_much); }));
    report("no such device", throws<CudaError>([&] { device.require(1000); }) &&
                                 throws<CudaError>([&] { device.require(-1); }));
    report("kernels once",
           &cuda_kernels(0, Precision::tf32) == &cuda_kernels(0, Precision::tf32) &&
               &cuda_kernels(0, Precision::tf32) != &cuda_kernels(0, Precision::bf16));
}

void check_divisions() {
    bool right = true;
    const auto check = [&](int64_t n, int64_t by) {
        right = right && divided(n, divisor_of(by)) == n / by;
    };
    for (int64_t by = 1; by < 70; ++by)
        for (int64_t n = 0; n < 300; ++n)
            check(n, by);
    for (int i = 0; i < 100000; ++i) {
        const int64_t by = 1 + draw(int64_t{1} << draw(40)), times = draw(int64_t{1} << 22);
        for (const int64_t n : {by * times, by * times + by - 1, by - 1, by})
            check(n, by);
        check(draw(INT32_MAX), by);
        check(INT32_MAX, by);
        check(int64_t{INT32_MAX} + 1, by);
    }
    report("divided", right);
    const Image image{3, 5, 7, 11};
    bool same = true;
    for (int64_t i = 0; i < 2 * image.size(); ++i) {
        const Place a = place_at(i, image), b = place_by(i, places_of(image));
        same = same && a.n == b.n && a.at.z == b.at.z && a.at.y == b.at.y && a.at.x == b.at.x &&
               a.c == b.c;
    }
    report("place_by", same);
}

} // namespace

int main() {
    try {
        check_merges();
        check_blocks();
        check_activations();
        check_slopes();
        check_affine();
        check_local_response_norm();
        check_layer_norm();
        check_softmax();
        check_matrix_product();
        check_long_products();
        check_rows_of_batches();
        check_resample();
        check_gather();
        check_memory_orders();
        check_lookup();
        check_prepare();
        check_spread();
        check_message();
        check_negative_sums();
        check_scarce();
        check_fold();
        check_totals();
        check_regions();
        check_sums_of_batches();
        check_begin();
        check_finite();
        check_device();
        check_divisions();
        return Case::failures == 0 ? 0 : 1;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
