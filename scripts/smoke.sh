#!/usr/bin/env bash
# Trains a tiny BERT for a few seconds, evaluates it and predicts, to check that the programs find
# all libraries and files. Needs neither a network, Python nor a GPU. In packages and images, the
# script is called bitfit-smoke.
#
#   scripts/smoke.sh [--device DEVICE] [--bin FOLDER]
#
#   --device DEVICE   "auto" (the default: the first GPU, or else the CPU), "cpu", "cuda" or
#                     "cuda:N"
#   --bin FOLDER      where bitfit-train and bitfit are (the default: beside this script, or else
#                     target/release)
set -euo pipefail
here=$(cd -- "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
device=auto bin=$here
[ -x "$bin/bitfit-train" ] || bin=${CARGO_TARGET_DIR:-$here/../target}/release
while [ $# -gt 0 ]; do
    case $1 in
        --device | --bin)
            [ $# -ge 2 ] || die "$1 wants a value; see --help"
            case $1 in --device) device=$2 ;; --bin) bin=$2 ;; esac
            shift
            ;;
        -h | --help) sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit ;;
        *) die "unknown argument $1; see --help" ;;
    esac
    shift
done
model=$here/../share/bitfit/tiny-bert
[ -d "$model" ] || model=$here/../tests/golden/tiny-bert
[ -x "$bin/bitfit-train" ] \
    || die "$bin/bitfit-train: no such program; build it (cargo build --release)," \
        "or name its folder with --bin"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
    echo 'text,label'
    for what in film plot acting; do
        for very in '' 'very '; do
            for word in good great loved; do echo "the $what was $very$word,good"; done
            for word in bad awful hated; do echo "the $what was $very$word,bad"; done
        done
    done
} >"$work/rows.csv"
cat >"$work/smoke.toml" <<TOML
[model]
model_name_or_path = "$model"
hidden_dropout_prob = 0.0
attention_probs_dropout_prob = 0.0

[data]
train = "rows.csv"
eval = "rows.csv"
max_length = 16

[training]
output_dir = "run"
max_steps = 150
learning_rate = 1e-2
eval_steps = 50
device = "$device"
TOML

"$bin/bitfit-train" --config "$work/smoke.toml"
"$bin/bitfit" eval --run "$work/run" --device "$device"
for case in 'good:the plot was great' 'bad:the plot was awful'; do
    line=$("$bin/bitfit" predict --run "$work/run" --device "$device" "${case#*:}")
    printf '%s\n' "$line"
    case $line in
        *"\"label\":\"${case%%:*}\""*) ;;
        *) die "\"${case#*:}\" was expected to be ${case%%:*}" ;;
    esac
done
echo "smoke test passed" >&2
