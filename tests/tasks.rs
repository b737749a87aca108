//! Many tasks of one base: `Tasks`, and `bitfit predict --tasks`.

use crate::common::{Scratch, TINY, golden_dir, refused, root, stderr, stdout, succeeded};
use crate::made;
use bitfit::internal::base::Base;
use bitfit::internal::data::Tokenizer;
use bitfit::internal::methods::Method;
use bitfit::internal::models::TaskType;
use bitfit::internal::predict::{Input, Prediction, Predictor};
use bitfit::internal::tasks::Tasks;
use serde_json::{Value, json};
use std::path::Path;
use tch::Device;

/// Writes `count` made tasks of the base in `base` to the directory `dir`, as `t0.safetensors` on.
pub fn write_tasks(base: &Path, dir: &Path, count: u64) {
    let read = Base::read(base, None, Device::Cpu).unwrap();
    let fingerprint = Tokenizer::read(base).unwrap().fingerprint;
    std::fs::create_dir_all(dir).unwrap();
    for seed in 0..count {
        let delta = made::task(&read, &fingerprint, seed);
        delta.write(&dir.join(format!("t{seed}.safetensors"))).unwrap();
    }
}

/// Texts of words of the vocabulary, some longer than any task keeps.
fn text(random: &mut rand_chacha::ChaCha8Rng, words: &[String]) -> String {
    let longest = if made::below(random, 8) == 0 { 700 } else { 60 };
    let count = 1 + made::below(random, longest);
    let words = (0..count).map(|_| words[made::below(random, words.len())].as_str());
    words.collect::<Vec<_>>().join(" ")
}

/// Predicts `count` texts by random ones of `tasks` made tasks, in random mixed batches, and
/// compares each score with that of the task alone.
fn mixed_batches_predict_as_each_task_alone(base: &Path, words: &[String], tasks: u64, count: u64) {
    let folder = tempfile::tempdir().unwrap();
    write_tasks(base, folder.path(), tasks);
    let mut random = made::random(tasks * 1000 + count);
    let mut alone: Vec<Predictor> = vec![];
    for number in 0..tasks {
        let path = folder.path().join(format!("t{number}.safetensors"));
        alone.push(Predictor::load(base, None, Some(&path), base, Device::Cpu).unwrap());
    }
    let (mut left, mut wrong) = (count, 0);
    while left > 0 {
        let size = 1 + made::below(&mut random, 24);
        let builder = Tasks::builder(base).device(Device::Cpu).batch_size(size);
        let mut bank = builder.open().unwrap();
        assert!(bank.load_dir(folder.path()).unwrap().is_empty());
        let rows: Vec<(usize, Input)> = (0..left.min(100))
            .map(|_| {
                let of = made::below(&mut random, tasks as usize);
                let pairs = alone[of].task().pairs == Some(true);
                let text_pair = pairs.then(|| text(&mut random, words));
                (of, Input { text: text(&mut random, words), text_pair })
            })
            .collect();
        left -= rows.len() as u64;
        let named = |shift: usize| {
            let name = move |of: usize| format!("t{}", (of + shift) % tasks as usize);
            rows.iter().map(move |(of, input)| (name(*of), input.clone())).collect::<Vec<_>>()
        };
        let found = bank.predict(named(0)).unwrap();
        for ((of, input), found) in rows.iter().zip(&found) {
            let expected = alone[*of].predict([input.clone()]).unwrap().remove(0);
            let difference = difference(&expected, found);
            assert!(difference < 1e-5, "task {of}: {difference} for {expected:?}");
        }
        // A route that is off by one is noticed.
        let other = |number: usize| alone[number].task().pairs == Some(true);
        for ((of, input), (name, _)) in rows.iter().zip(named(1)) {
            let next = (of + 1) % tasks as usize;
            if other(next) == other(*of) {
                let right = alone[*of].predict([input.clone()]).unwrap().remove(0);
                let off = bank.predict([(name, input.clone())]).unwrap().remove(0);
                wrong += usize::from(difference(&right, &off) < 1e-3);
            }
        }
    }
    assert!(wrong as u64 * 20 <= count, "{wrong} of {count} scores are those of the next task");
}

