#!/usr/bin/env bash
# Trains a classifier on a new machine: downloads libtorch, a BERT and movie reviews, builds bitfit,
# trains and predicts.
#
#   scripts/quickstart.sh
#
# The script downloads 0.6 GB and needs 3 GB of disk. On 2 cores, the first build takes 5 to 10
# minutes and the training 5 more. A second run only trains and predicts. On a machine with a GPU,
# run scripts/download_libtorch.sh --cuda first.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
case ${1:-} in
    '') ;;
    -h | --help) usage "${BASH_SOURCE[0]}"; exit ;;
    *) die "unknown argument $1; see --help" ;;
esac
cd -- "$root"
set_up

say "building (the first time, torch-sys alone takes some 5 minutes)"
cargo build --release --locked
model=models/all-MiniLM-L6-v2
[ -f "$model/model.ot" ] \
    || target/release/bitfit convert --model "$model" --output "$model/model.ot"
target/release/bitfit-train --config configs/movie-reviews.toml --overwrite
say "the evaluation again, from the base and runs/movie-reviews/delta.safetensors:"
target/release/bitfit eval --run runs/movie-reviews
say "and some predictions:"
target/release/bitfit predict --run runs/movie-reviews \
    "A warm, funny and beautifully acted film." \
    "Two hours of my life that nobody will give back." \
    "Not as bad as the critics said."
say "now one of your own: target/release/bitfit predict --run runs/movie-reviews \"...\""
