#!/usr/bin/env bash
# Downloads tasks of GLUE (Wang et al., ICLR 2019) to data/glue, as TASK/train.tsv and TASK/dev.tsv
# (for MNLI, dev_matched.tsv and dev_mismatched.tsv), unchanged. The test files have no labels and
# are left out.
#
#   scripts/download_glue.sh [--from FOLDER|FILE] [TASK]...
#
#   TASK            CoLA SST-2 MRPC STS-B QQP MNLI QNLI RTE WNLI; without any, all nine (375 MB to
#                   download, of which MNLI is 313 MB)
#   --from FOLDER   use local copies: the official files, whose hashes are checked, or else
#                   FOLDER/TASK/train.tsv and so on, of which only the number of rows is checked
#   --from FILE     use a local copy of the official file of one task
#
# scripts/glue.lock pins the official files. MRPC is not published in GLUE's layout: its files are
# made from SentEval's copy of Microsoft's corpus and GLUE's list of the pairs in dev.tsv. Downloads
# are kept in ${XDG_CACHE_HOME:-~/.cache}/bitfit (or $BITFIT_CACHE). Each task has the licence of
# its authors (MRPC: no commercial use). Tasks that are already there are not changed.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

lock=$root/scripts/glue.lock
data=$root/data/glue
# The number of rows in each file, as published. A row is a line (quotes have no meaning) after one
# header line; CoLA has no header. The first release of QQP has a few more, broken lines.
rows='
CoLA train 8551 dev 1043
SST-2 train 67349 dev 872
MRPC train 3668 dev 408
STS-B train 5749 dev 1500
QQP train 363846 dev 40430
MNLI train 392702 dev_matched 9815 dev_mismatched 9832
QNLI train 104743 dev 5463
RTE train 2490 dev 277
WNLI train 635 dev 71'

# rows_of TASK: prints the task's files without .tsv and their numbers of rows, one file per line.
rows_of() {
    awk -v task="$1" '$1 == task {for (i = 2; i < NF; i += 2) print $i, $(i + 1)}' <<<"$rows"
}

# files_of TASK: prints the task's files without .tsv.
files_of() { rows_of "$1" | cut -d' ' -f1; }

# official TASK: prints the names of the task's official files.
official() { awk -v task="$1" '$1 == task {sub(".*/", "", $4); print $4}' "$lock"; }

# all_in FOLDER SUFFIX NAME...: whether FOLDER has every NAME with SUFFIX.
all_in() {
    local folder=$1 suffix=$2 name
    shift 2
    for name; do [ -f "$folder/$name$suffix" ] || return 1; done
}

# shellcheck disable=SC2046 # names without spaces
there() { all_in "$data/$1" .tsv $(files_of "$1"); }

# shellcheck disable=SC2046
has_official() { all_in "$from" '' $(official "$1"); }

# shellcheck disable=SC2046
has_tsv() { all_in "$from/$1" .tsv $(files_of "$1"); }

# find_missing: sets `missing` to the tasks that data/glue lacks.
find_missing() {
    local task
    missing=()
    for task in "${tasks[@]}"; do
        if there "$task"; then continue; fi
        [ ! -e "$data/$task" ] || die "$data/$task is there and is not the whole task; move it away"
        missing+=("$task")
    done
}

# split_mrpc TRAIN IDS FOLDER: splits MRPC as GLUE's download_glue_data.py does.
split_mrpc() {
    python3 - "$@" <<'PYTHON'
import pathlib, sys
train, ids, folder = map(pathlib.Path, sys.argv[1:])
ids = {tuple(line.split(b"\t")) for line in ids.read_bytes().split(b"\n")}
header, *rows = train.read_bytes().rstrip(b"\n").split(b"\n")
parts = {"train": [header], "dev": [header]}
for row in rows:
    parts["dev" if tuple(row.split(b"\t")[1:3]) in ids else "train"].append(row)
for part, lines in parts.items():
    (folder / f"{part}.tsv").write_bytes(b"\n".join(lines) + b"\n")
PYTHON
}

