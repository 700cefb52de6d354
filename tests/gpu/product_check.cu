// Checks CUDA's products of linear layers on one list of geometries, there and back, in every
// precision: sums against a loop in float64, each sample of a batch bit for bit against itself
// alone, and every epilogue against the CPU's, which is given the same sums. Runs on a GPU, or
// under tests/gpu/emulator.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "backend.cuh"
#include "cuts.hpp"
#include "launch.cuh"
#include "on_device.hpp"
#include "product_parts.hpp"
#include "steps/tap_grids.hpp"
#include "tallies.hpp"
#include "time_limit.hpp"
#include "version.hpp"

namespace {

using namespace relprop;

using Values = std::vector<float>;
constexpr size_t read_beyond = 256; // what the CPU's kernels may read past an end

// ---- geometries

struct Case {
    const char *name;
    Conv conv;
    bool merged = false; // a kernel row is one run of the padded image
};

int outputs(int size, int before, int after, int kernel, int stride, int dilation) {
    return (size + before + after - dilation * (kernel - 1) - 1) / stride + 1;
}

Conv conv(Image from, int channels, Pixel kernel, Pixel stride = {1, 1, 1}, Pixel before = {},
          Pixel after = {}, Pixel dilation = {1, 1, 1}, int groups = 1) {
    Conv c;
    c.from = from;
    c.kernel = kernel;
    c.stride = stride;
    c.before = before;
    c.after = after;
    c.dilation = dilation;
    c.groups = groups;
    c.to = {outputs(from.depth, before.z, after.z, kernel.z, stride.z, dilation.z),
            outputs(from.height, before.y, after.y, kernel.y, stride.y, dilation.y),
            outputs(from.width, before.x, after.x, kernel.x, stride.x, dilation.x), channels};
    return c;
}

const Case cases[] = {
    {"1x1", conv({1, 5, 7, 64}, 32, {1, 1, 1})},
    {"1x1, several tiles", conv({1, 9, 17, 32}, 160, {1, 1, 1})},
    {"1x1, primes", conv({1, 5, 7, 37}, 41, {1, 1, 1})},
    {"3x3", conv({1, 6, 5, 16}, 40, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1})},
    {"3x3, patches", conv({1, 9, 17, 32}, 32, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1})},
    {"2x2 dilated, patches",
     conv({1, 6, 18, 32}, 32, {1, 2, 2}, {1, 1, 1}, {0, 1, 2}, {0, 1, 0}, {1, 2, 2})},
    {"3x3, stride 2", conv({1, 7, 9, 20}, 24, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}, {0, 1, 1})},
    {"1x1, stride 2: phases without taps", conv({1, 5, 5, 12}, 8, {1, 1, 1}, {1, 2, 2})},
    {"2x3, stride 3x1, dilated, asymmetric",
     conv({1, 9, 8, 5}, 7, {1, 2, 3}, {1, 3, 1}, {0, 2, 0}, {0, 0, 3}, {1, 2, 2})},
    {"7x7", conv({1, 7, 7, 3}, 16, {1, 7, 7}, {1, 2, 2}, {0, 3, 3}, {0, 3, 3})},
    {"7x7, merged", conv({1, 7, 7, 3}, 16, {1, 7, 7}, {1, 2, 2}, {0, 3, 3}, {0, 3, 3}), true},
    {"4x4 of 4 channels, merged", conv({1, 8, 8, 4}, 8, {1, 4, 4}, {1, 4, 4}, {0, 0, 0}, {0, 0, 0}),
     true},
    {"3x3x3", conv({4, 3, 4, 6}, 9, {3, 3, 3}, {2, 1, 1}, {1, 1, 1}, {1, 1, 1})},
    {"grouped", conv({1, 5, 4, 24}, 36, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}, {1, 1, 1}, 6)},
    {"grouped, odd", conv({1, 4, 4, 15}, 105, {1, 1, 2}, {1, 1, 1}, {}, {}, {1, 1, 1}, 3)},
    {"depthwise",
     conv({1, 6, 7, 40}, 40, {1, 3, 3}, {1, 2, 1}, {0, 1, 1}, {0, 1, 1}, {1, 1, 1}, 40)},
    {"depthwise, odd",
     conv({1, 5, 5, 131}, 131, {1, 3, 2}, {1, 1, 1}, {0, 1, 0}, {0, 1, 0}, {1, 1, 1}, 131)},
};