/// The largest difference of two predictions' scores; relative for a regression. Infinite if they
/// are of other labels.
fn difference(expected: &Prediction, found: &Prediction) -> f64 {
    if expected.scores.len() != found.scores.len() {
        return f64::INFINITY;
    }
    let values = |prediction: &Prediction| match prediction.scores.is_empty() {
        true => vec![prediction.score.unwrap()],
        false => prediction.scores.iter().map(|(_, score)| *score).collect(),
    };
    let (expected, found) = (values(expected), values(found));
    let largest = expected.iter().fold(1.0, |most, value| value.abs().max(most));
    let differences = expected.iter().zip(&found).map(|(a, b)| f64::from((a - b).abs() / largest));
    differences.fold(0.0, f64::max)
}

fn words(base: &Path) -> Vec<String> {
    let Ok(text) = std::fs::read_to_string(base.join("vocab.txt")) else {
        return ["the", "film", "was", "good", "bad", "very"].map(str::to_owned).into();
    };
    let plain = |word: &&str| word.chars().all(char::is_alphabetic);
    text.lines().filter(plain).map(str::to_owned).collect()
}

fn every_base(tasks: u64, texts: u64, minilm: (u64, u64)) {
    for name in TINY {
        let base = golden_dir().join(name);
        mixed_batches_predict_as_each_task_alone(&base, &words(&base), tasks, texts);
    }
    let base = root().join("models/all-MiniLM-L6-v2");
    mixed_batches_predict_as_each_task_alone(&base, &words(&base), minilm.0, minilm.1);
}

#[test]
fn random_mixed_batches_predict_as_each_task_alone() {
    every_base(9, 30, (5, 10));
}

#[test]
#[ignore = "takes minutes; scripts/check_tasks.sh runs it"]
fn sixty_four_tasks_predict_two_hundred_texts_as_each_alone() {
    every_base(64, 200, (64, 200));
}

/// A folder with a base and trained tasks in `tasks`: `film` of texts, `pair` of pairs.
fn scratch() -> Scratch {
    let scratch = Scratch::new();
    let base = Base::read(&scratch.path("base"), None, Device::Cpu).unwrap();
    let fingerprint = Tokenizer::read(&scratch.path("base")).unwrap().fingerprint;
    for (name, pairs) in [("film", false), ("pair", true), ("late/delta", false)] {
        let mut delta = made::task(&base, &fingerprint, 2);
        delta.meta.task.pairs = Some(pairs);
        let path = scratch.write(&format!("tasks/{name}.safetensors"), "");
        delta.write(&path).unwrap();
    }
    scratch.write("tasks/README.md", "What is here.");
    scratch.write("tasks/.hidden.safetensors", "not one");
    scratch
}

const TASKS: [&str; 5] = ["predict", "--model", "base", "--tasks", "tasks"];

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_text_is_predicted_by_each_task() {
    let scratch = scratch();
    let args = [&TASKS[..], &["--task", "late", "--task", "film", "a very good film", "bad"]];
    let output = scratch.bitfit(&args.concat());
    succeeded(&output);
    let found = lines(&stdout(&output));
    let alone = scratch.bitfit(&[
        "predict",
        "--model",
        "base",
        "--delta",
        "tasks/film.safetensors",
        "a very good film",
        "bad",
    ]);
    for (found, alone) in found.iter().zip(lines(&stdout(&alone))) {
        assert_eq!(found["text"], alone["text"]);
        let by_name = found["predictions"].as_object().unwrap();
        assert_eq!(by_name.keys().collect::<Vec<_>>(), ["late", "film"]);
        let expected = json!({
            "label": alone["label"], "score": alone["score"], "scores": alone["scores"]
        });
        let close = |found: &Value, expected: &Value| {
            (found.as_f64().unwrap() - expected.as_f64().unwrap()).abs() < 1e-5
        };
        assert_eq!(by_name["film"]["label"], expected["label"]);
        assert!(close(&by_name["film"]["score"], &expected["score"]));
        assert!(!by_name["film"].as_object().unwrap().contains_key("text"));
    }
    assert_eq!(found.len(), 2);
    // Lines of a file come in order, by every task that is about one text.
    scratch.write("texts.txt", "good\nbad\nawful\n");
    std::fs::remove_file(scratch.path("tasks/pair.safetensors")).unwrap();
    let args = [&TASKS[..], &["--input", "texts.txt", "--output", "out.jsonl"]];
    succeeded(&scratch.bitfit(&args.concat()));
    let found = lines(&std::fs::read_to_string(scratch.path("out.jsonl")).unwrap());
    let texts: Vec<&str> = found.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["good", "bad", "awful"]);
}

