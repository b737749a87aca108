//! The model against PyTorch and transformers (scripts/make_golden.py).

use crate::common::{
    NO_DROPOUT, Scratch, TINY, device, golden, golden_dir, root, sequences, tiny, tiny_base,
};
use bitfit::internal::base::Base;
use bitfit::internal::data::{Batch, Encoding, Example, Target, Tokenizer};
use bitfit::internal::freeze::{FreezePlan, Group, Switches};
use bitfit::internal::models::{Dropouts, Shaping, TaskType};
use bitfit::internal::native;
use bitfit::internal::nn::{Activation, Pooling};
use bitfit::internal::optim::{AdamW, AdamWSettings};
use bitfit::internal::task_model::TaskModel;
use tch::{Device, Kind, Tensor};

fn largest(tensor: &Tensor) -> f64 {
    tensor.abs().max().double_value(&[])
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    largest(&(a - b))
}

/// A tiny model after forward and backward over its golden batch, in fp32 or fp64.
fn trained(name: &str, kind: Kind) -> (TaskModel, FreezePlan, Tensor, Tensor) {
    let golden = golden(&format!("{name}.safetensors"));
    let mut base = tiny(name);
    if kind == Kind::Double {
        base.store.double();
    }
    let plan =
        FreezePlan::new(base.config.architecture, &base.shapes(), &base.new, &Switches::default())
            .unwrap();
    plan.apply(&mut base.store).unwrap();
    let (packed, _) = Batch::new(&sequences(&golden)).to_device(device()).unwrap();
    let logits = base.classifier.forward(&packed).unwrap();
    let rows = golden["labels"].numel();
    let loss = TaskType::Classification
        .loss(&logits, &golden["labels"], &Shaping::default(), rows as f64)
        .unwrap();
    loss.backward();
    (base, plan, logits, loss)
}

#[test]
fn every_architecture_has_the_references_logits_and_gradients() {
    for name in TINY {
        logits_and_gradients_are_the_references(name);
    }
}

fn logits_and_gradients_are_the_references(name: &str) {
    let golden = golden(&format!("{name}.safetensors"));
    let (base, plan, logits, loss) = trained(name, Kind::Float);
    let worst = difference(&logits, &golden["logits"]);
    assert!(worst < 1e-5, "{name}: logits differ by {worst}");
    assert!(difference(&loss, &golden["loss"]) < 1e-6);
    let loss = TaskType::MultiLabel
        .loss(&logits, &golden["multi_label.targets"], &Shaping::default(), 7.0)
        .unwrap();
    assert!(difference(&loss, &golden["multi_label.loss"]) < 1e-6);
    let variables = base.store.variables();
    let expected: Vec<&String> = golden.keys().filter(|name| name.starts_with("grad.")).collect();
    assert_eq!(expected.len(), plan.trainable().count(), "what trains here and there");
    let mut worst = 0f64;
    for parameter in plan.trainable() {
        // Zero but for rounding: a test of its own.
        if parameter.name.ends_with("key.bias") || parameter.name.ends_with("k_lin.bias") {
            continue;
        }
        let expected = &golden[&format!("grad.{}", parameter.name)];
        let relative = difference(&variables[&parameter.name].grad(), expected) / largest(expected);
        worst = worst.max(relative);
        assert!(
            relative < 1e-4,
            "{}: gradient differs by {relative} of its largest entry",
            parameter.name
        );
    }
    println!("{name}: largest relative difference of a gradient: {worst:.1e}");
}

