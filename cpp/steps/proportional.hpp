// Layers that are linear with constant weights (average pooling, sums of branches, batch norm) and
// so share relevance in proportion to what each input brings: R_i = c_i R / stab(sum of c). Without
// an epsilon nothing is divided: they hand down the gradient, R_i = w_i R, or pass relevance on.
#pragma once

#include <optional>
#include <vector>

#include "plan.hpp"

namespace relprop {

class Proportional : public Step {
  public:
    Proportional(const Kernels &kernels, Image image, std::optional<float> epsilon)
        : image_(image), epsilon_(epsilon), chunks_(kernels.chunks(1, image.channels)) {}

    bool needs_inputs() const override { return shares(); }
    bool needs_output() const override { return shares(); }
    int64_t tallies() const override { return shares() ? image_.pixels() * chunks_ : 0; }

  protected:
    bool shares() const { return epsilon_.has_value(); }
    // What shares are in proportion to beside the weights: nothing, without an epsilon.
    const float *weighed(const Run &run) const { return shares() ? run.value(inputs[0]) : nullptr; }
    // Turns the output's relevance into s = R / stab(z), tells the ledger, and returns s; the
    // relevance itself without an epsilon. z holds the sums; bias, per channel, is the part of them
    // that no input brings; branches take their share at once.
    const float *divide(const Run &run, const float *z, const float *bias = nullptr,
                        const std::vector<Branch> &branches = {}) const {
        if (!shares())
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
