//! Texts of more tokens than their task reads at once: cut, their first and last tokens, windows.

use crate::common::{STILL, Scratch, TINY, golden_dir, refused, stderr, stdout, succeeded, tiny};
use crate::made;
use bitfit::internal::bank::{Bank, BankTask};
use bitfit::internal::base::Base;
use bitfit::internal::data::{Batch, DropoutKeys, Example, Target, Tokenizer, Windows};
use bitfit::internal::models::{LongTexts, Reading, WindowSettings};
use bitfit::internal::nn::{Precision, WindowPooling, to_rows};
use bitfit::{Device, Engine, Tasks};
use serde_json::Value;
use std::path::Path;
use tch::{Kind, Tensor};

fn windows(window_stride: Option<usize>, most_windows: usize) -> LongTexts {
    let window_pooling = WindowPooling::Mean;
    LongTexts::Windows(WindowSettings { window_stride, most_windows, window_pooling })
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::read(&golden_dir().join(name)).unwrap()
}

/// The ids of each window.
fn ids(text: &Windows) -> Vec<Vec<u32>> {
    text.iter().map(|window| window.ids.clone()).collect()
}

#[test]
fn windows_are_those_of_transformers() {
    let cases = std::fs::read_to_string(golden_dir().join("windows.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
    let (mut several, mut pairs) = (0, 0);
    for case in &cases {
        let tokenizer = tokenizer(case["model"].as_str().unwrap());
        let stride = case["window_stride"].as_u64().map(|stride| stride as usize);
        let max_length = case["max_length"].as_u64().unwrap() as usize;
        let reading = Reading { max_length, long_texts: windows(stride, 256) };
        let (text, pair) = (case["text"].as_str().unwrap(), case["pair"].as_str());
        let found = tokenizer.encode_as(text, pair, reading);
        let expected: Vec<Vec<u32>> = serde_json::from_value(case["windows"].clone()).unwrap();
        assert_eq!(ids(&found), expected, "{case}");
        let firsts: Vec<usize> = serde_json::from_value(case["first"].clone()).unwrap();
        assert_eq!(found.iter().map(|window| window.first).collect::<Vec<_>>(), firsts, "{case}");
        assert!(!found.is_cut, "{case}");
        several += usize::from(expected.len() > 1);
        pairs += usize::from(pair.is_some());
    }
    assert!(several > 20 && pairs > 20);
}

/// Nine words, each one token of BERT's vocabulary.
const WORDS: [&str; 9] = ["the", "film", "was", "great", "and", "plot", "bad", "very", "good"];

/// The ids of some of [`WORDS`], or of a pair of them.
fn of(tokenizer: &Tokenizer, first: &[usize], second: Option<&[usize]>) -> Vec<u32> {
    let text = |words: &[usize]| words.iter().map(|&w| WORDS[w]).collect::<Vec<_>>().join(" ");
    let second = second.map(text);
    tokenizer.encode(&text(first), second.as_deref(), 512).ids
}

#[test]
fn the_first_and_the_last_tokens_are_kept() {
    let tokenizer = tokenizer("tiny-bert");
    let text = WORDS.join(" ");
    let read = |text: &str, pair: Option<&str>, max_length: usize| {
        let reading = Reading { max_length, long_texts: LongTexts::HeadTail };
        let found = tokenizer.encode_as(text, pair, reading);
        assert!(found.more.is_empty());
        (found.first, found.is_cut)
    };
    let found = |max_length| read(&text, None, max_length);
    assert_eq!(found(10).0.ids, of(&tokenizer, &[0, 1, 2, 3, 5, 6, 7, 8], None));
    // Of an odd number, the beginning gets one more.
    let (encoding, is_cut) = found(7);
    assert_eq!(encoding.ids, of(&tokenizer, &[0, 1, 2, 7, 8], None));
    assert_eq!((encoding.first, is_cut), (7, true));
    assert_eq!(found(4).0.ids, of(&tokenizer, &[0, 8], None));
    assert_eq!((found(11).0.ids.len(), found(11).1), (11, false));
    // Of a pair, the second text keeps its ends where it is too long.
    let (encoding, is_cut) = read("the film", Some(&text), 10);
    assert_eq!(encoding.ids, of(&tokenizer, &[0, 1], Some(&[0, 1, 2, 7, 8])));
    assert_eq!((encoding.first, is_cut), (4, true));
    let (encoding, _) = read(&text, Some(&text), 10);
    assert_eq!(encoding.ids, of(&tokenizer, &[0, 1, 2], Some(&[0, 1, 7, 8])));
    // The first text is cut at its end, as it always is.
    let (encoding, _) = read(&text, Some("the film"), 10);
    assert_eq!(encoding.ids, of(&tokenizer, &[0, 1, 2, 3, 4], Some(&[0, 1])));
}

#[test]
fn windows_overlap_and_reach_the_end() {
    let tokenizer = tokenizer("tiny-bert");
    let text = WORDS.join(" ");
    let read = |text: &str, pair: Option<&str>, max_length, long_texts| {
        let reading = Reading { max_length, long_texts };
        let found = tokenizer.encode_as(text, pair, reading);
        (ids(&found), found.is_cut)
    };
    let single = |words: &[usize]| of(&tokenizer, words, None);
    let halves = [single(&[0, 1, 2, 3, 4, 5]), single(&[3, 4, 5, 6, 7, 8])].to_vec();
    assert_eq!(read(&text, None, 8, windows(None, 8)), (halves.clone(), false));
    // What is beyond the most windows is left out, and counted.
    let one = halves[..1].to_vec();
    assert_eq!(read(&text, None, 8, windows(None, 1)), (one, true));
    let apart = [single(&[0, 1, 2, 3, 4, 5]), single(&[6, 7, 8])].to_vec();
    assert_eq!(read(&text, None, 8, windows(Some(6), 8)), (apart, false));
    // A stride beyond a window leaves nothing out.
    let pair = |second: &[usize]| of(&tokenizer, &[0, 1, 2, 3], Some(second));
    let wide = [pair(&[0, 1, 2, 3]), pair(&[4, 5, 6, 7]), pair(&[8])].to_vec();
    assert_eq!(read(&text, Some(&text), 11, windows(Some(9), 8)), (wide, true));
    let found = read(&text, Some(&text), 11, windows(None, 2));
    let two = [pair(&[0, 1, 2, 3]), pair(&[2, 3, 4, 5])].to_vec();
    assert_eq!(found, (two, true));
    // A short second text leaves its place to the first.
    let found = read(&text, Some("bad"), 11, windows(None, 8));
    let first = of(&tokenizer, &[0, 1, 2, 3, 4, 5, 6], Some(&[6]));
    assert_eq!(found, (vec![first], true));
    let (empty, _) = read(&text, Some(""), 8, windows(None, 8));
    assert_eq!((empty.len(), empty[0].len()), (1, 8));
}

/// What fits is read alike by all; nothing is longer than it may be, however short that is.
#[test]
fn what_fits_is_read_as_ever() {
    for name in TINY {
        let tokenizer = tokenizer(name);
        let long_texts = [LongTexts::HeadTail, windows(None, 3), windows(Some(1), 3)];
        for (a, b) in [(0, 0), (1, 0), (0, 3), (4, 9), (9, 4), (30, 2), (2, 30), (30, 30)] {
            let [text, pair] = [a, b].map(|count| "the film ".repeat(count));
            for max_length in 4..40 {
                for pair in [None, Some(pair.as_str())] {
                    let cut = tokenizer.encode(&text, pair, max_length);
                    let whole = tokenizer.encode(&text, pair, 512);
                    for long_texts in long_texts {
                        let reading = Reading { max_length, long_texts };
                        let found = tokenizer.encode_as(&text, pair, reading);
                        assert!(found.count() <= long_texts.most_windows());
                        let fits = whole.ids.len() <= max_length;
                        assert!(!fits || ids(&found) == [&cut.ids[..]], "{name} {max_length}");
                        let all = found.is_cut || found.count() > 1;
                        assert_eq!(all, !fits, "{name} {reading:?} {a} {b}");
                        let longest = found.iter().map(|window| window.ids.len()).max().unwrap();
                        assert!(longest <= max_length, "{name} {reading:?} {a} {b}: {longest}");
                    }
                }
            }
        }
    }
}

/// Texts of 1, 3 and 2 windows of [`TINY`]'s models.
fn several() -> Vec<Windows> {
    let mut random = made::random(3);
    let mut window = |length: usize| {
        let ids = (0..length).map(|_| 5 + made::below(&mut random, 100) as u32).collect();
        bitfit::internal::data::Encoding { ids, first: length }
    };
    [vec![9], vec![16, 16, 5], vec![16, 7]]
        .map(|lengths| {
            let first = window(lengths[0]);
            let more = lengths[1..].iter().map(|&length| window(length)).collect();
            Windows { more, ..first.into() }
        })
        .to_vec()
}

#[test]
fn logits_of_a_text_are_the_mean_or_the_highest_of_its_windows() {
    for name in TINY {
        let (model, texts) = (tiny(name), several());
        let _guard = tch::no_grad_guard();
        let batch = Batch::of_texts(&texts);
        assert_eq!((batch.texts(), batch.sequences_by_text()), (3, vec![1, 3, 2]));
        assert_eq!(batch.text_starts(), [0, 9, 46, 69]);
        let (packed, _) = batch.to_device(model.device()).unwrap();
        let logits = model.classifier.forward(&packed).unwrap();
        for pooling in [WindowPooling::Mean, WindowPooling::Max] {
            let found = packed.by_text(logits.shallow_clone(), pooling).unwrap();
            let found = to_rows(&found).unwrap();
            for (text, found) in texts.iter().zip(found) {
                let (alone, _) = Batch::new(text.iter()).to_device(model.device()).unwrap();
                let own = to_rows(&model.classifier.forward(&alone).unwrap()).unwrap();
                for (label, found) in found.into_iter().enumerate() {
                    let of_label = own.iter().map(|logits| logits[label]);
                    let expected = match pooling {
                        WindowPooling::Mean => of_label.sum::<f32>() / own.len() as f32,
                        WindowPooling::Max => of_label.fold(f32::MIN, f32::max),
                    };
                    assert!((found - expected).abs() < 1e-5, "{name}: {found} {expected}");
                }
            }
        }
    }
}

#[test]
fn gradients_go_through_all_windows() {
    let values = [1f32, 5.0, 2.0, 4.0, 7.0, 3.0, 0.0, 9.0];
    let gradient = |pooling: WindowPooling| {
        let logits = Tensor::from_slice(&values).view([4, 2]).set_requires_grad(true);
        let weights = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).view([2, 2]);
        let pooled = pooling.pool(&logits, &[1, 3]).unwrap();
        (pooled * weights).sum(Kind::Float).backward();
        Vec::<f32>::try_from(logits.grad().view([-1])).unwrap()
    };
    let third = 4.0 / 3.0;
    assert_eq!(gradient(WindowPooling::Mean), [1.0, 2.0, 1.0, third, 1.0, third, 1.0, third]);
    assert_eq!(gradient(WindowPooling::Max), [1.0, 2.0, 0.0, 0.0, 3.0, 0.0, 0.0, 4.0]);
}

#[test]
fn dropout_differs_by_window() {
    let same = Windows { more: several()[1].more[..1].to_vec(), ..several()[1].clone() };
    let same = Windows { first: same.more[0].clone(), ..same };
    let keys = Some(DropoutKeys { seed: 1, epoch: 2 });
    let batch = |tokens: Windows| {
        Batch::from_examples(&[Example { tokens, target: Target::Class(0) }], &[0], keys)
    };
    let (one, two) = (batch(same.first.clone().into()), batch(same));
    assert!(one.windows.is_empty() && two.windows == [2]);
    let (first, second) = two.dropout_keys.split_at(16);
    assert_eq!(first, one.dropout_keys);
    assert!(first.iter().all(|key| !second.contains(key)));
}

/// In a batch of tasks, each reads texts in its own way, as alone.
#[test]
fn tasks_of_one_batch_pool_each_in_its_own_way() {
    let base = Base::read(&golden_dir().join("tiny-bert"), None, Device::Cpu).unwrap();
    let deltas: Vec<_> = (0..3).map(|seed| made::task(&base, "", 4 * seed + 2)).collect();
    let bank = Bank::new(base, Precision::Fp32).unwrap();
    let poolings = [WindowPooling::Mean, WindowPooling::Max, WindowPooling::Mean];
    let made = deltas.into_iter().zip(poolings).map(|(mut delta, window_pooling)| {
        let settings = WindowSettings { window_stride: None, most_windows: 9, window_pooling };
        delta.meta.task.long_texts = LongTexts::Windows(settings);
        bank.plan().task(Path::new("task.safetensors"), &delta).unwrap()
    });
    let tasks: Vec<BankTask> = made.collect();
    let (texts, tasks): (Vec<Windows>, Vec<&BankTask>) = (several(), tasks.iter().collect());
    let mixed = bank.logits(&Batch::of_texts(&texts), &tasks).unwrap();
    for ((text, task), found) in texts.iter().zip(tasks).zip(mixed) {
        let each = vec![task; text.count()];
        let windows = bank.logits(&Batch::new(text.iter()), &each).unwrap();
        let flat = Tensor::from_slice(&windows.concat()).view([text.count() as i64, -1]);
        let expected = match task.task.long_texts.pooling() {
            WindowPooling::Mean => flat.mean_dim(0, false, Kind::Float),
            WindowPooling::Max => flat.amax(0, false),
        };
        let difference = (expected - Tensor::from_slice(&found)).abs().max();
        assert!(difference.double_value(&[]) < 1e-4, "{difference:?}");
    }
}

/// Reviews whose first words say nothing, in the files of `scratch`.
fn long_reviews(scratch: &Scratch) {
    for (name, rows, seed) in [("train.tsv", 96, 1), ("eval.tsv", 32, 2)] {
        let plain = crate::common::reviews(rows, seed);
        let mut long = String::new();
        for (number, line) in plain.lines().enumerate() {
            let filler = if number == 0 { "" } else { &"film plot ".repeat(1 + number / 2 % 4) };
            long += &format!("{filler}{line}\n");
        }
        scratch.write(name, long);
    }
}

fn set<'a>(keys: &[&'a str]) -> Vec<&'a str> {
    keys.iter().flat_map(|key| ["--set", key]).collect()
}

