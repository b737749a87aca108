//! The task of a classifier that was saved whole, head included, in its `config.json`.

use super::config::{bad, read_object};
use super::head::{MOST_LABELS, TaskType, check_labels};
use super::long_texts::LongTexts;
use super::spec::Architecture;
use super::task::Task;
use crate::error::{Error, Result};
use crate::nn::Pooling;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The values of `problem_type`.
const PROBLEMS: [(&str, TaskType); 3] = [
    ("single_label_classification", TaskType::Classification),
    ("multi_label_classification", TaskType::MultiLabel),
    ("regression", TaskType::Regression),
];

/// The key for settings that Hugging Face has no key for.
const OURS: &str = "bitfit";

impl Task {
    /// Reads the task from the `config.json` at `path`. Returns `None` if the model is not a
    /// classifier. If the file names no `architectures`, the model is a classifier if its weights
    /// have a head (`has_head`). `longest` is the `max_length` of a file that says none, and of one
    /// that says more.
    #[doc(hidden)]
    pub fn saved(
        path: &Path,
        architecture: Architecture,
        has_head: bool,
        longest: usize,
    ) -> Result<Option<Self>> {
        let config = read_object(path)?;
        let class = architecture.class;
        match config.get("architectures") {
            Some(Value::Array(classes)) if !classes.is_empty() => {
                if !classes.iter().any(|name| name == class) {
                    return Ok(None);
                }
            }
            _ if !has_head => return Ok(None),
            _ => tracing::warn!(
                "{}: no architectures; read as a {class}, because the weights have a classifier's head",
                path.display()
            ),
        }
        let labels = labels(&config).map_err(|(key, expected)| {
            bad(path, key, config.get(key).unwrap_or(&Value::Null), &expected)
        })?;
        let task_type = match config.get("problem_type").unwrap_or(&Value::Null) {
            Value::Null if labels.len() == 1 => TaskType::Regression,
            Value::Null => TaskType::Classification,
            found => {
                let known = |(name, _): &&(&str, TaskType)| found == name;
                let Some((_, task)) = PROBLEMS.iter().find(known) else {
                    let names = PROBLEMS.map(|(name, _)| name).join(", ");
                    return Err(bad(path, "problem_type", found, &names));
                };
                *task
            }
        };
        let outputs = labels.len();
        let (fits, expected) = match task_type {
            TaskType::Classification => (outputs >= 2, "two labels or more"),
            TaskType::MultiLabel => (true, ""),
            TaskType::Regression => (outputs == 1, "one output"),
        };
        if !fits {
            let problem =
                format!("id2label: found {outputs} for {}, expected {expected}", task_type.name());
            return Err(Error::file(path, problem));
        }
        let ours = config.get(OURS);
        let length = ours.and_then(|ours| ours.get("max_length")).and_then(Value::as_u64);
        let max_length = length
            .and_then(|length| usize::try_from(length).ok())
            .map_or(longest, |length| length.min(longest));
        let long_texts = long_texts(path, ours, max_length)?;
        let mut task = Self {
            task_type,
            labels: if task_type == TaskType::Regression { vec![] } else { labels },
            labels_declared: true,
            pairs: ours.and_then(|ours| ours.get("pairs")).and_then(Value::as_bool),
            max_length,
            pooling: Pooling::First,
            long_texts,
            thresholds: vec![],
        };
        task.thresholds = thresholds(path, ours, &task)?;
        Ok(Some(task))
    }

    /// The text of the base's `config.json` at `path`, changed to that of a classifier with this
    /// task.
    #[doc(hidden)]
    pub fn config(&self, path: &Path, architecture: Architecture) -> Result<String> {
        let mut config = read_object(path)?;
        // A label count could contradict the label names, and the code of the base is not copied
        // along.
        for key in ["num_labels", "_num_labels", "_name_or_path", "auto_map"] {
            config.shift_remove(key);
        }
        // transformers 4 and 5 read `null` differently, so write what is computed here.
        if let Some(positions) = config.get_mut("position_embedding_type") {
            *positions = json!("absolute");
        }
        // transformers gives a regression's only output this name.
        let names = match self.task_type {
            TaskType::Regression => &vec!["LABEL_0".to_owned()],
            _ => &self.labels,
        };
        let numbered = || names.iter().enumerate();
        let problem = PROBLEMS.iter().find(|(_, task)| *task == self.task_type);
        let problem = problem.map(|(name, _)| *name);
        for (key, value) in [
            ("model_type", json!(architecture.model_type)),
            ("architectures", json!([architecture.class])),
            (
                "id2label",
                numbered()
                    .map(|(i, name)| (i.to_string(), json!(name)))
                    .collect::<Map<_, _>>()
                    .into(),
            ),
            (
                "label2id",
                numbered().map(|(i, name)| (name.clone(), json!(i))).collect::<Map<_, _>>().into(),
            ),
            ("problem_type", json!(problem)),
            (OURS, self.own_settings()),
        ] {
            config.insert(key.into(), value);
        }
        // Both transformers 4 and 5 understand this name.
        config.shift_remove("dtype");
        config.insert("torch_dtype".into(), json!("float32"));
        let text = serde_json::to_string_pretty(&config).map_err(Error::bug)?;
        Ok(text + "\n")
    }

