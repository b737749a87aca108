//! Measures many tasks of one base in one process: how fast they load, how much memory they take,
//! and the speed of mixed batches beside that of one task. `scripts/bench.sh tasks` runs it.
//!
//! Options, after `cargo bench --bench tasks --`: `--tasks N` (10,000), `--rounds N` (9; 0 only
//! writes the tasks), `--model DIR` (models/all-MiniLM-L6-v2), `--dir DIR` for the tasks' files
//! (target/bench/tasks, 1.2 GB).
//!
//! With `--engine FILE`, of requests as examples/load.rs reads them, it prints the rows that the
//! engine answers in a second to `--connections N` threads in `--seconds S`, without HTTP.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use bitfit::internal::base::Base;
use bitfit::internal::data::Tokenizer;
use bitfit::internal::delta::{Delta, Meta};
use bitfit::internal::methods::Method;
use bitfit::internal::models::{LongTexts, Task, TaskType};
use bitfit::internal::nn::Pooling;
use bitfit::internal::task_model::TaskModel;
use bitfit::{Engine, Tasks};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tch::{Device, Tensor};

/// Texts of a round.
const TEXTS: usize = 600;

fn argument(name: &str, default: &str) -> String {
    let args: Vec<String> = std::env::args().collect();
    let place = args.iter().position(|arg| arg == name);
    place.and_then(|place| args.get(place + 1)).map_or(default, String::as_str).to_owned()
}

fn main() {
    let count: usize = argument("--tasks", "10000").parse().unwrap();
    let rounds: usize = argument("--rounds", "9").parse().unwrap();
    let model = PathBuf::from(argument("--model", "models/all-MiniLM-L6-v2"));
    let dir = PathBuf::from(argument("--dir", "target/bench/tasks"));
    write_tasks(&model, &dir, count);
    let bodies = argument("--engine", "");
    if !bodies.is_empty() {
        return println!("{:.1}", engine_rows_per_second(&model, &dir, &bodies));
    }
    if rounds == 0 {
        return;
    }
    let mut tasks = Tasks::builder(&model).device(Device::Cpu).open().unwrap();
    tasks.load("alone", dir.join("t0.safetensors")).unwrap();
    let texts = texts(&model);
    let one: Vec<(&str, &str)> = texts.iter().map(|text| ("alone", text.as_str())).collect();
    tasks.predict(one.iter().copied()).unwrap();
    let before = resident_mib();
    let began = Instant::now();
    assert!(tasks.load_dir(&dir).unwrap().is_empty());
    let seconds = began.elapsed().as_secs_f64();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let names: Vec<String> =
        texts.iter().map(|_| format!("t{}", random.next_u64() as usize % count)).collect();
    let mixed: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
    tasks.predict(mixed.iter().copied()).unwrap();
    let taken = resident_mib() - before;
    println!("{count} tasks of {}", model.display());
    println!("loading        {:.0} tasks a second ({seconds:.1} s)", count as f64 / seconds);
    println!(
        "memory         {taken:.0} MiB beside the {before:.0} MiB of the process with one task, {:.1} KiB a task",
        taken * 1024.0 / count as f64
    );
    let time = |rows: &[(&str, &str)]| {
        let began = Instant::now();
        tasks.predict(rows.iter().copied()).unwrap();
        began.elapsed().as_secs_f64()
    };
    let mut ratios: Vec<f64> = (0..rounds).map(|_| time(&one) / time(&mixed)).collect();
    ratios.sort_by(f64::total_cmp);
    println!(
        "mixed batches  {:.3} of one task's speed (median of {rounds} rounds; {:.3} to {:.3})",
        ratios[rounds / 2],
        ratios[0],
        ratios[rounds - 1]
    );
}

