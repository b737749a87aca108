//! From pooled sequences to logits, and from logits to the loss.

use super::config::ModelConfig;
use crate::error::{Error, Result};
use crate::escape;
use crate::nn::{Dropout, Linear, PackedRows, Pooling, below};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tch::{Kind, Reduction, Tensor, nn};

/// A classification head. On first tokens, every architecture's has the shape `[dropout ->] dense
/// -> tanh or ReLU -> dropout -> output`; in BERT, the dense layer is the base's pooler. On means,
/// the head is `dropout -> output`: no base was trained with a dense layer on means, and a new one
/// would only have to be learned.
#[derive(Debug)]
pub struct Head {
    dense: Option<HeadDense>,
    dropout: Dropout,
    output: Linear,
}

/// The dense layer of a head, with the dropout before it and the activation after it.
#[derive(Debug)]
struct HeadDense {
    dropout: Option<Dropout>,
    linear: Linear,
    tanh: bool,
}

impl Head {
    /// Places the dense layer, `[H, H]`, if `pooling` has one, and the output layer, `[L, H]`, in
    /// the store.
    pub fn new(
        root: &nn::Path<'_>,
        config: &ModelConfig,
        num_labels: usize,
        pooling: Pooling,
    ) -> Result<Self> {
        let spec = &config.architecture.head;
        let (hidden, labels) = (config.hidden_size, i64::try_from(num_labels).unwrap_or(i64::MAX));
        let probability = config.dropouts.classifier.unwrap_or(config.dropouts.hidden);
        let site = 3 * config.num_hidden_layers + 1;
        let dense = match pooling {
            Pooling::Mean => None,
            Pooling::First => Some(HeadDense {
                dropout: spec.dropout_first.then_some(Dropout { probability, site: site + 1 }),
                linear: Linear::new(below(root, spec.dense), hidden, hidden)?,
                tanh: spec.tanh,
            }),
        };
        Ok(Self {
            dense,
            dropout: Dropout { probability, site },
            output: Linear::new(below(root, spec.output), hidden, labels)?,
        })
    }

    /// The dense layer; `None` on means.
    pub fn dense_layer(&mut self) -> Option<&mut Linear> {
        self.dense.as_mut().map(|dense| &mut dense.linear)
    }

    /// `pooled_BH` -> logits `[B, L]`. `rows` are the first tokens, whose dropout keys are the
    /// head's.
    pub fn forward(&self, pooled: Tensor, rows: &PackedRows<'_>) -> Result<Tensor> {
        let keys = rows.keys.as_ref();
        let x = match &self.dense {
            None => pooled,
            Some(dense) => {
                let x = match dense.dropout {
                    Some(dropout) => dropout.forward(pooled, keys)?,
                    None => pooled,
                };
                dense.activated(dense.linear.forward(&x, rows)?)?
            }
        };
        self.output.forward(&self.dropout.forward(x, keys)?, rows)
    }

    /// Takes the dense layer's bias from the row of each sequence's task, from `offset` on.
    pub fn route_dense(&mut self, offset: usize) {
        self.dense_layer().into_iter().for_each(|linear| linear.route(offset));
    }

    /// The dense layer of `first_BH` with its activation, `[B, H]`, without dropout.
    pub fn dense(&self, first: &Tensor, rows: &PackedRows<'_>) -> Result<Tensor> {
        let dense = self.dense.as_ref().ok_or_else(no_dense)?;
        dense.activated(dense.linear.forward(first, rows)?)
    }

    /// The dense layer's activation.
    pub fn activated(&self, dense: Tensor) -> Result<Tensor> {
        self.dense.as_ref().ok_or_else(no_dense)?.activated(dense)
    }
}

impl HeadDense {
    fn activated(&self, x: Tensor) -> Result<Tensor> {
        Ok(if self.tanh { x.f_tanh()? } else { x.f_relu()? })
    }
}

fn no_dense() -> Error {
    Error::Bug("a head on means has no dense layer".into())
}

/// Maximum number of labels of a task. A higher number is likely a mistake.
pub const MOST_LABELS: usize = 10_000;

/// Checks that the labels of a task are at most [`MOST_LABELS`] and all different. The error is
/// what was expected.
pub fn check_labels(labels: &[String]) -> std::result::Result<(), String> {
    if labels.len() > MOST_LABELS {
        return Err(format!("{MOST_LABELS} labels at most, not {}", labels.len()));
    }
    let mut seen = BTreeSet::new();
    match labels.iter().find(|label| !seen.insert(*label)) {
        None => Ok(()),
        Some(twice) => {
            let twice = escape::short(twice, 60);
            Err(format!("labels that are all different; {twice:?} occurs twice"))
        }
    }
}

/// The mean and the spread of a regression's training targets. The head of a training learns
/// targets that are standardized by them, whatever their unit, and the saved head has them in its
/// weight and bias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TargetScale {
    /// The mean of the targets.
    pub mean: f64,
    /// The standard deviation of the targets; 1 if all are equal.
    pub std: f64,
}

impl TargetScale {
    /// The scale of `targets`.
    pub fn of(targets: &[f32]) -> Self {
        let count = targets.len().max(1) as f64;
        let mean = targets.iter().copied().map(f64::from).sum::<f64>() / count;
        let squares = targets.iter().map(|&target| (f64::from(target) - mean).powi(2));
        let std = (squares.sum::<f64>() / count).sqrt();
        let is_spread = std > mean.abs() * f64::from(f32::EPSILON);
        Self { mean, std: if is_spread { std } else { 1.0 } }
    }

