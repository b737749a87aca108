//! What files, file systems and other processes do to a run: it ends in the same bytes, or with an
//! error that says what happened.

use crate::common::{Scratch, refused, reviews, stderr, succeeded};
use crate::{resume, tracking};
use bitfit::internal::checkpoint::{self, Checkpoint};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tch::{Kind, Tensor};

/// Four steps, each logged and evaluated, and a checkpoint after each second, of which one is kept.
fn scratch() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("train.tsv", reviews(16, 1));
    scratch.write("eval.tsv", reviews(8, 2));
    let text = std::fs::read_to_string(scratch.path("config.toml")).unwrap();
    let text = text
        .replace("batch_size = 8", "batch_size = 4")
        .replace("epochs = 2", "epochs = 1")
        .replace("eval_steps = 8", "eval_steps = 1")
        .replace("save_steps = 8", "save_steps = 2\nsave_total_limit = 1")
        .replace("logging_steps = 4", "logging_steps = 1");
    scratch.write("config.toml", text);
    scratch
}

/// The training into `run`, begun or gone on with, with a fault if there is one.
fn training(scratch: &Scratch, run: &str, fault: Option<String>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitfit-train"));
    command.args(["--config", "config.toml", "--resume", "--set"]);
    command.arg(format!("training.output_dir={run}")).current_dir(scratch.path(""));
    command.env("OMP_NUM_THREADS", "1").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(fault) = fault {
        command.env("BITFIT_FAULT", fault);
    }
    command
}

fn bytes(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a run's event files say, but for what is time.
fn scalars(run: &Path) -> Vec<String> {
    let values = tracking::values(run).into_iter();
    let timeless =
        values.filter(|((tag, _), _)| tag != "train/tokens_per_second" && tag != "config");
    timeless.map(|(key, value)| format!("{key:?} {value:?}")).collect()
}

#[track_caller]
fn same(scratch: &Scratch, run: &str, what: &str) {
    let delta = |run: &str| bytes(scratch.path(run).join("delta.safetensors"));
    assert!(delta(run) == delta("run"), "{what}");
    assert_eq!(resume::records(scratch, run), resume::records(scratch, "run"), "{what}");
    assert_eq!(scalars(&scratch.path(run)), scalars(&scratch.path("run")), "{what}");
    assert_eq!(left_over(&scratch.path(run)), Vec::<PathBuf>::new(), "{what}");
    let steps = |run: &str| -> Vec<u64> {
        let steps = checkpoint::steps(&scratch.path(run)).unwrap();
        steps.into_iter().map(|(step, _)| step).collect()
    };
    assert_eq!(steps(run), steps("run"), "{what}");
}

/// Hidden files below a directory, the lock aside.
fn left_over(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with('.') && name != ".lock" {
            found.push(entry.path());
        }
        if entry.path().is_dir() {
            found.extend(left_over(&entry.path()));
        }
    }
    found
}

/// Kills `begin` at each of its operations, hands its directory to `end`, and returns how many
/// operations there were.
fn killed_at_each(begin: &(dyn Fn(u64) -> Output + Sync), end: &(dyn Fn(u64) + Sync)) -> u64 {
    let every_second = |first: u64| {
        for number in (first..).step_by(2) {
            let output = begin(number);
            if output.status.success() {
                return number;
            }
            assert_eq!(output.status.signal(), Some(9), "{number}: {}", stderr(&output));
            end(number);
        }
        unreachable!()
    };
    std::thread::scope(|scope| {
        let odd = scope.spawn(|| every_second(1));
        every_second(2).min(odd.join().unwrap()) - 1
    })
}

