// See emulator.hpp.
#include "emulator.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "device_memory.hpp"
#include "dice.hpp"
#include "fiber.hpp"
#include "stream.hpp"

constinit thread_local uint3 threadIdx{}, blockIdx{};
constinit thread_local dim3 blockDim, gridDim;

namespace relprop::emulator {
namespace {

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

// What the threads of a warp that wait for each other have brought.
struct Warp {
    unsigned waiting = 0; // lanes, as bits
    unsigned mask[warp_lanes] = {};
    uint64_t brought[warp_lanes] = {};
    // To each of them, once the last has come. A copy for each: some may go on, and bring new
    // values, before others have read the old.
    uint64_t shown[warp_lanes][warp_lanes];
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
    std::vector<State> states = {};
    std::vector<unsigned> ready = {};
    std::vector<std::unique_ptr<Warp>> warps = {};
    std::vector<Group> groups = {};
    std::vector<Copies> copies = {}; // of each thread
    std::vector<BulkCopy> bulk_copies = {};
    std::vector<uint16_t> hidden_from_cores = {}; // copies to each piece of shared memory
    unsigned at_barrier = 0, at_first = 0;
    unsigned running = 0;
    std::vector<std::pair<unsigned, const uint64_t *>> waiting = {}; // threads, for arrivals there
};

thread_local Block *block = nullptr;
thread_local std::vector<std::unique_ptr<Fiber>> fibers; // kept from launch to launch

uint3 place(uint64_t index, const dim3 &among) {
    return {static_cast<unsigned>(index % among.x),
            static_cast<unsigned>(index / among.x % among.y),
            static_cast<unsigned>(index / among.x / among.y)};
}

uint64_t count(const dim3 &among) { return uint64_t{among.x} * among.y * among.z; }

unsigned rank() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }

void make_ready(unsigned thread) {
    block->states[thread] = State::ready;
    block->ready.push_back(thread);
}

void wait(State at) {
    const unsigned self = block->running;
    block->states[self] = at;
    fibers[self]->pause();
}

// A fiber's turn: one thread from its start to its end.
void run_thread() {
    block->thread();
    block->states[block->running] = State::ended;
}

bool finish_what_is_waited_for();

void run_together() {
    Block &b = *block;
    while (fibers.size() < b.size)
        fibers.push_back(std::make_unique<Fiber>(run_thread));
    while (b.warps.size() * warp_lanes < b.size)
        b.warps.push_back(std::make_unique<Warp>());
    b.groups.resize((b.size + group_threads - 1) / group_threads);
    b.states.resize(b.size);
    b.copies.resize(b.size);
    b.hidden_from_cores.resize(b.shared.size() / piece + 1);
    for (unsigned thread = 0; thread < b.size; ++thread)
        make_ready(thread);
    while (!b.ready.empty() || finish_what_is_waited_for()) {
        std::swap(b.ready[dice()() % b.ready.size()], b.ready.back());
        b.running = b.ready.back();
        b.ready.pop_back();
        threadIdx = place(b.running, blockDim);
        fibers[b.running]->resume();
    }
    unsigned waiting_in[7] = {};
    for (const State state : b.states)
        ++waiting_in[static_cast<int>(state)];
    if (waiting_in[static_cast<int>(State::ended)] == b.size) {
        for (const Copies &copies : b.copies)
            if (!copies.begun.empty() || !b.bulk_copies.empty())
                fail("a block ends before its copies to shared memory are done");
        return;
    }
    char what[200];
    std::snprintf(what, sizeof what,
                  "divergent barrier: %u threads wait at __syncthreads(), %u for lanes of their "
                  "warp, %u for their warpgroup, %u for what does not arrive, and %u have ended",
                  waiting_in[static_cast<int>(State::at_block_barrier)],
                  waiting_in[static_cast<int>(State::at_warp_barrier)],
                  waiting_in[static_cast<int>(State::at_group_barrier)] +
                      waiting_in[static_cast<int>(State::at_first_barrier)],
                  waiting_in[static_cast<int>(State::at_arrivals)],
                  waiting_in[static_cast<int>(State::ended)]);
    fail(what);
}

void run_apart(bool backwards) {
    for (uint64_t i = 0; i < block->size; ++i) {
        threadIdx = place(backwards ? block->size - 1 - i : i, blockDim);
        block->thread();
    }
}

void run_all(const dim3 &grid, const dim3 &threads, size_t shared_bytes,
             const std::function<void()> &thread, bool cooperative) {
    const Access access;
    gridDim = grid;
    blockDim = threads;
    // No order may matter: neither that of the blocks nor, where they run apart, of the threads.
    const bool backwards = dice()() >> 8 & 1;
    const uint64_t blocks = count(grid);
    Scratch shared(shared_bytes);
    for (uint64_t i = 0; i < blocks; ++i) {
        blockIdx = place(backwards ? blocks - 1 - i : i, grid);
        shared.forget();
        Block own{thread, static_cast<unsigned>(count(threads)), shared, cooperative};
        block = &own;
        cooperative ? run_together() : run_apart(backwards);
        block = nullptr;
    }
    if (!memory_intact())
        fail("a kernel wrote beyond an allocation");
}

Block &cooperative_block() {
    if (!block || !block->cooperative)
        fail("a thread waits for others in a launch whose threads run one after another; start it "
             "by RELPROP_LAUNCH_BLOCKS");
    return *block;
}

// The lanes of a mask that this warp has: the last warp of a block may be a smaller one.
unsigned existing(unsigned mask, unsigned thread) {
    const unsigned lanes = block->size - thread / warp_lanes * warp_lanes;
    return lanes < warp_lanes ? mask & ((1u << lanes) - 1) : mask;
}

Warp &warp() { return *cooperative_block().warps[rank() / warp_lanes]; }

Copies &copies_of_thread() { return cooperative_block().copies[rank()]; }

// How many copies to a piece of shared memory are hidden from the tensor cores.
uint16_t &hidden_at(const void *at) {
    Block &b = cooperative_block();
    if (!b.shared.holds(at))
        fail("an instruction for dynamic shared memory is given other memory");
    const auto *first = static_cast<const char *>(b.shared.data());
    return b.hidden_from_cores[static_cast<size_t>(static_cast<const char *>(at) - first) / piece];
}

Arrivals &arrivals_at(uint64_t *at) {
    static_assert(sizeof(Arrivals) == sizeof *at);
    if (!cooperative_block().shared.holds(at))
        fail("threads arrive at what is not in dynamic shared memory");
    return *reinterpret_cast<Arrivals *>(at);
}

// All may have arrived: who waits for that goes on.
void count_arrival(uint64_t *at) {
    Arrivals &a = arrivals_at(at);
    if (a.missing > 0 || a.bytes > 0)
        return;
    a.missing = a.all;
    ++a.times;
    std::erase_if(block->waiting, [&](const auto &waiting) {
        if (waiting.second == at)
            make_ready(waiting.first);
        return waiting.second == at;
    });
}

void arrive_once(uint64_t *at, int bytes) {
    Arrivals &a = arrivals_at(at);
    if (a.missing == 0)
        fail("more threads arrive than are waited for");
    --a.missing;
    a.bytes += bytes;
    count_arrival(at);
}

void finish_bulk_copies(uint64_t *at) {
    std::vector<BulkCopy> &all = cooperative_block().bulk_copies;
    for (const BulkCopy &copy : all) {
        if (copy.arrivals != at)
            continue;
        std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
        for (int byte = 0; byte < copy.bytes; byte += piece)
            --hidden_at(static_cast<char *>(copy.to) + byte);
        arrivals_at(at).bytes -= copy.bytes;
        count_arrival(at);
    }
    std::erase_if(all, [&](const BulkCopy &copy) { return copy.arrivals == at; });
}

// Finishes a thread's first copies, up to so many since it began, and tells those who wait.
void finish_copies(Copies &of, size_t up_to) {
    for (size_t i = of.first; i < up_to; ++i)
        of.begun[i - of.first].finish();
    for (; !of.told.empty() && of.told.front().second <= up_to; of.told.pop_front())
        arrive_once(of.told.front().first, 0);
}

// Finishes the copies that arrivals are counted of.
void finish_what_arrives(uint64_t *at) {
    finish_bulk_copies(at);
    for (Copies &copies : block->copies)
        for (size_t i = copies.told.size(); i-- > 0;)
            if (copies.told[i].first == at) {
                finish_copies(copies, copies.told[i].second);
                break;
            }
}

// Copies are done when somebody has to wait for them. Returns whether a thread may go on.
bool finish_what_is_waited_for() {
    const auto waiting = block->waiting;
    for (const auto &[thread, at] : waiting)
        finish_what_arrives(const_cast<uint64_t *>(at));
    return !block->ready.empty();
}

// Lets go the lanes in the mask, which wait.
void let_go(Warp &w, unsigned mask) {
    const unsigned first = block->running / warp_lanes * warp_lanes;
    for (unsigned i = 0; i < warp_lanes; ++i)
        if (mask >> i & 1 && first + i != block->running)
            make_ready(first + i);
    w.waiting &= ~mask;
}

// Shows what the lanes in the mask have brought.
void show(Warp &w, unsigned mask) {
    for (unsigned i = 0; i < warp_lanes; ++i)
        if (mask >> i & 1)
            std::memcpy(w.shown[i], w.brought, sizeof w.brought);
}

// Whether all lanes in the mask wait for each other; some may be waiting for fewer, to come later.
bool all_wait(const Warp &w, unsigned mask) {
    if ((w.waiting & mask) != mask)
        return false;
    for (unsigned i = 0; i < warp_lanes; ++i)
        if (mask >> i & 1 && w.mask[i] != mask)
            return false;
    return true;
}

} // namespace