// Long sums, and so many tiles that larger ones serve (see launch_product).
const Case large_cases[] = {
    {"deep", conv({1, 2, 2, 1152}, 8, {1, 2, 2})},
    {"deep, 3x3", conv({1, 4, 4, 96}, 24, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1})},
    {"more taps than bits", conv({1, 9, 9, 32}, 8, {1, 9, 9}, {1, 1, 1}, {0, 4, 4}, {0, 4, 4})},
    // on the emulator's four multiprocessors, which choose other tiles for one
    {"patches for two", conv({1, 16, 32, 32}, 64, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1})},
    {"tiles 64 x 64", conv({1, 5, 13, 160}, 3200, {1, 1, 1}, {1, 1, 1}, {}, {}, {1, 1, 1}, 80)},
    {"tiles 128 x 64", conv({1, 5, 8, 800}, 8000, {1, 1, 1}, {1, 1, 1}, {}, {}, {1, 1, 1}, 200)},
    {"tiles 128 x 128", conv({1, 5, 7, 600}, 14400, {1, 1, 1}, {1, 1, 1}, {}, {}, {1, 1, 1}, 200)},
};

struct Kind {
    const char *name;
    int64_t (*pack)(const Packing &, const float *, float *);
    void (*product)(const Product &, Stream);
    Precision precision;
    std::vector<cuda::Cut> (*cuts)(const Product &) = nullptr; // by warpgroups
};

const Kind kinds[] = {{"float32", cuda::pack, cuda::product_float32, Precision::float32},
                      {"tf32", cuda::pack, cuda::product_tf32, Precision::tf32},
                      {"bf16", cuda::pack_bf16, cuda::product_bf16, Precision::bf16},
                      {"float32 by warpgroups", cuda::pack_warpgroup_float32,
                       cuda::product_warpgroup_float32, Precision::float32, cuda::cuts_float32},
                      {"tf32 by warpgroups", cuda::pack_warpgroup_tf32,
                       cuda::product_warpgroup_tf32, Precision::tf32, cuda::cuts_tf32},
                      {"bf16 by warpgroups", cuda::pack_warpgroup_bf16,
                       cuda::product_warpgroup_bf16, Precision::bf16, cuda::cuts_bf16}};

// The largest error beside the sum of magnitudes.
double bar_of(Precision precision) {
    return precision == Precision::float32 ? 1e-6 : precision == Precision::tf32 ? 2e-3 : 2e-2;
}

// ---- values, here and on the device

std::mt19937 generator(1);

Values draw(int64_t count, float low = -1.0f) {
    std::uniform_real_distribution<float> number(low, 1.0f);
    Values values(static_cast<size_t>(count) + read_beyond);
    for (float &value : values)
        value = number(generator);
    return values;
}

// ---- one direction of a layer

struct Layer {
    Phase phase;
    Packing packing{};
    std::vector<int64_t> tap_at;
    int run;
    bool depthwise;
};

// As Linear packs it (cpp/steps/linear_weights.cpp).
Layer layer(const Case &of, const Phase &phase, bool back) {
    const Conv &c = of.conv;
    Layer l;
    l.phase = phase;
    const int to = c.to.channels / c.groups, from = c.from.channels / c.groups;
    const Image kernel = {c.kernel.z, c.kernel.y, c.kernel.x};
    for (const Pixel &tap : phase.kernel)
        l.tap_at.push_back(row_of(kernel, 0, tap));
    l.depthwise = c.groups > 1 && c.groups == c.from.channels && c.groups == c.to.channels;
    const int row = of.merged && !back ? c.kernel.x : 1;
    Packing &p = l.packing;
    p.groups = c.groups;
    p.read = back ? to : from;
    p.out = l.depthwise ? c.groups : back ? from : to;
    p.tap_count = static_cast<int>(l.tap_at.size()) / row;
    l.run = p.read * row;
    p.run = l.depthwise ? 0 : l.run;
    const int64_t from_step = kernel.pixels(), to_step = from_step * from;
    p.group_step = to_step * to;
    p.read_step = back ? to_step : from_step;
    p.written_step = l.depthwise || !back ? to_step : from_step;
    p.gamma = 0.25f;
    if (row > 1) {
        l.phase.taps.clear();
        each_pixel({c.kernel.z, c.kernel.y, 1},
                   [&](const Pixel &k) { l.phase.taps.push_back(moved(k, c.dilation, {})); });
        Image &image = l.phase.grid.from;
        image.depth += c.before.z + c.after.z;
        image.height += c.before.y + c.after.y;
        image.width += c.before.x + c.after.x;
    }
    return l;
}