/// The golden values are those of sentence-transformers' arithmetic
/// (scripts/make_golden_pooling.py).
#[test]
fn a_head_on_means_has_the_references_logits_and_gradients() {
    for name in TINY {
        let (batch, mean) = (
            golden(&format!("{name}.safetensors")),
            golden(&format!("pooling-{name}.safetensors")),
        );
        let shared = Base::read(&golden_dir().join(name), None, device()).unwrap();
        let mut model = TaskModel::new(&shared, 3, Pooling::Mean, Some(NO_DROPOUT)).unwrap();
        let head = model.config.architecture.head.output;
        for leaf in ["weight", "bias"] {
            model.set(&format!("{head}.{leaf}"), &mean[&format!("head.{leaf}")]).unwrap();
        }
        let (architecture, shapes) = (model.config.architecture, model.shapes());
        let plan =
            FreezePlan::new(architecture, &shapes, &model.new, &Switches::default()).unwrap();
        plan.apply(&mut model.store).unwrap();
        let (packed, _) = Batch::new(&sequences(&batch)).to_device(device()).unwrap();
        let rows = batch["labels"].numel() as f64;
        let loss = |logits: &Tensor| {
            TaskType::Classification.loss(logits, &batch["labels"], &Shaping::default(), rows)
        };
        let logits = model.classifier.forward(&packed).unwrap();
        assert!(difference(&logits, &mean["logits"]) < 1e-5, "{name}");
        assert!(difference(&loss(&logits).unwrap(), &mean["loss"]) < 1e-6, "{name}");
        for checkpointing in [false, true] {
            let variables = model.store.variables();
            plan.trainable().for_each(|p| variables[&p.name].shallow_clone().zero_grad());
            let lower = model.classifier.lower(&packed, 0).unwrap();
            let (logits, kept) = model.classifier.upper(lower, 0, &packed, checkpointing).unwrap();
            loss(&logits).unwrap().backward();
            kept.into_iter().for_each(|kept| model.classifier.backward(kept, &packed).unwrap());
            for p in plan.trainable() {
                // Zero but for rounding.
                if p.name.ends_with("key.bias") || p.name.ends_with("k_lin.bias") {
                    continue;
                }
                let expected = &mean[&format!("grad.{}", p.name.replace(head, "head"))];
                let relative = difference(&variables[&p.name].grad(), expected) / largest(expected);
                assert!(relative < 1e-4, "{name}: {}: {relative}", p.name);
            }
        }
    }
}

/// q.(k + b_k) = q.k + q.b_k adds the same number to the score of every key, and softmax ignores
/// what all scores share. So the key bias has no effect and no gradient but rounding: with fp64's
/// rounding it is a billion times smaller still.
#[test]
fn the_key_bias_has_no_gradient() {
    let share = |base: &TaskModel, layer: i64| {
        let variables = base.store.variables();
        let gradient = |part: &str| {
            largest(
                &variables[&format!("bert.encoder.layer.{layer}.attention.self.{part}.bias")]
                    .grad(),
            )
        };
        assert!(gradient("query") > 1e-3, "the query's gradient must be there to compare with");
        gradient("key") / gradient("query")
    };
    let (base, _, logits, _) = trained("tiny-bert", Kind::Float);
    let (double, _, _, _) = trained("tiny-bert", Kind::Double);
    for layer in 0..3 {
        let (single, double) = (share(&base, layer), share(&double, layer));
        println!(
            "layer {layer}: {single:.1e} of the query bias's gradient in fp32, {double:.1e} in fp64"
        );
        // The reference's own are 1.2e-6, 4e-7 and 3.4e-6.
        assert!(single < 1e-5 && double < 1e-13, "{single} and {double}");
    }
    let mut base = base;
    let moved = Tensor::ones([32], (Kind::Float, device())) * 2.0;
    for layer in 0..3 {
        base.set(&format!("bert.encoder.layer.{layer}.attention.self.key.bias"), &moved).unwrap();
    }
    let (packed, _) =
        Batch::new(&sequences(&golden("tiny-bert.safetensors"))).to_device(device()).unwrap();
    let moved = tch::no_grad(|| base.classifier.forward(&packed).unwrap());
    assert!(difference(&moved, &logits) < 1e-4, "the key bias changes nothing");
}

/// Alone, in the pass that adds the bias, and in a model (scripts/make_golden_activations.py).
#[test]
fn every_activation_is_the_references() {
    let (golden, tiny) = (golden("activations.safetensors"), golden("tiny-bert.safetensors"));
    for (name, activation) in Activation::NAMES {
        let of = |what: &str| &golden[&format!("{name}.{what}")];
        let input = |what: &str| golden[what].copy().set_requires_grad(true);
        let (x, bias) = (input("x"), input("bias"));
        let y = native::bias_activation(&x, &bias, activation as i64).unwrap();
        (&y * &golden["dy"]).sum(Kind::Float).backward();
        for (what, ours) in [("y", y), ("dx", x.grad()), ("dbias", bias.grad())] {
            let relative = difference(&ours, of(what)) / largest(of(what)).max(1.0);
            assert!(relative < 5e-6, "{name}: {what} differs by {relative}");
        }
        let scratch = Scratch::new();
        let config = std::fs::read_to_string(scratch.path("base/config.json")).unwrap();
        scratch.write("base/config.json", config.replace("\"gelu\"", &format!("\"{name}\"")));
        let mut base = TaskModel::new(
            &Base::read(&scratch.path("base"), None, device()).unwrap(),
            3,
            Pooling::First,
            Some(NO_DROPOUT),
        )
        .unwrap();
        for name in ["classifier.weight", "classifier.bias"] {
            base.set(name, &tiny[name]).unwrap();
        }
        let plan = FreezePlan::new(
            base.config.architecture,
            &base.shapes(),
            &base.new,
            &Switches::default(),
        )
        .unwrap();
        plan.apply(&mut base.store).unwrap();
        let (packed, _) = Batch::new(&sequences(&tiny)).to_device(device()).unwrap();
        let logits = base.classifier.forward(&packed).unwrap();
        assert!(difference(&logits, of("logits")) < 1e-5, "{name}");
        logits.square().mean(Kind::Float).backward();
        let variables = base.store.variables();
        for place in ["1.intermediate.dense.bias", "2.output.dense.bias"] {
            let place = format!("bert.encoder.layer.{place}");
            let expected = of(&format!("grad.{place}"));
            let relative = difference(&variables[&place].grad(), expected) / largest(expected);
            assert!(relative < 1e-4, "{name}: the gradient of {place} differs by {relative}");
        }
    }
}

