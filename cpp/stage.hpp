// A stage: consecutive steps of a Plan that run for as many samples at once, forward and back, with
// buffers of their own. Where values outweigh weights every sample runs alone, and what a step
// writes is still near when the next one reads it; where weights do, samples share them.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.hpp"

namespace relprop {

// Cuts a plan's steps into stages and places all that they hold, by liveness over both passes.
// `producer` has the step that writes each tensor, or -1 for an input; `sender` the step that may
// send each step its message, or -1. Where not `cuts`, all is one stage for all samples.
std::vector<Stage> stages_of(const std::vector<Tensor> &tensors,
                             const std::vector<std::unique_ptr<Step>> &steps,
                             const std::vector<int> &producer, const std::vector<int> &sender,
                             int output, bool cuts);

} // namespace relprop
