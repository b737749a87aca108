//! Tasks of one base in mixed batches: each sequence has the logits that it has with its task
//! alone.

use crate::common::{TINY, golden_dir};
use crate::made;
use bitfit::internal::bank::{Bank, BankTask, TaskPlan};
use bitfit::internal::base::Base;
use bitfit::internal::data::{Batch, Encoding};
use bitfit::internal::delta::Delta;
use bitfit::internal::methods::Method;
use bitfit::internal::nn::{Pooling, Precision, to_rows};
use bitfit::internal::task_model::TaskModel;
use std::path::Path;
use tch::{Device, Kind, Tensor};

#[test]
fn a_mixed_batch_gives_each_sequence_its_tasks_logits() {
    for name in TINY {
        let base = Base::read(&golden_dir().join(name), None, Device::Cpu).unwrap();
        let path = Path::new("task.safetensors");
        let before: Vec<Tensor> = base.tensors().values().map(Tensor::copy).collect();
        let alone: Vec<TaskModel> = (0..12)
            .map(|seed| {
                let delta = made::task(&base, "", seed);
                let task = &delta.meta.task;
                let mut model = TaskModel::new(&base, task.outputs(), task.pooling, None).unwrap();
                delta.apply_with_method(path, &mut model).unwrap();
                model
            })
            .collect();
        let shared: Vec<Tensor> = base.tensors().values().map(Tensor::shallow_clone).collect();
        let deltas: Vec<Delta> = (0..12).map(|seed| made::task(&base, "", seed)).collect();
        let bank = Bank::new(base, Precision::Fp32).unwrap();
        let tasks: Vec<BankTask> =
            deltas.iter().map(|d| bank.plan().task(path, d).unwrap()).collect();
        let mut random = made::random(7);
        for _ in 0..4 {
            let count = 1 + made::below(&mut random, 40);
            let mut of = vec![];
            let texts: Vec<Encoding> = (0..count)
                .map(|_| {
                    of.push(made::below(&mut random, tasks.len()));
                    let length = 2 + made::below(&mut random, 30);
                    let ids =
                        (0..length).map(|_| 5 + made::below(&mut random, 100) as u32).collect();
                    Encoding { ids, first: length }
                })
                .collect();
            let chosen: Vec<&BankTask> = of.iter().map(|&i| &tasks[i]).collect();
            let scores = |tasks: &[&BankTask]| -> Vec<Vec<f32>> {
                let logits = bank.logits(&Batch::new(&texts), tasks).unwrap();
                let of =
                    |(task, row): (&&BankTask, &Vec<f32>)| task.task.task_type.scores_of_row(row);
                tasks.iter().zip(&logits).map(of).collect()
            };
            let mixed = scores(&chosen);
            for ((text, &of), found) in texts.iter().zip(&of).zip(&mixed) {
                let (packed, _) = Batch::new([text]).to_device(Device::Cpu).unwrap();
                let logits = tch::no_grad(|| alone[of].classifier.forward(&packed).unwrap());
                let expected = deltas[of].meta.task.task_type.scores(&logits).unwrap();
                assert_eq!(expected.numel(), found.len());
                let largest = expected.abs().max().double_value(&[]).max(1.0);
                let difference = (Tensor::from_slice(found) - expected.view([-1])).abs().max();
                assert!(
                    difference.double_value(&[]) < 1e-5 * largest,
                    "{name}, task {of}: {difference:?}"
                );
            }
            one_task_is_as_alone(&bank, chosen[0], &alone[of[0]], &texts);
            // Another task is another function.
            let other: Vec<&BankTask> = of.iter().map(|&i| &tasks[(i + 1) % tasks.len()]).collect();
            assert_ne!(scores(&other), mixed);
        }
        // Nothing was written to the base's memory, by models alone or together.
        for (own, before) in shared.iter().zip(&before) {
            assert!(own == before, "{name}");
        }
    }
}

/// The second of two batches of one task is computed by a model of it alone, with the same result.
fn one_task_is_as_alone(bank: &Bank, task: &BankTask, alone: &TaskModel, texts: &[Encoding]) {
    let batch = Batch::new(texts);
    let (packed, _) = batch.to_device(Device::Cpu).unwrap();
    let expected = tch::no_grad(|| alone.classifier.forward(&packed).unwrap());
    let expected = to_rows(&expected).unwrap();
    for _ in 0..2 {
        let found = bank.logits(&batch, &vec![task; texts.len()]).unwrap();
        assert_eq!(expected.len(), found.len());
        for (a, b) in expected.concat().iter().zip(found.concat()) {
            assert!((a - b).abs() < 1e-5 * a.abs().max(1.0), "{a} {b}");
        }
    }
}

/// Threads share tasks and what makes them, which hold no tensors.
#[test]
fn tasks_are_for_every_thread() {
    fn shared<T: Send + Sync>() {}
    shared::<BankTask>();
    shared::<TaskPlan>();
}

#[test]
fn what_is_no_row_is_refused() {
    let read = || Base::read(&golden_dir().join("tiny-bert"), None, Device::Cpu).unwrap();
    let bank = Bank::new(read(), Precision::Fp32).unwrap();
    let path = Path::new("task.safetensors");
    let refused = |change: &dyn Fn(&mut Delta), parts: &[&str]| {
        let mut delta = made::task(&read(), "", 3);
        change(&mut delta);
        let error = bank.plan().task(path, &delta).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    refused(&|d| d.meta.method = Method::Full, &["the method full", "bitfit export --format hf"]);
    refused(&|d| d.meta.base_fingerprint = "other".into(), &["another base"]);
    let weight = "bert.encoder.layer.0.output.dense.weight";
    refused(
        &|d| drop(d.tensors.insert(weight.into(), read().tensors()[weight].copy())),
        &[weight, "only vectors"],
    );
    refused(&|d| drop(d.tensors.remove("classifier.bias")), &["classifier.bias"]);
    // A head on means does not read the pooler.
    let pooler = "bert.pooler.dense.bias";
    let with_pooler = |d: &mut Delta| {
        d.meta.task.pooling = Pooling::Mean;
        d.tensors.insert(pooler.into(), read().tensors()[pooler].copy());
    };
    refused(&with_pooler, &[pooler, "no such tensor"]);
}

/// Weights that are the base's alone are not kept in fp32 too.
#[test]
fn a_base_of_half_precision_has_no_weights_of_another() {
    let mut base = Base::read(&golden_dir().join("tiny-bert"), None, Device::Cpu).unwrap();
    assert!(base.tensors().values().all(|tensor| !tensor.requires_grad()));
    base.keep_in(Kind::BFloat16).unwrap();
    for (name, tensor) in base.tensors() {
        let dense = name.contains(".layer.") && tensor.dim() == 2;
        let expected = if dense { Kind::BFloat16 } else { Kind::Float };
        assert_eq!(tensor.kind(), expected, "{name}");
        assert!(!tensor.requires_grad(), "{name}");
    }
    let model = TaskModel::new(&base, 2, Pooling::First, None).unwrap();
    for (name, variable) in model.store.variables() {
        let shared = base.tensors().get(&name).map(|tensor| tensor.data_ptr());
        assert!(shared.is_none_or(|shared| shared == variable.data_ptr()), "{name} is a copy");
    }
}
