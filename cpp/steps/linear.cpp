// See linear.hpp. The rules differ in the sources, the versions of the weights and the message;
// the products are the same for all.
#include "steps/linear.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace relprop {
namespace {

// Below this many channels a kernel row is read as one run of a zero-padded copy of the image.
constexpr int few_channels = 16;

// Unless its border dwarfs the image: padding may be any number.
constexpr double most_growth = 64.0;

double growth(const Conv &conv) {
    const auto along = [](int size, int before, int after) {
        return (static_cast<double>(size) + before + after) / size;
    };
    return along(conv.from.depth, conv.before.z, conv.after.z) *
           along(conv.from.height, conv.before.y, conv.after.y) *
           along(conv.from.width, conv.before.x, conv.after.x);
}

int64_t whole_lines(int64_t floats) { return (floats + 15) / 16 * 16; }

TapGrid grid_of(const Phase &phase) {
    TapGrid grid = phase.grid;
    grid.taps = phase.taps.data();
    grid.tap_count = static_cast<int>(phase.taps.size());
    return grid;
}

} // namespace

Linear::Linear(const Kernels &kernels, const Conv &conv, bool transposed,
               std::span<const float> weights, std::vector<float> bias, const Rule &rule,
               const Surroundings &around, std::vector<float> low, std::vector<float> high)
    : conv_(conv), transposed_(transposed), in_(transposed ? conv.to : conv.from),
      out_(transposed ? conv.from : conv.to), bias_(std::move(bias)), rule_(rule), around_(around),
      low_(std::move(low)), high_(std::move(high)) {
    if (conv.groups < 1 || in_.channels % conv.groups != 0 || out_.channels % conv.groups != 0)
        throw std::invalid_argument("groups must divide the channels of input and output.");
    if (static_cast<int64_t>(weights.size()) != static_cast<int64_t>(conv.to.channels) *
                                                    (conv.from.channels / conv.groups) *
                                                    conv.kernel.z * conv.kernel.y * conv.kernel.x)
        throw std::invalid_argument("weight does not fit the layer's geometry.");
    if (!bias_.empty() && static_cast<int>(bias_.size()) != out_.channels)
        throw std::invalid_argument("bias must have one value per output channel.");
    if (rule.kind == RuleKind::z_box &&
        (static_cast<int>(low_.size()) != in_.channels || low_.size() != high_.size()))
        throw std::invalid_argument("low and high must have one value per input channel.");

    depthwise_ = conv.groups > 1 && conv.groups == in_.channels && conv.groups == out_.channels;
    // Few outputs would leave most of a panel empty.
    dense_ = conv.groups == 1 && in_.pixels() == 1 && out_.pixels() == 1 &&
             out_.channels >= few_channels && conv.kernel.z * conv.kernel.y * conv.kernel.x == 1;
    merged_ = !transposed && conv.groups == 1 && in_.channels < few_channels && conv.kernel.x > 1 &&
              conv.dilation.x == 1 && growth(conv) <= most_growth;
    zeros_.assign(static_cast<size_t>(std::max(in_.channels, out_.channels)) + 64, 0.0f);
    message_bias_ = bias_;
    if (rule.kind == RuleKind::w_square)
        for (float &b : message_bias_)
            b *= b;
    if (rule.kind == RuleKind::z_box || rule.kind == RuleKind::flat)
        message_bias_.clear(); // no bias in their denominators
    const bool by_product = splits() || rule.kind == RuleKind::z_box;
    const int cut = by_product && !depthwise_ ? conv.groups : 1;
    chunks_ = kernels.chunks(cut, out_.channels / cut);

    const std::vector<Phase> there = transposed ? adjoint(conv) : convolution(conv);
    const std::vector<Phase> back = transposed ? convolution(conv) : adjoint(conv);
    fan_in_ = real_taps(there);
    for (float &taps : fan_in_)
        taps *= static_cast<float>(in_.channels / conv.groups);
    std::vector<Version> needed = forward_versions(), back_needed = backward_versions();
    if (dense_) { // both directions read one store
        for (Version version : back_needed)
            if (std::find(needed.begin(), needed.end(), version) == needed.end())
                needed.push_back(version);
        back_needed.clear();
    }
    const Fingerprint content = fingerprint(weights);
    for (const Phase &phase : there)
        forward_.push_back(pack(kernels, weights, content, phase, transposed, needed));
    for (const Phase &phase : back)
        backward_.push_back(pack(kernels, weights, content, phase, !transposed, back_needed));
    if (merged_)
        merge(forward_.front());
    plan_scratch();
    if (rule.kind == RuleKind::w_square)
        square_sums_ = square_sums(kernels);
}

