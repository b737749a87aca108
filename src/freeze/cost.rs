//! The cost of a training step in matrix products: the forward pass, and the backward pass down to
//! the lowest parameter that trains.

use super::{FreezePlan, Group, Parameter};
use crate::models::{ModelConfig, Term};
use crate::nn::Pooling;
use serde::Serialize;

/// Multiply-adds of the encoder's matrix products for one text, and how far down backpropagation
/// goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepCost {
    /// Multiply-adds of the forward pass.
    pub forward: f64,
    /// Multiply-adds of the backward pass: gradients with respect to inputs, and to the weights
    /// that train.
    pub backward: f64,
    /// Multiply-adds of the backward pass if every bias of the model trained, and no weight.
    pub backward_of_all: f64,
    /// The lowest layer that backpropagation reaches. `None` if it reaches the embeddings or does
    /// not enter the encoder.
    pub lowest_layer: Option<usize>,
}

impl StepCost {
    /// Computes the cost for texts of `length` tokens. For a head on first tokens, the last layer
    /// computes keys and values for all tokens, and everything else for the first token alone.
    pub fn of(plan: &FreezePlan, model: &ModelConfig, pooling: Pooling, length: f64) -> Self {
        let last = if pooling.is_first() { 1.0 } else { length };
        let at = |term, layer| {
            let there = move |p: &&Parameter| p.place.term == Some(term) && p.place.layer == layer;
            plan.parameters().iter().filter(there)
        };
        let (forward, backward) = products(model, length, last, &|term, layer| Module {
            trains: at(term, layer).any(|p| p.trains),
            weight_trains: at(term, layer)
                .any(|p| p.trains && !p.is_bias() && !p.place.group.is_added()),
            added: at(term, layer)
                .filter(|p| p.place.group.is_added() && !p.is_bias())
                .map(|p| p.numel() as f64)
                .sum(),
        });
        let inside = |p: &&Parameter| p.place.term.is_some() || p.place.group == Group::Embeddings;
        let lowest = plan.trainable().filter(inside).map(|p| p.place.layer);
        let biases = |_, _| Module { trains: true, weight_trains: false, added: 0.0 };
        Self {
            forward,
            backward,
            backward_of_all: products(model, length, last, &biases).1,
            // `None` stands for the embeddings, which are below all layers, and is the minimum.
            lowest_layer: lowest.min().flatten(),
        }
    }

    /// The share of a step's multiply-adds saved, compared with training every bias.
    pub fn saved(&self) -> f64 {
        1.0 - (self.forward + self.backward) / (self.forward + self.backward_of_all)
    }
}

/// Formats how far down backpropagation goes, and the share of multiply-adds saved.
impl std::fmt::Display for StepCost {
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

/// The parameters of one module of the encoder.
struct Module {
    /// Whether any parameter of the module trains.
    trains: bool,
    /// Whether the dense layer's own weight trains.
    weight_trains: bool,
    /// Number of weight elements that a method added to the module.
    added: f64,
}

/// Returns the multiply-adds of the forward and the backward pass for a text of `length` tokens, of
/// which the last layer computes `last`. The loop walks up the encoder: a
/// product needs the gradient with respect to its input once something below the product trains,
/// and the gradient with respect to its weight if the weight trains.
fn products(
    model: &ModelConfig,
    length: f64,
    last: f64,
    module: &dyn Fn(Term, Option<usize>) -> Module,
) -> (f64, f64) {
    let hidden = model.hidden_size as f64;
    let count = usize::try_from(model.num_hidden_layers).unwrap_or(0);
    let (mut forward, mut backward) = (0.0, 0.0);
    let mut needed = module(Term::EmbeddingsLayerNorm, None).trains;
    for layer in 0..count {
        let module = |term| module(term, Some(layer));
        let mut product = |cost: f64, inputs: &[bool]| {
            forward += cost;
            backward += cost * inputs.iter().filter(|needed| **needed).count() as f64;
        };
        // Counts a dense layer and the weights added to it, which always need both gradients.
        // Returns whether anything up to this layer trains.
        let mut dense = |term, rows: f64, below: bool| {
            let Module { trains, weight_trains, added } = module(term);
            let weight = model.inputs_of(term) as f64 * model.outputs_of(term) as f64;
            product(rows * weight, &[below, weight_trains]);
            product(rows * added, &[true, true]);
            below || trains
        };
        let rows = if layer + 1 == count { last } else { length };
        let query = dense(Term::Query, rows, needed);
        let key = dense(Term::Key, length, needed);
        let value = dense(Term::Value, length, needed);
        let context = query || key || value;
        let attended =
            dense(Term::AttentionOutput, rows, context) || module(Term::AttentionLayerNorm).trains;
        let inside = dense(Term::Intermediate, rows, attended);
        let output = dense(Term::Output, rows, inside);
        product(rows * length * hidden, &[query, key]);
        product(rows * length * hidden, &[query || key, value]);
        needed = output || module(Term::OutputLayerNorm).trains;
    }
    (forward, backward)
}