#[test]
fn nothing_frozen_receives_a_gradient() {
    for name in TINY {
        let (base, plan, _, _) = trained(name, Kind::Float);
        let variables = base.store.variables();
        for parameter in plan.parameters() {
            let variable = &variables[&parameter.name];
            assert_eq!(variable.requires_grad(), parameter.trains, "{}", parameter.name);
            assert_eq!(variable.grad().defined(), parameter.trains, "{}", parameter.name);
        }
    }
}

#[test]
fn a_row_in_a_batch_gives_the_numbers_it_gives_alone() {
    let _guard = tch::no_grad_guard();
    for name in TINY {
        let base = tiny(name);
        let sequences = sequences(&golden(&format!("{name}.safetensors")));
        let (packed, _) = Batch::new(&sequences).to_device(device()).unwrap();
        let together = base.classifier.forward(&packed).unwrap();
        for (i, sequence) in sequences.iter().enumerate() {
            let (packed, _) = Batch::new([sequence]).to_device(device()).unwrap();
            let alone = base.classifier.forward(&packed).unwrap();
            assert!(difference(&alone.get(0), &together.get(i as i64)) < 1e-5, "{name}");
        }
    }
}

/// A dropout mask is a function of its row, not of the row's place in a batch: a batch that is cut
/// in two has the same masks. On a GPU, attention's mask is the kernel's own, and differs.
#[test]
fn dropout_does_not_depend_on_the_batch() {
    let on_cpu = device() == Device::Cpu;
    let hidden_only = Dropouts { hidden: 0.1, attention: 0.0, classifier: None };
    let mut base = TaskModel::new(
        &Base::read(&golden_dir().join("tiny-bert"), None, device()).unwrap(),
        3,
        Pooling::First,
        (!on_cpu).then_some(hidden_only),
    )
    .unwrap();
    base.initialize(1).unwrap();
    let examples: Vec<Example> = sequences(&golden("tiny-bert.safetensors"))
        .into_iter()
        .map(|tokens| Example { tokens: tokens.into(), target: Target::Class(0) })
        .collect();
    let _guard = tch::no_grad_guard();
    let logits = |rows: &[usize], seed, epoch| {
        let keys = bitfit::internal::data::DropoutKeys { seed, epoch };
        let (packed, _) =
            Batch::from_examples(&examples, rows, Some(keys)).to_device(device()).unwrap();
        base.classifier.forward(&packed).unwrap()
    };
    let whole = logits(&[0, 1, 2, 3, 4, 5, 6], 9, 2);
    let parts = Tensor::cat(&[logits(&[0, 1, 2], 9, 2), logits(&[3, 4, 5, 6], 9, 2)], 0);
    assert!(difference(&whole, &parts) < 1e-5);
    assert!(
        difference(&whole, &logits(&[0, 1, 2, 3, 4, 5, 6], 9, 3)) > 1e-2,
        "another epoch, other masks"
    );
    assert!(
        difference(&whole, &logits(&[0, 1, 2, 3, 4, 5, 6], 8, 2)) > 1e-2,
        "another seed, other masks"
    );
}

/// AdamW with a rate for the head and another for the rest.
fn two_rates() -> AdamWSettings {
    let rate = |group| (group, if group == Group::Classifier { 1e-2 } else { 2e-3 });
    AdamWSettings {
        rates: Group::ALL.map(rate).into(),
        weight_decay: 0.0,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        max_grad_norm: 1.0,
    }
}

