//! The precision of matrix products.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Kind;

/// The precision of the layers' products.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit throughout.
    #[default]
    Fp32,
    /// The layers' products in bfloat16, for GPUs and for CPUs that multiply bfloat16.
    Bf16,
    /// The layers' products in float16, for GPUs; slow on CPUs. The loss is scaled so that small
    /// gradients do not vanish.
    Fp16,
}

impl Precision {
    /// The dtype of the products.
    pub fn kind(self) -> Kind {
        match self {
            Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::Fp16 => Kind::Half,
        }
    }
}
