//! The precision of matrix products.

use crate::error::Result;
use crate::native;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

/// The precision of the layers' products.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// `bf16` on a GPU of compute capability 8.0 or more, otherwise `fp32`.
    #[default]
    Auto,
    /// 32-bit throughout.
    Fp32,
    /// The layers' products in bfloat16, for GPUs and for CPUs that multiply bfloat16.
    Bf16,
    /// The layers' products in float16, for GPUs; slow on CPUs. The loss is scaled so that small
    /// gradients do not vanish.
    Fp16,
}

impl Precision {
    /// Returns the precision on `device`, which is not [`Precision::Auto`].
    pub fn on(self, device: Device) -> Result<Self> {
        let Self::Auto = self else { return Ok(self) };
        let Device::Cuda(index) = device else { return Ok(Self::Fp32) };
        Ok(if native::capability(index)? >= 80 { Self::Bf16 } else { Self::Fp32 })
    }

    /// Returns the dtype of the products on `device`, and logs a choice that was left to bitfit.
    pub fn kind_on(self, device: Device) -> Result<Kind> {
        let precision = self.on(device)?;
        if self == Self::Auto && precision != Self::Fp32 {
            tracing::info!("products are computed in {precision}, because the precision is auto");
        }
        Ok(match precision {
            Self::Auto | Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::Fp16 => Kind::Half,
        })
    }
}

/// The name as in a configuration.
impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
        })
    }
}
