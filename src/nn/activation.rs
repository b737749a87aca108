//! The activations that `config.json` names.

/// An activation of transformers. `native` identifies it by its discriminant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x Φ(x)`, by the error function.
    Gelu,
    /// [`Activation::Gelu`]'s approximation by tanh.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x sigmoid(x)`.
    Silu,
    /// `tanh(x)`.
    Tanh,
    /// `x sigmoid(1.702 x)`.
    QuickGelu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x tanh(log(1 + exp(x)))`.
    Mish,
}

impl Activation {
    /// transformers' usual name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, other)| *other == self).map_or("", |(name, _)| name)
    }

    /// transformers' names. Names of the same activation differ in transformers only in rounding.
    pub const NAMES: [(&str, Self); 14] = [
        ("gelu", Self::Gelu),
        ("gelu_python", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("gelu_fast", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("gelu_python_tanh", Self::GeluTanh),
        ("gelu_accurate", Self::GeluTanh),
        ("relu", Self::Relu),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("tanh", Self::Tanh),
        ("quick_gelu", Self::QuickGelu),
        ("relu6", Self::Relu6),
        ("mish", Self::Mish),
    ];

    /// The activation that `hidden_act` names.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
    }
}
