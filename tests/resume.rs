//! Runs that end early, and go on as if they had not.

use crate::common::{Scratch, golden, golden_dir, refused, reviews, stderr, succeeded, tiny_base};
use bitfit::internal::checkpoint::{self, Checkpoint};
use bitfit::internal::config::{Run, RunConfig};
use bitfit::internal::delta::Delta;
use bitfit::internal::models::{Shaping, TaskType};
use bitfit::internal::optim::{AdamW, LrSchedule, Schedule};
use bitfit::internal::sealed;
use bitfit::internal::train::watch::{NonFinite, Watch};
use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tch::{Kind, Tensor};

/// Everything that a run's numbers can depend on is in use: dropout, accumulation, a schedule, a
/// last step that is short.
const ALL: &str = "gradient_accumulation_steps = 3\nper_device_train_batch_size = 5\nlr_scheduler_type = \"cosine\"\n\
                   warmup_ratio = 0.2\nlabel_smoothing_factor = 0.1\nclass_weights = \"balanced\"\n";

fn scratch() -> Scratch {
    let scratch = Scratch::new();
    let config = std::fs::read_to_string(scratch.config("config.toml", ALL)).unwrap();
    let config = config
        .replace("per_device_train_batch_size = 8\n", "")
        .replace("_steps = 8", "_steps = 4")
        .replace("logging_steps = 4", "logging_steps = 3")
        .replace("num_train_epochs = 2", "num_train_epochs = 4");
    scratch.write("config.toml", config);
    scratch
}

fn bytes(scratch: &Scratch, name: &str) -> Vec<u8> {
    std::fs::read(scratch.path(name)).unwrap()
}

/// metrics.jsonl without what is time.
pub fn records(scratch: &Scratch, run: &str) -> Vec<Value> {
    let text = String::from_utf8(bytes(scratch, &format!("{run}/metrics.jsonl"))).unwrap();
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        line.retain(|key, _| !["tokens_per_second", "seconds"].contains(&key.as_str()));
    }
    lines
}

fn same(scratch: &Scratch, run: &str) {
    assert!(
        bytes(scratch, &format!("{run}/delta.safetensors"))
            == bytes(scratch, "run/delta.safetensors")
    );
    assert_eq!(records(scratch, run), records(scratch, "run"));
    let ended = |run: &str| {
        let summary: Value =
            serde_json::from_slice(&bytes(scratch, &format!("{run}/summary.json"))).unwrap();
        let keys = ["steps", "best", "best_step", "constant", "advice"];
        assert!(summary["constant"]["answer"].is_string(), "{summary}");
        let newest = checkpoint::steps(&scratch.path(run)).unwrap().pop().unwrap().1;
        let losses = Checkpoint::read(&newest).unwrap().state.losses;
        assert!(losses.tenths().is_some(), "{losses:?}");
        (keys.map(|key| summary[key].clone()), losses)
    };
    assert_eq!(ended(run), ended("run"));
}

/// Starts or resumes the run in the directory `run`.
fn started(scratch: &Scratch, run: &str) -> Child {
    let output = format!("training.output_dir={}", scratch.path(run).display());
    Command::new(env!("CARGO_BIN_EXE_bitfit-train"))
        .args(["--config", scratch.path("config.toml").to_str().unwrap(), "--resume"])
        .args(["--set", &output])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().is_ok());
}

#[test]
fn killed_anywhere_it_ends_in_the_same_bytes() {
    let scratch = scratch();
    succeeded(&scratch.train(&[]));
    let other = ["--set", "training.output_dir=killed", "--resume"];
    for after in [150, 320, 380, 430, 480, 530, 350] {
        let mut child = started(&scratch, "killed");
        std::thread::sleep(Duration::from_millis(after));
        signal(&child, "-KILL");
        child.wait().unwrap();
    }
    succeeded(&scratch.train(&other));
    same(&scratch, "killed");
    // Once more, when all is done: nothing changes.
    succeeded(&scratch.train(&other));
    same(&scratch, "killed");
    assert_eq!(checkpoint::steps(&scratch.path("killed")).unwrap().len(), 2, "save_total_limit");
}