float in_version(Version version, float w, float shrink) {
    switch (version) {
    case Version::positive:
        return relprop::in_version<Version::positive>(w, shrink);
    case Version::negative:
        return relprop::in_version<Version::negative>(w, shrink);
    case Version::gamma:
        return relprop::in_version<Version::gamma>(w, shrink);
    case Version::square:
        return relprop::in_version<Version::square>(w, shrink);
    default:
        return w;
    }
}

struct Term {
    const Values *data;
    Version version;
};

// Everything that a product reads, on the device.
class Ready {
  public:
    Ready(const Kind &kind, const Layer &l, const Values &weights, const std::vector<Term> &terms,
          int64_t n)
        : kind_(kind), layer_(l), taps_(l.phase.taps) {
        product_.grid = grid_of(l.phase);
        product_.grid.taps = taps_.data();
        product_.n = n;
        product_.run = l.run;
        product_.gamma = l.packing.gamma;
        Packing packing = l.packing;
        packing.tap_at = l.tap_at.data();
        for (const Term &term : terms) {
            packing.version = term.version;
            Values packed(static_cast<size_t>(kind.pack(packing, weights.data(), nullptr)));
            kind.pack(packing, weights.data(), packed.data());
            held_.push_back(std::make_unique<OnDevice<float>>(packed));
            held_.push_back(std::make_unique<OnDevice<float>>(*term.data));
            product_.source[product_.sources++] = {held_.back()->data(),
                                                   held_[held_.size() - 2]->data(), term.version};
        }
        if (const int64_t floats = cuda::scratch_of_product(product_); floats > 0) {
            Values scratch(static_cast<size_t>(floats), std::numeric_limits<float>::quiet_NaN());
            std::fill_n(scratch.begin(), most_shared_tiles, 0.0f);
            held_.push_back(std::make_unique<OnDevice<float>>(scratch));
            product_.scratch = held_.back()->data();
        }
    }

    // The product with an epilogue.
    Product of(const Epilogue &epilogue) const {
        Product p = product_;
        p.epilogue = epilogue;
        return p;
    }

    void run(const Epilogue &epilogue, bool by_sign = false) const {
        Product p = of(epilogue);
        p.by_sign = by_sign;
        (layer_.depthwise ? cuda::depthwise : kind_.product)(p, nullptr);
        RELPROP_CHECK(cudaDeviceSynchronize());
    }

    int64_t size() const { return product_.n * product_.grid.to.size(); }

    // The plain sums; 0 where the grid writes nothing.
    Values sums() const {
        return sums_by([this](const Product &p) { run(p.epilogue); });
    }

    // The same by whoever is given the product.
    template <class Launch> Values sums_by(const Launch &launch) const {
        Values got(static_cast<size_t>(size()) + read_beyond);
        const OnDevice<float> out(got);
        Epilogue e;
        e.out = out.data();
        launch(of(e));
        RELPROP_CHECK(cudaDeviceSynchronize());
        out.read(got);
        return got;
    }

  private:
    const Kind &kind_;
    const Layer &layer_;
    OnDevice<Pixel> taps_;
    std::vector<std::unique_ptr<OnDevice<float>>> held_;
    Product product_;
};

// ---- sums

bool fails(const char *what, const Kind &kind, const char *name, double error) {
    std::printf("FAIL %-21s %-38s %s: %.1e\n", kind.name, name, what, error);
    return false;
}

