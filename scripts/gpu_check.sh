#!/usr/bin/env bash
# Tests bitfit on a GPU and compares its speed there with that of transformers.
#
#   scripts/gpu_check.sh bundle DIR     on a machine without a GPU: makes DIR (15 MiB); copy it to a
#                                       machine with a GPU
#   DIR/gpu_check.sh run OUT            on the machine with the GPU, 9 minutes: writes results.json,
#                                       the tests' output and tracebacks to OUT
#   DIR/gpu_check.sh rehearse OUT       like run, with a tiny model on a machine without a GPU
#   scripts/gpu_check.sh run OUT        on a machine with a GPU that can build bitfit: tests this
#                                       tree's own build
#   scripts/gpu_check.sh rehearse OUT   like that, with a tiny model on a machine without a GPU
#
# Options after OUT are session.py's: --minutes N, --rounds N, --only STAGE,...
#
# For a bundle, the machine with the GPU needs Python with torch 2.11.0 for CUDA 13, transformers
# and peft. It needs neither Rust nor a network. The bundle is therefore built from HEAD against
# libtorch 2.11.0, with tch 0.24.0, whose sources differ from this tree's version only in generated
# operations. For this tree's build, Python needs the torch of the same version as libtorch.
set -euo pipefail
# With CDPATH set, cd may change to another directory and print its path.
unset CDPATH
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

# rewrite FILE FROM TO: replaces the text FROM, which FILE must contain.
rewrite() {
    grep -qF -- "$2" "$1" || die "$1 has no $2: change scripts/gpu_check.sh"
    python3 - "$@" <<'PYTHON'
import pathlib, sys
file, old, new = sys.argv[1:]
path = pathlib.Path(file)
path.write_text(path.read_text().replace(old, new))
PYTHON
}

# fetch_cupti DIR: unpacks NVIDIA's CUPTI, with which kernels are counted, in DIR.
fetch_cupti() {
    local linux=manylinux2014_x86_64.manylinux_2_17_x86_64 wheel
    fetch nvidia-cuda-runtime==13.0.96 \
        7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548 \
        "nvidia_cuda_runtime-13.0.96-py3-none-$linux.whl"
    fetch nvidia-cuda-cupti==13.0.85 \
        4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8 \
        nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl
    fetch nvidia-cuda-crt==13.0.88 \
        2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4 \
        "nvidia_cuda_crt-13.0.88-py3-none-$linux.whl"
    for wheel in runtime cupti crt; do
        unpack "$cache"/nvidia_cuda_"$wheel"-13.0.*.whl "$1"
    done
}

# build: builds the tree in the working directory, and prints the path of the tests' program.
build() {
    cargo build --release --bins --tests --message-format=json-render-diagnostics \
        | python3 -c '
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if m.get("reason") == "compiler-artifact" and m["target"]["name"] == "tests":
        if m.get("executable"):
            print(m["executable"])'
}