// ---- packing -----------------------------------------------------------------------------------

bool Linear::splits() const {
    return rule_.kind == RuleKind::alpha_beta || rule_.kind == RuleKind::gamma;
}

// Where no relevance arrives for z <= 0, gamma's two messages are one up to a factor.
bool Linear::needs_negative_part() const {
    if (rule_.kind == RuleKind::gamma)
        return !(around_.supported && around_.input_nonnegative);
    return rule_.kind == RuleKind::alpha_beta && rule_.beta > 0.0f;
}

std::vector<Version> Linear::forward_versions() const {
    switch (rule_.kind) {
    case RuleKind::alpha_beta:
    case RuleKind::gamma:
        if (rule_.beta > 0.0f || !around_.input_nonnegative)
            return {Version::plain, Version::positive, Version::negative};
        return {Version::plain, Version::positive};
    case RuleKind::z_box:
        return {Version::plain, Version::positive, Version::negative};
    case RuleKind::w_square:
        return {Version::plain, Version::square};
    default:
        return {Version::plain};
    }
}

std::vector<Version> Linear::backward_versions() const {
    switch (rule_.kind) {
    case RuleKind::epsilon:
        return {Version::plain};
    case RuleKind::alpha_beta:
        if (rule_.beta > 0.0f || !around_.input_nonnegative)
            return {Version::positive, Version::negative};
        return {Version::positive};
    case RuleKind::gamma:
        if (needs_negative_part())
            return {Version::positive, Version::negative};
        return {Version::gamma};
    case RuleKind::z_box:
        return {Version::positive, Version::negative};
    case RuleKind::w_square:
        return {Version::square};
    case RuleKind::flat:
        return {};
    }
    return {};
}

// Winograd's filtering errs by some 1e-7 of the largest value nearby, not of the sum itself. Where
// a message divides by nearly nothing, or stands for an empty part, that would reach its
// neighbours; where the layer is supported, relevance arrives in proportion to z, and Z+ >= z. Z-
// can be next to nothing all the same, and so can any sum whose bias is left out.
int Linear::winograd_outputs(const Kernels &kernels, const Phase &phase, int run,
                             Version version) const {
    const bool split = version == Version::positive || version == Version::gamma;
    const bool safe = splits() && around_.input_nonnegative;
    if (!around_.supported || rule_.bias == BiasMode::exclude ||
        (version != Version::plain && !(split && safe)) ||
        (merged_ && run == in_.channels)) // the forward product, whose taps are merged
        return 0;
    return kernels.winograd_outputs(grid_of(phase), run);
}

// Packs each version of the weights that is needed for one phase.
Linear::Packed Linear::pack(const Kernels &kernels, std::span<const float> weights,
                            const Fingerprint &of, const Phase &phase, bool of_adjoint,
                            const std::vector<Version> &needed) const {
    const int to = conv_.to.channels / conv_.groups, from = conv_.from.channels / conv_.groups;
    const int read = of_adjoint ? to : from, written = of_adjoint ? from : to;
    const Image kernel = {conv_.kernel.z, conv_.kernel.y, conv_.kernel.x};
    std::vector<int64_t> tap_at;
    for (const Pixel &tap : phase.kernel)
        tap_at.push_back(row_of(kernel, 0, tap));
    const int taps = static_cast<int>(tap_at.size());
    const int row = merged_ && !of_adjoint ? conv_.kernel.x : 1; // taps that are merged to one
    const int64_t from_step = kernel.pixels(), to_step = from_step * from;
    Packing packing{};
    packing.groups = conv_.groups;
    packing.tap_count = taps / row;
    packing.run = depthwise_ ? 0 : read * row;
    packing.out = depthwise_ ? conv_.groups : written;
    packing.read = read;
    packing.tap_at = tap_at.data();
    packing.group_step = to_step * to;
    packing.read_step = of_adjoint ? to_step : from_step;
    packing.written_step = depthwise_ || !of_adjoint ? to_step : from_step;
    packing.gamma = rule_.gamma;
    Packed packed{phase, read, {}, {}};
    for (Version version : needed) {
        packing.version = version;
        const int outputs = winograd_outputs(kernels, phase, read, version);
        packed.winograd[static_cast<int>(version)] = outputs;
        packed.weights[static_cast<int>(version)] =
            PackedWeights(kernels, packing, outputs, weights.data(), of);
    }
    return packed;
}

