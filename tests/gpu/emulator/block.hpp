// The block that a thread of the host is running, and what its threads wait for: what emulator.cpp
// and copies.cpp have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "emulator.hpp"

namespace relprop::emulator {

constexpr size_t alignment = 1024;
constexpr size_t piece = 16; // bytes that the tensor cores read of a row at once

// Memory that begins as NaN. Exactly as large as asked for, so that sanitizers see its end.
class Scratch {
  public:
    explicit Scratch(size_t bytes)
        : bytes_(bytes), memory_(::operator new(bytes, std::align_val_t(alignment))) {}
    ~Scratch() { ::operator delete(memory_, std::align_val_t(alignment)); }
    void forget() { std::memset(memory_, 0xFF, bytes_); }
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;
    void *data() const { return memory_; }
    size_t size() const { return bytes_; }
    bool holds(const void *at) const {
        const auto *first = static_cast<const char *>(memory_);
        return !std::less<>()(at, memory_) && std::less<>()(at, first + bytes_);
    }

  private:
    size_t bytes_;
    void *memory_;
};

// The values of lanes that have exchanged them. Some may go on, and bring new ones, before others
// have read these.
struct Shown {
    uint64_t values[warp_lanes];
    unsigned readers = 0; // lanes, as bits
};

// What the threads of a warp that wait for each other have brought.
struct Warp {
    unsigned waiting = 0; // lanes, as bits
    unsigned mask[warp_lanes] = {};
    uint64_t brought[warp_lanes] = {};
    Shown shown[warp_lanes] = {};
    Shown *read_by[warp_lanes] = {}; // the last that each lane was shown
    void *together[warp_lanes] = {}; // brought to an instruction of them all
};

// Four warps that wait for each other.
struct Group {
    int waiting = 0;
    void *brought[group_threads] = {};
};

// A thread's copy to shared memory, beside its work.
struct Copy {
    void *to;
    const void *from; // null: zeros
    size_t bytes;
    bool done;
    void finish() {
        if (!done)
            from ? std::memcpy(to, from, bytes) : std::memset(to, 0, bytes);
        done = true;
    }
};

// Those of a thread.
struct Copies {
    std::deque<Copy> begun;    // and not waited for
    std::deque<size_t> groups; // how many of them each closed group has
    size_t open = 0;           // how many belong to none yet
    size_t first = 0;          // how many were begun and waited for before those
    // Who is told when so many were done.
    std::deque<std::pair<uint64_t *, size_t>> told;
};

// A copy of the copy engine, for all threads of its block.
struct BulkCopy {
    uint64_t *arrivals;
    void *to;
    const void *from;
    int bytes;
};

// What an mbarrier holds.
struct Arrivals {
    uint8_t all, missing;
    uint16_t times; // that all have arrived
    int32_t bytes;  // that are missing
};

enum class State {
    ready,
    at_block_barrier,
    at_warp_barrier,
    at_group_barrier,
    at_first_barrier,
    at_arrivals,
    ended
};

// The block that this thread of the host is running.
struct Block {
    const std::function<void()> &thread;
    unsigned size; // threads
    Scratch &shared;
    bool cooperative;
    std::vector<uint3> places = {}; // threadIdx of each thread
    std::vector<State> states = {};
    std::vector<unsigned> ready = {};
    std::vector<std::unique_ptr<Warp>> warps = {};
    std::vector<Group> groups = {};
    std::vector<Copies> copies = {}; // of each thread
    std::vector<BulkCopy> bulk_copies = {};
    std::vector<uint16_t> hidden_from_cores = {}; // copies to each piece of shared memory
    unsigned at_barrier = 0, at_first = 0;
    unsigned running = 0;
    std::vector<std::pair<unsigned, uint64_t *>> waiting = {}; // threads, for arrivals there
};

Block &cooperative_block(); // of the running thread; ends the program where none is
void make_ready(Block &b, unsigned thread);
void wait(Block &b, State at); // lets others run

// Copies are done when somebody has to wait for them. Returns whether a thread may go on.
bool finish_what_is_waited_for();

} // namespace relprop::emulator
