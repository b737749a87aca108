//! The run's configuration: [`RunConfig`] as it is written in TOML, [`Run`] resolved and checked.

use crate::base::Base;
use crate::data::Columns;
use crate::error::{Error, Result};
use crate::freeze::{FreezePlan, Group, Switches};
use crate::models::{Dropouts, ModelConfig};
use crate::optim::AdamWSettings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tch::{Cuda, Device};

/// A configuration file, as written. Every key has a default but the three paths that only the user knows.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// The base.
    pub model: ModelSection,
    /// What trains.
    pub bitfit: BitfitSection,
    /// What it learns from.
    pub data: DataSection,
    /// How.
    pub training: TrainingSection,
}

/// `[model]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// The base: a directory in Hugging Face layout.
    pub model_name_or_path: PathBuf,
    /// Its weight file's name; by default the first of `model.ot`, `model.safetensors`, `pytorch_model.bin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// A delta, or a plain safetensors file under Hugging Face's names, to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_delta: Option<PathBuf>,
    /// `classification`.
    pub task_type: TaskType,
    /// Number of classes; by default the labels in the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_labels: Option<usize>,
    /// Class names by number; by default the labels in the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_names: Option<Vec<String>>,
    /// By default the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_dropout_prob: Option<f64>,
    /// By default the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_probs_dropout_prob: Option<f64>,
    /// By default the base's, and where it has none, `hidden_dropout_prob`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier_dropout: Option<f64>,
}

/// What the head predicts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskType {
    /// One class for each row.
    #[default]
    Classification,
}

/// `[bitfit]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct BitfitSection {
    /// Always true here.
    pub freeze_all_weights: bool,
    /// Always true here.
    pub train_bias_only: bool,
    /// The rate of the encoder's biases; by default `training.learning_rate`, which is then the head's alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias_learning_rate: Option<f64>,
    /// Query, key, value and the attention's output.
    pub train_attention_bias: bool,
    /// Both dense layers of the feedforward.
    pub train_feedforward_bias: bool,
    /// Every LayerNorm, the embeddings' included.
    pub train_layer_norm_bias: bool,
    /// The head's.
    pub train_classifier_bias: bool,
    /// The pooler's.
    pub train_other_bias: bool,
    /// The head's weight: random at first, and in no base.
    pub train_classifier_weight: bool,
    /// Biases that train in any case: regexes over whole names.
    pub include: Vec<String>,
    /// Biases that do not: regexes over whole names, after `include`.
    pub exclude: Vec<String>,
}

/// `[data]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSection {
    /// `.csv`, `.tsv`, `.jsonl` or a folder of class folders.
    pub train: PathBuf,
    /// The same for evaluation; without it, `eval_fraction` of the training rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<PathBuf>,
    /// The share of training rows, drawn by class, that is kept for evaluation where there is no `eval`.
    pub eval_fraction: f64,
    /// The text's column.
    pub text_column: String,
    /// The second text's, where there are pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair_column: Option<String>,
    /// The label's.
    pub label_column: String,
    /// Another order in each epoch.
    pub shuffle: bool,
    /// Tokens that a text is cut to, special tokens included.
    pub max_length: usize,
}

/// When to evaluate or save.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// Every `eval_steps`, `save_steps`.
    #[default]
    Steps,
    /// At the end of each epoch.
    Epoch,
    /// Never on the way. (A run always ends with an evaluation.)
    No,
}

/// What decides which evaluation is the best.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of rows predicted right.
    #[default]
    Accuracy,
    /// F1 of class 1 where there are two classes, the mean over classes otherwise.
    F1,
    /// Matthews correlation.
    Matthews,
    /// Mean cross entropy.
    Loss,
}

impl Metric {
    /// Its name in metrics files.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::F1 => "f1",
            Metric::Matthews => "matthews",
            Metric::Loss => "loss",
        }
    }
}

/// Arithmetic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit throughout.
    #[default]
    Fp32,
}