// The largest errors of a case, CUDA's and the CPU's.
struct Errors {
    double here = 0.0, cpu = 0.0;
};

// The largest error beside the sum of magnitudes of a value's products.
double error_of(const Layer &l, const Values &weights, const std::vector<Term> &terms, int64_t n,
                const Values &got) {
    const TapGrid grid = grid_of(l.phase);
    const Packing &p = l.packing;
    const int groups = grid.groups, read = p.read, out = grid.to.channels / groups;
    const float shrink = shrink_of(p.gamma);
    double most = 0.0;
    for (int64_t sample = 0; sample < n; ++sample)
        each_pixel(grid.size, [&](const Pixel &at) {
            const int64_t to = row_of(grid.to, sample, moved(at, grid.out_step, grid.out));
            for (int c = 0; c < grid.to.channels; ++c) {
                double sum = 0.0, magnitude = 0.0;
                for (const Term &term : terms)
                    for (int t = 0; t < grid.tap_count; ++t) {
                        const Pixel from = moved(at, grid.step, grid.taps[t]);
                        if (!inside(grid.from, from))
                            continue;
                        const float *a = term.data->data() +
                                         row_of(grid.from, sample, from) * grid.from.channels +
                                         c / out * read;
                        for (int k = 0; k < l.run; ++k) {
                            const int64_t tap = t * (l.run / read) + k / read;
                            const float w = weights[static_cast<size_t>(
                                c / out * p.group_step + l.tap_at[static_cast<size_t>(tap)] +
                                k % read * p.read_step +
                                (l.depthwise ? 0 : c % out * p.written_step))];
                            const double product =
                                static_cast<double>(in_version(term.version, w, shrink)) * a[k];
                            sum += product;
                            magnitude += std::abs(product);
                        }
                    }
                const double off = std::abs(
                    static_cast<double>(got[static_cast<size_t>(to * grid.to.channels + c)]) - sum);
                most = std::max(most, off == 0.0 ? 0.0 : off / magnitude);
            }
        });
    return most;
}

// The CPU's sums, for its error beside CUDA's.
Values cpu_sums(const Layer &l, const Values &weights, const std::vector<Term> &terms, int64_t n) {
    const Kernels &cpu = cpu_kernels();
    const Values zeros(static_cast<size_t>(l.run) + read_beyond);
    std::vector<Values> packed;
    Product p;
    p.grid = grid_of(l.phase);
    p.n = n;
    p.run = l.run;
    p.zeros = zeros.data();
    Packing packing = l.packing;
    packing.tap_at = l.tap_at.data();
    for (const Term &term : terms) {
        packing.version = term.version;
        packed.emplace_back(static_cast<size_t>(cpu.pack(packing, weights.data(), nullptr)) +
                            read_beyond);
        cpu.pack(packing, weights.data(), packed.back().data());
    }
    for (size_t i = 0; i < terms.size(); ++i)
        p.source[p.sources++] = {terms[i].data->data(), packed[i].data(), terms[i].version};
    Values out(static_cast<size_t>(n * p.grid.to.size()) + read_beyond);
    p.epilogue.out = out.data();
    (l.depthwise ? cpu.depthwise : cpu.product)(p, nullptr);
    return out;
}

bool sums_agree(const Kind &kind, const char *name, const Layer &l, const Values &weights,
                const std::vector<Term> &terms, int64_t n, Errors &errors) {
    const Ready ready(kind, l, weights, terms, n);
    const Values got = ready.sums();
    const double error = error_of(l, weights, terms, n, got);
    errors.here = std::max(errors.here, error);
    if (kind.precision == Precision::float32)
        errors.cpu =
            std::max(errors.cpu, error_of(l, weights, terms, n, cpu_sums(l, weights, terms, n)));
    const bool good = error <= bar_of(kind.precision) || fails("sums", kind, name, error);

    // the last sample alone
    const int64_t from = l.phase.grid.from.size(), to = l.phase.grid.to.size();
    std::vector<Values> alone;
    for (const Term &term : terms)
        alone.emplace_back(term.data->begin() + (n - 1) * from, term.data->end());
    std::vector<Term> of_alone = terms;
    for (size_t i = 0; i < terms.size(); ++i)
        of_alone[i].data = &alone[i];
    const Values again = Ready(kind, l, weights, of_alone, 1).sums();
    const bool same = std::memcmp(again.data(), got.data() + (n - 1) * to,
                                  static_cast<size_t>(to) * sizeof(float)) == 0;
    return (same || fails("sample alone", kind, name, 0.0)) && good;
}

