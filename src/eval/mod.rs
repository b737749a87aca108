//! Evaluates a model on labelled examples.
//!
//! The files in reading order; each imports only from those before it: `metrics`, `report`,
//! `constant`.

mod constant;
mod metrics;
mod report;

pub use constant::{Constant, ConstantAnswer, ConstantTest, ConstantVerdict};
pub use metrics::{MultiLabel, classification, regression};
pub use report::{ClassificationReport, MATRIX};

use crate::data::{Batch, Example, Labels, Target, texts_per_batch};
use crate::error::Result;
use crate::models::{Classifier, Shaping, TaskType};
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
    task: TaskType,
    labels: &Labels,
    batch_size: usize,
    done: &mut BatchDone<'_>,
) -> Result<Evaluation> {
    let _guard = tch::no_grad_guard();
    let lengths: Vec<usize> = examples.iter().map(|example| example.tokens.ids.len()).collect();
    let rows: Vec<usize> = (0..examples.len()).collect();
    let (mut loss, mut seen) = (0.0, Predictions::new(task, labels));
    in_batches(&lengths, batch_size, device, &mut |range| {
        let rows = rows.get(range.clone()).unwrap_or_default();
        let (packed, targets) = Batch::from_examples(examples, rows, None).to_device(device)?;
        let logits = model.forward(&packed)?;
        let its_loss = task.loss(&logits, &targets, &Shaping::default(), 1.0)?;
        let (its_loss, logits) = (f64::try_from(&its_loss)?, to_rows(&logits)?);
        loss += its_loss;
        for (example, logits) in rows.iter().filter_map(|&row| examples.get(row)).zip(&logits) {
            seen.add(&example.target, logits);
        }
        done(range, &logits)
    })?;
    let mut found = seen.measure(examples, &labels.names);
    found.metrics.insert("loss".into(), loss / examples.len().max(1) as f64);
    Ok(found)
}

/// Calls `compute` with the range of each batch of texts, in order. `lengths` are the texts'
/// numbers of tokens.
///
/// A batch has `batch_size` texts, or more if the texts are short. If `compute` runs out of the
/// device's memory, it is called again with half as many texts.
pub fn in_batches(
    lengths: &[usize],
    batch_size: usize,
    device: Device,
    compute: &mut dyn FnMut(Range<usize>) -> Result<()>,
) -> Result<()> {
    let (mut done, mut batch_size, mut fits) = (0, batch_size.max(1), true);
    while let Some(left @ [_, ..]) = lengths.get(done..) {
        let most = match fits {
            true => texts_per_batch(left.iter().copied(), batch_size, device),
            false => batch_size,
        };
        let count = most.min(left.len());
        match compute(done..done + count) {
            Ok(()) => done += count,
            Err(error) => {
                fits = false;
                batch_size = native::fewer_at_once(error, count, device)?;
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
    fn new(task: TaskType, labels: &Labels) -> Self {
        match task {
            TaskType::Classification => Self::Classes { gold: vec![], guess: vec![] },
            TaskType::MultiLabel => {
                Self::Labels { counts: MultiLabel::new(labels.names.len()), wrong: vec![] }
            }
            TaskType::Regression => Self::Numbers { gold: vec![], guess: vec![] },
        }
    }

    fn add(&mut self, target: &Target, logits: &[f32]) {
        match (self, target) {
            (Self::Classes { gold, guess }, Target::Class(class)) => {
                gold.push(*class);
                guess.push(best(logits));
            }
            (Self::Labels { counts, wrong }, Target::Labels { present, .. }) => {
                // A logit of 0 is a probability of a half.
                let guess = logits.iter().zip(0..).filter(|(x, _)| **x >= 0.0);
                let guess: Vec<u32> = guess.map(|(_, label)| label).collect();
                counts.add(present, &guess);
                wrong.push(metrics::wrong(present, &guess));
            }
            (Self::Numbers { gold, guess }, Target::Number(number)) => {
                gold.push(f64::from(*number));
                guess.extend(logits.iter().map(|&x| f64::from(x)));
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
                    Constant::of_labels(&gold.collect::<Vec<_>>(), wrong, names),
                )
            }
            Self::Numbers { gold, guess } => {
                (regression(gold, guess), None, Constant::of_numbers(gold, guess))
            }
        };
        Evaluation { metrics, report, constant }
    }
}

/// Returns the class with the largest value, the first one if several are equal.
pub fn best(values: &[f32]) -> usize {
    values.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class)
}
