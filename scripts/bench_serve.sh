#!/usr/bin/env bash
# Measures bitfit serve with 10,000 tasks of all-MiniLM-L6-v2, beside its engine without HTTP, 16
# servers of one task, a transformers pipeline, and ONNX Runtime, and prints a table of ratios. The
# texts are the sentences of the movie reviews. Run nothing else meanwhile.
#
#   scripts/bench_serve.sh [--rounds N] [--seconds S] [--level LEVEL] [WORK...]
#
#   WORK           http servers one latency overload bulk; all of them by default (20 minutes)
#   --rounds N     runs of each side, in turn; 3 by default
#   --seconds S    seconds of each run; 8 by default
#   --level LEVEL  avx512, avx2 or sse2: bitfit and PyTorch use no instructions above it. ONNX
#                  Runtime has no such switch, and is left out
#
# Needs runs/movie-reviews (scripts/quickstart.sh) and, for the work `one`, Python 3 with venv: the
# Python packages are installed in target/bench (3 GB).
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd -- "$root"
case ${1:-} in -h | --help) usage "${BASH_SOURCE[0]}"; exit ;; esac
set_up
[ -f runs/movie-reviews/delta.safetensors ] \
    || die "runs/movie-reviews is missing: scripts/quickstart.sh makes it"
python=python3
case " $* " in
    *" one "*) needs_peers=1 ;;
    *" http "* | *" servers "* | *" latency "* | *" overload "* | *" bulk "*) needs_peers= ;;
    *) needs_peers=1 ;;
esac
if [ "$needs_peers" ]; then
    bench_packages
    python=$bench_venv/bin/python
fi
cargo build --release --locked --quiet --bins --example load
# Writes the tasks.
cargo bench --locked --quiet --bench tasks -- --rounds 0
exec "$python" scripts/bench_serve.py "$@"
