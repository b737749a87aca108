#!/usr/bin/env bash
# Kills runs at random moments, resumes them until they end, and checks that the task file has the
# same bytes as that of an undisturbed run.
#
#   scripts/kill_test.sh [RUNS] [--signal KILL|TERM] [--disk-full]
#
#   RUNS           the number of runs, 100 by default
#   --signal TERM  ask runs to end instead of killing them
#   --disk-full    limit the size of files in each attempt, as on a disk that fills up
#
# Each run trains a random tiny BERT with dropout, gradient accumulation, warm-up and a cosine
# schedule. It is killed several times, at random moments: at its start, in steps, in evaluations,
# and while it saves. metrics.jsonl must be the same too, except for times.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
runs=100 signal=KILL full=
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage "${BASH_SOURCE[0]}"; exit ;;
        --signal) signal=${2:?}; shift ;;
        --disk-full) full=1 ;;
        *[!0-9]*) die "unknown argument $1; see --help" ;;
        *) runs=$1 ;;
    esac
    shift
done
cd -- "$root"
need_python
[ -x target/release/bitfit-train ] || cargo build --release --locked
program=$root/target/release/bitfit-train
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r tests/golden/tiny-bert "$work/base"
cd -- "$work"
rows() {
    local i
    printf 'text\tlabel\n'
    for ((i = 0; i < $1; i++)); do
        case $((i % 3)) in
            0) printf 'the film was very good and the plot was great\tpositive\n' ;;
            1) printf 'the acting was awful\tnegative\n' ;;
            2) printf 'the plot was very bad and it was hated film number %s\tnegative\n' "$i" ;;
        esac
    done
}
rows 150 >train.tsv
rows 48 >eval.tsv
cat >config.toml <<'TOML'
[model]
model_name_or_path = "base"
[data]
train = "train.tsv"
eval = "eval.tsv"
max_length = 32
[training]
output_dir = "undisturbed"
per_device_train_batch_size = 4
gradient_accumulation_steps = 2
num_train_epochs = 4
learning_rate = 1e-2
lr_scheduler_type = "cosine"
warmup_ratio = 0.1
eval_steps = 7
save_steps = 5
logging_steps = 1
TOML
# One thread leaves the other cores to other programs, and tests as much.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive RUST_LOG=error
began=$(date +%s%N)
"$program" --config config.toml 2>/dev/null
# The duration of a run in milliseconds; kills are spread over it.
long=$((($(date +%s%N) - began) / 1000000))
timeless() { sed -E 's/,?"(tokens_per_second|seconds)":[^,}]*//g' "$1"; }
good=0 attempts=0
for ((run = 1; run <= runs; run++)); do
    out=run-$run
    for ((kill = 0; kill < 4; kill++)); do
        after=$((RANDOM % (long * 6 / 5)))
        limit=unlimited
        # In blocks of 1024 bytes: enough for a checkpoint, and each time for more of metrics.jsonl.
        [ -z "$full" ] || limit=$((12 + kill))
        # The braces keep the shell from reporting each killed process.
        { (
            ulimit -f "$limit"
            exec timeout --preserve-status -s "$signal" \
                "$((after / 1000)).$(printf %03d $((after % 1000)))" \
                "$program" --config config.toml --set training.output_dir="$out" --resume
        ) || attempts=$((attempts + 1)); } >/dev/null 2>&1
    done
    "$program" --config config.toml --set training.output_dir="$out" --resume 2>"$out.log" \
        || die "run $run failed: $(cat "$out.log")"
    if cmp -s undisturbed/delta.safetensors "$out/delta.safetensors" \
        && cmp -s <(timeless undisturbed/metrics.jsonl) <(timeless "$out/metrics.jsonl"); then
        good=$((good + 1))
    else
        say "run $run ended in other bytes"
    fi
    rm -rf "$out"
    [ $((run % 10)) -ne 0 ] || say "$run runs, ended early $attempts times: $good the same"
done
say "$good of $runs runs ended in the undisturbed run's bytes, after $attempts early ends"
[ "$good" -eq "$runs" ]
