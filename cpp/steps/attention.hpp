// What attention is made of: softmax, and matrix products of two branches.
#pragma once

#include <array>
#include <optional>

#include "steps/proportional.hpp"

namespace relprop {

// Softmax of rows: by its first-order Taylor terms, or the gradient.
class Softmax final : public Step {
  public:
    Softmax(int64_t rows, int width, bool taylor) : rows_(rows), width_(width), taylor_(taylor) {}
    bool needs_inputs() const override { return taylor_; }
    bool needs_output() const override { return true; }
    int64_t relevance_scratch() const override { return taylor_ ? rows_ * width_ : 0; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    int64_t rows_; // of a sample
    int width_;
    bool taylor_;
};

// The geometry of a product of matrices, `count` of them in a sample; the second factor comes as
// (columns, depth) where `turned`.
struct Matrices {
    int64_t count;
    int rows, depth, columns;
    bool turned;
};

// Each factor takes its share of the relevance, in proportion to the terms of every sum; or without
// shares the gradient.
class MatMul final : public Proportional {
  public:
    MatMul(const Kernels &kernels, const Matrices &of, std::optional<std::array<float, 2>> shares,
           float epsilon);
    bool needs_inputs() const override { return true; }
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    Matrices of_;
    std::optional<std::array<float, 2>> shares_;
};

} // namespace relprop
