//! A checkpoint's tensor names made canonical, and what each name is.
//!
//! Canonical are the names of the classifier's `state_dict()`: `bert.encoder.layer.0.output.dense.bias`.

use super::Architecture;

/// What a tensor of a checkpoint is to a classifier.
#[derive(Debug, PartialEq, Eq)]
pub enum Name {
    /// A tensor of the encoder, by its canonical name; whether the model has it is for the reader to check.
    Encoder(String),
    /// A buffer, or another task's head: expected in checkpoints and not used.
    Unused,
    /// Outside the encoder, and not known: not used either, but worth a word.
    Unknown,
}

/// Classifies a checkpoint's name; a name that may or may not start with the architecture's prefix is taken either way.
pub fn classify(architecture: Architecture, name: &str) -> Name {
    let spec = architecture.spec();
    let prefix = spec.prefix;
    let bare = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name);
    if spec.unused.iter().any(|unused| bare.starts_with(unused)) {
        return Name::Unused;
    }
    // What stands outside the encoder's modules is somebody's addition.
    let inside =
        ["embeddings.", spec.layers, "pooler."].iter().any(|module| bare.starts_with(module));
    if bare.len() < name.len() || inside {
        Name::Encoder(canonical(architecture, name))
    } else {
        Name::Unknown
    }
}

/// The canonical form of a name of the encoder or of the head: with the architecture's prefix, and no `gamma` and `beta`.
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
