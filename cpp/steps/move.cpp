// See move.hpp.
#include "steps/move.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "steps/pointwise.hpp"
#include "steps/readers.hpp"

namespace relprop {
namespace {

constexpr int64_t most_width = 256; // so that there are places enough for all threads

// How many floats always move together: every run of neighbours that stay neighbours begins,
// here and there, at a multiple of it.
int64_t width_of(const std::vector<int32_t> &index, int64_t from_size) {
    int64_t width = std::gcd(from_size, static_cast<int64_t>(index.size()));
    for (size_t i = 0; i < index.size() && width > 1; ++i) {
        const bool goes_on =
            i > 0 &&
            (index[i] < 0 ? index[i - 1] < 0 : index[i - 1] >= 0 && index[i] == index[i - 1] + 1);
        if (!goes_on) {
            width = std::gcd(width, static_cast<int64_t>(i));
            if (index[i] >= 0)
                width = std::gcd(width, static_cast<int64_t>(index[i]));
        }
    }
    int64_t fit = std::min(width, most_width);
    while (width % fit != 0)
        --fit;
    return fit;
}

} // namespace

Move::Move(const Kernels &kernels, std::vector<int32_t> index, int64_t from_size, float value)
    : from_size_(from_size), to_size_(static_cast<int64_t>(index.size())), value_(value) {
    std::vector<int32_t> filled;
    for (size_t i = 0; i < index.size(); ++i) {
        if (index[i] < -1 || index[i] >= from_size)
            throw std::invalid_argument("index must name places of the input.");
        if (index[i] < 0)
            filled.push_back(static_cast<int32_t>(i));
    }
    width_ = static_cast<int>(width_of(index, from_size));
    const auto width = static_cast<size_t>(width_);
    std::vector<int32_t> wide(index.size() / width);
    for (size_t i = 0; i < wide.size(); ++i)
        wide[i] = index[i * width] < 0 ? -1 : index[i * width] / width_;
    auto [offsets, reader] = readers_of(wide, from_size / width_);
    index_ = {kernels, std::move(wide)};
    offsets_ = {kernels, std::move(offsets)};
    reader_ = {kernels, std::move(reader)};
    filled_ = {kernels, std::move(filled)};
}

Gather Move::arguments(const Run &run) const {
    return {run.n,          from_size_, to_size_, width_,  index_.data(), offsets_.data(),
            reader_.data(), value_,     nullptr,  nullptr, false};
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

void View::relevance(const Run &run) const { pass_on(run, *this, run.n * size_); }

} // namespace relprop
