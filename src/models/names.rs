//! A checkpoint's tensor names made canonical, and what each name is.
//!
//! Canonical are the names of `BertForSequenceClassification.state_dict()`: `bert.encoder.layer.0.output.dense.bias`.

use super::config::Architecture;

/// What a tensor of a checkpoint is to a classifier.
#[derive(Debug, PartialEq, Eq)]
pub enum Name {
    /// A tensor of the encoder, by its canonical name; whether the model has it is for the reader to check.
    Encoder(String),
    /// A buffer, or another task's head: expected in checkpoints and not used.
    Unused,
}

/// Classifies a checkpoint's name; a name that may or may not start with the architecture's prefix is taken either way.
pub fn classify(architecture: Architecture, name: &str) -> Name {
    let prefix = architecture.prefix();
    let bare = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name);
    let unused = ["cls.", "classifier.", "qa_outputs."];
    if unused.iter().any(|head| bare.starts_with(head)) || bare == "embeddings.position_ids" {
        return Name::Unused;
    }
    Name::Encoder(canonical(architecture, name))
}

/// The canonical form of a name of the encoder or of the head: with the architecture's prefix, and no `gamma` and `beta`.
pub fn canonical(architecture: Architecture, name: &str) -> String {
    let prefix = architecture.prefix();
    let modern = match name.strip_suffix("LayerNorm.gamma") {
        Some(stem) => format!("{stem}LayerNorm.weight"),
        None => match name.strip_suffix("LayerNorm.beta") {
            Some(stem) => format!("{stem}LayerNorm.bias"),
            None => name.to_owned(),
        },
    };
    let prefixed = modern.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
    if prefixed || modern.starts_with("classifier.") {
        modern
    } else {
        format!("{prefix}.{modern}")
    }
}
