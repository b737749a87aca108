//! Writes an adapter for PEFT. BitFit becomes an adapter of type BEFT (peft 0.20): values that are
//! added to the biases of dense layers, and modules that are replaced whole. LoRA becomes an
//! adapter of type LORA, as peft itself saves it.

use super::format::write_tensors;
use crate::base::Base;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::files;
use crate::freeze::{Group, Places};
use crate::methods::{self, LoraBias, LoraConfig, Method};
use crate::sources::Model;
use crate::task_model::TaskModel;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::Tensor;

/// Writes `adapter_config.json` and `adapter_model.safetensors` for `task`, which `model` holds.
/// Errs where PEFT has no adapter that can hold the task.
pub fn write(
    dir: &Path,
    source: &Model,
    base: &Base,
    model: &TaskModel,
    task: &Delta,
) -> Result<()> {
    let (mut config, tensors) = match &task.meta.method {
        Method::Lora(settings) => lora(model, settings, task)?,
        Method::Full => return Err(cannot_hold("every weight differs from the base's")),
        Method::Adapter(_) => {
            let error = "PEFT has no such adapters; AdapterHub's package adapters can load delta.safetensors, whose tensors have its names";
            return Err(Error::Usage(format!("--format peft: {error}")));
        }
        Method::Bitfit | Method::Head | Method::LayerNorm | Method::Probe(_) => {
            beft(base, model, task)?
        }
    };
    config.insert(
        "base_model_name_or_path".into(),
        json!(source.commit.as_ref().map_or_else(
            || {
                let dir = std::fs::canonicalize(&source.dir).unwrap_or(source.dir.clone());
                dir.to_string_lossy().into_owned()
            },
            |_| source.name.clone(),
        )),
    );
    config.insert("revision".into(), json!(source.commit));
    config.insert("inference_mode".into(), json!(true));
    let text = serde_json::to_string_pretty(&config).map_err(Error::bug)?;
    files::write(&dir.join("adapter_config.json"), (text + "\n").as_bytes())?;
    write_tensors(dir, "adapter_model.safetensors", &tensors)
}

/// The configuration of an adapter, and its tensors.
type PeftAdapter = (Map<String, Value>, BTreeMap<String, Tensor>);

fn cannot_hold(why: &str) -> Error {
    Error::Usage(format!("--format peft: {why}, which a PEFT adapter cannot hold; use --format hf"))
}

/// The prefix of names in peft's files.
const PREFIX: &str = "base_model.model.";

