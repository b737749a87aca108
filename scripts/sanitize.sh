#!/usr/bin/env bash
# Runs the tests of the C++ code with AddressSanitizer and UndefinedBehaviorSanitizer compiled into
# that code: memory that it does not own, overflows, null pointers. Needs libtorch
# (scripts/test.sh downloads it) and gcc. The first build takes 10 minutes.
#
#   scripts/sanitize.sh [FILTER...]
#
#   FILTER  a test or a module of tests; by default native:: and bank::
#
# Builds into target/sanitize; CARGO_TARGET_DIR names another folder.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
case ${1:-} in
    -h | --help) usage "${BASH_SOURCE[0]}"; exit ;;
    -*) die "unknown argument $1; see --help" ;;
esac
cd -- "$root"
need gcc "On Debian or Ubuntu: sudo apt-get install gcc"
filters=("$@")
[ $# -gt 0 ] || filters=(native:: bank::)
libraries=()
for library in libasan.so libubsan.so; do
    path=$(gcc -print-file-name="$library")
    [ -f "$path" ] || die "gcc has no $library; on Debian or Ubuntu it comes with gcc"
    libraries+=("$path")
done
# C++ code that is not compiled here, libtorch's, keeps memory until the process ends.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 BITFIT_CXX_CHECKS=sanitize
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/sanitize}

say "building"
tests=$("${CARGO:-cargo}" test --release --locked --no-run \
    --message-format=json-render-diagnostics \
    | sed -n 's/.*"executable":"\([^"]*\/tests-[^"]*\)".*/\1/p')
[ -x "$tests" ] || die "cargo built no test binary"
# Only the tests get the libraries: cargo and rustc would be slow with them.
LD_PRELOAD="${libraries[*]}" "$tests" "${filters[@]}"
