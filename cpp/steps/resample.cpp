// See resample.hpp.
#include "steps/resample.hpp"

#include <stdexcept>

namespace relprop {

Interpolation::Interpolation(const Kernels &kernels, Image result, int64_t from_rows,
                             std::vector<int32_t> index, std::vector<float> weight,
                             std::optional<float> epsilon)
    : Proportional(kernels, result, epsilon), from_rows_(from_rows), index_(std::move(index)),
      weight_(std::move(weight)) {
    const size_t rows = static_cast<size_t>(result.pixels());
    if (index_.empty() || index_.size() != weight_.size() || index_.size() % rows != 0)
        throw std::invalid_argument(
            "index and weight must have the same taps for each output row.");
    for (int32_t row : index_)
        if (row < 0 || row >= from_rows)
            throw std::invalid_argument("index must name rows of the input.");
}

Resample Interpolation::arguments(const Run &run) const {
    const int64_t rows = image_.pixels();
    const int taps = static_cast<int>(static_cast<int64_t>(index_.size()) / rows);
    return {run.n,          from_rows_,           rows,    image_.channels,   taps, index_.data(),
            weight_.data(), run.value(inputs[0]), nullptr, run.value(output), false};
}

void Interpolation::forward(const Run &run) const {
    run.kernels.resample(arguments(run), run.stream);
}

void Interpolation::relevance(const Run &run) const {
    Resample p = arguments(run);
    p.in = weighed(run);
    p.s = divide(run, run.value(output));
    p.result = run.relevance(inputs[0]);
    p.add = run.adds(0);
    run.kernels.resample_relevance(p, run.stream);
}

} // namespace relprop
