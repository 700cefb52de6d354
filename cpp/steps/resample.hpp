// Interpolation between rows (bilinear upsampling) as a step of a Plan.
#pragma once

#include <vector>

#include "memory.hpp"
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
    int taps_;
    Resident<int32_t> index_;
    Resident<float> weight_;
    Resident<int32_t> offsets_, reader_; // the same from the input's side, see Resample
    Resident<float> reader_weight_;
};

} // namespace relprop
