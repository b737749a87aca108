complete -c bitfit-train -l config -d 'The configuration, a TOML file' -r -F
complete -c bitfit-train -l set -d 'Override a key of the file; may be repeated' -r
complete -c bitfit-train -l resume -d 'Resume the run in training.output_dir from its newest checkpoint; without a checkpoint, start it'
complete -c bitfit-train -l overwrite -d 'Replace the run in training.output_dir'
complete -c bitfit-train -l dry-run -d 'Read and check everything, print what would train, and stop; nothing is written'
complete -c bitfit-train -l profile -d 'Print at the end how long each part of a step took; only on the CPU'
complete -c bitfit-train -l json -d 'Write metrics and the summary to stdout, and logs to stderr, as JSON lines'
complete -c bitfit-train -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bitfit-train -s V -l version -d 'Print version'
