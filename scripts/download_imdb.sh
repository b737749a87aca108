#!/usr/bin/env bash
# Downloads the Large Movie Review Dataset (Maas et al., ACL 2011) to data/aclImdb: 50,000 reviews
# from IMDb as {train,test}/{pos,neg}/ID_RATING.txt, 12,500 in each folder. The 50,000 unlabelled
# reviews and the feature files are left out.
#
#   scripts/download_imdb.sh [--from FILE]
#
# The archive comes from the authors' site (84 MB, pinned). --from uses a local copy instead:
# aclImdb_v1.tar.gz itself, or another tar archive (.tar, .gz, .xz, .bz2, .zst) that contains
# aclImdb/{train,test}/{pos,neg}. In another archive, only the number of reviews is checked.
# Downloads are kept in ${XDG_CACHE_HOME:-~/.cache}/bitfit (or $BITFIT_CACHE). If the data is
# complete, the script does nothing.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

from=''
case ${1:-} in
    '') [ $# -eq 0 ] || die "an empty argument; see --help" ;;
    --from) { [ $# -eq 2 ] && [ -f "$2" ]; } || die "--from wants a file"; from=$2 ;;
    -h | --help) usage "${BASH_SOURCE[0]}"; exit ;;
    *) die "unknown argument $1; see --help" ;;
esac

url=https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz
# As in datasets/imdb/dataset_infos.json of Hugging Face's datasets and in TensorFlow Datasets 4.9.4
# (datasets/imdb_reviews/checksums.tsv).
hash=c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe
bytes=84125825
file=${url##*/}
data=$root/data/aclImdb
there() {
    local part
    for part in train/neg train/pos test/neg test/pos; do
        [ "$(find "$data/$part/" -name '*.txt' 2>/dev/null | wc -l)" -eq 12500 ] || return 1
    done
}
done_message() {
    say "the IMDb reviews are in $data; bitfit-train --config configs/imdb.toml" \
        "--set data.train=$data/train --set data.eval=$data/test takes them"
}
there || alone "$root/data"
if there; then
    done_message
    exit
fi
[ ! -e "$data" ] || die "$data is there and is not the whole data; move it away"
need_python
archive=$from
if [ -z "$from" ]; then
    fetch_url "$url" "$hash" "$bytes" "$file"
    archive=$cache/$file
elif ! matches "$from" "$hash"; then
    [ "$(basename "$from")" != "$file" ] || die "$from: its SHA-256 is not the pinned $hash"
    case $from in *.zst | *.tzst) need zstd "On Debian or Ubuntu: sudo apt-get install zstd" ;; esac
    say "$from is not $file itself: its checksum is not known, so only the number of reviews is" \
        "checked"
fi
# Each review takes a block of the file system.
need_space "$root/data" 300
# Remove what a killed script left behind; the lock excludes other scripts.
rm -rf "$root"/data/.new.*
new=$(mktemp -d "$root/data/.new.XXXXXX")
unpacker=''
# Stop the unpacking first, or it would write more files.
stop_unpacker() { [ -z "$unpacker" ] || { kill "$unpacker" 2>/dev/null && wait "$unpacker"; }; }
trap 'stop_unpacker || true; rm -rf "$new"' EXIT
say "unpacking the IMDb reviews"
python3 - "$archive" "$new" <<'PYTHON' &
import bz2, gzip, lzma, pathlib, re, subprocess, sys, tarfile, zlib

archive, folder = sys.argv[1], pathlib.Path(sys.argv[2])
parts = ["train/neg", "train/pos", "test/neg", "test/pos"]
for part in parts:
    (folder / "aclImdb" / part).mkdir(parents=True)
# Write only plain files with exactly these names, whatever else the archive contains. Every review
# is shorter than 1 MiB.
name = re.compile(r"(?:\./)?(aclImdb/(?:README|(?:train|test)/(?:neg|pos)/[0-9]+_[0-9]+\.txt))")
try:
    packed = open(archive, "rb")
    magic = packed.read(6)
    packed.seek(0)
    unzstd = None
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        unzstd = subprocess.Popen(["zstd", "-dcq", "--", archive], stdout=subprocess.PIPE)
        plain = unzstd.stdout
    elif magic.startswith(b"\x1f\x8b"):
        plain = gzip.open(packed)
    elif magic.startswith(b"BZh"):
        plain = bz2.open(packed)
    elif magic == b"\xfd7zXZ\0":
        plain = lzma.open(packed)
    else:
        plain = packed
    with tarfile.open(fileobj=plain, mode="r|") as tar:
        for member in tar:
            match = name.fullmatch(member.name)
            if match and member.isreg() and member.size < 1 << 20:
                (folder / match[1]).write_bytes(tar.extractfile(member).read())
    # Read to the end, where the checksums are.
    while plain.read(1 << 20):
        pass
    if unzstd and unzstd.wait() != 0:
        raise EOFError("zstd stopped")
except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
    sys.exit(f"error: {archive}: not a whole tar archive ({error})")
for part in parts:
    count = sum(1 for _ in (folder / "aclImdb" / part).iterdir())
    if count != 12500:
        sys.exit(f"error: {archive}: {count:,} reviews in aclImdb/{part}, expected 12,500")
PYTHON
unpacker=$!
wait "$unpacker"
mv -T "$new/aclImdb" "$data"
done_message
