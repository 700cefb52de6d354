// Embedding as a step of a Plan: ids become rows of a table.
#pragma once

#include <vector>

#include "memory.hpp"
#include "plan.hpp"

namespace relprop {

// Each of `ids` values per sample becomes its row of the table; it takes that row's relevance.
class Embedding final : public Step {
  public:
    Embedding(const Kernels &kernels, int64_t ids, int64_t features, std::vector<float> weight)
        : ids_(ids), features_(features), weight_(kernels, std::move(weight)) {}
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    Lookup arguments(const Run &run) const;
    int64_t ids_, features_;
    Resident<float> weight_; // [vocabulary, features]
};

} // namespace relprop
