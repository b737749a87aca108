//! What a `config.json` says of a classifier that was saved whole, head included.

use super::{Architecture, TaskType};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The task of a model that was saved with its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedTask {
    /// What the head predicts.
    pub task_type: TaskType,
    /// Label names, by class number; none in a regression.
    pub labels: Vec<String>,
    /// Whether it is about pairs of texts, where that is said.
    pub pairs: Option<bool>,
    /// Tokens that a text is cut to, where that is said.
    pub max_length: Option<usize>,
}

/// The key of what Hugging Face has no key for.
const OURS: &str = "bitfit";

impl SavedTask {
    /// Reads it from the `config.json` at `path`; none where the model is no classifier.
    pub fn read(path: &Path, architecture: Architecture) -> Result<Option<Self>> {
        let config = read(path)?;
        let class = architecture.class();
        let named = config.get("architectures").and_then(Value::as_array);
        if !named.is_some_and(|classes| classes.iter().any(|name| name == class)) {
            return Ok(None);
        }
        let labels = match config.get("id2label").filter(|value| !value.is_null()) {
            // What transformers leaves out, being its default.
            None => Some(vec!["LABEL_0".to_owned(), "LABEL_1".to_owned()]),
            Some(Value::Object(names)) => (0..names.len())
                .map(|i| names.get(&i.to_string()).and_then(Value::as_str).map(str::to_owned))
                .collect::<Option<Vec<_>>>(),
            Some(_) => None,
        };
        let labels = labels.filter(|labels| !labels.is_empty()).ok_or_else(|| {
            let found = config.get("id2label").unwrap_or(&Value::Null);
            Error::file(
                path,
                format!("id2label: found {found}, expected a name for each number from 0"),
            )
        })?;
        let task_type = match config.get("problem_type").and_then(Value::as_str) {
            Some("single_label_classification") => TaskType::Classification,
            Some("multi_label_classification") => TaskType::MultiLabel,
            Some("regression") => TaskType::Regression,
            None if labels.len() == 1 => TaskType::Regression,
            None => TaskType::Classification,
            Some(found) => {
                let expected =
                    "single_label_classification, multi_label_classification or regression";
                let problem = format!("problem_type: found {found}, expected {expected}");
                return Err(Error::file(path, problem));
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
        Ok(Some(Self {
            task_type,
            labels: if task_type == TaskType::Regression { vec![] } else { labels },
            pairs: ours.and_then(|ours| ours.get("pairs")).and_then(Value::as_bool),
            max_length: length.and_then(|length| usize::try_from(length).ok()),
        }))
    }

    /// The base's `config.json` at `path`, as one of a classifier with this task.
    pub fn config(&self, path: &Path, architecture: Architecture) -> Result<String> {
        let mut config = read(path)?;
        // A count beside the names could contradict them.
        for key in ["num_labels", "_num_labels", "_name_or_path"] {
            config.shift_remove(key);
        }
        // A regression's one output has the name that transformers gives it.
        let names = match self.task_type {
            TaskType::Regression => &vec!["LABEL_0".to_owned()],
            _ => &self.labels,
        };
        let numbered = || names.iter().enumerate();
        let problem = match self.task_type {
            TaskType::Classification => "single_label_classification",
            TaskType::MultiLabel => "multi_label_classification",
            TaskType::Regression => "regression",
        };
        for (key, value) in [
            ("architectures", json!([architecture.class()])),
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
            (OURS, json!({"pairs": self.pairs, "max_length": self.max_length})),
        ] {
            config.insert(key.into(), value);
        }
        // The name that transformers 4 knows, and 5 understands.
        config.shift_remove("dtype");
        config.insert("torch_dtype".into(), json!("float32"));
        let text = serde_json::to_string_pretty(&config).map_err(|e| Error::Bug(e.to_string()))?;
        Ok(text + "\n")
    }
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    serde_json::from_str(&text).map_err(|e| Error::file(path, e.to_string()))
}
