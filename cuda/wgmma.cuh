// The instructions of Hopper's products (sm_90a): a warpgroup, four neighbouring warps, multiplies
// 64 rows of its registers with weights in shared memory, beside whatever else its threads do. Each
// with what it means where the kernels run on the host (tests/gpu/emulator).
//
// Of a 64 x n result, warp w of the group holds rows 16 w to 16 w + 15, as mma.cuh says: of each 8
// columns, four sums. Of the factors in registers as well: row g first, then g + 8, then the
// same of the second half of the summed index.
#pragma once

#include "mma.cuh"

#ifdef RELPROP_EMULATED
#include <vector>

#include "dice.hpp"
#endif

namespace relprop::cuda {

constexpr int warpgroup_threads = 128, warpgroup_rows = 64;

#ifdef RELPROP_EMULATED

namespace emulated {

// What one thread brings to a product.
struct GroupFragment {
    float *sum;
    const uint32_t *a;
    uint64_t b;
    bool add;
    bool shown; // whether the registers may be read
};

// Whether this thread's registers may be read by products: by those up to the next that closes.
inline bool &registers_shown() {
    constexpr int most_threads = 1024;
    static thread_local bool shown[most_threads];
    return shown[threadIdx.x];
}

// A product that a group has begun. The tensor cores may read registers and shared memory until it
// is waited for.
struct GroupProduct {
    void (*multiply)(const GroupFragment (&)[warpgroup_threads]);
    GroupFragment of[warpgroup_threads];
    bool closed = false;
};

// Of each group of the block that this thread of the host is running.
inline std::vector<GroupProduct> &begun() {
    constexpr int most_groups = 8;
    static thread_local std::vector<GroupProduct> products[most_groups];
    return products[threadIdx.x / warpgroup_threads];
}

inline void multiply_first(size_t count) {
    std::vector<GroupProduct> &all = begun();
    const auto end = all.begin() + static_cast<std::ptrdiff_t>(count);
    for (auto product = all.begin(); product != end; ++product)
        product->multiply(product->of);
    all.erase(all.begin(), end);
}

// Bytes of shared memory that a descriptor's row and place in it name.
inline const unsigned char *weights_at(uint64_t descriptor, int row, int byte) {
    constexpr uint64_t field = 0x3fff;
    constexpr int rows_of_step = 8;
    const bool wide = descriptor >> 62 == 1; // rows of 128 bytes, else of 64
    const uint64_t rows = (descriptor >> 32 & field) << 4;
    uint64_t at = ((descriptor & field) << 4) + static_cast<uint64_t>(row / rows_of_step) * rows +
                  static_cast<uint64_t>(row % rows_of_step * (wide ? 128 : 64) + byte);
    at ^= (at >> 7 & (wide ? 7 : 3)) << 4;
    const auto *there = static_cast<const unsigned char *>(emulator::dynamic_shared()) + at;
    emulator::require_shown(there);
    return there;
}

// Factors: 8 floats of TF32 or 16 of bfloat16.
template <int channels, int held, class Value>
void multiply_group(const GroupFragment (&of)[warpgroup_threads]) {
    constexpr int depth = 8 * held, bytes = 4 / held;
    double b[depth][channels];
    for (int column = 0; column < channels; ++column)
        for (int k = 0; k < depth; ++k) {
            uint32_t bits = 0;
            std::memcpy(&bits, weights_at(of[0].b, column, k * bytes), bytes);
            b[k][column] = Value()(bits, 0);
        }
    const bool finite = all_finite(b);
    for (int row = 0; row < warpgroup_rows; ++row) {
        const int first = row / 16 * 32 + row % 8 * 4, half = row / 8 % 2;
        double a[depth];
        for (int k = 0; k < depth; ++k) {
            const int lane = k / held % 4, second = k / held / 4;
            a[k] = Value()(of[first + lane].a[second * 2 + half], k % held);
        }
        if (finite && of[first].add && all_zeros(a))
            continue;
        double total[channels];
        const auto sum_at = [&](int column) -> float & {
            return of[first + column % 8 / 2].sum[column / 8 * 4 + half * 2 + column % 2];
        };
        for (int column = 0; column < channels; ++column)
            total[column] = of[first].add ? static_cast<double>(sum_at(column)) : 0.0;
        add_lined_up(total, a, b);
        for (int column = 0; column < channels; ++column)
            sum_at(column) = towards_zero(total[column]);
    }
}

// Done at once or when it is waited for, as the dice fall.
template <int channels, int held, class Value>
void begin_product(float *sum, const uint32_t *a, uint64_t b, bool add) {
    GroupFragment own{sum, a, b, add, registers_shown()};
    emulator::together_in_group(&own, [](void *const(&all)[warpgroup_threads]) {
        GroupProduct product{multiply_group<channels, held, Value>, {}};
        for (int thread = 0; thread < warpgroup_threads; ++thread) {
            product.of[thread] = *static_cast<const GroupFragment *>(all[thread]);
            if (!product.of[thread].shown)
                emulator::fail("tensor cores read registers that were not shown to them");
        }
        for (int row = 0; row < channels;
             ++row) // what is hidden now may be shown before it is read
            for (const int byte : {0, 16})
                weights_at(product.of[0].b, row, byte);
        begun().push_back(product);
        if (emulator::draw_below(2) == 0)
            multiply_first(begun().size());
    });
}

} // namespace emulated

#endif

// Names weights in shared memory to the tensor cores: rows of 128 or 64 bytes, whose pieces of 16
// bytes change places as place_in_slice and place_in_half_slice have it.
template <int row_bytes> __device__ __forceinline__ uint64_t descriptor_of(const void *weights) {
    static_assert(row_bytes == 128 || row_bytes == 64);
    constexpr uint64_t rows_of_step = 8, unused = 1, pieces = row_bytes == 128 ? 1 : 2;
#ifdef RELPROP_EMULATED
    const auto at = static_cast<uint64_t>(static_cast<const unsigned char *>(weights) -
                                          static_cast<unsigned char *>(emulator::dynamic_shared()));
#else
    const uint64_t at = __cvta_generic_to_shared(weights);
#endif
    return (at & 0x3ffff) >> 4 | unused << 16 | rows_of_step * row_bytes / 16 << 32 | pieces << 62;
}

// What this thread wrote to shared memory may be read by the tensor cores, and used by the copy
// engine, from the next barrier on.
__device__ __forceinline__ void show_to_tensor_cores() {
#if defined(RELPROP_WARPGROUPS) && !defined(RELPROP_EMULATED)
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// The warps of a group give registers back to their block, or take some, so that each of their
// threads has as many.
template <int registers> __device__ __forceinline__ void give_registers() {
#if defined(RELPROP_WARPGROUPS) && !defined(RELPROP_EMULATED)
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
#endif
}

template <int registers> __device__ __forceinline__ void take_registers() {
#if defined(RELPROP_WARPGROUPS) && !defined(RELPROP_EMULATED)
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
#endif
}

// Waits for the other threads of those numbered below `count`, a multiple of a group.
template <int count> __device__ __forceinline__ void sync_first() {
#ifdef RELPROP_EMULATED
    emulator::sync_first(count);
#elif defined(RELPROP_WARPGROUPS)
    asm volatile("bar.sync 1, %0;" ::"n"(count) : "memory");
#endif
}

// Between this thread's writes to registers and products that read them.
__device__ __forceinline__ void show_registers() {
#ifdef RELPROP_EMULATED
    emulated::registers_shown() = true;
#elif defined(RELPROP_WARPGROUPS)
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

// Closes the products that the group has begun since the last.
__device__ __forceinline__ void close_products() {
#ifdef RELPROP_EMULATED
    emulated::registers_shown() = false;
    emulator::together_in_group(nullptr, [](void *const(&)[warpgroup_threads]) {
        if (!emulated::begun().empty())
            emulated::begun().back().closed = true;
    });
#elif defined(RELPROP_WARPGROUPS)
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Waits until all but the `open` last of what was closed is done.
template <int open> __device__ __forceinline__ void await_products() {
#ifdef RELPROP_EMULATED
    emulator::together_in_group(nullptr, [](void *const(&)[warpgroup_threads]) {
        int left = open;
        size_t count = emulated::begun().size();
        while (count > 0 && !(emulated::begun()[count - 1].closed && left-- == 0))
            --count;
        emulated::multiply_first(count);
    });
#elif defined(RELPROP_WARPGROUPS)
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(open) : "memory");
#endif
}

#if defined(RELPROP_WARPGROUPS) && !defined(RELPROP_EMULATED)
// "+f": added to; "=f": what is there does not count, and the compiler need not keep it.
#define RELPROP_SUMS_4(f, s, i) f(s[i]), f(s[i + 1]), f(s[i + 2]), f(s[i + 3])
#define RELPROP_SUMS_16(f, s, i)                                                                   \
    RELPROP_SUMS_4(f, s, i), RELPROP_SUMS_4(f, s, i + 4), RELPROP_SUMS_4(f, s, i + 8),             \
        RELPROP_SUMS_4(f, s, i + 12)
#define RELPROP_SUMS_32(f, s, i) RELPROP_SUMS_16(f, s, i), RELPROP_SUMS_16(f, s, i + 16)
#define RELPROP_SUMS_64(f, s, i) RELPROP_SUMS_32(f, s, i), RELPROP_SUMS_32(f, s, i + 32)
#define RELPROP_SUMS_128(f, s, i) RELPROP_SUMS_64(f, s, i), RELPROP_SUMS_64(f, s, i + 64)
#define RELPROP_REGISTERS_16                                                                       \
    "%0, %1, %2, %3, %4, %5, %6, %7, "                                                             \
    "%8, %9, %10, %11, %12, %13, %14, %15"
#define RELPROP_REGISTERS_32                                                                       \
    RELPROP_REGISTERS_16 ", "                                                                      \
                         "%16, %17, %18, %19, %20, %21, %22, %23, "                                \
                         "%24, %25, %26, %27, %28, %29, %30, %31"
#define RELPROP_REGISTERS_64                                                                       \
    RELPROP_REGISTERS_32 ", "                                                                      \
                         "%32, %33, %34, %35, %36, %37, %38, %39, "                                \
                         "%40, %41, %42, %43, %44, %45, %46, %47, "                                \
                         "%48, %49, %50, %51, %52, %53, %54, %55, "                                \
                         "%56, %57, %58, %59, %60, %61, %62, %63"
#define RELPROP_REGISTERS_128                                                                      \
    RELPROP_REGISTERS_64 ", "                                                                      \
                         "%64, %65, %66, %67, %68, %69, %70, %71, "                                \
                         "%72, %73, %74, %75, %76, %77, %78, %79, "                                \
                         "%80, %81, %82, %83, %84, %85, %86, %87, "                                \
                         "%88, %89, %90, %91, %92, %93, %94, %95, "                                \
                         "%96, %97, %98, %99, %100, %101, %102, %103, "                            \
                         "%104, %105, %106, %107, %108, %109, %110, %111, "                        \
                         "%112, %113, %114, %115, %116, %117, %118, %119, "                        \
                         "%120, %121, %122, %123, %124, %125, %126, %127"
#define RELPROP_PRODUCT(f, held, a0, a1, a2, a3, b_at, add_at, shape, last)                        \
    asm volatile("{ .reg .pred add; setp.ne.b32 add, " add_at ", 0; "                              \
                 "wgmma.mma_async.sync.aligned." shape " {" RELPROP_REGISTERS_##held               \
                 "}, {" a0 ", " a1 ", " a2 ", " a3 "}, " b_at ", add, 1, 1" last "; }"             \
                 : RELPROP_SUMS_##held(f, sum, 0)                                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int{add}))
#define RELPROP_PRODUCT_16(f, shape, last)                                                         \
    RELPROP_PRODUCT(f, 16, "%16", "%17", "%18", "%19", "%20", "%21", shape, last)
#define RELPROP_PRODUCT_32(f, shape, last)                                                         \
    RELPROP_PRODUCT(f, 32, "%32", "%33", "%34", "%35", "%36", "%37", shape, last)
#define RELPROP_PRODUCT_64(f, shape, last)                                                         \
    RELPROP_PRODUCT(f, 64, "%64", "%65", "%66", "%67", "%68", "%69", shape, last)
#define RELPROP_PRODUCT_128(f, shape, last)                                                        \
    RELPROP_PRODUCT(f, 128, "%128", "%129", "%130", "%131", "%132", "%133", shape, last)
// Of as many columns as `sum` holds.
#define RELPROP_PRODUCT_OF(f, depth, last)                                                         \
    static_assert(held == 16 || held == 32 || held == 64 || held == 128);                          \
    if constexpr (held == 16)                                                                      \
        RELPROP_PRODUCT_16(f, "m64n32" depth, last);                                               \
    else if constexpr (held == 32)                                                                 \
        RELPROP_PRODUCT_32(f, "m64n64" depth, last);                                               \
    else if constexpr (held == 64)                                                                 \
        RELPROP_PRODUCT_64(f, "m64n128" depth, last);                                              \
    else                                                                                           \
        RELPROP_PRODUCT_128(f, "m64n256" depth, last)
#endif

// Begins sum[64 x n] += a[64 x 8] b[8 x n] of TF32, n being 32, 64, 128 or 256. The sums and a
// must stay as they are until it is waited for.
template <int held>
__device__ __forceinline__ void multiply_warpgroup_tf32(float (&sum)[held], const uint32_t (&a)[4],
                                                        uint64_t b) {
    [[maybe_unused]] constexpr bool add = true;
#ifdef RELPROP_EMULATED
    emulated::begin_product<2 * held, 1, emulated::OfTf32>(sum, a, b, add);
#elif defined(RELPROP_WARPGROUPS)
    RELPROP_PRODUCT_OF("+f", "k8.f32.tf32.tf32", "");
#endif
}

// Begins sum[64 x n] += a[64 x 16] b[16 x n] of bfloat16.
template <int held>
__device__ __forceinline__ void multiply_warpgroup_bf16(float (&sum)[held], const uint32_t (&a)[4],
                                                        uint64_t b) {
    [[maybe_unused]] constexpr bool add = true;
#ifdef RELPROP_EMULATED
    emulated::begin_product<2 * held, 2, emulated::OfBf16>(sum, a, b, add);
#elif defined(RELPROP_WARPGROUPS)
    RELPROP_PRODUCT_OF("+f", "k16.f32.bf16.bf16", ", 0");
#endif
}

// Begins sum = a b of bfloat16.
template <int held>
__device__ __forceinline__ void begin_warpgroup_bf16(float (&sum)[held], const uint32_t (&a)[4],
                                                     uint64_t b) {
    [[maybe_unused]] constexpr bool add = false;
#ifdef RELPROP_EMULATED
    emulated::begin_product<2 * held, 2, emulated::OfBf16>(sum, a, b, add);
#elif defined(RELPROP_WARPGROUPS)
    RELPROP_PRODUCT_OF("=f", "k16.f32.bf16.bf16", ", 0");
#endif
}

} // namespace relprop::cuda
