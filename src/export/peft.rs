//! An adapter of PEFT's type BEFT (peft 0.20): what is added to the biases of dense layers, and modules that are replaced whole.

use super::write_tensors;
use crate::base::Base;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::freeze::{Group, Place};
use crate::models::Architecture;
use crate::sources::Model;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::Tensor;

/// Writes `adapter_config.json` and `adapter_model.safetensors`; `before` are the base's own values.
///
/// Modules are named by their whole paths: a name alone, such as `dense`, would be those of other modules too.
pub fn write(
    dir: &Path,
    model: &Model,
    base: &Base,
    before: &BTreeMap<String, Tensor>,
    task: &Delta,
) -> Result<()> {
    let variables = base.store.variables();
    let mut tensors = BTreeMap::new();
    let (mut added_to, mut replaced) = (BTreeSet::new(), BTreeSet::new());
    for (name, value) in &task.tensors {
        let place = Place::of(name)?;
        let (module, leaf) = name.rsplit_once('.').unwrap_or((name, ""));
        let dense = matches!(place.group, Group::Attention | Group::Feedforward | Group::Other);
        if dense && leaf == "bias" && !base.new.contains(name) {
            let own = before.get(name).ok_or_else(|| Error::Bug(format!("no {name}")))?;
            let change = value.f_sub(own)?.f_unsqueeze(0)?;
            tensors.insert(format!("base_model.model.{module}.beft_bias"), change);
            added_to.insert(module);
            continue;
        }
        // A module replaced has all of its tensors, those too that the task left alone.
        for leaf in ["weight", "bias"] {
            let name = format!("{module}.{leaf}");
            let own = variables.get(&name).ok_or_else(|| Error::Bug(format!("no {name}")))?;
            tensors.insert(format!("base_model.model.{name}"), own.f_detach_copy()?);
        }
        replaced.insert(module);
    }
    let both: Vec<_> = added_to.intersection(&replaced).copied().collect();
    if let Some(module) = both.first() {
        return Err(Error::Usage(format!(
            "--format peft: {module}'s weight differs from the base's, and such an adapter holds biases alone; --format hf holds everything"
        )));
    }
    let architecture = base.config.architecture;
    let prefix = architecture.prefix();
    // The type of peft that stands for no module at all.
    let none = json!("dummy-target-modules");
    let (key, value) = if architecture == Architecture::Roberta {
        // With a task type peft would wrap RoBERTa's whole head beside its two layers, and fail.
        let parent = format!("transformers.models.{prefix}.modeling_{prefix}");
        let class = architecture.class();
        ("auto_mapping", json!({ "base_model_class": class, "parent_library": parent }))
    } else {
        ("task_type", json!("SEQ_CLS"))
    };
    let config = json!({
        "peft_type": "BEFT",
        "base_model_name_or_path": model.commit.as_ref().map_or_else(
            || std::fs::canonicalize(&model.dir).unwrap_or(model.dir.clone()).to_string_lossy().into_owned(),
            |_| model.name.clone(),
        ),
        "revision": model.commit,
        "target_modules": if added_to.is_empty() { none } else { json!(added_to) },
        "modules_to_save": replaced,
        "inference_mode": true,
        key: value,
    });
    let text = serde_json::to_string_pretty(&config).map_err(|e| Error::Bug(e.to_string()))?;
    let path = dir.join("adapter_config.json");
    std::fs::write(&path, text + "\n").map_err(Error::io("write", &path))?;
    write_tensors(dir, "adapter_model.safetensors", &tensors)
}
