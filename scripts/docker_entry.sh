#!/bin/sh
# The image's entry point. `docker run IMAGE serve ...` runs this command of bitfit, and so do the
# names of the other commands. Any other arguments are those of bitfit-train.
#
#   scripts/docker_entry.sh [COMMAND] [ARGUMENT...]
#
# A server listens on 0.0.0.0:8080 unless --listen is among its arguments: only the container itself
# would reach 127.0.0.1.
set -eu
case ${1:-} in
    serve)
        for argument; do
            case $argument in --listen | --listen=*) exec bitfit "$@" ;; esac
        done
        exec bitfit "$@" --listen 0.0.0.0:8080
        ;;
    train | eval | predict | inspect | compare | tune | export | convert | completions | help)
        exec bitfit "$@"
        ;;
    *) exec bitfit-train "$@" ;;
esac