/// The rows that an engine with the tasks of `dir` answers in a second, to threads that each ask
/// again as soon as they are answered.
fn engine_rows_per_second(model: &Path, dir: &Path, bodies: &str) -> f64 {
    let connections: usize = argument("--connections", "64").parse().unwrap();
    let seconds: f64 = argument("--seconds", "8").parse().unwrap();
    let text = std::fs::read_to_string(bodies).unwrap();
    let rows = |line: &str| -> Vec<(String, String)> {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let rows = line["body"]["rows"].as_array().unwrap();
        let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
        rows.iter().map(|row| (text(row, "task"), text(row, "text"))).collect()
    };
    let requests: Vec<Vec<(String, String)>> = text.lines().map(rows).collect();
    let engine = Engine::builder(Tasks::builder(model).device(Device::Cpu)).start().unwrap();
    assert!(engine.load_dir(dir).unwrap().is_empty());
    let (next, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let run = |seconds: f64| {
        answered.store(0, Ordering::Relaxed);
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..connections {
                scope.spawn(|| {
                    while began.elapsed().as_secs_f64() < seconds {
                        let number = next.fetch_add(1, Ordering::Relaxed) % requests.len();
                        let rows = requests[number].iter();
                        let rows = rows.map(|(task, text)| (task.as_str(), text.as_str()));
                        let count = engine.predict(rows).unwrap().len();
                        answered.fetch_add(count, Ordering::Relaxed);
                    }
                });
            }
        });
        answered.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
    };
    // The first second is not counted.
    run(1.0);
    run(seconds)
}

/// The resident memory of this process, in MiB.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Texts of 8 to 56 words of the vocabulary.
fn texts(model: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(model.join("vocab.txt")).unwrap();
    let plain = |word: &&str| word.len() > 2 && word.chars().all(|c| c.is_ascii_lowercase());
    let words: Vec<&str> = text.lines().filter(plain).collect();
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut below = |most: usize| random.next_u64() as usize % most;
    (0..TEXTS)
        .map(|_| {
            let count = 8 + below(49);
            let words: Vec<&str> = (0..count).map(|_| words[below(words.len())]).collect();
            words.join(" ")
        })
        .collect()
}

/// Writes the tasks' files that `dir` lacks: each of the base's biases, changed a little by a seed,
/// and a head of two labels.
fn write_tasks(model: &Path, dir: &Path, count: usize) {
    std::fs::create_dir_all(dir).unwrap();
    let file = |number: usize| dir.join(format!("t{number}.safetensors"));
    let lacking: Vec<usize> = (0..count).filter(|&number| !file(number).exists()).collect();
    if lacking.is_empty() {
        return;
    }
    println!("writing {} tasks to {}", lacking.len(), dir.display());
    let base = Base::read(model, None, Device::Cpu).unwrap();
    let fingerprint = Tokenizer::read(model).unwrap().fingerprint;
    let shapes = TaskModel::new(&base, 2, Pooling::First, None).unwrap().shapes();
    let own = |name: &str| base.tensors().get(name);
    let changes: Vec<(&String, &Vec<i64>)> =
        shapes.iter().filter(|(name, _)| name.ends_with(".bias") || own(name).is_none()).collect();
    for number in lacking {
        tch::manual_seed(number as i64);
        let change = |(name, shape): &(&String, &Vec<i64>)| {
            let noise = Tensor::randn(&shape[..], (tch::Kind::Float, Device::Cpu)) * 0.02;
            ((*name).clone(), own(name).map_or(noise.shallow_clone(), |own| own + &noise))
        };
        let tensors: BTreeMap<String, Tensor> = changes.iter().map(change).collect();
        let meta = Meta {
            architecture: base.info.config.architecture.class.into(),
            base_name: "all-MiniLM-L6-v2".into(),
            base_fingerprint: base.info.fingerprint.clone(),
            base_config: base.info.config.beside_tensors(),
            tokenizer_fingerprint: fingerprint.clone(),
            task: Task {
                task_type: TaskType::Classification,
                labels: vec!["no".into(), "yes".into()],
                labels_declared: true,
                pairs: Some(false),
                max_length: 128,
                pooling: Pooling::First,
                long_texts: LongTexts::Cut,
                thresholds: vec![],
            },
            method: Method::Bitfit,
            freeze_plan: tensors.keys().cloned().collect(),
            metrics: BTreeMap::new(),
        };
        Delta::new(meta, tensors).write(&file(number)).unwrap();
    }
}
