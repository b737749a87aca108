// Inlines a function into the functions of every level, so that it has no code of its own.
#pragma once

#define BITFIT_INLINE static inline __attribute__((always_inline))
#define BITFIT_INLINE_METHOD inline __attribute__((always_inline))