#[test]
fn a_column_names_the_task_of_each_row() {
    let scratch = scratch();
    scratch.write(
        "rows.csv",
        "text,other,task\ngood,,film\nthe film,was bad,pair\nawful,,late\ngreat,,film\n",
    );
    let args = [&TASKS[..], &["--task-column", "task", "--text-pair-column", "other"]];
    let args = [&args.concat()[..], &["--input", "rows.csv"]].concat();
    // An empty second text is a pair too.
    refused(&scratch.bitfit(&args), 1, &["rows.csv:2", "task \"film\"", "about one"]);
    scratch.write("rows.csv", "text,task\ngood,film\nawful,late\ngreat,film\n");
    let args = [&TASKS[..], &["--task-column", "task", "--input", "rows.csv"]].concat();
    let output = scratch.bitfit(&args);
    succeeded(&output);
    let found = lines(&stdout(&output));
    let tasks: Vec<&Value> = found.iter().map(|line| &line["task"]).collect();
    assert_eq!(tasks, ["film", "late", "film"]);
    let keys: Vec<&String> = found[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["task", "text", "label", "score", "scores"]);
    // A row of no task, of an unknown one, and a single text for a task about pairs.
    for (rows, parts) in [
        (
            "text,task\ngood,film\ngood,flim\n",
            &["rows.csv:3", "\"flim\"", "did you mean film?"][..],
        ),
        ("text,task\ngood,film\ngood,\n", &["rows.csv:3", "no task in column \"task\""]),
        ("text,task\ngood,film\ngood,pair\n", &["rows.csv:3", "\"pair\"", "pairs of texts"]),
        ("text,of\ngood,film\n", &["rows.csv:1", "no column \"task\" (task_column)"]),
    ] {
        scratch.write("rows.csv", rows);
        let output = scratch.bitfit(&args);
        refused(&output, 1, parts);
        assert_eq!(stdout(&output), "", "{rows}");
    }
    scratch.write("lines.txt", "good\n");
    let args = [&TASKS[..], &["--task-column", "task", "--input", "lines.txt"]].concat();
    refused(&scratch.bitfit(&args), 2, &["--task-column", ".csv"]);
}

#[test]
fn a_task_that_does_not_fit_is_refused_and_the_others_go_on() {
    let scratch = scratch();
    std::fs::remove_file(scratch.path("tasks/pair.safetensors")).unwrap();
    let base = Base::read(&scratch.path("base"), None, Device::Cpu).unwrap();
    let fingerprint = Tokenizer::read(&scratch.path("base")).unwrap().fingerprint;
    let made = |name: &str, change: &dyn Fn(&mut bitfit::internal::delta::Delta)| {
        let mut delta = made::task(&base, &fingerprint, 3);
        change(&mut delta);
        delta.write(&scratch.path(&format!("tasks/{name}.safetensors"))).unwrap();
    };
    made("full", &|delta| delta.meta.method = Method::Full);
    made("other-base", &|delta| delta.meta.base_fingerprint = "0".repeat(64));
    made("other-words", &|delta| delta.meta.tokenizer_fingerprint = "0".repeat(64));
    made("too-long", &|delta| delta.meta.task.max_length = 4096);
    made("spoilt", &|delta| {
        let nan = delta.tensors["classifier.bias"].full_like(f64::NAN);
        delta.tensors.insert("classifier.bias".into(), nan);
    });
    made("a b", &|_| {});
    let whole = std::fs::read(scratch.path("tasks/film.safetensors")).unwrap();
    scratch.write("tasks/cut.safetensors", &whole[..whole.len() - 1]);
    scratch.write("tasks/empty.safetensors", "");
    scratch.write("tasks/late.safetensors", &whole);
    std::fs::create_dir(scratch.path("tasks/folder.safetensors")).unwrap();
    std::os::unix::fs::symlink("nowhere", scratch.path("tasks/gone.safetensors")).unwrap();
    let output = scratch.bitfit(&[&TASKS[..], &["good"]].concat());
    let parts = [
        ("full", "method full"),
        ("other-base", "another base"),
        ("other-words", "not the tokenizer"),
        ("too-long", "max_length: found 4096"),
        ("spoilt", "classifier.bias contains NaN"),
        ("a b", "letters, digits"),
        ("cut", "not a complete safetensors file"),
        ("empty", "not a complete safetensors file"),
        ("late", "a second file"),
        ("folder", "a directory"),
        ("gone", "gone.safetensors"),
    ];
    refused(&output, 1, &["11 tasks were refused"]);
    for (name, why) in parts {
        let message = stderr(&output);
        let line = message.lines().find(|line| line.contains(&format!("task {name} is refused")));
        assert!(line.is_some_and(|line| line.contains(why)), "{name}: {message}");
    }
    let found = lines(&stdout(&output));
    assert_eq!(found[0]["predictions"].as_object().unwrap().keys().collect::<Vec<_>>(), ["film"]);
    a_refused_task_is_named_where_it_is_asked_for(&scratch);
}

