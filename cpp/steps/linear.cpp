// See linear.hpp. The rules differ in the sources, the versions of the weights (linear_weights.cpp)
// and the message; the products are the same for all (linear_products.cpp).
#include "steps/linear.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "fast_paths.hpp"

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

} // namespace

Linear::Linear(const Kernels &kernels, const Conv &conv, bool transposed,
               std::span<const float> weights, std::shared_ptr<const void> owner,
               std::vector<float> bias, const Rule &rule, const Surroundings &around,
               std::vector<float> low, std::vector<float> high)
    : conv_(conv), transposed_(transposed), in_(transposed ? conv.to : conv.from),
      out_(transposed ? conv.from : conv.to), rule_(rule), around_(around) {
    if (conv.groups < 1 || in_.channels % conv.groups != 0 || out_.channels % conv.groups != 0)
        throw std::invalid_argument("groups must divide the channels of input and output.");
    if (static_cast<int64_t>(weights.size()) != static_cast<int64_t>(conv.to.channels) *
                                                    (conv.from.channels / conv.groups) *
                                                    conv.kernel.z * conv.kernel.y * conv.kernel.x)
        throw std::invalid_argument("weight does not fit the layer's geometry.");
    if (!bias.empty() && static_cast<int>(bias.size()) != out_.channels)
        throw std::invalid_argument("bias must have one value per output channel.");
    if (rule.kind == RuleKind::z_box &&
        (static_cast<int>(low.size()) != in_.channels || low.size() != high.size()))
        throw std::invalid_argument("low and high must have one value per input channel.");

    depthwise_ = conv.groups > 1 && conv.groups == in_.channels && conv.groups == out_.channels;
    dense_ = !kernels.device && !transposed && conv.groups == 1 && in_.pixels() == 1 &&
             out_.pixels() == 1 && conv.kernel.z * conv.kernel.y * conv.kernel.x == 1 &&
             conv.before.z + conv.before.y + conv.before.x == 0; // it reads no padding
    merged_ = !transposed && conv.groups == 1 && in_.channels < few_channels && conv.kernel.x > 1 &&
              conv.dilation.x == 1 && growth(conv) <= most_growth;
    const auto longest = static_cast<size_t>(std::max(in_.channels, out_.channels));
    zeros_ = {kernels, std::vector<float>(longest + 64, 0.0f)};
    std::vector<float> message_bias = bias;
    if (rule.kind == RuleKind::w_square)
        for (float &b : message_bias)
            b *= b;
    if (rule.kind == RuleKind::z_box || rule.kind == RuleKind::flat)
        message_bias.clear(); // no bias in their denominators
    message_bias_ = {kernels, std::move(message_bias)};
    bias_ = {kernels, std::move(bias)};
    low_ = {kernels, std::move(low)};
    high_ = {kernels, std::move(high)};
    const bool by_product = splits() || rule.kind == RuleKind::z_box;
    const int cut = by_product && !depthwise_ ? conv.groups : 1;
    chunks_ = kernels.chunks(cut, out_.channels / cut);

    const std::vector<Phase> there = transposed ? adjoint(conv) : convolution(conv);
    const std::vector<Phase> back = transposed ? convolution(conv) : adjoint(conv);
    std::vector<float> fan_in = real_taps(there);
    for (float &taps : fan_in)
        taps *= static_cast<float>(in_.channels / conv.groups);
    fan_in_ = {kernels, std::move(fan_in)};
    selects_ = selects(kernels, back);
    folds_ = !transposed && conv.groups == 1 && in_.channels < few_channels &&
             in_.depth * out_.depth * conv.kernel.z == 1 && conv.dilation.y == 1 &&
             conv.dilation.x == 1 && conv.before.y >= 0 && conv.before.x >= 0 &&
             !goes_without(FastPath::fold) && kernels.folds(fold_of());
    std::vector<Version> needed = forward_versions(), back_needed = backward_versions();
    Fingerprint content{};
    if (!kernels.device && (dense_ || takes_difference())) {
        weights_ = weights;
        owner_ = std::move(owner);
    }
    if (dense_) { // nothing is packed
        needed.clear();
        back_needed.clear();
    } else {
        content = fingerprint(weights);
    }
    for (const Phase &phase : there)
        forward_.push_back(pack(kernels, weights, content, phase, transposed, needed));
    for (const Phase &phase : back)
        backward_.push_back(pack(kernels, weights, content, phase, !transposed,
                                 folds_ ? std::vector<Version>() : back_needed));
    if (folds_)
        all_taps_.push_back(pack_all_taps(kernels, weights, content, back_needed));
    if (takes_difference())
        place_contributions(kernels, weights, there.front());
    plan_scratch();
    if (rule.kind == RuleKind::w_square)
        square_sums_ = square_sums(kernels);
}

