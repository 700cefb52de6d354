// Activations and constants as steps of a Plan.
#pragma once

#include <vector>

#include "memory.hpp"
#include "plan.hpp"

namespace relprop {

// Hands the output's relevance to an input, n floats; nothing to do where they share memory.
void pass_on(const Run &run, const Step &step, int64_t n, size_t slot = 0);

// What an activation does with the relevance R of its output: hands it on, or the derivative times
// R, or the positive part of R (deconvolution), or the derivative times that (guided
// backpropagation).
enum class ActivationRule { pass, gradient, deconvolution, guided };

// Whether the derivative is asked for.
constexpr bool derives(ActivationRule rule) {
    return rule == ActivationRule::gradient || rule == ActivationRule::guided;
}

class Activation final : public Step {
  public:
    Activation(Image image, Function function, float parameter, ActivationRule rule)
        : size_(image.size()), function_(function), parameter_(parameter), rule_(rule) {}
    bool needs_inputs() const override { return derives(rule_); }
    bool passes() const override { return true; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    int64_t size_;
    Function function_;
    float parameter_;
    ActivationRule rule_;
};

// Cut off at both bounds, which may be infinite: ReLU, ReLU6, clamps. Nothing is left to do forward
// where the layer before it has `clamped` its output already.
class Clip final : public Step {
  public:
    Clip(Image image, float low, float high, ActivationRule rule, bool clamped)
        : size_(image.size()), low_(low), high_(high), rule_(rule), clamped_(clamped) {}
    bool needs_output() const override { return derives(rule_); }
    bool passes() const override { return true; }
    bool keeps_value() const override { return clamped_; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    int64_t size_;
    float low_, high_;
    ActivationRule rule_;
    bool clamped_;
};

// Slopes for negative values, as kernels.hpp has them.
class PRelu final : public Step {
  public:
    PRelu(const Kernels &kernels, Image image, std::vector<float> slope, ActivationRule rule)
        : size_(image.size()), slope_(kernels, std::move(slope)), rule_(rule) {}
    bool needs_inputs() const override { return derives(rule_); }
    bool passes() const override { return true; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    Prelu arguments(const Run &run) const;
    int64_t size_;
    Resident<float> slope_;
    ActivationRule rule_;
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
