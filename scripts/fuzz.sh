#!/usr/bin/env bash
# Fuzzes the readers of files, each target of fuzz/fuzz_targets in turn. An input fails if it causes
# a panic, a hang or more than 2 GiB of memory. Needs libtorch (scripts/test.sh downloads it), a
# nightly Rust and cargo-fuzz. The first build takes 15 minutes.
#
#   scripts/fuzz.sh [TARGET...] [--seconds N]
#
# A target runs for N seconds (60 by default), or until it has tried 1,000,000 inputs for each
# minute of that time. It starts from the seeds in fuzz/corpus and the inputs that earlier runs
# found, in fuzz/target/corpus. Inputs that fail are kept in fuzz/artifacts.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd -- "$root"
seconds=60 targets=()
while [ $# -gt 0 ]; do
    case $1 in
        --seconds)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "--seconds wants a number"
            seconds=$2
            shift
            ;;
        -h | --help) usage "${BASH_SOURCE[0]}"; exit ;;
        *)
            [ -f "fuzz/fuzz_targets/$1.rs" ] || die "unknown argument $1; see --help"
            targets+=("$1")
            ;;
    esac
    shift
done
if [ ${#targets[@]} -eq 0 ]; then
    for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
cargo +nightly --version >/dev/null 2>&1 \
    || die "nightly Rust is missing: rustup toolchain install nightly"
cargo fuzz --version >/dev/null 2>&1 || die "cargo-fuzz is missing: cargo install cargo-fuzz"
alone fuzz/target

# Inputs are written to files, if possible in memory.
place=$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")
TMPDIR=$(mktemp -d -p "$place" bitfit-fuzz.XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
# libtorch frees some memory only at exit, so leaks are not detected. Stack traces of allocations
# would take a third of the time.
export ASAN_OPTIONS=detect_leaks=0:malloc_context_size=1

say "building"
cargo +nightly fuzz build >&2
failed=0
for target in "${targets[@]}"; do
    mkdir -p "fuzz/target/corpus/$target" "fuzz/artifacts/$target" "fuzz/corpus/$target"
    log=fuzz/target/$target.log result=ok
    # New inputs go into the first folder.
    cargo +nightly fuzz run "$target" "fuzz/target/corpus/$target" "fuzz/corpus/$target" -- \
        -runs=$((seconds * 1000000 / 60)) -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=2048 -malloc_limit_mb=2048 -detect_leaks=0 -print_final_stats=1 \
        >"$log" 2>&1 || result=FAILED failed=1
    figure() { awk -v key="stat::$1:" '$1 == key {print $2}' "$log"; }
    printf '%s: %s inputs, %s/s, %s MiB, %s\n' "$target" "$(figure number_of_executed_units)" \
        "$(figure average_exec_per_sec)" "$(figure peak_rss_mb)" "$result"
    if [ "$result" != ok ]; then
        say "$log:"
        grep -E 'panicked at|^assertion|^==.*ERROR|^SUMMARY|Test unit written to' "$log" >&2 \
            || tail -n 20 "$log" >&2
    fi
done
exit "$failed"
