//! Adapters: a bottleneck at the end of half a layer, before the residual is added (Houlsby et al.,
//! ICML 2019; Pfeiffer et al., EACL 2021).

use super::{Activation, Dropout, Hidden, LayerNorm, Linear, PackedRows, below};
use crate::error::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

/// The activation between an adapter's two dense layers, by its name in AdapterHub's `adapters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NonLinearity {
    /// `max(0, x)`.
    Relu,
    /// `x sigmoid(x)`.
    #[serde(alias = "silu")]
    #[schemars(extend("enum" = ["swish", "silu"]))]
    Swish,
    /// GELU by the error function.
    Gelu,
    /// GELU's tanh approximation.
    GeluNew,
    /// `tanh(x)`.
    Tanh,
    /// `x`, or `0.01 x` if `x` is negative.
    #[serde(rename = "leakyrelu")]
    LeakyRelu,
}

impl NonLinearity {
    /// The activation's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Swish => "swish",
            Self::Gelu => "gelu",
            Self::GeluNew => "gelu_new",
            Self::Tanh => "tanh",
            Self::LeakyRelu => "leakyrelu",
        }
    }
}

/// The shape of the adapters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdapterShape {
    /// Number of outputs of the first dense layer.
    pub bottleneck: i64,
    /// The activation between the two dense layers.
    pub non_linearity: NonLinearity,
    /// Whether the adapter's input is the LayerNorm of output plus residual: AdapterHub's
    /// `original_ln_before`.
    pub normalized_input: bool,
    /// Whether adapters follow attention too, and not only the feedforward.
    pub after_attention: bool,
}

/// An adapter. The two dense layers have the checkpoint names `adapter_down.0` and `adapter_up`, as
/// in `adapters`.
#[derive(Debug)]
pub struct Adapter {
    down: Linear,
    up: Linear,
    non_linearity: NonLinearity,
    normalized_input: bool,
}

impl Adapter {
    /// Places the tensors in the store at `path`, for rows of `size` entries.
    pub fn new(path: &nn::Path<'_>, size: i64, shape: AdapterShape) -> Result<Self> {
        Ok(Self {
            down: Linear::new(below(path, "adapter_down.0"), size, shape.bottleneck)?,
            up: Linear::new(below(path, "adapter_up"), shape.bottleneck, size)?,
            non_linearity: shape.non_linearity,
            normalized_input: shape.normalized_input,
        })
    }

    /// `norm(residual + x + up(f(down(input))))`, all `[R, H]`, where `input` is `x`, or
    /// `norm(residual + x)`.
    pub fn normalized(
        &self,
        x: &Tensor,
        residual: &Tensor,
        norm: &LayerNorm,
        rows: &PackedRows<'_>,
    ) -> Result<Hidden> {
        let sum = x.f_add(residual)?;
        let inner = match self.normalized_input {
            true => self.inner(&norm.forward(&sum, rows)?, rows)?,
            false => self.inner(x, rows)?,
        };
        let nothing = Dropout { probability: 0.0, site: 0 };
        self.up.normalized(&inner, nothing, rows, &sum, norm)
    }

    fn inner(&self, x: &Tensor, rows: &PackedRows<'_>) -> Result<Tensor> {
        let forward = || self.down.forward(x, rows);
        Ok(match self.non_linearity {
            NonLinearity::Relu => self.down.activated(x, Activation::Relu, rows)?,
            NonLinearity::Gelu => self.down.activated(x, Activation::Gelu, rows)?,
            NonLinearity::GeluNew => self.down.activated(x, Activation::GeluTanh, rows)?,
            NonLinearity::Swish => forward()?.f_silu()?,
            NonLinearity::Tanh => forward()?.f_tanh()?,
            NonLinearity::LeakyRelu => forward()?.f_leaky_relu()?,
        })
    }
}
