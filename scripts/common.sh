# shellcheck shell=bash
# Functions that the other scripts source: paths, checks for missing tools, and downloads of pinned
# files.
set -euo pipefail

# With CDPATH set, cd may change to another directory and print its path.
unset CDPATH
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# need_cache reports an empty HOME, when a download needs the cache.
cache=${BITFIT_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/bitfit}/downloads

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# need COMMAND ADVICE: stops with ADVICE on how to install COMMAND, unless COMMAND is there.
need() {
    command -v "$1" >/dev/null || die "$1 is missing. $2"
}

need_python() {
    need python3 "On Debian or Ubuntu: sudo apt-get install python3"
}

need_pip() {
    need_python
    python3 -m pip --version >/dev/null 2>&1 \
        || die "Python's pip is missing; it fetches pinned files from PyPI." \
            "On Debian or Ubuntu: sudo apt-get install python3-pip"
}

bench_venv=target/bench/venv
# bench_packages: installs in $bench_venv what the benchmarks compare bitfit with.
bench_packages() {
    python3 -m venv --help >/dev/null 2>&1 || die "Python's venv is missing"
    if ! "$bench_venv/bin/python" -c 'import torch, transformers, peft, onnx, onnxruntime' \
        2>/dev/null
    then
        say "installing the Python packages"
        python3 -m venv "$bench_venv"
        "$bench_venv/bin/pip" install --quiet torch==2.13.0 transformers==4.57.6 peft==0.21.2 \
            onnx==1.23.2 onnxruntime==1.32.0
    fi
}

# usage SCRIPT: prints the script's head comment, which is its --help.
usage() {
    sed -n '2,/^[^#]/{/shellcheck/d;s/^# \{0,1\}//p}' "$1"
}

# alone FOLDER: locks FOLDER until this script ends. Waits while another script holds the lock.
alone() {
    mkdir -p "$1"
    exec 9>"$1/.lock"
    flock -n 9 || { say "waiting for another script that writes to $1"; flock 9; }
}

# need_space DIR MIB: stops unless DIR's file system has MIB free.
need_space() {
    local free
    free=$(df -Pm "$1" | awk 'NR == 2 {print $4}')
    [ "$free" -ge "$2" ] || die "$1: $free MiB free, $2 needed"
}

# matches FILE SHA256: whether FILE exists and has this hash.
matches() {
    [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$2" ]
}

need_cache() {
    [ "$cache" != /.cache/bitfit/downloads ] \
        || die "HOME is not set; set BITFIT_CACHE to a folder for downloads"
    mkdir -p "$cache"
}

# fetch REQUIREMENT SHA256 FILE [FOLDER]: puts FILE into $cache, from FOLDER if given, or from PyPI.
# Downloads nothing if the cache has the file. An interrupted download leaves no file in the cache.
fetch() {
    local requirement=$1 sha=$2 file=$3 from=${4:-} part
    need_cache
    if matches "$cache/$file" "$sha"; then return; fi
    if [ -n "$from" ]; then
        [ -f "$from/$file" ] \
            || die "$from/$file: no such file; expected $requirement with SHA-256 $sha"
        matches "$from/$file" "$sha" || die "$from/$file: its SHA-256 is not the pinned $sha"
        cp "$from/$file" "$cache/.$file.$$" && mv "$cache/.$file.$$" "$cache/$file"
        return
    fi
    need_pip
    say "downloading $requirement"
    # Remove what killed downloads left behind. No download takes a day.
    find "$cache" -maxdepth 1 -name '.part.*' -mmin +1440 -exec rm -rf {} +
    part=$(mktemp -d "$cache/.part.XXXXXX")
    # shellcheck disable=SC2064 # the current folder
    trap "rm -rf '$part'" EXIT
    printf '%s --hash=sha256:%s\n' "$requirement" "$sha" >"$part/requirements.txt"
    # Ask for the platform of the pinned wheel, whatever Python runs pip.
    local -a options=(--only-binary=:all: --implementation cp --python-version 3.11)
    options+=(--abi cp311 --abi none)
    local glibc
    for glibc in $(seq 28 -1 5); do options+=(--platform "manylinux_2_${glibc}_x86_64"); done
    local year
    for year in 2014 2010 1; do options+=(--platform "manylinux${year}_x86_64"); done
    # For a source archive, pip runs its setup.py with an unpinned setuptools to read the metadata.
    # Only the archive is kept, and its hash is pinned.
    case $file in *.zip | *.tar.gz) options=(--no-binary "${requirement%%==*}") ;; esac
    python3 -m pip --disable-pip-version-check download --quiet --no-deps --require-hashes \
        --no-cache-dir "${options[@]}" --dest "$part" --requirement "$part/requirements.txt" \
        >&2 </dev/null \
        || die "could not download $requirement. Without access to PyPI, put $file into a folder" \
            "and name the folder with --from"
    [ -f "$part/$file" ] || die "$requirement came as $(ls "$part"), expected $file"
    mv "$part/$file" "$cache/$file"
    rm -rf "$part"
    trap - EXIT
}

