//! Evaluates a model on labelled examples.
//!
//! The files in reading order; each imports only from those before it: `metrics`, `report`,
//! `constant`, `calibration`.

mod calibration;
mod constant;
mod metrics;
mod report;

pub use calibration::{CALIBRATION_ERROR, Objective, Reliability, inverse_temperature, thresholds};
pub use constant::{Constant, ConstantAnswer, ConstantTest, ConstantVerdict};
pub use metrics::{MultiLabel, classification, regression};
pub use report::{ClassificationReport, MATRIX};

use crate::data::{Batch, Example, Target, TextSize, texts_per_batch, worthwhile};
use crate::error::Result;
use crate::models::{Classifier, Shaping, Task, TaskType};
use crate::native;
use crate::nn::to_rows;
use std::collections::BTreeMap;
use std::ops::Range;
use tch::Device;

/// The result of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// `loss`, and the task's metrics.
    pub metrics: BTreeMap<String, f64>,
    /// The scores by class; `None` for a regression.
    pub report: Option<ClassificationReport>,
    /// The constant answer on the same rows.
    pub constant: Constant,
}

/// A function that gets the rows of a batch that was evaluated, and their logits.
pub type BatchDone<'a> = dyn FnMut(Range<usize>, &[Vec<f32>]) -> Result<()> + 'a;

/// Evaluates `model` on `examples` in order, in batches of `batch_size` rows, or more if the rows
/// are short. `done` is called after each batch with its rows and their logits, and may stop the
/// evaluation by an error.
pub fn evaluate(
    model: &Classifier,
    device: Device,
    examples: &[Example],
    task: &Task,
    batch_size: usize,
    done: &mut BatchDone<'_>,
) -> Result<Evaluation> {
    let _guard = tch::no_grad_guard();
    let sizes: Vec<TextSize> = examples.iter().map(|example| example.tokens.size()).collect();
    let rows: Vec<usize> = (0..examples.len()).collect();
    let (mut loss, mut seen) = (0.0, Predictions::new(task));
    let mut reliability = Reliability::default();
    in_batches(&sizes, batch_size, device, &mut |range| {
        let rows = rows.get(range.clone()).unwrap_or_default();
        let (packed, targets) = Batch::from_examples(examples, rows, None).to_device(device)?;
        let logits = packed.by_text(model.forward(&packed)?, task.long_texts.pooling())?;
        let its_loss = task.task_type.loss(&logits, &targets, &Shaping::default(), 1.0)?;
        let (its_loss, logits) = (f64::try_from(&its_loss)?, to_rows(&logits)?);
        loss += its_loss;
        for (example, logits) in rows.iter().filter_map(|&row| examples.get(row)).zip(&logits) {
            let scores = task.task_type.scores_of_row(logits);
            reliability.count(&example.target, &scores);
            seen.add(&example.target, task, &scores);
        }
        done(range, &logits)
    })?;
    let mut found = seen.measure(examples, &task.labels);
    if task.task_type != TaskType::Regression {
        found.metrics.insert(CALIBRATION_ERROR.into(), reliability.error());
    }
    found.metrics.insert("loss".into(), loss / examples.len().max(1) as f64);
    Ok(found)
}

/// Calls `compute` with the range of each batch of texts, in order. `sizes` are those of the texts.
///
/// A batch has texts of `batch_size` windows, or more if the texts are short. If `compute` runs out
/// of the device's memory, it is called again with half as many texts.
pub fn in_batches(
    sizes: &[TextSize],
    batch_size: usize,
    device: Device,
    compute: &mut dyn FnMut(Range<usize>) -> Result<()>,
) -> Result<()> {
    let (mut done, mut batch_size, mut fits) = (0, batch_size.max(1), true);
    while let Some(left @ [_, ..]) = sizes.get(done..) {
        let worthwhile = if fits { worthwhile(device) } else { 0 };
        let count = texts_per_batch(left, batch_size, worthwhile);
        match compute(done..done + count) {
            Ok(()) => done += count,
            Err(error) => {
                fits = false;
                let windows = left.iter().take(count).map(|size| size.windows).sum();
                batch_size = native::fewer_at_once(error, windows, device)?;
            }
        }
    }
    Ok(())
}

/// The targets and predictions of the rows so far. Logits are not kept, because those of many
/// labels are large.
enum Predictions {
    Classes {
        gold: Vec<usize>,
        guess: Vec<usize>,
    },
    /// Counts by label, and the number of wrong labels of each row.
    Labels {
        counts: MultiLabel,
        wrong: Vec<u32>,
    },
    Numbers {
        gold: Vec<f64>,
        guess: Vec<f64>,
    },
}

impl Predictions {
    fn new(task: &Task) -> Self {
        match task.task_type {
            TaskType::Classification => Self::Classes { gold: vec![], guess: vec![] },
            TaskType::MultiLabel => {
                Self::Labels { counts: MultiLabel::new(task.labels.len()), wrong: vec![] }
            }
            TaskType::Regression => Self::Numbers { gold: vec![], guess: vec![] },
        }
    }

    /// Counts a row of `task`, of which `scores [L]` are probabilities, or a number.
    fn add(&mut self, target: &Target, task: &Task, scores: &[f32]) {
        match (self, target) {
            (Self::Classes { gold, guess }, Target::Class(class)) => {
                gold.push(*class);
                guess.push(task.class(scores));
            }
            (Self::Labels { counts, wrong }, Target::Labels { present, .. }) => {
                let guess = scores.iter().zip(0..);
                let guess = guess.filter(|(score, label)| task.gives(*label as usize, **score));
                let guess: Vec<u32> = guess.map(|(_, label)| label).collect();
                counts.add(present, &guess);
                wrong.push(metrics::wrong(present, &guess));
            }
            (Self::Numbers { gold, guess }, Target::Number(number)) => {
                gold.push(f64::from(*number));
                guess.extend(scores.iter().map(|&x| f64::from(x)));
            }
            _ => {}
        }
    }

    /// The evaluation of `examples`, which are the rows seen, without the loss.
    fn measure(&self, examples: &[Example], names: &[String]) -> Evaluation {
        let (metrics, report, constant) = match self {
            Self::Classes { gold, guess } => (
                classification(gold, guess, names.len()),
                Some(ClassificationReport::classification(gold, guess, names)),
                Constant::of_classes(gold, guess, names),
            ),
            Self::Labels { counts, wrong } => {
                let gold = examples.iter().filter_map(|example| match &example.target {
                    Target::Labels { present, .. } => Some(present.as_slice()),
                    _ => None,
                });
                (
                    counts.metrics(),
                    Some(ClassificationReport::multi_label(counts, names)),
                    Constant::of_labels(&gold.collect::<Vec<_>>(), counts, wrong, names),
                )
            }
            Self::Numbers { gold, guess } => {
                (regression(gold, guess), None, Constant::of_numbers(gold, guess))
            }
        };
        Evaluation { metrics, report, constant }
    }
}
