//! The configuration: what is refused and how; what is shipped.

use crate::common::{Scratch, refused, root, stderr, succeeded};
use bitfit::internal::bounds::Positive;
use bitfit::internal::config::{Run, RunConfig};
use bitfit::internal::sources::Sources;
use bitfit::internal::train::RawRows;

#[test]
fn wrong_values_name_file_key_found_and_allowed() {
    let scratch = Scratch::new();
    for (line, parts) in [
        ("learning_rte = 1e-3", ["config.toml", "learning_rte", "did you mean `learning_rate`?"]),
        ("weight_decay = \"fast\"", ["config.toml", "weight_decay = \"fast\"", "expected f64"]),
        ("adam_epsilon = -1.0", ["config.toml", "training.adam_epsilon", "found -1"]),
        ("seed = -3", ["config.toml", "seed = -3", "u64"]),
        ("save_total_limit = 0", ["training.save_total_limit", "found 0", "1 or more"]),
        ("metric_for_best_model = \"acuracy\"", ["acuracy", "did you mean `accuracy`?", "line"]),
        ("adam_beta2 = 1.0", ["training.adam_beta2", "found 1", "below 1"]),
        ("device = \"tpu\"", ["training.device", "found tpu", "cuda:N"]),
        ("device = \"cuda:99\"", ["training.device", "found cuda:99", "CUDA"]),
        ("precision = \"fp8\"", ["precision", "fp8", "fp32"]),
        ("[data]\nmax_length = 8", ["config.toml", "duplicate", "data"]),
        (
            "[bitfit]\ntrain_bias_only = false",
            ["bitfit.train_bias_only", "found false", "full fine-tuning"],
        ),
        ("[bitfit]\ninclude = [\"(\"]", ["config.toml: bitfit.include", "regular expression", "("]),
        (
            "[bitfit]\nexclude = [\"nothing.bias\"]",
            ["config.toml: bitfit.exclude", "matches no bias", "such as bert."],
        ),
        ("[bitfti]\nexclude = []", ["bitfti", "did you mean `bitfit`?", "line"]),
        ("= 3", ["config.toml", "line 15", "= 3"]),
    ] {
        scratch.config("config.toml", line);
        let output = scratch.train(&[]);
        refused(&output, 2, &parts);
        assert!(!scratch.path("run").exists(), "nothing is written");
    }
}

#[test]
fn a_value_out_of_bounds_is_shown_in_its_line_with_its_key() {
    let scratch = Scratch::new();
    scratch.config("config.toml", "adam_epsilon = -1.0");
    let error = RunConfig::read(scratch.path("config.toml"), &[]).unwrap_err().to_string();
    let shown = "TOML parse error at line 15, column 16\n   |\n15 | adam_epsilon = -1.0\n   |                ^^^^\n\
                 training.adam_epsilon: found -1, expected a positive number";
    assert!(error.ends_with(shown), "{error}");
}

/// The schema's bounds are the reader's: a number at a bound is read, and one beyond it is not.
#[test]
fn bounds_of_the_schema_are_the_readers() {
    let mut checked = 0;
    let schema = bitfit::internal::config::schema();
    for (section, part) in schema["properties"].as_object().unwrap() {
        for (key, property) in part["properties"].as_object().unwrap() {
            let whole = property["type"] == "integer";
            let step = if whole { 1.0 } else { 1e-3 };
            // Whether the reader knows the bound by itself; the split is checked with its file.
            let is_split = key == "eval_fraction";
            for (bound, good, bad) in [
                ("minimum", 0.0, -step),
                ("exclusiveMinimum", step, 0.0),
                ("maximum", 0.0, step),
                ("exclusiveMaximum", -step, 0.0),
            ] {
                let Some(number) = property[bound].as_f64().filter(|_| !is_split) else { continue };
                let read = |number: f64| {
                    let number = if whole { format!("{number:.0}") } else { format!("{number:?}") };
                    toml::from_str::<RunConfig>(&format!("[{section}]\n{key} = {number}"))
                };
                assert!(read(number + good).is_ok(), "{section}.{key}: {bound} {number}");
                let error = read(number + bad).unwrap_err().to_string();
                assert!(error.contains("expected"), "{section}.{key}: {error}");
                checked += 1;
            }
        }
    }
    assert!(checked > 40, "{checked}");
}

#[test]
fn overrides_are_checked_and_named() {
    let scratch = Scratch::new();
    for (set, parts) in [
        (
            "training.learning_rte=1",
            ["--set training.learning_rte=1", "did you mean `learning_rate`?"],
        ),
        ("learning_rate=1", ["SECTION.KEY=VALUE", "learning_rate=1"]),
        ("training.seed", ["SECTION.KEY=VALUE", "training.seed"]),
        ("training.learning_rate=-1", ["--set training.learning_rate=-1", "found -1"]),
        ("training.seed=many", ["--set training.seed=many", "u64"]),
    ] {
        refused(&scratch.train(&["--set", set]), 2, &parts);
    }
    let config = scratch.path("config.toml");
    let sets = [
        "training.learning_rate=1",
        "training.output_dir=elsewhere",
        "model.label_names=[\"a\", \"b\"]",
    ]
    .map(String::from);
    let read = RunConfig::read(&config, &sets).unwrap();
    assert_eq!(read.training.learning_rate.map(Positive::get), Some(1.0));
    assert_eq!(
        read.training.output_dir,
        std::env::current_dir().unwrap().join("elsewhere"),
        "by the working directory"
    );
    assert_eq!(read.data.train, scratch.path("train.tsv"), "by the file's directory");
    assert_eq!(read.model.label_names.unwrap()[..], ["a", "b"]);
}