# fetch_url URL SHA256 BYTES FILE: downloads URL to $cache/FILE. Resumes a broken download.
fetch_url() {
    local url=$1 sha=$2 bytes=$3 file=$4 part=$cache/$4.part tries=4
    need_cache
    if matches "$cache/$file" "$sha"; then return; fi
    need curl "On Debian or Ubuntu: sudo apt-get install curl"
    # Scripts of another copy of the repository share the cache.
    exec 8>>"$part"
    flock -n 8 || { say "waiting for another script that downloads $file"; flock 8; }
    if matches "$cache/$file" "$sha"; then return; fi
    need_space "$cache" $((bytes / 1048576 + 1))
    say "downloading $url ($bytes bytes)"
    # A partial file that is too long cannot be resumed.
    if [ "$(stat -c %s "$part")" -ge "$bytes" ] && ! matches "$part" "$sha"; then : >"$part"; fi
    # The limit stops a host that sends more than BYTES before the disk is full.
    until matches "$part" "$sha" || (ulimit -f $((bytes / 1024 + 1)) && curl --fail --location \
        --retry 3 --connect-timeout 30 --speed-limit 1 --speed-time 60 --continue-at - \
        --output "$part" "$url"); do
        # 33: the server cannot resume; start again. The other codes: the transfer broke; resume.
        case $? in
            18 | 28 | 52 | 55 | 56 | 92) sleep 2 ;;
            33) : >"$part" ;;
            *) tries=1 ;;
        esac
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] \
            || die "could not download $url. Without access to it, name a local copy with --from"
    done
    if ! matches "$part" "$sha"; then
        rm -f "$part"
        die "what came from $url is not the pinned file: its SHA-256 is not $sha"
    fi
    mv "$part" "$cache/$file"
    exec 8>&-
}

# unpack ZIP FOLDER [PREFIX]...: extracts the members that begin with a prefix, or all without one.
unpack() {
    need_python
    python3 - "$@" <<'PYTHON'
import sys, zipfile
archive, folder, *prefixes = sys.argv[1:]
with zipfile.ZipFile(archive) as z:
    z.extractall(folder, [n for n in z.namelist() if not prefixes or n.startswith(tuple(prefixes))])
PYTHON
}

# from_argument SCRIPT [--from FOLDER]: parses arguments, for scripts with no option but --from.
# Sets `from` to the absolute path of FOLDER, or to an empty text.
from_argument() {
    local script=$1
    shift
    from=''
    case ${1:-} in
        '') ;;
        --from)
            { [ $# -eq 2 ] && [ -d "$2" ]; } || die "--from wants a folder"
            from=$(cd -- "$2" && pwd)
            ;;
        -h | --help) usage "$script"; exit ;;
        *) die "unknown argument $1; see --help" ;;
    esac
}

# set_up: downloads what the build, the tests and the quickstart need, and checks for compilers.
set_up() {
    need cargo "Install Rust 1.89 or newer from https://rustup.rs or your distribution"
    need c++ "It compiles the C++ side. On Debian or Ubuntu: sudo apt-get install g++"
    # Keep any libtorch of this version, and any that LIBTORCH names.
    case ${LIBTORCH:+exported}$(cat "$root/third_party/libtorch/torch/build-version" 2>/dev/null) in
        exported* | 2.13.0+*) ;;
        *) "$root/scripts/download_libtorch.sh" ;;
    esac
    "$root/scripts/download_model.sh"
    "$root/scripts/download_movie_reviews.sh"
}
