// The two passes of a Plan, stage by stage.
#include <algorithm>
#include <exception>
#include <limits>
#include <stdexcept>
#include <string>

#include "device_run.hpp"
#include "parallel.hpp"
#include "plan.hpp"
#include "stopwatch.hpp"

namespace relprop {
namespace {

constexpr int64_t samples_at_once = 2; // of a stage for all, unless there are more threads
constexpr int64_t slack = 256;         // floats: kernels may read a panel beyond the last value
constexpr int64_t doubles = sizeof(double) / sizeof(float);

} // namespace

std::unique_ptr<Memory> Plan::take_arena(int64_t floats) const {
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
    return std::make_unique<Memory>(kernels_, floats);
}

void Plan::give_back(std::unique_ptr<Memory> arena) const {
    std::lock_guard lock(mutex_);
    arenas_.push_back(std::move(arena));
}

int64_t Plan::arena_floats(int64_t n) const {
    return n * (arena_per_sample() + static_cast<int64_t>(stages_.size()) * slack) +
           n * scratch_of_totals_ * doubles + scratch_of_products_;
}

namespace {

void check_targets(const Request &request, int64_t outputs) {
    if (request.relevance.empty() || request.initial == Initial::given || request.mask ||
        request.argmax)
        return;
    for (int64_t i = 0; i < request.n; ++i)
        if (const int64_t target = request.targets[i]; target < 0 || target >= outputs)
            throw std::out_of_range("target must be in [0, " + std::to_string(outputs) + "), not " +
                                    std::to_string(target) + ".");
}

} // namespace

void Plan::run(const Request &request) const {
    if (!finished())
        throw std::logic_error("the plan is not finished.");
    check_targets(request, tensor(output_).image.size());
    if (kernels_.device)
        return run_on_device(*this, request);
    const int64_t all = threads(), of_a_thread = stages_.back().at_once;
    const int64_t most =
        of_a_thread > 0 ? of_a_thread : std::max<int64_t>(samples_at_once / all, 1);
    for (int64_t first = 0, n; first < request.n; first += n) {
        if (first > 0 && request.between_chunks)
            request.between_chunks();
        n = request.n - first;
        if (n >= all) // as many for each thread
            n = std::min(n / all, most) * all;
        auto arena = take_arena(arena_floats(n));
        run_chunk(request, first, n, *arena, nullptr);
        give_back(std::move(arena));
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

// Where `bad` is, a device says there later what it found.
void check_finite(const Kernels &kernels, const float *values, int64_t n, int64_t size,
                  int64_t first, const char *what, int64_t *bad, Stream stream) {
    if (bad)
        return kernels.check_finite(values, n * size, bad, stream);
    int64_t found;
    kernels.check_finite(values, n * size, &found, stream);
    if (found >= 0)
        throw_not_finite(what, first + found / size, found % size);
}

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

// Samples [first, first + n) of a request, and where each stage's arenas lie.
struct Plan::Chunk {
    const Request &request;
    Stopwatch &watch; // for one thread
    int64_t first, n;
    int64_t threads;             // as many as there were when it began
    std::vector<float *> arenas; // [stages]
    int64_t *bad;                // [1 + inputs]  what a device finds not finite; null on the host
    bool sends = false;          // see Run
    double *scratch_of_totals = nullptr;
    float *scratch_of_products = nullptr;

    // A chunk that is less than two parts for each thread is cut evenly.
    int64_t most(const Stage &of) const {
        return of.at_once > 0 ? std::max<int64_t>(std::min(of.at_once, n / threads), 1) : n;
    }
};

// Some samples of a chunk that run at once.
struct Plan::Part {
    Run run;
    int64_t first; // in the request
};

// What sample `at` of the chunk is part of.
Plan::Part Plan::part_of(const Chunk &chunk, size_t stage, int64_t at) const {
    const Stage &of = stages_[stage];
    const int64_t most = chunk.most(of), first = at / most * most;
    return {{*this, of, kernels_, chunk.request.stream, std::min(most, chunk.n - first),
             chunk.arenas[stage] + first * (of.arena + slack), chunk.scratch_of_totals,
             chunk.scratch_of_products, 0, false, chunk.sends},
            chunk.first + first};
}

// Calls body(part) for all of a stage. Threads share the parts where there is one for each of them,
// every step else.
template <class Body>
void Plan::each_part(const Chunk &chunk, size_t stage, const Body &body) const {
    const int64_t most = chunk.most(stages_[stage]);
    const int64_t parts = (chunk.n + most - 1) / most;
    std::vector<std::exception_ptr> errors(static_cast<size_t>(parts));
    const auto call = [&](int64_t i) {
        try {
            Part part = part_of(chunk, stage, i * most);
            body(part);
        } catch (...) {
            errors[static_cast<size_t>(i)] = std::current_exception();
        }
    };
    if (parts >= chunk.threads && !chunk.request.seconds)
        parallel_for(parts, call);
    else
        for (int64_t i = 0; i < parts; ++i)
            call(i);
    for (const auto &error : errors)
        if (error)
            std::rethrow_exception(error);
}

void Plan::run_chunk(const Request &request, int64_t first, int64_t n, Memory &memory,
                     int64_t *bad) const {
    Stopwatch watch(kernels_.device, request.stream, request.seconds);
    Chunk chunk{request, watch, first, n, kernels_.device ? 1 : threads(), {}, bad};
    // who asks for relevance between the steps is not to find messages there
    chunk.sends = std::none_of(request.copies.begin(), request.copies.end(),
                               [](const Copy &copy) { return copy.of_relevance; });
    float *at = memory.data();
#ifdef RELPROP_POISON
    kernels_.fill(std::numeric_limits<float>::quiet_NaN(), at, memory.floats(), request.stream);
#endif
    for (const Stage &stage : stages_) {
        chunk.arenas.push_back(at);
        at += n * (stage.arena + slack);
    }
    if (kernels_.device) {
        chunk.scratch_of_totals = reinterpret_cast<double *>(at);
        kernels_.fill(0.0f, at, n * doubles, request.stream); // see Totals
        at += n * scratch_of_totals_ * doubles;
        if (scratch_of_products_ > 0) {
            chunk.scratch_of_products = at;
            kernels_.fill(0.0f, at, most_shared_tiles, request.stream);
        }
    }
    for (size_t s = 0; s < stages_.size(); ++s)
        each_part(chunk, s, [&](Part &part) { forward(chunk, s, part); });
    if (!request.relevance.empty())
        for (size_t s = stages_.size(); s-- > 0;)
            each_part(chunk, s, [&](Part &part) { relevance(chunk, s, part); });
    watch.read();
}

void Plan::forward(const Chunk &chunk, size_t stage, Part &part) const {
    const Request &request = chunk.request;
    auto &[run, first] = part;
    for (int input : run.stage.inputs)
        if (const int64_t i = input_index(input); i >= 0) {
            const Tensor &in = tensor(input);
            from_user(kernels_, in,
                      request.inputs[static_cast<size_t>(i)] + first * in.image.size(),
                      run.value(input), run.n, run.stream);
            copy_out(run, request, first, input, false);
        }
    for (int s = run.stage.first; s < run.stage.last; ++s) {
        run.step = s;
        const Step &step = *steps_[static_cast<size_t>(s)];
        chunk.watch.time(2 * s, [&] { step.forward(run); });
        copy_out(run, request, first, step.output, false);
    }
    const int output = run.stage.output;
    const int64_t size = tensor(output).image.size();
    if (stage + 1 < stages_.size()) {
        const Part next = part_of(chunk, stage + 1, first - chunk.first);
        kernels_.carry(run.value(output), 1.0f,
                       next.run.value(output) + (first - next.first) * size, run.n * size, false,
                       run.stream);
    } else {
        float *scores = request.scores + first * size;
        to_user(kernels_, tensor(output), run.value(output), scores, run.n, run.stream);
        check_finite(kernels_, scores, run.n, size, first, "output", chunk.bad, run.stream);
    }
}

// The relevance of a stage's output: what the next stage found, or what the request says.
void Plan::begin_relevance(const Chunk &chunk, size_t stage, const Part &part) const {
    const Request &request = chunk.request;
    const auto &[run, first] = part;
    const int output = run.stage.output;
    const Tensor &out = tensor(output);
    const int64_t size = out.image.size();
    if (stage + 1 < stages_.size()) {
        const Part next = part_of(chunk, stage + 1, first - chunk.first);
        kernels_.carry(next.run.relevance(output) + (first - next.first) * size, 1.0f,
                       run.relevance(output), run.n * size, false, run.stream);
        return;
    }
    if (request.initial == Initial::given)
        return from_user(kernels_, out, request.given + first * size, run.relevance(output), run.n,
                         run.stream);
    kernels_.begin({run.n, out.image, out.channels_first, request.scores + first * size,
                    request.initial == Initial::one, request.argmax,
                    request.targets + (request.targets ? first : 0),
                    request.mask + (request.mask ? first * size : 0), run.relevance(output)},
                   run.stream);
}

void Plan::relevance(const Chunk &chunk, size_t stage, Part &part) const {
    const Request &request = chunk.request;
    auto &[run, first] = part;
    const int64_t n = run.n;
    run.backward = true;
    begin_relevance(chunk, stage, part);

    const auto totals_of = [&](int tensor_index) {
        return request.totals ? request.totals + (first * tensors() + tensor_index) * 2 : nullptr;
    };
    const auto weigh = [&](int tensor_index) {
        if (request.totals)
            kernels_.totals({n, tensor(tensor_index).image.size(), run.relevance(tensor_index),
                             totals_of(tensor_index), run.totals_stride, run.scratch_of_totals},
                            run.stream);
    };
    run.account_stride = steps() * accounts;
    run.totals_stride = tensors() * 2;
    for (int s = run.stage.last - 1; s >= run.stage.first; --s) {
        run.step = s;
        if (request.absorbed)
            run.account = request.absorbed + first * run.account_stride + s * accounts;
        const Step &step = *steps_[static_cast<size_t>(s)];
        run.totals = totals_of(step.output);
        if (step.blocks || step.tallies() == 0)
            weigh(step.output);
        copy_out(run, request, first, step.output, true);
        if (!step.blocks) {
            chunk.watch.time(2 * s + 1, [&] { step.relevance(run); });
            continue;
        }
        run.book(Account::zero, run.relevance(step.output), tensor(step.output).image.size());
        for (size_t slot = 0; slot < step.inputs.size(); ++slot)
            if (!run.adds(static_cast<int>(slot)))
                kernels_.fill(0.0f, run.relevance(step.inputs[slot]),
                              n * tensor(step.inputs[slot]).image.size(), run.stream);
    }
    for (int input : run.stage.inputs)
        if (const int64_t i = input_index(input); i >= 0) {
            weigh(input);
            copy_out(run, request, first, input, true);
            const Tensor &in = tensor(input);
            const int64_t size = in.image.size();
            float *relevance = request.relevance[static_cast<size_t>(i)] + first * size;
            to_user(kernels_, in, run.relevance(input), relevance, n, run.stream);
            check_finite(kernels_, relevance, n, size, first, "relevance",
                         chunk.bad ? chunk.bad + 1 + i : nullptr, run.stream);
        }
}

} // namespace relprop
