// The instructions that the products are made of: matrix products of a warp, with the rounding of
// their factors, and copies to shared memory beside computing. Each with what it means where the
// kernels run on the host (tests/gpu/emulator).
//
// Of a 16 x 8 result, lane 4 g + t holds row g, columns 2 t and 2 t + 1, and the same of row g + 8.
// Of the factors it holds rows g and g + 8 and column g, of these the summed index t and t + 4
// (pairs of them in bfloat16).
#pragma once

#include <cmath>
#include <cstdint>

#include <cuda_runtime.h>

#ifdef RELPROP_EMULATED
#include <algorithm>
#include <cstring>

#include "emulator.hpp"
#endif

// Whether the code that is being compiled may hold Hopper's own instructions (wgmma.cuh,
// arrival.cuh).
#if defined(RELPROP_EMULATED) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define RELPROP_WARPGROUPS
#endif

namespace relprop::cuda {

#ifdef RELPROP_EMULATED

namespace emulated {

inline float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint32_t as_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// The float next to a number on the side of zero; infinite where it is too large for one.
inline float towards_zero(double value) {
    const float nearest = static_cast<float>(value);
    const bool beyond = std::abs(static_cast<double>(nearest)) > std::abs(value);
    return beyond && !std::isinf(nearest) ? as_float(as_bits(nearest) - 1) : nearest;
}

// sum += a b as tensor cores add: a sum and its products are lined up to the largest of them, and
// each loses what lies more than two bits below a float's last there; then their sum loses what a
// float has no bits for. So errors here are to two digits those that an H100 made.
template <int depth, int columns>
void add_lined_up(double (&sum)[columns], const double (&a)[depth],
                  const double (&b)[depth][columns]) {
    constexpr double least = 1e-280; // so that no unit below is zero
    constexpr double kept = 1 << 25; // units in the largest's leading bit
    double largest[columns], plain[columns], per_unit[columns];
    int32_t units[columns]; // of at most 17 numbers, each less than twice `kept`
    for (int column = 0; column < columns; ++column) {
        largest[column] = std::max(least, std::abs(sum[column]));
        plain[column] = sum[column];
    }
    for (int k = 0; k < depth; ++k)
        for (int column = 0; column < columns; ++column) {
            const double product = a[k] * b[k][column];
            largest[column] = std::max(largest[column], std::abs(product));
            plain[column] += product;
        }
    const auto cut = [](double value) { // no units in what is not finite
        return static_cast<int32_t>(std::abs(value) <= 2 * kept ? value : 0.0);
    };
    for (int column = 0; column < columns; ++column) {
        uint64_t bits;
        std::memcpy(&bits, &largest[column], sizeof bits);
        bits &= 0x7ff0000000000000u; // its leading bit alone
        double leading;
        std::memcpy(&leading, &bits, sizeof leading);
        per_unit[column] = kept / leading;
        units[column] = cut(sum[column] * per_unit[column]);
    }
    for (int k = 0; k < depth; ++k)
        for (int column = 0; column < columns; ++column)
            units[column] += cut(a[k] * b[k][column] * per_unit[column]);
    for (int column = 0; column < columns; ++column)
        sum[column] =
            std::isfinite(plain[column]) ? units[column] / per_unit[column] : plain[column];
}

// Rows of zeros add nothing to their sums where b is finite. Where a test is small most rows are:
// those beyond its last.
template <int depth> bool all_zeros(const double (&a)[depth]) {
    return std::all_of(a, a + depth, [](double value) { return value == 0.0; });
}

template <int depth, int columns> bool all_finite(const double (&b)[depth][columns]) {
    return std::all_of(b[0], b[0] + depth * columns,
                       [](double value) { return std::isfinite(value); });
}

// The registers of a lane.
struct Fragment {
    float *sum;
    const uint32_t *a, *b;
};

// sum += a b of a whole warp, where value(register, i) is one of `held` factors in a register.
template <int held, class Value> void multiply_all(void *const (&lanes)[emulator::warp_lanes]) {
    constexpr int rows = 16, columns = 8, depth = 8 * held;
    double a[rows][depth], b[depth][columns];
    const auto of = [&](int lane) { return *static_cast<const Fragment *>(lanes[lane]); };
    for (int lane = 0; lane < emulator::warp_lanes; ++lane) {
        const int group = lane / 4, first = lane % 4 * held;
        for (int half = 0; half < 2; ++half)
            for (int j = 0; j < held; ++j) {
                const int k = half * 4 * held + first + j;
                a[group][k] = Value()(of(lane).a[2 * half], j);
                a[group + 8][k] = Value()(of(lane).a[2 * half + 1], j);
                b[k][group] = Value()(of(lane).b[half], j);
            }
    }
    const bool finite = all_finite(b);
    for (int row = 0; row < rows; ++row) {
        if (finite && all_zeros(a[row]))
            continue;
        double total[columns];
        const auto sum_at = [&](int column) -> float & {
            return of(row % 8 * 4 + column / 2).sum[row / 8 * 2 + column % 2];
        };
        for (int column = 0; column < columns; ++column)
            total[column] = static_cast<double>(sum_at(column));
        add_lined_up(total, a[row], b);
        for (int column = 0; column < columns; ++column)
            sum_at(column) = towards_zero(total[column]);
    }
}

template <int held, class Value>
void multiply(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    Fragment own{sum, a, b};
    emulator::together(&own, multiply_all<held, Value>);
}

struct OfTf32 {
    double operator()(uint32_t bits, int) const {
        return static_cast<double>(as_float(bits & ~0x1fffu));
    }
};

struct OfBf16 {
    double operator()(uint32_t bits, int i) const {
        return static_cast<double>(as_float(i == 0 ? bits << 16 : bits & 0xffff0000u));
    }
};

} // namespace emulated

#endif

// The nearest of the floats with 10 bits of mantissa, as a register of a factor.
__device__ __forceinline__ uint32_t to_tf32(float value) {
#ifdef RELPROP_EMULATED
    constexpr uint32_t cut = 13;
    return (emulated::as_bits(value) + (1u << (cut - 1))) >> cut << cut;
#else
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
#endif
}

// What tensor cores read as TF32, cutting off 13 bits: nearly the nearest, in one instruction. Half
// of the last bit that is left would have to be added; this adds from 0.36 to 0.72 of it, in the
// mean of all numbers what cuts no sum short. Numbers of ten bits stay as they are, and a NaN does.
__device__ __forceinline__ uint32_t round_to_tf32(float value) {
    return __float_as_uint(value * 1.00035222f);
}

__device__ __forceinline__ float from_tf32(uint32_t bits) {
#ifdef RELPROP_EMULATED
    return emulated::as_float(bits);
#else
    return __uint_as_float(bits);
#endif
}

// Two bfloat16, the first in the lower half.
__device__ __forceinline__ uint32_t to_bf16(float first, float second) {
#ifdef RELPROP_EMULATED
    const auto nearest = [](float value) { // ties to even
        const uint32_t bits = emulated::as_bits(value);
        return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    };
    return nearest(first) | nearest(second) << 16;
#else
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
    return both;
#endif
}

// One of two bfloat16.
__device__ __forceinline__ float lower_bf16(uint32_t both) { return __uint_as_float(both << 16); }
__device__ __forceinline__ float upper_bf16(uint32_t both) {
    return __uint_as_float(both & 0xffff0000u);
}

// sum[16 x 8] += a[16 x 8] b[8 x 8] of TF32.
__device__ __forceinline__ void multiply_tf32(float (&sum)[4], const uint32_t (&a)[4],
                                              const uint32_t (&b)[2]) {
#ifdef RELPROP_EMULATED
    emulated::multiply<1, emulated::OfTf32>(sum, a, b);
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// sum[16 x 8] += a[16 x 16] b[16 x 8] of bfloat16.
__device__ __forceinline__ void multiply_bf16(float (&sum)[4], const uint32_t (&a)[4],
                                              const uint32_t (&b)[2]) {
#ifdef RELPROP_EMULATED
    emulated::multiply<2, emulated::OfBf16>(sum, a, b);
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// An address in shared memory, as instructions take it.
#ifdef RELPROP_EMULATED
using SharedAt = char *;
inline SharedAt shared_at(void *at) { return static_cast<char *>(at); }
#else
using SharedAt = uint32_t;
// Found once: the compiler, which could find it again, does not see what this does.
__device__ __forceinline__ SharedAt shared_at(const void *at) {
    SharedAt found;
    asm volatile("{ .reg .u64 there; cvta.to.shared.u64 there, %1; cvt.u32.u64 %0, there; }"
                 : "=r"(found)
                 : "l"(at));
    return found;
}
#endif

// Begins to copy 4 or 16 bytes to shared memory; zeros where they are not `held`, and then nothing
// is read, wherever `from` points. What is read `again` soon stays in the multiprocessor's own
// cache.
template <int bytes, bool again>
__device__ __forceinline__ void copy_async(SharedAt to, const void *from, bool held) {
    static_assert(bytes == 16 || (bytes == 4 && again)); // those of 4 bytes always stay
#ifdef RELPROP_EMULATED
    emulator::require_global(from);
    emulator::begin_copy(to, held ? from : nullptr, bytes);
#else
    const int read = held ? bytes : 0;
    if constexpr (again)
        asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(to), "l"(from),
                     "r"(read), "n"(bytes)
                     : "memory");
    else
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(read)
                     : "memory");
#endif
}

// Closes the group of the copies that this thread has begun since the last.
__device__ __forceinline__ void close_copies() {
#ifdef RELPROP_EMULATED
    emulator::close_copies();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until all but the `open` last groups of this thread have arrived.
template <int open> __device__ __forceinline__ void await_copies() {
#ifdef RELPROP_EMULATED
    emulator::await_copies(open);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(open) : "memory");
#endif
}

} // namespace relprop::cuda
