//! A [`Run`]: a configuration that passed all checks which need neither the model nor the data.

use super::origin::Origin;
use super::{BitfitSection, CalibrationSection, ClassWeights, MethodSection, Metric};
use super::{DataSection, DataSize, ModelSection, PoolingChoice, TrainingSection, auto};
use super::{RunConfig, check, values};
use crate::bounds::{Count, Names, Positive, Probability};
use crate::data::{Columns, LabelColumns, Labels, MIN_LENGTH};
use crate::error::{Error, Result};
use crate::freeze::{Group, Switches};
use crate::methods::Method;
use crate::models::{Dropouts, ModelConfig, TaskType};
use crate::nn::{Pooling, Precision};
use crate::optim::{AdamWSettings, LrSchedule};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tch::Device;

/// A configuration that passed every check that needs neither the model nor the data. Values that
/// the base and the data do not decide are resolved.
#[derive(Debug, Clone)]
pub struct Run {
    /// The configuration as written, with absolute paths.
    written: RunConfig,
    /// The configuration with its defaults filled in.
    config: RunConfig,
    origin: Origin,
    /// The device to compute on.
    pub device: Device,
    /// The fine-tuning method.
    pub method: Method,
    /// What the `[bitfit]` section trains.
    pub switches: Switches,
    /// The optimizer's settings.
    pub adamw: AdamWSettings,
    /// The metric that decides which state is best.
    pub metric: Metric,
    /// Whether a greater value of the metric is better.
    pub greater_is_better: bool,
    /// Why the run has its number of epochs, if the data decided it.
    why_epochs: Option<&'static str>,
}

