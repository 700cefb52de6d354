// Where branches meet: sum, product, maximum, concatenation. All inputs have the output's shape,
// those of a concatenation but for one axis.
#pragma once

#include "steps/proportional.hpp"

namespace relprop {

// Sum of branches, with a ReLU fused where `clamp`.
class Add final : public Proportional {
  public:
    Add(const Kernels &kernels, Image image, float epsilon, bool clamp)
        : Proportional(kernels, image, epsilon), clamp_(clamp) {}
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    bool clamp_;
};

// Elementwise product of two branches; each input takes its fixed share of the relevance.
class Mul final : public Step {
  public:
    Mul(Image image, float first_share, float second_share)
        : size_(image.size()), share_{first_share, second_share} {}
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    int64_t size_;
    float share_[2];
};

// Largest of the branches, place by place; the winner takes all, the first one on ties.
class Maximum final : public Step {
  public:
    explicit Maximum(Image image) : size_(image.size()) {}
    bool needs_inputs() const override { return true; }
    bool needs_output() const override { return true; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    int64_t size_;
};

// Joins along an axis: per sample `outer` times one block of sizes[k] floats from each input.
class Concat final : public Step {
  public:
    Concat(int64_t outer, std::vector<int64_t> sizes);
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    int64_t outer_, total_ = 0;
    std::vector<int64_t> sizes_;
};

} // namespace relprop
