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

int64_t whole_lines(int64_t floats) { return (floats + 15) / 16 * 16; }

} // namespace

Linear::Linear(const Kernels &kernels, const Conv2d &conv, const std::vector<float> &weights,
               std::vector<float> bias, const Rule &rule, const Surroundings &around,
               std::vector<float> low, std::vector<float> high)
    : conv_(conv), bias_(std::move(bias)), rule_(rule), around_(around), low_(std::move(low)),
      high_(std::move(high)) {
    const int64_t per_group = conv.from.channels / std::max(conv.groups, 1);
    if (conv.groups < 1 || conv.from.channels % conv.groups != 0 ||
        conv.to.channels % conv.groups != 0)
        throw std::invalid_argument("groups must divide the channels of input and output.");
    if (static_cast<int64_t>(weights.size()) !=
        conv.to.channels * per_group * conv.kernel_y * conv.kernel_x)
        throw std::invalid_argument("weight does not fit the layer's geometry.");
    if (!bias_.empty() && static_cast<int>(bias_.size()) != conv.to.channels)
        throw std::invalid_argument("bias must have one value per output channel.");
    if (rule.kind == RuleKind::z_box &&
        (static_cast<int>(low_.size()) != conv.from.channels || low_.size() != high_.size()))
        throw std::invalid_argument("low and high must have one value per input channel.");

    depthwise_ =
        conv.groups > 1 && conv.groups == conv.from.channels && conv.groups == conv.to.channels;
    merged_ = conv.groups == 1 && conv.from.channels < few_channels && conv.kernel_x > 1 &&
              conv.dilation_x == 1;
    zeros_.assign(static_cast<size_t>(std::max(conv.from.channels, conv.to.channels)) + 64, 0.0f);

    const auto real_taps = [](int window, int kernel, int stride, int before, int dilation,
                              int size) {
        int taps = 0;
        for (int k = 0; k < kernel; ++k) {
            const int at = window * stride - before + k * dilation;
            taps += at >= 0 && at < size;
        }
        return taps;
    };
    for (int y = 0; y < conv.to.height; ++y)
        for (int x = 0; x < conv.to.width; ++x)
            fan_in_.push_back(
                static_cast<float>(real_taps(y, conv.kernel_y, conv.stride_y, conv.top,
                                             conv.dilation_y, conv.from.height)) *
                static_cast<float>(real_taps(x, conv.kernel_x, conv.stride_x, conv.left,
                                             conv.dilation_x, conv.from.width)) *
                static_cast<float>(per_group));
    message_bias_ = bias_;
    if (rule.kind == RuleKind::w_square)
        for (float &b : message_bias_)
            b *= b;
    if (rule.kind == RuleKind::z_box || rule.kind == RuleKind::flat)
        message_bias_.clear(); // no bias in their denominators
    const bool by_product = splits() || rule.kind == RuleKind::z_box;
    const int cut = by_product && !depthwise_ ? conv.groups : 1;
    chunks_ = kernels.chunks(cut, conv.to.channels / cut);
    pack(kernels, weights);
    plan_scratch();
    if (rule.kind == RuleKind::w_square)
        square_sums_ = square_sums(kernels);
}

// ---- packing -----------------------------------------------------------------------------------

float Linear::version_of(Version version, float w) const {
    switch (version) {
    case Version::plain:
        return w;
    case Version::positive:
        return std::max(w, 0.0f);
    case Version::negative:
        return std::min(w, 0.0f);
    case Version::gamma: // what s+ = (1 + gamma) S meets where s- = S
        return w > 0.0f ? w : w / (1.0f + rule_.gamma);
    case Version::square:
        return w * w;
    }
    return w;
}

bool Linear::splits() const {
    return rule_.kind == RuleKind::alpha_beta || rule_.kind == RuleKind::gamma;
}