std::minstd_rand &dice() {
    thread_local std::minstd_rand generator([] {
        const char *seed = std::getenv("RELPROP_EMULATED_SEED");
        return seed ? static_cast<unsigned>(std::strtoul(seed, nullptr, 10)) : 0u;
    }());
    return generator;
}

void fail(const char *what) {
    std::fprintf(stderr,
                 "relprop emulator: %s (thread %u, %u, %u of block %u, %u, %u; blocks of %u x %u x "
                 "%u threads).\n",
                 what, threadIdx.x, threadIdx.y, threadIdx.z, blockIdx.x, blockIdx.y, blockIdx.z,
                 blockDim.x, blockDim.y, blockDim.z);
    std::abort();
}

void run(const dim3 &grid, const dim3 &threads, size_t shared_bytes, cudaStream_t stream,
         std::function<void()> thread, bool cooperative) {
    if (may_launch(grid, threads, shared_bytes, stream))
        give(stream, [=, thread = std::move(thread)] {
            run_all(grid, threads, shared_bytes, thread, cooperative);
        });
}

void sync_block() {
    Block &b = cooperative_block();
    if (++b.at_barrier < b.size)
        return wait(State::at_block_barrier);
    b.at_barrier = 0;
    for (unsigned thread = 0; thread < b.size; ++thread)
        if (thread != b.running)
            make_ready(thread);
}