#[test]
fn missing_files_are_named() {
    let scratch = Scratch::new();
    refused(
        &scratch.bitfit(&["train", "--config", "nowhere.toml"]),
        2,
        &["nowhere.toml", "No such file"],
    );
    refused(
        &scratch.train(&["--set", "data.train=nowhere.tsv"]),
        1,
        &["nowhere.tsv", "No such file"],
    );
    refused(
        &scratch.train(&["--set", "model.model_name_or_path=nowhere"]),
        1,
        &["nowhere", "no local directory"],
    );
    refused(
        &scratch.train(&["--set", "model.init_delta=nowhere.safetensors"]),
        1,
        &["nowhere.safetensors", "No such file"],
    );
    refused(
        &scratch.train(&["--set", "data.max_length=64"]),
        2,
        &["data.max_length", "found 64", "4 to 40", "positions"],
    );
    scratch.write("empty.toml", "");
    refused(
        &scratch.bitfit(&["train", "--config", "empty.toml"]),
        2,
        &["model.model_name_or_path", "found nothing"],
    );
    scratch.write("latin.toml", b"# na\xefve");
    refused(
        &scratch.bitfit(&["train", "--config", "latin.toml"]),
        2,
        &["latin.toml", "line 1", "not UTF-8"],
    );
}

#[test]
fn a_resolved_configuration_reads_as_itself() {
    let scratch = Scratch::new();
    let config = RunConfig::read(scratch.path("config.toml"), &[]).unwrap();
    let path = scratch.write("again.toml", config.to_toml().unwrap());
    assert_eq!(RunConfig::read(&path, &[]).unwrap().to_toml().unwrap(), config.to_toml().unwrap());
    Run::new(config, &path, &[]).unwrap();
}

#[test]
fn shipped_configurations_are_right() {
    let mut count = 0;
    for folder in ["configs", "configs/glue"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let config = RunConfig::read(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
            Run::new(config, &path, &[]).unwrap_or_else(|e| panic!("{e}"));
            count += 1;
        }
    }
    assert_eq!(count, 11);
}

/// The header of MNLI.
const NLI: &str = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label";

/// Each GLUE task: its header, two rows, whether it has pairs, and the labels.
type GlueTask = (&'static str, &'static str, [&'static str; 2], bool, &'static [&'static str]);

const GLUE: [GlueTask; 9] = [
    ("cola", "", ["s\t1\t\tA", "s\t0\t*\tA"], false, &["0", "1"]),
    ("sst2", "sentence\tlabel", ["A\t1", "A\t0"], false, &["0", "1"]),
    (
        "mrpc",
        "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        ["1\t7\t8\tA\tB", "0\t7\t8\tA\tB"],
        true,
        &["0", "1"],
    ),
    (
        "stsb",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        ["0\tg\tf\ty\t1\tnone\tnone\tA\tB\t5.000", "1\tg\tf\ty\t1\tnone\tnone\tA\tB\t0.250"],
        true,
        &[],
    ),
    (
        "qqp",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        ["1\t2\t3\tA\tB\t0", "1\t2\t3\tA\tB\t1"],
        true,
        &["0", "1"],
    ),
    (
        "mnli",
        NLI,
        [
            "0\tp\tq\tg\t(\t(\t(\t(\tA\tB\tneutral\tneutral",
            "0\tp\tq\tg\t(\t(\t(\t(\tA\tB\tx\tcontradiction",
        ],
        true,
        &["entailment", "neutral", "contradiction"],
    ),
    (
        "qnli",
        "index\tquestion\tsentence\tlabel",
        ["0\tA\tB\tentailment", "1\tA\tB\tnot_entailment"],
        true,
        &["entailment", "not_entailment"],
    ),
    (
        "rte",
        "index\tsentence1\tsentence2\tlabel",
        ["0\tA\tB\tnot_entailment", "1\tA\tB\tentailment"],
        true,
        &["entailment", "not_entailment"],
    ),
    ("wnli", "index\tsentence1\tsentence2\tlabel", ["0\tA\tB\t1", "1\tA\tB\t0"], true, &["0", "1"]),
];

/// Files with the official headers, two rows each: every configuration finds the texts and the
/// labels in them.
#[test]
fn glues_configurations_find_glues_columns() {
    let scratch = Scratch::new();
    for (task, header, rows, pairs, labels) in GLUE {
        let lines: Vec<&str> =
            [header].into_iter().chain(rows).filter(|line| !line.is_empty()).collect();
        let data = scratch.write("glue.tsv", lines.join("\n"));
        let sets = ["data.train", "data.eval"].map(|key| format!("{key}={}", data.display()));
        let run = Run::read(&root().join(format!("configs/glue/{task}.toml")), &sets).unwrap();
        let read = RawRows::read(&run, &run.columns(), &local(&run)).unwrap();
        assert_eq!(read.labels.names, labels, "{task}");
        for row in read.train.iter().chain(&read.eval) {
            assert_eq!(
                (row.text.as_str(), row.text_pair.as_deref()),
                ("A", pairs.then_some("B")),
                "{task}"
            );
        }
        read.labels.targets(run.model().task_type, &read.train).unwrap();
        assert_eq!(read.train.len(), 2);
    }
}

/// What a run of local files reads.
fn local(run: &Run) -> Sources {
    Sources::find(run, &mut |_, _, _| panic!("a download")).unwrap()
}

#[test]
fn the_help_teaches() {
    let scratch = Scratch::new();
    for args in [
        &["train", "--help"][..],
        &["predict", "--help"],
        &["compare", "--help"],
        &["eval", "--help"],
        &["inspect", "--help"],
        &["convert", "--help"],
    ] {
        let output = scratch.bitfit(args);
        succeeded(&output);
        assert!(
            crate::common::stdout(&output).contains("Example"),
            "{args:?}: {}",
            stderr(&output)
        );
    }
}
