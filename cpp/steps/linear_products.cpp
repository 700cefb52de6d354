// The products of a Linear, there and back, and what stands in for them. See linear.hpp.
#include <algorithm>
#include <stdexcept>

#include "parts.hpp"
#include "steps/linear.hpp"

namespace relprop {

// T(x), with a border of zeros where the layer reads merged runs; x itself where both are needless.
const float *Linear::source(const Run &run, Transform transform, const float *x,
                            int64_t scratch_at) const {
    if (!merged_ && transform == Transform::copy)
        return x;
    float *out = run.scratch(scratch_at);
    const Pixel before = merged_ ? conv_.before : Pixel{}, after = merged_ ? conv_.after : Pixel{};
    run.kernels.prepare({transform, run.n, in_, before, after, x, nullptr, out}, run.stream);
    return out;
}

const float *Linear::distance(const Run &run, const Resident<float> &bound,
                              int64_t scratch_at) const {
    float *out = run.scratch(scratch_at);
    run.kernels.prepare(
        {Transform::minus, run.n, in_, {}, {}, run.value(inputs[0]), bound.data(), out},
        run.stream);
    return out;
}

// All of a product but its epilogue.
Product Linear::product_of(const Packed &packed, int64_t n,
                           std::initializer_list<Term> terms) const {
    Product p;
    p.grid = packed.taps.read();
    p.n = n;
    for (const auto &[data, version] : terms)
        p.source[p.sources++] = {
            data, dense_ ? weights_.data() : packed.weights[static_cast<int>(version)].data(),
            version};
    p.gamma = rule_.gamma;
    p.run = packed.run;
    p.zeros = zeros_.data();
    return p;
}

void Linear::run_product(const Kernels &kernels, const Product &product, int winograd,
                         Stream stream) const {
    if (winograd && (product.selects || product.by_sign))
        throw std::logic_error("Winograd's filtering does not choose by signs.");
    if (winograd)
        kernels.winograd(product, winograd, stream);
    else if (dense_)
        kernels.dense(product, stream);
    else
        (depthwise_ ? kernels.depthwise : kernels.product)(product, stream);
}

// The terms' data come from source().
void Linear::forward_product(const Run &run, std::initializer_list<Term> terms,
                             const Epilogue &epilogue) const {
    for (const Packed &packed : forward_) {
        Product p = product_of(packed, run.n, terms);
        p.scratch = run.scratch_of_products;
        p.epilogue = epilogue;
        const int version = static_cast<int>(terms.begin()->version);
        run_product(run.kernels, p, packed.winograd[version], run.stream);
    }
}

// Relevance of the input (+)= x * (sum over terms of message @ weights^T), of one part of x alone
// or with the two terms' weights exchanged where it is negative.
void Linear::backward_product(const Run &run, std::initializer_list<Term> terms, const float *x,
                              bool add, Part part, bool by_sign, bool completes) const {
    const std::optional<Message> sent = completes ? run.sent(0) : std::nullopt;
    for (const Packed &packed : folds_ ? all_taps_ : backward_) {
        Product p = product_of(packed, run.n, terms);
        p.scratch = run.scratch_of_products;
        p.selects = p.sources == 2 && selects_;
        p.by_sign = by_sign;
        p.epilogue.kind = EpilogueKind::relevance;
        p.epilogue.out = run.relevance(inputs[0]);
        p.epilogue.x = x;
        p.epilogue.part = part;
        p.epilogue.add = add;
        if ((p.epilogue.sends = sent.has_value()))
            p.epilogue.message = *sent;
        const int version = static_cast<int>(terms.begin()->version);
        if (folds_)
            run_parts(p, [&](const Product &of_part) { fold(run, of_part); });
        else if (dense_)
            run.kernels.dense_adjoint(p, run.stream);
        else
            run_product(run.kernels, p, packed.winograd[version], run.stream);
    }
}

Fold Linear::fold_of() const {
    return {in_, out_, conv_.kernel, conv_.stride, conv_.before, 0, nullptr, {}};
}

// The epilogue is that of the sums over taps.
void Linear::fold(const Run &run, const Product &of) const {
    Fold p = fold_of();
    p.n = run.n;
    p.epilogue = of.epilogue;
    float *handed = run.scratch(handed_at_);
    p.handed = handed;
    Product product = of;
    product.by_sign = false;
    product.epilogue = {};
    product.epilogue.out = handed;
    run.kernels.product(product, run.stream);
    run.kernels.fold(p, run.stream);
}

void Linear::spread(const Run &run, const float *share, bool add) const {
    float *sums = run.scratch(sums_at_);
    run.kernels.group_sums(share, run.n * out_.pixels(), out_.channels, conv_.groups, sums,
                           run.stream);
    for (const Packed &packed : backward_) {
        run.kernels.spread({packed.taps.read(), run.n, sums, run.relevance(inputs[0]), add},
                           run.stream);
    }
}

// Sums over real taps of w^2, with the bias's square where it is kept: they depend on the
// position only.
std::unique_ptr<Memory> Linear::square_sums(const Kernels &kernels) const {
    const Using device(kernels.device, kernels.device_index);
    auto sums = std::make_unique<Memory>(kernels, out_.size());
    const Memory ones(kernels, std::max(in_.size(), padded_size_) + 256);
    Prepare border{Transform::one, 1, in_, {}, {}, nullptr, nullptr, ones.data()};
    if (merged_)
        border.before = conv_.before, border.after = conv_.after;
    kernels.prepare(border, nullptr);
    for (const Packed &packed : forward_) {
        Product p = product_of(packed, 1, {{ones.data(), Version::square}});
        p.epilogue.out = sums->data();
        if (!message_bias_.empty() && rule_.bias != BiasMode::exclude)
            p.epilogue.bias = message_bias_.data();
        run_product(kernels, p, 0, nullptr);
    }
    if (kernels.device)
        kernels.device->wait(nullptr);
    return sums;
}

} // namespace relprop