#[test]
fn asked_to_end_it_saves_and_says_how_to_go_on() {
    let scratch = scratch();
    // Steps of a budget of tokens, whose epochs differ in length.
    let config = std::fs::read_to_string(scratch.path("config.toml")).unwrap();
    scratch.write("config.toml", config + "max_tokens_per_batch = 40\n");
    succeeded(&scratch.train(&[]));
    let logged =
        || std::fs::metadata(scratch.path("asked/metrics.jsonl")).map_or(0, |file| file.len());
    let mut asked = 0;
    for _ in 0..5 {
        let (mut child, before) = (started(&scratch, "asked"), logged());
        // As soon as it has logged something more, or has ended.
        while logged() <= before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&child, "-TERM");
        let output = child.wait_with_output().unwrap();
        if output.status.code() == Some(130) {
            asked += 1;
            assert!(
                stderr(&output).contains("--resume continues after step"),
                "{}",
                stderr(&output)
            );
        }
    }
    assert!(asked > 0);
    succeeded(&scratch.train(&["--set", "training.output_dir=asked", "--resume"]));
    same(&scratch, "asked");
}

#[test]
fn a_state_that_is_not_whole_is_left_aside() {
    let scratch = scratch();
    succeeded(&scratch.train(&["--set", "training.save_total_limit=9"]));
    let folder = scratch.path("run/checkpoints");
    let steps = checkpoint::steps(&scratch.path("run")).unwrap();
    assert!(steps.len() > 4, "{steps:?}");
    std::fs::rename(scratch.path("run"), scratch.path("whole")).unwrap();
    let whole = |name: &str| bytes(&scratch, &format!("whole/{name}"));
    let copy = || {
        let _ = std::fs::remove_dir_all(scratch.path("run"));
        let from = [scratch.path("whole").into_os_string(), scratch.path("run").into_os_string()];
        assert!(Command::new("cp").arg("-r").args(from).status().unwrap().success());
    };
    copy();
    let newest = steps.last().unwrap().1.file_name().unwrap().to_str().unwrap().to_owned();
    let state = folder.join(&newest).join("trainer_state.safetensors");
    let good = std::fs::read(&state).unwrap();
    for (what, broken) in [("cut", good[..good.len() / 2].to_vec()), ("empty", vec![])] {
        copy();
        std::fs::write(&state, broken).unwrap();
        let output = scratch.train(&["--resume"]);
        succeeded(&output);
        let log = stderr(&output);
        assert!(
            log.contains(&newest) && log.contains("the previous checkpoint is used"),
            "{what}: {log}"
        );
        assert!(bytes(&scratch, "run/delta.safetensors") == whole("delta.safetensors"), "{what}");
        assert_eq!(records(&scratch, "run"), records(&scratch, "whole"));
    }
    // The best so far is put back, whatever has become of it.
    copy();
    std::fs::remove_dir_all(folder.join(&newest)).unwrap();
    std::fs::write(scratch.path("run/delta.safetensors"), "lost").unwrap();
    succeeded(&scratch.train(&["--resume"]));
    assert!(bytes(&scratch, "run/delta.safetensors") == whole("delta.safetensors"));
    // None is whole.
    for (_, path) in checkpoint::steps(&scratch.path("run")).unwrap() {
        std::fs::write(path.join("delta.safetensors"), "torn").unwrap();
    }
    refused(
        &scratch.train(&["--resume"]),
        1,
        &["checkpoints", "no intact checkpoint", "--overwrite"],
    );
}