impl Run {
    /// Reads and checks the configuration at `path`, with overrides as in [`RunConfig::read`].
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::new(RunConfig::read(path, overrides)?, path, overrides)
    }

    /// Checks `config`, which a program made. Relative paths start from the working directory,
    /// unless they are ids of the Hub.
    pub fn in_code(mut config: RunConfig) -> Result<Self> {
        config.make_absolute()?;
        Self::new(config, Path::new("RunConfig"), &[])
    }

    /// Checks `config`, which came from `path` and `overrides`.
    pub fn new(config: RunConfig, path: &Path, overrides: &[String]) -> Result<Self> {
        let origin = Origin { path: path.to_owned(), overrides: overrides.to_vec() };
        let method = check::method(&origin, &config)?;
        check::all(&origin, &config, &method)?;
        let switches = check::switches(&origin, &config)?;
        let metric = check::metric(&origin, &config)?;
        let device = config.training.device.find();
        let device = device.map_err(|e| origin.error("training.device", &e.found, &e.expected))?;
        let greater_is_better = config.training.greater_is_better.unwrap_or(!metric.is_error());
        let rates = rates(&config, &method)?;
        let mut resolved = config.clone();
        let training = &mut resolved.training;
        let (rate, of_head) =
            (rate_of(&rates, Group::Embeddings)?, rate_of(&rates, Group::Classifier)?);
        if method.takes_steps() {
            training.learning_rate.get_or_insert(rate);
            if of_head != rate {
                training.head_learning_rate = Some(of_head);
            }
            training.settle_schedule(config.training.learning_rate.is_some());
        } else {
            resolved.model.pooling = PoolingChoice::Mean;
        }
        if config.model.task_type == TaskType::Regression {
            training.standardize_target.get_or_insert(true);
        }
        training.metric_for_best_model = Some(metric);
        training.greater_is_better = Some(greater_is_better);
        training.precision = training.precision.on(device)?;
        resolved.data.seed.get_or_insert(config.training.seed);
        resolved.data.settle_windows();
        resolved.method = section_of(&method)?;
        if method.has_switches() {
            resolve_rates(&mut resolved.bitfit, &rates)?;
        }
        let training = &config.training;
        let adamw = AdamWSettings {
            rates: rates.into_iter().map(|(group, rate)| (group, rate.get())).collect(),
            weight_decay: training.weight_decay.get(),
            beta1: training.adam_beta1.get(),
            beta2: training.adam_beta2.get(),
            epsilon: training.adam_epsilon.get(),
            max_grad_norm: training.max_grad_norm.get(),
        };
        Ok(Self {
            origin,
            device,
            method,
            switches,
            adamw,
            metric,
            greater_is_better,
            why_epochs: None,
            config: resolved,
            written: config,
        })
    }

    /// Checks `config`, a change of this run's configuration that a command made.
    pub fn again(&self, config: RunConfig) -> Result<Self> {
        Self::new(config, &self.origin.path, &self.origin.overrides)
    }

    /// The `[model]` section. The base and the data may still decide labels and dropouts.
    pub fn model(&self) -> &ModelSection {
        &self.config.model
    }

    /// The `[data]` section.
    pub fn data(&self) -> &DataSection {
        &self.config.data
    }

    /// The `[training]` section. The data may still decide class weights.
    pub fn training(&self) -> &TrainingSection {
        &self.config.training
    }

    /// The calibration; `None` without one.
    pub fn calibration(&self) -> Option<&CalibrationSection> {
        self.config.calibration.as_ref()
    }

    /// The configuration as written, with absolute paths and without resolved values.
    pub fn written(&self) -> &RunConfig {
        &self.written
    }

    /// The run's directory.
    pub fn output_dir(&self) -> &Path {
        &self.config.training.output_dir
    }

    /// The path of the run's `delta.safetensors`.
    pub fn delta_path(&self) -> PathBuf {
        self.output_dir().join("delta.safetensors")
    }

    /// The same run in the directory `output_dir`.
    pub fn with_output_dir(mut self, output_dir: PathBuf) -> Self {
        self.written.training.output_dir.clone_from(&output_dir);
        self.config.training.output_dir = output_dir;
        self
    }

    /// The same run with revisions of the base and the data on the Hub, where the run names none.
    pub fn with_revisions(mut self, model: Option<String>, data: Option<String>) -> Self {
        for config in [&mut self.written, &mut self.config] {
            config.model.revision = config.model.revision.take().or_else(|| model.clone());
            config.data.revision = config.data.revision.take().or_else(|| data.clone());
        }
        self
    }

    /// The same run with the resolved precision `precision`, where the run has
    /// [`Precision::Auto`].
    pub fn with_precision(mut self, precision: Precision) -> Self {
        if self.written.training.precision == Precision::Auto {
            self.config.training.precision = precision;
        }
        self
    }

    /// The same run with what the configuration leaves to data of `size`: the number of epochs, if
    /// it names neither epochs nor steps, and whether the best state is kept.
    pub fn with_data(mut self, size: DataSize) -> Result<Self> {
        if !self.method.takes_steps() {
            return Ok(self);
        }
        let training = &mut self.config.training;
        let falls = training.lr_scheduler_type.unwrap_or_default() != LrSchedule::Constant;
        let best = !falls || size.eval_rows >= auto::FEW_EVAL_ROWS;
        training.load_best_model_at_end.get_or_insert(best);
        if training.num_train_epochs.is_none() && training.max_steps <= 0 {
            let (epochs, why) = auto::epochs(size, training)?;
            (training.num_train_epochs, self.why_epochs) = (Some(epochs), Some(why));
        }
        Ok(self)
    }

    /// How long and at which rates the run trains, in a line for people. A line says what of it the
    /// configuration leaves to the defaults.
    pub fn describe(&self) -> [String; 2] {
        if !self.method.takes_steps() {
            return ["one pass over the rows, and a solution".into(), "none".into()];
        }
        let (training, written) = (&self.config.training, &self.written.training);
        let why = self.why_epochs.map(|why| format!(" (none configured: {why})"));
        let length = match training.max_steps {
            1.. => format!("{} steps", training.max_steps),
            _ => format!(
                "{} epochs{}",
                training.num_train_epochs.map_or(0, Count::get),
                why.unwrap_or_default()
            ),
        };
        let (rate, head) = (self.rate_of(Group::Embeddings), self.head_learning_rate());
        let of_head = if rate == head { String::new() } else { format!(", of the head {head:e}") };
        let schedule = training.lr_scheduler_type.unwrap_or_default();
        let chosen = if written.learning_rate.is_some() { "" } else { " (none configured)" };
        [length, format!("{rate:e}{of_head}, {schedule}{chosen}")]
    }

    /// The configuration with every value that the defaults, the base or the data decided. The run
    /// directory holds a copy.
    pub fn resolved(
        &self,
        labels: &[String],
        dropouts: Dropouts,
        pooling: Pooling,
        method: &Method,
    ) -> Result<RunConfig> {
        let mut config = self.config.clone();
        let model = &mut config.model;
        model.pooling = pooling.into();
        if model.task_type != TaskType::Regression {
            let count = u64::try_from(labels.len()).unwrap_or(u64::MAX);
            model.num_labels = Some(count.try_into()?);
            model.label_names = Some(Names::try_from(labels.to_vec())?);
        }
        let probability = |dropout: f64| Probability::try_from(dropout).map(Some);
        model.hidden_dropout_prob = probability(dropouts.hidden)?;
        model.attention_probs_dropout_prob = probability(dropouts.attention)?;
        model.classifier_dropout = probability(dropouts.classifier.unwrap_or(dropouts.hidden))?;
        config.method = section_of(method)?;
        Ok(config)
    }

    /// AdamW's learning rate where no key of the configuration has another; `None` for a method
    /// that takes no steps.
    pub fn learning_rate(&self) -> Option<f64> {
        self.method.takes_steps().then(|| self.rate_of(Group::Embeddings))
    }

    /// AdamW's learning rate for the head.
    pub fn head_learning_rate(&self) -> f64 {
        self.rate_of(Group::Classifier)
    }

    fn rate_of(&self, group: Group) -> f64 {
        self.adamw.rates.get(&group).copied().unwrap_or_default()
    }

    /// Turns a usage error in `result` into one that names the configuration file; anything else is
    /// returned unchanged.
    pub fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match error {
            Error::Usage(message) => Error::Toml { path: self.origin.path.clone(), message },
            other => other,
        })
    }

    /// The columns that hold texts and labels.
    pub fn columns(&self) -> Columns {
        let section = self.data();
        Columns {
            text: section.text_column.clone(),
            text_pair: section.text_pair_column.clone(),
            labels: match &section.label_columns {
                Some(names) => LabelColumns::Each(names.to_vec()),
                None => LabelColumns::One {
                    name: section.label_column.clone(),
                    separator: section.label_separator.clone().map(String::from),
                },
            },
            header: section.header,
            delimiter: section.delimiter,
            skip_bad_rows: section.skip_bad_rows,
        }
    }

    /// The weight of each class in the loss; `None` without `training.class_weights`. `having` is
    /// the number of training rows with each of `labels`, `rows` the number of all.
    ///
    /// Errs where the configured weights do not fit the labels, or where `"balanced"` meets a label
    /// without rows.
    pub fn class_weights(
        &self,
        labels: &Labels,
        having: &[usize],
        rows: usize,
    ) -> Result<Option<Vec<f64>>> {
        let Some(weights) = &self.training().class_weights else { return Ok(None) };
        let key = "training.class_weights";
        Ok(Some(match weights {
            ClassWeights::Named(_) => {
                if let Some((name, _)) =
                    labels.names.iter().zip(having).find(|(_, having)| **having == 0)
                {
                    let expected =
                        format!("weights as numbers: no training row has the label {name:?}");
                    return Err(self.error(key, &"balanced", &expected));
                }
                let several = self.model().task_type == TaskType::MultiLabel;
                let weight = |&count: &usize| match several {
                    // A label that every row has would weigh 0, so one row is counted as not having
                    // it.
                    true => rows.saturating_sub(count).max(1) as f64 / count as f64,
                    false => rows as f64 / (having.len() * count) as f64,
                };
                having.iter().map(weight).collect()
            }
            ClassWeights::List(list) if list.len() == labels.names.len() => list.clone(),
            ClassWeights::List(list) => {
                let expected = format!("{} numbers, for {labels}", labels.names.len());
                return Err(self.error(key, &format!("{list:?}"), &expected));
            }
            ClassWeights::Table(table) => {
                let names: BTreeSet<&str> = labels.names.iter().map(String::as_str).collect();
                if let Some(name) = table.keys().find(|name| !names.contains(name.as_str())) {
                    let expected = format!("labels of the data: {labels}");
                    return Err(self.error(key, &format!("{name:?}"), &expected));
                }
                labels.names.iter().map(|label| table.get(label).copied().unwrap_or(1.0)).collect()
            }
        }))
    }

    /// The seed for drawing and splitting rows: `data.seed`, or else `training.seed`.
    pub fn data_seed(&self) -> u64 {
        self.data().seed.unwrap_or(self.training().seed)
    }

    /// The class names that the configuration gives, or else the numbers 0 to `num_labels` - 1.
    /// `None` where the configuration gives neither; empty for a regression.
    pub fn label_names(&self) -> Option<Vec<String>> {
        let (model, data) = (self.model(), self.data());
        if model.task_type == TaskType::Regression {
            return Some(vec![]);
        }
        match model.label_names.as_ref().or(data.label_columns.as_ref()) {
            Some(names) => Some(names.to_vec()),
            None => Some((0..model.num_labels?.get()).map(|number| number.to_string()).collect()),
        }
    }

    /// The error that `key` is `found` and not `expected`. It names the override that set the key,
    /// or else the configuration file.
    pub fn error(&self, key: &str, found: &dyn std::fmt::Display, expected: &str) -> Error {
        self.origin.error(key, found, expected)
    }

    /// Checks `data.max_length` against the number of positions that the base has.
    pub fn check_model(&self, model: &ModelConfig) -> Result<()> {
        let (found, most) = (self.data().max_length, model.max_length());
        let expected =
            format!("{MIN_LENGTH} to {most}, the longest that the base has positions for");
        let fits = i64::try_from(found.get()).is_ok_and(|length| length <= most);
        self.origin.ensure(fits, "data.max_length", &found, &expected)
    }

    /// The dropout probabilities of the configuration, or else the base's.
    pub fn dropouts(&self, model: &ModelConfig) -> Dropouts {
        let section = self.model();
        let own = |own: Option<Probability>| own.map(Probability::get);
        Dropouts {
            hidden: own(section.hidden_dropout_prob).unwrap_or(model.dropouts.hidden),
            attention: own(section.attention_probs_dropout_prob)
                .unwrap_or(model.dropouts.attention),
            classifier: own(section.classifier_dropout).or(model.dropouts.classifier),
        }
    }
}

