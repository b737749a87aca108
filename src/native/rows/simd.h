// How loops over rows are compiled.
#pragma once

// Compiles a function for several x86-64 levels. The loader picks one. ASan's memory does not exist
// yet while the loader picks, so a build with ASan has one level.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define BITFIT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define BITFIT_CLONES
#endif
// Inlines a function into each of these clones.
#define BITFIT_INLINE static inline __attribute__((always_inline))