#[test]
fn only_the_same_run_goes_on() {
    let scratch = scratch();
    let short = ["--set", "training.max_steps=6"];
    succeeded(&scratch.train(&short));
    let before =
        ["config.toml", "metrics.jsonl"].map(|name| bytes(&scratch, &format!("run/{name}")));
    let resume = |sets: &[&str]| {
        let mut args = vec!["--resume"];
        args.extend(sets.iter().flat_map(|set| ["--set", set]));
        scratch.train(&args)
    };
    let other = resume(&["training.seed=1", "training.learning_rate=2e-2"]);
    let parts = ["training.learning_rate was 0.01 and is 0.02", "training.seed was 42 and is 1"];
    refused(&other, 2, &parts);
    refused(&resume(&["training.max_steps=4"]), 2, &["training.max_steps=4", "6 steps or more"]);
    refused(&scratch.train(&[]), 2, &["--resume", "--overwrite"]);
    refused(&scratch.train(&["--resume", "--overwrite"]), 2, &["cannot be used with"]);
    let train = bytes(&scratch, "train.tsv");
    scratch.write("train.tsv", reviews(96, 2));
    refused(&resume(&[]), 1, &["train.tsv", "have changed since the run began", "--overwrite"]);
    // What is refused changes nothing.
    assert!(
        before
            == ["config.toml", "metrics.jsonl"].map(|name| bytes(&scratch, &format!("run/{name}")))
    );
    // From another place it goes on, if it is the same.
    scratch.write("moved.tsv", train);
    let longer = resume(&["data.train=moved.tsv", "training.max_steps=9"]);
    succeeded(&longer);
    assert!(stderr(&longer).contains("resuming after step 6 of 9"), "{}", stderr(&longer));
    let warning = "the run had 6 steps and now has 9: step";
    assert!(stderr(&longer).contains(warning), "{}", stderr(&longer));
    // Nothing to go on with: it begins.
    let fresh =
        resume(&["training.output_dir=fresh", "training.max_steps=2", "data.train=moved.tsv"]);
    succeeded(&fresh);
    std::fs::remove_file(scratch.path("run/config.toml")).unwrap();
    refused(&resume(&[]), 2, &["not from a run"]);
}

/// A state of an older version has neither losses nor the constant answer.
#[test]
fn a_state_of_an_older_version_goes_on() {
    let scratch = scratch();
    let train = |steps: &str| {
        let set = ["--set", "training.load_best_model_at_end=false", "--set", steps, "--resume"];
        succeeded(&scratch.train(&set));
        let summary = bytes(&scratch, "run/summary.json");
        serde_json::from_slice::<Value>(&summary).unwrap()
    };
    assert!(train("training.max_steps=6")["constant"].is_object());
    let newest = checkpoint::steps(&scratch.path("run")).unwrap().pop().unwrap().1;
    let path = newest.join("trainer_state.safetensors");
    let mut contents = sealed::read(&path).unwrap();
    let mut state: Value = serde_json::from_str(&contents.metadata["state"]).unwrap();
    for key in ["losses", "kept_constant"] {
        assert!(state.as_object_mut().unwrap().remove(key).is_some(), "{key}");
    }
    contents.metadata.insert("state".into(), state.to_string());
    std::fs::write(&path, sealed::to_bytes(contents.metadata, &contents.tensors).unwrap()).unwrap();
    // Nothing is evaluated anew.
    let old = train("training.max_steps=6");
    assert!(old["best"]["accuracy"].is_number() && old["constant"].is_null(), "{old}");
    assert!(old["advice"].is_null(), "{old}");
    let new = train("training.max_steps=12");
    assert!(new["constant"]["verdict"].is_string(), "{new}");
}

#[test]
fn a_full_disk_in_the_middle_keeps_what_was_saved() {
    let scratch = scratch();
    let sets = ["--set", "training.logging_steps=1", "--set", "training.num_train_epochs=12"];
    succeeded(&scratch.train(&sets));
    let most = |name: &str| bytes(&scratch, name).len();
    let saved = most("run/delta.safetensors")
        .max(most("run/checkpoints/step-000084/trainer_state.safetensors"));
    // What grows is metrics.jsonl, and faster TensorBoard's events: a limit to the size of a file
    // refuses it as a full disk does.
    let limit = saved.div_ceil(512) + 1;
    assert!(limit * 512 < most("run/metrics.jsonl"), "{limit} {saved}");
    let command = format!(
        "ulimit -f {limit}; exec {} --config config.toml --resume {} --set training.output_dir=full",
        env!("CARGO_BIN_EXE_bitfit-train"),
        sets.join(" ")
    );
    let full =
        Command::new("sh").args(["-c", &command]).current_dir(scratch.path("")).output().unwrap();
    refused(&full, 1, &["cannot write", "/full/", "kept:", "checkpoints/step-", "--resume"]);
    let mut args = sets.to_vec();
    args.extend(["--resume", "--set", "training.output_dir=full"]);
    succeeded(&scratch.train(&args));
    same(&scratch, "full");
}

