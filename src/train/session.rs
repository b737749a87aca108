//! A training session: the plan of a run with its optimizer.

use super::plan::ModelPlan;
use crate::checkpoint::{Checkpoint, TrainerState};
use crate::config::Run;
use crate::data::Target;
use crate::delta::{Delta, Meta, change_output};
use crate::error::{Error, Result};
use crate::eval::CALIBRATION_ERROR;
use crate::models::{Shaping, TaskType};
use crate::optim::{AdamW, Moments};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use tch::Tensor;

/// A run that can take steps.
pub struct Session {
    /// The data and the model.
    pub plan: ModelPlan,
    /// The optimizer of the parameters that train.
    pub optimizer: AdamW,
    /// The label smoothing and the class weights of the training loss.
    pub shaping: Shaping,
}

impl Session {
    /// Starts the session of `plan`, which is of `run`: moves the parameters that train to the
    /// optimizer.
    pub fn start(run: &Run, plan: ModelPlan) -> Result<Self> {
        let optimizer = AdamW::new(&plan.model.store, &plan.freeze, &run.adamw)?;
        optimizer.check_bound(&plan.model.store)?;
        let as_tensor = |weights: &[f64]| -> Result<Tensor> {
            let weights: Vec<f32> = weights.iter().map(|&weight| weight as f32).collect();
            Ok(Tensor::f_from_slice(&weights)?.f_to_device(plan.model.device())?)
        };
        let shaping = Shaping {
            label_smoothing: plan.resolved.training.label_smoothing_factor.get(),
            class_weights: plan.class_weights().map(as_tensor).transpose()?,
            target_scale: plan.target_scale,
        };
        Ok(Self { plan, optimizer, shaping })
    }

    /// Returns the divisor of the loss over `rows`: the number of rows, or the sum of their
    /// classes' weights.
    pub fn total(&self, rows: &[usize]) -> f64 {
        let task_type = self.plan.meta.task.task_type;
        let weights = self.plan.class_weights();
        let Some(weights) = weights.filter(|_| task_type == TaskType::Classification) else {
            return rows.len() as f64;
        };
        let weight =
            |&row: &usize| match self.plan.data.train.get(row).map(|example| &example.target) {
                Some(Target::Class(class)) => weights.get(*class).copied().unwrap_or(1.0),
                _ => 1.0,
            };
        rows.iter().map(weight).sum()
    }

    /// Restores model and optimizer from `checkpoint`, which was read from `path`. Errs if the
    /// checkpoint belongs to another run, to other rows or to another `model.init_delta`.
    pub fn resume(&mut self, path: &Path, checkpoint: &Checkpoint) -> Result<()> {
        let Checkpoint { state, delta, moments, unfolded } = checkpoint;
        self.check_task(path, &delta.meta)?;
        self.check_inputs(path, state)?;
        delta.apply(path, &mut self.plan.model)?;
        self.plan.model.set_all(pairs(unfolded))?;
        if self.plan.method().takes_steps() {
            self.resume_optimizer(path, state.step, moments)?;
        }
        self.optimizer.check_bound(&self.plan.model.store)
    }

    /// Restores the optimizer after `step` steps, with `moments` of the checkpoint at `path`.
    fn resume_optimizer(
        &mut self,
        path: &Path,
        step: u64,
        moments: &BTreeMap<String, Moments>,
    ) -> Result<()> {
        for p in self.plan.freeze.trainable() {
            let count = p.shape.iter().product::<i64>();
            let good = moments.get(&p.name).is_some_and(|moments| {
                [&moments.exp_avg, &moments.exp_avg_sq]
                    .iter()
                    .all(|moment| moment.numel() as i64 == count)
            });
            if !good {
                let expected = format!("{count} numbers of {}", p.name);
                return Err(of_another_run(path, "moments", &"others", &expected));
            }
        }
        self.optimizer.set_moments(step, moments)
    }