    /// The settings that Hugging Face has no key for.
    fn own_settings(&self) -> Value {
        let mut settings = Map::new();
        settings.insert("pairs".into(), json!(self.pairs));
        settings.insert("max_length".into(), json!(self.max_length));
        if !self.long_texts.is_cut() {
            settings.insert("long_texts".into(), json!(self.long_texts));
        }
        if !self.thresholds.is_empty() {
            let named: Map<_, _> = self
                .named_thresholds()
                .map(|(label, value)| (label.clone(), json!(value)))
                .collect();
            settings.insert("thresholds".into(), named.into());
        }
        settings.into()
    }
}

/// What the settings `ours` of the file at `path` say of long texts; nothing is
/// [`LongTexts::Cut`].
fn long_texts(path: &Path, ours: Option<&Value>, max_length: usize) -> Result<LongTexts> {
    let Some(value) = ours.and_then(|ours| ours.get("long_texts")) else {
        return Ok(LongTexts::Cut);
    };
    let read = LongTexts::deserialize(value);
    let long_texts = read.map_err(|e| Error::file(path, format!("{OURS}.long_texts: {e}")))?;
    long_texts.check(max_length).map_err(|(key, found, expected)| {
        let problem = format!("{OURS}.long_texts: {key}: found {found}, expected {expected}");
        Error::file(path, problem)
    })?;
    Ok(long_texts)
}

/// The thresholds of `task` in the settings `ours` of the file at `path`, which has them by label.
fn thresholds(path: &Path, ours: Option<&Value>, task: &Task) -> Result<Vec<f32>> {
    let Some(value) = ours.and_then(|ours| ours.get("thresholds")) else { return Ok(vec![]) };
    let problem = |problem: String| Error::file(path, format!("{OURS}.thresholds: {problem}"));
    let named = BTreeMap::<String, f32>::deserialize(value).map_err(|e| problem(e.to_string()))?;
    let of_label = |label: &String| {
        let found = named.get(label).copied();
        found.ok_or_else(|| problem(format!("found none for the label {label:?}")))
    };
    let labels = task.labels_of_thresholds();
    let thresholds = labels.iter().map(of_label).collect::<Result<Vec<f32>>>()?;
    if named.len() != labels.len() {
        return Err(problem(format!("found {}, expected those of {labels:?}", named.len())));
    }
    let task = Task { thresholds, ..task.clone() };
    task.check_thresholds().map_err(|expected| problem(format!("expected {expected}")))?;
    Ok(task.thresholds)
}

/// The names of the labels, as in transformers. The error is the wrong key, and what was expected.
fn labels(config: &Map<String, Value>) -> std::result::Result<Vec<String>, (&'static str, String)> {
    const NAMES: &str = "id2label";
    const COUNT: &str = "num_labels";
    let value = |key: &str| config.get(key).unwrap_or(&Value::Null);
    let labels: Vec<String> = match (value(NAMES), value(COUNT)) {
        (Value::Null, count) => {
            let most = MOST_LABELS as u64;
            let count = if count.is_null() { Some(2) } else { count.as_u64() };
            let Some(count) = count.filter(|count| (1..=most).contains(count)) else {
                return Err((COUNT, format!("a whole number from 1 to {most}")));
            };
            (0..count).map(|i| format!("LABEL_{i}")).collect()
        }
        (Value::Object(names), _) => {
            let name = |i: usize| match names.get(&i.to_string())? {
                Value::String(name) => Some(name.clone()),
                Value::Number(name) => Some(name.to_string()),
                _ => None,
            };
            let labels = (0..names.len()).map(name).collect::<Option<Vec<_>>>().unwrap_or_default();
            if labels.is_empty() {
                return Err((NAMES, "a name for each number from 0".into()));
            }
            labels
        }
        _ => return Err((NAMES, "a name for each number from 0".into())),
    };
    check_labels(&labels).map_err(|problem| (NAMES, problem))?;
    Ok(labels)
}
