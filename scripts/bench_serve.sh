#!/usr/bin/env bash
# Measures bitfit serve with 10,000 tasks of all-MiniLM-L6-v2, beside its engine without HTTP, 16
# servers of one task, a transformers pipeline, and ONNX Runtime, and prints a table of ratios. The
# texts are the sentences of the movie reviews. Run nothing else meanwhile.
#
#   scripts/bench_serve.sh [--rounds N] [--seconds S] [WORK...]
#
#   WORK         http servers one latency overload bulk; all of them by default (20 minutes)
#   --rounds N   runs of each side, in turn; 3 by default
#   --seconds S  seconds of each run; 8 by default
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
venv=target/bench/venv
case " $* " in
    *" one "*) python=$venv/bin/python ;;
    *" http "* | *" servers "* | *" latency "* | *" overload "* | *" bulk "*) python=python3 ;;
    *) python=$venv/bin/python ;;
esac
if [ "$python" != python3 ] && ! "$python" -c 'import torch, transformers, onnxruntime' 2>/dev/null
then
    say "installing the Python packages"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet torch==2.13.0 transformers==4.57.6 onnx==1.23.2 \
        onnxruntime==1.32.0
fi
cargo build --release --locked --quiet --bins --example load
# Writes the tasks.
cargo bench --locked --quiet --bench tasks -- --rounds 0
exec "$python" scripts/bench_serve.py "$@"
