// See emulator.hpp.
#include "emulator.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "block.hpp"
#include "cuda_runtime.h"
#include "device_memory.hpp"
#include "dice.hpp"
#include "fiber.hpp"
#include "stream.hpp"

constinit thread_local uint3 threadIdx{}, blockIdx{};
constinit thread_local dim3 blockDim, gridDim;

namespace relprop::emulator {
namespace {

constinit thread_local Block *block = nullptr;
thread_local std::vector<std::unique_ptr<Fiber>> fibers; // kept from launch to launch

uint3 place(uint64_t index, const dim3 &among) {
    return {static_cast<unsigned>(index % among.x),
            static_cast<unsigned>(index / among.x % among.y),
            static_cast<unsigned>(index / among.x / among.y)};
}

uint64_t count(const dim3 &among) { return uint64_t{among.x} * among.y * among.z; }

// A fiber's turn: one thread from its start to its end.
void run_thread() {
    block->thread();
    block->states[block->running] = State::ended;
}

// What the threads of cooperative blocks need. A block leaves it as the next one wants it.
void prepare(Block &b) {
    while (fibers.size() < b.size)
        fibers.push_back(std::make_unique<Fiber>(run_thread));
    while (b.warps.size() * warp_lanes < b.size)
        b.warps.push_back(std::make_unique<Warp>());
    b.groups.resize((b.size + group_threads - 1) / group_threads);
    b.states.resize(b.size);
    b.copies.resize(b.size);
    b.hidden_from_cores.resize(b.shared.size() / piece + 1);
}

void run_together() {
    Block &b = *block;
    for (unsigned thread = 0; thread < b.size; ++thread)
        make_ready(b, thread);
    while (!b.ready.empty() || finish_what_is_waited_for()) {
        std::swap(b.ready[draw_below(b.ready.size())], b.ready.back());
        b.running = b.ready.back();
        b.ready.pop_back();
        threadIdx = b.places[b.running];
        fibers[b.running]->resume();
    }
    unsigned waiting_in[7] = {};
    for (const State state : b.states)
        ++waiting_in[static_cast<int>(state)];
    if (waiting_in[static_cast<int>(State::ended)] == b.size) {
        for (Copies &copies : b.copies) {
            if (!copies.begun.empty() || !b.bulk_copies.empty())
                fail("a block ends before its copies to shared memory are done");
            copies.groups.clear();
            copies.told.clear();
        }
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
    for (unsigned i = 0; i < block->size; ++i) {
        threadIdx = block->places[backwards ? block->size - 1 - i : i];
        block->thread();
    }
}

void run_all(const dim3 &grid, const dim3 &threads, size_t shared_bytes,
             const std::function<void()> &thread, bool cooperative) {
    const Access access;
    gridDim = grid;
    blockDim = threads;
    // No order may matter: neither that of the blocks nor, where they run apart, of the threads.
    const bool backwards = draw_below(2) == 0;
    const uint64_t blocks = count(grid);
    Scratch shared(shared_bytes);
    Block own{thread, static_cast<unsigned>(count(threads)), shared, cooperative};
    for (unsigned i = 0; i < own.size; ++i)
        own.places.push_back(place(i, threads));
    if (cooperative)
        prepare(own);
    block = &own;
    for (uint64_t i = 0; i < blocks; ++i) {
        blockIdx = place(backwards ? blocks - 1 - i : i, grid);
        shared.forget();
        cooperative ? run_together() : run_apart(backwards);
    }
    block = nullptr;
    if (!memory_intact())
        fail("a kernel wrote beyond an allocation");
}

// The lanes of a mask that a thread's warp has: the last warp of a block may be a smaller one.
unsigned existing(const Block &b, unsigned mask) {
    const unsigned lanes = b.size - b.running / warp_lanes * warp_lanes;
    return lanes < warp_lanes ? mask & ((1u << lanes) - 1) : mask;
}

// Lets go the lanes in the mask, which wait.
void let_go(Block &b, Warp &w, unsigned mask) {
    const unsigned first = b.running / warp_lanes * warp_lanes;
    for (unsigned i = 0; i < warp_lanes; ++i)
        if (mask >> i & 1 && first + i != b.running)
            make_ready(b, first + i);
    w.waiting &= ~mask;
}

// Shows the lanes in the mask what they have brought. One of `shown` is free: each lane that waits
// has done with its last, and the others read one each.
void show(Warp &w, unsigned mask) {
    Shown *next = w.shown;
    while (next->readers)
        ++next;
    std::memcpy(next->values, w.brought, sizeof w.brought);
    next->readers = mask;
    for (unsigned i = 0; i < warp_lanes; ++i)
        if (mask >> i & 1)
            w.read_by[i] = next;
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

void make_ready(Block &b, unsigned thread) {
    b.states[thread] = State::ready;
    b.ready.push_back(thread);
}

void wait(Block &b, State at) {
    b.states[b.running] = at;
    fibers[b.running]->pause();
}

Block &cooperative_block() {
    if (!block || !block->cooperative)
        fail("a thread waits for others in a launch whose threads run one after another; start it "
             "by RELPROP_LAUNCH_BLOCKS");
    return *block;
}

size_t draw_below(size_t end) {
    thread_local std::minstd_rand generator([] {
        const char *seed = std::getenv("RELPROP_EMULATED_SEED");
        return seed ? static_cast<unsigned>(std::strtoul(seed, nullptr, 10)) : 0u;
    }());
    constexpr int bits = 31; // of each number
    return generator() * end >> bits;
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
        return wait(b, State::at_block_barrier);
    b.at_barrier = 0;
    for (unsigned thread = 0; thread < b.size; ++thread)
        if (thread != b.running)
            make_ready(b, thread);
}

const uint64_t *exchange(unsigned mask, uint64_t value) {
    Block &b = cooperative_block();
    Warp &w = *b.warps[b.running / warp_lanes];
    const unsigned lane = b.running % warp_lanes, self = 1u << lane;
    mask = existing(b, mask);
    if (!(mask & self))
        fail("a lane waits with a mask that does not name it");
    if (w.read_by[lane])
        w.read_by[lane]->readers &= ~self;
    w.brought[lane] = value;
    w.mask[lane] = mask;
    w.waiting |= self;
    if (all_wait(w, mask)) {
        show(w, mask);
        let_go(b, w, mask);
    } else {
        wait(b, State::at_warp_barrier);
    }
    return w.read_by[lane]->values;
}

void sync_warp(unsigned mask) { exchange(mask, 0); }

int lane() { return static_cast<int>(block->running % warp_lanes); }

void require_global(const volatile void *at) {
    if (block && block->shared.holds(const_cast<const void *>(at)))
        fail("an instruction for global memory is given shared memory");
}

void sync_first(unsigned count) {
    Block &b = cooperative_block();
    if (b.running >= count)
        fail("a thread waits with those before it");
    if (++b.at_first < count)
        return wait(b, State::at_first_barrier);
    b.at_first = 0;
    for (unsigned thread = 0; thread < count; ++thread)
        if (thread != b.running)
            make_ready(b, thread);
}

void *dynamic_shared() { return block->shared.data(); }

void together(void *brought, void (*all)(void *const (&brought)[warp_lanes])) {
    Block &b = cooperative_block();
    Warp &w = *b.warps[b.running / warp_lanes];
    const unsigned lane = b.running % warp_lanes;
    w.together[lane] = brought;
    w.mask[lane] = ~0u;
    w.waiting |= 1u << lane;
    if (!all_wait(w, ~0u))
        return wait(b, State::at_warp_barrier);
    all(w.together);
    let_go(b, w, ~0u);
}

void together_in_group(void *brought, void (*all)(void *const (&brought)[group_threads])) {
    Block &b = cooperative_block();
    const unsigned self = b.running, first = self / group_threads * group_threads;
    if (first + group_threads > b.size)
        fail("a warpgroup needs four warps");
    Group &group = b.groups[self / group_threads];
    group.brought[self - first] = brought;
    if (++group.waiting < group_threads)
        return wait(b, State::at_group_barrier);
    group.waiting = 0;
    all(group.brought);
    for (unsigned i = first; i < first + group_threads; ++i)
        if (i != self)
            make_ready(b, i);
}

} // namespace relprop::emulator