// Where no relevance arrives for z <= 0, gamma's two messages are one up to a factor.
bool Linear::needs_negative_part() const {
    if (rule_.kind == RuleKind::gamma)
        return !(around_.supported && around_.input_nonnegative);
    return rule_.kind == RuleKind::alpha_beta && rule_.beta > 0.0f;
}

void Linear::pack(const Kernels &kernels, const std::vector<float> &weights) {
    const int in = conv_.from.channels / conv_.groups, out = conv_.to.channels / conv_.groups;
    const auto weight_at = [&](int g, int o, int i, int ky, int kx) {
        return weights[((static_cast<size_t>(g * out + o) * static_cast<size_t>(in) +
                         static_cast<size_t>(i)) *
                            static_cast<size_t>(conv_.kernel_y) +
                        static_cast<size_t>(ky)) *
                           static_cast<size_t>(conv_.kernel_x) +
                       static_cast<size_t>(kx)];
    };
    // Lays the weights out as [group][tap][channel read][channel written] and packs a version.
    const auto pack_version = [&](Packed &packed, Version version,
                                  const std::vector<Tap> &kernel_taps, bool backward, int run) {
        const int read = backward ? out : in, written = backward ? in : out;
        std::vector<float> plain;
        plain.reserve(static_cast<size_t>(conv_.groups) * kernel_taps.size() *
                      static_cast<size_t>(read * written));
        if (depthwise_) {
            for (const Tap &tap : kernel_taps)
                for (int g = 0; g < conv_.groups; ++g)
                    plain.push_back(version_of(version, weight_at(g, 0, 0, tap.y, tap.x)));
        } else {
            for (int g = 0; g < conv_.groups; ++g)
                for (const Tap &tap : kernel_taps)
                    for (int r = 0; r < read; ++r)
                        for (int w = 0; w < written; ++w)
                            plain.push_back(
                                version_of(version, backward ? weight_at(g, r, w, tap.y, tap.x)
                                                             : weight_at(g, w, r, tap.y, tap.x)));
        }
        const Packing packing{conv_.groups, static_cast<int>(packed.taps.size()),
                              depthwise_ ? 0 : run, depthwise_ ? conv_.groups : written};
        auto &to = packed.weights[static_cast<int>(version)];
        to.resize(static_cast<size_t>(kernels.pack(packing, plain.data(), nullptr)));
        kernels.pack(packing, plain.data(), to.data());
    };

    std::vector<Version> forward = {Version::plain}, backward = {Version::plain};
    switch (rule_.kind) {
    case RuleKind::epsilon:
        break;
    case RuleKind::alpha_beta:
    case RuleKind::gamma: {
        const bool supported = rule_.kind == RuleKind::gamma && !needs_negative_part();
        const bool negative =
            (rule_.kind == RuleKind::alpha_beta && rule_.beta > 0.0f) || !around_.input_nonnegative;
        forward.push_back(Version::positive);
        if (negative)
            forward.push_back(Version::negative);
        backward = {supported ? Version::gamma : Version::positive};
        if (!supported && (negative || rule_.kind == RuleKind::gamma))
            backward.push_back(Version::negative);
        break;
    }
    case RuleKind::z_box:
        forward = {Version::plain, Version::positive, Version::negative};
        backward = {Version::positive, Version::negative};
        break;
    case RuleKind::w_square:
        forward = {Version::plain, Version::square};
        backward = {Version::square};
        break;
    case RuleKind::flat:
        backward.clear();
        break;
    }

    std::vector<Tap> kernel_taps;
    for (int ky = 0; ky < conv_.kernel_y; ++ky)
        for (int kx = 0; kx < conv_.kernel_x; ++kx)
            kernel_taps.push_back({ky, kx});
    if (merged_)
        for (int ky = 0; ky < conv_.kernel_y; ++ky)
            forward_.taps.push_back({ky * conv_.dilation_y, 0});
    else
        for (const Tap &tap : kernel_taps)
            forward_.taps.push_back(
                {tap.y * conv_.dilation_y - conv_.top, tap.x * conv_.dilation_x - conv_.left});
    for (Version version : forward)
        pack_version(forward_, version, kernel_taps, false, merged_ ? in * conv_.kernel_x : in);

    if (backward.empty())
        return;
    for (int py = 0; py < std::min(conv_.stride_y, conv_.from.height); ++py)
        for (int px = 0; px < std::min(conv_.stride_x, conv_.from.width); ++px) {
            Phase phase{{}, py, px};
            std::vector<Tap> taps;
            for (const Tap &tap : kernel_taps) {
                const int y = py + conv_.top - tap.y * conv_.dilation_y;
                const int x = px + conv_.left - tap.x * conv_.dilation_x;
                if (y % conv_.stride_y == 0 && x % conv_.stride_x == 0) {
                    taps.push_back(tap);
                    phase.packed.taps.push_back({y / conv_.stride_y, x / conv_.stride_x});
                }
            }
            for (Version version : backward)
                pack_version(phase.packed, version, taps, true, out);
            backward_.push_back(std::move(phase));
        }
}

