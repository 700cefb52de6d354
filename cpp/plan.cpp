// The steps of a Plan, and what they see of a run. What runs them is plan_run.cpp.
#include "plan.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "device_run.hpp"
#include "fast_paths.hpp"
#include "stage.hpp"

namespace relprop {

// ---- what a step sees --------------------------------------------------------------------------

float *Run::value(int tensor) const {
    return arena + stage.value_at[static_cast<size_t>(tensor)] * n;
}

float *Run::relevance(int tensor) const {
    return arena + stage.relevance_at[static_cast<size_t>(tensor)] * n;
}

float *Run::scratch(int64_t offset) const {
    const auto &at = backward ? stage.relevance_scratch_at : stage.forward_scratch_at;
    return arena + (at[static_cast<size_t>(step)] + offset) * n;
}

float *Run::tally() const {
    return account || totals ? arena + stage.tally_at[static_cast<size_t>(step)] * n : nullptr;
}

bool Run::adds(int slot) const {
    return plan.adds_[static_cast<size_t>(step)][static_cast<size_t>(slot)];
}

bool Run::arrives() const {
    const int sender = plan.sender_[static_cast<size_t>(step)];
    return sends && sender >= 0 && sender < stage.last;
}

std::optional<Message> Run::sent(int slot) const {
    const Step &own = *plan.steps_[static_cast<size_t>(step)];
    const auto input = static_cast<size_t>(own.inputs[static_cast<size_t>(slot)]);
    const int receiver = plan.receiver_[input];
    if (!sends || receiver < stage.first || plan.sender_[static_cast<size_t>(receiver)] != step)
        return std::nullopt;
    Run of = *this;
    of.step = receiver;
    return plan.steps_[static_cast<size_t>(receiver)]->message(of);
}

void Run::book_tally() const {
    if (tally())
        kernels.sum_tallies({n, plan.steps_[static_cast<size_t>(step)]->tallies(), tally(), account,
                             account_stride, totals, totals_stride, scratch_of_totals},
                            stream);
}

void Run::book(Account to, const float *values, int64_t size, const int32_t *places,
               int64_t count) const {
    if (account)
        kernels.book({n, size, values, account + static_cast<int64_t>(to), account_stride,
                      scratch_of_totals},
                     places, count, stream);
}

void throw_not_finite(const char *what, int64_t sample, int64_t element) {
    throw std::domain_error(std::string("the ") + what + " is not finite for sample " +
                            std::to_string(sample) + " (element " + std::to_string(element) + ").");
}

// ---- building ----------------------------------------------------------------------------------

Plan::Plan(const Kernels &kernels) : kernels_(kernels) {}
Plan::~Plan() = default;

int Plan::add_tensor(Image image, bool channels_first) {
    if (finished())
        throw std::logic_error("the plan is finished.");
    tensors_.push_back({image, channels_first});
    producer_.push_back(-1);
    return static_cast<int>(tensors_.size()) - 1;
}

int Plan::add_input(Image image, bool channels_first) {
    inputs_.push_back(add_tensor(image, channels_first));
    return inputs_.back();
}

int Plan::add_step(std::unique_ptr<Step> step, std::vector<int> inputs, Tensor output,
                   bool blocks) {
    for (int input : inputs)
        if (input < 0 || input >= static_cast<int>(tensors_.size()))
            throw std::invalid_argument("inputs must name tensors of the plan, not " +
                                        std::to_string(input) + ".");
    step->inputs = std::move(inputs);
    step->blocks = blocks;
    step->output = add_tensor(output.image, output.channels_first);
    producer_.back() = static_cast<int>(steps_.size());
    steps_.push_back(std::move(step));
    return steps_.back()->output;
}

void Plan::finish(int output) {
    if (output < 0 || output >= static_cast<int>(tensors_.size()))
        throw std::invalid_argument("output must name a tensor of the plan.");
    std::vector<int> readers(tensors_.size(), 0);
    adds_.resize(steps_.size());
    for (size_t s = steps_.size(); s-- > 0;)
        for (int input : steps_[s]->inputs) {
            int &read = readers[static_cast<size_t>(input)];
            adds_[s].push_back(read > 0 || input == output);
            ++read;
        }
    for (size_t t = 0; t < tensors_.size(); ++t)
        if (readers[t] == 0 && static_cast<int>(t) != output)
            throw std::invalid_argument("every tensor but the output must be read; " +
                                        std::to_string(t) + " is not.");
    if (kernels_.device) {
        for (const Tensor &tensor : tensors_)
            scratch_of_totals_ = std::max(scratch_of_totals_, totals_scratch(tensor.image.size()));
        for (const auto &step : steps_) {
            scratch_of_totals_ = std::max(scratch_of_totals_, tallies_scratch(step->tallies()));
            scratch_of_products_ = std::max(scratch_of_products_, step->product_scratch(kernels_));
        }
    }
    find_messages(output);
    stages_ = stages_of(tensors_, steps_, producer_, sender_, output, kernels_.device == nullptr);
    output_ = output;
}

// Finds whose relevance arrives as a message: who reads a step's output first completes it.
void Plan::find_messages(int output) {
    sender_.assign(steps_.size(), -1);
    receiver_.assign(tensors_.size(), -1);
    if (goes_without(FastPath::messages))
        return;
    std::vector<int> first(tensors_.size(), -1); // reader
    for (size_t s = steps_.size(); s-- > 0;)
        for (int input : steps_[s]->inputs)
            first[static_cast<size_t>(input)] = static_cast<int>(s);
    for (size_t s = 0; s < steps_.size(); ++s) {
        const Step &step = *steps_[s];
        const auto tensor = static_cast<size_t>(step.output);
        if (step.output == output || !step.receives() || step.blocks)
            continue;
        const Step &reader = *steps_[static_cast<size_t>(first[tensor])];
        const auto reads = std::count(reader.inputs.begin(), reader.inputs.end(), step.output);
        if (reader.blocks || !reader.sends() || reads != 1)
            continue;
        sender_[s] = first[tensor];
        receiver_[tensor] = static_cast<int>(s);
    }
}

// Which of the user's inputs a tensor is, or -1.
int64_t Plan::input_index(int tensor) const {
    const auto found = std::find(inputs_.begin(), inputs_.end(), tensor);
    return found == inputs_.end() ? -1 : found - inputs_.begin();
}

int64_t Plan::arena_per_sample() const {
    int64_t floats = 0;
    for (const Stage &stage : stages_)
        floats += stage.arena;
    return floats;
}

} // namespace relprop
