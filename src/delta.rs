//! The task file: what a task adds to its base. It is a safetensors file under Hugging Face's
//! names, with the metadata that is needed to use it.

use crate::base::BaseInfo;
use crate::error::{Error, Result};
use crate::methods::Method;
use crate::models::{
    ARCHITECTURES, Architecture, TargetScale, Task, TaskType, by_class, canonical, check_labels,
};
use crate::sealed::{self, Contents};
use crate::task_model::TaskModel;
use crate::weights::Mapped;
use crate::{escape, files};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tch::Tensor;

/// The schema version of a delta that needs nothing of a later one.
const SCHEMA_VERSION: &str = "2";

/// The schema version of a delta with one of [`LATER_KEYS`].
const LATER_VERSION: &str = "3";

/// The metadata keys that came with [`LATER_VERSION`]. An older bitfit would read such a task as
/// another.
const LATER_KEYS: [&str; 3] = ["pooling", "long_texts", "thresholds"];

/// The metadata of a delta.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// The Hugging Face class, `BertForSequenceClassification`.
    pub architecture: String,
    /// The base directory's name.
    pub base_name: String,
    /// The fingerprint of the base's encoder.
    pub base_fingerprint: String,
    /// Values of the base's `config.json` that no tensor shows, by transformers' keys; empty in
    /// deltas that did not record them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub base_config: BTreeMap<String, Value>,
    /// The fingerprint of the tokenizer that the task was trained with.
    pub tokenizer_fingerprint: String,
    /// The task.
    #[serde(flatten)]
    pub task: Task,
    /// The method that trained the task; BitFit where the file names none.
    #[serde(default)]
    pub method: Method,
    /// The names of the tensors that trained, sorted.
    pub freeze_plan: Vec<String>,
    /// The metrics of the task on its evaluation data.
    pub metrics: BTreeMap<String, f64>,
}

impl Meta {
    /// The architecture that the class in the metadata is of.
    pub fn architecture(&self) -> Result<Architecture> {
        by_class(&self.architecture)
            .ok_or_else(|| Error::Bug(format!("{} is not supported", self.architecture)))
    }

    /// Whether `value` is invalid for `key`.
    fn refuses(key: &str, value: &Value) -> bool {
        let text = Value::String(String::new());
        let mut fields = Map::new();
        for key in ["architecture", "base_name", "base_fingerprint", "tokenizer_fingerprint"] {
            fields.insert(key.into(), text.clone());
        }
        for (key, value) in [
            ("task_type", Value::from(TaskType::default().name())),
            ("labels", Value::Array(vec![])),
            ("labels_declared", false.into()),
            ("pairs", false.into()),
            ("max_length", 0.into()),
            ("freeze_plan", Value::Array(vec![])),
            ("metrics", Value::Object(Map::new())),
        ] {
            fields.insert(key.into(), value);
        }
        fields.insert(key.into(), value.clone());
        serde_json::from_value::<Self>(Value::Object(fields)).is_err()
    }

    /// Checks that the base's `config.json` says what it said when the task was trained.
    fn check_config(&self, path: &Path, base: &BaseInfo) -> Result<()> {
        let now = base.config.beside_tensors();
        for (key, expected) in &self.base_config {
            let found = now.get(key).unwrap_or(&Value::Null);
            if found != expected {
                let problem = format!(
                    "{key}: found {found}, and {} was trained with {expected}",
                    path.display()
                );
                return Err(Error::file(&base.dir.join("config.json"), problem));
            }
        }
        Ok(())
    }