/// `[training]`: the keys of Hugging Face's `TrainingArguments`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingSection {
    /// The run directory.
    pub output_dir: PathBuf,
    /// Passes over the training rows.
    pub num_train_epochs: u64,
    /// Steps; when positive, it wins over `num_train_epochs`.
    pub max_steps: i64,
    /// Rows in a step.
    pub per_device_train_batch_size: usize,
    /// Rows in a batch when evaluating.
    pub per_device_eval_batch_size: usize,
    /// AdamW's rate.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// AdamW's beta 1.
    pub adam_beta1: f64,
    /// AdamW's beta 2.
    pub adam_beta2: f64,
    /// AdamW's epsilon.
    pub adam_epsilon: f64,
    /// The gradient's norm is clipped to this; 0: never.
    pub max_grad_norm: f64,
    /// Of the new head, the order of the rows, dropout and the split.
    pub seed: u64,
    /// When to evaluate; a run always ends with an evaluation.
    pub eval_strategy: Interval,
    /// Steps between evaluations.
    pub eval_steps: u64,
    /// When to save what is trained so far under `checkpoints/`.
    pub save_strategy: Interval,
    /// Steps between saves.
    pub save_steps: u64,
    /// The newest checkpoints that are kept.
    pub save_total_limit: usize,
    /// Steps between lines of the log.
    pub logging_steps: u64,
    /// Whether `delta.safetensors` is the best evaluated, or the last.
    pub load_best_model_at_end: bool,
    /// What the best has the best of.
    pub metric_for_best_model: Metric,
    /// By default true, and false for the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greater_is_better: Option<bool>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// `fp32`.
    pub precision: Precision,
}

impl Default for ModelSection {
    fn default() -> Self {
        Self {
            model_name_or_path: PathBuf::new(),
            weights: None,
            init_delta: None,
            task_type: TaskType::Classification,
            num_labels: None,
            label_names: None,
            hidden_dropout_prob: None,
            attention_probs_dropout_prob: None,
            classifier_dropout: None,
        }
    }
}

impl Default for BitfitSection {
    fn default() -> Self {
        Self {
            freeze_all_weights: true,
            train_bias_only: true,
            bias_learning_rate: None,
            train_attention_bias: true,
            train_feedforward_bias: true,
            train_layer_norm_bias: true,
            train_classifier_bias: true,
            train_other_bias: true,
            train_classifier_weight: true,
            include: vec![],
            exclude: vec![],
        }
    }
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            train: PathBuf::new(),
            eval: None,
            eval_fraction: 0.1,
            text_column: "text".into(),
            text_pair_column: None,
            label_column: "label".into(),
            shuffle: true,
            max_length: 128,
        }
    }
}

impl Default for TrainingSection {
    fn default() -> Self {
        Self {
            output_dir: PathBuf::new(),
            num_train_epochs: 3,
            max_steps: -1,
            per_device_train_batch_size: 16,
            per_device_eval_batch_size: 32,
            learning_rate: 1e-3,
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            max_grad_norm: 1.0,
            seed: 42,
            eval_strategy: Interval::Steps,
            eval_steps: 100,
            save_strategy: Interval::Steps,
            save_steps: 100,
            save_total_limit: 2,
            logging_steps: 50,
            load_best_model_at_end: true,
            metric_for_best_model: Metric::Accuracy,
            greater_is_better: None,
            device: "auto".into(),
            precision: Precision::Fp32,
        }
    }
}