// ---- cuts of warpgroups' products

// Whether all cuts give the same bits: tiles of any shape, and of several blocks the first few and
// all.
bool cuts_agree(const Kind &kind, const char *name, const Layer &l, const Values &weights,
                const std::vector<Term> &terms, int64_t n) {
    if (!kind.cuts || l.depthwise)
        return true;
    const Ready ready(kind, l, weights, terms, n);
    const Values expected = ready.sums();
    const int parts = cuda::parts_of_product(ready.of({})).count;
    for (const cuda::Cut &cut : kind.cuts(ready.of({}))) {
        if (cut.blocks > 3 && cut.blocks < parts)
            continue;
        const Values got =
            ready.sums_by([&](const Product &p) { cut.launch(p, cut.blocks, nullptr); });
        if (std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) != 0) {
            std::printf("%s %d x %d by %d blocks\n", cut.patches ? "patches" : "tiles", cut.rows,
                        cut.channels, cut.blocks);
            return fails("bits of another cut", kind, name, 0.0);
        }
    }
    return true;
}

// ---- epilogues

// What an epilogue reads and writes, here and there.
struct Tensors {
    Values out, x, bias, r, s_neg, z, fan_in, share, tally;
    std::vector<uint32_t> scarce;

    Tensors(const TapGrid &grid, int64_t n, int64_t chunks) {
        const int64_t size = n * grid.to.size(), rows = n * grid.to.pixels();
        out = draw(size);
        x = draw(size);
        bias = draw(grid.to.channels);
        r = draw(size);
        s_neg = draw(size);
        z = draw(size);
        fan_in = draw(grid.to.pixels(), 0.0f);
        share.resize(out.size());
        tally.resize(static_cast<size_t>(rows * chunks * tally_sums));
        scarce.resize(static_cast<size_t>(rows * chunks));
    }
};

struct TensorsOnDevice {
    OnDevice<float> out, x, bias, r, s_neg, z, fan_in, share, tally;
    OnDevice<uint32_t> scarce;

    explicit TensorsOnDevice(const Tensors &t)
        : out(t.out), x(t.x), bias(t.bias), r(t.r), s_neg(t.s_neg), z(t.z), fan_in(t.fan_in),
          share(t.share), tally(t.tally), scarce(t.scarce) {}
    void read(Tensors &t) const {
        out.read(t.out);
        r.read(t.r);
        s_neg.read(t.s_neg);
        share.read(t.share);
        tally.read(t.tally);
        scarce.read(t.scarce);
    }
};

struct Variant {
    const char *name;
    EpilogueKind kind;
    RuleKind rule = RuleKind::epsilon;
    BiasMode bias = BiasMode::absorb;
    bool has_bias = true, has_x = true, add = false, differs = false;
    Part part = Part::all;
    bool sends = false;
};

const Variant variants[] = {
    {"forward", EpilogueKind::forward},
    {"relevance", EpilogueKind::relevance},
    {"relevance, added", EpilogueKind::relevance, {}, {}, true, true, true, false, Part::positive},
    {"relevance of x-", EpilogueKind::relevance, {}, {}, true, true, false, false, Part::negative},
    {"gradient, added", EpilogueKind::relevance, {}, {}, true, false, true},
    {"relevance, sent",
     EpilogueKind::relevance,
     {},
     BiasMode::exclude,
     true,
     true,
     false,
     false,
     Part::all,
     true},
    {"relevance of x-, added and sent",
     EpilogueKind::relevance,
     {},
     {},
     false,
     true,
     true,
     false,
     Part::negative,
     true},
    {"epsilon", EpilogueKind::message, RuleKind::epsilon},
    {"alpha_beta", EpilogueKind::message, RuleKind::alpha_beta},
    {"alpha_beta, distribute", EpilogueKind::message, RuleKind::alpha_beta, BiasMode::distribute},
    {"alpha_beta, difference", EpilogueKind::message, RuleKind::alpha_beta, BiasMode::exclude, true,
     true, false, true},
    {"gamma", EpilogueKind::message, RuleKind::gamma},
    {"gamma, exclude", EpilogueKind::message, RuleKind::gamma, BiasMode::exclude},
    {"z_box", EpilogueKind::message, RuleKind::z_box, BiasMode::absorb, false},
    {"w_square", EpilogueKind::message, RuleKind::w_square},
    {"flat", EpilogueKind::message, RuleKind::flat},
};

