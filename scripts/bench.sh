#!/usr/bin/env bash
# Compares the speed of bitfit with that of Python (torch, transformers and peft, in
# scripts/bench_peer.py) on the same data, and prints a table of medians and ratios: README's
# figures. Runs of both alternate. Run nothing else meanwhile. All work takes an hour on 2 cores.
#
#   scripts/bench.sh [--rounds N] [--level LEVEL] [WORK...]
#
#   WORK           imdb imdb-no-dropout sst2 bert-base predict onnx growth keys; all of them by
#                  default. tasks: 10,000 tasks in one process; needs no Python and runs alone
#   --rounds N     runs of each program, 3 by default
#   --level LEVEL  avx512, avx2 or sse2: bitfit and PyTorch use no instructions above it. ONNX
#                  Runtime has no such switch: with --level, the work onnx is left out
#
# Needs Python 3 with venv: the Python packages are installed in target/bench (3 GB). IMDb and SST-2
# are downloaded if data/ has no copy.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd -- "$root"
case ${1:-} in -h | --help) usage "${BASH_SOURCE[0]}"; exit ;; esac
set_up
case "$*" in
    tasks) exec cargo bench --locked --bench tasks ;;
    "--rounds "*" tasks") exec cargo bench --locked --bench tasks -- --rounds "$2" ;;
esac
[ -d data/aclImdb ] || scripts/download_imdb.sh
[ -d data/glue/SST-2 ] || scripts/download_glue.sh SST-2
bench_packages
if [ ! -f target/bench/bert-base/config.json ]; then
    "$bench_venv/bin/python" scripts/bench_peer.py --model models/all-MiniLM-L6-v2 --rows 0 \
        --make-random target/bench/bert-base
fi
cargo build --release --locked --quiet
exec "$bench_venv/bin/python" scripts/bench.py "$@"
