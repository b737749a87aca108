//! Less memory and less time, to the same end: layers computed again, layers computed once,
//! products in half precision.

use crate::common::{Scratch, refused, reviews, stderr, stdout, succeeded};
use bitfit::internal::data::TextSize;
use bitfit::internal::error::Error;
use bitfit::internal::eval::in_batches;
use bitfit::internal::native;
use bitfit::internal::optim::LossScale;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use tch::{Device, Kind, Tensor};

/// Trains with these keys set, into `run`, and returns what is kept in the end.
fn trained(scratch: &Scratch, run: &str, sets: &[&str]) -> Vec<u8> {
    let output = format!("training.output_dir={run}");
    let always = [&output, "training.load_best_model_at_end=false"];
    let sets: Vec<&str> = always.iter().chain(sets).flat_map(|set| ["--set", set]).collect();
    succeeded(&scratch.train(&sets));
    std::fs::read(scratch.path(&format!("{run}/delta.safetensors"))).unwrap()
}

fn tensors(delta: &[u8]) -> BTreeMap<String, Tensor> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), delta).unwrap();
    Tensor::read_safetensors(file.path()).unwrap().into_iter().collect()
}

/// The largest difference between the tensors that two runs kept. The key biases are left out:
/// their gradient is only rounding error, which AdamW turns into steps of full size.
fn apart(a: &[u8], b: &[u8]) -> f64 {
    let (a, b) = (tensors(a), tensors(b));
    assert!(a.keys().eq(b.keys()));
    let pairs =
        a.iter().zip(&b).filter(|((name, _), (_, b))| b.numel() > 0 && !name.ends_with("key.bias"));
    pairs.map(|((_, a), (_, b))| f64::try_from((a - b).abs().max()).unwrap()).fold(0.0, f64::max)
}

/// Dropout and all: what is computed again is what it was.
#[test]
fn layers_that_are_computed_again_give_the_same_bytes() {
    for name in crate::common::TINY {
        let scratch = Scratch::of(name);
        for layers in ["", "bitfit.layers=1"] {
            let plain = trained(&scratch, &format!("plain{layers}"), &[layers].map(or_seed));
            let again = "training.gradient_checkpointing=true";
            let sparing = trained(&scratch, &format!("spare{layers}"), &[or_seed(layers), again]);
            assert_eq!(plain, sparing, "{name} {layers}");
        }
    }
}

/// A key that changes nothing, where there is none.
fn or_seed(set: &str) -> &str {
    if set.is_empty() { "training.seed=42" } else { set }
}

const CACHED: [&str; 2] = ["bitfit.layers=1", "training.cache_frozen_layers=true"];

