// What the code of a kernel finds in CUDA without asking: qualifiers, its own place in the launch,
// barriers, exchange within a warp, atomics and intrinsics. Included by cuda_runtime.h.
#pragma once

#include <math.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>

#include "emulator.hpp"

// ---- qualifiers

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __noinline__ __attribute__((noinline)) // after <memory>, which has the word in an attribute
#define __launch_bounds__(...)
// All threads of a block are one thread of the host. Unlike dynamic shared memory it begins with
// what the last block left.
#define __shared__ static thread_local

// ---- the thread's place

// Hidden, so that a function of a library looks up once where its thread's variables are.
#pragma GCC visibility push(hidden)
extern constinit thread_local uint3 threadIdx, blockIdx;
extern constinit thread_local dim3 blockDim, gridDim;
#pragma GCC visibility pop
constexpr int warpSize = relprop::emulator::warp_lanes;

// ---- barriers and exchange

inline void __syncthreads() { relprop::emulator::sync_block(); }
inline void __syncwarp(unsigned mask = ~0u) { relprop::emulator::sync_warp(mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace relprop::emulator {

// What lane `from` of this thread's segment of `width` lanes gives; its own where there is none.
template <class T> T shuffle(unsigned mask, T value, int from, int width, bool there) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(uint64_t));
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    const uint64_t *all = exchange(mask, bits);
    if (!there)
        return value;
    const int source = lane() / width * width + from;
    if (!(mask >> source & 1))
        fail("a shuffle reads from a lane that its mask does not name");
    std::memcpy(&value, &all[source], sizeof value);
    return value;
}

inline unsigned ballot(unsigned mask, bool vote) {
    const uint64_t *all = exchange(mask, vote);
    unsigned votes = 0;
    for (int i = 0; i < warp_lanes; ++i)
        if (mask >> i & 1 && all[i])
            votes |= 1u << i;
    return votes;
}

// The lanes that bring the same bits.
inline unsigned match(unsigned mask, uint64_t bits) {
    const uint64_t *all = exchange(mask, bits);
    unsigned same = 0;
    for (int i = 0; i < warp_lanes; ++i)
        if (mask >> i & 1 && all[i] == bits)
            same |= 1u << i;
    return same;
}

} // namespace relprop::emulator

template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = warpSize) {
    return relprop::emulator::shuffle(mask, value, from & (width - 1), width, true);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int by, int width = warpSize) {
    const int from = (relprop::emulator::lane() & (width - 1)) ^ by;
    return relprop::emulator::shuffle(mask, value, from, width, from < width);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = warpSize) {
    const int from = (relprop::emulator::lane() & (width - 1)) + static_cast<int>(by);
    return relprop::emulator::shuffle(mask, value, from, width, from < width);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = warpSize) {
    const int from = (relprop::emulator::lane() & (width - 1)) - static_cast<int>(by);
    return relprop::emulator::shuffle(mask, value, from, width, from >= 0);
}
inline unsigned __ballot_sync(unsigned mask, int vote) {
    return relprop::emulator::ballot(mask, vote != 0);
}
inline int __any_sync(unsigned mask, int vote) {
    return relprop::emulator::ballot(mask, vote != 0) != 0;
}
inline int __all_sync(unsigned mask, int vote) {
    return relprop::emulator::ballot(mask, vote == 0) == 0;
}
template <class T> unsigned __match_any_sync(unsigned mask, T value) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(uint64_t));
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return relprop::emulator::match(mask, bits);
}

// ---- atomics: each returns what was there before

namespace relprop::emulator {

template <class T, class Change> T change(T *at, const Change &changed) {
    const std::atomic_ref<T> there(*at);
    T before = there.load();
    while (!there.compare_exchange_weak(before, changed(before))) {
    }
    return before;
}

} // namespace relprop::emulator

template <class T> T atomicAdd(T *at, std::type_identity_t<T> by) {
    return relprop::emulator::change(at, [=](T a) { return static_cast<T>(a + by); });
}
template <class T> T atomicMin(T *at, std::type_identity_t<T> by) {
    return relprop::emulator::change(at, [=](T a) { return std::min(a, by); });
}
template <class T> T atomicMax(T *at, std::type_identity_t<T> by) {
    return relprop::emulator::change(at, [=](T a) { return std::max(a, by); });
}
template <class T> T atomicAnd(T *at, std::type_identity_t<T> by) {
    return relprop::emulator::change(at, [=](T a) { return a & by; });
}
template <class T> T atomicOr(T *at, std::type_identity_t<T> by) {
    return relprop::emulator::change(at, [=](T a) { return a | by; });
}
template <class T> T atomicXor(T *at, std::type_identity_t<T> by) {
    return relprop::emulator::change(at, [=](T a) { return a ^ by; });
}
template <class T> T atomicExch(T *at, std::type_identity_t<T> by) {
    return relprop::emulator::change(at, [=](T) { return by; });
}
template <class T>
T atomicCAS(T *at, std::type_identity_t<T> expected, std::type_identity_t<T> by) {
    return relprop::emulator::change(at, [=](T a) { return a == expected ? by : a; });
}

// ---- intrinsics

using std::max;
using std::min;

inline unsigned __float_as_uint(float a) { return std::bit_cast<unsigned>(a); }
inline int __float_as_int(float a) { return std::bit_cast<int>(a); }
inline float __uint_as_float(unsigned a) { return std::bit_cast<float>(a); }
inline float __int_as_float(int a) { return std::bit_cast<float>(a); }
inline long long __double_as_longlong(double a) { return std::bit_cast<long long>(a); }
inline double __longlong_as_double(long long a) { return std::bit_cast<double>(a); }
inline int __float2int_rn(float a) { return static_cast<int>(rintf(a)); }

inline int __popc(unsigned a) { return std::popcount(a); }
inline int __clz(int a) { return std::countl_zero(static_cast<unsigned>(a)); }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline unsigned __brev(unsigned a) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; ++i)
        reversed |= (a >> i & 1) << (31 - i);
    return reversed;
}

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float a) { return expf(a); }
inline float __logf(float a) { return logf(a); }
inline float __powf(float a, float b) { return powf(a, b); }
inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
inline double rsqrt(double a) { return 1.0 / sqrt(a); }

namespace relprop::emulator {

template <class T> T global_load(const T *at) {
    require_global(at);
    return *at;
}
template <class T> void global_store(T *at, T value) {
    require_global(at);
    *at = value;
}

} // namespace relprop::emulator

template <class T> T __ldg(const T *at) { return relprop::emulator::global_load(at); }
template <class T> T __ldcs(const T *at) { return relprop::emulator::global_load(at); }
template <class T> T __ldcg(const T *at) { return relprop::emulator::global_load(at); }
template <class T> void __stcs(T *at, std::type_identity_t<T> value) {
    relprop::emulator::global_store(at, value);
}
template <class T> void __stcg(T *at, std::type_identity_t<T> value) {
    relprop::emulator::global_store(at, value);
}

[[noreturn]] inline void __trap() { relprop::emulator::fail("__trap()"); }
