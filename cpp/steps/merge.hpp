// Where branches meet: sum, product, maximum, concatenation. All inputs have the output's shape,
// those of a concatenation but for one axis.
#pragma once

#include <array>

#include "steps/proportional.hpp"

namespace relprop {

// Sum of branches, with a ReLU fused where `clamp`.
class Add final : public Proportional {
  public:
    Add(const Kernels &kernels, Image image, std::optional<float> epsilon, bool clamp)
        : Proportional(kernels, image, epsilon), clamp_(clamp) {}
    bool passes() const override { return !shares(); }
    bool receives() const override { return shares(); }
    bool sends() const override { return shares(); }
    Message message(const Run &run) const override { return message_of(run, run.value(output)); }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    bool clamp_;
};

// Elementwise product of two branches; each input takes its fixed share of the relevance, or
// without shares the gradient: the relevance times the other input.
class Mul final : public Step {
  public:
    Mul(Image image, std::optional<std::array<float, 2>> shares)
        : size_(image.size()), shares_(shares) {}
    bool needs_inputs() const override { return !shares_; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    int64_t size_;
    std::optional<std::array<float, 2>> shares_;
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
    bool sends() const override { return true; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    int64_t outer_, total_ = 0;
    std::vector<int64_t> sizes_;
};

} // namespace relprop
