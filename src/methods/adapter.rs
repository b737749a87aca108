//! Adapters, as in AdapterHub's package `adapters`: each layer gets bottlenecks, which train with
//! the new head.

use super::Wrong;
use crate::bounds::ReductionFactor;
use crate::error::Result;
use crate::freeze::Parameter;
use crate::nn::{AdapterShape, NonLinearity};
use crate::random::Random;
use crate::task_model::TaskModel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The default learning rate: AdapterHub's recommendation.
pub const LEARNING_RATE: f64 = 1e-4;

/// The settings of adapters, under the names of the package `adapters`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// The placement of the bottlenecks.
    pub config: AdapterPlacement,
    /// The hidden size `H` divided by the size of the bottleneck, which is rounded down and at
    /// least 1.
    pub reduction_factor: f64,
    /// The activation between the two dense layers.
    pub non_linearity: NonLinearity,
}

/// The placement of the bottlenecks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdapterPlacement {
    /// After attention and after the feedforward (Houlsby et al., ICML 2019).
    #[serde(alias = "double_seq_bn")]
    #[schemars(extend("enum" = ["houlsby", "double_seq_bn"]))]
    Houlsby,
    /// After the feedforward alone, applied to the LayerNorm of output plus residual (Pfeiffer et
    /// al., EACL 2021).
    #[default]
    #[serde(alias = "seq_bn")]
    #[schemars(extend("enum" = ["pfeiffer", "seq_bn"]))]
    Pfeiffer,
}

impl AdapterPlacement {
    /// The default activation between the two dense layers.
    pub fn non_linearity(self) -> NonLinearity {
        match self {
            Self::Houlsby => NonLinearity::Swish,
            Self::Pfeiffer => NonLinearity::Relu,
        }
    }
}

impl AdapterConfig {
    /// Makes settings with the defaults of the package `adapters`.
    pub fn new(config: AdapterPlacement) -> Self {
        Self { config, reduction_factor: 16.0, non_linearity: config.non_linearity() }
    }

    pub(super) fn check(&self) -> std::result::Result<(), Wrong> {
        let factor = ReductionFactor::try_from(self.reduction_factor);
        factor.map(drop).map_err(|e| ("method.reduction_factor", e))
    }

    pub(super) fn place(&self, model: &mut TaskModel) -> Result<()> {
        let houlsby = self.config == AdapterPlacement::Houlsby;
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

/// Whether a parameter trains: the adapters and the head, which the base lacks.
pub(super) fn trains(parameter: &Parameter) -> bool {
    parameter.new
}

/// Draws initial values as `init_weights = "bert"` in `adapters`: weights from normal(0, 0.02),
/// biases zero.
pub(super) fn initial(name: &str, shape: &[i64], random: &mut Random) -> Vec<f32> {
    let count = shape.iter().product::<i64>();
    let bias = name.ends_with(".bias");
    (0..count).map(|_| if bias { 0.0 } else { (0.02 * random.normal()) as f32 }).collect()
}

impl std::fmt::Display for AdapterConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { config, reduction_factor, non_linearity } = self;
        let config = match config {
            AdapterPlacement::Houlsby => "houlsby",
            AdapterPlacement::Pfeiffer => "pfeiffer",
        };
        write!(f, "{config}, reduction_factor {reduction_factor}, {}", non_linearity.name())
    }
}
