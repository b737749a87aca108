#!/usr/bin/env bash
# Downloads libtorch 2.13.0, the version for bitfit's version of tch, to third_party/libtorch, where
# .cargo/config.toml expects it.
#
#   scripts/download_libtorch.sh [--cpu|--cuda] [--from pypi|pytorch|FOLDER] [--sha256 HASH]
#                                [--dir FOLDER]
#
#   --cpu, --cuda     the variant: for CPUs (the default; 0.5 GB to download), or for CUDA 13
#                     (2.8 GB)
#   --from pypi       the pinned wheels of scripts/libtorch.lock, from PyPI (the default)
#   --from FOLDER     the same files, from a folder: for machines without a network
#   --from pytorch    the zip of the PyTorch site; its hash is not pinned, so give a hash that you
#                     trust with --sha256
#   --dir FOLDER      the folder for libtorch; then build with LIBTORCH=FOLDER/torch exported
#
# Downloads are kept in ${XDG_CACHE_HOME:-~/.cache}/bitfit (or $BITFIT_CACHE). The script can be
# interrupted and run again, and needs no root. To change the variant, run the script with the other
# one, and then cargo build.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

version=2.13.0
variant=cpu from=pypi sha256='' target=$root/third_party/libtorch
while [ $# -gt 0 ]; do
    case $1 in
        --cpu | --cuda) variant=${1#--} ;;
        --from | --sha256 | --dir)
            [ $# -ge 2 ] || die "$1 wants a value; see --help"
            case $1 in --from) from=$2 ;; --sha256) sha256=$2 ;; --dir) target=$2 ;; esac
            shift
            ;;
        -h | --help) usage "${BASH_SOURCE[0]}"; exit ;;
        *) die "unknown argument $1; see --help" ;;
    esac
    shift
done
case $from in
    pypi | pytorch) ;;
    *) [ -d "$from" ] || die "--from $from: expected pypi, pytorch or a folder" ;;
esac
[ "$(uname -sm)" = "Linux x86_64" ] \
    || die "this script supports only Linux on x86-64, and this is $(uname -sm): install libtorch" \
        "$version yourself and export LIBTORCH"
case $variant in cpu) build=$version+cpu ;; cuda) build=$version+cu130 ;; esac

lock=$root/scripts/libtorch.lock
# The stamp identifies an installation: this script, the pins, the variant and the source.
stamp="$(cat "$lock" "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1) $build"
stamp="$stamp $([ "$from" = pytorch ] && echo "pytorch $sha256" || echo wheels)"

alone "$target"
target=$(cd -- "$target" && pwd)
if [ "$(cat "$target/torch/stamp" 2>/dev/null)" = "$stamp" ] \
    && [ "$(cat "$target/torch/build-version" 2>/dev/null)" = "$build" ]; then
    say "libtorch $build is in $target"
    exit
fi

# Replace only files of this script and the repository's placeholder.
for part in torch nvidia; do
    if [ -e "$target/$part" ] && [ ! -f "$target/torch/stamp" ] \
        && [ "$(ls -A "$target/$part")" != build-version ]; then
        die "$target/$part exists, and this script did not make it; move it away or choose" \
            "another --dir"
    fi
done
new=$target/.bitfit-new old=$target/.bitfit-old
rm -rf "$new" "$old"
mkdir "$new" "$old"
if [ "$from" = pytorch ]; then
    mkdir -p "$cache"
    need curl "On Debian or Ubuntu: sudo apt-get install curl"
    need_python
    case $variant in cpu) label=cpu ;; cuda) label=cu130 ;; esac
    zip=libtorch-shared-with-deps-$version+$label.zip
    url=https://download.pytorch.org/libtorch/$label/${zip/+/%2B}
    [ -n "$sha256" ] || die "--from pytorch wants --sha256 HASH, of the file that you trust at $url"
    if ! matches "$cache/$zip" "$sha256"; then
        if ! matches "$cache/$zip.part" "$sha256"; then
            curl --fail --location --retry 3 --continue-at - --output "$cache/$zip.part" "$url" \
                || die "could not download $url"
        fi
        found=$(sha256sum "$cache/$zip.part" | cut -d' ' -f1)
        if [ "$found" != "$sha256" ]; then
            rm -f "$cache/$zip.part"
            die "$url has the SHA-256 $found, and --sha256 says $sha256"
        fi
        mv "$cache/$zip.part" "$cache/$zip"
    fi
    need_space "$target" 6000
    unpack "$cache/$zip" "$new"
    mv "$new/libtorch" "$new/torch"
else
    folder=
    [ "$from" = pypi ] || folder=$(cd -- "$from" && pwd)
    files=()
    while read -r which requirement hash file; do
        case $which in
            both | "$variant")
                fetch "$requirement" "$hash" "$file" "$folder"
                files+=("$file")
                ;;
        esac
    done <"$lock"
    case $variant in cpu) need_space "$target" 1500 ;; cuda) need_space "$target" 6000 ;; esac
    say "unpacking libtorch $build"
    for file in "${files[@]}"; do
        case $file in
            torch-*) unpack "$cache/$file" "$new" torch/lib/ torch/include/ ;;
            *) unpack "$cache/$file" "$new" nvidia/ ;;
        esac
    done
    rm -f "$new/torch/lib/libtorch_python.so"
    if [ "$variant" = cpu ]; then
        (cd -- "$new/torch/lib" \
            && rm -f libtorch_cuda*.so libc10_cuda.so libtorch_nvshmem.so libcaffe2_nvrtc.so)
        # The wheel's libtorch.so is a stub that needs libtorch_cuda.so.
        echo 'INPUT(-ltorch_cpu)' >"$new/torch/lib/libtorch.so"
    fi
fi
# When torch-sys is compiled (5 minutes), it links torch_cuda if libtorch_cuda.so exists. Both
# variants have a file of this name, so torch-sys is not compiled again when the variant changes.
# build.rs looks at libc10_cuda.so.
[ -e "$new/torch/lib/libtorch_cuda.so" ] \
    || echo 'INPUT(-ltorch_cpu)' >"$new/torch/lib/libtorch_cuda.so"
echo "incomplete (run scripts/download_libtorch.sh again)" >"$new/torch/build-version"
echo "$stamp" >"$new/torch/stamp"

for part in torch nvidia; do
    [ ! -e "$target/$part" ] || mv "$target/$part" "$old/"
    [ ! -e "$new/$part" ] || mv "$new/$part" "$target/"
done
echo "$build" >"$target/torch/build-version"
rm -rf "$new" "$old"
# The repository's placeholder makes a build without libtorch say what to run. Git should ignore
# that the placeholder was replaced.
if [ "$target" = "$root/third_party/libtorch" ]; then
    git -C "$root" update-index --skip-worktree third_party/libtorch/torch/build-version \
        2>/dev/null || true
fi
say "libtorch $build is in $target"