const uint64_t *exchange(unsigned mask, uint64_t value) {
    Warp &w = warp();
    const unsigned self = 1u << lane();
    mask = existing(mask, block->running);
    if (!(mask & self))
        fail("a lane waits with a mask that does not name it");
    w.brought[lane()] = value;
    w.mask[lane()] = mask;
    w.waiting |= self;
    if (all_wait(w, mask)) {
        show(w, mask);
        let_go(w, mask);
    } else {
        wait(State::at_warp_barrier);
    }
    return w.shown[lane()];
}

void sync_warp(unsigned mask) { exchange(mask, 0); }

int lane() { return static_cast<int>(rank() % warp_lanes); }

void require_global(const volatile void *at) {
    if (block && block->shared.holds(const_cast<const void *>(at)))
        fail("an instruction for global memory is given shared memory");
}

void begin_copy(void *to, const void *from, size_t bytes) {
    if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % bytes != 0)
        fail("a copy to shared memory is not aligned to its size");
    if (!cooperative_block().shared.holds(to))
        fail("a copy to shared memory is given other memory");
    Copies &own = copies_of_thread();
    own.begun.push_back({to, from, bytes, false});
    ++own.open;
    if (dice()() >> 8 & 1)
        own.begun.back().finish();
}

void close_copies() {
    Copies &own = copies_of_thread();
    own.groups.push_back(own.open);
    own.open = 0;
}