void Linear::plan_scratch() {
    if (merged_)
        padded_size_ = static_cast<int64_t>(conv_.from.height + conv_.top + conv_.bottom) *
                       (conv_.from.width + conv_.left + conv_.right) * conv_.from.channels;
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
    first_at_ = take(two_sources, conv_.from.size());
    second_at_ = take(two_sources, conv_.from.size());
    padded_first_at_ = take(merged_ && product, padded_size_);
    padded_second_at_ = take(merged_ && two_sources, padded_size_);
    negative_at_ = take(needs_negative_part(), conv_.to.size());
    share_at_ = take(distribute, conv_.to.size());
    sums_at_ = take(distribute || rule_.kind == RuleKind::flat,
                    static_cast<int64_t>(conv_.to.height) * conv_.to.width * conv_.groups);
}

// ---- products ----------------------------------------------------------------------------------

// x with a border of zeros where the layer reads merged runs, else x itself.
const float *Linear::padded(const Run &run, const float *x, int64_t scratch_at) const {
    if (!merged_)
        return x;
    float *out = run.scratch(scratch_at);
    run.kernels.prepare({Transform::copy, run.n, conv_.from, conv_.top, conv_.bottom, conv_.left,
                         conv_.right, x, nullptr, out},
                        run.stream);
    return out;
}

const float *Linear::transformed(const Run &run, Transform transform,
                                 const std::vector<float> &minus, int64_t scratch_at) const {
    float *out = run.scratch(scratch_at);
    run.kernels.prepare({transform, run.n, conv_.from, 0, 0, 0, 0, run.value(inputs[0]),
                         minus.empty() ? nullptr : minus.data(), out},
                        run.stream);
    return out;
}

// All of a forward product but its sources and its epilogue.
Product Linear::forward_geometry(int64_t n) const {
    Product p;
    p.sources = 0;
    p.n = n;
    p.from = conv_.from;
    if (merged_) {
        p.from.height += conv_.top + conv_.bottom;
        p.from.width += conv_.left + conv_.right;
    }
    p.to = conv_.to;
    p.groups = conv_.groups;
    p.run = conv_.from.channels / conv_.groups * (merged_ ? conv_.kernel_x : 1);
    p.zeros = zeros_.data();
    p.taps = forward_.taps.data();
    p.tap_count = static_cast<int>(forward_.taps.size());
    p.grid_height = conv_.to.height;
    p.grid_width = conv_.to.width;
    p.step_y = conv_.stride_y;
    p.step_x = conv_.stride_x;
    return p;
}

void Linear::forward_product(const Run &run, std::initializer_list<Term> terms,
                             const Epilogue &epilogue, int64_t padded_at) const {
    Product p = forward_geometry(run.n);
    for (const Term &term : terms) {
        const float *data =
            padded(run, term.data, padded_at + p.sources * whole_lines(padded_size_));
        p.source[p.sources++] = {data, forward_.weights[static_cast<int>(term.version)].data()};
    }
    p.epilogue = epilogue;
    (depthwise_ ? run.kernels.depthwise : run.kernels.product)(p, run.stream);
}