void Linear::plan_scratch() {
    if (merged_)
        padded_size_ = forward_.front().taps.grid.from.size();
    const auto take = [this](bool needed, int64_t floats) {
        const int64_t at = scratch_;
        if (needed)
            scratch_ += whole_lines(floats) + read_beyond;
        return at;
    };
    const bool product = splits() || rule_.kind == RuleKind::z_box || leaves_bias_out();
    const bool two_sources =
        (splits() && !around_.input_nonnegative) || rule_.kind == RuleKind::z_box;
    // where taps are merged, a rule that splits reads its sources with their border alone
    first_at_ = take(two_sources && !(merged_ && splits()), in_.size());
    second_at_ = take(two_sources && !(merged_ && splits()), in_.size());
    padded_first_at_ = take(merged_ && product, padded_size_);
    padded_second_at_ = take(merged_ && two_sources, padded_size_);
    negative_at_ = take(needs_negative_part(), out_.size());
    scarce_at_ = take(treats_scarce(), out_.pixels() * chunks_);
    without_bias_at_ = take(leaves_bias_out(), out_.size());
    share_at_ = take(distributes(), out_.size());
    handed_at_ = take(folds_, out_.pixels() * handed_channels(fold_of()));
    sums_at_ = take(distributes() || rule_.kind == RuleKind::flat, out_.pixels() * conv_.groups);
}

// ---- the two passes ----------------------------------------------------------------------------

void Linear::forward(const Run &run) const {
    Epilogue epilogue;
    epilogue.out = run.value(output);
    epilogue.bias = bias_.data();
    epilogue.low = around_.low;
    epilogue.high = around_.high;
    const float *x = source(run, Transform::copy, run.value(inputs[0]), 0);
    forward_product(run, {{x, Version::plain}}, epilogue);
}

bool Linear::needs_inputs() const {
    return rule_.kind != RuleKind::flat && rule_.kind != RuleKind::w_square &&
           rule_.kind != RuleKind::gradient;
}

bool Linear::receives() const {
    return rule_.kind == RuleKind::epsilon && !distributes() && !leaves_bias_out();
}

// Where what it writes last multiplies x as it is, and lies in chunks of all channels.
bool Linear::sends() const {
    return (rule_.kind == RuleKind::epsilon || splits()) && !distributes() && !folds_ &&
           (conv_.groups == 1 || depthwise_);
}

bool Linear::distributes() const {
    return rule_.bias == BiasMode::distribute && !message_bias_.empty();
}

// From a product of its own: a bias that is taken away again from a large z leaves its rounding.
bool Linear::leaves_bias_out() const {
    return rule_.bias == BiasMode::exclude && !message_bias_.empty() &&
           (rule_.kind == RuleKind::epsilon || rule_.kind == RuleKind::gamma);
}

bool Linear::needs_output() const {
    const int z_plus = static_cast<int>(Version::positive);
    const bool reads = rule_.kind == RuleKind::epsilon || rule_.kind == RuleKind::gamma;
    return (reads && !leaves_bias_out()) || takes_difference() ||
           forward_.front().winograd[z_plus]; // the floor of its sums
}

int64_t Linear::weights() const {
    int64_t floats = dense_ ? static_cast<int64_t>(weights_.size()) : 0;
    for (const auto *direction : {&forward_, &backward_, &all_taps_})
        for (const Packed &packed : *direction)
            for (const PackedWeights &version : packed.weights)
                floats += version.floats();
    return floats;
}

int64_t Linear::tallies() const {
    return rule_.kind == RuleKind::gradient ? 0 : out_.pixels() * chunks_;
}

int64_t Linear::product_scratch(const Kernels &kernels) const {
    int64_t most = 0;
    if (kernels.device && !depthwise_)
        for (const auto *direction : {&forward_, &backward_, &all_taps_})
            for (const Packed &packed : *direction) {
                Product p = product_of(packed, 1, {});
                for (p.sources = 1; p.sources <= 2; ++p.sources)
                    most = std::max(most, kernels.product_scratch(p));
            }
    return most;
}

Message Linear::message_of(const Run &run) const {
    Message m;
    m.rule = rule_;
    m.r = run.relevance(output);
    if (needs_negative_part())
        m.s_neg = run.scratch(negative_at_);
    if (rule_.kind == RuleKind::w_square) {
        m.z = square_sums_->data();
        m.period = out_.pixels();
    } else if (leaves_bias_out()) {
        m.z = run.scratch(without_bias_at_);
    } else if (needs_output()) {
        m.z = run.value(output);
    }
    m.bias = message_bias_.data();
    m.fan_in = fan_in_.data();
    m.fan_period = static_cast<int64_t>(fan_in_.size());
    if (distributes())
        m.share = run.scratch(share_at_);
    m.tally = run.tally();
    m.chunks = chunks_;
    return m;
}

