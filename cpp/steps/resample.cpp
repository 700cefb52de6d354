// See resample.hpp.
#include "steps/resample.hpp"

#include <stdexcept>

#include "steps/readers.hpp"

namespace relprop {

Interpolation::Interpolation(const Kernels &kernels, Image result, int64_t from_rows,
                             std::vector<int32_t> index, std::vector<float> weight,
                             std::optional<float> epsilon)
    : Proportional(kernels, result, epsilon), from_rows_(from_rows) {
    const size_t rows = static_cast<size_t>(result.pixels());
    if (index.empty() || index.size() != weight.size() || index.size() % rows != 0)
        throw std::invalid_argument(
            "index and weight must have the same taps for each output row.");
    for (int32_t row : index)
        if (row < 0 || row >= from_rows)
            throw std::invalid_argument("index must name rows of the input.");
    taps_ = static_cast<int>(index.size() / rows);
    auto [offsets, reader] = readers_of(index, from_rows);
    std::vector<float> reader_weight;
    for (int32_t &entry : reader) {
        reader_weight.push_back(weight[static_cast<size_t>(entry)]);
        entry /= taps_; // the row that the tap belongs to
    }
    index_ = {kernels, std::move(index)};
    weight_ = {kernels, std::move(weight)};
    offsets_ = {kernels, std::move(offsets)};
    reader_ = {kernels, std::move(reader)};
    reader_weight_ = {kernels, std::move(reader_weight)};
}

Resample Interpolation::arguments(const Run &run) const {
    Resample p{};
    p.n = run.n;
    p.from_rows = from_rows_;
    p.to_rows = image_.pixels();
    p.channels = image_.channels;
    p.taps = taps_;
    p.index = index_.data();
    p.weight = weight_.data();
    p.offsets = offsets_.data();
    p.reader = reader_.data();
    p.reader_weight = reader_weight_.data();
    return p;
}

void Interpolation::forward(const Run &run) const {
    Resample p = arguments(run);
    p.in = run.value(inputs[0]);
    p.result = run.value(output);
    run.kernels.resample(p, run.stream);
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
