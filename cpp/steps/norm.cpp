// See norm.hpp.
#include "steps/norm.hpp"

#include <stdexcept>

#include "steps/pointwise.hpp"

namespace relprop {

BatchNorm::BatchNorm(const Kernels &kernels, Image image, std::vector<float> scale,
                     std::vector<float> shift, std::optional<float> epsilon, bool pass)
    : Proportional(kernels, image, pass ? std::nullopt : epsilon), pass_(pass) {
    if (static_cast<int>(scale.size()) != image.channels || scale.size() != shift.size())
        throw std::invalid_argument("scale and shift must have one value per channel.");
    scale_ = {kernels, std::move(scale)};
    shift_ = {kernels, std::move(shift)};
}

Affine BatchNorm::arguments(const Run &run) const {
    return {run.n * image_.pixels(), image_.channels, run.value(inputs[0]), scale_.data(),
            shift_.data(),           nullptr,         run.value(output),    false};
}

void BatchNorm::forward(const Run &run) const { run.kernels.affine(arguments(run), run.stream); }

void BatchNorm::relevance(const Run &run) const {
    if (pass_)
        return pass_on(run, *this, count(run));
    Affine p = arguments(run);
    p.x = weighed(run);
    p.s = divide(run, run.value(output), shift_.data());
    p.result = run.relevance(inputs[0]);
    p.add = run.adds(0);
    run.kernels.affine_relevance(p, run.stream);
}

LayerNorm::LayerNorm(const Kernels &kernels, Image rows, std::vector<float> weight,
                     std::vector<float> bias, float variance_epsilon, bool centred,
                     std::optional<float> epsilon)
    : Proportional(kernels, rows, epsilon), variance_epsilon_(variance_epsilon), centred_(centred) {
    const auto width = static_cast<size_t>(rows.channels);
    if ((!weight.empty() && weight.size() != width) || (!bias.empty() && bias.size() != width))
        throw std::invalid_argument("weight and bias must have one value per place of a row.");
    if (!weight.empty())
        weight_ = {kernels, std::move(weight)};
    if (!bias.empty())
        bias_ = {kernels, std::move(bias)};
}

RowNorm LayerNorm::arguments(const Run &run) const {
    return {run.n * image_.pixels(),
            image_.channels,
            centred_,
            variance_epsilon_,
            run.value(inputs[0]),
            weight_.size() > 0 ? weight_.data() : nullptr,
            bias_.size() > 0 ? bias_.data() : nullptr,
            nullptr,
            run.value(output),
            false};
}

void LayerNorm::forward(const Run &run) const {
    run.kernels.layer_norm(arguments(run), run.stream);
}

void LayerNorm::relevance(const Run &run) const {
    RowNorm p = arguments(run);
    p.s = divide(run, run.value(output), p.bias);
    p.result = run.relevance(inputs[0]);
    p.add = run.adds(0);
    (shares() ? run.kernels.layer_norm_relevance : run.kernels.layer_norm_gradient)(p, run.stream);
}

LocalResponseNorm LocalResponse::arguments(const Run &run) const {
    return {run.n, image_, within_channel_,      size_,   alpha_,
            beta_, k_,     run.value(inputs[0]), nullptr, run.value(output),
            false};
}

void LocalResponse::forward(const Run &run) const {
    run.kernels.local_response_norm(arguments(run), run.stream);
}

void LocalResponse::relevance(const Run &run) const {
    if (passes())
        return pass_on(run, *this, count(run));
    LocalResponseNorm p = arguments(run);
    if (rule_ == ResponseRule::taylor) {
        p.result = run.scratch();
        run.kernels.local_response_norm_sums(p, run.stream);
        divide(run, run.scratch());
    }
    p.s = run.relevance(output);
    p.result = run.relevance(inputs[0]);
    p.add = run.adds(0);
    (rule_ == ResponseRule::taylor ? run.kernels.local_response_norm_relevance
                                   : run.kernels.local_response_norm_gradient)(p, run.stream);
}

} // namespace relprop
