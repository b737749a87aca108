//! What products are made in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Kind;

/// The precision of the layers' products.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit throughout.
    #[default]
    Fp32,
    /// The layers' products in bfloat16: on GPUs, and on processors that multiply it.
    Bf16,
    /// The same in float16, the loss scaled so that small gradients do not vanish: on GPUs; slow on CPUs.
    Fp16,
}

impl Precision {
    /// What products are made in.
    pub fn kind(self) -> Kind {
        match self {
            Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::Fp16 => Kind::Half,
        }
    }
}