// One tap for a whole row of the kernel, as the weights are packed.
void Linear::merge(Packed &packed) const {
    packed.run *= conv_.kernel.x;
    packed.phase.taps.clear();
    each_pixel({conv_.kernel.z, conv_.kernel.y, 1},
               [&](const Pixel &k) { packed.phase.taps.push_back(moved(k, conv_.dilation, {})); });
    Image &from = packed.phase.grid.from;
    from.depth += conv_.before.z + conv_.after.z;
    from.height += conv_.before.y + conv_.after.y;
    from.width += conv_.before.x + conv_.after.x;
}

void Linear::plan_scratch() {
    if (merged_)
        padded_size_ = forward_.front().phase.grid.from.size();
    const auto take = [this](bool needed, int64_t floats) {
        const int64_t at = scratch_;
        if (needed)
            scratch_ += whole_lines(floats);
        return at;
    };
    const bool product = splits() || rule_.kind == RuleKind::z_box;
    const bool two_sources =
        (splits() && !around_.input_nonnegative) || rule_.kind == RuleKind::z_box;
    const bool distribute = rule_.bias == BiasMode::distribute && !message_bias_.empty();
    first_at_ = take(two_sources, in_.size());
    second_at_ = take(two_sources, in_.size());
    padded_first_at_ = take(merged_ && product, padded_size_);
    padded_second_at_ = take(merged_ && two_sources, padded_size_);
    negative_at_ = take(needs_negative_part(), out_.size());
    share_at_ = take(distribute, out_.size());
    sums_at_ = take(distribute || rule_.kind == RuleKind::flat, out_.pixels() * conv_.groups);
}

// ---- products ----------------------------------------------------------------------------------

// x with a border of zeros where the layer reads merged runs, else x itself.
const float *Linear::padded(const Run &run, const float *x, int64_t scratch_at) const {
    if (!merged_)
        return x;
    float *out = run.scratch(scratch_at);
    run.kernels.prepare({Transform::copy, run.n, in_, conv_.before, conv_.after, x, nullptr, out},
                        run.stream);
    return out;
}

const float *Linear::transformed(const Run &run, Transform transform,
                                 const std::vector<float> &minus, int64_t scratch_at) const {
    float *out = run.scratch(scratch_at);
    run.kernels.prepare({transform,
                         run.n,
                         in_,
                         {},
                         {},
                         run.value(inputs[0]),
                         minus.empty() ? nullptr : minus.data(),
                         out},
                        run.stream);
    return out;
}

// All of a product but its sources and its epilogue.
Product Linear::product_of(const Packed &packed, int64_t n) const {
    Product p;
    p.grid = grid_of(packed.phase);
    p.n = n;
    p.run = packed.run;
    p.zeros = zeros_.data();
    return p;
}

void Linear::run_product(const Kernels &kernels, const Product &product, int winograd,
                         Stream stream) const {
    if (winograd)
        kernels.winograd(product, winograd, stream);
    else
        (depthwise_ ? kernels.depthwise : kernels.product)(product, stream);
}

void Linear::forward_product(const Run &run, std::initializer_list<Term> terms,
                             const Epilogue &epilogue, int64_t padded_at) const {
    ProductSource source[2];
    int sources = 0;
    for (const Term &term : terms) {
        const int64_t at = padded_at + sources * whole_lines(padded_size_);
        source[sources++].data = padded(run, term.data, at);
    }
    for (const Packed &packed : forward_) {
        Product p = product_of(packed, run.n);
        for (const Term &term : terms) {
            const float *weights = packed.weights[static_cast<int>(term.version)].data();
            p.source[p.sources] = {source[p.sources].data, weights};
            ++p.sources;
        }
        p.epilogue = epilogue;
        const int version = static_cast<int>(terms.begin()->version);
        run_product(run.kernels, p, packed.winograd[version], run.stream);
    }
}

