// The one macro that lets a function be compiled for the host by any C++ compiler and for host
// and device by nvcc. Included by rules.hpp and layers.hpp, which both devices share.
#pragma once

#ifdef __CUDACC__
#define RELPROP_HD static __host__ __device__ __forceinline__
#else
// Internal linkage and always inlined: the kernels are compiled once per instruction set, and a
// merged out-of-line copy could hold instructions that the machine lacks.
#define RELPROP_HD [[gnu::always_inline]] static inline
#endif
