// See attention.hpp.
#include "steps/attention.hpp"

namespace relprop {

void Softmax::forward(const Run &run) const {
    run.kernels.softmax({run.n * rows_, width_, run.value(inputs[0]), nullptr, nullptr,
                         run.value(output), nullptr, false},
                        run.stream);
}

void Softmax::relevance(const Run &run) const {
    RowSoftmax p{run.n * rows_,
                 width_,
                 nullptr,
                 run.value(output),
                 run.relevance(output),
                 run.relevance(inputs[0]),
                 nullptr,
                 run.adds(0)};
    if (!taylor_)
        return run.kernels.softmax_gradient(p, run.stream);
    p.x = run.value(inputs[0]);
    p.constant = run.scratch();
    run.kernels.softmax_relevance(p, run.stream);
    run.book(Account::bias, p.constant, rows_ * width_);
}

MatMul::MatMul(const Kernels &kernels, const Matrices &of,
               std::optional<std::array<float, 2>> shares, float epsilon)
    : Proportional(kernels, {1, 1, static_cast<int>(of.count * of.rows), of.columns},
                   shares ? std::optional(epsilon) : std::nullopt),
      of_(of), shares_(shares) {}

void MatMul::forward(const Run &run) const {
    run.kernels.matrix_product({run.n * of_.count, of_.rows, of_.depth, of_.columns,
                                run.value(inputs[0]), run.value(inputs[1]), false, of_.turned, 1.0f,
                                nullptr, run.value(output), false},
                               run.stream);
}

void MatMul::relevance(const Run &run) const {
    const float *s = divide(run, run.value(output));
    const float *first = run.value(inputs[0]), *second = run.value(inputs[1]);
    MatrixProduct back[2];
    back[0] = {run.n * of_.count, of_.rows, of_.columns, of_.depth, s,    second, false,
               !of_.turned,       1.0f,     nullptr,     nullptr,   false};
    if (of_.turned) // the second factor is (columns, depth)
        back[1] = {run.n * of_.count, of_.columns, of_.rows, of_.depth, s, first, true, false, 1.0f,
                   nullptr,           nullptr,     false};
    else
        back[1] = {run.n * of_.count, of_.depth, of_.rows, of_.columns, first, s, true, false, 1.0f,
                   nullptr,           nullptr,   false};
    for (int i = 0; i < 2; ++i) {
        MatrixProduct &p = back[i];
        const int input = inputs[static_cast<size_t>(i)];
        p.out = run.relevance(input);
        p.add = run.adds(i);
        if (shares_) {
            p.factor = (*shares_)[static_cast<size_t>(i)];
            p.times = run.value(input);
        }
        if (p.factor != 0.0f)
            run.kernels.matrix_product(p, run.stream);
        else if (!p.add)
            run.kernels.fill(0.0f, p.out, p.count * p.rows * p.columns, run.stream);
    }
}

} // namespace relprop
