// See move.hpp.
#include "steps/move.hpp"

#include <stdexcept>

namespace relprop {

Move::Move(std::vector<int32_t> index, int64_t from_size, float value)
    : index_(std::move(index)), from_size_(from_size), value_(value) {
    for (size_t i = 0; i < index_.size(); ++i) {
        if (index_[i] < -1 || index_[i] >= from_size)
            throw std::invalid_argument("index must name places of the input.");
        if (index_[i] < 0)
            filled_.push_back(static_cast<int32_t>(i));
    }
}

void Move::forward(const Run &run) const {
    run.kernels.gather({run.n, from_size_, static_cast<int64_t>(index_.size()), index_.data(),
                        value_, run.value(inputs[0]), run.value(output), false},
                       run.stream);
}

void Move::relevance(const Run &run) const {
    const float *r = run.relevance(output);
    run.kernels.gather_relevance({run.n, from_size_, static_cast<int64_t>(index_.size()),
                                  index_.data(), 0.0f, r, run.relevance(inputs[0]), run.adds(0)},
                                 run.stream);
    const auto size = static_cast<int64_t>(index_.size());
    for (int64_t i = 0; i < run.n; ++i)
        for (int32_t place : filled_)
            run.account[i * run.account_stride + 2] += r[i * size + place];
}

} // namespace relprop
