// Batch norm that stands alone and local response normalisation as steps of a Plan.
#pragma once

#include <vector>

#include "steps/proportional.hpp"

namespace relprop {

// scale x + shift per channel, under epsilon, or passing relevance on where `pass`.
class BatchNorm final : public Proportional {
  public:
    BatchNorm(const Kernels &kernels, Image image, std::vector<float> scale,
              std::vector<float> shift, float epsilon, bool pass);
    bool needs_inputs() const override { return !pass_; }
    bool needs_output() const override { return !pass_; }
    bool passes() const override { return pass_; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    Affine arguments(const Run &run) const;
    std::vector<float> scale_, shift_;
    bool pass_;
};

// Across channels or within one; relevance passes, or is shared by first-order Taylor terms where
// `taylor`.
class LocalResponse final : public Proportional {
  public:
    LocalResponse(const Kernels &kernels, Image image, bool within_channel, int size, float alpha,
                  float beta, float k, bool taylor)
        : Proportional(kernels, image, 1e-6f), within_channel_(within_channel), size_(size),
          alpha_(alpha), beta_(beta), k_(k), taylor_(taylor) {}
    bool needs_inputs() const override { return taylor_; }
    bool needs_output() const override { return false; }
    bool passes() const override { return !taylor_; }
    int64_t relevance_scratch() const override { return taylor_ ? image_.size() : 0; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    LocalResponseNorm arguments(const Run &run) const;
    bool within_channel_;
    int size_;
    float alpha_, beta_, k_;
    bool taylor_;
};

} // namespace relprop
