// Layers that are linear with constant weights (average pooling, sums of branches, batch norm) and
// so share relevance in proportion to what each input brings: R_i = c_i R / stab(sum of c).
#pragma once

#include "plan.hpp"

namespace relprop {

class Proportional : public Step {
  public:
    Proportional(const Kernels &kernels, Image image, float epsilon)
        : image_(image), epsilon_(epsilon), chunks_(kernels.chunks(1, image.channels)) {}

    bool needs_inputs() const override { return true; }
    bool needs_output() const override { return true; }
    int64_t absorbed_pairs() const override { return image_.pixels() * chunks_; }

  protected:
    // Turns the output's relevance into s = R / stab(z), books what is absorbed, and returns s.
    // z holds the sums; bias, per channel, is the part of them that no input brings.
    const float *divide(const Run &run, const float *z, const float *bias = nullptr) const {
        Message m;
        m.rule.epsilon = epsilon_;
        m.r = run.relevance(output);
        m.z = z;
        m.bias = bias;
        m.absorbed = run.absorbed();
        m.chunks = chunks_;
        run.kernels.message(m, run.n * image_.pixels(), image_.channels, run.stream);
        run.book_absorbed();
        return m.r;
    }
    int64_t count(const Run &run) const { return run.n * image_.size(); }

    Image image_; // of the output

  private:
    float epsilon_;
    int64_t chunks_;
};

} // namespace relprop
