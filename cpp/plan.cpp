// Liveness, the arena and the two passes of a Plan.
#include "plan.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <stdexcept>
#include <string>

#include "arena.hpp"
#include "parallel.hpp"

namespace relprop {
namespace {

constexpr int64_t samples_at_once = 16;    // where threads share every step
constexpr int64_t samples_of_a_thread = 2; // where they share the samples
constexpr int64_t light_weights = 8;       // in arenas of a sample

} // namespace

// ---- what a step sees --------------------------------------------------------------------------

float *Run::value(int tensor) const {
    return arena + plan.value_at_[static_cast<size_t>(tensor)] * n;
}

float *Run::relevance(int tensor) const {
    return arena + plan.relevance_at_[static_cast<size_t>(tensor)] * n;
}

float *Run::scratch(int64_t offset) const {
    const auto &at = account == nullptr ? plan.forward_scratch_at_ : plan.relevance_scratch_at_;
    return arena + (at[static_cast<size_t>(step)] + offset) * n;
}

float *Run::absorbed() const {
    return ledger ? arena + plan.absorbed_at_[static_cast<size_t>(step)] * n : nullptr;
}

bool Run::adds(int slot) const {
    return plan.adds_[static_cast<size_t>(step)][static_cast<size_t>(slot)];
}

void Run::book_absorbed() const {
    if (ledger)
        kernels.sum_absorbed(absorbed(), n,
                             plan.steps_[static_cast<size_t>(step)]->absorbed_pairs(), account,
                             account_stride, stream);
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
    const int step_count = static_cast<int>(steps_.size()),
              tensor_count = static_cast<int>(tensors_.size());
    const auto forward_time = [](int step) { return step; };
    const auto backward_time = [&](int step) { return 2 * step_count - step; };
    const int turn = step_count; // scores are read, the output's relevance is written

    std::vector<int> value_end(tensors_.size(), 0), value_begin(tensors_.size(), 0);
    std::vector<int> relevance_begin(tensors_.size(), 2 * step_count + 1);
    std::vector<int> readers(tensors_.size(), 0);
    adds_.resize(steps_.size());
    relevance_begin[static_cast<size_t>(output)] = turn;
    value_end[static_cast<size_t>(output)] = turn;
    for (int s = step_count - 1; s >= 0; --s) {
        const Step &step = *steps_[static_cast<size_t>(s)];
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
            adds_[static_cast<size_t>(s)].push_back(readers[in] > 0 || input == output);
            ++readers[in];
            relevance_begin[in] = std::min(relevance_begin[in], backward_time(s));
        }
    }
    for (int t = 0; t < tensor_count; ++t)
        if (readers[static_cast<size_t>(t)] == 0 && t != output)
            throw std::invalid_argument("every tensor but the output must be read; " +
                                        std::to_string(t) + " is not.");

    // What keeps its input's value has it where that one lies.
    std::vector<size_t> kept(tensors_.size());
    for (size_t t = 0; t < tensors_.size(); ++t)
        kept[t] = t;
    for (const auto &step : steps_)
        if (step->keeps_value()) {
            const auto out = static_cast<size_t>(step->output);
            kept[out] = kept[static_cast<size_t>(step->inputs[0])];
            value_end[kept[out]] = std::max(value_end[kept[out]], value_end[out]);
        }

    // A tensor that only a passing step reads has the relevance of that step's output.
    std::vector<int> home(tensors_.size());
    for (int t = 0; t < tensor_count; ++t)
        home[static_cast<size_t>(t)] = t;
    for (int s = step_count - 1; s >= 0; --s) {
        const Step &step = *steps_[static_cast<size_t>(s)];
        if (step.passes() && !step.blocks && readers[static_cast<size_t>(step.inputs[0])] == 1 &&
            step.inputs[0] != output)
            home[static_cast<size_t>(step.inputs[0])] = home[static_cast<size_t>(step.output)];
    }
    std::vector<int> home_begin(tensors_.size(), 2 * step_count + 1), home_end(tensors_.size(), -1);
    for (int t = 0; t < tensor_count; ++t) {
        const auto h = static_cast<size_t>(home[static_cast<size_t>(t)]);
        const int producer = producer_[static_cast<size_t>(t)];
        const int last = producer < 0 ? 2 * step_count + 1 : backward_time(producer);
        home_begin[h] = std::min(home_begin[h], relevance_begin[static_cast<size_t>(t)]);
        home_end[h] = std::max(home_end[h], last);
    }