template <class Of>
Epilogue epilogue_of(const Variant &v, const Of &t, const TapGrid &grid, int64_t chunks) {
    Epilogue e;
    e.kind = v.kind;
    e.out = const_cast<float *>(t.out.data());
    e.bias = v.has_bias ? t.bias.data() : nullptr;
    e.low = 0.0f;
    e.high = 0.75f;
    e.x = v.has_x ? t.x.data() : nullptr;
    e.part = v.part;
    e.add = v.add;
    Message &m = e.message;
    m.rule = {v.rule, v.bias, 1e-3f, 2.0f, 1.0f, 0.25f};
    m.r = const_cast<float *>(t.r.data());
    m.s_neg = const_cast<float *>(t.s_neg.data());
    m.z = t.z.data();
    m.bias = e.bias;
    m.fan_in = t.fan_in.data();
    m.fan_period = grid.to.pixels();
    m.share = v.bias == BiasMode::distribute ? const_cast<float *>(t.share.data()) : nullptr;
    m.tally = const_cast<float *>(t.tally.data());
    m.chunks = chunks;
    m.scarce = const_cast<uint32_t *>(t.scarce.data());
    e.sends = v.sends;
    if (v.sends) {
        m.r = e.out;
        m.z = e.x;
        m.s_neg = nullptr;
        m.scarce = nullptr;
    }
    return e;
}

// The CPU's epilogue of sums that are there: a depthwise product with ones.
void cpu_epilogue(const TapGrid &grid, int64_t n, const Values &sums, const Epilogue &e) {
    const Kernels &cpu = cpu_kernels();
    const int channels = grid.to.channels;
    const int64_t at = 0;
    const Values one(static_cast<size_t>(channels), 1.0f), zeros(sums.size());
    const Packing packing{channels, 1, 0, channels, 1, &at, 1, 1, 1, Version::plain, 0.0f};
    Values ones(static_cast<size_t>(cpu.pack(packing, one.data(), nullptr)) + read_beyond);
    cpu.pack(packing, one.data(), ones.data());
    Product p;
    p.grid = grid;
    p.grid.groups = channels;
    p.grid.from = grid.to;
    p.grid.step = grid.out_step;
    p.grid.taps = &grid.out;
    p.grid.tap_count = 1;
    p.n = n;
    p.source[0] = {sums.data(), ones.data(), Version::plain};
    p.sources = 1;
    p.run = 1;
    p.zeros = zeros.data();
    p.epilogue = e;
    cpu.depthwise(p, nullptr);
}

double difference(const Values &a, const Values &b) {
    double most = 0.0;
    for (size_t i = 0; i < a.size(); ++i) {
        const double off = std::abs(static_cast<double>(a[i]) - b[i]);
        most = std::max(most, off / std::max(1.0, std::abs(static_cast<double>(b[i]))));
    }
    return most;
}

// The scarce neurons, one by one.
std::vector<bool> neurons(const std::vector<uint32_t> &marked, int64_t chunks, int groups, int out,
                          int of_chunk) {
    std::vector<bool> all;
    for (size_t row = 0; row < marked.size() / static_cast<size_t>(chunks); ++row)
        for (int g = 0; g < groups; ++g)
            for (int c = 0; c < out; ++c) {
                const int chunk = g * ceil_div(out, of_chunk) + c / of_chunk;
                all.push_back(
                    marked[row * static_cast<size_t>(chunks) + static_cast<size_t>(chunk)] >>
                        (c % of_chunk) &
                    1);
            }
    return all;
}