#[test]
fn cached_layers_are_the_layers() {
    let scratch = Scratch::new();
    let no_dropout = ["model.hidden_dropout_prob=0.0", "model.attention_probs_dropout_prob=0.0"];
    let with = |more: &[&'static str]| [&CACHED[..], more].concat();
    let plain = trained(&scratch, "plain", &[&CACHED[..1], &no_dropout].concat());
    let cached = trained(&scratch, "cached", &with(&no_dropout));
    assert!(apart(&plain, &cached) < 1e-5, "{}", apart(&plain, &cached));
    assert_ne!(plain, trained(&scratch, "dropout", &CACHED), "the upper layers keep their dropout");
    // From memory, from the disk, from neither.
    let disk = trained(&scratch, "disk", &with(&["training.cache_memory_mib=0"]));
    assert_eq!(trained(&scratch, "memory", &CACHED), disk);
    let neither =
        with(&["training.cache_memory_mib=0", "training.cache_disk_mib=0", "training.max_steps=9"]);
    let some = trained(&scratch, "neither", &neither);
    let all = trained(&scratch, "all", &with(&["training.max_steps=9"]));
    assert!(apart(&some, &all) < 1e-5);
    let left: Vec<_> = std::fs::read_dir(scratch.path("disk")).unwrap().collect();
    assert!(
        left.iter().all(|e| !e.as_ref().unwrap().file_name().to_string_lossy().contains("tmp"))
    );
    // Where it cannot be kept, the error says what could not.
    let output = scratch.train(&["--set", CACHED[1]]);
    refused(&output, 2, &["training.cache_frozen_layers", "bitfit.layers", "layer 0"]);
}

#[test]
fn a_cached_run_goes_on_to_the_same_bytes() {
    let scratch = Scratch::new();
    let whole = trained(&scratch, "whole", &CACHED);
    trained(&scratch, "part", &[&CACHED[..], &["training.max_steps=9"]].concat());
    let sets = ["training.output_dir=part", "training.load_best_model_at_end=false"];
    let mut args: Vec<&str> = sets.iter().chain(&CACHED).flat_map(|set| ["--set", set]).collect();
    args.push("--resume");
    succeeded(&scratch.train(&args));
    let resumed = std::fs::read(scratch.path("part/delta.safetensors")).unwrap();
    assert_eq!(tensors(&whole), tensors(&resumed));
}

/// A weight in half precision: the product is within its rounding, and the bias is not rounded.
#[test]
fn products_in_half_precision_round_as_they_should() {
    for (kind, most) in [(Kind::BFloat16, 2e-2), (Kind::Half, 2e-3)] {
        let float = (Kind::Float, Device::Cpu);
        let x = Tensor::randn([50, 64], float).set_requires_grad(true);
        let weight = Tensor::randn([96, 64], float) / 8.0;
        let bias = Tensor::randn([96], float).set_requires_grad(true);
        let gradient = Tensor::randn([50, 96], float);
        let backward = |y: Tensor| {
            x.shallow_clone().zero_grad();
            bias.shallow_clone().zero_grad();
            (&y * &gradient).sum(Kind::Float).backward();
            (y.detach(), x.grad().copy(), bias.grad().copy())
        };
        let narrow = weight.to_kind(kind);
        let ours = native::product(&x, &narrow, Some(&bias)).unwrap();
        let plain = native::product(&x, &weight, Some(&bias)).unwrap();
        let (ours, plain) = (backward(ours), backward(plain));
        let off =
            |a: &Tensor, b: &Tensor| f64::try_from((a - b).abs().max() / b.abs().max()).unwrap();
        assert!(off(&ours.0, &plain.0) < most && off(&ours.1, &plain.1) < most);
        assert!(off(&ours.0, &plain.0) > 0.0, "it is made in {kind:?}");
        assert_eq!(ours.2, plain.2, "the bias's gradient is a sum in fp32");
        // Nothing but the bias: to the last bit of fp32.
        let none = native::product(&x.zeros_like(), &narrow, Some(&bias)).unwrap();
        assert_eq!(none.get(0), bias);
    }
}

#[test]
fn half_precision_trains_and_goes_on() {
    let scratch = Scratch::new();
    let plain = trained(&scratch, "plain", &["training.precision=fp32"]);
    let auto = trained(&scratch, "auto", &["training.device=cpu"]);
    let resolved = std::fs::read_to_string(scratch.path("auto/config.toml")).unwrap();
    assert!(resolved.contains("precision = \"fp32\""), "{resolved}");
    assert_eq!(auto == plain, crate::common::device() == Device::Cpu);
    for precision in ["bf16", "fp16"] {
        let set = format!("training.precision={precision}");
        let half = trained(&scratch, precision, &[&set]);
        let off = apart(&plain, &half);
        assert!(off > 0.0 && off < 0.2, "{precision}: {off}");
        trained(&scratch, "part", &[&set, "training.max_steps=9"]);
        // The precision is `auto` again: the run keeps its own.
        let mut args = vec!["--set", "training.output_dir=part", "--resume"];
        args.extend(["--set", "training.load_best_model_at_end=false"]);
        succeeded(&scratch.train(&args));
        let resumed = std::fs::read(scratch.path("part/delta.safetensors")).unwrap();
        assert_eq!(tensors(&half), tensors(&resumed), "{precision}");
        std::fs::remove_dir_all(scratch.path("part")).unwrap();
    }
    let output = scratch.train(&["--set", "training.precision=int8"]);
    refused(&output, 2, &["int8", "fp32", "bf16", "fp16"]);
}

#[test]
fn predictions_are_made_in_the_precision_that_is_asked_for() {
    let scratch = Scratch::new();
    trained(&scratch, "run", &[]);
    let scores = |precision: &str| -> Vec<f64> {
        let texts = ["A fine film.", "What a bore."];
        let args = ["predict", "--run", "run", "--precision", precision, texts[0], texts[1]];
        let output = scratch.bitfit(&args);
        succeeded(&output);
        let line = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        stdout(&output).lines().map(|text| line(text)["score"].as_f64().unwrap()).collect()
    };
    let plain = scores("fp32");
    for precision in ["bf16", "fp16"] {
        let half = scores(precision);
        let off = plain.iter().zip(&half).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off > 0.0 && off < 0.02, "{precision}: {off}");
    }
    let output =
        scratch.bitfit(&["predict", "--run", "run", "--precision", "int8", "A fine film."]);
    refused(&output, 2, &["int8", "fp32", "bf16", "fp16"]);
}

