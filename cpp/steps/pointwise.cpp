// See pointwise.hpp.
#include "steps/pointwise.hpp"

#include <limits>

namespace relprop {

void pass_on(const Run &run, const Step &step, int64_t n, size_t slot) {
    const float *from = run.relevance(step.output);
    float *to = run.relevance(step.inputs[slot]);
    if (from != to)
        run.kernels.carry(from, 1.0f, to, n, run.adds(static_cast<int>(slot)), run.stream);
}

namespace {

// Of the output's relevance, n floats, what the rule lets through: it is overwritten.
void cut_off(const Run &run, const Step &step, ActivationRule rule, int64_t n) {
    if (rule != ActivationRule::deconvolution && rule != ActivationRule::guided)
        return;
    float *r = run.relevance(step.output);
    run.kernels.clip(0.0f, std::numeric_limits<float>::infinity(), r, r, n, run.stream);
}

} // namespace

void Activation::forward(const Run &run) const {
    run.kernels.activation(function_, parameter_, run.value(inputs[0]), run.value(output),
                           run.n * size_, run.stream);
}

void Activation::relevance(const Run &run) const {
    cut_off(run, *this, rule_, run.n * size_);
    if (!derives(rule_))
        return pass_on(run, *this, run.n * size_);
    run.kernels.activation_gradient(function_, parameter_, run.value(inputs[0]),
                                    run.relevance(output), run.relevance(inputs[0]), run.n * size_,
                                    run.adds(0), run.stream);
}

void Clip::forward(const Run &run) const {
    if (!clamped_)
        run.kernels.clip(low_, high_, run.value(inputs[0]), run.value(output), run.n * size_,
                         run.stream);
}

void Clip::relevance(const Run &run) const {
    cut_off(run, *this, rule_, run.n * size_);
    if (!derives(rule_))
        return pass_on(run, *this, run.n * size_);
    run.kernels.clip_gradient(low_, high_, run.value(output), run.relevance(output),
                              run.relevance(inputs[0]), run.n * size_, run.adds(0), run.stream);
}

Prelu PRelu::arguments(const Run &run) const {
    return {run.n * size_,
            static_cast<int64_t>(slope_.size()),
            slope_.data(),
            run.value(inputs[0]),
            run.relevance(output),
            run.value(output),
            false};
}

void PRelu::forward(const Run &run) const { run.kernels.prelu(arguments(run), run.stream); }

void PRelu::relevance(const Run &run) const {
    cut_off(run, *this, rule_, run.n * size_);
    if (!derives(rule_))
        return pass_on(run, *this, run.n * size_);
    Prelu p = arguments(run);
    p.result = run.relevance(inputs[0]);
    p.add = run.adds(0);
    run.kernels.prelu_gradient(p, run.stream);
}

void Constant::forward(const Run &run) const {
    const auto size = static_cast<int64_t>(value_.size());
    for (int64_t i = 0; i < run.n; ++i)
        run.kernels.carry(value_.data(), 1.0f, run.value(output) + i * size, size, false,
                          run.stream);
}

void Constant::relevance(const Run &run) const {
    run.book(Account::constants, run.relevance(output), static_cast<int64_t>(value_.size()));
}

} // namespace relprop
