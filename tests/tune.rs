//! The search for the best configuration of one task: what is tried, the budget, a tuning that is
//! ended and continued, the files that it writes.

use crate::common::{Scratch, refused, stderr, stdout, succeeded};
use bitfit::internal::error::Error;
use bitfit::internal::tune::{Budget, TuneEvent, TuneOptions, TuneResult, TuneVerdict, tune};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

/// A task of 48 rows in short runs, at a rate of `rate` for all that trains.
fn scratch(more: &str) -> Scratch {
    let scratch = Scratch::new();
    scratch.write("train.tsv", crate::common::reviews(48, 1));
    scratch.write(
        "task.toml",
        format!(
            "# My task.\n[model]\nmodel_name_or_path = \"base\"\n\n[data]\ntrain = \"train.tsv\" # 48 rows\nmax_length = 32\n\n\
             [training]\noutput_dir = \"run\"\nper_device_train_batch_size = 16\nnum_train_epochs = 4 # short\n{more}"
        ),
    );
    scratch
}

fn options(scratch: &Scratch, runs: f64) -> TuneOptions {
    TuneOptions {
        config: scratch.path("task.toml"),
        overrides: vec![],
        budget: Budget::Runs(runs),
        folds: None,
        methods: vec![],
        output_dir: None,
        resume: false,
        overwrite: false,
    }
}

fn tuned(options: &TuneOptions) -> TuneResult {
    tune(options, &mut |_| Ok(()), &AtomicBool::new(false)).unwrap()
}

fn command(scratch: &Scratch, more: &[&str]) -> Output {
    let config = scratch.path("task.toml");
    let mut args = vec!["tune", "--config", config.to_str().unwrap()];
    args.extend(more);
    scratch.bitfit(&args)
}

