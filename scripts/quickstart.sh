#!/usr/bin/env bash
# From an empty machine to a trained classifier: libtorch, a BERT, movie reviews, the build, training, predictions.
#
#   scripts/quickstart.sh
#
# It downloads 0.6 GB and needs 3 GB of disk. The first build takes 5 to 10 minutes on 2 cores, the training another 5; a
# second run only trains. On a GPU machine, run scripts/download_libtorch.sh --cuda first.
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
[ -f "$model/model.ot" ] || target/release/bitfit convert --model "$model" --output "$model/model.ot"
target/release/bitfit-train --config configs/movie-reviews.toml --overwrite
say "the evaluation again, from the base and runs/movie-reviews/delta.safetensors:"
target/release/bitfit eval --run runs/movie-reviews
say "and some predictions:"
target/release/bitfit predict --run runs/movie-reviews \
    "A warm, funny and beautifully acted film." \
    "Two hours of my life that nobody will give back." \
    "Not as bad as the critics said."
say "now one of your own: target/release/bitfit predict --run runs/movie-reviews \"...\""