    value_at_.assign(tensors_.size(), 0);
    relevance_at_.assign(tensors_.size(), 0);
    forward_scratch_at_.assign(steps_.size(), 0);
    relevance_scratch_at_.assign(steps_.size(), 0);
    absorbed_at_.assign(steps_.size(), 0);
    std::vector<Buffer> buffers;
    for (size_t t = 0; t < tensors_.size(); ++t) {
        const int64_t size = tensors_[t].image.size() + read_beyond;
        if (kept[t] == t)
            buffers.push_back({size, value_begin[t], value_end[t], &value_at_[t]});
        if (home[t] == static_cast<int>(t))
            buffers.push_back(
                {size, std::min(home_begin[t], home_end[t]), home_end[t], &relevance_at_[t]});
    }
    for (int s = 0; s < step_count; ++s) {
        const auto i = static_cast<size_t>(s);
        const Step &step = *steps_[i];
        if (step.forward_scratch() > 0)
            buffers.push_back({step.forward_scratch() + read_beyond, forward_time(s),
                               forward_time(s), &forward_scratch_at_[i]});
        if (step.relevance_scratch() > 0)
            buffers.push_back({step.relevance_scratch(), backward_time(s), backward_time(s),
                               &relevance_scratch_at_[i]});
        if (step.absorbed_pairs() > 0)
            buffers.push_back(
                {2 * step.absorbed_pairs(), backward_time(s), backward_time(s), &absorbed_at_[i]});
    }
    arena_ = place(std::move(buffers));
    for (size_t t = 0; t < tensors_.size(); ++t) {
        value_at_[t] = value_at_[kept[t]];
        relevance_at_[t] = relevance_at_[static_cast<size_t>(home[t])];
    }
    for (const auto &step : steps_)
        weights_ += step->weights();
    output_ = output;
}

// ---- running -----------------------------------------------------------------------------------

std::unique_ptr<Pages> Plan::take_arena(int64_t samples) const {
    constexpr int64_t slack = 256; // kernels may read a panel beyond the last value
    const int64_t floats = arena_ * samples + slack;
    {
        std::lock_guard lock(mutex_);
        for (auto it = arenas_.begin(); it != arenas_.end(); ++it)
            if ((*it)->floats() >= floats) {
                auto arena = std::move(*it);
                arenas_.erase(it);
                return arena;
            }
        arenas_.clear(); // too small, and a run needs a larger one
    }
    return std::make_unique<Pages>(floats);
}

void Plan::give_back(std::unique_ptr<Pages> arena) const {
    std::lock_guard lock(mutex_);
    arenas_.push_back(std::move(arena));
}

// Threads share a batch by its samples, each with its own all the way, where their values rather
// than the weights are what must come from memory: what one step writes is near for the next.
// Else they share every step.
bool Plan::shares_samples(const Request &request) const {
    return weights_ <= light_weights * arena_ && !request.seconds; // a stopwatch is for one thread
}

void Plan::run(const Request &request) const {
    if (!finished())
        throw std::logic_error("the plan is not finished.");
    int64_t first = 0;
    const auto begin = [&] {
        if (first > 0 && request.between_chunks)
            request.between_chunks();
    };
    const int64_t all = threads();
    while (shares_samples(request) && request.n - first >= all) {
        begin();
        const int64_t each = std::min((request.n - first) / all, samples_of_a_thread);
        std::vector<std::exception_ptr> errors(static_cast<size_t>(all));
        parallel_for(all, [&](int64_t task) {
            try {
                auto arena = take_arena(each);
                run_chunk(request, first + task * each, each, arena->data());
                give_back(std::move(arena));
            } catch (...) {
                errors[static_cast<size_t>(task)] = std::current_exception();
            }
        });
        for (const auto &error : errors)
            if (error)
                std::rethrow_exception(error);
        first += all * each;
    }
    while (first < request.n) {
        begin();
        const int64_t n = std::min(request.n - first, samples_at_once);
        auto arena = take_arena(n);
        run_chunk(request, first, n, arena->data());
        give_back(std::move(arena));
        first += n;
    }
}

namespace {

void to_user(const Kernels &kernels, const Tensor &tensor, const float *from, float *to, int64_t n,
             Stream stream) {
    if (tensor.channels_first)
        kernels.to_channels_first(from, to, n, tensor.image, stream);
    else
        kernels.carry(from, 1.0f, to, n * tensor.image.size(), false, stream);
}

void from_user(const Kernels &kernels, const Tensor &tensor, const float *from, float *to,
               int64_t n, Stream stream) {
    if (tensor.channels_first)
        kernels.to_channels_last(from, to, n, tensor.image, stream);
    else
        kernels.carry(from, 1.0f, to, n * tensor.image.size(), false, stream);
}

// The output's relevance in the user's order, from scores [n, outputs] and the request.
std::vector<float> initial_relevance(const Request &request, int64_t first, int64_t n,
                                     const float *scores, int64_t outputs) {
    std::vector<float> relevance(static_cast<size_t>(n * outputs), 0.0f);
    const bool one = request.initial == Initial::one;
    if (request.mask != nullptr) {
        const uint8_t *mask = request.mask + first * outputs;
        for (int64_t i = 0; i < n * outputs; ++i)
            if (mask[i])
                relevance[static_cast<size_t>(i)] = one ? 1.0f : scores[i];
        return relevance;
    }
    for (int64_t i = 0; i < n; ++i) {
        const float *row = scores + i * outputs;
        int64_t &target = request.targets[first + i];
        if (request.argmax)
            target = std::max_element(row, row + outputs) - row;
        if (target < 0 || target >= outputs)
            throw std::out_of_range("target must be in [0, " + std::to_string(outputs) + "), not " +
                                    std::to_string(target) + ".");
        relevance[static_cast<size_t>(i * outputs + target)] = one ? 1.0f : row[target];
    }
    return relevance;
}

void check_finite(const float *values, int64_t n, int64_t size, int64_t first, const char *what) {
    for (int64_t i = 0; i < n * size; ++i)
        if (!std::isfinite(values[i]))
            throw std::domain_error(std::string("the ") + what + " is not finite for sample " +
                                    std::to_string(first + i / size) + " (element " +
                                    std::to_string(i % size) + ").");
}

// Adds the time of its life to a step's, where the request asks for it.
class Stopwatch {
  public:
    Stopwatch(const Request &request, int64_t step, bool of_relevance)
        : seconds_(request.seconds ? request.seconds + 2 * step + of_relevance : nullptr) {}
    ~Stopwatch() {
        if (seconds_)
            *seconds_ += std::chrono::duration<double>(Clock::now() - begun_).count();
    }
    Stopwatch(const Stopwatch &) = delete;
    Stopwatch &operator=(const Stopwatch &) = delete;

