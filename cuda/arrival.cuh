// How the threads of a block that copy and those that compute wait for each other on a Hopper, and
// copies of whole stretches to shared memory by its copy engine, which one thread begins and the
// tensor cores read without more ado. Each with what it means where the kernels run on the host
// (tests/gpu/emulator).
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#ifdef RELPROP_EMULATED
#include "emulator.hpp"
#endif
#include "wgmma.cuh"

namespace relprop::cuda {

// What threads of a block wait for, again and again: so many arrivals, and bytes that the copy
// engine brings. Lies in shared memory.
class Arrival {
  public:
    // By one thread, before the others may know of it. They do after show_to_tensor_cores() by
    // that thread and a barrier.
    __device__ __forceinline__ void begin(int arrivals) {
#ifdef RELPROP_EMULATED
        emulator::begin_arrivals(&state_, arrivals);
#elif defined(RELPROP_WARPGROUPS)
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address()), "r"(arrivals)
                     : "memory");
#endif
    }

    // This thread has arrived.
    __device__ __forceinline__ void arrive() {
#ifdef RELPROP_EMULATED
        emulator::arrive(&state_, 0);
#elif defined(RELPROP_WARPGROUPS)
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address()) : "memory");
#endif
    }

    // The same, and so many bytes are to come.
    __device__ __forceinline__ void arrive_before(int bytes) {
#ifdef RELPROP_EMULATED
        emulator::arrive(&state_, bytes);
#elif defined(RELPROP_WARPGROUPS)
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address()),
                     "r"(bytes)
                     : "memory");
#endif
    }

    // Begins to copy some of them, all aligned to 16 bytes.
    __device__ __forceinline__ void copy(void *to, const void *from, int bytes) {
#ifdef RELPROP_EMULATED
        emulator::require_global(from);
        emulator::begin_bulk_copy(&state_, to, from, bytes);
#elif defined(RELPROP_WARPGROUPS)
        const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                     "[%0], [%1], %2, [%3];" ::"r"(at),
                     "l"(from), "r"(bytes), "r"(address())
                     : "memory");
#endif
    }

    // This thread will have arrived when all is there that it has begun to copy by copy_async().
    __device__ __forceinline__ void arrive_with_copies() {
#ifdef RELPROP_EMULATED
        emulator::arrive_with_copies(&state_);
#elif defined(RELPROP_WARPGROUPS)
        asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(address())
                     : "memory");
#endif
    }

    // Waits until all have arrived for the time of this number: 0 is the first. They must not have
    // arrived for the one after the next.
    __device__ __forceinline__ void await(int time) {
#ifdef RELPROP_EMULATED
        emulator::await_arrivals(&state_, time);
#elif defined(RELPROP_WARPGROUPS)
        asm volatile("{ .reg .pred there; again: "
                     "mbarrier.try_wait.parity.shared::cta.b64 there, [%0], %1; "
                     "@there bra done; bra again; done: }" ::"r"(address()),
                     "r"(time & 1)
                     : "memory");
#endif
    }

  private:
#if defined(RELPROP_WARPGROUPS) && !defined(RELPROP_EMULATED)
    __device__ __forceinline__ uint32_t address() const {
        return static_cast<uint32_t>(__cvta_generic_to_shared(&state_));
    }
#endif
    uint64_t state_;
};

} // namespace relprop::cuda