void await_copies(int open) {
    Copies &own = copies_of_thread();
    for (; own.groups.size() > static_cast<size_t>(open); own.groups.pop_front())
        for (size_t left = own.groups.front(); left > 0; --left) {
            finish_copies(own, own.first + 1);
            own.begun.pop_front();
            ++own.first;
        }
}

void begin_arrivals(uint64_t *at, int arrivals) {
    const auto all = static_cast<uint8_t>(arrivals);
    if (arrivals <= 0 || all != arrivals)
        fail("the emulator counts from 1 to 255 arrivals");
    arrivals_at(at) = {all, all, 0, 0};
}

void arrive(uint64_t *at, int bytes) { arrive_once(at, bytes); }

void begin_bulk_copy(uint64_t *at, void *to, const void *from, int bytes) {
    if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) |
         static_cast<uintptr_t>(bytes)) %
            piece !=
        0)
        fail("a copy of the copy engine is not aligned to 16 bytes");
    for (int byte = 0; byte < bytes; byte += piece)
        ++hidden_at(static_cast<char *>(to) + byte);
    cooperative_block().bulk_copies.push_back({at, to, from, bytes});
    if (dice()() >> 8 & 1)
        finish_bulk_copies(at);
}

void arrive_with_copies(uint64_t *at) {
    Copies &own = copies_of_thread();
    own.told.emplace_back(at, own.first + own.begun.size());
    if (dice()() >> 8 & 1)
        finish_copies(own, own.first + own.begun.size());
}

void await_arrivals(uint64_t *at, int time) {
    for (;;) {
        finish_what_arrives(at);
        const int times = arrivals_at(at).times;
        if (times > time + 1)
            fail("a thread waits for what was before the last time");
        if (times > time)
            return;
        block->waiting.emplace_back(block->running, at);
        wait(State::at_arrivals);
    }
}

void sync_first(unsigned count) {
    Block &b = cooperative_block();
    if (b.running >= count)
        fail("a thread waits with those before it");
    if (++b.at_first < count)
        return wait(State::at_first_barrier);
    b.at_first = 0;
    for (unsigned thread = 0; thread < count; ++thread)
        if (thread != b.running)
            make_ready(thread);
}

void require_shown(const void *at) {
    if (hidden_at(at) > 0)
        fail("tensor cores read what is being copied");
}

void *dynamic_shared() { return block->shared.data(); }

void together(void *brought, void (*all)(void *const (&brought)[warp_lanes])) {
    Warp &w = warp();
    w.together[lane()] = brought;
    w.mask[lane()] = ~0u;
    w.waiting |= 1u << lane();
    if (!all_wait(w, ~0u))
        return wait(State::at_warp_barrier);
    all(w.together);
    let_go(w, ~0u);
}

void together_in_group(void *brought, void (*all)(void *const (&brought)[group_threads])) {
    Block &b = cooperative_block();
    const unsigned self = rank(), first = self / group_threads * group_threads;
    if (first + group_threads > b.size)
        fail("a warpgroup needs four warps");
    Group &group = b.groups[self / group_threads];
    group.brought[self - first] = brought;
    if (++group.waiting < group_threads)
        return wait(State::at_group_barrier);
    group.waiting = 0;
    all(group.brought);
    for (unsigned i = first; i < first + group_threads; ++i)
        if (i != self)
            make_ready(i);
}

} // namespace relprop::emulator
