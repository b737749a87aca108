//! The same numbers with any number of threads that OpenMP gives, with the real model: smaller
//! products run on one thread.

use crate::common::{Scratch, refused, root, succeeded};
use bitfit::internal::native;
use bitfit::internal::predict::Predictor;
use serde_json::Value;
use std::process::{Command, Output};
use tch::{Device, Kind};

/// Nothing set, and settings under which OpenMP gives fewer threads than libtorch counts on.
const SETTINGS: [&[&str]; 5] = [
    &["env"],
    &["env", "OMP_THREAD_LIMIT=1"],
    &["env", "OMP_DYNAMIC=true"],
    &["env", "OMP_MAX_ACTIVE_LEVELS=0"],
    &["taskset", "-c", "0", "env", "OMP_NUM_THREADS=4"],
];

/// A program under one of [`SETTINGS`].
fn under(setting: &[&str], scratch: &Scratch, program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(setting[0]);
    command.args(&setting[1..]).arg(program).args(args).current_dir(scratch.path(""));
    let output = command.env_remove("RUST_LOG").output().unwrap();
    succeeded(&output);
    output
}

/// A folder whose configuration is of the real model and a few reviews.
fn scratch() -> Scratch {
    let model = root().join("models/all-MiniLM-L6-v2");
    assert!(model.exists(), "run scripts/download_model.sh first");
    let scratch = Scratch::new();
    let text = format!(
        "[model]\nmodel_name_or_path = {:?}\n[data]\ntrain = \"train.tsv\"\neval = \"eval.tsv\"\n\
         [training]\noutput_dir = \"run\"\nmax_steps = 3\nlogging_steps = 1\neval_steps = 3\n\
         save_strategy = \"no\"\n",
        model.to_str().unwrap()
    );
    scratch.write("config.toml", text);
    scratch
}

/// All numbers of JSON values, one after the other, those below the keys `without` aside.
fn numbers(text: &str, without: &[&str]) -> Vec<f64> {
    fn collect(value: &Value, without: &[&str], numbers: &mut Vec<f64>) {
        match value {
            Value::Number(number) => numbers.extend(number.as_f64()),
            Value::Array(list) => list.iter().for_each(|value| collect(value, without, numbers)),
            Value::Object(map) => {
                let kept = map.iter().filter(|(key, _)| !without.contains(&key.as_str()));
                kept.for_each(|(_, value)| collect(value, without, numbers));
            }
            _ => {}
        }
    }
    let mut numbers = vec![];
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    values.for_each(|value| collect(&value.unwrap(), without, &mut numbers));
    numbers
}

/// Runs under each setting; what `found` takes out of them must be the same numbers.
fn same_under_every_setting(
    scratch: &Scratch,
    program: &str,
    args: &[&str],
    found: impl Fn(&Output) -> Vec<f64>,
) {
    let all = SETTINGS.map(|setting| found(&under(setting, scratch, program, args)));
    assert!(!all[0].is_empty());
    for (setting, numbers) in SETTINGS.iter().zip(&all) {
        assert_eq!(numbers.len(), all[0].len(), "{setting:?}");
        for (number, expected) in numbers.iter().zip(&all[0]) {
            assert!((number - expected).abs() <= 1e-5, "{setting:?}: {numbers:?}, {:?}", all[0]);
        }
    }
}

/// What of a record depends on the clock.
const TIMES: [&str; 2] = ["tokens_per_second", "seconds"];

#[test]
fn losses_metrics_and_scores_do_not_depend_on_the_threads_that_openmp_gives() {
    let (scratch, bitfit) = (scratch(), env!("CARGO_BIN_EXE_bitfit"));
    let records = |name: &str| {
        let text = std::fs::read_to_string(scratch.path(name)).unwrap();
        std::fs::remove_file(scratch.path(name)).unwrap();
        numbers(&text, &TIMES)
    };
    let train = ["train", "--config", "config.toml", "--overwrite"];
    same_under_every_setting(&scratch, bitfit, &train, |_| records("run/metrics.jsonl"));
    scratch.write(
        "grid.toml",
        "[compare]\noutput_dir = \"out\"\nbase = \"config.toml\"\nseeds = [1]\n[[arm]]\nname = \"a\"\n",
    );
    let compare = ["compare", "--config", "grid.toml"];
    same_under_every_setting(&scratch, bitfit, &compare, |_| {
        let run = "out/runs/grid/a/lr-2e-3-seed-1";
        let found = records(&format!("{run}/metrics.jsonl"));
        std::fs::remove_dir_all(scratch.path("out")).unwrap();
        found
    });
    let stdout = |output: &Output| numbers(&String::from_utf8_lossy(&output.stdout), &TIMES);
    let eval = ["eval", "--run", "run", "--json"];
    same_under_every_setting(&scratch, bitfit, &eval, stdout);
    let predict = ["predict", "--run", "run", "--input", "eval.tsv"];
    same_under_every_setting(&scratch, bitfit, &predict, stdout);
    // The library: a predictor that one thread has read predicts on another.
    let itself = std::env::current_exe().unwrap();
    let args = ["--ignored", "--exact", "threads::predicts_on_a_second_thread", "--nocapture"];
    same_under_every_setting(&scratch, itself.to_str().unwrap(), &args, |output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("scores ")).unwrap();
        numbers(line, &[])
    });
}

