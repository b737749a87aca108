//! The files that sentence-transformers adds to a base, which say how texts become vectors.

use super::config::read_object;
use crate::error::{Error, Result};
use crate::files;
use crate::nn::Pooling;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Component, Path};

/// The list of a model's modules.
const MODULES: &str = "modules.json";

/// The files, where sentence-transformers writes them.
pub const SENTENCE_FILES: [&str; 2] = [MODULES, "1_Pooling/config.json"];

/// The class of the module that pools.
const POOLING: &str = "Pooling";

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    r#type: String,
    path: String,
}

/// The pooling that the base in `dir` was trained with, as sentence-transformers' files say; `None`
/// if there are no such files, or no module that pools. Warns of a pooling that is not supported,
/// and takes it as none.
///
/// Errs where a file is damaged.
pub fn declared_pooling(dir: &Path) -> Result<Option<Pooling>> {
    let path = dir.join(MODULES);
    if !files::is_there(&path)? {
        return Ok(None);
    }
    let modules: Vec<Module> = serde_json::from_str(&files::read_text(&path)?)
        .map_err(|error| Error::file(&path, format!("not a list of modules: {error}")))?;
    let pools = |module: &&Module| module.r#type.rsplit('.').next() == Some(POOLING);
    let Some(module) = modules.iter().find(pools) else { return Ok(None) };
    let folder = Path::new(&module.path);
    if !folder.components().all(|part| matches!(part, Component::Normal(_))) {
        let problem = format!("path: found {:?}, expected a folder of the model", module.path);
        return Err(Error::file(&path, problem));
    }
    let path = dir.join(folder).join("config.json");
    let modes = modes(&read_object(&path)?);
    let modes: Vec<&str> = modes.iter().map(String::as_str).collect();
    match modes[..] {
        ["cls" | "cls_token"] => Ok(Some(Pooling::First)),
        ["mean" | "mean_tokens"] => Ok(Some(Pooling::Mean)),
        _ => {
            let found = if modes.is_empty() { "no pooling".into() } else { modes.join(" and ") };
            tracing::warn!(
                "{}: {found}; bitfit reads the first token or the mean, and takes the first token \
                 (model.pooling chooses)",
                path.display()
            );
            Ok(None)
        }
    }
}

/// The poolings that `config` switches on, as sentence-transformers' version 5 or one before it
/// names them.
fn modes(config: &Map<String, Value>) -> Vec<String> {
    match config.get("pooling_mode") {
        Some(Value::String(mode)) => vec![mode.clone()],
        Some(Value::Array(modes)) => {
            modes.iter().filter_map(|mode| mode.as_str().map(str::to_owned)).collect()
        }
        _ => config
            .iter()
            .filter(|(_, value)| **value == Value::Bool(true))
            .filter_map(|(key, _)| key.strip_prefix("pooling_mode_").map(str::to_owned))
            .collect(),
    }
}
