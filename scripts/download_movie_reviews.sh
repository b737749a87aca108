#!/usr/bin/env bash
# Downloads sentences from movie reviews, rated by people, to data/movie-reviews: train.tsv and
# eval.tsv with the columns text and label (positive, negative).
#
#   scripts/download_movie_reviews.sh [--from FOLDER]
#
# The sentences are the movie-review snippets that Hutto and Gilbert (ICWSM 2014) had rated from -4
# to 4. They come from the PyPI package vaderSentiment 0.5 (MIT), pinned. --from takes the package's
# file from a folder instead. The 9,173 of 10,605 sentences rated -1 or lower, or 1 or higher, are
# kept. About one in ten, chosen by the hash of its text, is for evaluation. If the data is
# complete, the script does nothing.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
from_argument "${BASH_SOURCE[0]}" "$@"

archive=vaderSentiment-0.5.zip
hash=5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a
data=$root/data/movie-reviews
there() { [ -f "$data/train.tsv" ] && [ -f "$data/eval.tsv" ]; }
there || alone "$root/data"
if there; then
    say "the movie reviews are in $data"
    exit
fi
[ ! -e "$data" ] || die "$data is there and is not the whole data; move it away"
need_python
fetch vaderSentiment==0.5 "$hash" "$archive" "$from"
new=$(mktemp -d "$root/data/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT
python3 - "$cache/$archive" "$new" <<'PYTHON'
import hashlib, io, pathlib, sys, tarfile, zipfile

archive, folder = sys.argv[1], pathlib.Path(sys.argv[2])
packed = zipfile.ZipFile(archive).read(
    "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
)
with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
    end = "/movieReviewSnippets_GroundTruth.txt"
    name = next(n for n in tar.getnames() if n.endswith(end) and "/._" not in n)
    lines = tar.extractfile(name).read().decode("utf-8", "replace").split("\n")
parts = {"train": ["text\tlabel"], "eval": ["text\tlabel"]}
for line in lines:
    fields = line.rstrip("\r").split("\t")
    if len(fields) < 3 or abs(float(fields[1])) < 1:
        continue
    text = " ".join(fields[2].split())
    part = "eval" if hashlib.sha256(text.encode()).digest()[0] % 10 == 0 else "train"
    parts[part].append(f"{text}\t{'positive' if float(fields[1]) > 0 else 'negative'}")
for part, rows in parts.items():
    (folder / f"{part}.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    print(f"{part}: {len(rows) - 1} sentences", file=sys.stderr)
PYTHON
chmod 755 "$new"
mv -T "$new" "$data"
trap - EXIT
say "the movie reviews are in $data"