// Relevance of the input (+)= x * (sum over terms of message @ weights^T).
void Linear::backward_product(const Run &run, std::initializer_list<Term> terms, const float *x,
                              bool add) const {
    for (const Packed &packed : backward_) {
        Product p = product_of(packed, run.n);
        const Packed &from = dense_ ? forward_.front() : packed;
        for (const Term &term : terms)
            p.source[p.sources++] = {term.data,
                                     from.weights[static_cast<int>(term.version)].data()};
        p.epilogue.kind = EpilogueKind::relevance;
        p.epilogue.out = run.relevance(inputs[0]);
        p.epilogue.x = x;
        p.epilogue.add = add;
        const int version = static_cast<int>(terms.begin()->version);
        if (dense_)
            run.kernels.dense_adjoint(p, run.stream);
        else
            run_product(run.kernels, p, packed.winograd[version], run.stream);
    }
}

void Linear::spread(const Run &run, const float *share, bool add) const {
    float *sums = run.scratch(sums_at_);
    run.kernels.group_sums(share, run.n * out_.pixels(), out_.channels, conv_.groups, sums,
                           run.stream);
    for (const Packed &packed : backward_) {
        TapGrid grid = product_of(packed, run.n).grid;
        run.kernels.spread({grid, run.n, sums, run.relevance(inputs[0]), add}, run.stream);
    }
}

// Sums over real taps of w^2, with the bias's square where it is kept: they depend on the
// position only.
std::vector<float> Linear::square_sums(const Kernels &kernels) const {
    std::vector<float> sums(static_cast<size_t>(out_.size()));
    std::vector<float> ones(static_cast<size_t>(std::max(in_.size(), padded_size_)) + 256);
    Prepare border{Transform::one, 1, in_, {}, {}, nullptr, nullptr, ones.data()};
    if (merged_)
        border.before = conv_.before, border.after = conv_.after;
    kernels.prepare(border, nullptr);
    for (const Packed &packed : forward_) {
        Product p = product_of(packed, 1);
        p.source[p.sources++] = {ones.data(),
                                 packed.weights[static_cast<int>(Version::square)].data()};
        p.epilogue.out = sums.data();
        if (!message_bias_.empty() && rule_.bias != BiasMode::exclude)
            p.epilogue.bias = message_bias_.data();
        run_product(kernels, p, 0, nullptr);
    }
    return sums;
}

// ---- the two passes ----------------------------------------------------------------------------

void Linear::forward(const Run &run) const {
    Epilogue epilogue;
    epilogue.out = run.value(output);
    epilogue.bias = bias_.empty() ? nullptr : bias_.data();
    epilogue.low = around_.low;
    epilogue.high = around_.high;
    forward_product(run, {{run.value(inputs[0]), Version::plain}}, epilogue, 0);
}

bool Linear::needs_inputs() const {
    return rule_.kind != RuleKind::flat && rule_.kind != RuleKind::w_square;
}

bool Linear::needs_output() const {
    const int z_plus = static_cast<int>(Version::positive);
    return rule_.kind == RuleKind::epsilon || rule_.kind == RuleKind::gamma ||
           forward_.front().winograd[z_plus]; // the floor of its sums
}

int64_t Linear::absorbed_pairs() const { return out_.pixels() * chunks_; }

Message Linear::message_of(const Run &run) const {
    Message m;
    m.rule = rule_;
    m.r = run.relevance(output);
    if (needs_negative_part())
        m.s_neg = run.scratch(negative_at_);
    if (rule_.kind == RuleKind::w_square) {
        m.z = square_sums_.data();
        m.period = out_.pixels();
    } else if (needs_output()) {
        m.z = run.value(output);
    }
    m.bias = message_bias_.empty() ? nullptr : message_bias_.data();
    m.fan_in = fan_in_.data();
    m.fan_period = static_cast<int64_t>(fan_in_.size());
    if (rule_.bias == BiasMode::distribute && m.bias)
        m.share = run.scratch(share_at_);
    m.absorbed = run.absorbed();
    m.chunks = chunks_;
    return m;
}