#[test]
fn damaged_files_are_never_taken_for_whole() {
    let scratch = scratch();
    succeeded(&scratch.train(&["--set", "training.max_steps=4"]));
    let folder = scratch.path("run/checkpoints/step-000004");
    let mut seed = 1u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % below
    };
    for name in ["delta.safetensors", "trainer_state.safetensors"] {
        let path = folder.join(name);
        let whole = std::fs::read(&path).unwrap();
        let good = content(&folder).unwrap();
        let mut refused = 0;
        for case in 0..500 {
            let mut bytes = whole.clone();
            match case % 5 {
                0 => bytes.truncate(random(whole.len())),
                1 => bytes.extend((0..=random(40)).map(|_| random(256) as u8)),
                // Half of them in the header, where meaning is.
                2 => bytes[random(whole.len().min(2000))] ^= 1 << random(8),
                _ => (0..=random(3)).for_each(|_| bytes[random(whole.len())] = random(256) as u8),
            }
            std::fs::write(&path, &bytes).unwrap();
            match content(&folder) {
                Err(error) => {
                    assert!(error.to_string().contains("step-000004"), "{error}");
                    refused += 1;
                }
                Ok(same) => assert!(bytes == whole || same == good, "{name}, case {case}"),
            }
        }
        assert!(refused > 480, "{name}: {refused}");
        std::fs::write(&path, whole).unwrap();
    }
}

/// All that a checkpoint says.
fn content(folder: &Path) -> bitfit::internal::error::Result<String> {
    let Checkpoint { state, delta, moments, .. } = Checkpoint::read(folder)?;
    let again = Delta::read(&folder.join("delta.safetensors"))?;
    let numbers = |tensor: &Tensor| Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap();
    let moments: Vec<_> = moments
        .iter()
        .map(|(name, own)| (name, numbers(&own.exp_avg), numbers(&own.exp_avg_sq)))
        .collect();
    let values: Vec<_> =
        delta.tensors.iter().map(|(name, tensor)| (name, numbers(tensor))).collect();
    Ok(format!("{state:?}{:?}{:?}{moments:?}{values:?}", delta.meta, again.meta))
}

#[test]
fn accumulated_steps_are_the_whole_batchs() {
    let scratch = Scratch::new();
    let losses = |run: &str, sets: &[&str]| -> Vec<f64> {
        let mut args = vec!["--set".to_owned(), format!("training.output_dir={run}")];
        let always = [
            "training.logging_steps=1",
            "training.max_steps=16",
            "training.class_weights=[1.0, 3.0]",
        ];
        args.extend(
            always.iter().chain(sets).flat_map(|set| ["--set".to_owned(), set.to_string()]),
        );
        succeeded(&scratch.train(&args.iter().map(String::as_str).collect::<Vec<_>>()));
        records(&scratch, run).iter().filter_map(|line| line["loss"].as_f64()).collect()
    };
    // 96 rows by 20: an epoch's last step has 16, in parts of 7, 7 and 2.
    let whole = losses("a", &["training.per_device_train_batch_size=20"]);
    let parts = losses(
        "b",
        &["training.per_device_train_batch_size=5", "training.gradient_accumulation_steps=4"],
    );
    assert_eq!((whole.len(), parts.len()), (16, 16));
    let off = whole.iter().zip(&parts).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off < 1e-5, "{off}: {whole:?} {parts:?}");
    assert!(whole.iter().zip(&whole[1..]).any(|(a, b)| (a - b).abs() > 1e-3));
}

