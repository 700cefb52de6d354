// Batch norm that stands alone, layer norm and local response normalisation as steps of a Plan.
#pragma once

#include <optional>
#include <vector>

#include "memory.hpp"
#include "steps/proportional.hpp"

namespace relprop {

// scale x + shift per channel, under epsilon or the gradient, or passing relevance on where `pass`.
class BatchNorm final : public Proportional {
  public:
    BatchNorm(const Kernels &kernels, Image image, std::vector<float> scale,
              std::vector<float> shift, std::optional<float> epsilon, bool pass);
    bool passes() const override { return !shares(); }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    Affine arguments(const Run &run) const;
    Resident<float> scale_, shift_;
    bool pass_;
};

// Rows of `width` values, over each of which the statistics are taken, see RowNorm; weight and bias
// may be empty. Under epsilon the deviation is a constant.
class LayerNorm final : public Proportional {
  public:
    LayerNorm(const Kernels &kernels, Image rows, std::vector<float> weight,
              std::vector<float> bias, float variance_epsilon, bool centred,
              std::optional<float> epsilon);
    bool needs_inputs() const override { return true; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    RowNorm arguments(const Run &run) const;
    Resident<float> weight_, bias_;
    float variance_epsilon_;
    bool centred_;
};

enum class ResponseRule { pass, taylor, gradient }; // taylor: shares by first-order terms

// Across channels or within one.
class LocalResponse final : public Proportional {
  public:
    LocalResponse(const Kernels &kernels, Image image, bool within_channel, int size, float alpha,
                  float beta, float k, ResponseRule rule)
        : Proportional(kernels, image,
                       rule == ResponseRule::taylor ? std::optional(1e-6f) : std::nullopt),
          within_channel_(within_channel), size_(size), alpha_(alpha), beta_(beta), k_(k),
          rule_(rule) {}
    bool needs_inputs() const override { return !passes(); }
    bool needs_output() const override { return false; }
    bool passes() const override { return rule_ == ResponseRule::pass; }
    int64_t relevance_scratch() const override {
        return rule_ == ResponseRule::taylor ? image_.size() : 0;
    }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    LocalResponseNorm arguments(const Run &run) const;
    bool within_channel_;
    int size_;
    float alpha_, beta_, k_;
    ResponseRule rule_;
};

} // namespace relprop