fn a_refused_task_is_named_where_it_is_asked_for(scratch: &Scratch) {
    scratch.write("rows.csv", "text,task\ngood,film\ngood,full\n");
    let args = [&TASKS[..], &["--task-column", "task", "--input", "rows.csv"]].concat();
    refused(&scratch.bitfit(&args), 1, &["rows.csv:3", "was refused", "method full"]);
    // Only what is asked for is loaded.
    succeeded(&scratch.bitfit(&[&TASKS[..], &["--task", "film", "good"]].concat()));
    refused(
        &scratch.bitfit(&[&TASKS[..], &["--task", "full", "good"]].concat()),
        1,
        &["method full"],
    );
    refused(
        &scratch.bitfit(&[&TASKS[..], &["--task", "fulm", "good"]].concat()),
        1,
        &["task \"fulm\"", "did you mean"],
    );
    std::fs::create_dir(scratch.path("none")).unwrap();
    let none = ["predict", "--model", "base", "--tasks", "none", "good"];
    refused(&scratch.bitfit(&none), 1, &["none", "NAME.safetensors"]);
    let twice = ["predict", "--run", "run", "--tasks", "tasks", "good"];
    refused(&scratch.bitfit(&twice), 2, &["--tasks"]);
}

#[test]
fn tasks_are_added_and_replaced_by_name() {
    let scratch = scratch();
    let mut tasks = Tasks::open(scratch.path("base")).unwrap();
    let problem = tasks.predict([("film", "good")]).unwrap_err().to_string();
    assert!(problem.contains("input 1") && problem.contains("\"film\""), "{problem}");
    tasks.load("film", scratch.path("tasks/film.safetensors")).unwrap();
    let film = tasks.predict([("film", "good"), ("film", "bad")]).unwrap();
    assert_eq!(tasks.get("film").unwrap().task_type, TaskType::Classification);
    assert!(tasks.load_dir(scratch.path("tasks")).unwrap().is_empty());
    assert_eq!(tasks.names().collect::<Vec<_>>(), ["film", "late", "pair"]);
    assert_eq!(tasks.predict([("film", "good"), ("film", "bad")]).unwrap(), film);
    let pair = tasks.predict([("pair", ("good", "bad"))]).unwrap();
    assert_eq!(pair.len(), 1);
    assert!(tasks.predict([("pair", "good")]).is_err());
    assert!(tasks.load("../film", scratch.path("tasks/film.safetensors")).is_err());
    assert!(tasks.predict(Vec::<(&str, &str)>::new()).unwrap().is_empty());
    // A file that is damaged leaves the task as it was.
    let broken = scratch.write("broken.safetensors", "x");
    assert!(tasks.load("film", broken).is_err());
    assert_eq!(tasks.predict([("film", "good"), ("film", "bad")]).unwrap(), film);
}