/// The learning rate of each group of parameters.
fn rates(config: &RunConfig, method: &Method) -> Result<BTreeMap<Group, Positive>> {
    let bitfit = &config.bitfit;
    let rate = match config.training.learning_rate {
        Some(rate) => rate,
        // Without steps, no rate is ever used.
        None => Positive::try_from(method.learning_rate().unwrap_or(1.0))?,
    };
    let of_head = match (config.training.learning_rate, method.head_learning_rate()) {
        (None, Some(own)) => Positive::try_from(own)?,
        _ => rate,
    };
    let of_head = config.training.head_learning_rate.unwrap_or(of_head);
    let of_biases = bitfit.bias_learning_rate.unwrap_or(rate);
    Ok(BTreeMap::from([
        (Group::Attention, bitfit.attention_learning_rate.unwrap_or(of_biases)),
        (Group::Feedforward, bitfit.feedforward_learning_rate.unwrap_or(of_biases)),
        (Group::LayerNorm, bitfit.layer_norm_learning_rate.unwrap_or(of_biases)),
        (Group::Other, bitfit.other_learning_rate.unwrap_or(of_biases)),
        (Group::Embeddings, rate),
        (Group::Classifier, of_head),
        (Group::Lora, rate),
        (Group::Adapter, rate),
    ]))
}

fn rate_of(rates: &BTreeMap<Group, Positive>, group: Group) -> Result<Positive> {
    let rate = rates.get(&group).copied();
    rate.ok_or_else(|| Error::Bug(format!("no learning rate of {}", group.name())))
}

/// Writes the learning rates of the biases into the `[bitfit]` section.
fn resolve_rates(bitfit: &mut BitfitSection, rates: &BTreeMap<Group, Positive>) -> Result<()> {
    bitfit.bias_learning_rate.get_or_insert(rate_of(rates, Group::Embeddings)?);
    for (group, rate) in [
        (Group::Attention, &mut bitfit.attention_learning_rate),
        (Group::Feedforward, &mut bitfit.feedforward_learning_rate),
        (Group::LayerNorm, &mut bitfit.layer_norm_learning_rate),
        (Group::Other, &mut bitfit.other_learning_rate),
    ] {
        *rate = Some(rate_of(rates, group)?);
    }
    Ok(())
}

/// The `[method]` section of a method, whose keys are the method's own.
pub(super) fn section_of(method: &Method) -> Result<MethodSection> {
    values(method)?.try_into().map_err(Error::bug)
}