#[test]
#[ignore = "the test above runs it, in a folder that it has made"]
fn predicts_on_a_second_thread() {
    let (model, run) = (root().join("models/all-MiniLM-L6-v2"), std::path::Path::new("run"));
    let delta = run.join("delta.safetensors");
    let predictor = Predictor::load(&model, None, Some(&delta), run, Device::Cpu).unwrap();
    let scores = move || {
        let predictions = predictor.predict(["a very good film", "it was awful"]).unwrap();
        predictions.iter().flat_map(|one| one.scores.clone()).map(|(_, score)| score).collect()
    };
    let scores: Vec<f32> = std::thread::spawn(scores).join().unwrap();
    println!("\nscores {scores:?}");
}

#[test]
fn a_product_that_is_wrong_is_noticed_in_each_kind() {
    for kind in [Kind::Float, Kind::BFloat16] {
        native::check_product(kind).unwrap();
    }
    for spoil in [1e-3, f64::NAN, f64::INFINITY] {
        let product = |x: &tch::Tensor, weight: &tch::Tensor| {
            let product = native::product(x, weight, None)?;
            let largest = product.abs().max();
            let _ = product.get(7).get(100).f_add_(&(largest * spoil))?;
            Ok(product)
        };
        let error = native::check_product_by(Kind::Float, product).unwrap_err().to_string();
        assert!(error.contains("OMP_THREAD_LIMIT") && error.contains("expected"), "{error}");
    }
}

/// libtorch crashes without a place for oneDNN's code, and a variable can say that there is none.
#[test]
fn a_cache_without_entries_is_refused() {
    let scratch = Scratch::new();
    for capacity in ["0", "many"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bitfit"));
        command.args(["inspect", "--model", "base"]).env("LRU_CACHE_CAPACITY", capacity);
        let output = command.current_dir(scratch.path("")).output().unwrap();
        refused(&output, 2, &["LRU_CACHE_CAPACITY", capacity, "other than 0"]);
    }
}

#[test]
fn a_limit_of_cpu_time_limits_the_threads() {
    let folder = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"].map(std::path::Path::new);
    let name = format!("bitfit-test-{}", std::process::id());
    let group = folder.iter().map(|folder| folder.join(&name)).find(|group| {
        let (one, two) = (group.join("cpu.cfs_quota_us"), group.join("cpu.max"));
        let limits =
            |path: &std::path::Path, text| path.exists() && std::fs::write(path, text).is_ok();
        let is_made = std::fs::create_dir(group).is_ok();
        let is_limited = is_made && (limits(&one, "100000") || limits(&two, "100000 100000"));
        if is_made && !is_limited {
            std::fs::remove_dir(group).unwrap();
        }
        is_limited
    });
    let Some(group) = group else {
        println!("left out: this process may make no cgroup");
        return;
    };
    let scratch = Scratch::new();
    let command = format!(
        "echo $$ > {}/cgroup.procs && exec {} --config config.toml --dry-run",
        group.display(),
        env!("CARGO_BIN_EXE_bitfit-train"),
    );
    let threads = |number: Option<&str>| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).current_dir(scratch.path("")).env_remove("RUST_LOG");
        shell.env_remove("OMP_NUM_THREADS").envs(number.map(|number| ("OMP_NUM_THREADS", number)));
        let output = shell.output().unwrap();
        succeeded(&output);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find(|line| line.starts_with("device")).unwrap().to_owned()
    };
    let found = [threads(None), threads(Some("2"))];
    std::fs::remove_dir(group).unwrap();
    assert!(found[0].ends_with("cpu, 1 threads"), "{found:?}");
    assert!(found[1].ends_with("cpu, 2 threads"), "{found:?}");
}
