// See merge.hpp.
#include "steps/merge.hpp"

#include "steps/pointwise.hpp"

namespace relprop {

void Add::forward(const Run &run) const {
    float *sum = run.value(output);
    for (size_t i = 1; i < inputs.size(); ++i)
        run.kernels.add(i == 1 ? run.value(inputs[0]) : sum, run.value(inputs[i]), sum, count(run),
                        clamp_ && i + 1 == inputs.size(), run.stream);
}

void Add::relevance(const Run &run) const {
    if (!shares()) {
        for (size_t i = 0; i < inputs.size(); ++i)
            pass_on(run, *this, count(run), i);
        return;
    }
    std::vector<Branch> branches;
    std::vector<std::optional<Message>> sent;
    for (int i = 0; i < static_cast<int>(inputs.size()); ++i) {
        const int input = inputs[static_cast<size_t>(i)];
        branches.push_back({run.value(input), run.relevance(input), run.adds(i)});
        sent.push_back(run.sent(i));
    }
    for (size_t i = 0; i < inputs.size(); ++i)
        branches[i].sent = sent[i] ? &*sent[i] : nullptr;
    divide(run, run.value(output), nullptr, branches);
}

void Mul::forward(const Run &run) const {
    run.kernels.multiply(run.value(inputs[0]), run.value(inputs[1]), run.value(output),
                         run.n * size_, false, run.stream);
}

void Mul::relevance(const Run &run) const {
    const float *r = run.relevance(output);
    for (size_t i = 0; i < 2; ++i) {
        float *to = run.relevance(inputs[i]);
        const bool add = run.adds(static_cast<int>(i));
        if (shares_)
            run.kernels.carry(r, (*shares_)[i], to, run.n * size_, add, run.stream);
        else
            run.kernels.multiply(r, run.value(inputs[1 - i]), to, run.n * size_, add, run.stream);
    }
}

void Maximum::forward(const Run &run) const {
    float *most = run.value(output);
    run.kernels.maximum(run.value(inputs[0]), run.value(inputs[1]), most, run.n * size_,
                        run.stream);
    for (size_t i = 2; i < inputs.size(); ++i)
        run.kernels.maximum(most, run.value(inputs[i]), most, run.n * size_, run.stream);
}

void Maximum::relevance(const Run &run) const {
    for (size_t i = 0; i < inputs.size(); ++i)
        run.kernels.maximum_relevance(run.value(inputs[i]), run.value(output),
                                      run.relevance(output), run.relevance(inputs[i]),
                                      run.n * size_, run.adds(static_cast<int>(i)), run.stream);
}

Concat::Concat(int64_t outer, std::vector<int64_t> sizes)
    : outer_(outer), sizes_(std::move(sizes)) {
    for (int64_t size : sizes_)
        total_ += size;
}

void Concat::forward(const Run &run) const {
    int64_t at = 0;
    for (size_t i = 0; i < inputs.size(); at += sizes_[i++])
        run.kernels.blocks({run.n * outer_, sizes_[i], run.value(inputs[i]), sizes_[i],
                            run.value(output) + at, total_, false},
                           run.stream);
}

void Concat::relevance(const Run &run) const {
    int64_t at = 0;
    for (int i = 0; i < static_cast<int>(inputs.size()); ++i) {
        const int input = inputs[static_cast<size_t>(i)];
        const int64_t size = sizes_[static_cast<size_t>(i)], rows = run.n * outer_;
        const float *from = run.relevance(output) + at;
        at += size;
        std::optional<Message> sent = run.sent(i);
        const Image &image = run.plan.tensor(input).image;
        if (sent && size == image.channels && !run.adds(i)) { // a block is a row
            sent->given = from;
            sent->given_stride = total_;
        } else {
            run.kernels.blocks({rows, size, from, total_, run.relevance(input), size, run.adds(i)},
                               run.stream);
        }
        if (sent)
            run.kernels.message(*sent, run.n * image.pixels(), image.channels, run.stream);
    }
}

} // namespace relprop