# complete DIR CUPTI: adds to DIR, which has the programs, what session.py needs beside them.
complete() {
    g++ -O2 -std=c++17 -shared -fPIC -I"$2/nvidia/cu13/include" "$here/gpu_check/kernels.cpp" \
        -o "$1/libkernels.so" -L"$2/nvidia/cu13/lib" -l:libcupti.so.13
    [ -f "$root/models/all-MiniLM-L6-v2/vocab.txt" ] || "$here/download_model.sh"
    cp "$root/models/all-MiniLM-L6-v2/vocab.txt" "$here"/gpu_check/*.py "$1/"
}

bundle() {
    # shellcheck source=scripts/common.sh
    . "$here/common.sh"
    local out work tests
    out=$(mkdir -p "$1" && cd "$1" && pwd)
    work=$root/target/gpu-check
    rm -rf "$work/tree"
    mkdir -p "$work/tree"
    fetch torch==2.11.0 7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a \
        torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl
    fetch_cupti "$work/cupti"
    if [ ! -f "$work/libtorch/torch/build-version" ]; then
        # torch's wheel alone is enough to link.
        unpack "$cache"/torch-2.11.0-*.whl "$work/libtorch" torch/lib/ torch/include/
        # As for a build for the CPU, which loads libtorch_cuda.so where it runs.
        rm -f "$work"/libtorch/torch/lib/lib{torch_python,torch_cuda,torch_cuda_linalg,c10_cuda}.so
        echo 'INPUT(-ltorch_cpu)' >"$work/libtorch/torch/lib/libtorch.so"
        echo 2.11.0+cpu >"$work/libtorch/torch/build-version"
    fi

    git -C "$root" archive HEAD | tar -x -C "$work/tree"
    cd "$work/tree"
    rewrite Cargo.toml 'tch = { version = "=0.26.0"' 'tch = { version = "=0.24.0"'
    rewrite build.rs 'const VERSION: &str = "2.13.0";' 'const VERSION: &str = "2.11.0";'
    export LIBTORCH=$work/libtorch/torch CARGO_TARGET_DIR=$work/target
    cargo update --quiet -p tch --precise 0.24.0
    tests=$(build)

    rm -rf "${out:?}"/{bin,tree}
    mkdir -p "$out/bin" "$out/tree"
    strip -o "$out/bin/bitfit" "$work/target/release/bitfit"
    strip -o "$out/bin/bitfit-train" "$work/target/release/bitfit-train"
    strip -o "$out/bin/tests" "$tests"
    tar -C "$out" -cJf "$out/bin.tar.xz" bin && rm -r "${out:?}/bin"
    # The tests look for their files and the programs in the folders of the build.
    cp -r tests configs docs scripts README.md "$out/tree/"
    printf '%s\n%s\n' "$work/tree" "$work/target/release" >"$out/built-in"
    git -C "$root" rev-parse HEAD >"$out/commit"
    complete "$out" "$work/cupti"
    cp "$here/gpu_check.sh" "$out/"
    du -sh "$out" >&2
}

# link FROM TO: makes FROM a link to TO, unless FROM exists.
link() {
    [ -e "$1" ] || { mkdir -p "$(dirname "$1")" && ln -s "$2" "$1"; }
}

# of_this_tree: builds this tree, and makes target/gpu-check/own with its programs.
of_this_tree() {
    # shellcheck source=scripts/common.sh
    . "$here/common.sh"
    local own=$root/target/gpu-check/own tests
    cd "$root"
    tests=$(build)
    mkdir -p "$own/bin"
    ln -sf "$root/target/release/bitfit" "$root/target/release/bitfit-train" "$own/bin/"
    ln -sf "$tests" "$own/bin/tests"
    fetch_cupti "$root/target/gpu-check/cupti"
    complete "$own" "$root/target/gpu-check/cupti"
    bundle=$own
}

# of_a_bundle: prepares the programs of the bundle that this script lies in.
of_a_bundle() {
    local torch site built
    torch=$(python3 -c '
import importlib.util
print(importlib.util.find_spec("torch").submodule_search_locations[0])')
    # These folders come before the programs' own RUNPATH. libtorch_cuda.so finds NVIDIA's libraries
    # beside torch.
    site=$(dirname "$torch")
    export LD_LIBRARY_PATH=$torch/lib:$site/nvidia/cu13/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    [ -x "$here/bin/bitfit" ] || tar -xJf "$here/bin.tar.xz" -C "$here"
    mapfile -t built <"$here/built-in"
    link "${built[0]}" "$here/tree"
    link "${built[1]}" "$here/bin"
    bundle=$here
}

run() {
    local bundle out
    out=$(mkdir -p "$1" && cd "$1" && pwd)
    if [ -f "$here/bin.tar.xz" ]; then of_a_bundle; else of_this_tree; fi
    export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
    exec timeout -k 5 570 python3 "$bundle/session.py" --bundle "$bundle" --out "$out" "${@:2}" 2>&1
}

case ${1:-}:$# in
    bundle:2) bundle "$2" ;;
    run:[2-9]) run "${@:2}" ;;
    rehearse:[2-9]) run "${@:2}" --cpu ;;
    *) sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" ;;
esac
