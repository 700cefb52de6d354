// See move.hpp.
#include "steps/move.hpp"

#include <stdexcept>

#include "steps/readers.hpp"

namespace relprop {

Move::Move(const Kernels &kernels, std::vector<int32_t> index, int64_t from_size, float value)
    : from_size_(from_size), value_(value) {
    std::vector<int32_t> filled;
    for (size_t i = 0; i < index.size(); ++i) {
        if (index[i] < -1 || index[i] >= from_size)
            throw std::invalid_argument("index must name places of the input.");
        if (index[i] < 0)
            filled.push_back(static_cast<int32_t>(i));
    }
    auto [offsets, reader] = readers_of(index, from_size);
    index_ = {kernels, std::move(index)};
    offsets_ = {kernels, std::move(offsets)};
    reader_ = {kernels, std::move(reader)};
    filled_ = {kernels, std::move(filled)};
}

Gather Move::arguments(const Run &run) const {
    return {run.n,         from_size_,      static_cast<int64_t>(index_.size()),
            index_.data(), offsets_.data(), reader_.data(),
            value_,        nullptr,         nullptr,
            false};
}

void Move::forward(const Run &run) const {
    Gather p = arguments(run);
    p.in = run.value(inputs[0]);
    p.out = run.value(output);
    run.kernels.gather(p, run.stream);
}

void Move::relevance(const Run &run) const {
    Gather p = arguments(run);
    p.in = run.relevance(output);
    p.out = run.relevance(inputs[0]);
    p.add = run.adds(0);
    run.kernels.gather_relevance(p, run.stream);
    if (!filled_.empty())
        run.book(Account::constants, run.relevance(output), p.to_size, filled_.data(),
                 static_cast<int64_t>(filled_.size()));
}

} // namespace relprop