# check TASK FOLDER: stops unless every file has the published number of rows.
check() {
    local task=$1 folder=$2 name want found
    while read -r name want; do
        found=$(awk 'END {print NR}' "$folder/$name.tsv")
        if [ "$task" != CoLA ] && [ "$found" -gt 0 ]; then found=$((found - 1)); fi
        if [ "$found" -eq "$want" ]; then continue; fi
        if [ "$task" = QQP ] && [ "$found" -gt "$want" ]; then continue; fi
        die "$task: $name.tsv has $found rows, $want are published"
    done <<<"$(rows_of "$task")"
}

# get TASK FOLDER: puts the task's files into FOLDER.
get() {
    local task=$1 folder=$2 name hash bytes url file
    local -a paths=()
    if [ -n "$from" ] && ! has_official "$task"; then
        for name in $(files_of "$task"); do
            cp --no-preserve=mode "$from/$task/$name.tsv" "$folder/"
        done
        say "$task: from $from/$task, where only the number of rows is checked"
        return
    fi
    while read -r name hash bytes url; do
        if [ "$name" != "$task" ]; then continue; fi
        file=${url##*/}
        if [ -n "$from" ]; then
            matches "$from/$file" "$hash" || die "$from/$file: its SHA-256 is not the pinned $hash"
            paths+=("$from/$file")
        else
            fetch_url "$url" "$hash" "$bytes" "$file"
            paths+=("$cache/$file")
        fi
    done <"$lock"
    if [ "$task" = MRPC ]; then
        split_mrpc "${paths[@]}" "$folder"
    else
        for name in $(files_of "$task"); do
            unpack "${paths[0]}" "$folder" "$task/$name.tsv"
            mv "$folder/$task/$name.tsv" "$folder/"
        done
        rmdir "$folder/$task"
    fi
}

tasks=() from=''
while [ $# -gt 0 ]; do
    case $1 in
        --from)
            { [ $# -ge 2 ] && [ -e "$2" ]; } || die "--from wants a folder or a file"
            from=$2
            shift
            ;;
        -h | --help) usage "${BASH_SOURCE[0]}"; exit ;;
        -*) die "unknown argument $1; see --help" ;;
        *)
            [ -n "$(files_of "$1")" ] || die "unknown task $1; see --help"
            tasks+=("$1")
            ;;
    esac
    shift
done
if [ -n "$from" ] && [ ! -d "$from" ]; then
    task=$(awk -v file="$(basename "$from")" '{sub(".*/", "", $4)} $4 == file {print $1}' "$lock")
    [ -n "$task" ] \
        || die "--from $from: not the name of an official file; see scripts/glue.lock," \
            "or name a folder"
    [ "${#tasks[@]}" -eq 0 ] || [ "${tasks[*]}" = "$task" ] \
        || die "--from $from: that is $task, and the task named is ${tasks[*]}"
    tasks=("$task")
    from=$(dirname "$from")
fi
if [ ${#tasks[@]} -eq 0 ]; then mapfile -t tasks <<<"$(awk 'NF {print $1}' <<<"$rows")"; fi

find_missing
if [ ${#missing[@]} -gt 0 ]; then
    need_python
    # Check all tasks before changing anything.
    for task in "${missing[@]}"; do
        if [ -z "$from" ] || has_official "$task" || has_tsv "$task"; then continue; fi
        die "$from: neither the official files of $task ($(official "$task" | xargs)) nor" \
            "$task/ with $(files_of "$task" | sed 's/$/.tsv/' | xargs)." \
            "Name the tasks that are there"
    done
    alone "$root/data"
    # Another script may have downloaded the tasks meanwhile.
    find_missing
fi
for task in "${tasks[@]}"; do
    case " ${missing[*]-} " in *" $task "*) ;; *) say "$task is there already" ;; esac
done
if [ ${#missing[@]} -gt 0 ]; then
    # Remove what a killed script left behind; the lock excludes other scripts.
    rm -rf "$root"/data/.new.*
    new=$(mktemp -d "$root/data/.new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
fi
for task in ${missing[@]+"${missing[@]}"}; do
    if there "$task"; then continue; fi
    # MNLI's files have a parse of each sentence.
    case $task in MNLI) need_space "$root/data" 800 ;; *) need_space "$root/data" 150 ;; esac
    mkdir "$new/$task"
    get "$task" "$new/$task"
    check "$task" "$new/$task"
    mkdir -p "$data"
    mv -T "$new/$task" "$data/$task"
    say "$task is in $data/$task"
done