#[test]
fn a_batch_that_does_not_fit_is_split() {
    let scratch = Scratch::new();
    scratch.write("train.tsv", long_rows(1500));
    let sets = [
        "training.max_steps=1",
        "training.per_device_train_batch_size=1500",
        "training.logging_steps=1",
    ];
    let sets = sets.iter().map(|set| format!("--set {set}")).collect::<Vec<_>>().join(" ");
    let train = |limit: &str, run: &str| {
        let command = format!(
            "{limit} exec {} --config config.toml {sets} --set training.output_dir={run}",
            env!("CARGO_BIN_EXE_bitfit-train")
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).current_dir(scratch.path("")).stderr(Stdio::piped());
        // glibc reserves address space for each arena, and how many threads get an arena of their
        // own differs from run to run: by up to 500 MB, more than the whole batch takes.
        shell.env("MALLOC_ARENA_MAX", "1");
        shell.spawn().unwrap()
    };
    let mut free = train("", "free");
    // The most address space that it takes, in kB: a limit below that, as on a machine with less
    // memory.
    let mut most = 0u64;
    while free.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", free.id()));
        let peak = status.unwrap_or_default();
        let peak = peak.lines().find_map(|line| line.strip_prefix("VmPeak:"));
        most = most.max(peak.map_or(0, |peak| peak.trim_end_matches("kB").trim().parse().unwrap()));
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(free.wait().unwrap().success() && most > 0);
    let split = (1..40).any(|part| {
        let _ = std::fs::remove_dir_all(scratch.path("tight"));
        let tight = train(&format!("ulimit -v {};", most - part * 12_288), "tight");
        let tight = tight.wait_with_output().unwrap();
        let log = stderr(&tight);
        assert!(!log.contains("panicked"), "{log}");
        // Where oneDNN or Rust gets no memory, a line says so.
        assert_eq!(tight.status.signal(), None, "{log}");
        tight.status.success() && log.contains("rows at once instead of 1500")
    });
    assert!(split, "no limit split the batch");
    for (free, tight) in records(&scratch, "free").iter().zip(records(&scratch, "tight")) {
        let Some(loss) = free["loss"].as_f64() else { continue };
        assert!((loss - tight["loss"].as_f64().unwrap()).abs() < 1e-5, "{free} {tight}");
    }
}

/// Rows of 32 tokens.
fn long_rows(rows: usize) -> String {
    let label = |i| if i % 2 == 0 { "positive" } else { "negative" };
    let row = |i| format!("{}\t{}\n", "the film was great ".repeat(8), label(i));
    format!("text\tlabel\n{}", (0..rows).map(row).collect::<String>())
}

#[test]
fn it_ends_when_nothing_is_gained() {
    let scratch = Scratch::new();
    let sets = [
        "training.early_stopping_patience=2",
        "training.early_stopping_threshold=0.9",
        "training.eval_steps=2",
        "training.num_train_epochs=50",
    ];
    let args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let output = scratch.train(&args);
    succeeded(&output);
    assert!(
        stderr(&output).contains("did not improve in the last 2 evaluations"),
        "{}",
        stderr(&output)
    );
    let steps = records(&scratch, "run").iter().filter(|line| line.get("kept").is_some()).count();
    assert_eq!(steps, 3, "the first counts, the next two gain less than the threshold");
    let before = bytes(&scratch, "run/delta.safetensors");
    succeeded(&scratch.train(&[&args[..], &["--resume"]].concat()));
    assert!(before == bytes(&scratch, "run/delta.safetensors"), "it has ended");
}