#[test]
fn killed_at_each_operation_it_ends_in_the_same_bytes() {
    let scratch = scratch();
    succeeded(&training(&scratch, "run", None).output().unwrap());
    let go_on = |run: &str| {
        let output = training(&scratch, run, None).output().unwrap();
        assert!(output.status.success(), "{run}: {}", stderr(&output));
        same(&scratch, run, run);
        std::fs::remove_dir_all(scratch.path(run)).unwrap();
    };
    let name = |number| format!("killed-{number}");
    let killed = |run: &str, number| {
        training(&scratch, run, Some(format!("kill:{number}"))).output().unwrap()
    };
    let count =
        killed_at_each(&|number| killed(&name(number), number), &|number| go_on(&name(number)));
    assert!(count > 100, "{count} operations");
    // And while it goes on: after the first checkpoint, and a better state since.
    killed("half", count * 7 / 10);
    let steps = checkpoint::steps(&scratch.path("half")).unwrap();
    assert_eq!(steps.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [2]);
    let again = |number| format!("again-{number}");
    let count = killed_at_each(
        &|number| {
            let half = [scratch.path("half"), scratch.path(&again(number))];
            assert!(Command::new("cp").arg("-r").args(half).status().unwrap().success());
            killed(&again(number), number)
        },
        &|number| go_on(&again(number)),
    );
    assert!(count > 50, "{count} operations");
}

#[test]
fn an_operation_that_fails_keeps_what_was_saved() {
    let scratch = scratch();
    succeeded(&training(&scratch, "run", None).output().unwrap());
    // No space left, and an input or output error, at operations of all kinds.
    for number in (3..).step_by(7) {
        let (run, errno) = (format!("failed-{number}"), if number % 2 == 0 { 28 } else { 5 });
        let output = training(&scratch, &run, Some(format!("fail:{number}:{errno}"))).output();
        let output = output.unwrap();
        if !output.status.success() {
            let said = if errno == 28 { "No space left on device" } else { "Input/output error" };
            refused(&output, 1, &["cannot ", said]);
        } else if number > 150 {
            break;
        }
        succeeded(&training(&scratch, &run, None).output().unwrap());
        same(&scratch, &run, &run);
    }
}

/// tests/preload.c, compiled.
fn preload(scratch: &Scratch) -> PathBuf {
    let library = scratch.path("preload.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/preload.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(&library).arg(source);
    assert!(compiler.status().unwrap().success());
    library
}

#[test]
fn file_systems_without_locks_are_good_enough() {
    let scratch = scratch();
    let library = preload(&scratch);
    succeeded(&training(&scratch, "run", None).output().unwrap());
    let mut poor = training(&scratch, "poor", None);
    let output = poor.env("LD_PRELOAD", &library).env("NO_LOCKS", "1").output().unwrap();
    succeeded(&output);
    let warning = "poor: the file system has no locks";
    assert_eq!(stderr(&output).matches(warning).count(), 1, "{}", stderr(&output));
    same(&scratch, "poor", "without locks");
    // What a killed process left in a run's own directory goes there too.
    let mut killed = training(&scratch, "killed", Some("kill:20".into()));
    let killed = killed.env("LD_PRELOAD", &library).env("NO_LOCKS", "1").output().unwrap();
    assert_eq!(killed.status.signal(), Some(9));
    let mut again = training(&scratch, "killed", None);
    succeeded(&again.env("LD_PRELOAD", &library).env("NO_LOCKS", "1").output().unwrap());
    same(&scratch, "killed", "killed without locks");
    let run = scratch.path("poor");
    let args = ["predict", "--run", run.to_str().unwrap(), "a film", "--output", "out.jsonl"];
    let mut predict = Command::new(env!("CARGO_BIN_EXE_bitfit"));
    predict.args(args).current_dir(scratch.path("")).env("LD_PRELOAD", &library);
    succeeded(&predict.env("NO_LOCKS", "1").output().unwrap());
    assert!(scratch.path("out.jsonl").exists());
}

#[test]
fn a_clock_that_was_never_set_ends_no_run() {
    let scratch = scratch();
    let library = preload(&scratch);
    for (run, seconds, year) in [
        ("early", "-86400", "1970-01-01T00:00:00Z"),
        ("late", "300000000000", "9999-12-31T23:59:59Z"),
    ] {
        let mut command = training(&scratch, run, None);
        let output = command.env("LD_PRELOAD", &library).env("CLOCK", seconds).output().unwrap();
        succeeded(&output);
        assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
        let manifest = bytes(scratch.path(run).join("manifest.json"));
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["processes"][0]["ended"], year);
    }
}

