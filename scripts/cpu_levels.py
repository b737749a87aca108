"""The levels of processor that a benchmark can be limited to."""

import os

# The limits that bring PyTorch's libraries to a level; bitfit sets its own by the same values.
# ONNX Runtime has no such switch.
LEVELS = {
    "avx512": {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "sse2": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
}


def limit_to(level):
    """Limits this process's libraries, and the programs that it starts, to `level`, if given."""
    if level:
        os.environ.update({"BITFIT_CPU_LEVEL": level, **LEVELS[level]})


def level():
    """The level in use: the one that was set, or the highest that the processor has."""
    features = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            features = file.read()
    highest = next((name for name in ("avx512", "avx2") if name in features), "sse2")
    return os.environ.get("BITFIT_CPU_LEVEL") or highest