impl RunConfig {
    /// Reads `path`, then lays the overrides `SECTION.KEY=VALUE` over it.
    ///
    /// Relative paths in the file are made absolute by the file's directory, in overrides by the working directory.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = crate::files::read_text(path).map_err(|error| {
            let message = match error {
                Error::Io { source, .. } => format!("cannot be read: {source}"),
                Error::Data { line, problem, .. } => {
                    format!("line {}: {problem}", line.unwrap_or(1))
                }
                other => other.to_string(),
            };
            Error::Toml { path: path.to_owned(), message }
        })?;
        let mut config: RunConfig = toml::from_str(&text).map_err(|e| toml_error(path, &e))?;
        let folder = std::fs::canonicalize(
            path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        );
        let folder = folder.map_err(Error::io("find", path))?;
        config.for_each_path(|value| *value = plain(&folder.join(&*value)));
        if overrides.is_empty() {
            return Ok(config);
        }
        let here = std::env::current_dir().map_err(Error::io("find", Path::new(".")))?;
        let mut table = toml::Table::try_from(&config).map_err(|e| {
            Error::Usage(format!("{}: with --set, every path must be UTF-8 ({e})", path.display()))
        })?;
        for text in overrides {
            override_key(&mut table, text)?;
            // Checked one by one, so that a message is about the right one.
            config = table.clone().try_into().map_err(|e| {
                let message = with_suggestion(toml::de::Error::message(&e));
                Error::Usage(format!("--set {text}: {message}"))
            })?;
        }
        config.for_each_path(|value| *value = plain(&here.join(&*value)));
        // `--set data.eval=` takes it away.
        config.data.eval = config.data.eval.filter(|path| !path.as_os_str().is_empty());
        config.model.init_delta =
            config.model.init_delta.filter(|path| !path.as_os_str().is_empty());
        Ok(config)
    }

    fn for_each_path(&mut self, mut change: impl FnMut(&mut PathBuf)) {
        let always = [
            &mut self.model.model_name_or_path,
            &mut self.data.train,
            &mut self.training.output_dir,
        ];
        let maybe = [self.model.init_delta.as_mut(), self.data.eval.as_mut()];
        for path in always.into_iter().chain(maybe.into_iter().flatten()) {
            if !path.as_os_str().is_empty() {
                change(path);
            }
        }
    }

    /// The file as it was run: every key.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self)
            .map_err(|e| Error::Usage(format!("the configuration cannot be written down: {e}")))
    }

    /// The bias switches.
    pub fn switches(&self) -> Switches {
        let b = &self.bitfit;
        let groups = [
            (Group::Attention, b.train_attention_bias),
            (Group::Feedforward, b.train_feedforward_bias),
            (Group::LayerNorm, b.train_layer_norm_bias),
            (Group::Classifier, b.train_classifier_bias),
            (Group::Other, b.train_other_bias),
        ];
        Switches {
            biases: groups
                .into_iter()
                .filter(|(_, on)| *on)
                .map(|(group, _)| group)
                .collect::<BTreeSet<_>>(),
            classifier_weight: b.train_classifier_weight,
            include: b.include.clone(),
            exclude: b.exclude.clone(),
        }
    }
}

/// An absolute path without `.` and `..`, for people to read.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// A TOML error with its place, and with the nearest key where one is unknown.
fn toml_error(path: &Path, error: &toml::de::Error) -> Error {
    let text = error.to_string();
    let message = error.message();
    // `to_string` ends in the message, after the place and the line itself.
    let message = text.trim_end().replace(message, &with_suggestion(message));
    Error::Toml { path: path.to_owned(), message }
}

/// Serde says "unknown field `x`, expected one of `a`, `b`": the nearest of them is likely meant.
fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let nearest = match (message.starts_with("unknown "), quoted.next()) {
        (true, Some(found)) => quoted
            .map(|allowed| (strsim::damerau_levenshtein(found, allowed), allowed))
            .filter(|(distance, allowed)| *distance <= 2.max(allowed.len() / 3))
            .min(),
        _ => None,
    };
    match nearest {
        Some((_, name)) => format!("{message}; did you mean `{name}`?"),
        None => message.to_owned(),
    }
}

