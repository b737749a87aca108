//! Adapters, as AdapterHub's package `adapters` has them: it adds bottlenecks to each layer, and they and the new head train.

use super::Wrong;
use crate::error::Result;
use crate::freeze::Parameter;
use crate::nn::{AdapterShape, NonLinearity};
use crate::random::Random;
use crate::task_model::TaskModel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// AdapterHub's own recommendation.
pub const LEARNING_RATE: f64 = 1e-4;

/// Its settings, under the names of `adapters`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// Where the bottlenecks are.
    pub config: AdapterConfig,
    /// `H` over the size of the bottleneck, which is rounded down, and at least 1.
    pub reduction_factor: f64,
    /// What lies between the two dense layers.
    pub non_linearity: NonLinearity,
}

/// Where the bottlenecks are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdapterConfig {
    /// After attention and after the feedforward (Houlsby et al., ICML 2019).
    #[serde(alias = "double_seq_bn")]
    #[schemars(extend("enum" = ["houlsby", "double_seq_bn"]))]
    Houlsby,
    /// After the feedforward alone, over its normalized sum (Pfeiffer et al., EACL 2021).
    #[default]
    #[serde(alias = "seq_bn")]
    #[schemars(extend("enum" = ["pfeiffer", "seq_bn"]))]
    Pfeiffer,
}

impl AdapterConfig {
    /// What lies between the two dense layers where nobody says so.
    pub fn non_linearity(self) -> NonLinearity {
        match self {
            Self::Houlsby => NonLinearity::Swish,
            Self::Pfeiffer => NonLinearity::Relu,
        }
    }
}

impl Adapter {
    /// With the defaults of `adapters`.
    pub fn new(config: AdapterConfig) -> Self {
        Self { config, reduction_factor: 16.0, non_linearity: config.non_linearity() }
    }

    pub(super) fn check(&self) -> std::result::Result<(), Wrong> {
        let factor = self.reduction_factor;
        if factor >= 1.0 / 16.0 && factor.is_finite() {
            return Ok(());
        }
        Err(("method.reduction_factor", factor.to_string(), "a number from 0.0625 on"))
    }

    pub(super) fn place(&self, model: &mut TaskModel) -> Result<()> {
        let houlsby = self.config == AdapterConfig::Houlsby;
        model.place(|layers, root, config| {
            let shape = AdapterShape {
                bottleneck: ((config.hidden_size as f64 / self.reduction_factor) as i64).max(1),
                non_linearity: self.non_linearity,
                normalized_input: !houlsby,
                after_attention: houlsby,
            };
            layers.add_adapters(root, config, shape)
        })
    }
}

/// What trains.
pub(super) fn trains(parameter: &Parameter) -> bool {
    parameter.new
}

/// `init_weights = "bert"`: normal(0, 0.02), biases zero.
pub(super) fn initial(name: &str, shape: &[i64], random: &mut Random) -> Vec<f32> {
    let count = shape.iter().product::<i64>();
    let bias = name.ends_with(".bias");
    (0..count).map(|_| if bias { 0.0 } else { (0.02 * random.normal()) as f32 }).collect()
}

impl std::fmt::Display for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { config, reduction_factor, non_linearity } = self;
        let config = match config {
            AdapterConfig::Houlsby => "houlsby",
            AdapterConfig::Pfeiffer => "pfeiffer",
        };
        write!(f, "{config}, reduction_factor {reduction_factor}, {}", non_linearity.name())
    }
}
