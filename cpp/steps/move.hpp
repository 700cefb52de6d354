// Slices, pads, reshapes, permutations and broadcasts as one step: an index table.
#pragma once

#include <vector>

#include "memory.hpp"
#include "plan.hpp"

namespace relprop {

// Per sample out[i] = in[index[i]], or `value` where index[i] is -1. Relevance that arrives at
// such places is booked as `constants`.
class Move final : public Step {
  public:
    // Throws std::invalid_argument where an index lies outside the input.
    Move(const Kernels &kernels, std::vector<int32_t> index, int64_t from_size, float value);
    void forward(const Run &run) const override;
    void relevance(const Run &run) const override;

  private:
    Gather arguments(const Run &run) const;
    Resident<int32_t> index_;
    Resident<int32_t> offsets_, reader_; // the same from the input's side, see Gather
    Resident<int32_t> filled_;           // places that hold `value`
    int64_t from_size_, to_size_;
    int width_; // floats that always move together
    float value_;
};

// The input's values where they lie, as an image of another shape: a reshape.
class View final : public Step {
  public:
    explicit View(int64_t size) : size_(size) {}
    bool passes() const override { return true; }
    bool keeps_value() const override { return true; }
    void forward(const Run &) const override {}
    void relevance(const Run &run) const override;

  private:
    int64_t size_;
};

} // namespace relprop
