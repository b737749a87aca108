//! Calibrates the task that a run kept, on rows that neither trained nor chose it.

use super::session::{Session, recorded};
use crate::config::CalibrationSection;
use crate::data::{Example, Target};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::escape;
use crate::eval::{self, CALIBRATION_ERROR, Evaluation, evaluate};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use tch::Kind;

/// What a calibration found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calibration {
    /// The number of rows that decided.
    pub rows: usize,
    /// The temperature by which the logits are divided; 1 if none was fitted.
    pub temperature: f64,
    /// The probability from which each label is given; empty without thresholds.
    pub thresholds: BTreeMap<String, f32>,
    /// The metrics on the evaluation rows before the calibration.
    pub before: BTreeMap<String, f64>,
}

/// A function that gets the number of evaluated rows and their total, and may end the calibration.
pub type OnRows<'a> = dyn FnMut(usize, usize) -> Result<()> + 'a;

impl Session {
    /// Calibrates the task in the file `path`, which this session trained, and writes it there.
    /// Returns what was found, and the evaluation of the calibrated task. `before` are the metrics
    /// of the task on the evaluation rows, if known; `batch_size` is that of evaluations.
    pub fn calibrate(
        &mut self,
        section: &CalibrationSection,
        path: &Path,
        before: Option<&BTreeMap<String, f64>>,
        batch_size: usize,
        on_rows: &mut OnRows<'_>,
    ) -> Result<(Calibration, Evaluation)> {
        let mut delta = Delta::read(path)?;
        delta.apply(path, &mut self.plan.model)?;
        let evaluations = if before.is_some() { 1 } else { 2 };
        let total = self.plan.data.calibration.len() + evaluations * self.plan.data.eval.len();
        let mut done = 0;
        let mut measure = |session: &Self, delta: &Delta, rows: &[Example]| {
            let (plan, mut all) = (&session.plan, Vec::with_capacity(rows.len()));
            let mut on_batch = |range: Range<usize>, logits: &[Vec<f32>]| {
                plan.model.base.check_unchanged()?;
                all.extend_from_slice(logits);
                on_rows(done + range.end, total)
            };
            let (model, task) = (&plan.model.classifier, &delta.meta.task);
            let found =
                evaluate(model, plan.model.device(), rows, task, batch_size, &mut on_batch)?;
            done += rows.len();
            Ok::<_, Error>((found, all))
        };
        let before = match before {
            Some(known) => known.clone(),
            None => measure(self, &delta, &self.plan.data.eval)?.0.metrics,
        };
        let (_, mut logits) = measure(self, &delta, &self.plan.data.calibration)?;
        let rows = &self.plan.data.calibration;
        let targets: Vec<&Target> = rows.iter().map(|example| &example.target).collect();
        let (task, rows, mut factor) = (&delta.meta.task, rows.len(), 1.0);
        if section.temperature {
            factor = eval::inverse_temperature(task.task_type, &logits, &targets);
            logits.iter_mut().flatten().for_each(|logit| *logit *= factor as f32);
        }
        if let Some(objective) = section.objective() {
            let scores = logits.iter().map(|row| task.task_type.scores_of_row(row));
            let scores: Vec<Vec<f32>> = scores.collect();
            delta.meta.task.thresholds = eval::thresholds(task, &scores, &targets, objective);
        }
        self.scale_output(&mut delta, factor)?;
        let (after, _) = measure(self, &delta, &self.plan.data.eval)?;
        delta.meta.metrics = recorded(&after.metrics);
        delta.write(path)?;
        let named = delta.meta.task.named_thresholds();
        let found = Calibration {
            rows,
            temperature: 1.0 / factor,
            thresholds: named.map(|(label, value)| (label.clone(), value)).collect(),
            before,
        };
        Ok((found, after))
    }

    /// Multiplies the output layer by `factor`, in the model and in `delta`.
    fn scale_output(&mut self, delta: &mut Delta, factor: f64) -> Result<()> {
        let model = &mut self.plan.model;
        let variables = model.store.variables();
        for name in model.config.architecture.output_names() {
            let missing = || Error::Bug(format!("{name} is not in the store"));
            let tensor = variables.get(&name).ok_or_else(missing)?.f_detach_copy()?;
            let scaled = tensor.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Double)?;
            let scaled = scaled.f_mul_scalar(factor)?.f_to_kind(Kind::Float)?;
            model.set(&name, &scaled)?;
            delta.tensors.insert(name, scaled);
        }
        Ok(())
    }
}

impl std::fmt::Display for Calibration {
    /// What was found, in a line:
    /// `temperature 1.840, threshold "spam" 0.310 (from 200 rows); ece 0.1120 before`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "temperature {:.3}", self.temperature)?;
        let few = self.thresholds.iter().take(8);
        let few = few.map(|(label, value)| format!("{} {value:.3}", escape::quoted(label)));
        match self.thresholds.len() {
            0 => {}
            count @ 1..=8 => {
                let s = if count == 1 { "" } else { "s" };
                write!(f, ", threshold{s} {}", few.collect::<Vec<_>>().join(", "))?;
            }
            count => write!(f, ", {count} thresholds")?,
        }
        write!(f, " (from {} rows)", self.rows)?;
        if let Some(before) = self.before.get(CALIBRATION_ERROR) {
            write!(f, "; {CALIBRATION_ERROR} {before:.4} before")?;
        }
        Ok(())
    }
}
