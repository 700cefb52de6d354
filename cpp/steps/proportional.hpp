// Layers that are linear with constant weights (average pooling, sums of branches, batch norm) and
// so share relevance in proportion to what each input brings: R_i = c_i R / stab(sum of c). Without
// an epsilon they hand down the gradient: R_i = w_i R.
#pragma once

#include <optional>
#include <vector>

#include "plan.hpp"

namespace relprop {

class Proportional : public Step {
  public:
    Proportional(const Kernels &kernels, Image image, std::optional<float> epsilon)
        : image_(image), epsilon_(epsilon), chunks_(kernels.chunks(1, image.channels)) {}

    bool needs_inputs() const override { return !gradient(); }
    bool needs_output() const override { return !gradient(); }
    int64_t tallies() const override { return gradient() ? 0 : image_.pixels() * chunks_; }

  protected:
    bool gradient() const { return !epsilon_; }
    // What shares are in proportion to beside the weights: nothing, under the gradient.
    const float *weighed(const Run &run) const {
        return gradient() ? nullptr : run.value(inputs[0]);
    }
    // Turns the output's relevance into s = R / stab(z), tells the ledger, and returns s; the
    // relevance itself under the gradient. z holds the sums; bias, per channel, is the part of them
    // that no input brings; branches take their share at once.
    const float *divide(const Run &run, const float *z, const float *bias = nullptr,
                        const std::vector<Branch> &branches = {}) const {
        if (gradient())
            return run.relevance(output);
        Message m = message_of(run, z, bias);
        m.arrived = run.arrives();
        m.branches = branches.data();
        m.branch_count = static_cast<int>(branches.size());
        if (!m.arrived || !branches.empty())
            run.kernels.message(m, run.n * image_.pixels(), image_.channels, run.stream);
        run.book_tally();
        return m.r;
    }
    Message message_of(const Run &run, const float *z, const float *bias = nullptr) const {
        Message m;
        m.rule.epsilon = *epsilon_;
        m.r = run.relevance(output);
        m.z = z;
        m.bias = bias;
        m.tally = run.tally();
        m.chunks = chunks_;
        return m;
    }
    int64_t count(const Run &run) const { return run.n * image_.size(); }

    Image image_; // of the output

  private:
    std::optional<float> epsilon_;
    int64_t chunks_;
};

} // namespace relprop
