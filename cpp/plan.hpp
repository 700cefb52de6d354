// A Plan: a network compiled to steps with packed weights, run forward and backward in one call.
//
// Buffers are planned by liveness over both passes and share one arena whose offsets are counted
// per sample, so the same plan serves any batch size. A Plan is constant once finished: several
// threads may run it at once, each in an arena of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "kernels.hpp"
#include "memory.hpp"

namespace relprop {

class Lane;
class Plan;

// Floats that a kernel may read beyond the last value of a buffer: no other thread writes there.
constexpr int64_t read_beyond = 64;

// Consecutive steps that run for as many samples at once, and where their buffers lie in an arena
// of their own (stage.hpp), in floats per sample.
struct Stage {
    int64_t at_once = 0;           // samples of a thread, 0: all, and threads share every step
    int first = 0, last = 0;       // steps [first, last)
    int output = -1;               // the last tensor, which the next stage reads
    std::vector<int> inputs;       // tensors that earlier stages or the user wrote
    std::vector<int64_t> value_at; // [tensors]
    std::vector<int64_t> relevance_at;
    std::vector<int64_t> forward_scratch_at; // [steps]
    std::vector<int64_t> relevance_scratch_at;
    std::vector<int64_t> tally_at;
    int64_t arena = 0;
};

// What becomes of relevance that a step does not hand down.
enum class Account { bias, stabilizer, constants, zero };
constexpr int64_t accounts = 4;

// One run of a stage over some samples, as the steps see it.
struct Run {
    const Plan &plan;
    const Stage &stage;
    const Kernels &kernels;
    Stream stream;
    int64_t n; // samples
    float *arena;
    double *scratch_of_totals;  // see Totals
    float *scratch_of_products; // see Product
    int step = 0;               // the step at work
    bool backward = false;      // in the relevance pass
    bool sends = false;         // messages arrive where they may
    double *account = nullptr;  // [n, account_stride]  of the step; null without a ledger
    int64_t account_stride = 0;
    double *totals = nullptr; // [n, totals_stride]  of its output; null without them
    int64_t totals_stride = 0;

    float *value(int tensor) const;
    float *relevance(int tensor) const;
    float *scratch(int64_t offset = 0) const; // offset in floats per sample
    float *tally() const;                     // of the step's messages; null without a ledger
    bool adds(int slot) const; // relevance of this input has been begun by another reader
    bool arrives() const;      // the output's relevance is its message already
    // What the relevance of an input is to become when this step has completed it.
    std::optional<Message> sent(int slot) const;
    void book_tally() const; // sums it into the account and the totals
    // sums the values [n, size] at some places, or at all
    void book(Account, const float *values, int64_t size, const int32_t *places = nullptr,
              int64_t count = 0) const;
};

// One operator, placed in a Plan.
class Step {
  public:
    virtual ~Step() = default;
    virtual void forward(const Run &run) const = 0;
    // Reads the relevance of the output, which it may overwrite, and writes that of every input.
    virtual void relevance(const Run &run) const = 0;

    virtual bool needs_inputs() const { return false; } // their values, in the relevance pass
    virtual bool needs_output() const { return false; }
    // The relevance of the only or first input may lie where the output's does.
    virtual bool passes() const { return false; }
    virtual bool keeps_value() const { return false; } // the output is the input, where it lies
    // Its relevance pass begins with message(run), epsilon's of the output's value alone, or finds
    // that message in place of relevance.
    virtual bool receives() const { return false; }
    virtual Message message(const Run &) const { return {}; }
    // Makes of relevance that it completes what Run::sent says.
    virtual bool sends() const { return false; }
    virtual int64_t forward_scratch() const { return 0; }   // floats per sample
    virtual int64_t relevance_scratch() const { return 0; } // floats per sample
    // Of its messages, per sample, see Message: they cover the output, whose totals they tell too.
    virtual int64_t tallies() const { return 0; }
    // Floats that its products share with those of other steps, whatever the batch.
    virtual int64_t product_scratch(const Kernels &) const { return 0; }
    virtual int64_t weights() const { return 0; } // floats that both passes read

