#!/usr/bin/env bash
# Copies the built binaries and the libraries that they load into a folder, and makes a tarball of
# the folder. The package needs neither Rust nor Python.
#
#   scripts/package.sh [--target-dir FOLDER] [--output FOLDER] [--tree FOLDER]
#
#   --target-dir FOLDER   where cargo built the binaries ($CARGO_TARGET_DIR, or target)
#   --output FOLDER       where the tarball and its SHA-256 go (dist)
#   --tree FOLDER         make only this folder, and no tarball
#
# Before: scripts/download_libtorch.sh, cargo build --release. The libtorch that the binaries were
# built with ($LIBTORCH, or the one in third_party) decides whether the package is for CPU or CUDA.
# The licences of its contents are copied too, from the sources of the crates and from the wheels,
# which are downloaded again if they are not in the cache.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
built=${CARGO_TARGET_DIR:-$root/target} output=dist tree=''
while [ $# -gt 0 ]; do
    case $1 in
        --target-dir | --output | --tree)
            [ $# -ge 2 ] || die "$1 wants a folder; see --help"
            case $1 in --target-dir) built=$2 ;; --output) output=$2 ;; --tree) tree=$2 ;; esac
            shift
            ;;
        -h | --help) usage "${BASH_SOURCE[0]}"; exit ;;
        *) die "unknown argument $1; see --help" ;;
    esac
    shift
done
need cargo "Install Rust from https://rustup.rs"
need strip "On Debian or Ubuntu: sudo apt-get install binutils"
libtorch=${LIBTORCH:-$root/third_party/libtorch/torch}
case $(cat "$libtorch/build-version" 2>/dev/null) in
    2.13.0+cpu) variant=cpu ;;
    2.13.0+cu130) variant=cuda ;;
    *)
        die "$libtorch: expected libtorch 2.13.0 from scripts/download_libtorch.sh;" \
            "export LIBTORCH if it is elsewhere"
        ;;
esac
libtorch=$(cd -- "$libtorch/.." && pwd)
for program in bitfit bitfit-train; do
    [ -x "$built/release/$program" ] \
        || die "$built/release/$program: no such program; run cargo build --release, or name its" \
            "folder with --target-dir"
done
version=$("$built/release/bitfit" --version)
version=${version##* }
name=bitfit-$version-linux-x86_64$([ "$variant" = cpu ] || echo "-$variant")
[ ! -e "$tree" ] || die "$tree is there already"

# The package is made under a temporary name in its folder, and renamed when complete.
place=$([ -n "$tree" ] && dirname "$tree" || echo "$output")
mkdir -p "$place"
work=$(mktemp -d -p "$place" .bitfit-package.XXXXXX)
trap 'rm -rf "$work"' EXIT
new=$work/$name
mkdir -p "$new/bin" "$new/lib" "$new/share/bitfit" "$new/licences"
cp "$built/release/bitfit" "$built/release/bitfit-train" "$new/bin/"
# Line tables are nine tenths of the binaries.
strip "$new/bin/bitfit" "$new/bin/bitfit-train"
cp "$root/scripts/smoke.sh" "$new/bin/bitfit-smoke"
cp -r "$root/tests/golden/tiny-bert" "$new/share/bitfit/"
cp -r "$root/configs" "$new/share/bitfit/"
cp "$root"/{README,CHANGELOG,CONTRIBUTING,SECURITY}.md "$root"/LICENSE-* "$new/"
# README and configs/ refer to docs/. The manual pages go where man looks for them.
cp -r "$root/docs" "$new/share/bitfit/"
mkdir "$new/share/man"
mv "$new/share/bitfit/docs/man" "$new/share/man/man1"
ln -s share/bitfit/docs "$new/docs"

# Copy only what the loader loads from libtorch's folders. The rest is headers, tools, and libraries
# for operations that BERT does not have.
needed() { ldd "$1" | awk '$2 == "=>" {print $3}'; }
if ldd "$built/release/bitfit" | grep 'not found' >&2; then
    die "$built/release/bitfit does not find its libraries: was it built with $libtorch?"
fi
while read -r file; do
    case $(realpath "$file") in "$libtorch"/*) cp -L "$file" "$new/lib/" ;; esac
done < <(needed "$built/release/bitfit")
# Copy the libraries that are loaded by name at run time: the runtime compiler and its headers, and
# the parts of cuDNN that report its version. The others are not needed: cuDNN's engines are for
# convolutions and recurrent networks; libtorch_cuda_linalg.so with cuSOLVER solves equations.
if [ "$variant" = cuda ]; then
    for pattern in 'libcaffe2_nvrtc.so' 'libnvrtc-builtins.so.*' 'libcudnn_graph.so.*' \
        'libcudnn_ops.so.*'; do
        found=$(find "$libtorch" -name "$pattern" ! -name '*.alt.*')
        [ -n "$found" ] || die "$libtorch has no $pattern"
        cp -L "$found" "$new/lib/"
    done
fi
# The binaries look beside themselves first (build.rs). libtorch's and NVIDIA's libraries look
# beside themselves last.
needed "$new/bin/bitfit" | while read -r file; do
    case $(realpath "$file") in
        "$(realpath "$new")"/* | /lib/* | /usr/lib/*) ;;
        *) die "$new/bin/bitfit loads $file, which is not in the package" ;;
    esac
done

say "licences"
python3 "$root/scripts/licences.py" >"$new/licences/crates.txt"
while read -r which requirement hash file; do
    case $which in both | "$variant") ;; *) continue ;; esac
    fetch "$requirement" "$hash" "$file"
    dist=${file%%-py3-*}
    dist=${dist%%-cp3*}
    unpack "$cache/$file" "$work/wheels" "$dist.dist-info/licenses/" nvidia/cusparselt/LICENSE.txt
    texts=$work/wheels/$dist.dist-info/licenses
    [ -d "$texts" ] || texts=$work/wheels/nvidia/cusparselt
    [ -d "$texts" ] || die "$file has no licence where wheels have it"
    mv "$texts" "$new/licences/$dist"
done <"$root/scripts/libtorch.lock"

if [ -n "$tree" ]; then
    mv "$new" "$tree"
    say "$tree: $(du -sh --apparent-size "$tree" | cut -f1)"
    exit
fi
say "packing"
tar --create --directory "$work" --sort=name --owner=0 --group=0 --numeric-owner \
    --mtime=@"${SOURCE_DATE_EPOCH:-0}" "$name" \
    | gzip -n >"$work/$name.tar.gz"
mv "$work/$name.tar.gz" "$output/"
(cd -- "$output" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
say "$output/$name.tar.gz: $(du -h --apparent-size "$output/$name.tar.gz" | cut -f1)," \
    "unpacked $(du -sh --apparent-size "$new" | cut -f1)"
