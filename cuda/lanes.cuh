// One float or four neighbours, which a thread loads and stores at once where they are aligned.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>
#include <vector>

#include <cuda_runtime.h>

namespace relprop::cuda {

template <int width> struct alignas(4 * width) Lanes {
    float at[width];
};

template <int width> __device__ Lanes<width> load(const float *from) {
    return *reinterpret_cast<const Lanes<width> *>(from);
}

template <int width> __device__ void store(float *to, const Lanes<width> &values) {
    *reinterpret_cast<Lanes<width> *>(to) = values;
}

// Has the second-level cache bring the line that holds this.
__device__ __forceinline__ void ask_for([[maybe_unused]] const float *there) {
#ifdef __CUDA_ARCH__
    asm volatile("prefetch.global.L2 [%0];" ::"l"(there));
#endif
}

template <int width> using Width = std::integral_constant<int, width>;

// Calls body(Width<4>) where the pointers are aligned and the counts are multiples of four, and
// body(Width<1>) elsewhere. A null pointer is aligned.
template <class Body>
void with_width(const std::vector<const float *> &pointers, std::initializer_list<int64_t> counts,
                const Body &body) {
    bool fours = true;
    for (const float *pointer : pointers)
        fours = fours && reinterpret_cast<uintptr_t>(pointer) % sizeof(Lanes<4>) == 0;
    for (const int64_t count : counts)
        fours = fours && count % 4 == 0;
    if (fours)
        body(Width<4>{});
    else
        body(Width<1>{});
}

} // namespace relprop::cuda