#[test]
fn rates_are_transformers() {
    let text = std::fs::read_to_string(golden_dir().join("schedules.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 13);
    for case in cases {
        let lr_schedule: LrSchedule = serde_json::from_value(case["name"].clone()).unwrap();
        let schedule =
            Schedule { lr_schedule, warmup: case["warmup"].as_u64().unwrap(), total: 30 };
        for (done, rate) in case["rates"].as_array().unwrap().iter().enumerate() {
            let (ours, theirs) = (schedule.factor(done as u64 + 1), rate.as_f64().unwrap());
            assert!((ours - theirs).abs() < 1e-15, "{case}: step {done}: {ours}");
        }
    }
}

#[test]
fn shaped_losses_are_pytorchs() {
    let golden = golden("losses.safetensors");
    let weights = || Some(golden["weights"].shallow_clone());
    let labels = &golden["targets"];
    let weight = golden["weights"].index_select(0, labels).sum(Kind::Float).double_value(&[]);
    let (one, several) = (TaskType::Classification, TaskType::MultiLabel);
    for (name, task, targets, label_smoothing, class_weights, total) in [
        ("smoothed", one, "targets", 0.1, None, 9.0),
        ("weighted", one, "targets", 0.0, weights(), weight),
        ("both", one, "targets", 0.1, weights(), weight),
        ("multi_label", several, "several", 0.0, weights(), 9.0),
    ] {
        let logits = golden["logits"].copy().set_requires_grad(true);
        let shaping = Shaping { label_smoothing, class_weights, target_scale: None };
        let loss = task.loss(&logits, &golden[targets], &shaping, total).unwrap();
        loss.backward();
        assert!((loss.double_value(&[]) - golden[name].double_value(&[])).abs() < 1e-6, "{name}");
        let off = (logits.grad() - &golden[&format!("{name}.gradient")]).abs().max();
        assert!(off.double_value(&[]) < 1e-7, "{name}: {off:?}");
    }
}

#[test]
fn class_weights_are_by_label() {
    let scratch = Scratch::new();
    let rows = reviews(96, 1).replace("very bad and it was hated\tnegative", "so so\tmixed");
    scratch.write("train.tsv", rows);
    let train = |weights: &str| {
        let set = format!("training.class_weights={weights}");
        scratch.train(&["--overwrite", "--set", "training.max_steps=1", "--set", &set])
    };
    succeeded(&train("balanced"));
    let config: RunConfig = RunConfig::read(scratch.path("run/config.toml"), &[]).unwrap();
    let text = config.to_toml().unwrap();
    let counts: Vec<usize> = ["mixed", "negative", "positive"]
        .map(|label| {
            std::fs::read_to_string(scratch.path("train.tsv"))
                .unwrap()
                .matches(&format!("\t{label}\n"))
                .count()
        })
        .into();
    let expected: Vec<f64> = counts.iter().map(|&count| 96.0 / (3 * count) as f64).collect();
    assert!(text.contains(&format!("class_weights = {expected:?}")), "{expected:?} {text}");
    succeeded(&train("{positive = 2.0}"));
    let text = std::fs::read_to_string(scratch.path("run/config.toml")).unwrap();
    assert!(text.contains("class_weights = [1.0, 1.0, 2.0]"), "{text}");
    refused(&train("{good = 2.0}"), 2, &["class_weights", "\"good\"", "mixed, negative, positive"]);
    refused(
        &train("[1.0, 2.0]"),
        2,
        &["class_weights", "3 numbers, for mixed, negative, positive"],
    );
    refused(&train("[1.0, -2.0, 1.0]"), 2, &["class_weights", "positive numbers"]);
    refused(&train("rare"), 2, &["class_weights", "expected \"balanced\", a list"]);
}

/// On a GPU, the device skips the update of a step that gave NaN or infinity, and the host reads so
/// one step late. This works on any device.
#[test]
fn a_step_of_nan_is_skipped_and_known_one_step_late() {
    let base = tiny_base();
    let run = Run::read(&Scratch::new().config("c.toml", ""), &[]).unwrap();
    let mut base = base;
    let plan = run.method.plan(&base, &run.switches).unwrap();
    plan.apply(&mut base.store).unwrap();
    let mut optimizer = AdamW::new(&base.store, &plan, &run.adamw).unwrap();
    let good = Tensor::from(1.0f32);
    let bias = base.store.variables()["classifier.bias"].shallow_clone();
    let step =
        |optimizer: &mut AdamW, watch: &mut Watch, number: u64, loss: &Tensor, gradient: f64| {
            optimizer.zero_grad().unwrap();
            tch::no_grad(|| {
                let _ = bias.grad().fill_(gradient);
            });
            let norm = optimizer.clip().unwrap();
            let non_finite = watch.check(number, loss, &norm, optimizer).unwrap();
            if non_finite.is_none() {
                optimizer.step(1.0).unwrap();
            }
            non_finite
        };
    let values = || Vec::<f32>::try_from(&bias).unwrap();
    let mut watch = Watch::Late(None);
    // The very first step, before there are moments.
    let start = values();
    assert_eq!(step(&mut optimizer, &mut watch, 1, &good, f64::NAN), None);
    assert_eq!(values(), start);
    let non_finite = step(&mut optimizer, &mut watch, 2, &good, 1.0).unwrap();
    assert_eq!((non_finite.step, values()), (1, start.clone()));
    assert_eq!(step(&mut optimizer, &mut watch, 1, &good, 1.0), None);
    let after_one = values();
    assert_ne!(after_one, start);
    assert_eq!(step(&mut optimizer, &mut watch, 2, &Tensor::from(f32::INFINITY), 1.0), None);
    assert_eq!(values(), after_one);
    let non_finite: NonFinite = watch.flush(&mut optimizer).unwrap().unwrap();
    assert_eq!((non_finite.step, values()), (2, after_one));
    // The run goes on as if that step had not been.
    assert_eq!(step(&mut optimizer, &mut watch, 2, &good, 1.0), None);
    assert_eq!(watch.flush(&mut optimizer).unwrap(), None);
    let skipped = values();
    let mut whole = tiny_base();
    plan.apply(&mut whole.store).unwrap();
    let mut plain = AdamW::new(&whole.store, &plan, &run.adamw).unwrap();
    let own = whole.store.variables()["classifier.bias"].shallow_clone();
    for _ in 0..2 {
        plain.zero_grad().unwrap();
        tch::no_grad(|| {
            let _ = own.grad().fill_(1.0);
        });
        let _ = plain.clip().unwrap();
        plain.step(1.0).unwrap();
    }
    assert_eq!(Vec::<f32>::try_from(&own).unwrap(), skipped, "two steps without the skipped ones");
    let moments = optimizer.moments().unwrap();
    assert!(moments["classifier.bias"].exp_avg.isfinite().all().double_value(&[]) == 1.0);
}

#[test]
fn a_step_of_nan_names_its_rows_and_keeps_the_state_before() {
    let scratch = Scratch::new();
    let sets =
        ["training.learning_rate=1e30", "training.max_grad_norm=0", "training.adam_epsilon=1e-30"];
    let args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let output = scratch.train(&args);
    let parts = [
        "the loss is",
        "at step 2 (rows: ",
        "train.tsv:",
        "kept: ",
        "step-000001",
        "learning_rate",
    ];
    refused(&output, 1, &parts);
    assert!(!scratch.path("run/delta.safetensors").exists(), "it is not kept");
    assert!(scratch.path("run/checkpoints/step-000001/delta.safetensors").exists());
}

#[test]
fn a_directory_that_vanishes_or_is_read_only_is_an_error() {
    let scratch = scratch();
    // Taken away when the first line is logged, before the first checkpoint.
    let command = format!(
        "{} --config config.toml --set training.num_train_epochs=200 & \
         until [ -s run/metrics.jsonl ]; do sleep 0.01; done; mv run elsewhere; wait $!",
        env!("CARGO_BIN_EXE_bitfit-train")
    );
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", &command]).current_dir(scratch.path("")).output().unwrap();
    refused(
        &output,
        1,
        &["run: the directory was moved to ", "elsewhere", "kept: ", "elsewhere/checkpoints/step-"],
    );
    assert!(!scratch.path("run").exists(), "it is not made anew, without what was in it");
    let file = ["--set", "training.output_dir=train.tsv/run"];
    refused(&scratch.train(&file), 1, &["cannot create", "train.tsv", "Not a directory"]);
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let scratch = scratch();
    let mut child = Command::new(env!("CARGO_BIN_EXE_bitfit-train"))
        .args(["--config", "config.toml", "--set", "training.num_train_epochs=2000"])
        .current_dir(scratch.path(""))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !scratch.path("run/metrics.jsonl").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..2 {
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let left = std::fs::read_dir(scratch.path("run/checkpoints")).unwrap().flatten();
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with('.')));
}
