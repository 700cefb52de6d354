// Activations and constants as steps of a Plan. Relevance passes through activations, or where
// `gradient` is multiplied with their derivative.
#pragma once

#include <vector>

#include "memory.hpp"
#include "plan.hpp"

namespace relprop {

// Hands the output's relevance to an input, n floats; nothing to do where they share memory.
void pass_on(const Run &run, const Step &step, int64_t n, size_t slot = 0);

class Activation final : public Step {
  public:
    Activation(Image image, Function function, float parameter, bool gradient)
        : size_(image.size()), function_(function), parameter_(parameter), gradient_(gradient) {}
    bool needs_inputs() const override { return gradient_; }
    bool passes() const override { return true; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    int64_t size_;
    Function function_;
    float parameter_;
    bool gradient_;
};

// Cut off at both bounds, which may be infinite: ReLU, ReLU6, clamps. Nothing is left to do forward
// where the layer before it has `clamped` its output already.
class Clip final : public Step {
  public:
    Clip(Image image, float low, float high, bool gradient, bool clamped)
        : size_(image.size()), low_(low), high_(high), gradient_(gradient), clamped_(clamped) {}
    bool needs_output() const override { return gradient_; }
    bool passes() const override { return true; }
    bool keeps_value() const override { return clamped_; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    int64_t size_;
    float low_, high_;
    bool gradient_, clamped_;
};

// Slopes for negative values, as kernels.hpp has them.
class PRelu final : public Step {
  public:
    PRelu(const Kernels &kernels, Image image, std::vector<float> slope, bool gradient)
        : size_(image.size()), slope_(kernels, std::move(slope)), gradient_(gradient) {}
    bool needs_inputs() const override { return gradient_; }
    bool passes() const override { return true; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    Prelu arguments(const Run &run) const;
    int64_t size_;
    Resident<float> slope_;
    bool gradient_;
};

// The same value for every sample; its relevance is booked as `constants`.
class Constant final : public Step {
  public:
    Constant(const Kernels &kernels, std::vector<float> value)
        : value_(kernels, std::move(value)) {}
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    Resident<float> value_;
};

} // namespace relprop