Contributions Linear::contributions_of(const Run &run) const {
    Contributions c;
    c.grid = contributions_.read();
    c.n = run.n;
    c.run = conv_.from.channels / conv_.groups;
    c.x = run.value(inputs[0]);
    c.weights = run.kernels.device ? contribution_weights_.data() : weights_.data();
    c.tap_at = contribution_taps_.data();
    c.step = Image{conv_.kernel.z, conv_.kernel.y, conv_.kernel.x}.pixels();
    c.channel_step = c.run * c.step;
    return c;
}

void Linear::relevance(const Run &run) const {
    if (rule_.kind == RuleKind::gradient)
        return backward_product(run, {{run.relevance(output), Version::plain}}, nullptr,
                                run.adds(0));
    if (leaves_bias_out()) {
        Epilogue plain;
        plain.out = run.scratch(without_bias_at_);
        const float *x = source(run, Transform::copy, run.value(inputs[0]), padded_first_at_);
        forward_product(run, {{x, Version::plain}}, plain);
    }
    if (splits())
        relevance_split(run);
    else if (rule_.kind == RuleKind::z_box)
        relevance_z_box(run);
    else
        relevance_single(run);
    if (distributes())
        spread(run, run.scratch(share_at_), true);
    run.book_tally();
}

// epsilon, w_square, flat: the sums are known, one message.
void Linear::relevance_single(const Run &run) const {
    const int64_t rows = run.n * out_.pixels();
    if (!run.arrives())
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

// alpha_beta and gamma: Z+ from a product; Z-, where the rule asks for it, from what z leaves of Z+
// or from another.
void Linear::relevance_split(const Run &run) const {
    const float *x = run.value(inputs[0]);
    bool add = run.adds(0);
    Message m = message_of(run);
    const Contributions contributions = contributions_of(run);
    if (takes_difference())
        m.contributions = &contributions;
    if (treats_scarce()) // the arena's floats are as wide
        m.scarce = reinterpret_cast<uint32_t *>(run.scratch(scarce_at_));
    Epilogue part, final;
    part.out = m.s_neg;
    final.kind = EpilogueKind::message;
    final.message = m;
    const bool sums_negative = m.s_neg && rule_.kind == RuleKind::alpha_beta && !takes_difference();
    const float *s_pos = m.r, *s_neg = m.s_neg;

    if (around_.input_nonnegative) { // c+ = a w+, c- = a w-
        const float *a = source(run, Transform::copy, x, padded_first_at_);
        if (sums_negative)
            forward_product(run, {{a, Version::negative}}, part);
        forward_product(run, {{a, Version::positive}}, final);
        if (m.scarce)
            add |= run.kernels.scarce(
                {contributions, m.scarce, m.s_neg, run.relevance(inputs[0]), add}, run.stream);
        const Version one = rule_.kind == RuleKind::gamma ? Version::gamma : Version::positive;
        if (!s_neg)
            backward_product(run, {{s_pos, one}}, x, add);
        else if (selects_)
            backward_product(run, {{s_pos, Version::plain}, {s_neg, Version::plain}}, x, add);
        else if (winograd_backward(Version::positive) == winograd_backward(Version::negative))
            backward_product(run, {{s_pos, Version::positive}, {s_neg, Version::negative}}, x, add);
        else {
            backward_product(run, {{s_pos, Version::positive}}, x, add, Part::all, false, false);
            backward_product(run, {{s_neg, Version::negative}}, x, true);
        }
        return;
    }
    // c+ = a+ w+ + a- w-, c- = a+ w- + a- w+
    const float *pos = source(run, Transform::positive, x, merged_ ? padded_first_at_ : first_at_);
    const float *neg =
        source(run, Transform::negative, x, merged_ ? padded_second_at_ : second_at_);
    if (sums_negative)
        forward_product(run, {{pos, Version::negative}, {neg, Version::positive}}, part);
    forward_product(run, {{pos, Version::positive}, {neg, Version::negative}}, final);
    if (s_neg) {
        const Version first = selects_ ? Version::plain : Version::positive;
        const Version second = selects_ ? Version::plain : Version::negative;
        backward_product(run, {{s_pos, first}, {s_neg, second}}, x, add, Part::all, true);
    } else {
        backward_product(run, {{s_pos, Version::positive}}, x, add, Part::positive, false, false);
        backward_product(run, {{s_pos, Version::negative}}, x, true, Part::negative);
    }
}

// z_box: (a - l) w+ + (a - h) w-, in which nothing cancels.
void Linear::relevance_z_box(const Run &run) const {
    const float *above = distance(run, low_, first_at_);
    const float *below = distance(run, high_, second_at_);
    Epilogue final;
    final.kind = EpilogueKind::message;
    final.message = message_of(run);
    forward_product(run,
                    {{source(run, Transform::copy, above, padded_first_at_), Version::positive},
                     {source(run, Transform::copy, below, padded_second_at_), Version::negative}},
                    final);
    const float *s = run.relevance(output);
    backward_product(run, {{s, Version::positive}}, above, run.adds(0));
    backward_product(run, {{s, Version::negative}}, below, true);
}

} // namespace relprop
