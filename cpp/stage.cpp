// See stage.hpp.
#include "stage.hpp"

#include <algorithm>

#include "arena.hpp"

namespace relprop {
namespace {

constexpr int64_t samples_of_a_thread = 2; // in stages whose values outweigh their weights
constexpr int64_t light_weights = 8;       // of a plan, in arenas of a sample

// The steps [first, last) of a plan, of which nothing but `output` is read later.
struct Steps {
    const std::vector<Tensor> &tensors;
    const std::vector<std::unique_ptr<Step>> &steps;
    const std::vector<int> &producer;
    const std::vector<int> &sender;
    int first;
    int last;
    int output;
};

bool within(const Steps &of, int step) { return of.first <= step && step < of.last; }

bool is_read(const Steps &of, int tensor) {
    for (int s = of.first; s < of.last; ++s) {
        const auto &read = of.steps[static_cast<size_t>(s)]->inputs;
        if (std::find(read.begin(), read.end(), tensor) != read.end())
            return true;
    }
    return false;
}

// What the steps read, or hand on, that none of them writes.
std::vector<int> inputs_of(const Steps &of) {
    std::vector<int> inputs;
    for (int t = 0; t < static_cast<int>(of.tensors.size()); ++t)
        if (!within(of, of.producer[static_cast<size_t>(t)]) && (is_read(of, t) || t == of.output))
            inputs.push_back(t);
    return inputs;
}

Stage place_stage(const Steps &of) {
    const auto &[tensors, steps, producer, sender, first, last, output] = of;
    const size_t tensor_count = tensors.size();
    const auto forward_time = [&](int step) { return step; };
    const auto backward_time = [&](int step) { return 2 * last - step; };
    const int turn = last;                    // scores are read, the output's relevance is written
    const int end = backward_time(first) + 1; // the inputs' relevance is read

    std::vector<int> value_end(tensor_count, first), value_begin(tensor_count, first);
    std::vector<int> relevance_begin(tensor_count, end);
    std::vector<int> readers(tensor_count, 0);
    relevance_begin[static_cast<size_t>(output)] = turn;
    value_end[static_cast<size_t>(output)] = turn;
    for (int s = last - 1; s >= first; --s) {
        const Step &step = *steps[static_cast<size_t>(s)];
        const auto out = static_cast<size_t>(step.output);
        value_begin[out] = forward_time(s);
        value_end[out] = std::max(value_end[out], forward_time(s));
        if (step.needs_output() && !step.blocks)
            value_end[out] = std::max(value_end[out], backward_time(s));
        for (int input : step.inputs) {
            const auto in = static_cast<size_t>(input);
            value_end[in] = std::max(value_end[in], forward_time(s));
            if (step.needs_inputs() && !step.blocks)
                value_end[in] = std::max(value_end[in], backward_time(s));
            ++readers[in];
            relevance_begin[in] = std::min(relevance_begin[in], backward_time(s));
        }
    }

    // What keeps its input's value has it where that one lies.
    std::vector<size_t> kept(tensor_count);
    for (size_t t = 0; t < tensor_count; ++t)
        kept[t] = t;
    for (int s = first; s < last; ++s) {
        const Step &step = *steps[static_cast<size_t>(s)];
        if (step.keeps_value()) {
            const auto out = static_cast<size_t>(step.output);
            kept[out] = kept[static_cast<size_t>(step.inputs[0])];
            value_end[kept[out]] = std::max(value_end[kept[out]], value_end[out]);
        }
    }

    // A tensor that only a passing step reads has the relevance of that step's output.
    std::vector<size_t> home(tensor_count);
    for (size_t t = 0; t < tensor_count; ++t)
        home[t] = t;
    for (int s = last - 1; s >= first; --s) {
        const Step &step = *steps[static_cast<size_t>(s)];
        if (step.passes() && !step.blocks && readers[static_cast<size_t>(step.inputs[0])] == 1 &&
            step.inputs[0] != output)
            home[static_cast<size_t>(step.inputs[0])] = home[static_cast<size_t>(step.output)];
    }

    Stage stage;
    stage.first = first;
    stage.last = last;
    stage.output = output;
    stage.inputs = inputs_of(of);
    std::vector<size_t> held; // tensors of the stage
    for (int input : stage.inputs)
        held.push_back(static_cast<size_t>(input));
    for (int s = first; s < last; ++s)
        held.push_back(static_cast<size_t>(steps[static_cast<size_t>(s)]->output));

    std::vector<int> home_begin(tensor_count, end), home_end(tensor_count, -1);
    for (size_t t : held) {
        const size_t h = home[t];
        const int until = within(of, producer[t]) ? backward_time(producer[t]) : end;
        home_begin[h] = std::min(home_begin[h], relevance_begin[t]);
        home_end[h] = std::max(home_end[h], until);
    }

    stage.value_at.assign(tensor_count, 0);
    stage.relevance_at.assign(tensor_count, 0);
    stage.forward_scratch_at.assign(steps.size(), 0);
    stage.relevance_scratch_at.assign(steps.size(), 0);
    stage.tally_at.assign(steps.size(), 0);
    std::vector<Buffer> buffers;
    for (size_t t : held) {
        const int64_t size = tensors[t].image.size() + read_beyond;
        if (kept[t] == t)
            buffers.push_back({size, value_begin[t], value_end[t], &stage.value_at[t]});
        if (home[t] == t)
            buffers.push_back(
                {size, std::min(home_begin[t], home_end[t]), home_end[t], &stage.relevance_at[t]});
    }
    for (int s = first; s < last; ++s) {
        const auto i = static_cast<size_t>(s);
        const Step &step = *steps[i];
        if (step.forward_scratch() > 0)
            buffers.push_back({step.forward_scratch() + read_beyond, forward_time(s),
                               forward_time(s), &stage.forward_scratch_at[i]});
        if (step.relevance_scratch() > 0)
            buffers.push_back({step.relevance_scratch(), backward_time(s), backward_time(s),
                               &stage.relevance_scratch_at[i]});
        if (step.tallies() > 0)
            buffers.push_back({tally_sums * step.tallies(),
                               backward_time(within(of, sender[i]) ? sender[i] : s),
                               backward_time(s), &stage.tally_at[i]});
    }
    stage.arena = place(std::move(buffers));
    for (size_t t : held) {
        stage.value_at[t] = stage.value_at[kept[t]];
        stage.relevance_at[t] = stage.relevance_at[home[t]];
    }
    return stage;
}

// The first step that runs for several samples at once, 0 where all do. Nothing but one tensor, the
// output of the step before, may be read on both sides of it.
//
// Samples that run alone read all weights again, and find values near. What they gain by the one
// and lose by the other is summed up to every place where a single tensor leads on; the cut is
// where the sum is largest.
int first_together(const Steps &all) {
    constexpr int64_t weight = 2; // of a float of weights, in floats of values
    const auto size_of = [&](int tensor) {
        return all.tensors[static_cast<size_t>(tensor)].image.size();
    };
    // the last step that reads each tensor
    std::vector<int> last_read(all.tensors.size(), -1);
    for (int s = all.first; s < all.last; ++s)
        for (int input : all.steps[static_cast<size_t>(s)]->inputs)
            last_read[static_cast<size_t>(input)] = s;

    int cut = 0;
    int64_t sum = 0, most = 0;
    for (int s = all.first; s + 1 < all.last; ++s) {
        const Step &step = *all.steps[static_cast<size_t>(s)];
        sum += size_of(step.output) - weight * step.weights();
        for (int input : step.inputs)
            sum += size_of(input);
        bool alone = true;
        for (size_t t = 0; alone && t < all.tensors.size(); ++t) {
            const int tensor = static_cast<int>(t);
            const bool leads_on = last_read[t] > s || tensor == all.output;
            alone =
                all.producer[t] > s || !leads_on || (tensor == step.output && tensor != all.output);
        }
        if (alone && sum > most) {
            most = sum;
            cut = s + 1;
        }
    }
    return cut;
}

} // namespace

std::vector<Stage> stages_of(const std::vector<Tensor> &tensors,
                             const std::vector<std::unique_ptr<Step>> &steps,
                             const std::vector<int> &producer, const std::vector<int> &sender,
                             int output, bool cuts) {
    const int last = static_cast<int>(steps.size());
    if (!cuts)
        return {place_stage({tensors, steps, producer, sender, 0, last, output})};
    const int cut = first_together({tensors, steps, producer, sender, 0, last, output});
    std::vector<Stage> stages;
    if (cut > 0) {
        const int between = steps[static_cast<size_t>(cut - 1)]->output;
        stages.push_back(place_stage({tensors, steps, producer, sender, 0, cut, between}));
        stages.back().at_once = 1;
    }
    stages.push_back(place_stage({tensors, steps, producer, sender, cut, last, output}));
    int64_t weights = 0, values = 0;
    for (const auto &step : steps)
        weights += step->weights();
    for (const Stage &stage : stages)
        values += stage.arena;
    if (weights <= light_weights * values)
        stages.back().at_once = samples_of_a_thread;
    return stages;
}

} // namespace relprop
