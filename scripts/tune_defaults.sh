#!/usr/bin/env bash
# Measures bitfit's defaults on sets of labelled texts, beside what a person would do instead, and
# prints the tables of docs/defaults.md and docs/calibration.md.
#
#   scripts/tune_defaults.sh --data DIR [--ways before,default,probe,...] [--rows 100,1000]
#       [--sets NAME,...] [--seeds 1,2,3] [--level avx2] [--table]
#
# DIR has a folder for each set: train.jsonl, test.jsonl (text, label, and text_pair for pairs) and
# set.json ({"task": "classification"}, "multi_label" or "regression"). The repository ships no
# sets; docs/defaults.md says where ours are from. Each result is a line of
# DIR/results-defaults.jsonl, and a second call measures only what is missing. --table prints the
# tables of all results.
#
#   before      one rate of 1e-3, 3 epochs, the first token
#   default     three keys: model, training rows, output directory
#   grid        12 runs: rates x schedules x epochs, of which the held-out rows choose one
#   probe       scikit-learn's logistic or ridge regression on the base's frozen mean embeddings
#   setfit      SetFit with its defaults
#   calibrated  the default, with a third of the training rows for a calibration
#   weights     the default, with balanced class weights
#   windows     the default, reading long texts in windows
#   tune        bitfit tune, in a quarter of the runs of the grid
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
case ${1:-} in
    -h | --help) usage "${BASH_SOURCE[0]}"; exit ;;
esac
cd -- "$root"
set_up
bench_packages
if ! "$bench_venv/bin/python" -c 'import sklearn' 2>/dev/null; then
    "$bench_venv/bin/pip" install --quiet scikit-learn==1.9.1
fi
case " $* " in
    *setfit*)
        # setfit needs packages that the others do not need, and huggingface-hub below 1.0.
        "$bench_venv/bin/python" -c 'import setfit' 2>/dev/null \
            || "$bench_venv/bin/pip" install --quiet setfit==1.2.0 datasets==4.4.2 \
                'huggingface-hub<1.0' pandas==3.1.1
        ;;
esac
cargo build --release --locked
"$bench_venv/bin/python" scripts/tune_defaults.py "$@"