/// Threads that spin for long while they wait are slow beside another program's: libtorch is loaded
/// with few spins, unless somebody says.
#[test]
fn whoever_computes_has_threads_that_sleep_soon() {
    let scratch = Scratch::new();
    trained(&scratch, "run", &[]);
    let environment = |policy: Option<&str>| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bitfit"))
            .args(["predict", "--input", "-", "--run"])
            .arg(scratch.path("run"))
            .env_remove("GOMP_SPINCOUNT")
            .env_remove("OMP_WAIT_POLICY")
            .envs(policy.map(|policy| ("OMP_WAIT_POLICY", policy)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.as_mut().unwrap().write_all(b"A fine film.\n").unwrap();
        let mut answer = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
        assert!(answer.contains("score"), "{answer}");
        let environment = std::fs::read(format!("/proc/{}/environ", child.id())).unwrap();
        assert!(child.wait_with_output().unwrap().status.success());
        String::from_utf8_lossy(&environment).contains("GOMP_SPINCOUNT=30000")
    };
    assert!(environment(None));
    assert!(!environment(Some("passive")), "as it was asked for");
}

#[test]
fn texts_that_do_not_fit_into_memory_are_handed_over_half_as_many_at_once() {
    let text = TextSize { windows: 1, tokens: 2000 };
    let (mut seen, mut refusals) = (vec![], 0);
    let handed = in_batches(&[text; 10], 8, Device::Cpu, &mut |range| {
        if range.len() > 2 {
            refusals += 1;
            return Err(Error::OutOfMemory("out of memory".into()));
        }
        seen.push(range);
        Ok(())
    });
    handed.unwrap();
    assert_eq!((seen, refusals), (vec![0..2, 2..4, 4..6, 6..8, 8..10], 2));
    let mut never = |_| Err(Error::OutOfMemory("out of memory".into()));
    let refused = in_batches(&[text; 10], 8, Device::Cpu, &mut never);
    assert!(matches!(refused, Err(Error::OutOfMemory(_))));
}

#[test]
fn a_loss_scale_falls_and_rises() {
    let scale = LossScale::default();
    assert_eq!(scale.after(false), LossScale { factor: 32_768.0, steps: 0 });
    assert_eq!(scale.after(true).steps, 1);
    let grown = (0..2000).fold(scale, |scale, _| scale.after(true));
    assert_eq!(grown, LossScale { factor: 131_072.0, steps: 0 });
    let spent = (0..17).fold(scale, |scale, _| scale.after(false));
    assert!(spent.is_spent() && !scale.is_spent());
}

/// A gradient too large for fp16 is left out, and said so; training goes on.
#[test]
fn a_step_that_fp16_cannot_hold_is_left_out() {
    let scratch = Scratch::new();
    // Numbers that large give gradients that large.
    let data = reviews(96, 1).replace("positive", "400").replace("negative", "-400");
    scratch.write("train.tsv", &data);
    scratch.write("eval.tsv", data);
    let raw = "training.standardize_target=false";
    let sets = ["model.task_type=regression", "training.precision=fp16", raw];
    let output = scratch.train(&sets.map(|set| ["--set", set]).concat());
    succeeded(&output);
    let message = stderr(&output);
    assert!(
        message.contains("is skipped") && message.contains("the loss scale is now"),
        "{message}"
    );
    let state =
        std::fs::read(scratch.path("run/checkpoints/step-000016/trainer_state.safetensors"));
    let text = String::from_utf8_lossy(&state.unwrap()).into_owned();
    assert!(text.contains("loss_scale"), "it is saved");
}