// Where each tap lies among a kernel's weights.
std::vector<int64_t> contribution_taps(const Case &of, const Layer &l) {
    const Image kernel = {of.conv.kernel.z, of.conv.kernel.y, of.conv.kernel.x};
    std::vector<int64_t> at;
    for (const Pixel &tap : l.phase.kernel)
        at.push_back(row_of(kernel, 0, tap));
    return at;
}

bool epilogue_agrees(const Kind &kind, const Case &of, const Layer &l, const Values &weights,
                     const Ready &ready, const Values &sums, const Values &data, int64_t n,
                     const Variant &v, bool back) {
    if (v.differs && (back || of.merged || l.depthwise))
        return true;
    const TapGrid grid = grid_of(l.phase);
    const int channels = grid.to.channels, groups = l.depthwise ? 1 : grid.groups;
    const int out = channels / groups;
    const int64_t chunks = static_cast<int64_t>(groups) * ceil_div(out, 32);
    const int64_t cpu_chunks = cpu_kernels().chunks(1, channels);
    Tensors expected(grid, n, cpu_chunks), got(grid, n, chunks);
    for (auto value : {&Tensors::out, &Tensors::x, &Tensors::bias, &Tensors::r, &Tensors::s_neg,
                       &Tensors::z, &Tensors::fan_in})
        got.*value = expected.*value;
    const std::vector<int64_t> tap_at = contribution_taps(of, l);
    const int64_t step = Image{of.conv.kernel.z, of.conv.kernel.y, of.conv.kernel.x}.pixels();
    if (v.kind == EpilogueKind::message) // the neurons' own sums are not far from this z
        for (size_t i = 0; i < sums.size(); ++i)
            expected.z[i] = got.z[i] =
                0.9f * sums[i] + expected.bias[i % static_cast<size_t>(channels)];

    Contributions contributions{
        grid, n, l.run, data.data(), weights.data(), tap_at.data(), l.run * step, step};
    Epilogue e = epilogue_of(v, expected, grid, cpu_chunks);
    e.message.contributions = v.differs ? &contributions : nullptr;
    cpu_epilogue(grid, n, sums, e);

    const TensorsOnDevice device(got);
    const OnDevice<float> x(data), w(weights);
    const OnDevice<Pixel> taps(l.phase.taps);
    const OnDevice<int64_t> places(tap_at);
    Contributions there{grid, n, l.run, x.data(), w.data(), places.data(), l.run * step, step};
    there.grid.taps = taps.data();
    e = epilogue_of(v, device, grid, chunks);
    e.message.contributions = v.differs ? &there : nullptr;
    ready.run(e);
    device.read(got);

    double error = 0.0;
    for (auto value : {&Tensors::out, &Tensors::r, &Tensors::s_neg, &Tensors::share})
        error = std::max(error, difference(got.*value, expected.*value));
    error = std::max(error,
                     difference(per_row(got.tally, chunks), per_row(expected.tally, cpu_chunks)));
    const int panel = 96 / cpu_kernels().chunks(1, 96);
    const bool same = neurons(got.scarce, chunks, groups, out, 32) ==
                      neurons(expected.scarce, cpu_chunks, 1, channels, panel);
    const bool good = error < 1e-4 && same;
    return good || fails(v.name, kind, of.name, error);
}

// The two sources exchanged where x is negative.
bool exchange_agrees(const Kind &kind, const char *name, const Layer &l, const Values &weights,
                     const std::vector<Term> &terms, int64_t n) {
    const TapGrid grid = grid_of(l.phase);
    Tensors t(grid, n, 1);
    const TensorsOnDevice device(t);
    Values expected = t.out, got = t.out;
    Epilogue e;
    e.kind = EpilogueKind::relevance;
    e.out = expected.data();
    e.x = t.x.data();
    e.part = Part::positive;
    cpu_epilogue(grid, n, Ready(kind, l, weights, terms, n).sums(), e);
    const std::vector<Term> exchanged = {{terms[1].data, terms[0].version},
                                         {terms[0].data, terms[1].version}};
    e.part = Part::negative;
    e.add = true;
    cpu_epilogue(grid, n, Ready(kind, l, weights, exchanged, n).sums(), e);
    e = {};
    e.kind = EpilogueKind::relevance;
    e.out = device.out.data();
    e.x = device.x.data();
    Ready(kind, l, weights, terms, n).run(e, true);
    device.out.read(got);
    const double error = difference(got, expected);
    return error < 1e-5 || fails("by sign", kind, name, error);
}

