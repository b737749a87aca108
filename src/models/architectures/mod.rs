//! The supported architectures: a file and a line each.

mod bert;
mod distilbert;
mod roberta;

use super::spec::Architecture;

/// All supported architectures.
pub const ARCHITECTURES: [Architecture; 3] = [&bert::SPEC, &distilbert::SPEC, &roberta::SPEC];

/// The supported architecture that `model_type` in `config.json` names.
pub fn by_model_type(model_type: &str) -> Option<Architecture> {
    ARCHITECTURES.into_iter().find(|architecture| architecture.model_type == model_type)
}

/// The supported architecture whose classifier is this Hugging Face class.
pub fn by_class(class: &str) -> Option<Architecture> {
    ARCHITECTURES.into_iter().find(|architecture| architecture.class == class)
}
