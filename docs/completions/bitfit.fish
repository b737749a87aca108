# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_bitfit_global_optspecs
    string join \n h/help V/version
end

function __fish_bitfit_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_bitfit_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_bitfit_using_subcommand
    set -l cmd (__fish_bitfit_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c bitfit -n "__fish_bitfit_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bitfit -n "__fish_bitfit_needs_command" -s V -l version -d 'Print version'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "train" -d 'Train a task, as bitfit-train does'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "eval" -d 'Evaluate a trained task on labelled data'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "predict" -d 'Predict labels with confidences: one JSON object a line on stdout'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "inspect" -d 'Show parameters by group: of a model, of what a configuration would train, of what a delta holds; how deltas differ; or runs side by side'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "compare" -d 'Train the same tasks by several methods, rates and seeds, and write a report of what was measured'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "export" -d 'Write a task in a form that Python loads: a whole checkpoint, or a PEFT adapter'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "convert" -d 'Write a base\'s weights as a TorchScript archive, its fingerprint inside'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "completions" -d 'Write completions of bitfit and bitfit-train for a shell to stdout'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "docs" -d 'Write the pages of the manual, completions, the configuration\'s reference and its JSON schema'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -l config -d 'The configuration, a TOML file' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -l set -d 'Override a key of the file; may be given several times' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -l resume -d 'Go on with the run that training.output_dir holds, from its newest checkpoint; without one, begin'
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -l overwrite -d 'Replace the run that training.output_dir holds'
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -l dry-run -d 'Read and check everything, print what would train, and stop; nothing is written'
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -l profile -d 'Print at the end where the time of a step went'
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -l json -d 'Write metrics and the summary to stdout, and logs to stderr, as JSON lines'
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l run -d 'A run directory: its base, its delta and its data are taken' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l model -d 'The base directory, or the id of a model on the Hub; with --run, instead of the one the run names' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l revision -d 'Of a model on the Hub: a branch, a tag or a commit [default: main]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l weights -d 'The base\'s weight file, or index of several [default: the first of model.ot, model.safetensors and pytorch_model.bin; of a Hub model, safetensors first]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l delta -d 'The task\'s delta.safetensors; with --run, instead of the run\'s' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l device -d 'auto, cpu, cuda or cuda:N' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l precision -d 'What products are made in, whatever the task was trained in' -r -f -a "fp32\t'32-bit throughout'
bf16\t'The layers\' products in bfloat16: on GPUs, and on processors that multiply it'
fp16\t'The same in float16, the loss scaled so that small gradients do not vanish: on GPUs; slow on CPUs'"
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l batch-size -d 'Rows in a batch, or more where they are short [default: the run\'s per_device_eval_batch_size, or 32]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l text-column -d 'Name of the text\'s column in CSV, TSV, JSON and Parquet [default: the run\'s, or text]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l text-pair-column -d 'Name of the second text\'s column [default: the run\'s, or none]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l delimiter -d 'What stands between the columns of a CSV, one character; \\t is a tab [default: the run\'s, or as the first lines show]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l data -d 'Labelled data: .csv, .tsv, .jsonl, .json, .parquet, or a folder of class folders or Parquet files [default: the run\'s evaluation data]' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l label-column -d 'Name of the label\'s column [default: the run\'s, or label]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l label-separator -d 'What stands between several labels of a row [default: the run\'s]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l label-columns -d 'A column of 0 or 1 for each label, instead of --label-column [default: the run\'s]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l no-header -d 'The CSV or TSV has no header: columns are named by number, from 1 [default: as the run\'s]'
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l header -d 'It has one, though the run\'s had none'
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l json -d 'Write the metrics, with those of each class and the confusion matrix, to stdout as one JSON object'
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l run -d 'A run directory: its base, its delta and its data are taken' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l model -d 'The base directory, or the id of a model on the Hub; with --run, instead of the one the run names' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l revision -d 'Of a model on the Hub: a branch, a tag or a commit [default: main]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l weights -d 'The base\'s weight file, or index of several [default: the first of model.ot, model.safetensors and pytorch_model.bin; of a Hub model, safetensors first]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l delta -d 'The task\'s delta.safetensors; with --run, instead of the run\'s' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l device -d 'auto, cpu, cuda or cuda:N' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l precision -d 'What products are made in, whatever the task was trained in' -r -f -a "fp32\t'32-bit throughout'
bf16\t'The layers\' products in bfloat16: on GPUs, and on processors that multiply it'
fp16\t'The same in float16, the loss scaled so that small gradients do not vanish: on GPUs; slow on CPUs'"
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l batch-size -d 'Rows in a batch, or more where they are short [default: the run\'s per_device_eval_batch_size, or 32]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l text-column -d 'Name of the text\'s column in CSV, TSV, JSON and Parquet [default: the run\'s, or text]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l text-pair-column -d 'Name of the second text\'s column [default: the run\'s, or none]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l delimiter -d 'What stands between the columns of a CSV, one character; \\t is a tab [default: the run\'s, or as the first lines show]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l text-pair -d 'The second text, where the task is about pairs: predict TEXT --text-pair TEXT' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l input -d 'Texts from a file, one a line, or from the text column of a .csv, .tsv, .jsonl, .json or .parquet; - is standard input' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l output -d 'Write there instead of stdout; the file appears when all is done' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l no-header -d 'The CSV or TSV has no header: columns are named by number, from 1 [default: as the run\'s]'
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l header -d 'It has one, though the run\'s had none'
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l model -d 'A base directory, or the id of a model on the Hub' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l revision -d 'Of a model on the Hub: a branch, a tag or a commit [default: main]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l config -d 'A configuration; its base and data are read too' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l delta -d 'A task\'s delta.safetensors' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l against -d 'Show what changes from there to --delta: another delta of the same base, or the base itself (a directory, or a Hub id)' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l runs -d 'Show past runs side by side: run directories, or directories with runs below' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l set -d 'Override a key of the configuration; may be given several times' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l weights -d 'The model\'s weight file, or index of several [default: the first of model.ot, model.safetensors and pytorch_model.bin; of a Hub model, safetensors first]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l num-labels -d 'Number of labels of the head that a model is shown with' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l json -d 'Write it to stdout as one JSON object, every tensor listed'
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -s h -l help -d 'Print help'
complete -c bitfit -n "__fish_bitfit_using_subcommand compare" -l config -d 'The grid, a TOML file: [compare], [[task]], [[arm]], and the sections of a run configuration' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand compare" -l set -d 'Override a key of every run, or of the grid itself (compare.KEY=VALUE); may be given several times' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand compare" -l overwrite -d 'Replace runs of another configuration that stand in the way'
complete -c bitfit -n "__fish_bitfit_using_subcommand compare" -l dry-run -d 'Read and check everything, print what each arm would train, and stop; nothing is written'
complete -c bitfit -n "__fish_bitfit_using_subcommand compare" -l json -d 'Write what happens, and at the end where the report is, to stdout as JSON lines'
complete -c bitfit -n "__fish_bitfit_using_subcommand compare" -s h -l help -d 'Print help'
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -l run -d 'A run directory: its base, its delta and its data are taken' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -l model -d 'The base directory, or the id of a model on the Hub; with --run, instead of the one the run names' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -l revision -d 'Of a model on the Hub: a branch, a tag or a commit [default: main]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -l weights -d 'The base\'s weight file, or index of several [default: the first of model.ot, model.safetensors and pytorch_model.bin; of a Hub model, safetensors first]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -l delta -d 'The task\'s delta.safetensors; with --run, instead of the run\'s' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -l format -d 'What to write' -r -f -a "hf\t'A whole checkpoint, for from_pretrained: base and task merged'
peft\t'An adapter, for PeftModel.from_pretrained over the base'"
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -l output -d 'The directory to make; it must not exist, or be empty' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bitfit -n "__fish_bitfit_using_subcommand convert" -l model -d 'The base directory, or the id of a model on the Hub' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand convert" -l revision -d 'Of a model on the Hub: a branch, a tag or a commit [default: main]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand convert" -l output -d 'The archive to write; VarStore reads it by the ending .ot' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand convert" -l weights -d 'The weight file to convert [default: model.safetensors, or pytorch_model.bin]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand convert" -s h -l help -d 'Print help'
complete -c bitfit -n "__fish_bitfit_using_subcommand completions" -s h -l help -d 'Print help'
complete -c bitfit -n "__fish_bitfit_using_subcommand docs" -s h -l help -d 'Print help'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare export convert completions docs help" -f -a "train" -d 'Train a task, as bitfit-train does'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare export convert completions docs help" -f -a "eval" -d 'Evaluate a trained task on labelled data'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare export convert completions docs help" -f -a "predict" -d 'Predict labels with confidences: one JSON object a line on stdout'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare export convert completions docs help" -f -a "inspect" -d 'Show parameters by group: of a model, of what a configuration would train, of what a delta holds; how deltas differ; or runs side by side'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare export convert completions docs help" -f -a "compare" -d 'Train the same tasks by several methods, rates and seeds, and write a report of what was measured'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare export convert completions docs help" -f -a "export" -d 'Write a task in a form that Python loads: a whole checkpoint, or a PEFT adapter'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare export convert completions docs help" -f -a "convert" -d 'Write a base\'s weights as a TorchScript archive, its fingerprint inside'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare export convert completions docs help" -f -a "completions" -d 'Write completions of bitfit and bitfit-train for a shell to stdout'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare export convert completions docs help" -f -a "docs" -d 'Write the pages of the manual, completions, the configuration\'s reference and its JSON schema'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare export convert completions docs help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