void Linear::relevance(const Run &run) const {
    if (splits())
        relevance_split(run);
    else if (rule_.kind == RuleKind::z_box)
        relevance_z_box(run);
    else
        relevance_single(run);
    if (rule_.bias == BiasMode::distribute && !message_bias_.empty())
        spread(run, run.scratch(share_at_), true);
    run.book_absorbed();
}

// epsilon, w_square, flat: the sums are known, one message.
void Linear::relevance_single(const Run &run) const {
    const int64_t rows = run.n * out_.pixels();
    run.kernels.message(message_of(run), rows, out_.channels, run.stream);
    const float *s = run.relevance(output);
    const bool add = run.adds(0);
    if (rule_.kind == RuleKind::flat)
        spread(run, s, add);
    else if (rule_.kind == RuleKind::w_square)
        backward_product(run, {{s, Version::square}}, nullptr, add);
    else
        backward_product(run, {{s, Version::plain}}, run.value(inputs[0]), add);
}

// alpha_beta and gamma: Z+ from a product, Z- from another where the rule asks for it.
void Linear::relevance_split(const Run &run) const {
    const float *x = run.value(inputs[0]);
    const bool add = run.adds(0);
    const Message m = message_of(run);
    Epilogue part, final;
    part.out = m.s_neg;
    final.kind = EpilogueKind::message;
    final.message = m;
    const bool sums_negative = m.s_neg && rule_.kind == RuleKind::alpha_beta;
    const float *s_pos = m.r, *s_neg = m.s_neg;

    if (around_.input_nonnegative) { // c+ = a w+, c- = a w-
        if (sums_negative)
            forward_product(run, {{x, Version::negative}}, part, padded_first_at_);
        forward_product(run, {{x, Version::positive}}, final, padded_first_at_);
        if (s_neg && backward_.front().winograd[static_cast<int>(Version::positive)]) {
            backward_product(run, {{s_pos, Version::positive}}, x, add);
            backward_product(run, {{s_neg, Version::negative}}, x, true);
        } else if (s_neg)
            backward_product(run, {{s_pos, Version::positive}, {s_neg, Version::negative}}, x, add);
        else if (rule_.kind == RuleKind::gamma)
            backward_product(run, {{s_pos, Version::gamma}}, x, add);
        else
            backward_product(run, {{s_pos, Version::positive}}, x, add);
        return;
    }
    // c+ = a+ w+ + a- w-, c- = a+ w- + a- w+
    const float *pos = transformed(run, Transform::positive, {}, first_at_);
    const float *neg = transformed(run, Transform::negative, {}, second_at_);
    if (sums_negative)
        forward_product(run, {{pos, Version::negative}, {neg, Version::positive}}, part,
                        padded_first_at_);
    forward_product(run, {{pos, Version::positive}, {neg, Version::negative}}, final,
                    padded_first_at_);
    if (s_neg) {
        backward_product(run, {{s_pos, Version::positive}, {s_neg, Version::negative}}, pos, add);
        backward_product(run, {{s_pos, Version::negative}, {s_neg, Version::positive}}, neg, true);
    } else {
        backward_product(run, {{s_pos, Version::positive}}, pos, add);
        backward_product(run, {{s_pos, Version::negative}}, neg, true);
    }
}

// z_box: (a - l) w+ + (a - h) w-, in which nothing cancels.
void Linear::relevance_z_box(const Run &run) const {
    const float *above = transformed(run, Transform::minus, low_, first_at_);
    const float *below = transformed(run, Transform::minus, high_, second_at_);
    Epilogue final;
    final.kind = EpilogueKind::message;
    final.message = message_of(run);
    forward_product(run, {{above, Version::positive}, {below, Version::negative}}, final,
                    padded_first_at_);
    const float *s = run.relevance(output);
    backward_product(run, {{s, Version::positive}}, above, run.adds(0));
    backward_product(run, {{s, Version::negative}}, below, true);
}

} // namespace relprop