    /// Checks the metadata, alone and against the file's `tensors`, before anything is built from
    /// it. The error is the problem.
    fn check(&self, tensors: &BTreeMap<String, Tensor>) -> std::result::Result<(), String> {
        let Some(architecture) = by_class(&self.architecture) else {
            let found = escape::short(&self.architecture, 60);
            let expected = ARCHITECTURES.map(|architecture| architecture.class).join(", ");
            return Err(format!("architecture: found {found:?}, expected {expected}"));
        };
        self.method.check().map_err(|(key, error)| format!("{key}: {error}"))?;
        check_labels(&self.task.labels)
            .map_err(|expected| format!("labels: expected {expected}"))?;
        if self.task.pairs.is_none() {
            return Err("pairs: found none, expected true or false".into());
        }
        self.task.long_texts.check(self.task.max_length).map_err(|(key, found, expected)| {
            let key = if key == "max_length" { key.into() } else { format!("long_texts: {key}") };
            format!("{key}: found {found}, expected {expected}")
        })?;
        self.task
            .check_thresholds()
            .map_err(|expected| format!("thresholds: expected {expected}"))?;
        let (count, task) = (self.task.labels.len(), self.task.task_type);
        let (enough, expected) = match task {
            TaskType::Classification => (count >= 2, "two or more"),
            TaskType::MultiLabel => (count >= 1, "one or more"),
            TaskType::Regression => (count == 0, "none"),
        };
        if !enough {
            return Err(format!("{count} labels; expected {expected} for {}", task.name()));
        }
        let (output, outputs) = (architecture.output_weight(), self.task.outputs());
        let rows = tensors.get(&output).and_then(|weight| weight.size().first().copied());
        match rows {
            Some(rows) if usize::try_from(rows) != Ok(outputs) => Err(format!(
                "{count} labels of a {}, and {output} has {rows} rows; expected {outputs}",
                task.name()
            )),
            _ => Ok(()),
        }
    }
}

/// A task: every tensor that differs from the base, fp32 on the CPU.
#[derive(Debug)]
pub struct Delta {
    /// The metadata.
    pub meta: Meta,
    /// The tensors, by canonical name.
    pub tensors: BTreeMap<String, Tensor>,
    /// The SHA-256 in the file that was read; `None` for a delta that was made in memory.
    pub checksum: Option<String>,
    /// The mapped file that the tensors are views of; `None` for tensors in memory.
    mapped: Option<Arc<Mapped>>,
}

impl Delta {
    /// A task of these tensors.
    pub fn new(meta: Meta, tensors: BTreeMap<String, Tensor>) -> Self {
        Self { meta, tensors, checksum: None, mapped: None }
    }

