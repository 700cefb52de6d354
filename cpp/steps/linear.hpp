// Convolutions, transposed convolutions and dense layers under every rule: two products and an
// epilogue (docs/rules.md).
#pragma once

#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "memory.hpp"
#include "packed.hpp"
#include "plan.hpp"
#include "steps/tap_grids.hpp"

namespace relprop {

// What is known of the layer's place in the network (python/relprop/signs.py works it out).
struct Surroundings {
    bool input_nonnegative = false;
    bool supported = false;        // no relevance arrives where the pre-activation is <= 0
    float low = 0.0f, high = 0.0f; // clamp fused into the output, where low < high
};

class Linear final : public Step {
  public:
    // weights [conv.to.channels][conv.from.channels / groups][kernel]; bias: one for each output
    // channel, or empty; low, high: one for each input channel under z_box. A
    // transposed layer is the adjoint of conv: its input is conv.to. Throws std::invalid_argument
    // where sizes disagree. On the host some layers read the weights where they lie as long as they
    // live, so that `owner` must keep them, unchanged; others are done with both at once.
    Linear(const Kernels &kernels, const Conv &conv, bool transposed,
           std::span<const float> weights, std::shared_ptr<const void> owner,
           std::vector<float> bias, const Rule &rule, const Surroundings &around,
           std::vector<float> low, std::vector<float> high);

    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;
    bool needs_inputs() const override;
    bool needs_output() const override;
    bool receives() const override;
    bool sends() const override;
    Message message(const Run &run) const override { return message_of(run); }
    int64_t forward_scratch() const override { return padded_size_; }
    int64_t relevance_scratch() const override { return scratch_; }
    int64_t tallies() const override;
    int64_t product_scratch(const Kernels &) const override;
    int64_t weights() const override;
    bool reads_in_place() const { return owner_ != nullptr; } // the weights that it was given

  private:
    static constexpr int versions = 5;

    // A grid and its taps, where the kernels read them.
    struct Taps {
        TapGrid grid;
        Resident<Pixel> taps;
        TapGrid read() const;
    };
    // A phase with the weights packed for it, in the versions that are needed.
    struct Packed {
        Taps taps;
        int run; // floats read per tap and group
        PackedWeights weights[versions];
        int winograd[versions] = {}; // outputs per tile, 0: the plain product
    };
    // One term of a product: a source and the version of the weights it meets.
    struct Term {
        const float *data;
        Version version;
    };

    Taps laid(const Kernels &kernels, const Phase &phase) const;
    Packed pack(const Kernels &kernels, std::span<const float> weights, const Fingerprint &of,
                const Phase &phase, bool of_adjoint, const std::vector<Version> &needed) const;
    int winograd_outputs(const Kernels &kernels, const Phase &phase, int run,
                         Version version) const;
    void place_contributions(const Kernels &kernels, std::span<const float> weights,
                             const Phase &phase);
    Phase merged(const Phase &phase) const;
    std::vector<Version> forward_versions() const;
    std::vector<Version> backward_versions() const;
    void plan_scratch();
    std::unique_ptr<Memory> square_sums(const Kernels &kernels) const;
    Fold fold_of() const; // but for the batch and what it reads and writes
    Packed pack_all_taps(const Kernels &kernels, std::span<const float> weights,
                         const Fingerprint &of, const std::vector<Version> &needed) const;

    bool distributes() const;     // what the bias absorbs
    bool leaves_bias_out() const; // of the sums that the message reads
    bool splits() const;          // the rule treats positive and negative contributions apart
    bool needs_negative_part() const;
    // both messages go back in one product
    bool selects(const Kernels &kernels, const std::vector<Phase> &back) const;
    bool takes_difference() const; // Z- is what z leaves of Z+
    bool treats_scarce() const;    // and neurons that it leaves little are treated apart
    int winograd_backward(Version version) const;
    const float *source(const Run &run, Transform transform, const float *x,
                        int64_t scratch_at) const;
    const float *distance(const Run &run, const Resident<float> &bound, int64_t scratch_at) const;
    Product product_of(const Packed &packed, int64_t n, std::initializer_list<Term> terms) const;
    void run_product(const Kernels &kernels, const Product &product, int winograd,
                     Stream stream) const;
    void forward_product(const Run &run, std::initializer_list<Term> terms,
                         const Epilogue &epilogue) const;
    void backward_product(const Run &run, std::initializer_list<Term> terms, const float *x,
                          bool add, Part part = Part::all, bool by_sign = false,
                          bool completes = true) const;
    void fold(const Run &run, const Product &of) const;
    void spread(const Run &run, const float *share, bool add) const;
    Message message_of(const Run &run) const;
    Contributions contributions_of(const Run &run) const;

    void relevance_single(const Run &run) const;
    void relevance_split(const Run &run) const;
    void relevance_z_box(const Run &run) const;

    Conv conv_;
    bool transposed_;
    Image in_, out_;
    Resident<float> bias_;
    Rule rule_;
    Surroundings around_;
    Resident<float> low_, high_;
    bool winograd_wanted_ = wanted_winograd() != 0; // when the layer is made
    bool depthwise_ = false;
    bool dense_ = false;   // of single pixels, whose weights the host's kernels read in place
    bool selects_ = false; // both messages go back in one product
    bool folds_ = false;   // the way back is one product with all taps, see Fold
    bool merged_ = false;  // a kernel row is one run of the zero-padded image
    Resident<float> zeros_;
    int64_t chunks_ = 1; // pieces in which a row's message is computed, see Message
    std::vector<Packed> forward_, backward_;
    std::vector<Packed> all_taps_;   // the way back's, one where folds_
    std::span<const float> weights_; // where dense layers and contributions read them
    std::shared_ptr<const void> owner_;
    Taps contributions_;                   // the forward product's, none of them merged
    Resident<float> contribution_weights_; // a device's; the host reads weights_
    Resident<int64_t> contribution_taps_;  // where each tap lies among the kernel's
    Resident<float> fan_in_;               // [pixels of out]  real inputs of each neuron
    std::unique_ptr<Memory> square_sums_;  // [out] w_square's denominators
    Resident<float> message_bias_;         // the bias, or its square for w_square

    // scratch of the relevance pass, in floats per sample
    int64_t padded_size_ = 0;
    int64_t first_at_ = 0, second_at_ = 0;               // transformed inputs
    int64_t padded_first_at_ = 0, padded_second_at_ = 0; // with borders, where merged
    int64_t negative_at_ = 0, scarce_at_ = 0, share_at_ = 0, sums_at_ = 0, handed_at_ = 0;
    int64_t without_bias_at_ = 0;
    int64_t scratch_ = 0;
};

} // namespace relprop
