//! Canonical tensor names, and the classification of a checkpoint's names.
//!
//! Canonical names are those of the classifier's `state_dict()`, such as
//! `bert.encoder.layer.0.output.dense.bias`.

use super::Architecture;

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
    let spec = architecture.spec();
    let prefix = spec.prefix;
    let bare = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name);
    if spec.unused.iter().any(|unused| bare.starts_with(unused)) {
        return Name::Unused;
    }
    // A name without the prefix is the encoder's only if it starts with one of the encoder's
    // modules.
    let inside =
        ["embeddings.", spec.layers, "pooler."].iter().any(|module| bare.starts_with(module));
    if bare.len() < name.len() || inside {
        Name::Encoder(canonical(architecture, name))
    } else {
        Name::Unknown
    }
}

/// The canonical form of a tensor name of the encoder or the head. Encoder names get the
/// architecture's prefix; `gamma` and `beta` become `weight` and `bias`.
pub fn canonical(architecture: Architecture, name: &str) -> String {
    let prefix = architecture.prefix();
    let modern = match (name.strip_suffix(".gamma"), name.strip_suffix(".beta")) {
        (Some(stem), _) => format!("{stem}.weight"),
        (_, Some(stem)) => format!("{stem}.bias"),
        _ => name.to_owned(),
    };
    let prefixed = modern.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
    if prefixed || architecture.in_head(&modern) { modern } else { format!("{prefix}.{modern}") }
}