fn text(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn state(scratch: &Scratch) -> Value {
    serde_json::from_str(&text(scratch.path("run-tune/tune.json"))).unwrap()
}

/// The candidates of a tuning by name: the number of scores of each rung.
fn tried(scratch: &Scratch) -> BTreeMap<String, Vec<usize>> {
    let state = state(scratch);
    let candidates = state["candidates"].as_array().unwrap().iter();
    let rungs = |candidate: &Value| {
        let rungs = candidate["rungs"].as_array().unwrap().iter();
        rungs.map(|scores| scores.as_array().unwrap().len()).collect()
    };
    candidates.map(|it| (it["name"].as_str().unwrap().to_owned(), rungs(it))).collect()
}

#[test]
fn a_better_candidate_than_a_poor_configuration_is_found_and_written() {
    // At this rate nothing is learned.
    let scratch = scratch("learning_rate = 1e-7\nmetric_for_best_model = \"loss\"\n");
    let result = tuned(&options(&scratch, 1000.0));
    assert_eq!(result.verdict, TuneVerdict::Better, "{result:?}");
    assert!(result.score.unwrap().mean < 0.9 * result.configured.unwrap().mean, "{result:?}");
    assert_eq!(result.configured.unwrap().n, 3, "few rows are split three times");
    let written = text(scratch.path("task.tuned.toml"));
    assert!(written.starts_with("# Tuned by bitfit"), "{written}");
    for kept in ["# My task.", "# 48 rows", "# short", "learning_rate = 1e-7"] {
        assert!(written.contains(kept), "{kept}: {written}");
    }
    assert!(written.contains("better by"), "{written}");
    assert!(written.contains("bias_learning_rate = 0.005"), "{written}");
    assert!(!written.contains(scratch.path("").to_str().unwrap()) || written.contains("The page"));
    // Nothing of the tuning's own stays, and the tuned configuration trains.
    for gone in ["eval_steps", "save_total_limit", "eval_fraction", "seed"] {
        assert!(!written.contains(gone), "{gone}: {written}");
    }
    let tuned = scratch.path("task.tuned.toml");
    succeeded(&scratch.bitfit(&["train", "--config", tuned.to_str().unwrap()]));
    let tried = tried(&scratch);
    assert_eq!(tried["as configured"], [3, 3, 3]);
    // 1 + 6 rates x 3 lengths + lengths of the own rate, and the extras.
    let quarters = tried.values().filter(|rungs| rungs.first() == Some(&3)).count();
    assert_eq!(quarters, tried.len(), "{tried:?}");
    let ends = tried.values().filter(|rungs| rungs.len() == 3).count();
    assert!(ends > 3 && ends < tried.len() / 2, "{tried:?}");
    let page = text(scratch.path("run-tune/report.md"));
    for part in
        ["as configured", "label smoothing 0.1", "pooling by the mean", "3 splits", "split 3"]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(text(scratch.path("run-tune/report.html")).contains("</html>"));
    let left = Command::new("find").arg(scratch.path("run-tune")).output().unwrap();
    let left = stdout(&left);
    assert!(!left.contains("step-") && !left.contains("delta.safetensors"), "{left}");
}

#[test]
fn the_configuration_wins_where_the_others_are_no_better() {
    // Every row is predicted right, and a tie goes to the configuration.
    let scratch = scratch("");
    let mut asked = options(&scratch, 1000.0);
    let overrides = ["training.num_train_epochs=40", "method.name=full", "data.max_length=40"];
    asked.overrides = overrides.map(str::to_owned).into();
    asked.overrides.push("training.learning_rate=1e-3".into());
    let result = tuned(&asked);
    assert_eq!(result.configured.unwrap().mean, 1.0, "{result:?}");
    assert_eq!((result.verdict, &*result.candidate), (TuneVerdict::AsConfigured, "as configured"));
    assert!(result.changes.is_empty());
    let written = text(scratch.path("task.tuned.toml"));
    assert!(written.contains("best candidate as it is"), "{written}");
    // Overrides are part of what was tuned.
    for key in ["num_train_epochs = 40 # short", "max_length = 40", "name = \"full\"", "0.001"] {
        assert!(written.contains(key), "{key}: {written}");
    }
}

#[test]
fn a_budget_of_runs_is_kept_and_larger_budgets_go_on() {
    let scratch = scratch("learning_rate = 1e-4\n");
    let mut asked = options(&scratch, 1.0);
    asked.folds = Some(2);
    // Less than the configuration itself takes.
    let result = tuned(&asked);
    assert_eq!((result.runs, result.measured), (2.0, 1));
    assert_eq!(result.verdict, TuneVerdict::NothingElseTried);
    assert!(text(scratch.path("task.tuned.toml")).contains("budget was too small"));
    let mut before = result.runs;
    for runs in [6.0, 9.0] {
        (asked.resume, asked.budget) = (true, Budget::Runs(runs));
        let result = tuned(&asked);
        assert!(result.runs <= runs && result.runs > before, "{result:?}");
        assert!(result.measured > 1 && result.measured < result.candidates, "{result:?}");
        before = result.runs;
    }
    // Under the clock, the configuration runs to the end all the same.
    (asked.resume, asked.overwrite, asked.budget) = (false, true, Budget::Minutes(1e-6));
    let result = tuned(&asked);
    assert_eq!((result.measured, result.share), (1, 1.0));
}

/// What a tuning is judged by: the tuned configuration, the pages and the state without its time.
fn outcome(scratch: &Scratch) -> (String, String, String, Value) {
    let mut state = state(scratch);
    state.as_object_mut().unwrap().remove("seconds");
    let of = state["of"]["config"].as_str().unwrap();
    let own = scratch.path("").display().to_string();
    state["of"]["config"] = Value::String(of.replace(&own, ""));
    let page = |name: &str| text(scratch.path(name)).replace(&own, "");
    (page("task.tuned.toml"), page("run-tune/report.md"), page("run-tune/report.html"), state)
}

#[test]
fn a_tuning_that_was_stopped_and_continued_ends_in_the_same_bytes() {
    let poor = "learning_rate = 1e-4\nmetric_for_best_model = \"loss\"\n";
    let whole = scratch(poor);
    tuned(&options(&whole, 14.0));
    let halved = scratch(poor);
    let mut asked = options(&halved, 14.0);
    let (mut stops, mut steps) = (0, 0);
    loop {
        let (stop, mut count) = (AtomicBool::new(false), 0);
        let ended = tune(
            &asked,
            &mut |event| {
                if let TuneEvent::Step { .. } = event {
                    count += 1;
                    stop.fetch_or(count == 41, Ordering::SeqCst);
                }
                Ok(())
            },
            &stop,
        );
        steps += count;
        match ended {
            Ok(_) => break,
            Err(Error::Interrupted(message)) => assert!(message.contains("--resume"), "{message}"),
            Err(error) => panic!("{error}"),
        }
        stops += 1;
        asked.resume = true;
    }
    assert!(stops > 2, "{stops} stops");
    assert_eq!(outcome(&whole), outcome(&halved));
    // No step was computed twice: a run of the configuration has 12 steps.
    assert!(steps as f64 <= 14.0 * 12.0 + 40.0, "{steps}");
}

#[test]
fn a_tuning_that_was_killed_and_continued_ends_in_the_same_bytes() {
    let poor = "learning_rate = 1e-4\nmetric_for_best_model = \"loss\"\n";
    let bounded = ["--runs", "7", "--folds", "2"];
    let whole = scratch(poor);
    succeeded(&command(&whole, &bounded));
    let killed = scratch(poor);
    let config = killed.path("task.toml");
    let mut kills = 0;
    loop {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bitfit"));
        command.args(["tune", "--config"]).arg(&config).args(bounded).arg("--resume");
        // At other operations each time.
        let fault = format!("kill:{}", 180 + 23 * kills);
        command.env("BITFIT_FAULT", fault).env_remove("RUST_LOG");
        let output = command.output().unwrap();
        if output.status.success() {
            break;
        }
        assert_eq!(output.status.code(), None, "{}", stderr(&output));
        kills += 1;
        assert!(kills < 40);
    }
    assert!(kills > 1, "{kills} kills");
    assert_eq!(outcome(&whole), outcome(&killed));
}

#[test]
fn other_tunings_and_other_files_are_left_alone() {
    let scratch = scratch("");
    let small = ["--runs", "1", "--folds", "2"];
    // A file that no tuning wrote, and a directory that no tuning made.
    scratch.write("task.tuned.toml", "# Mine.\n");
    refused(&command(&scratch, &small), 1, &["task.tuned.toml", "did not write this file"]);
    assert_eq!(text(scratch.path("task.tuned.toml")), "# Mine.\n");
    assert!(!scratch.path("run-tune").exists(), "nothing is written");
    std::fs::remove_file(scratch.path("task.tuned.toml")).unwrap();
    scratch.write("other/report.md", "Mine.");
    let other = scratch.path("other");
    let other = [&small[..], &["--overwrite", "--output-dir", other.to_str().unwrap()]].concat();
    refused(&command(&scratch, &other), 2, &["report.md", "not from a tuning", "--output-dir"]);
    succeeded(&command(&scratch, &small));
    refused(&command(&scratch, &small), 2, &["already holds a tuning", "--resume", "--overwrite"]);
    let resume = |more: &[&str]| command(&scratch, &[&small[..], &["--resume"], more].concat());
    succeeded(&resume(&[]));
    refused(
        &resume(&["--set", "training.weight_decay=0.5"]),
        2,
        &["another configuration", "training.weight_decay was 0.0 and is 0.5"],
    );
    refused(&resume(&["--methods", "head"]), 2, &["--methods was not given"]);
    refused(&command(&scratch, &["--runs", "1", "--resume"]), 2, &["--folds was 2"]);
    scratch.write("train.tsv", crate::common::reviews(60, 1));
    refused(&resume(&[]), 2, &["rows", "changed"]);
    scratch.write("run-tune/tune.json", "{");
    refused(&resume(&[]), 1, &["tune.json", "not the state of a tuning"]);
    succeeded(&command(&scratch, &[&small[..], &["--overwrite"]].concat()));
}

#[test]
fn what_is_wrong_with_the_arguments_is_said() {
    let scratch = scratch("");
    for (more, parts) in [
        (&["--methods", "bitfit,lorra"][..], &["lorra", "lora"][..]),
        (&["--minutes", "0"], &["--minutes", "positive"]),
        (&["--runs", "3", "--minutes", "3"], &["--runs", "--minutes"]),
        (&["--folds", "1"], &["--folds", "2..=20"]),
        (&["--set", "training.weight_decay=-1"], &["training.weight_decay", "found -1"]),
    ] {
        refused(&command(&scratch, more), 2, parts);
    }
    let pipe = Path::new("/dev/null");
    let args = ["tune", "--config", pipe.to_str().unwrap()];
    assert!(!scratch.bitfit(&args).status.success());
    assert!(!scratch.path("run-tune").exists(), "nothing is written");
}

#[test]
fn other_methods_are_tried_at_their_own_rates() {
    let scratch = scratch("learning_rate = 1e-2\n[bitfit]\ntrain_key_bias = false\n");
    let output = command(
        &scratch,
        &["--runs", "40", "--folds", "2", "--methods", "full,lora,head", "--json"],
    );
    succeeded(&output);
    let lines: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events = |name: &str| lines.iter().filter(|line| line["event"] == name).count();
    assert_eq!((events("planned"), events("finished"), events("failed")), (1, 1, 0));
    assert!(events("measured") > 8 && events("dropped") > 2, "{lines:?}");
    let tried = tried(&scratch);
    for name in [
        "as configured",
        "full, rate 5e-5",
        "lora, rate 5e-4",
        "lora, rate 1.5e-4",
        "head, head 1e-2",
    ] {
        assert!(tried.contains_key(name), "{name}: {tried:?}");
    }
    assert_eq!(tried["as configured"], [2, 2, 2]);
    // A method of its own has its schedule, and no key of BitFit's.
    let state = state(&scratch);
    let candidates = state["candidates"].as_array().unwrap();
    let lora = candidates.iter().find(|it| it["name"] == "lora, rate 1.5e-4").unwrap();
    let keys = lora["keys"].to_string();
    for part in ["[\"method.name\",\"lora\"]", "[\"training.lr_scheduler_type\",\"linear\"]"] {
        assert!(keys.contains(part), "{part}: {keys}");
    }
    assert!(keys.contains("[\"bitfit.train_key_bias\",null]"), "{keys}");
}

#[test]
fn a_probe_is_tried_with_three_penalties() {
    let scratch = scratch("eval_steps = 3\n");
    let first = ["--set", "model.pooling=first"];
    let methods = ["--runs", "100", "--folds", "2", "--methods", "bitfit,probe"];
    succeeded(&command(&scratch, &[&methods[..], &first].concat()));
    let all = tried(&scratch);
    let probes: Vec<&String> = all.keys().filter(|name| name.starts_with("probe, ")).collect();
    assert_eq!(probes[..3], ["probe, c 0.1", "probe, c 1", "probe, c 10"], "{all:?}");
    assert!(probes.iter().all(|name| all[*name][0] == 2), "{all:?}");
    let state = state(&scratch);
    let candidates = state["candidates"].as_array().unwrap();
    let keys =
        candidates.iter().find(|it| it["name"] == "probe, c 10").unwrap()["keys"].to_string();
    for part in [
        "[\"method.c\",10.0]",
        "[\"training.num_train_epochs\",null]",
        "[\"model.pooling\",null]",
        "eval_steps\",null",
    ] {
        assert!(keys.contains(part), "{part}: {keys}");
    }
    let failed = candidates.iter().filter(|it| it["failed"].is_string());
    assert_eq!(failed.count(), 0, "{state}");
    // A configuration of the method has no other lengths, and other methods are longer.
    let own = ["--overwrite", "--set", "method.name=probe", "--set", "training.num_train_epochs="];
    let none =
        ["--set", "training.per_device_train_batch_size=16", "--set", "training.eval_steps="];
    succeeded(&command(&scratch, &[&own[..], &none, &["--runs", "200", "--folds", "2"]].concat()));
    let names: Vec<String> = tried(&scratch).into_keys().collect();
    assert_eq!(names[..3], ["as configured", "c 0.1", "c 10"], "{names:?}");
    let written = text(scratch.path("task.tuned.toml"));
    assert!(written.contains("name = \"probe\""), "{written}");
    let tuned = scratch.path("task.tuned.toml");
    succeeded(&scratch.bitfit(&["train", "--config", tuned.to_str().unwrap()]));
}

#[test]
fn a_candidate_that_diverges_is_left_out_and_an_evaluation_file_decides() {
    let scratch = scratch("learning_rate = 1e30\n");
    scratch.write("eval.tsv", crate::common::reviews(12, 2));
    let output = command(&scratch, &["--runs", "12", "--set", "data.eval=eval.tsv"]);
    succeeded(&output);
    assert!(stderr(&output).contains("left out"), "{}", stderr(&output));
    let state = state(&scratch);
    let configured = &state["candidates"][0];
    assert!(configured["failed"].as_str().is_some_and(|it| it.contains("NaN")), "{configured}");
    assert!(text(scratch.path("run-tune/report.md")).contains("data.eval decide"));
    let written = text(scratch.path("task.tuned.toml"));
    assert!(written.contains("as it is gave no score"), "{written}");
    assert!(written.contains(&format!("eval = {:?}", scratch.path("eval.tsv"))), "{written}");
}