const WINDOWS: [&str; 4] = [
    "data.long_texts=windows",
    "data.max_length=12",
    "data.window_stride=4",
    "data.most_windows=2",
];

fn summary(scratch: &Scratch, run: &str) -> Value {
    let text = std::fs::read_to_string(scratch.path(&format!("{run}/summary.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn delta(scratch: &Scratch, run: &str) -> Vec<u8> {
    std::fs::read(scratch.path(&format!("{run}/delta.safetensors"))).unwrap()
}

/// The lines that `bitfit predict` writes of the evaluation texts, without their texts.
fn predicted(scratch: &Scratch, from: &[&str]) -> Vec<Value> {
    let args = [&["predict", "--input", "eval.tsv", "--no-text"][..], from].concat();
    let output = scratch.bitfit(&args);
    succeeded(&output);
    stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_reads_windows_in_every_command() {
    for name in TINY {
        let scratch = Scratch::of(name);
        long_reviews(&scratch);
        let keys = [&WINDOWS[..], &["training.num_train_epochs=6"]].concat();
        let output = scratch.train(&set(&keys));
        succeeded(&output);
        let said = stderr(&output);
        assert!(said.contains("training texts are longer than max_length = 12"), "{said}");
        assert!(said.contains("not read whole: at most data.most_windows = 2"), "{said}");
        assert!(said.contains("long texts   up to 2 windows, each 4 tokens"), "{said}");
        let best = summary(&scratch, "run")["best"].clone();
        let eval = scratch.bitfit(&["eval", "--run", "run", "--json"]);
        let found: Value = serde_json::from_str(&stdout(&eval)).unwrap();
        assert_eq!(found["metrics"], best, "{name}");
        // A run that goes on ends in the same bytes.
        let longer = [&keys[..], &["training.output_dir=again"]].concat();
        let first = [&longer[..], &["training.max_steps=29"]].concat();
        succeeded(&scratch.train(&set(&first)));
        succeeded(&scratch.train(&[&set(&longer)[..], &["--resume"]].concat()));
        assert_eq!(delta(&scratch, "again"), delta(&scratch, "run"), "{name}");
        let other = [&keys[..], &["data.window_pooling=max"]].concat();
        let other = scratch.train(&[&set(&other)[..], &["--resume"]].concat());
        refused(&other, 2, &["data.window_pooling", "mean", "max"]);
        predicts_alike(&scratch);
    }
}

/// Run, delta, directory of tasks, engine and export predict the same.
fn predicts_alike(scratch: &Scratch) {
    let expected = predicted(scratch, &["--run", "run"]);
    let of_delta = ["--model", "base", "--delta", "run/delta.safetensors"];
    assert_eq!(predicted(scratch, &of_delta), expected);
    succeeded(
        &scratch.bitfit(&["export", "--run", "run", "--format", "hf", "--output", "exported"]),
    );
    let close = |found: &Value, expected: &Value| {
        let (found, expected) = (found["score"].as_f64(), expected["score"].as_f64());
        assert!((found.unwrap() - expected.unwrap()).abs() < 1e-5, "{found:?} {expected:?}");
    };
    let exported = predicted(scratch, &["--model", "exported"]);
    exported.iter().zip(&expected).for_each(|(found, expected)| close(found, expected));
    let of_tasks = ["--model", "base", "--tasks", ".", "--task", "run"];
    let several = predicted(scratch, &of_tasks);
    assert_eq!(several.len(), expected.len());
    let of_run = |line: &Value| line["predictions"]["run"].clone();
    several.iter().zip(&expected).for_each(|(line, expected)| close(&of_run(line), expected));
    let builder = Tasks::builder(scratch.path("base")).device(Device::Cpu);
    let engine = Engine::builder(builder).max_batch_tokens(40).start().unwrap();
    engine.load("run", scratch.path("run/delta.safetensors")).unwrap();
    let texts = std::fs::read_to_string(scratch.path("eval.tsv")).unwrap();
    let texts = texts.lines().skip(1).map(|line| ("run", line.split('\t').next().unwrap()));
    let found = engine.predict(texts).unwrap();
    for (found, expected) in found.iter().zip(&expected) {
        close(&serde_json::to_value(found).unwrap(), expected);
    }
    let long = "film ".repeat(40);
    let output = scratch.bitfit(&["predict", "--run", "run", &long, "good"]);
    let said = stderr(&output);
    assert!(said.contains("more than 2 windows") && said.contains("left out: 1"), "{said}");
    let inspect = scratch.bitfit(&["inspect", "--delta", "run/delta.safetensors"]);
    assert!(stdout(&inspect).contains("long texts   up to 2 windows"), "{}", stdout(&inspect));
    let card = std::fs::read_to_string(scratch.path("exported/README.md")).unwrap();
    assert!(card.contains("`bitfit predict` reads the windows"), "{card}");
    assert!(card.contains("at most 2 windows of 12 tokens"), "{card}");
    let config = std::fs::read_to_string(scratch.path("exported/config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["bitfit"]["long_texts"]["window_stride"], 4);
    let hostile = config.to_string().replace("\"most_windows\":2", "\"most_windows\":0");
    scratch.write("exported/config.json", hostile);
    let output = scratch.bitfit(&["predict", "--model", "exported", "good"]);
    refused(&output, 1, &["config.json", "most_windows: found 0, expected 1 to 256"]);
}

/// What decides is in the last words. Windows and ends see it; cut texts do not.
#[test]
fn what_is_beyond_the_first_tokens_is_learned() {
    let scratch = Scratch::new();
    long_reviews(&scratch);
    let accuracy = |keys: &[&str]| {
        let run = ["data.max_length=10", "training.num_train_epochs=12", STILL[1], STILL[3]];
        let output = scratch.train(&[&set(&[&run, keys].concat())[..], &["--overwrite"]].concat());
        succeeded(&output);
        summary(&scratch, "run")["best"]["accuracy"].as_f64().unwrap()
    };
    let max = ["data.long_texts=windows", "data.window_pooling=max"];
    for keys in [&["data.long_texts=windows"][..], &max, &["data.long_texts=head_tail"]] {
        assert!(accuracy(keys) > 0.85, "{keys:?}");
    }
    assert!(accuracy(&[]) < 0.85);
}

/// Tensors of a delta, by name.
fn tensors(scratch: &Scratch, run: &str) -> std::collections::BTreeMap<String, Tensor> {
    let path = scratch.path(&format!("{run}/delta.safetensors"));
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

#[test]
fn texts_that_fit_train_to_the_same_values() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&[]));
    for (run, key) in [("ends", "head_tail"), ("windows", "windows")] {
        let (key, output) =
            (format!("data.long_texts={key}"), format!("training.output_dir={run}"));
        let output = scratch.train(&set(&[&key, &output]));
        succeeded(&output);
        assert!(!stderr(&output).contains("longer than max_length"), "{}", stderr(&output));
        assert_eq!(tensors(&scratch, run), tensors(&scratch, "run"));
        assert_eq!(summary(&scratch, run)["best"], summary(&scratch, "run")["best"]);
    }
}

/// Windows with less memory, and from a cache, give the same as without.
#[test]
fn windows_with_less_memory_give_the_same() {
    let scratch = Scratch::new();
    long_reviews(&scratch);
    let always = ["bitfit.layers=1", "training.load_best_model_at_end=false"];
    let trained = |run: &str, more: &[&str]| {
        let output = format!("training.output_dir={run}");
        let keys = [&WINDOWS[..], &[STILL[1], STILL[3]], &always, &[&output], more].concat();
        succeeded(&scratch.train(&set(&keys)));
        tensors(&scratch, run)
    };
    let plain = trained("plain", &[]);
    let apart = |other: &std::collections::BTreeMap<String, Tensor>| {
        let pairs = plain
            .iter()
            .zip(other)
            .filter(|((name, _), (_, tensor))| tensor.numel() > 0 && !name.ends_with("key.bias"));
        pairs
            .map(|((_, a), (_, b))| f64::try_from((a - b).abs().max()).unwrap())
            .fold(0.0, f64::max)
    };
    let again = trained("again", &["training.gradient_checkpointing=true"]);
    assert_eq!(again, plain);
    let cached = trained("cached", &["training.cache_frozen_layers=true"]);
    assert!(apart(&cached) < 1e-5, "{}", apart(&cached));
    let on_disk =
        trained("disk", &["training.cache_frozen_layers=true", "training.cache_memory_mib=0"]);
    assert_eq!(on_disk, cached);
    let budget = trained("budget", &["training.max_tokens_per_batch=100"]);
    assert!(budget.keys().eq(plain.keys()));
    let steps = summary(&scratch, "budget")["steps"].as_u64().unwrap();
    assert!(steps > summary(&scratch, "plain")["steps"].as_u64().unwrap(), "{steps}");
}

#[test]
fn what_is_said_of_cut_texts() {
    let scratch = Scratch::new();
    long_reviews(&scratch);
    let said = |keys: &[&str]| {
        let keys = [&["data.max_length=12", "training.max_steps=1"], keys].concat();
        let output = scratch.train(&[&set(&keys)[..], &["--overwrite"]].concat());
        succeeded(&output);
        stderr(&output)
    };
    let cut = said(&[]);
    assert!(
        cut.contains("of 96 training texts are longer than max_length = 12 and are cut"),
        "{cut}"
    );
    assert!(cut.contains("data.long_texts = \"windows\" reads all"), "{cut}");
    assert!(cut.contains("of 32 evaluation texts"), "{cut}");
    let ends = said(&["data.long_texts=head_tail"]);
    assert!(ends.contains("are read by their first and last tokens; the longest has"), "{ends}");
    let all = said(&["data.long_texts=windows"]);
    assert!(all.contains("are read in windows") && !all.contains("not read whole"), "{all}");
    let some = said(&["data.long_texts=windows", "data.most_windows=1"]);
    assert!(some.contains("are not read whole: at most data.most_windows = 1"), "{some}");
}

#[test]
fn keys_of_windows_are_refused_without_windows() {
    let scratch = Scratch::new();
    let refuse = |keys: &[&str], parts: &[&str]| refused(&scratch.train(&set(keys)), 2, parts);
    for key in ["window_stride=5", "most_windows=2", "window_pooling=mean"] {
        let key = format!("data.{key}");
        for mode in ["cut", "head_tail"] {
            let expected = format!("expected none with long_texts = \"{mode}\"");
            let mode = format!("data.long_texts={mode}");
            refuse(&[&key, &mode], &[&key, &expected, "a key of \"windows\""]);
        }
    }
    let windows = "data.long_texts=windows";
    refuse(&[windows, "data.window_stride=31"], &["window_stride=31", "1 to 30"]);
    refuse(&[windows, "data.window_stride=0"], &["window_stride", "0", "1 or more"]);
    refuse(&[windows, "data.most_windows=0"], &["most_windows", "1 to 256"]);
    refuse(&[windows, "data.most_windows=257"], &["most_windows", "1 to 256"]);
    refuse(&[windows, "data.window_pooling=sum"], &["window_pooling", "sum", "mean"]);
    refuse(&[windows, "data.max_length=7"], &["data.max_length", "8 or more with windows"]);
    refuse(&["data.long_texts=all"], &["long_texts", "all", "head_tail"]);
    let tokens = "training.max_tokens_per_batch=255";
    refuse(&[windows, tokens], &["max_tokens_per_batch", "256 or more", "data.most_windows"]);
}