// Relevance of the input (+)= x * (sum over terms of message @ weights^T), by stride phase.
void Linear::backward_product(const Run &run, std::initializer_list<Term> terms, const float *x,
                              bool add) const {
    for (const Phase &phase : backward_) {
        Product p;
        p.sources = 0;
        for (const Term &term : terms)
            p.source[p.sources++] = {term.data,
                                     phase.packed.weights[static_cast<int>(term.version)].data()};
        p.n = run.n;
        p.from = conv_.to;
        p.to = conv_.from;
        p.groups = conv_.groups;
        p.run = conv_.to.channels / conv_.groups;
        p.zeros = zeros_.data();
        p.taps = phase.packed.taps.data();
        p.tap_count = static_cast<int>(phase.packed.taps.size());
        p.grid_height = ceil_div(conv_.from.height - phase.y, conv_.stride_y);
        p.grid_width = ceil_div(conv_.from.width - phase.x, conv_.stride_x);
        p.out_step_y = conv_.stride_y;
        p.out_step_x = conv_.stride_x;
        p.out_y = phase.y;
        p.out_x = phase.x;
        p.epilogue.kind = EpilogueKind::relevance;
        p.epilogue.out = run.relevance(inputs[0]);
        p.epilogue.x = x;
        p.epilogue.add = add;
        (depthwise_ ? run.kernels.depthwise : run.kernels.product)(p, run.stream);
    }
}

void Linear::spread(const Run &run, const float *share, bool add) const {
    run.kernels.spread({run.n, conv_.to, conv_.from, conv_.groups, conv_.kernel_y, conv_.kernel_x,
                        conv_.stride_y, conv_.stride_x, conv_.dilation_y, conv_.dilation_x,
                        conv_.top, conv_.left, share, run.scratch(sums_at_),
                        run.relevance(inputs[0]), add},
                       run.stream);
}

// Sums over real taps of w^2, with the bias's square where it is kept: they depend on the
// position only.
std::vector<float> Linear::square_sums(const Kernels &kernels) const {
    Product p = forward_geometry(1);
    std::vector<float> ones(static_cast<size_t>(p.from.size()) + 256),
        sums(static_cast<size_t>(p.to.size()));
    Prepare border{Transform::one, 1, conv_.from, 0, 0, 0, 0, nullptr, nullptr, ones.data()};
    if (merged_) {
        border.top = conv_.top, border.bottom = conv_.bottom;
        border.left = conv_.left, border.right = conv_.right;
    }
    kernels.prepare(border, nullptr);
    p.source[p.sources++] = {ones.data(),
                             forward_.weights[static_cast<int>(Version::square)].data()};
    p.epilogue.out = sums.data();
    if (!message_bias_.empty() && rule_.bias != BiasMode::exclude)
        p.epilogue.bias = message_bias_.data();
    (depthwise_ ? kernels.depthwise : kernels.product)(p, nullptr);
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
    return rule_.kind == RuleKind::epsilon || rule_.kind == RuleKind::gamma;
}

int64_t Linear::absorbed_pairs() const {
    return static_cast<int64_t>(conv_.to.height) * conv_.to.width * chunks_;
}

Message Linear::message_of(const Run &run) const {
    Message m;
    m.rule = rule_;
    m.r = run.relevance(output);
    if (needs_negative_part())
        m.s_neg = run.scratch(negative_at_);
    if (rule_.kind == RuleKind::w_square) {
        m.z = square_sums_.data();
        m.period = static_cast<int64_t>(conv_.to.height) * conv_.to.width;
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
    const int64_t rows = run.n * conv_.to.height * conv_.to.width;
    run.kernels.message(message_of(run), rows, conv_.to.channels, run.stream);
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
        if (s_neg)
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