    /// Copies the tensors `names` from the model to the CPU.
    pub fn take<'a>(
        model: &TaskModel,
        names: impl IntoIterator<Item = &'a String>,
        meta: Meta,
    ) -> Result<Self> {
        let variables = model.store.variables();
        let mut tensors = BTreeMap::new();
        for name in names {
            let variable = variables
                .get(name)
                .ok_or_else(|| Error::Bug(format!("{name} is not in the store")))?;
            tensors.insert(name.clone(), variable.f_detach_copy()?.f_to_device(tch::Device::Cpu)?);
        }
        Ok(Self::new(meta, tensors))
    }

    /// Checks that nothing was written to the file since it was read, if the tensors are views of
    /// it.
    pub fn check_unchanged(&self) -> Result<()> {
        check_mapped(self.mapped.as_deref())
    }

    /// The file's bytes; equal tasks give equal bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        sealed::to_bytes(self.metadata()?, &self.tensors)
    }

    fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let Value::Object(fields) = serde_json::to_value(&self.meta).map_err(Error::bug)? else {
            return Err(Error::Bug("the metadata is no object".into()));
        };
        // Safetensors metadata holds only strings, so other values are written as JSON.
        let mut strings: BTreeMap<String, String> = fields
            .into_iter()
            .map(|(key, value)| {
                (key, value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            })
            .collect();
        strings.insert("format".into(), "pt".into());
        let later = LATER_KEYS.iter().any(|key| strings.contains_key(*key));
        let version = if later { LATER_VERSION } else { SCHEMA_VERSION };
        strings.insert("schema_version".into(), version.into());
        strings.insert("tool_version".into(), env!("CARGO_PKG_VERSION").into());
        Ok(strings)
    }

    /// Writes the file through a temporary one that is then renamed; returns the checksum.
    pub fn write(&self, path: &Path) -> Result<String> {
        let bytes = self.to_bytes()?;
        files::replace_with(path, &bytes)?;
        Ok(sealed::checksum(&bytes).unwrap_or_default().to_owned())
    }

    /// Reads a file that [`Delta::write`] wrote. Errs where it is damaged or not a delta.
    pub fn read(path: &Path) -> Result<Self> {
        if path.is_dir() {
            let file = path.join("delta.safetensors");
            let problem =
                format!("a directory; expected a task's file, such as {}", file.display());
            return Err(Error::file(path, problem));
        }
        Self::of(path, sealed::read(path)?)
    }

    /// The delta in `contents`, which were read from `path`. Errs where they are not those of a
    /// delta.
    pub fn of(path: &Path, contents: Contents) -> Result<Self> {
        let (mapped, checksum) = (contents.mapped.clone(), contents.checksum.clone());
        let (meta, tensors) = parse(path, contents)?;
        match meta {
            Some(meta) => Ok(Self { meta, tensors, checksum, mapped }),
            None => Err(Error::file(
                path,
                "not a delta: a safetensors file without a delta's metadata (bitfit writes one as delta.safetensors)",
            )),
        }
    }

    /// Adds the tensors of the delta's method to `model`, then applies the delta like
    /// [`Delta::apply`].
    pub fn apply_with_method(&self, path: &Path, model: &mut TaskModel) -> Result<()> {
        self.meta.method.place(model).map_err(|error| Error::file(path, error.to_string()))?;
        // A file's settings may ask for tensors of any size. Memory for them is taken only once the
        // delta's own tensors are known to have those shapes.
        self.check(path, model)?;
        model.allocate_added()?;
        assign(&self.tensors, self.mapped.as_deref(), model)
    }

    /// Checks the delta against `model`, then copies its tensors in. A model that does not fit is
    /// left unchanged.
    pub fn apply(&self, path: &Path, model: &mut TaskModel) -> Result<()> {
        self.check(path, model)?;
        assign(&self.tensors, self.mapped.as_deref(), model)
    }

    /// Checks that the delta is of the base of `model`, and has tensors that `model` has, in their
    /// shapes.
    fn check(&self, path: &Path, model: &TaskModel) -> Result<()> {
        self.check_base(path, &model.base)?;
        let shapes = model.shapes();
        let new = model.new.iter().chain(&model.added);
        self.check_tensors(path, &|name| shapes.get(name).cloned(), new)
    }

    /// Checks that the delta, read from `path`, is of `base`.
    pub fn check_base(&self, path: &Path, base: &BaseInfo) -> Result<()> {
        let (class, meta) = (base.config.architecture.class, &self.meta);
        if meta.architecture != class {
            let (found, dir) = (&meta.architecture, base.dir.display());
            return Err(Error::file(path, format!("a delta of {found}, and {dir} is a {class}")));
        }
        if meta.base_fingerprint != base.fingerprint {
            return Err(Error::file(
                path,
                format!(
                    "a delta of another base: expected {} with fingerprint {}, found {} with fingerprint {}",
                    meta.base_name,
                    meta.base_fingerprint,
                    base.file.display(),
                    base.fingerprint
                ),
            ));
        }
        meta.check_config(path, base)
    }

    /// Checks that the delta, read from `path`, has the tensors `new`, which its base lacks, and
    /// only tensors of the shapes that `shape` gives by name.
    pub fn check_tensors<'a>(
        &self,
        path: &Path,
        shape: &dyn Fn(&str) -> Option<Vec<i64>>,
        new: impl IntoIterator<Item = &'a String>,
    ) -> Result<()> {
        if let Some(name) = new.into_iter().find(|name| !self.tensors.contains_key(*name)) {
            let expected = "a value, since the base has none".into();
            return Err(Error::Tensor {
                path: path.into(),
                tensor: name.clone(),
                expected,
                found: "no such tensor".into(),
            });
        }
        check_shapes(path, &self.tensors, shape)
    }
}

/// Copies `tensors` into the model. Errs if something was written to the mapped file that they are
/// views of.
fn assign(
    tensors: &BTreeMap<String, Tensor>,
    mapped: Option<&Mapped>,
    model: &mut TaskModel,
) -> Result<()> {
    model.set_all(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))?;
    check_mapped(mapped)
}

fn check_mapped(mapped: Option<&Mapped>) -> Result<()> {
    mapped.map_or(Ok(()), |file| file.check_unchanged(|| Ok(false)))
}

