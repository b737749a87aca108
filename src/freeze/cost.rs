//! What a step costs in matrix products: forward, and backward as far down as something trains.

use super::{FreezePlan, Term};
use crate::models::ModelConfig;
use serde::Serialize;

/// Multiply-and-adds in the encoder's matrix products for one text, and how far backpropagation goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// Of the forward pass.
    pub forward: f64,
    /// Of the backward pass, gradients with respect to inputs: those of the weights fall away.
    pub backward: f64,
    /// What the backward pass would be if every bias trained.
    pub backward_of_all: f64,
    /// The lowest layer that backpropagation reaches; `None`: it goes down to the embeddings, or does not enter the encoder.
    pub lowest_layer: Option<usize>,
}

impl Cost {
    /// For texts of `length` tokens. The last layer computes its first token alone, keys and values aside.
    pub fn of(plan: &FreezePlan, model: &ModelConfig, length: f64) -> Self {
        let trains = |term, layer| {
            plan.trainable().any(|p| p.place.term == Some(term) && p.place.layer == layer)
        };
        let (forward, backward) = products(model, length, &trains);
        let lowest = plan.trainable().filter(|p| p.place.term.is_some()).map(|p| p.place.layer);
        Self {
            forward,
            backward,
            backward_of_all: products(model, length, &|_, _| true).1,
            // No layer is the embeddings', which are below all.
            lowest_layer: lowest.min().flatten(),
        }
    }

    /// The share of a whole step's products that stopping early saves.
    pub fn saved(&self) -> f64 {
        1.0 - (self.forward + self.backward) / (self.forward + self.backward_of_all)
    }
}

/// How far backpropagation goes, and what that saves.
impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.lowest_layer {
            _ if self.backward == 0.0 => write!(f, "does not enter the encoder")?,
            Some(layer) => write!(f, "goes down to layer {layer}")?,
            None => write!(f, "goes down to the embeddings")?,
        }
        let saved = 100.0 * self.saved();
        write!(f, "; {saved:.0} % of a step's matrix products saved")
    }
}

/// Forward and backward, by walking up the encoder: a product's backward is needed once something below it trains.
fn products(
    model: &ModelConfig,
    length: f64,
    trains: &dyn Fn(Term, Option<usize>) -> bool,
) -> (f64, f64) {
    let (hidden, wide) = (model.hidden_size as f64, model.intermediate_size as f64);
    let count = usize::try_from(model.num_hidden_layers).unwrap_or(0);
    let (mut forward, mut backward) = (0.0, 0.0);
    let mut needed = trains(Term::EmbeddingsLayerNorm, None);
    for layer in 0..count {
        let trains = |term| trains(term, Some(layer));
        let mut product = |cost: f64, inputs: &[bool]| {
            forward += cost;
            backward += cost * inputs.iter().filter(|needed| **needed).count() as f64;
        };
        let rows = if layer + 1 == count { 1.0 } else { length };
        let below = needed;
        product(rows * hidden * hidden, &[below]);
        product(2.0 * length * hidden * hidden, &[below]);
        let query = below || trains(Term::Query);
        let key = below || trains(Term::Key);
        let value = below || trains(Term::Value);
        product(rows * length * hidden, &[query, key]);
        product(rows * length * hidden, &[query || key, value]);
        let context = query || key || value;
        product(rows * hidden * hidden, &[context]);
        let attended = context || trains(Term::AttentionOutput) || trains(Term::AttentionLayerNorm);
        product(rows * hidden * wide, &[attended]);
        let inside = attended || trains(Term::Intermediate);
        product(rows * hidden * wide, &[inside]);
        needed = inside || trains(Term::Output) || trains(Term::OutputLayerNorm);
    }
    (forward, backward)
}