/// Waits until a process has stopped itself.
#[track_caller]
fn stopped(child: &mut Child) {
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let state = stat.rsplit_once(')').unwrap().1.trim_start().chars().next();
        match state {
            Some('T') => return,
            Some('Z') => panic!("it ended before it stopped"),
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn go_on(child: Child) -> Output {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-CONT", &id]).status().unwrap().success());
    child.wait_with_output().unwrap()
}

/// An operation between the first checkpoint and the second.
const BETWEEN: u64 = 72;

/// A training into `run` that has stopped itself between its checkpoints.
fn halted(scratch: &Scratch, run: &str) -> Child {
    let mut child = training(scratch, run, Some(format!("stop:{BETWEEN}"))).spawn().unwrap();
    stopped(&mut child);
    let steps = checkpoint::steps(&scratch.path(run)).unwrap();
    assert_eq!(steps.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [2]);
    child
}

/// Every file below a directory, with its bytes.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.path().is_dir() {
            true => found.extend(contents(&entry.path())),
            false => found.push((entry.path(), bytes(entry.path()))),
        }
    }
    found.sort();
    found
}

#[test]
fn a_run_that_was_moved_away_leaves_its_successor_alone() {
    let scratch = scratch();
    let first = halted(&scratch, "run");
    std::fs::rename(scratch.path("run"), scratch.path("old run")).unwrap();
    succeeded(&training(&scratch, "run", None).output().unwrap());
    let before = contents(&scratch.path("run"));
    let output = go_on(first);
    let parts = [
        "run: the directory was moved to",
        "/old run while this run wrote to it",
        "kept: ",
        "/old run/checkpoints/step-00000",
        "--set 'training.output_dir=",
    ];
    refused(&output, 1, &parts);
    assert!(contents(&scratch.path("run")) == before, "the successor's files are others");
    // Nothing of it is lost: it goes on where it is.
    succeeded(&training(&scratch, "old run", None).output().unwrap());
    same(&scratch, "old run", "moved");
    // One that was removed has nothing to go on from.
    let first = halted(&scratch, "gone");
    std::fs::remove_dir_all(scratch.path("gone")).unwrap();
    refused(
        &go_on(first),
        1,
        &["gone: the directory, or the file .lock in it, was removed", "kept: "],
    );
    assert!(!scratch.path("gone").exists());
}

/// Writes over some of a file's bytes, in place.
fn write_over(path: &Path) {
    let mut text = bytes(path.to_owned());
    let end = text.len() - 4096;
    text[end..].chunks_mut(4).for_each(|number| number.copy_from_slice(&0.5f32.to_le_bytes()));
    std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all(&text).unwrap();
}

fn cut(path: &Path) {
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
}

