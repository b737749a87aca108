// Inlines a function into the functions of every level, so that it has no code of its own, and into
// the kernels for CUDA.
#pragma once

#ifdef __CUDACC_RTC__
#define BITFIT_INLINE static __device__ __forceinline__
#define BITFIT_INLINE_METHOD __device__ __forceinline__
#else
#define BITFIT_INLINE static inline __attribute__((always_inline))
#define BITFIT_INLINE_METHOD inline __attribute__((always_inline))
#endif
