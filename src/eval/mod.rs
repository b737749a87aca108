//! How good a model is on labelled examples.

mod metrics;

pub use metrics::classification;

use crate::data::{Batch, Example};
use crate::error::Result;
use crate::models::{Classifier, cross_entropy};
use std::collections::BTreeMap;
use tch::{Device, Tensor};

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// `loss`, `accuracy`, `f1`, `matthews`.
    pub metrics: BTreeMap<String, f64>,
    /// The predicted class of each example.
    pub predictions: Vec<usize>,
}

/// Runs `model` over `examples` in their order, `batch_size` at a time; `progress` hears how many are done, and may stop it.
pub fn evaluate(
    model: &Classifier,
    device: Device,
    examples: &[Example],
    num_labels: usize,
    batch_size: usize,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Evaluation> {
    let _guard = tch::no_grad_guard();
    let rows: Vec<usize> = (0..examples.len()).collect();
    let (mut loss, mut predictions) = (0.0, Vec::with_capacity(examples.len()));
    for chunk in rows.chunks(batch_size) {
        let (packed, labels) = Batch::of(examples, chunk, None).to_device(device)?;
        let logits = model.forward(&packed)?;
        loss += f64::try_from(&cross_entropy(&logits, &labels, 1)?)?;
        predictions.extend(argmax(&logits)?);
        progress(predictions.len())?;
    }
    let labels: Vec<usize> = examples.iter().map(|example| example.label).collect();
    let mut metrics = classification(&labels, &predictions, num_labels);
    metrics.insert("loss".into(), loss / examples.len().max(1) as f64);
    Ok(Evaluation { metrics, predictions })
}

fn argmax(logits: &Tensor) -> Result<Vec<usize>> {
    let classes = Vec::<i64>::try_from(logits.f_argmax(-1, false)?.f_to_device(Device::Cpu)?)?;
    Ok(classes.into_iter().map(|class| class as usize).collect())
}