  private:
    using Clock = std::chrono::steady_clock;
    double *seconds_;
    Clock::time_point begun_ = Clock::now();
};

} // namespace

void Plan::copy_out(const Run &run, const Request &request, int64_t first, int tensor_index,
                    bool of_relevance) const {
    for (const Copy &copy : request.copies)
        if (copy.tensor == tensor_index && copy.of_relevance == of_relevance) {
            const Tensor &of = tensor(tensor_index);
            to_user(kernels_, of,
                    of_relevance ? run.relevance(tensor_index) : run.value(tensor_index),
                    copy.out + first * of.image.size(), run.n, run.stream);
        }
}

void Plan::run_chunk(const Request &request, int64_t first, int64_t n, float *arena) const {
    const int64_t step_count = steps();
    Run run{*this, kernels_, nullptr, n, arena, request.absorbed != nullptr};

    const Tensor &out = tensor(output_);
    for (size_t i = 0; i < inputs_.size(); ++i) {
        const Tensor &in = tensor(inputs_[i]);
        from_user(kernels_, in, request.inputs[i] + first * in.image.size(), run.value(inputs_[i]),
                  n, run.stream);
        copy_out(run, request, first, inputs_[i], false);
    }
    for (int64_t s = 0; s < step_count; ++s) {
        run.step = static_cast<int>(s);
        const Step &step = *steps_[static_cast<size_t>(s)];
        {
            Stopwatch watch(request, s, false);
            step.forward(run);
        }
        copy_out(run, request, first, step.output, false);
    }

    const int64_t outputs = out.image.size();
    float *scores = request.scores + first * outputs;
    to_user(kernels_, out, run.value(output_), scores, n, run.stream);
    check_finite(scores, n, outputs, first, "output");
    if (request.relevance.empty())
        return;

    std::vector<float> chosen;
    const float *initial = request.given + (request.given ? first * outputs : 0);
    if (request.initial != Initial::given) {
        chosen = initial_relevance(request, first, n, scores, outputs);
        initial = chosen.data();
    }
    from_user(kernels_, out, initial, run.relevance(output_), n, run.stream);

    const auto weigh = [&](int tensor_index) {
        if (request.totals)
            kernels_.totals(run.relevance(tensor_index), n, tensor(tensor_index).image.size(),
                            request.totals + (first * tensors() + tensor_index) * 2, tensors() * 2,
                            run.stream);
        copy_out(run, request, first, tensor_index, true);
    };
    std::vector<double> unused;
    run.account_stride = step_count * 4;
    if (!run.ledger)
        unused.resize(static_cast<size_t>(n * run.account_stride));
    for (int64_t s = step_count - 1; s >= 0; --s) {
        run.step = static_cast<int>(s);
        run.account =
            (run.ledger ? request.absorbed + first * run.account_stride : unused.data()) + s * 4;
        const Step &step = *steps_[static_cast<size_t>(s)];
        weigh(step.output);
        if (!step.blocks) {
            Stopwatch watch(request, s, true);
            step.relevance(run);
            continue;
        }
        std::vector<double> ended(static_cast<size_t>(2 * n));
        kernels_.totals(run.relevance(step.output), n, tensor(step.output).image.size(),
                        ended.data(), 2, run.stream);
        for (int64_t i = 0; i < n; ++i)
            run.account[i * run.account_stride + 3] += ended[static_cast<size_t>(2 * i)];
        for (size_t slot = 0; slot < step.inputs.size(); ++slot)
            if (!run.adds(static_cast<int>(slot)))
                kernels_.fill(0.0f, run.relevance(step.inputs[slot]),
                              n * tensor(step.inputs[slot]).image.size(), run.stream);
    }
    for (size_t i = 0; i < inputs_.size(); ++i) {
        weigh(inputs_[i]);
        const Tensor &in = tensor(inputs_[i]);
        float *relevance = request.relevance[i] + first * in.image.size();
        to_user(kernels_, in, run.relevance(inputs_[i]), relevance, n, run.stream);
        check_finite(relevance, n, in.image.size(), first, "relevance");
    }
}

} // namespace relprop
