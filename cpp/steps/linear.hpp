// Convolution and dense layers under every rule: two products and an epilogue (docs/rules.md).
#pragma once

#include <initializer_list>
#include <vector>

#include "plan.hpp"

namespace relprop {

// Geometry of a convolution; a dense layer is one on 1 x 1 images.
struct Conv2d {
    Image from, to;
    int kernel_y = 1, kernel_x = 1;
    int stride_y = 1, stride_x = 1;
    int top = 0, bottom = 0, left = 0, right = 0;
    int dilation_y = 1, dilation_x = 1;
    int groups = 1;
};

// What is known of the layer's place in the network (python/relprop/signs.py works it out).
struct Surroundings {
    bool input_nonnegative = false;
    bool supported = false;        // no relevance arrives where the pre-activation is <= 0
    float low = 0.0f, high = 0.0f; // clamp fused into the output, where low < high
};

class Linear final : public Step {
  public:
    // weights [out][in / groups][kernel_y][kernel_x]; bias [out] or empty; low, high [in]: z_box.
    // Throws std::invalid_argument where sizes disagree.
    Linear(const Kernels &kernels, const Conv2d &conv, const std::vector<float> &weights,
           std::vector<float> bias, const Rule &rule, const Surroundings &around,
           std::vector<float> low, std::vector<float> high);

    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;
    bool needs_inputs() const override;
    bool needs_output() const override;
    int64_t forward_scratch() const override { return padded_size_; }
    int64_t relevance_scratch() const override { return scratch_; }
    int64_t absorbed_pairs() const override;

  private:
    // A version of the weights: w, w+, w-, w scaled for gamma, w^2.
    enum class Version { plain, positive, negative, gamma, square };
    static constexpr int versions = 5;

    // The taps of one product with the weights packed for them, in the versions that are needed.
    struct Packed {
        std::vector<Tap> taps;
        std::vector<float> weights[versions];
    };
    // The outputs that a stride phase of the input feeds.
    struct Phase {
        Packed packed;
        int y, x; // of the first input pixel
    };
    // One term of a product: a source and the version of the weights it meets.
    struct Term {
        const float *data;
        Version version;
    };

    float version_of(Version version, float w) const;
    void pack(const Kernels &kernels, const std::vector<float> &weights);
    void plan_scratch();
    std::vector<float> square_sums(const Kernels &kernels) const;

    bool splits() const; // the rule treats positive and negative contributions apart
    bool needs_negative_part() const;
    const float *padded(const Run &run, const float *x, int64_t scratch_at) const;
    const float *transformed(const Run &run, Transform transform, const std::vector<float> &minus,
                             int64_t scratch_at) const;
    Product forward_geometry(int64_t n) const;
    void forward_product(const Run &run, std::initializer_list<Term> terms,
                         const Epilogue &epilogue, int64_t padded_at) const;
    void backward_product(const Run &run, std::initializer_list<Term> terms, const float *x,
                          bool add) const;
    void spread(const Run &run, const float *share, bool add) const;
    Message message_of(const Run &run) const;

    void relevance_single(const Run &run) const;
    void relevance_split(const Run &run) const;
    void relevance_z_box(const Run &run) const;

    Conv2d conv_;
    std::vector<float> bias_;
    Rule rule_;
    Surroundings around_;
    std::vector<float> low_, high_;
    bool depthwise_ = false;
    bool merged_ = false; // a kernel row is one run of the zero-padded image
    std::vector<float> zeros_;
    int64_t chunks_ = 1; // pieces in which a row's message is computed, see Message
    Packed forward_;
    std::vector<Phase> backward_;
    std::vector<float> fan_in_;       // [to.height * to.width] real inputs of each neuron
    std::vector<float> square_sums_;  // [to] w_square's denominators
    std::vector<float> message_bias_; // the bias, or its square for w_square

    // scratch of the relevance pass, in floats per sample
    int64_t padded_size_ = 0;
    int64_t first_at_ = 0, second_at_ = 0;               // transformed inputs
    int64_t padded_first_at_ = 0, padded_second_at_ = 0; // with borders, where merged
    int64_t negative_at_ = 0, share_at_ = 0, sums_at_ = 0;
    int64_t scratch_ = 0;
};

} // namespace relprop
