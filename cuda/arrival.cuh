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
#include "mma.cuh"

namespace relprop::cuda {

// What threads of a block wait for, again and again: so many arrivals, and bytes that the copy
// engine brings.
class Arrival {
  public:
    using Held = uint64_t; // in shared memory

    // One of several that lie there.
    __device__ Arrival(SharedAt first, int number)
        : at_(first + number * static_cast<int>(sizeof(Held))) {}

    // By one thread, before the others may know of it. They do after show_to_tensor_cores() by
    // that thread and a barrier.
    __device__ __forceinline__ void begin(int arrivals) {
#ifdef RELPROP_EMULATED
        emulator::begin_arrivals(held(), arrivals);
#elif defined(RELPROP_WARPGROUPS)
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at_), "r"(arrivals)
                     : "memory");
#endif
    }

    // This thread has arrived.
    __device__ __forceinline__ void arrive() {
#ifdef RELPROP_EMULATED
        emulator::arrive(held(), 0);
#elif defined(RELPROP_WARPGROUPS)
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at_) : "memory");
#endif
    }

    // This warp has, as one thread: all its lanes call it.
    __device__ __forceinline__ void arrive_as_warp() {
        __syncwarp();
        if (threadIdx.x % 32 == 0)
            arrive();
    }

    // The same as arrive(), and so many bytes are to come.
    __device__ __forceinline__ void arrive_before(int bytes) {
#ifdef RELPROP_EMULATED
        emulator::arrive(held(), bytes);
#elif defined(RELPROP_WARPGROUPS)
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at_), "r"(bytes)
                     : "memory");
#endif
    }

    // Begins to copy some of them, all aligned to 16 bytes.
    __device__ __forceinline__ void copy(SharedAt to, const void *from, int bytes) {
#ifdef RELPROP_EMULATED
        emulator::require_global(from);
        emulator::begin_bulk_copy(held(), to, from, bytes);
#elif defined(RELPROP_WARPGROUPS)
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                     "[%0], [%1], %2, [%3];" ::"r"(to),
                     "l"(from), "r"(bytes), "r"(at_)
                     : "memory");
#endif
    }

    // This thread will have arrived when all is there that it has begun to copy by copy_async().
    __device__ __forceinline__ void arrive_with_copies() {
#ifdef RELPROP_EMULATED
        emulator::arrive_with_copies(held());
#elif defined(RELPROP_WARPGROUPS)
        asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(at_) : "memory");
#endif
    }

    // Waits until all have arrived for the time of this number: 0 is the first. They must not have
    // arrived for the one after the next.
    __device__ __forceinline__ void await(int time) {
#ifdef RELPROP_EMULATED
        emulator::await_arrivals(held(), time);
#elif defined(RELPROP_WARPGROUPS)
        asm volatile("{ .reg .pred there; again: "
                     "mbarrier.try_wait.parity.shared::cta.b64 there, [%0], %1; "
                     "@there bra done; bra again; done: }" ::"r"(at_),
                     "r"(time & 1)
                     : "memory");
#endif
    }

  private:
#ifdef RELPROP_EMULATED
    uint64_t *held() const { return reinterpret_cast<uint64_t *>(at_); }
#endif
    SharedAt at_;
};

} // namespace relprop::cuda