fn override_key(table: &mut toml::Table, text: &str) -> Result<()> {
    let usage = || {
        Error::Usage(format!(
            "--set {text}: expected SECTION.KEY=VALUE, such as training.learning_rate=4e-4"
        ))
    };
    let (key, value) = text.split_once('=').ok_or_else(usage)?;
    let (section, name) = key.trim().split_once('.').ok_or_else(usage)?;
    // A bare word is a string, so that paths and names need no quotes within quotes.
    let value = toml::from_str::<toml::Table>(&format!("value = {value}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.trim().to_owned()));
    let section_value =
        table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    section_value.as_table_mut().ok_or_else(usage)?.insert(name.to_owned(), value);
    Ok(())
}

/// A configuration with everything checked that can be checked without reading the model or the data.
#[derive(Debug, Clone)]
pub struct Run {
    /// As written, with absolute paths.
    pub config: RunConfig,
    origin: Origin,
    /// Where to compute.
    pub device: Device,
    /// What trains.
    pub switches: Switches,
    /// The optimizer's settings.
    pub adamw: AdamWSettings,
    /// Whether more of the metric is better.
    pub greater_is_better: bool,
}

impl Run {
    /// Reads and checks the configuration at `path`, with overrides as in [`RunConfig::read`].
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::new(RunConfig::read(path, overrides)?, path, overrides)
    }

    /// Checks `config`, which came from `path` and `overrides`.
    pub fn new(config: RunConfig, path: &Path, overrides: &[String]) -> Result<Self> {
        let check = Origin { path: path.to_owned(), overrides: overrides.to_vec() };
        let (model, bitfit, data, training) =
            (&config.model, &config.bitfit, &config.data, &config.training);
        for (key, value) in [
            ("model.model_name_or_path", &model.model_name_or_path),
            ("data.train", &data.train),
            ("training.output_dir", &training.output_dir),
        ] {
            check.that(!value.as_os_str().is_empty(), key, &"nothing", "a path")?;
        }
        for (key, value) in [
            ("bitfit.freeze_all_weights", bitfit.freeze_all_weights),
            ("bitfit.train_bias_only", bitfit.train_bias_only),
        ] {
            check.that(
                value,
                key,
                &value,
                "true: training weights is another method, full fine-tuning, which this is not",
            )?;
        }
        for (key, value) in [
            ("model.hidden_dropout_prob", model.hidden_dropout_prob),
            ("model.attention_probs_dropout_prob", model.attention_probs_dropout_prob),
            ("model.classifier_dropout", model.classifier_dropout),
        ] {
            let value = value.unwrap_or(0.0);
            check.that((0.0..1.0).contains(&value), key, &value, "a probability below 1")?;
        }
        if let Some(names) = &model.label_names {
            let distinct = names.iter().collect::<BTreeSet<_>>().len();
            check.that(
                distinct == names.len() && distinct >= 2,
                "model.label_names",
                &format!("{names:?}"),
                "two or more different names",
            )?;
            let count = model.num_labels.unwrap_or(distinct);
            check.that(
                count == distinct,
                "model.num_labels",
                &count,
                &format!("{distinct}, the number of label_names"),
            )?;
        }
        let labels = model.num_labels.unwrap_or(2);
        check.that((2..=10_000).contains(&labels), "model.num_labels", &labels, "2 to 10000")?;
        check.that(
            data.eval.is_some() || (data.eval_fraction > 0.0 && data.eval_fraction < 1.0),
            "data.eval_fraction",
            &data.eval_fraction,
            "more than 0 and less than 1",
        )?;
        check.that(data.max_length >= 3, "data.max_length", &data.max_length, "3 or more")?;
        let positive = "a positive number";
        for (key, value) in [
            ("training.learning_rate", training.learning_rate),
            ("bitfit.bias_learning_rate", bitfit.bias_learning_rate.unwrap_or(1.0)),
            ("training.adam_epsilon", training.adam_epsilon),
        ] {
            check.that(value > 0.0 && value.is_finite(), key, &value, positive)?;
        }
        for (key, value) in [
            ("training.weight_decay", training.weight_decay),
            ("training.max_grad_norm", training.max_grad_norm),
        ] {
            check.that(value >= 0.0 && value.is_finite(), key, &value, "0 or a positive number")?;
        }
        for (key, value) in [
            ("training.adam_beta1", training.adam_beta1),
            ("training.adam_beta2", training.adam_beta2),
        ] {
            check.that((0.0..1.0).contains(&value), key, &value, "a number from 0 and below 1")?;
        }
        for (key, value) in [
            ("training.num_train_epochs", training.num_train_epochs),
            ("training.per_device_train_batch_size", training.per_device_train_batch_size as u64),
            ("training.per_device_eval_batch_size", training.per_device_eval_batch_size as u64),
            ("training.eval_steps", training.eval_steps),
            ("training.save_steps", training.save_steps),
            ("training.save_total_limit", training.save_total_limit as u64),
            ("training.logging_steps", training.logging_steps),
        ] {
            check.that(value >= 1, key, &value, "1 or more")?;
        }
        let bias_learning_rate = bitfit.bias_learning_rate.unwrap_or(training.learning_rate);
        let adamw = AdamWSettings {
            learning_rate: training.learning_rate,
            bias_learning_rate,
            weight_decay: training.weight_decay,
            beta1: training.adam_beta1,
            beta2: training.adam_beta2,
            epsilon: training.adam_epsilon,
            max_grad_norm: training.max_grad_norm,
        };
        let greater_is_better =
            training.greater_is_better.unwrap_or(training.metric_for_best_model != Metric::Loss);
        let device = device(&training.device)
            .map_err(|(found, expected)| check.error("training.device", &found, &expected))?;
        Ok(Self {
            origin: check,
            device,
            switches: config.switches(),
            adamw,
            greater_is_better,
            config,
        })
    }

    /// The configuration with everything that defaults, base and data decide, as it is written into the run directory.
    pub fn resolved(&self, labels: &[String], dropouts: Dropouts) -> RunConfig {
        let mut config = self.config.clone();
        config.model.num_labels = Some(labels.len());
        config.model.label_names = Some(labels.to_vec());
        config.model.hidden_dropout_prob = Some(dropouts.hidden);
        config.model.attention_probs_dropout_prob = Some(dropouts.attention);
        config.model.classifier_dropout = Some(dropouts.classifier.unwrap_or(dropouts.hidden));
        config.bitfit.bias_learning_rate = Some(self.adamw.bias_learning_rate);
        config.training.greater_is_better = Some(self.greater_is_better);
        config
    }

    /// Decides what trains; an error names the configuration.
    pub fn plan(&self, base: &Base) -> Result<FreezePlan> {
        FreezePlan::new(&base.shapes(), &base.new, &self.switches).map_err(|error| match error {
            Error::Usage(message) => Error::Toml { path: self.origin.path.clone(), message },
            other => other,
        })
    }

    /// The columns that hold texts and labels, and the classes where they are known.
    pub fn columns(&self) -> Columns {
        let section = &self.config.data;
        Columns {
            text: section.text_column.clone(),
            text_pair: section.text_pair_column.clone(),
            label: Some(section.label_column.clone()),
            classes: self.label_names(),
        }
    }

    /// The class names that the configuration gives, or the numbers that it asks for.
    pub fn label_names(&self) -> Option<Vec<String>> {
        let numbers = |count| (0..count).map(|i: usize| i.to_string()).collect();
        self.config.model.label_names.clone().or_else(|| self.config.model.num_labels.map(numbers))
    }

    /// Where the task is written.
    pub fn delta_path(&self) -> PathBuf {
        self.config.training.output_dir.join("delta.safetensors")
    }

    /// An error about one of its keys.
    pub fn error(&self, key: &str, found: &dyn std::fmt::Display, expected: &str) -> Error {
        self.origin.error(key, found, expected)
    }

    /// Checks what depends on the base.
    pub fn check_model(&self, model: &ModelConfig) -> Result<()> {
        let (found, most) = (self.config.data.max_length, model.max_position_embeddings);
        let expected = format!("3 to {most}, the base's max_position_embeddings");
        self.origin.that(
            i64::try_from(found).is_ok_and(|n| n <= most),
            "data.max_length",
            &found,
            &expected,
        )
    }

    /// Dropout probabilities: the base's, where the configuration has no others.
    pub fn dropouts(&self, model: &ModelConfig) -> Dropouts {
        let section = &self.config.model;
        Dropouts {
            hidden: section.hidden_dropout_prob.unwrap_or(model.dropouts.hidden),
            attention: section.attention_probs_dropout_prob.unwrap_or(model.dropouts.attention),
            classifier: section.classifier_dropout.or(model.dropouts.classifier),
        }
    }
}

/// Where a configuration comes from, for messages.
#[derive(Debug, Clone)]
struct Origin {
    path: PathBuf,
    overrides: Vec<String>,
}

impl Origin {
    fn that(
        &self,
        good: bool,
        key: &str,
        found: &dyn std::fmt::Display,
        expected: &str,
    ) -> Result<()> {
        if good { Ok(()) } else { Err(self.error(key, found, expected)) }
    }

    fn error(&self, key: &str, found: &dyn std::fmt::Display, expected: &str) -> Error {
        let sets_it =
            |text: &&String| text.split('=').next().is_some_and(|name| name.trim() == key);
        if let Some(text) = self.overrides.iter().rev().find(sets_it) {
            return Error::Usage(format!("--set {text}: found {found}, expected {expected}"));
        }
        Error::Config {
            path: self.path.to_owned(),
            key: key.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }
}

/// The device that `auto`, `cpu`, `cuda` or `cuda:N` names; as an error, what was found and what was expected.
pub fn device(name: &str) -> std::result::Result<Device, (String, String)> {
    let count = Cuda::device_count().max(0) as usize;
    let index = match name {
        "auto" => return Ok(if count > 0 { Device::Cuda(0) } else { Device::Cpu }),
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        _ => name.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
    };
    match index {
        Some(index) if index < count => Ok(Device::Cuda(index)),
        Some(_) => Err((name.into(), format!("auto or cpu: {}", no_device(count)))),
        None => Err((name.into(), "auto, cpu, cuda or cuda:N".into())),
    }
}

fn no_device(count: usize) -> String {
    if count > 0 {
        return format!("libtorch sees {count} CUDA device{}", if count == 1 { "" } else { "s" });
    }
    if tch::utils::has_cudart() {
        "libtorch sees no CUDA device on this machine (is the driver installed, and CUDA_VISIBLE_DEVICES right?)".into()
    } else {
        "this is a build without CUDA; scripts/download_libtorch.sh --cuda and a new build make one with it".into()
    }
}