#[test]
fn a_base_that_is_written_to_ends_the_training() {
    let scratch = scratch();
    succeeded(&training(&scratch, "run", None).output().unwrap());
    let file = scratch.path("base/model.safetensors");
    let good = bytes(file.clone());
    let child = halted(&scratch, "over");
    write_over(&file);
    let parts = [
        "base/model.safetensors: written to while it was in use",
        "--resume",
        "kept: ",
        "step-000002",
    ];
    refused(&go_on(child), 1, &parts);
    refused(&training(&scratch, "over", None).output().unwrap(), 1, &["base_fingerprint"]);
    let child = {
        std::fs::write(&file, &good).unwrap();
        halted(&scratch, "cut")
    };
    cut(&file);
    let output = go_on(child);
    refused(&output, 1, &["base/model.safetensors: it was cut short", "--resume"]);
    assert_eq!(output.status.signal(), None);
    std::fs::write(&file, &good).unwrap();
    for run in ["over", "cut"] {
        succeeded(&training(&scratch, run, None).output().unwrap());
        same(&scratch, run, run);
    }
    // As JSON, it is one more line of it.
    let mut child = training(&scratch, "json", Some(format!("stop:{BETWEEN}")));
    let mut child = child.arg("--json").spawn().unwrap();
    stopped(&mut child);
    cut(&file);
    let output = go_on(child);
    let last: Value = serde_json::from_str(stderr(&output).lines().last().unwrap()).unwrap();
    assert!(last["error"].as_str().unwrap().contains("model.safetensors: it was cut short"));
    assert_eq!((&last["exit_code"], output.status.code()), (&1.into(), Some(1)));
}

#[test]
fn a_base_that_another_is_renamed_over_stays_what_it_was() {
    let scratch = scratch();
    succeeded(&training(&scratch, "run", None).output().unwrap());
    let file = scratch.path("base/model.safetensors");
    // Another name, other rights: the same numbers.
    let child = halted(&scratch, "linked");
    std::fs::hard_link(&file, scratch.path("link")).unwrap();
    succeeded(&go_on(child));
    same(&scratch, "linked", "linked");
    let child = halted(&scratch, "renamed");
    std::fs::copy(&file, scratch.path("other")).unwrap();
    write_over(&scratch.path("other"));
    std::fs::rename(scratch.path("other"), &file).unwrap();
    succeeded(&go_on(child));
    same(&scratch, "renamed", "renamed");
    // Of numbers of another type than is computed with, all are copies.
    let mut tensors = Tensor::read_safetensors(&file).unwrap();
    tensors.iter_mut().for_each(|(_, tensor)| *tensor = tensor.to_kind(Kind::Half));
    Tensor::write_safetensors(&tensors, &file).unwrap();
    succeeded(&training(&scratch, "whole", None).output().unwrap());
    let child = halted(&scratch, "copied");
    write_over(&file);
    succeeded(&go_on(child));
    let delta = |run: &str| bytes(scratch.path(run).join("delta.safetensors"));
    assert!(delta("copied") == delta("whole"));
}

