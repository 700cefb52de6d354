// Runs CUDA kernels on the host, so that a machine without a GPU can test them. Threads that work
// together are fibers of the calling thread; a fiber runs until it waits for others. Which runs
// next is drawn at random (RELPROP_EMULATED_SEED), so that a barrier that is missing shows. What
// CUDA leaves undefined ends the program with a message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "vector_types.h"

struct CUstream_st;

namespace relprop::emulator {

constexpr int warp_lanes = 32;
constexpr int group_threads = 128; // of four warps

// Has the stream call `thread` for each thread of each block, later; CUDA's last error says what it
// refused. Unless cooperative, threads run one after another, which is faster and forbids that they
// wait.
void run(const dim3 &grid, const dim3 &block, size_t shared_bytes, CUstream_st *stream,
         std::function<void()> thread, bool cooperative);

// ---- for the running thread

void sync_block(); // every thread of the block must come, those included that have ended

// The lanes named in `mask` must all come, with the same mask.
void sync_warp(unsigned mask = ~0u);

// The same, and hands each of them the values of all: [warp_lanes], valid until the next time.
const uint64_t *exchange(unsigned mask, uint64_t value);

int lane();

// The block's dynamic shared memory, aligned to 1024 bytes. What nobody wrote is NaN.
void *dynamic_shared();

// An instruction of a whole warp: the last of its lanes to come does all of it, given what each
// lane has brought.
void together(void *brought, void (*all)(void *const (&brought)[warp_lanes]));

// An instruction of four neighbouring warps.
void together_in_group(void *brought, void (*all)(void *const (&brought)[group_threads]));

// An instruction for global memory alone is about to read or write there.
void require_global(const volatile void *at);

// Begins a copy to shared memory, or zeros it where `from` is null; done when this thread waits for
// it, or sooner, as the dice fall.
void begin_copy(void *to, const void *from, size_t bytes);
void close_copies();         // those begun since the last time are a group
void await_copies(int open); // until all groups but the `open` last are done

// An mbarrier in 8 bytes of shared memory. Times are counted from 0; CUDA knows two of them apart.
void begin_arrivals(uint64_t *at, int arrivals);
void arrive(uint64_t *at, int bytes); // so many bytes are to come
void begin_bulk_copy(uint64_t *at, void *to, const void *from, int bytes);
void arrive_with_copies(uint64_t *at); // those of begin_copy() that this thread has begun
void await_arrivals(uint64_t *at, int time);

// Waits for the other threads of those numbered below `count`.
void sync_first(unsigned count);

void require_shown(const void *at); // the tensor cores are about to read 16 bytes there

[[noreturn]] void fail(const char *what); // prints it with the place in the launch, and aborts

} // namespace relprop::emulator