    std::vector<int> inputs;
    int output = -1;
    bool blocks = false; // the zero rule: relevance ends here
};

struct Tensor {
    Image image;
    bool channels_first; // the user's order is (channels, depth, height, width)
};

// A copy of a tensor's value or relevance for the user, in the user's order.
struct Copy {
    int tensor;
    bool of_relevance;
    float *out; // [n, size]
};

enum class Initial { value, one, given };

// Arguments of a run, in the user's order. Arrays of floats are in the host's memory, or all in the
// device's where on_device; what else there is is in the host's.
struct Request {
    int64_t n = 0;
    bool on_device = false;
    Stream stream = nullptr; // whose work the arrays wait for, and who may read them afterwards
    std::vector<const float *> inputs; // [n, size] of each input
    float *scores = nullptr;           // [n, output size]
    Initial initial = Initial::value;
    bool argmax = false;            // choose the targets here
    int64_t *targets = nullptr;     // [n]  in, or out where argmax
    const uint8_t *mask = nullptr;  // [n, output size]  in place of targets
    const float *given = nullptr;   // [n, output size]  the output's relevance
    std::vector<float *> relevance; // [n, size] of each input; empty: forward alone
    double *absorbed = nullptr;     // [n, steps, accounts]; or null
    double *totals = nullptr;       // [n, tensors, 2]  sum and sum of magnitudes of relevance
    double *seconds = nullptr;      // [steps, 2]  time in the forward and in the relevance pass
    std::vector<Copy> copies;
    std::function<void()> between_chunks; // may throw to end the run
};

// Throws std::domain_error.
[[noreturn]] void throw_not_finite(const char *what, int64_t sample, int64_t element);

class Plan {
  public:
    explicit Plan(const Kernels &kernels);
    ~Plan();

    int add_input(Image image, bool channels_first);
    int add_step(std::unique_ptr<Step> step, std::vector<int> inputs, Tensor output, bool blocks);
    // Fixes liveness and the arena; no step can be added afterwards. Every other tensor must be
    // read: relevance that nobody hands down would be whatever the arena held.
    void finish(int output);
    void run(const Request &request) const;

    const Kernels &kernels() const { return kernels_; }
    const Tensor &tensor(int index) const { return tensors_.at(static_cast<size_t>(index)); }
    int64_t steps() const { return static_cast<int64_t>(steps_.size()); }
    int64_t tensors() const { return static_cast<int64_t>(tensors_.size()); }
    const std::vector<int> &inputs() const { return inputs_; }
    int output() const { return output_; }
    bool finished() const { return output_ >= 0; }
    int64_t arena_per_sample() const; // floats
    const std::vector<Stage> &stages() const { return stages_; }
    // [steps]  who sends a step its message, unless they run in different stages, or -1
    const std::vector<int> &senders() const { return sender_; }

  private:
    friend struct Run;
    struct Chunk;
    int add_tensor(Image image, bool channels_first);
    void find_messages(int output);
    friend class DeviceRun;
    std::unique_ptr<Memory> take_arena(int64_t floats) const;
    void give_back(std::unique_ptr<Memory> arena) const;
    int64_t arena_floats(int64_t n) const; // of a chunk
    void run_chunk(const Request &request, int64_t first, int64_t n, Memory &memory,
                   int64_t *bad) const;
    int64_t input_index(int tensor) const;
    struct Part;
    Part part_of(const Chunk &chunk, size_t stage, int64_t at) const;
    template <class Body> void each_part(const Chunk &chunk, size_t stage, const Body &body) const;
    void forward(const Chunk &chunk, size_t stage, Part &part) const;
    void begin_relevance(const Chunk &chunk, size_t stage, const Part &part) const;
    void relevance(const Chunk &chunk, size_t stage, Part &part) const;
    void copy_out(const Run &run, const Request &request, int64_t first, int tensor,
                  bool of_relevance) const;

    const Kernels &kernels_;
    std::vector<Tensor> tensors_;
    std::vector<std::unique_ptr<Step>> steps_;
    std::vector<int> producer_; // [tensors]  step, or -1 for an input
    std::vector<int> inputs_;
    int output_ = -1;

    std::vector<std::vector<bool>> adds_; // [steps][inputs]
    std::vector<int> sender_;             // [steps]  who may send it its message, or -1
    std::vector<int> receiver_;           // [tensors]  whose message its relevance becomes, or -1
    int64_t scratch_of_totals_ = 0;       // doubles per sample
    int64_t scratch_of_products_ = 0;     // floats of a chunk, see Product
    std::vector<Stage> stages_;           // each for at least as many samples as the one before

    mutable std::mutex mutex_;
    mutable std::vector<std::unique_ptr<Memory>> arenas_; // idle ones, kept for the next run
    mutable std::vector<std::unique_ptr<Lane>> lanes_;
};

} // namespace relprop
