#!/usr/bin/env bash
# Checks format and clippy, runs all tests and the smoke test, and builds the documentation. First
# downloads what is missing: libtorch, a small real model and the movie reviews.
#
#   scripts/test.sh
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd -- "$root"
case ${1:-} in
    '') ;;
    -h | --help) usage "${BASH_SOURCE[0]}"; exit ;;
    *)
        die "unknown argument $1; this script takes none" \
            "(for single tests: cargo test --release NAME)"
        ;;
esac
set_up
for part in fmt clippy; do
    cargo "$part" --version >/dev/null 2>&1 \
        || die "cargo $part is missing: rustup component add rustfmt clippy"
done

say "format"
cargo fmt --check
say "clippy"
# Everything uses the release profile, so that torch-sys, which takes 5 minutes, is compiled once.
cargo clippy --release --locked --all-targets --quiet -- -D warnings
if [ "$(uname -sm)" = "Linux x86_64" ]; then
    say "NVRTC, which compiles the kernels for GPUs"
    # The version of libtorch's CUDA.
    fetch nvidia-cuda-nvrtc==13.0.88 \
        ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575 \
        nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl
    nvrtc=$root/target/nvrtc
    if [ ! -f "$nvrtc/nvidia/cu13/lib/libnvrtc.so.13" ]; then
        unpack "$cache"/nvidia_cuda_nvrtc-13.0.88-*.whl "$nvrtc" nvidia/cu13/lib/
    fi
    export BITFIT_NVRTC=$nvrtc/nvidia/cu13/lib/libnvrtc.so.13
fi
say "tests"
cargo test --release --locked --test tests
cargo test --release --locked --doc
# The next lower level of processor computes as well as the machine's own.
level=sse2
if grep -qw avx512f /proc/cpuinfo 2>/dev/null; then level=avx2; fi
if [ "$(uname -m)" = x86_64 ]; then
    say "parity and resuming at the level $level"
    BITFIT_CPU_LEVEL=$level cargo test --release --locked --test tests -- golden:: native:: resume::
fi
say "the library without its features, and with each alone"
cargo test --release --locked --no-default-features --test lean
# doc-only: checking needs no libtorch and none of the C++ side.
for feature in cli compare hub parquet serve doc-only; do
    cargo clippy --release --locked --no-default-features \
        --features "doc-only $feature" --quiet -- -D warnings
done
say "the smoke test of packages and images"
scripts/smoke.sh
say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --no-deps --quiet
say "all passed"
