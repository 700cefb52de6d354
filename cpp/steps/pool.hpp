// Max and average pooling as steps of a Plan.
#pragma once

#include "steps/proportional.hpp"

namespace relprop {

struct PoolGeometry {
    PoolAxis z, y, x;
    int channels;
    bool count_include_pad = true;
    int divisor = 0;
};

// The winner takes all, the first one on ties.
class MaxPool final : public Step {
  public:
    explicit MaxPool(const PoolGeometry &geometry) : geometry_(geometry) {}
    bool needs_inputs() const override { return true; }
    bool sends() const override { return true; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    PoolGeometry geometry_;
};

// Max pooling that shares relevance as average pooling does.
class ProportionalMaxPool final : public Proportional {
  public:
    ProportionalMaxPool(const Kernels &kernels, const PoolGeometry &geometry, float epsilon);
    bool needs_output() const override { return false; }
    int64_t relevance_scratch() const override { return image_.size(); } // window sums
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    PoolGeometry geometry_;
};

class AveragePool final : public Proportional {
  public:
    AveragePool(const Kernels &kernels, const PoolGeometry &geometry, std::optional<float> epsilon);
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    PoolGeometry geometry_;
};

} // namespace relprop
