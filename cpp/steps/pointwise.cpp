// See pointwise.hpp.
#include "steps/pointwise.hpp"

namespace relprop {

void pass_on(const Run &run, const Step &step, int64_t n) {
    const float *from = run.relevance(step.output);
    float *to = run.relevance(step.inputs[0]);
    if (from != to)
        run.kernels.carry(from, 1.0f, to, n, run.adds(0), run.stream);
}

void Activation::forward(const Run &run) const {
    run.kernels.activation(function_, parameter_, run.value(inputs[0]), run.value(output),
                           run.n * size_, run.stream);
}

void Clip::forward(const Run &run) const {
    run.kernels.clip(low_, high_, run.value(inputs[0]), run.value(output), run.n * size_,
                     run.stream);
}

void PRelu::forward(const Run &run) const {
    run.kernels.prelu({run.n * size_, static_cast<int64_t>(slope_.size()), slope_.data(),
                       run.value(inputs[0]), run.value(output)},
                      run.stream);
}

void Constant::forward(const Run &run) const {
    const auto size = static_cast<int64_t>(value_.size());
    for (int64_t i = 0; i < run.n; ++i)
        run.kernels.carry(value_.data(), 1.0f, run.value(output) + i * size, size, false,
                          run.stream);
}

void Constant::relevance(const Run &run) const {
    std::vector<double> sums(static_cast<size_t>(2 * run.n));
    run.kernels.totals(run.relevance(output), run.n, static_cast<int64_t>(value_.size()),
                       sums.data(), 2, run.stream);
    for (int64_t i = 0; i < run.n; ++i)
        run.account[i * run.account_stride + 2] += sums[static_cast<size_t>(2 * i)];
}

} // namespace relprop