    /// The targets that the head learns, from the numbers of the data.
    pub fn standardized(&self, targets: &Tensor) -> Result<Tensor> {
        Ok(targets.f_sub_scalar(self.mean)?.f_div_scalar(self.std)?)
    }

    /// Weight and bias of an output layer that makes numbers, from those of one that makes
    /// standardized outputs.
    pub fn folded(&self, [weight, bias]: [&Tensor; 2]) -> Result<[Tensor; 2]> {
        let bias = bias.f_to_kind(Kind::Double)?.f_mul_scalar(self.std)?.f_add_scalar(self.mean)?;
        let weight = weight.f_to_kind(Kind::Double)?.f_mul_scalar(self.std)?;
        Ok([weight.f_to_kind(Kind::Float)?, bias.f_to_kind(Kind::Float)?])
    }

    /// The reverse of [`TargetScale::folded`].
    pub fn unfolded(&self, [weight, bias]: [&Tensor; 2]) -> Result<[Tensor; 2]> {
        let bias = bias.f_to_kind(Kind::Double)?.f_sub_scalar(self.mean)?.f_div_scalar(self.std)?;
        let weight = weight.f_to_kind(Kind::Double)?.f_div_scalar(self.std)?;
        Ok([weight.f_to_kind(Kind::Float)?, bias.f_to_kind(Kind::Float)?])
    }
}

/// The settings by which the training loss differs from the task's own loss, which evaluation
/// measures.
#[derive(Debug, Default)]
pub struct Shaping {
    /// The share of each target that is spread over all classes (Szegedy et al., 2016).
    pub label_smoothing: f64,
    /// Class weights, fp32 `[L]`, on the device. In a multi-label task, the weight of each label's
    /// positive targets.
    pub class_weights: Option<Tensor>,
    /// What a regression's targets are standardized by. The loss is then that of the standardized
    /// targets.
    pub target_scale: Option<TargetScale>,
}

/// The kind of target that a head predicts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskType {
    /// One class of several: cross entropy over `targets [B]`, int64 class numbers.
    #[default]
    #[serde(alias = "single_label_classification")]
    #[schemars(extend("enum" = ["classification", "single_label_classification"]))]
    Classification,
    /// Any of the labels: binary cross entropy of each, over `targets [B, L]`, 0 or 1.
    #[serde(alias = "multi_label_classification")]
    #[schemars(extend("enum" = ["multi_label", "multi_label_classification"]))]
    MultiLabel,
    /// A number: squared error of the one output, over `targets [B, 1]`.
    Regression,
}

/// The softmax of one row's logits.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers = logits.iter().map(|logit| (logit - largest).exp());
    let sum: f32 = powers.clone().sum();
    powers.map(|power| power / sum).collect()
}

/// The sigmoid of each of one row's logits.
pub fn sigmoid(logits: &[f32]) -> Vec<f32> {
    logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect()
}

impl TaskType {
    /// The task type's name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::MultiLabel => "multi_label",
            Self::Regression => "regression",
        }
    }

    /// The number of outputs `L` for `labels` labels.
    #[doc(hidden)]
    pub fn outputs(self, labels: usize) -> usize {
        if self == Self::Regression { 1 } else { labels }
    }

    /// The scores of `logits_BL`, fp32: probabilities `[B, L]`, or the numbers of a regression.
    pub fn scores(self, logits: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Classification => logits.f_softmax(-1, Kind::Float)?,
            Self::MultiLabel => logits.f_sigmoid()?,
            Self::Regression => logits.shallow_clone(),
        })
    }

    /// The scores of one row's logits, as [`TaskType::scores`] computes them.
    #[doc(hidden)]
    pub fn scores_of_row(self, logits: &[f32]) -> Vec<f32> {
        match self {
            Self::Classification => softmax(logits),
            Self::MultiLabel => sigmoid(logits),
            Self::Regression => logits.to_vec(),
        }
    }

    /// The loss of `logits_BL`, in nats (or squared units), summed over the rows and divided by
    /// `total`. `total` is the number of rows of the whole batch, of which these rows may be a
    /// part. With class weights, `total` is the sum of the rows' weights.
    #[doc(hidden)]
    pub fn loss(
        self,
        logits: &Tensor,
        targets: &Tensor,
        shaping: &Shaping,
        total: f64,
    ) -> Result<Tensor> {
        let weights = shaping.class_weights.as_ref();
        let sum = match self {
            Self::Classification => logits.f_cross_entropy_loss(
                targets,
                weights,
                Reduction::Sum,
                -100,
                shaping.label_smoothing,
            )?,
            Self::MultiLabel => {
                // A row's loss is the mean over its labels, as in `BCEWithLogitsLoss`.
                let labels = logits.size().last().copied().unwrap_or(1) as f64;
                let none = None::<&Tensor>;
                logits
                    .f_binary_cross_entropy_with_logits(targets, none, weights, Reduction::Sum)?
                    .f_div_scalar(labels)?
            }
            Self::Regression => match &shaping.target_scale {
                None => logits.f_mse_loss(targets, Reduction::Sum)?,
                Some(scale) => logits.f_mse_loss(&scale.standardized(targets)?, Reduction::Sum)?,
            },
        };
        Ok(sum.f_div_scalar(total)?)
    }
}
