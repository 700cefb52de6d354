// See emulator.hpp.
#include "emulator.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
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

thread_local Block *block = nullptr;
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

// The lanes of a mask that this warp has: the last warp of a block may be a smaller one.
unsigned existing(unsigned mask, unsigned thread) {
    const unsigned lanes = block->size - thread / warp_lanes * warp_lanes;
    return lanes < warp_lanes ? mask & ((1u << lanes) - 1) : mask;
}

Warp &warp() { return *cooperative_block().warps[rank() / warp_lanes]; }

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

Block &cooperative_block() {
    if (!block || !block->cooperative)
        fail("a thread waits for others in a launch whose threads run one after another; start it "
             "by RELPROP_LAUNCH_BLOCKS");
    return *block;
}

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
