//! Canonical tensor names, and the classification of a checkpoint's names.
//!
//! Canonical names are those of the classifier's `state_dict()`, such as
//! `bert.encoder.layer.0.output.dense.bias`.

use super::spec::Architecture;

/// The role of a checkpoint's tensor in a classifier.
#[derive(Debug, PartialEq, Eq)]
pub enum Name {
    /// A tensor of the encoder, by its canonical name. The caller must check that the model has
    /// this tensor.
    Encoder(String),
    /// A buffer, or a tensor of a head: expected in checkpoints, and not part of the encoder.
    Unused,
    /// An unknown tensor outside the encoder: not used, but worth a warning.
    Unknown,
}

/// Classifies a tensor name of a checkpoint, with or without the architecture's prefix.
pub fn classify(architecture: Architecture, name: &str) -> Name {
    let bare = architecture.below_prefix(name).unwrap_or(name);
    let is_unused = |unused: &&str| bare.starts_with(unused);
    if architecture.in_head(bare) || architecture.unused.iter().any(is_unused) {
        return Name::Unused;
    }
    if bare.len() < name.len() || architecture.starts_in_encoder(bare) {
        Name::Encoder(canonical(architecture, name))
    } else {
        Name::Unknown
    }
}

/// The canonical form of a tensor name of the encoder or the head. Encoder names get the
/// architecture's prefix; `gamma` and `beta` become `weight` and `bias`.
pub fn canonical(architecture: Architecture, name: &str) -> String {
    let modern = match (name.strip_suffix(".gamma"), name.strip_suffix(".beta")) {
        (Some(stem), _) => format!("{stem}.weight"),
        (_, Some(stem)) => format!("{stem}.bias"),
        _ => name.to_owned(),
    };
    if architecture.below_prefix(&modern).is_some() || architecture.in_head(&modern) {
        return modern;
    }
    format!("{}.{modern}", architecture.prefix)
}