// ---- all of it

bool layer_agrees(const Kind &kind, const Case &of, const Layer &l, const Values &weights,
                  bool back, Errors &errors) {
    const int64_t n = 3;
    const Values x = draw(n * l.phase.grid.from.size(), 0.0f);
    const Values y = draw(n * l.phase.grid.from.size());
    bool good = true;
    for (const Version version : {Version::plain, Version::gamma, Version::square})
        good = sums_agree(kind, of.name, l, weights, {{&y, version}}, n, errors) && good;
    const std::vector<Term> two = {{&x, Version::positive}, {&y, Version::negative}};
    good = sums_agree(kind, of.name, l, weights, two, n, errors) && good;
    good = cuts_agree(kind, of.name, l, weights, two, n) && good;
    good = exchange_agrees(kind, of.name, l, weights, two, n) && good;
    if (kind.precision != Precision::float32) // an epilogue knows nothing of the precision
        return good;
    const Ready ready(kind, l, weights, {{&x, Version::positive}}, n);
    const Values sums = ready.sums();
    for (const Variant &v : variants)
        good = epilogue_agrees(kind, of, l, weights, ready, sums, x, n, v, back) && good;
    return good;
}

Values weights_of(const Conv &c) {
    return draw(static_cast<int64_t>(c.to.channels) * (c.from.channels / c.groups) * c.kernel.z *
                c.kernel.y * c.kernel.x);
}

bool there_and_back(const Kind &kind, const Case &of, Errors &errors) {
    const Values weights = weights_of(of.conv);
    bool good = true;
    for (const Phase &phase : convolution(of.conv))
        good = layer_agrees(kind, of, layer(of, phase, false), weights, false, errors) && good;
    for (const Phase &phase : adjoint(of.conv))
        good = layer_agrees(kind, of, layer(of, phase, true), weights, true, errors) && good;
    return good;
}

// The two samples together and one alone may be cut into tiles of different shapes.
bool there_alone(const Kind &kind, const Case &of, Errors &errors) {
    const Layer l = layer(of, convolution(of.conv).front(), false);
    const Values weights = weights_of(of.conv), x = draw(2 * of.conv.from.size(), 0.0f);
    const std::vector<Term> terms = {{&x, Version::positive}};
    return sums_agree(kind, of.name, l, weights, terms, 2, errors) &&
           cuts_agree(kind, of.name, l, weights, terms, 2);
}

template <class Check> bool agrees(const Kind &kind, const Case &of, const Check &check) {
    Errors errors;
    const bool good = check(kind, of, errors);
    std::printf("%-4s %-21s %-38s %.1e", good ? "ok" : "FAIL", kind.name, of.name, errors.here);
    if (errors.cpu > 0.0)
        std::printf(" (the CPU: %.1e)", errors.cpu);
    std::puts("");
    return good;
}

} // namespace

int main() {
    try {
        const bool hopper = cuda::attribute_of_gpu(cudaDevAttrComputeCapabilityMajor) == 9 &&
                            cuda::attribute_of_gpu(cudaDevAttrComputeCapabilityMinor) == 0;
        if (!hopper)
            std::puts("left out: products by warpgroups, for Hopper alone");
        TimeLimit limit;
        bool all = true;
        const auto check = [&](const Case &of, const auto &holds) {
            for (const Kind &kind : kinds)
                if ((hopper || !kind.cuts) && !limit.reached())
                    all = agrees(kind, of, holds) && all;
        };
        for (const Case &of : cases)
            check(of, there_and_back);
        for (const Case &of : large_cases)
            check(of, there_alone);
        return all ? 0 : 1;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
