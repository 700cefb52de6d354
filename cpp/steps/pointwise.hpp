// Activations and constants as steps of a Plan.
#pragma once

#include <vector>

#include "plan.hpp"

namespace relprop {

// Hands the output's relevance to the only input, n floats; nothing to do where they share memory.
void pass_on(const Run &run, const Step &step, int64_t n);

class Activation final : public Step {
  public:
    Activation(Image image, Function function, float parameter)
        : size_(image.size()), function_(function), parameter_(parameter) {}
    bool passes() const override { return true; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override { pass_on(run, *this, run.n * size_); }

  private:
    int64_t size_;
    Function function_;
    float parameter_;
};

// Cut off at both bounds, which may be infinite: ReLU, ReLU6, clamps.
class Clip final : public Step {
  public:
    Clip(Image image, float low, float high) : size_(image.size()), low_(low), high_(high) {}
    bool passes() const override { return true; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override { pass_on(run, *this, run.n * size_); }

  private:
    int64_t size_;
    float low_, high_;
};

// Slopes for negative values, as kernels.hpp has them.
class PRelu final : public Step {
  public:
    PRelu(Image image, std::vector<float> slope) : size_(image.size()), slope_(std::move(slope)) {}
    bool passes() const override { return true; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override { pass_on(run, *this, run.n * size_); }

  private:
    int64_t size_;
    std::vector<float> slope_;
};

// The same value for every sample; its relevance is booked as `constants`.
class Constant final : public Step {
  public:
    explicit Constant(std::vector<float> value) : value_(std::move(value)) {}
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    std::vector<float> value_;
};

} // namespace relprop
