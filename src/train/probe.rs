//! The method probe: one pass over the training rows, and the head's output layer is solved.

use super::{Event, ModelPlan, Training, go_on};
use crate::data::{Batch, Example, Target};
use crate::error::{Error, Result};
use crate::eval::in_batches;
use crate::lock;
use crate::methods::ProbeConfig;
use crate::models::{Task, TaskType};
use crate::nn::{Pooling, WindowPooling};
use crate::optim::{Features, LinearModel, Link, Solution};
use std::time::Instant;
use tch::{Kind, Tensor};

/// The most rows that an error names.
const MOST_PLACES: usize = 10;

/// Solves the head, evaluates it and saves it. Does nothing for a run that is resumed after its
/// end.
pub fn solve(training: &mut Training<'_>, settings: &ProbeConfig) -> Result<()> {
    if training.progress.state.step == 0 {
        solve_head(training, settings)?;
        training.progress.state.evaluation_due = true;
    }
    if training.progress.state.evaluation_due { training.evaluate_and_save() } else { Ok(()) }
}

/// Sets the head's output layer to the solution, which counts as the run's one step.
fn solve_head(training: &mut Training<'_>, settings: &ProbeConfig) -> Result<()> {
    let began = Instant::now();
    training.progress.begin_step(training.session.plan.model.device())?;
    let features = embed(training)?;
    let model = model(&training.session.plan, features, settings.c)?;
    let stop = training.stop;
    let solution = model.solve(&mut || go_on(stop))?;
    tracing::debug!("solved in {} steps of Newton's method", solution.steps);
    if !solution.converged {
        tracing::warn!(
            "the probe was not solved to its optimum in {} steps of Newton's method; a smaller method.c (found {}) is easier to solve",
            solution.steps,
            settings.c
        );
    }
    let names = training.session.plan.model.config.architecture.output_names();
    let layer = output_layer(&training.session.plan.meta.task, &solution)?;
    let named = names.iter().map(String::as_str).zip(&layer);
    training.session.plan.model.set_all(named)?;
    let tokens = training.session.plan.data.lengths().iter().sum();
    let scale = training.session.plan.target_scale.map_or(1.0, |scale| scale.std * scale.std);
    let loss = Some(solution.loss * scale);
    training.progress.end_step(began, tokens, loss);
    tracing::info!(
        "the head is solved: mean loss of the training rows {:.4}",
        solution.loss * scale
    );
    training.listener.on_event(&Event::Step { step: 1, total: 1, loss, tokens })
}

/// The embeddings of the training rows: the mean over the tokens of each, and over the windows of
/// a long text.
fn embed(training: &mut Training<'_>) -> Result<Features> {
    let _guard = tch::no_grad_guard();
    let (plan, settings) = (&training.session.plan, training.run.training());
    let rows = &plan.data.train;
    let mut features = Features::new(rows.len(), plan.model.config.hidden_size)?;
    let sizes: Vec<_> = rows.iter().map(|example| example.tokens.size()).collect();
    let (batch_size, device) = (settings.per_device_eval_batch_size.size(), plan.model.device());
    in_batches(&sizes, batch_size, device, &mut |range| {
        lock::check(&settings.output_dir)?;
        let numbers: Vec<usize> = range.clone().collect();
        let (packed, _) = Batch::from_examples(rows, &numbers, None).to_device(device)?;
        let first = packed.first_rows()?;
        let pooled = plan.model.classifier.encode(&packed, &first, Pooling::Mean)?;
        // The mean of the windows' logits is the logits of their mean.
        features.add(&packed.by_text(pooled, WindowPooling::Mean)?)?;
        plan.model.base.check_unchanged()?;
        training.listener.on_event(&Event::Embedding { done: range.end, total: rows.len() })?;
        go_on(training.stop)
    })?;
    let spoilt = features.not_finite()?;
    if spoilt.is_empty() {
        return Ok(features);
    }
    let rows = Some(plan.data.places(spoilt.get(..MOST_PLACES).unwrap_or(&spoilt)));
    let what = "an embedding contains NaN or infinity".into();
    Err(Error::Diverged { what, step: 1, rows, advice: training.advice(0)? })
}

/// The linear model that the head of `plan` shall be.
fn model(plan: &ModelPlan, features: Features, c: f64) -> Result<LinearModel> {
    let (task, rows) = (&plan.meta.task, &plan.data.train);
    let labels = task.labels.len();
    let link = match task.task_type {
        // Of two classes, scikit-learn fits one sigmoid.
        TaskType::Classification if labels > 2 => Link::Softmax,
        TaskType::Classification | TaskType::MultiLabel => Link::Sigmoid,
        TaskType::Regression => Link::Identity,
    };
    let two = task.task_type == TaskType::Classification && labels == 2;
    let outputs = if two { 1 } else { task.task_type.outputs(labels) };
    let scale = plan.target_scale.map_or((0.0, 1.0), |scale| (scale.mean, scale.std));
    let mut targets: Vec<f64> = Vec::with_capacity(rows.len() * outputs);
    for example in rows {
        match &example.target {
            Target::Class(class) if two => targets.push(*class as f64),
            Target::Class(class) => {
                targets.extend((0..outputs).map(|output| f64::from(u8::from(output == *class))));
            }
            Target::Labels { .. } => {
                let flags = example.target.flags().unwrap_or_default();
                targets.extend(flags.into_iter().map(|flag| f64::from(u8::from(flag))));
            }
            Target::Number(number) => targets.push((f64::from(*number) - scale.0) / scale.1),
        }
    }
    let weights = plan.class_weights().map(|weights| weights_of(rows, weights)).transpose()?;
    let targets = Tensor::f_from_slice(&targets)?.f_view([rows.len() as i64, outputs as i64])?;
    Ok(LinearModel { features, targets, weights, link, c })
}

/// The weight of each row's loss, `[N, 1]`, by its class; of a multi-label task, of each label's,
/// `[N, L]`.
fn weights_of(rows: &[Example], weights: &[f64]) -> Result<Tensor> {
    let mut all: Vec<f64> = vec![];
    for example in rows {
        match (&example.target, example.target.flags()) {
            (Target::Class(class), _) => all.extend(weights.get(*class)),
            (_, Some(flags)) => all.extend(
                flags
                    .into_iter()
                    .zip(weights)
                    .map(|(flag, weight)| if flag { *weight } else { 1.0 }),
            ),
            _ => {}
        }
    }
    Ok(Tensor::f_from_slice(&all)?.f_view([rows.len() as i64, -1])?)
}

/// Weight and bias of the head. A sigmoid of one output is the softmax of its two halves.
fn output_layer(task: &Task, solution: &Solution) -> Result<[Tensor; 2]> {
    let two = task.task_type == TaskType::Classification && task.labels.len() == 2;
    let layer = |solved: &Tensor| -> Result<Tensor> {
        let halves = || {
            let half = solved.f_div_scalar(2.0)?;
            Tensor::f_cat(&[&half.f_neg()?, &half], 0)
        };
        let layer = if two { halves()? } else { solved.shallow_clone() };
        Ok(layer.f_to_kind(Kind::Float)?)
    };
    Ok([layer(&solution.weight)?, layer(&solution.bias)?])
}