/// Checks that a model has these tensors, in these shapes; `shape` gives the model's shape by name.
fn check_shapes(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    shape: &dyn Fn(&str) -> Option<Vec<i64>>,
) -> Result<()> {
    for (name, tensor) in tensors {
        let expected = match shape(name) {
            Some(shape) if shape == tensor.size() => continue,
            Some(shape) => format!("float32 {shape:?}"),
            None => "no such tensor in this model".into(),
        };
        let found = format!("float32 {:?}", tensor.size());
        return Err(Error::Tensor { path: path.into(), tensor: name.clone(), expected, found });
    }
    Ok(())
}

/// Changes weight and bias of the output layer among `tensors`, if both are there.
pub fn change_output(
    architecture: Architecture,
    tensors: &mut BTreeMap<String, Tensor>,
    change: impl FnOnce([&Tensor; 2]) -> Result<[Tensor; 2]>,
) -> Result<()> {
    let names = architecture.output_names();
    let [Some(weight), Some(bias)] = names.each_ref().map(|name| tensors.get(name)) else {
        return Ok(());
    };
    let changed = change([weight, bias])?;
    tensors.extend(names.into_iter().zip(changed));
    Ok(())
}

/// Sets tensors of `model`, of the task `task`, from another task's delta, or from a plain
/// safetensors file under Hugging Face's names; returns the names of those that changed.
///
/// A delta's rows of labels that `task` has too are kept, by name. Its head is left out if no label
/// stays, or if the task type or the pooling differs. With `scale`, the file's head makes numbers,
/// and the model's makes standardized outputs. Errs where the delta is of another base, or holds
/// what a method other than `method` added.
pub fn start_from(
    path: &Path,
    task: &Task,
    method: &Method,
    scale: Option<&TargetScale>,
    model: &mut TaskModel,
) -> Result<Vec<String>> {
    let contents = sealed::read(path)?;
    let mapped = contents.mapped.clone();
    let (meta, tensors) = parse(path, contents)?;
    let architecture = model.config.architecture;
    let mut tensors: BTreeMap<String, Tensor> = tensors
        .into_iter()
        .map(|(name, tensor)| (canonical(architecture, &name), tensor))
        .collect();
    if let Some(meta) = meta {
        check_start(path, &meta, method, model)?;
        fit_head(path, &meta.task, task, model, &mut tensors)?;
    }
    if let Some(scale) = scale {
        change_output(architecture, &mut tensors, |output| scale.unfolded(output))?;
    }
    let shapes = model.shapes();
    check_shapes(path, &tensors, &|name| shapes.get(name).cloned())?;
    let before = model.store.variables();
    let mut differs = vec![];
    for (name, tensor) in &tensors {
        let same = before.get(name).is_some_and(|own| {
            own.f_to_device(tch::Device::Cpu).and_then(|own| own.f_equal(tensor)).unwrap_or(false)
        });
        if !same {
            differs.push(name.clone());
        }
    }
    assign(&tensors, mapped.as_deref(), model)?;
    Ok(differs)
}

/// Checks that a run of `method` over the base of `model` can start from the delta of `meta`.
fn check_start(path: &Path, meta: &Meta, method: &Method, model: &TaskModel) -> Result<()> {
    if meta.base_fingerprint != model.base.fingerprint {
        let (expected, found) = (&meta.base_fingerprint, &model.base.fingerprint);
        let problem = format!(
            "init_delta is of another base: expected fingerprint {expected}, found {found}"
        );
        return Err(Error::file(path, problem));
    }
    meta.check_config(path, &model.base)?;
    let adds = matches!(meta.method, Method::Lora(_) | Method::Adapter(_));
    if adds && meta.method != *method {
        let problem = format!(
            "init_delta holds what {} added, and this run's method is {method}; expected the same, or a delta of a method that adds nothing \
             (bitfit export --format hf merges lora into a base of its own)",
            meta.method
        );
        return Err(Error::file(path, problem));
    }
    Ok(())
}