#[test]
fn a_base_that_is_written_to_ends_predictions() {
    let scratch = scratch();
    succeeded(&training(&scratch, "run", None).output().unwrap());
    let file = scratch.path("base/model.safetensors");
    let good = bytes(file.clone());
    type Change = fn(&Path);
    for (change, message) in
        [(write_over as Change, "written to while it was in use"), (cut, "it was cut short")]
    {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bitfit"))
            .args(["predict", "--run", "run", "--input", "-"])
            .current_dir(scratch.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut ask = || {
            input.write_all(b"the film was great\n").unwrap();
            let mut answer = String::new();
            answers.read_line(&mut answer).unwrap();
            answer
        };
        assert!(ask().contains("label"));
        change(&file);
        assert_eq!(ask(), "", "no more answers");
        drop(input);
        refused(&child.wait_with_output().unwrap(), 1, &["base/model.safetensors: ", message]);
        std::fs::write(&file, &good).unwrap();
    }
}

#[test]
fn a_longer_run_whose_rates_would_have_been_others_says_so() {
    let scratch = scratch();
    let train = |run: &str, schedule: &str, more: &[&str]| {
        let sets = [&format!("training.output_dir={run}"), schedule];
        let mut command = training(&scratch, run, None);
        command.args(sets.iter().chain(&[]).flat_map(|set| ["--set", set]));
        let output = command.args(more).output().unwrap();
        succeeded(&output);
        stderr(&output).contains("had the learning rate")
    };
    let longer = ["--set", "training.num_train_epochs=2"];
    for (run, schedule, warned) in [
        ("linear", "training.lr_scheduler_type=linear", true),
        ("cosine", "training.lr_scheduler_type=cosine", true),
        ("ratio", "training.warmup_ratio=0.5", true),
        ("steps", "training.warmup_steps=2", false),
        ("constant", "training.warmup_ratio=0", false),
    ] {
        assert!(!train(run, schedule, &[]), "{run}: the first time");
        assert_eq!(train(run, schedule, &longer), warned, "{run}");
    }
}

#[test]
fn another_init_delta_or_best_state_is_not_gone_on_with() {
    let scratch = scratch();
    let train = |run: &str, sets: &[&str]| {
        let mut command = training(&scratch, run, None);
        command.args(sets.iter().flat_map(|set| ["--set", set])).output().unwrap()
    };
    for (run, seed) in [("first", "training.seed=1"), ("second", "training.seed=2")] {
        succeeded(&train(run, &[seed]));
    }
    let delta = |run: &str| bytes(scratch.path(run).join("delta.safetensors"));
    scratch.write("start.safetensors", delta("first"));
    let from = "model.init_delta=start.safetensors";
    succeeded(&train("started", &[from]));
    scratch.write("start.safetensors", delta("second"));
    let longer = [from, "training.num_train_epochs=2"];
    refused(
        &train("started", &longer),
        1,
        &["start.safetensors", "has changed since the run began", "--overwrite"],
    );
    // A state of an older version does not say which file it was.
    let (folder, mut old) = Checkpoint::newest(&scratch.path("started")).unwrap().unwrap();
    assert!(
        old.state.init_delta_sha256.take().is_some() && old.state.kept_checksum.take().is_some()
    );
    let best = scratch.path("started/delta.safetensors");
    assert_eq!(old.save(&scratch.path("started"), Some(&best), 1).unwrap(), folder);
    succeeded(&train("started", &longer));
    // The best state of another run is whole, and yet not this run's.
    let best = |run: &str| scratch.path(run).join("checkpoints/step-000004/best.safetensors");
    std::fs::remove_file(best("first")).unwrap();
    std::fs::copy(best("second"), best("first")).unwrap();
    let output = train("first", &["training.seed=1", "training.num_train_epochs=2"]);
    refused(&output, 1, &["best.safetensors", "not the best state that", "--overwrite"]);
}

fn bitfit(scratch: &Scratch, args: &[&str], fault: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitfit"));
    command.args(args).current_dir(scratch.path(""));
    command.envs(fault.map(|fault| ("BITFIT_FAULT", fault))).output().unwrap()
}

#[test]
fn what_a_killed_command_left_is_removed_by_the_next() {
    let scratch = scratch();
    succeeded(&training(&scratch, "run", None).output().unwrap());
    for (args, output) in [
        (
            ["predict", "--run", "run", "a film", "--output", "out/labels.jsonl"].as_slice(),
            "labels.jsonl",
        ),
        (&["export", "--run", "run", "--format", "hf", "--output", "out/model"], "model"),
        (&["convert", "--model", "base", "--output", "out/model.ot"], "model.ot"),
    ] {
        let mut left = 0;
        for number in 1.. {
            std::fs::create_dir(scratch.path("out")).unwrap();
            let killed = bitfit(&scratch, args, Some(&format!("kill:{number}")));
            let done = killed.status.success();
            if !done {
                assert_eq!(killed.status.signal(), Some(9), "{args:?}: {}", stderr(&killed));
                left += left_over(&scratch.path("out")).len();
                // It is there whole, or not at all.
                if !scratch.path("out").join(output).exists() {
                    succeeded(&bitfit(&scratch, args, None));
                }
            }
            assert!(scratch.path("out").join(output).exists());
            assert_eq!(left_over(&scratch.path("out")), Vec::<PathBuf>::new(), "{args:?}");
            std::fs::remove_dir_all(scratch.path("out")).unwrap();
            if done {
                assert!(number > 3 && left > 0, "{args:?}: {number} operations");
                break;
            }
        }
    }
}

#[test]
fn what_another_process_is_writing_is_left_alone() {
    let scratch = scratch();
    succeeded(&training(&scratch, "run", None).output().unwrap());
    let mut slow = Command::new(env!("CARGO_BIN_EXE_bitfit"))
        .args(["predict", "--run", "run", "--input", "-", "--output", "labels.jsonl"])
        .current_dir(scratch.path(""))
        .env("BITFIT_FAULT", "stop:4")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    slow.stdin.take().unwrap().write_all(b"the plot was bad\n").unwrap();
    stopped(&mut slow);
    let unfinished = left_over(&scratch.path("")).len();
    assert_eq!(unfinished, 1);
    let quick = ["predict", "--run", "run", "the film was great", "--output", "labels.jsonl"];
    succeeded(&bitfit(&scratch, &quick, None));
    assert_eq!(left_over(&scratch.path("")).len(), 1, "the other's is still there");
    let text = || String::from_utf8(bytes(scratch.path("labels.jsonl"))).unwrap();
    assert!(text().contains("the film was great"));
    succeeded(&go_on(slow));
    assert!(text().contains("the plot was bad"));
    assert_eq!(left_over(&scratch.path("")), Vec::<PathBuf>::new());
}

#[test]
fn a_long_name_is_written_under_a_short_one() {
    let scratch = scratch();
    succeeded(&training(&scratch, "run", None).output().unwrap());
    for name in ["ä".repeat(125), "x".repeat(250)] {
        let args = ["predict", "--run", "run", "a film", "--output", &name];
        succeeded(&bitfit(&scratch, &args, None));
        assert!(scratch.path(&name).exists());
    }
    succeeded(&training(&scratch, &"y".repeat(250), None).output().unwrap());
}

#[test]
fn what_no_rate_can_help_is_not_blamed_on_the_rate() {
    let scratch = scratch();
    let train = |run: &str, weights: &str| {
        let set = format!("training.class_weights={weights}");
        training(&scratch, run, None).args(["--set", &set]).output().unwrap()
    };
    // Float32 has no such number.
    refused(&train("huge", "[1.0, 1e300]"), 2, &["class_weights", "1e300", "at most 3.4e38"]);
    let large = train("large", "[1e38, 3e38]");
    refused(&large, 1, &["at step 1", "the learning rate is not the cause", "class_weights"]);
    assert!(!stderr(&large).contains("lower training.learning_rate"), "{}", stderr(&large));
    succeeded(&training(&scratch, "run", None).output().unwrap());
    let export = ["export", "--run", "run", "--format", "hf", "--output", "whole"];
    succeeded(&bitfit(&scratch, &export, None));
    let tensor = "layer.0.intermediate.dense.weight";
    make_infinite(&scratch.path("base/model.safetensors"), tensor);
    let output = training(&scratch, "infinite", None).output().unwrap();
    refused(&output, 1, &[tensor, "contained NaN or infinity", "base/model.safetensors"]);
    assert!(!stderr(&output).contains("lower training.learning_rate"), "{}", stderr(&output));
    make_infinite(&scratch.path("whole/model.safetensors"), tensor);
    let output = bitfit(&scratch, &["predict", "--model", "whole", "a film"], None);
    refused(&output, 1, &["whole/model.safetensors", tensor, "holds NaN or infinity"]);
}

/// Writes an infinite number into a safetensors file's tensor whose name ends with `tensor`, as a
/// damaged conversion leaves it.
fn make_infinite(file: &Path, tensor: &str) {
    let mut text = bytes(file.to_owned());
    let length = u64::from_le_bytes(text[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&text[8..8 + length]).unwrap();
    let mut tensors = header.as_object().unwrap().iter();
    let (_, info) = tensors.find(|(name, _)| name.ends_with(tensor)).unwrap();
    let at = 8 + length + info["data_offsets"][0].as_u64().unwrap() as usize;
    text[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    std::fs::write(file, text).unwrap();
}
