//! The training methods: BitFit, and the methods that it is compared with. Each file says what a
//! method adds to the base, and which parameters train.

mod adapter;
mod bitfit;
mod full;
mod head;
mod layer_norm;
mod lora;
mod probe;

pub use adapter::{AdapterConfig, AdapterPlacement};
pub use lora::{LoraBias, LoraConfig, Rank, modules as lora_modules};
pub use probe::ProbeConfig;

use crate::bounds::OutOfBounds;
use crate::error::{Error, Result};
use crate::freeze::{FreezePlan, Parameter, Switches};
use crate::models::Architecture;
use crate::task_model::TaskModel;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::Tensor;

/// A training method with its settings. The new head trains in all methods.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Method {
    /// BitFit: the biases that the switches select.
    #[default]
    Bitfit,
    /// Full fine-tuning: every parameter.
    Full,
    /// LoRA: low-rank matrices added to dense layers.
    Lora(LoraConfig),
    /// Adapters: bottlenecks added to the layers.
    Adapter(AdapterConfig),
    /// The new head alone.
    Head,
    /// Every LayerNorm, weight and bias.
    LayerNorm,
    /// A linear probe: the head's output layer alone, which is solved.
    Probe(ProbeConfig),
}

/// A setting with a value that is not allowed: its key, and what was found and expected.
pub type Wrong = (&'static str, OutOfBounds);

impl Method {
    /// The method's name in configurations and output.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bitfit => "bitfit",
            Self::Full => "full",
            Self::Lora(_) => "lora",
            Self::Adapter(_) => "adapter",
            Self::Head => "head",
            Self::LayerNorm => "layer_norm",
            Self::Probe(_) => "probe",
        }
    }

    /// AdamW's default learning rate for this method; `None` for a method that is solved without
    /// steps.
    pub fn learning_rate(&self) -> Option<f64> {
        Some(match self {
            Self::Bitfit => bitfit::LEARNING_RATE,
            Self::Full => full::LEARNING_RATE,
            Self::Lora(_) => lora::LEARNING_RATE,
            Self::Adapter(_) => adapter::LEARNING_RATE,
            Self::Head => head::LEARNING_RATE,
            Self::LayerNorm => layer_norm::LEARNING_RATE,
            Self::Probe(_) => return None,
        })
    }

    /// Whether AdamW's steps train the method, and not a solver.
    pub fn takes_steps(&self) -> bool {
        self.learning_rate().is_some()
    }

    /// AdamW's default learning rate for the head; `None` for methods whose head has the rate of
    /// all else.
    pub fn head_learning_rate(&self) -> Option<f64> {
        match self {
            Self::Bitfit | Self::Head | Self::LayerNorm => Some(head::LEARNING_RATE),
            Self::Full | Self::Lora(_) | Self::Adapter(_) | Self::Probe(_) => None,
        }
    }

    /// Whether weights of the encoder's dense layers train.
    pub fn trains_dense_weights(&self) -> bool {
        matches!(self, Self::Full)
    }

    /// Whether the `[bitfit]` switches decide what trains, at least in part.
    pub fn has_switches(&self) -> bool {
        match self {
            Self::Bitfit => true,
            Self::Lora(lora) => lora.bias == LoraBias::All,
            _ => false,
        }
    }

    /// Checks the method's settings. The error is the first setting that is not allowed.
    pub fn check(&self) -> std::result::Result<(), Wrong> {
        match self {
            Self::Lora(lora) => lora.check(),
            Self::Adapter(adapter) => adapter.check(),
            Self::Probe(probe) => probe.check(),
            _ => Ok(()),
        }
    }

    /// The method with the defaults that depend on the architecture filled in.
    pub fn settled(&self, architecture: Architecture) -> Self {
        match self {
            Self::Lora(lora) => Self::Lora(lora.settled(architecture)),
            other => other.clone(),
        }
    }

    /// Adds the method's tensors to `model`. The tensors are zero until [`Method::initialize`] or a
    /// delta sets them. The method must be settled ([`Method::settled`]).
    pub fn add(&self, model: &mut TaskModel) -> Result<()> {
        self.place(model)?;
        model.allocate_added()
    }

    /// Places the method's tensors in `model` without memory of their own. The method must be
    /// settled.
    pub fn place(&self, model: &mut TaskModel) -> Result<()> {
        match self {
            Self::Lora(lora) => lora.place(model),
            Self::Adapter(adapter) => adapter.place(model),
            _ => Ok(()),
        }
    }

    /// Draws the initial values of the added tensors. The values depend only on the seed and on
    /// each tensor's name.
    pub fn initialize(&self, model: &mut TaskModel, seed: u64) -> Result<()> {
        match self {
            Self::Lora(_) => model.draw_added(seed, lora::initial),
            Self::Adapter(_) => model.draw_added(seed, adapter::initial),
            _ => Ok(()),
        }
    }

    /// Decides what trains in `model`.
    pub fn plan(&self, model: &TaskModel, switches: &Switches) -> Result<FreezePlan> {
        let (architecture, shapes) = (model.config.architecture, model.shapes());
        let new = [&model.new[..], &model.added].concat();
        let where_trains =
            |trains: fn(&Parameter) -> bool| FreezePlan::of(architecture, &shapes, &new, trains);
        match self {
            Self::Bitfit => FreezePlan::new(architecture, &shapes, &new, switches),
            Self::Full => where_trains(full::trains),
            Self::Lora(lora) => lora.plan(architecture, &shapes, &new, switches),
            Self::Adapter(_) => where_trains(adapter::trains),
            Self::Head | Self::Probe(_) => where_trains(head::trains),
            Self::LayerNorm => where_trains(layer_norm::trains),
        }
    }

    /// The tensors of a plain model that computes the same as `model` with the method's additions.
    /// Returns an error for adapters, which cannot be merged.
    pub fn merged(&self, model: &TaskModel) -> Result<BTreeMap<String, Tensor>> {
        let tensors = model.store.variables().into_iter().collect();
        match self {
            Self::Lora(lora) => lora.merged(tensors),
            Self::Adapter(_) => Err(Error::Usage(
                "--format hf: adapters are extra layers, which cannot be merged into a plain checkpoint; \
                 AdapterHub's package adapters loads them from delta.safetensors"
                    .into(),
            )),
            _ => Ok(tensors),
        }
    }
}

/// Formats the method and its settings for people, such as `lora (r 8, ...)`.
impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.name())?;
        match self {
            Self::Lora(lora) => write!(f, " ({lora})"),
            Self::Adapter(adapter) => write!(f, " ({adapter})"),
            Self::Probe(probe) => write!(f, " ({probe})"),
            _ => Ok(()),
        }
    }
}
