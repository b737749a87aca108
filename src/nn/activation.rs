//! The activations that `config.json` names.

/// An activation by its Hugging Face name; its number is what `native` knows it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `gelu`: the erf form.
    Gelu,
    /// `gelu_new`, `gelu_pytorch_tanh`: the tanh approximation.
    GeluTanh,
    /// `relu`.
    Relu,
}

impl Activation {
    /// The names that [`Activation::from_name`] knows.
    pub const NAMES: &str = "gelu, gelu_new, gelu_pytorch_tanh, relu";

    /// The activation that `hidden_act` names.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "gelu" => Some(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Some(Self::GeluTanh),
            "relu" => Some(Self::Relu),
            _ => None,
        }
    }
}