/// Makes the head in `tensors`, of the task `old`, one of the task `new` of `model`. Says which
/// labels are kept, added and dropped.
fn fit_head(
    path: &Path,
    old: &Task,
    new: &Task,
    model: &TaskModel,
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<()> {
    let architecture = model.config.architecture;
    if (old.task_type, &old.labels, old.pooling) == (new.task_type, &new.labels, new.pooling) {
        return Ok(());
    }
    let places: BTreeMap<&String, i64> = old.labels.iter().zip(0..).collect();
    let row = |(label, row)| Some((*places.get(label)?, row));
    let kept: Vec<(i64, i64)> = new.labels.iter().zip(0..).filter_map(row).collect();
    if kept.is_empty() || old.task_type != new.task_type || old.pooling != new.pooling {
        tracing::info!(
            "{}: a {} with labels {:?} that reads {}, so its head is left out and a new one is drawn",
            path.display(),
            old.task_type.name(),
            old.labels,
            old.pooling
        );
        // BERT's pooler is no part of the new head, and a head on means has none.
        let dense = format!("{}.", architecture.head.dense);
        let without = |name: &str| !new.pooling.is_first() && name.starts_with(&dense);
        tensors.retain(|name, _| !architecture.in_head(name) && !without(name));
        return Ok(());
    }
    let (from, to): (Vec<i64>, Vec<i64>) = kept.into_iter().unzip();
    let drawn = model.store.variables();
    for name in architecture.output_names() {
        let (Some(tensor), Some(drawn)) = (tensors.get(&name), drawn.get(&name)) else { continue };
        let rows = tensor.f_index_select(0, &Tensor::f_from_slice(&from)?)?;
        let drawn = drawn.f_detach_copy()?.f_to_device(tch::Device::Cpu)?;
        tensors.insert(name, drawn.f_index_copy(0, &Tensor::f_from_slice(&to)?, &rows)?);
    }
    let [before, now] = [old, new].map(|task| task.labels.iter().collect::<BTreeSet<_>>());
    tracing::info!(
        "{}: the head's rows of {} labels are kept; new rows: {:?}; dropped rows: {:?}",
        path.display(),
        to.len(),
        now.difference(&before).collect::<Vec<_>>(),
        before.difference(&now).collect::<Vec<_>>()
    );
    Ok(())
}

/// The tensors of a safetensors file, and the metadata if it is a delta's.
fn parse(path: &Path, contents: Contents) -> Result<(Option<Meta>, BTreeMap<String, Tensor>)> {
    let Contents { metadata, tensors, checksum, .. } = contents;
    if !metadata.contains_key("base_fingerprint") {
        return Ok((None, tensors));
    }
    let version = metadata.get("schema_version").map_or("none", String::as_str);
    if ![SCHEMA_VERSION, LATER_VERSION].contains(&version) {
        let problem = format!(
            "a delta of schema version {version}; this bitfit reads versions {SCHEMA_VERSION} and {LATER_VERSION}"
        );
        return Err(Error::file(path, problem));
    }
    let later = LATER_KEYS.iter().find(|key| metadata.contains_key(**key));
    if let Some(key) = later.filter(|_| version == SCHEMA_VERSION) {
        let problem = format!(
            "metadata {key}: found in a delta of schema version {version}, expected in version {LATER_VERSION}"
        );
        return Err(Error::file(path, problem));
    }
    if checksum.is_none() {
        return Err(Error::file(path, "a delta without its checksum"));
    }
    const AS_JSON: [&str; 10] = [
        "base_config",
        "labels",
        "labels_declared",
        "pairs",
        "max_length",
        "long_texts",
        "thresholds",
        "method",
        "freeze_plan",
        "metrics",
    ];
    let mut fields = Map::new();
    for (key, text) in metadata {
        let value = if AS_JSON.contains(&key.as_str()) {
            serde_json::from_str(&text)
                .map_err(|e| Error::file(path, format!("metadata {key}: {e}")))?
        } else {
            Value::String(text)
        };
        fields.insert(key, value);
    }
    let fields = Value::Object(fields);
    let meta = Meta::deserialize(&fields).map_err(|e| {
        // serde does not say which key is wrong.
        let is_wrong = |(key, value): &(&String, &Value)| Meta::refuses(key, value);
        match fields.as_object().into_iter().flatten().find(is_wrong) {
            Some((key, _)) => Error::file(path, format!("metadata {key}: {e}")),
            None => Error::file(path, format!("metadata: {e}")),
        }
    })?;
    meta.check(&tensors).map_err(|problem| Error::file(path, format!("metadata: {problem}")))?;
    Ok((Some(meta), tensors))
}