/// A LORA adapter: the two matrices of each target, and the whole head. With `bias = "all"` also
/// every bias, as peft saves them.
fn lora(model: &TaskModel, settings: &LoraConfig, task: &Delta) -> Result<PeftAdapter> {
    let variables = model.store.variables();
    let added: BTreeSet<String> = methods::lora_modules(model.added.iter()).into_iter().collect();
    let mut replaced = BTreeSet::new();
    for name in &model.new {
        // The head's top module, such as `classifier` for RoBERTa's `classifier.dense`; for the
        // pooler, its dense layer.
        let (module, _) = name.rsplit_once('.').unwrap_or((name, ""));
        let head = model.config.architecture.in_head(name);
        let first = module.split('.').next().unwrap_or(module);
        replaced.insert(if head { first } else { module });
    }
    let in_replaced = |name: &str| {
        replaced
            .iter()
            .any(|module| name.strip_prefix(module).is_some_and(|rest| rest.starts_with('.')))
    };
    if let Some(module) = added.iter().find(|module| in_replaced(&format!("{module}."))) {
        return Err(cannot_hold(&format!(
            "LoRA was added to {module}, which the base does not have"
        )));
    }
    let biases = settings.bias == LoraBias::All;
    let mut tensors = BTreeMap::new();
    for (name, tensor) in &variables {
        let (module, leaf) = name.rsplit_once('.').unwrap_or((name, ""));
        let name = match leaf {
            _ if model.added.contains(name) || in_replaced(name) => name.clone(),
            "bias" if biases && added.contains(module) => format!("{module}.base_layer.bias"),
            "bias" if biases => name.clone(),
            _ if task.tensors.contains_key(name) => {
                return Err(cannot_hold(&format!("{name} differs from the base's")));
            }
            _ => continue,
        };
        tensors.insert(format!("{PREFIX}{name}"), tensor.f_detach_copy()?);
    }
    let differing =
        task.tensors.keys().find(|name| name.ends_with(".bias") && !biases && !in_replaced(name));
    if let Some(name) = differing {
        return Err(cannot_hold(&format!("{name} differs from the base's")));
    }
    // Short target names are kept where peft finds the same modules by them.
    let dense = variables.keys().filter_map(|name| name.strip_suffix(".weight"));
    let named = |module: &str| {
        settings.target_modules.iter().any(|target| {
            module
                .strip_suffix(&**target)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    };
    let found: BTreeSet<String> = dense.filter(|name| named(name)).map(str::to_owned).collect();
    let targets = if found == added { json!(settings.target_modules) } else { json!(added) };
    let config = json!({
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "r": settings.r,
        "lora_alpha": settings.lora_alpha,
        "lora_dropout": settings.lora_dropout,
        "target_modules": targets,
        "modules_to_save": replaced,
        "bias": settings.bias,
    });
    Ok((object(config), tensors))
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(fields) = value { fields } else { Map::new() }
}

/// A BEFT adapter. Modules are named by their whole paths, because peft would match a short name
/// such as `dense` with other modules too.
fn beft(base: &Base, model: &TaskModel, task: &Delta) -> Result<PeftAdapter> {
    let variables = model.store.variables();
    let places = Places::new(model.config.architecture)?;
    let mut tensors = BTreeMap::new();
    let (mut added_to, mut replaced) = (BTreeSet::new(), BTreeSet::new());
    for (name, value) in &task.tensors {
        let place = places.of(name)?;
        let (module, leaf) = name.rsplit_once('.').unwrap_or((name, ""));
        let dense = matches!(place.group, Group::Attention | Group::Feedforward | Group::Other);
        if dense && leaf == "bias" && !model.new.contains(name) {
            let own = base.tensors().get(name).ok_or_else(|| Error::Bug(format!("no {name}")))?;
            let change = value.f_sub(own)?.f_unsqueeze(0)?;
            tensors.insert(format!("{PREFIX}{module}.beft_bias"), change);
            added_to.insert(module);
            continue;
        }
        // peft replaces whole modules, so the adapter also holds their unchanged tensors.
        for leaf in ["weight", "bias"] {
            let name = format!("{module}.{leaf}");
            let Some(own) = variables.get(&name) else {
                return Err(cannot_hold(&format!("{module} differs from the base's")));
            };
            tensors.insert(format!("{PREFIX}{name}"), own.f_detach_copy()?);
        }
        replaced.insert(module);
    }
    let both: Vec<_> = added_to.intersection(&replaced).copied().collect();
    if let Some(module) = both.first() {
        return Err(cannot_hold(&format!("{module}'s weight differs from the base's")));
    }
    let architecture = model.config.architecture;
    let prefix = architecture.prefix;
    // peft's placeholder for an adapter without target modules.
    let none = json!("dummy-target-modules");
    let (key, value) = if architecture.head.output.starts_with("classifier.") {
        // With a task type, peft would wrap `classifier`, RoBERTa's whole head, in addition to its
        // two layers, and fail.
        let parent = format!("transformers.models.{prefix}.modeling_{prefix}");
        let class = architecture.class;
        ("auto_mapping", json!({ "base_model_class": class, "parent_library": parent }))
    } else {
        ("task_type", json!("SEQ_CLS"))
    };
    let config = json!({
        "peft_type": "BEFT",
        "target_modules": if added_to.is_empty() { none } else { json!(added_to) },
        "modules_to_save": replaced,
        key: value,
    });
    Ok((object(config), tensors))
}