/// Clips the gradients of all variables together and steps each one's optimizer.
fn clip_and_step(single: &mut [(tch::COptimizer, Tensor)]) {
    let norms: Vec<Tensor> = single.iter().map(|(_, variable)| variable.grad().norm()).collect();
    let scale = (1.0 / (Tensor::stack(&norms, 0).norm().double_value(&[]) + 1e-6)).min(1.0);
    for (optimizer, variable) in single {
        let _ = variable.grad().g_mul_scalar_(scale);
        optimizer.step().unwrap();
    }
}

/// One flat parameter must take the steps that PyTorch's AdamW takes on each tensor: here against
/// libtorch's own, tensor by tensor.
#[test]
fn the_flat_optimizer_takes_adamws_steps() {
    use tch::nn::OptimizerConfig;
    let golden = golden("tiny-bert.safetensors");
    let (packed, _) = Batch::new(&sequences(&golden)).to_device(device()).unwrap();
    let settings = two_rates();
    let losses = |flat: bool| -> Vec<f64> {
        let mut base = tiny_base();
        let plan = FreezePlan::new(
            base.config.architecture,
            &base.shapes(),
            &base.new,
            &Switches::default(),
        )
        .unwrap();
        plan.apply(&mut base.store).unwrap();
        let variables = base.store.variables();
        let adamw = tch::nn::AdamW { wd: 0.0, ..Default::default() };
        let mut single: Vec<_> = plan
            .trainable()
            .map(|p| {
                let rate = if p.name.starts_with("classifier") { 1e-2 } else { 2e-3 };
                let mut optimizer = adamw.build_copt(rate).unwrap();
                optimizer.add_parameters(&variables[&p.name], 0).unwrap();
                (optimizer, variables[&p.name].shallow_clone())
            })
            .collect();
        let mut optimizer = flat.then(|| AdamW::new(&base.store, &plan, &settings).unwrap());
        let losses = (0..10)
            .map(|_| {
                if let Some(optimizer) = &mut optimizer {
                    optimizer.zero_grad().unwrap();
                } else {
                    single.iter().for_each(|(optimizer, _)| optimizer.zero_grad().unwrap());
                }
                let logits = base.classifier.forward(&packed).unwrap();
                let loss = TaskType::Classification
                    .loss(&logits, &golden["labels"], &Shaping::default(), 7.0)
                    .unwrap();
                loss.backward();
                if let Some(optimizer) = &mut optimizer {
                    let _ = optimizer.clip().unwrap();
                    optimizer.step(1.0).unwrap();
                    optimizer.check_bound(&base.store).unwrap();
                } else {
                    clip_and_step(&mut single);
                }
                loss.double_value(&[])
            })
            .collect();
        // Nothing frozen moves by a bit, and everything that trains does; the key biases only by
        // what rounding gives them.
        let before = tiny_base().store.variables();
        for parameter in plan.parameters().iter().filter(|p| !p.name.ends_with("key.bias")) {
            let moved = before[&parameter.name] != base.store.variables()[&parameter.name];
            assert_eq!(moved, parameter.trains, "{}", parameter.name);
        }
        losses
    };
    let (flat, single) = (losses(true), losses(false));
    assert!(flat[9] < 0.7 * flat[0], "it learns: {flat:?}");
    for (a, b) in flat.iter().zip(&single) {
        assert!((a - b).abs() < 1e-5, "{flat:?} and {single:?}");
    }
}

#[test]
fn minilm_has_the_references_ids_and_logits_on_real_sentences() {
    let model = root().join("models/all-MiniLM-L6-v2");
    let data = root().join("data/movie-reviews/eval.tsv");
    assert!(
        model.exists() && data.exists(),
        "run scripts/download_model.sh and scripts/download_movie_reviews.sh first"
    );
    let golden = golden("minilm.safetensors");
    let tokenizer = Tokenizer::read(&model).unwrap();
    let text = std::fs::read_to_string(data).unwrap();
    let ours: Vec<Encoding> = text
        .lines()
        .skip(1)
        .take(64)
        .map(|line| tokenizer.encode(line.split('\t').next().unwrap(), None, 128))
        .collect();
    assert_eq!(ours, sequences(&golden));
    let mut base = TaskModel::new(
        &Base::read(&model, None, device()).unwrap(),
        2,
        Pooling::First,
        Some(NO_DROPOUT),
    )
    .unwrap();
    for name in ["classifier.weight", "classifier.bias"] {
        base.set(name, &golden[name]).unwrap();
    }
    let (packed, _) = Batch::new(&ours).to_device(device()).unwrap();
    let logits = tch::no_grad(|| base.classifier.forward(&packed).unwrap());
    let worst = difference(&logits, &golden["logits"]);
    println!("largest difference of a logit: {worst:.1e}");
    assert!(worst < 2e-5, "logits differ by {worst}");
}