    /// Checks that `meta` of a checkpoint describes this run's task. The metrics may differ.
    fn check_task(&self, path: &Path, meta: &Meta) -> Result<()> {
        let (found, expected) = (json!(meta), json!(self.plan.meta));
        for (key, expected) in expected.as_object().into_iter().flatten() {
            let found = found.get(key).unwrap_or(&serde_json::Value::Null);
            // Earlier versions did not write `base_config`.
            let is_unknown = key == "base_config" && found.is_null();
            if key == "metrics" || found == expected || is_unknown {
                continue;
            }
            let why = found.as_str().filter(|_| key == "tokenizer_fingerprint");
            return Err(match why.and_then(|found| self.plan.data.tokenizer.why_other(found)) {
                Some(why) => of_another_run(path, key, found, &format!("{expected}; {why}")),
                None => of_another_run(path, key, found, expected),
            });
        }
        Ok(())
    }

    /// Checks that the run began with the same rows and the same `model.init_delta`.
    fn check_inputs(&self, path: &Path, state: &TrainerState) -> Result<()> {
        let (found, expected) = (&state.data_fingerprint, &self.plan.data.fingerprint);
        if found != expected {
            let problem = format!(
                "the rows of {} or of the evaluation have changed since the run began (fingerprint {found:.16}, now {expected:.16}); \
                 restore them, or start again with --overwrite",
                self.plan.resolved.data.train.display()
            );
            return Err(Error::file(path, problem));
        }
        let (found, expected) = (&self.plan.initial.init_delta_sha256, &state.init_delta_sha256);
        if let (Some(found), Some(expected), Some(start)) =
            (found, expected, &self.plan.resolved.model.init_delta)
            && found != expected
        {
            let problem = format!(
                "the file has changed since the run began (SHA-256 {expected:.16}, now {found:.16}); restore it, or start again with --overwrite"
            );
            return Err(Error::file(start, problem));
        }
        Ok(())
    }

    /// Returns the delta of the current state, with `metrics`. Errs if the base's file was changed,
    /// or if a trained tensor holds NaN or infinity.
    pub fn delta(&self, metrics: &BTreeMap<String, f64>) -> Result<Delta> {
        let ModelPlan { model, meta, initial, .. } = &self.plan;
        model.base.check_unchanged()?;
        self.optimizer.check_finite()?;
        let meta = Meta { metrics: recorded(metrics), ..meta.clone() };
        let mut delta = Delta::take(model, &initial.differs, meta)?;
        delta.tensors.extend(self.folded()?);
        Ok(delta)
    }

    /// The output layer of a head with standardized targets, by name, as it trains; empty for other
    /// heads.
    pub fn unfolded(&self) -> Result<BTreeMap<String, Tensor>> {
        let ModelPlan { model, target_scale, meta, .. } = &self.plan;
        let names = model.config.architecture.output_names();
        let names: Vec<String> = names.into_iter().filter(|_| target_scale.is_some()).collect();
        Ok(Delta::take(model, &names, meta.clone())?.tensors)
    }

    /// The same output layer as a delta has it: one that makes the numbers of the data.
    fn folded(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut output = self.unfolded()?;
        if let Some(scale) = &self.plan.target_scale {
            let architecture = self.plan.model.config.architecture;
            change_output(architecture, &mut output, |layer| scale.folded(layer))?;
        }
        Ok(output)
    }

    /// Calls `work` while the model computes what the delta of its state does.
    pub fn while_folded<T>(&mut self, work: impl FnOnce(&ModelPlan) -> Result<T>) -> Result<T> {
        let training = self.unfolded()?;
        let folded = self.folded()?;
        self.plan.model.set_all(pairs(&folded))?;
        let done = work(&self.plan);
        self.plan.model.set_all(pairs(&training))?;
        done
    }
}

/// The metrics that a task file records: all but the calibration error, so that a task's file is
/// that of versions without this metric.
pub fn recorded(metrics: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let mut recorded = metrics.clone();
    recorded.remove(CALIBRATION_ERROR);
    recorded
}

fn pairs(tensors: &BTreeMap<String, Tensor>) -> impl Iterator<Item = (&str, &Tensor)> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
}

/// The error that the checkpoint at `path` is another run's, as its `what` shows.
fn of_another_run(path: &Path, what: &str, found: &dyn Display, expected: &dyn Display) -> Error {
    let problem =
        format!("the checkpoint of another run: {what}: found {found}, expected {expected}");
    Error::file(path, problem)
}
