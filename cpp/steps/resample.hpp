// Interpolation between rows (bilinear upsampling) as a step of a Plan.
#pragma once

#include <vector>

#include "steps/proportional.hpp"

namespace relprop {

class Interpolation final : public Proportional {
  public:
    // index and weight [output rows, taps], index naming rows of an input of from_rows. Throws
    // std::invalid_argument where they do not fit.
    Interpolation(const Kernels &kernels, Image result, int64_t from_rows,
                  std::vector<int32_t> index, std::vector<float> weight,
                  std::optional<float> epsilon);
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    Resample arguments(const Run &run) const;
    int64_t from_rows_;
    std::vector<int32_t> index_;
    std::vector<float> weight_;
};

} // namespace relprop
