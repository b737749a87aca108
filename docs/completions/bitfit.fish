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
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "predict" -d 'Predict labels with their scores, as JSON lines on stdout'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "inspect" -d 'Show the parameter groups of a model, of a configuration or of a delta, how two deltas differ, or runs side by side'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "compare" -d 'Train the same tasks with several methods, learning rates and seeds, and write a report that compares them'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "tune" -d 'Find the learning rates, the number of epochs and what else is best for one task, and write a tuned configuration'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "export" -d 'Export a task for Python: as a whole checkpoint, or as a PEFT adapter'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "serve" -d 'Serve many tasks of one base over HTTP'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "convert" -d 'Convert a base\'s weights to a TorchScript archive that contains their fingerprint'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "completions" -d 'Write a shell\'s completions for bitfit and bitfit-train to stdout'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "docs" -d 'Write the manual pages, the completions, the configuration reference and the JSON schemas'
complete -c bitfit -n "__fish_bitfit_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -l config -d 'The configuration, a TOML file' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -l set -d 'Override a key of the file; may be repeated' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -l resume -d 'Resume the run in training.output_dir from its newest checkpoint; without a checkpoint, start it'
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -l overwrite -d 'Replace the run in training.output_dir'
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -l dry-run -d 'Read and check everything, print what would train, and stop; nothing is written'
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -l profile -d 'Print at the end how long each part of a step took; only on the CPU'
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -l json -d 'Write metrics and the summary to stdout, and logs to stderr, as JSON lines'
complete -c bitfit -n "__fish_bitfit_using_subcommand train" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l run -d 'A run directory, whose base, delta and data are used' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l model -d 'The base: a directory, or the id of a model on the Hub; with --run, used instead of the run\'s base' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l revision -d 'Branch, tag or commit of the model on the Hub [default: main]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l weights -d 'The base\'s weight file, or the index of a sharded model [default: the first of model.ot, model.safetensors and pytorch_model.bin; for a Hub model, safetensors first]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l delta -d 'The task\'s delta.safetensors; with --run, used instead of the run\'s delta' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l device -d 'Device to compute on: auto, cpu, cuda or cuda:N' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l precision -d 'Precision of the matrix products, whatever the task was trained in' -r -f -a "auto\t'`bf16` on a GPU of compute capability 8.0 or more, otherwise `fp32`'
fp32\t'32-bit throughout'
bf16\t'The layers\' products in bfloat16, for GPUs and for CPUs that multiply bfloat16'
fp16\t'The layers\' products in float16, for GPUs; slow on CPUs. The loss is scaled so that small gradients do not vanish'"
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l batch-size -d 'Rows in a batch; batches of short rows may have more [default: the run\'s per_device_eval_batch_size, or 32]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l text-column -d 'Name of the text column in CSV, TSV, JSON and Parquet [default: the run\'s, or text]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l text-pair-column -d 'Name of the second text column [default: the run\'s, or none]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l delimiter -d 'Delimiter between the columns of a CSV, one character; \\t is a tab [default: the run\'s, or detected from the first lines]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l data -d 'Labelled data: .csv, .tsv, .jsonl, .json, .parquet, or a folder of class folders or Parquet files [default: the run\'s evaluation data]' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l label-column -d 'Name of the label column [default: the run\'s, or label]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l label-separator -d 'Separator between several labels of a row [default: the run\'s]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l label-columns -d 'Names of columns of 0 or 1, one for each label, instead of --label-column [default: the run\'s]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l errors -d 'Write the rows that are predicted wrong to this file, as JSON lines, the surest first; of a regression, all rows, the largest error first' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l tf32 -d 'Let fp32 matrix products on CUDA devices round their factors to TF32\'s 10 mantissa bits'
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l no-header -d 'The CSV or TSV has no header line; columns are numbered from 1 [default: as in the run]'
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l header -d 'The CSV or TSV has a header line, even if the run\'s data has none'
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -l json -d 'Write the metrics, the constant answer, the metrics of each class and the confusion matrix to stdout as one JSON object'
complete -c bitfit -n "__fish_bitfit_using_subcommand eval" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l run -d 'A run directory, whose base, delta and data are used' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l model -d 'The base: a directory, or the id of a model on the Hub; with --run, used instead of the run\'s base' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l revision -d 'Branch, tag or commit of the model on the Hub [default: main]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l weights -d 'The base\'s weight file, or the index of a sharded model [default: the first of model.ot, model.safetensors and pytorch_model.bin; for a Hub model, safetensors first]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l delta -d 'The task\'s delta.safetensors; with --run, used instead of the run\'s delta' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l tasks -d 'Directory of tasks of the base --model: NAME.safetensors, or NAME/delta.safetensors as a run has it. Every text is predicted by every task' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l task -d 'Predict by this task of --tasks; may be given several times [default: all]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l task-column -d 'Name of the column with the name of each row\'s task, instead of predicting every row by every task' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l device -d 'Device to compute on: auto, cpu, cuda or cuda:N' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l precision -d 'Precision of the matrix products, whatever the task was trained in' -r -f -a "auto\t'`bf16` on a GPU of compute capability 8.0 or more, otherwise `fp32`'
fp32\t'32-bit throughout'
bf16\t'The layers\' products in bfloat16, for GPUs and for CPUs that multiply bfloat16'
fp16\t'The layers\' products in float16, for GPUs; slow on CPUs. The loss is scaled so that small gradients do not vanish'"
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l batch-size -d 'Rows in a batch; batches of short rows may have more [default: the run\'s per_device_eval_batch_size, or 32]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l text-column -d 'Name of the text column in CSV, TSV, JSON and Parquet [default: the run\'s, or text]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l text-pair-column -d 'Name of the second text column [default: the run\'s, or none]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l delimiter -d 'Delimiter between the columns of a CSV, one character; \\t is a tab [default: the run\'s, or detected from the first lines]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l text-pair -d 'The second text, for a task on text pairs: predict TEXT --text-pair TEXT' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l input -d 'File of texts, one per line, or a .csv, .tsv, .jsonl, .json or .parquet file with a text column; - is standard input' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l output -d 'Write to this file instead of stdout; the file appears when all texts are done. A .csv, .tsv or .parquet is a table: the columns of the input, then those of the predictions. Any other file has JSON lines' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l top-k -d 'Give the scores of only the K most likely labels, the most likely first [default: all, in the order of the task\'s labels]. In a table, add the columns label_1, score_1 to label_K, score_K' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l min-score -d 'Give no label where its probability is below P: the line has "label": null and "unsure": true, and a table an empty cell. For tasks with one label a text' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l prefix -d 'In a table, begin the name of each column of predictions with this text' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l label-separator -d 'In a table, put this text between several labels in one cell [default: the run\'s data.label_separator, or ;]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l tf32 -d 'Let fp32 matrix products on CUDA devices round their factors to TF32\'s 10 mantissa bits'
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l no-header -d 'The CSV or TSV has no header line; columns are numbered from 1 [default: as in the run]'
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l header -d 'The CSV or TSV has a header line, even if the run\'s data has none'
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l no-text -d 'Leave out the texts: each line has its input\'s prediction alone, in the order of the inputs; a table has the other columns of the input'
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -l scores -d 'In a table, add a column score_LABEL for each label, in the order of class numbers'
complete -c bitfit -n "__fish_bitfit_using_subcommand predict" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l model -d 'A base: a directory, or the id of a model on the Hub' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l revision -d 'Branch, tag or commit of the model on the Hub [default: main]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l config -d 'A run configuration; its base and its data are read too' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l delta -d 'A task\'s delta.safetensors' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l against -d 'Show how --delta differs from another delta of the same base, or from the base itself (a directory, or a Hub id)' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l runs -d 'Show past runs side by side: run directories, or directories that contain runs' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l set -d 'Override a key of the configuration; may be repeated' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l weights -d 'The model\'s weight file, or the index of a sharded model [default: the first of model.ot, model.safetensors and pytorch_model.bin; for a Hub model, safetensors first]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l num-labels -d 'Number of labels of the new head that --model is shown with' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -l json -d 'Write the result to stdout as one line of JSON, with every tensor listed'
complete -c bitfit -n "__fish_bitfit_using_subcommand inspect" -s h -l help -d 'Print help'
complete -c bitfit -n "__fish_bitfit_using_subcommand compare" -l config -d 'The grid, a TOML file with [compare], [[task]], [[arm]] and the sections of a run configuration' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand compare" -l set -d 'Override a key of every run, or of the grid itself (compare.KEY=VALUE); may be repeated' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand compare" -l render -d 'Write the pages and plots of a comparison again, from its report.json alone' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand compare" -l output -d 'The directory for the files of --render [default: that of the report.json]' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand compare" -l overwrite -d 'Replace runs of another configuration; with --render, replace another report'
complete -c bitfit -n "__fish_bitfit_using_subcommand compare" -l dry-run -d 'Read and check everything, print what each arm would train, and stop without writing'
complete -c bitfit -n "__fish_bitfit_using_subcommand compare" -l json -d 'Write events to stdout as JSON lines; the last one says where the report is'
complete -c bitfit -n "__fish_bitfit_using_subcommand compare" -s h -l help -d 'Print help'
complete -c bitfit -n "__fish_bitfit_using_subcommand tune" -l config -d 'The configuration to tune, a TOML file' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand tune" -l set -d 'Override a key of the file; may be repeated. The tuned configuration has these keys too' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand tune" -l minutes -d 'The time to take; only the configuration as it is may take longer. A tuning that was resumed goes on counting [default: 30]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand tune" -l runs -d 'The steps to take, in runs of the configuration on one split, instead of --minutes. The result then does not depend on the clock' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand tune" -l folds -d 'Split the training rows this number of times, and let the mean decide, also with data.eval [default: 3 with fewer than 1,000 rows, else 1]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand tune" -l methods -d 'Methods to try, with a comma between them: bitfit, head, layer_norm, full, lora, adapter or probe [default: method.name]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand tune" -l output-dir -d 'The directory of the runs and the report [default: training.output_dir with -tune]' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand tune" -l resume -d 'Continue the tuning in the directory; without one, begin'
complete -c bitfit -n "__fish_bitfit_using_subcommand tune" -l overwrite -d 'Replace the tuning in the directory'
complete -c bitfit -n "__fish_bitfit_using_subcommand tune" -l json -d 'Write events to stdout as JSON lines; the last one says what was found'
complete -c bitfit -n "__fish_bitfit_using_subcommand tune" -s h -l help -d 'Print help'
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -l run -d 'A run directory, whose base, delta and data are used' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -l model -d 'The base: a directory, or the id of a model on the Hub; with --run, used instead of the run\'s base' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -l revision -d 'Branch, tag or commit of the model on the Hub [default: main]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -l weights -d 'The base\'s weight file, or the index of a sharded model [default: the first of model.ot, model.safetensors and pytorch_model.bin; for a Hub model, safetensors first]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -l delta -d 'The task\'s delta.safetensors; with --run, used instead of the run\'s delta' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -l format -d 'The format to write' -r -f -a "hf\t'A whole checkpoint, for from_pretrained: base and task merged'
peft\t'An adapter, for PeftModel.from_pretrained over the base'
sentence-transformers\t'A SentenceTransformer that makes the logits, for a head on the mean of all tokens'"
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -l output -d 'The directory to write to; it must be new or empty' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l model -d 'The base: a directory, or the id of a model on the Hub' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l revision -d 'Branch, tag or commit of the model on the Hub [default: main]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l weights -d 'The base\'s weight file [default: as bitfit predict]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l tasks -d 'Directory of tasks: NAME.safetensors, or NAME/delta.safetensors as a run has it. Without --tasks and --run, the head that the base was saved with is the one task' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l run -d 'A run directory, whose task is the one task' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l default-task -d 'The task of requests that name none' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l listen -d 'Where to listen: ADDRESS:PORT or unix:PATH' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l admin -d 'Where to listen for changes of tasks: PUT and DELETE /tasks/NAME, POST /reload. Without it no task can be changed over HTTP' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l api-key-file -d 'File with a key a line; requests then need the header Authorization: Bearer KEY' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l allow-host -d 'A name of this server that requests may have in Host, besides localhost and addresses; *.example.com and * are possible. May be given several times' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l device -d 'Device to compute on: auto, cpu, cuda or cuda:N' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l precision -d 'Precision of the matrix products, whatever the tasks were trained in' -r -f -a "auto\t'`bf16` on a GPU of compute capability 8.0 or more, otherwise `fp32`'
fp32\t'32-bit throughout'
bf16\t'The layers\' products in bfloat16, for GPUs and for CPUs that multiply bfloat16'
fp16\t'The layers\' products in float16, for GPUs; slow on CPUs. The loss is scaled so that small gradients do not vanish'"
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l threads -d 'Threads that compute [default: all cores, or OMP_NUM_THREADS]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l max-batch-tokens -d 'Tokens of a batch, at most; a text that is longer is a batch of its own [default: 256 for each thread, 512 at least; 16,384 on a GPU]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l max-queue-ms -d 'Refuse requests, with 429, that would wait longer than this, in milliseconds' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l max-queue-rows -d 'Refuse requests, with 429, beyond this number of rows that wait' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l max-rows -d 'Rows of a request, at most: its texts, times their tasks' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l max-body-mib -d 'MiB of a request\'s body, at most' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l request-timeout -d 'Seconds after which a request fails with 504' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l keep-alive -d 'Seconds that an idle connection stays open, and that a request\'s head may take' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l max-connections -d 'Open connections, at most' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l drain-delay -d 'Seconds from SIGTERM to the end of new requests, in which load balancers learn of it' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l drain-timeout -d 'Seconds to answer what was taken, at most' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l reload-seconds -d 'Seconds between looks at --tasks for new files; 0 looks on SIGHUP alone' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l tasks-memory-mib -d 'MiB of the tasks in memory, at most; more are in files without a name, in --cache-dir [default: half of the memory that this process may have]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l cache-dir -d 'Directory of these files [default: the system\'s for temporary files]' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l strict -d 'End the start if a task is refused'
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l tf32 -d 'Let fp32 matrix products on CUDA devices round their factors to TF32\'s 10 mantissa bits'
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l no-page -d 'Leave out the page of GET /'
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -l json -d 'Log JSON lines'
complete -c bitfit -n "__fish_bitfit_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bitfit -n "__fish_bitfit_using_subcommand convert" -l model -d 'The base: a directory, or the id of a model on the Hub' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand convert" -l revision -d 'Branch, tag or commit of the model on the Hub [default: main]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand convert" -l output -d 'The archive to write; its name must end in .ot, by which VarStore knows the format' -r -F
complete -c bitfit -n "__fish_bitfit_using_subcommand convert" -l weights -d 'The weight file to convert [default: model.safetensors, or pytorch_model.bin]' -r
complete -c bitfit -n "__fish_bitfit_using_subcommand convert" -s h -l help -d 'Print help'
complete -c bitfit -n "__fish_bitfit_using_subcommand completions" -s h -l help -d 'Print help'
complete -c bitfit -n "__fish_bitfit_using_subcommand docs" -s h -l help -d 'Print help'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare tune export serve convert completions docs help" -f -a "train" -d 'Train a task, as bitfit-train does'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare tune export serve convert completions docs help" -f -a "eval" -d 'Evaluate a trained task on labelled data'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare tune export serve convert completions docs help" -f -a "predict" -d 'Predict labels with their scores, as JSON lines on stdout'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare tune export serve convert completions docs help" -f -a "inspect" -d 'Show the parameter groups of a model, of a configuration or of a delta, how two deltas differ, or runs side by side'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare tune export serve convert completions docs help" -f -a "compare" -d 'Train the same tasks with several methods, learning rates and seeds, and write a report that compares them'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare tune export serve convert completions docs help" -f -a "tune" -d 'Find the learning rates, the number of epochs and what else is best for one task, and write a tuned configuration'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare tune export serve convert completions docs help" -f -a "export" -d 'Export a task for Python: as a whole checkpoint, or as a PEFT adapter'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare tune export serve convert completions docs help" -f -a "serve" -d 'Serve many tasks of one base over HTTP'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare tune export serve convert completions docs help" -f -a "convert" -d 'Convert a base\'s weights to a TorchScript archive that contains their fingerprint'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare tune export serve convert completions docs help" -f -a "completions" -d 'Write a shell\'s completions for bitfit and bitfit-train to stdout'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare tune export serve convert completions docs help" -f -a "docs" -d 'Write the manual pages, the completions, the configuration reference and the JSON schemas'
complete -c bitfit -n "__fish_bitfit_using_subcommand help; and not __fish_seen_subcommand_from train eval predict inspect compare tune export serve convert completions docs help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
