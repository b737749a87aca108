//! Checks of a configuration that need neither the model nor the data.

use super::{BitfitSection, ClassWeights, MethodName, MethodSection, Metric, RunConfig};
use crate::data::{Columns, DELIMITER, LabelColumns, Labels, MIN_LENGTH, can_delimit};
use crate::error::{Error, Result};
use crate::freeze::{Group, Layers, Switches};
use crate::hub;
use crate::methods::{AdapterConfig, LoraConfig, Method};
use crate::models::{Dropouts, ModelConfig, TaskType, Term};
use crate::optim::AdamWSettings;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tch::{Cuda, Device};

/// A configuration that passed every check that needs neither the model nor the data.
#[derive(Debug, Clone)]
pub struct Run {
    /// The configuration as written, with absolute paths.
    pub config: RunConfig,
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
        let method = check.method(&config)?;
        for (key, value) in [
            ("bitfit.freeze_all_weights", bitfit.freeze_all_weights),
            ("bitfit.train_bias_only", bitfit.train_bias_only),
        ] {
            let expected = "true: training weights is another method, such as full fine-tuning, method.name = \"full\"";
            check.that(value || method == Method::Full, key, &value, expected)?;
        }
        for (key, value) in [
            ("model.hidden_dropout_prob", model.hidden_dropout_prob),
            ("model.attention_probs_dropout_prob", model.attention_probs_dropout_prob),
            ("model.classifier_dropout", model.classifier_dropout),
        ] {
            let value = value.unwrap_or(0.0);
            check.that((0.0..1.0).contains(&value), key, &value, "a probability below 1")?;
        }
        check.labels(&config)?;
        check.hub(&config)?;
        let mut switches = check.switches(bitfit)?;
        switches.random = bitfit.random_biases.map(|count| (count, training.seed));
        for (key, samples) in
            [("data.train_samples", data.train_samples), ("data.eval_samples", data.eval_samples)]
        {
            check.that(samples != Some(0), key, &0, "1 or more")?;
        }
        check.that(
            data.eval.is_some() || (data.eval_fraction > 0.0 && data.eval_fraction < 1.0),
            "data.eval_fraction",
            &data.eval_fraction,
            "more than 0 and less than 1",
        )?;
        if let Some(delimiter) = data.delimiter {
            let shown = format!("{delimiter:?}");
            check.that(can_delimit(delimiter), "data.delimiter", &shown, DELIMITER)?;
        }
        let most = format!("{MIN_LENGTH} or more");
        check.that(data.max_length >= MIN_LENGTH, "data.max_length", &data.max_length, &most)?;
        let positive = "a positive number";
        for (key, value) in [
            ("training.learning_rate", training.learning_rate.unwrap_or(1.0)),
            ("bitfit.bias_learning_rate", bitfit.bias_learning_rate.unwrap_or(1.0)),
            ("bitfit.attention_learning_rate", bitfit.attention_learning_rate.unwrap_or(1.0)),
            ("bitfit.feedforward_learning_rate", bitfit.feedforward_learning_rate.unwrap_or(1.0)),
            ("bitfit.layer_norm_learning_rate", bitfit.layer_norm_learning_rate.unwrap_or(1.0)),
            ("bitfit.other_learning_rate", bitfit.other_learning_rate.unwrap_or(1.0)),
            ("training.adam_epsilon", training.adam_epsilon),
        ] {
            check.that(value > 0.0 && value.is_finite(), key, &value, positive)?;
        }
        for (key, value) in [
            ("training.weight_decay", training.weight_decay),
            ("training.max_grad_norm", training.max_grad_norm),
            ("training.early_stopping_threshold", training.early_stopping_threshold),
        ] {
            check.that(value >= 0.0 && value.is_finite(), key, &value, "0 or a positive number")?;
        }
        for (key, value) in [
            ("training.adam_beta1", training.adam_beta1),
            ("training.adam_beta2", training.adam_beta2),
            ("training.warmup_ratio", training.warmup_ratio),
            ("training.label_smoothing_factor", training.label_smoothing_factor),
        ] {
            check.that((0.0..1.0).contains(&value), key, &value, "a number from 0 and below 1")?;
        }
        for (key, value) in [
            ("training.num_train_epochs", training.num_train_epochs),
            ("training.per_device_train_batch_size", training.per_device_train_batch_size as u64),
            ("training.gradient_accumulation_steps", training.gradient_accumulation_steps as u64),
            ("training.per_device_eval_batch_size", training.per_device_eval_batch_size as u64),
            ("training.early_stopping_patience", training.early_stopping_patience.unwrap_or(1)),
            ("training.eval_steps", training.eval_steps),
            ("training.save_steps", training.save_steps),
            ("training.save_total_limit", training.save_total_limit as u64),
            ("training.logging_steps", training.logging_steps),
        ] {
            check.that(value >= 1, key, &value, "1 or more")?;
        }
        check.tokens(&config)?;
        check.loss(&config)?;
        let learning_rate = training.learning_rate.unwrap_or(method.learning_rate());
        let bias_learning_rate = bitfit.bias_learning_rate.unwrap_or(learning_rate);
        let rate = |own: Option<f64>| own.unwrap_or(bias_learning_rate);
        let adamw = AdamWSettings {
            rates: BTreeMap::from([
                (Group::Attention, rate(bitfit.attention_learning_rate)),
                (Group::Feedforward, rate(bitfit.feedforward_learning_rate)),
                (Group::LayerNorm, rate(bitfit.layer_norm_learning_rate)),
                (Group::Other, rate(bitfit.other_learning_rate)),
                (Group::Embeddings, learning_rate),
                (Group::Classifier, learning_rate),
                (Group::Lora, learning_rate),
                (Group::Adapter, learning_rate),
            ]),
            weight_decay: training.weight_decay,
            beta1: training.adam_beta1,
            beta2: training.adam_beta2,
            epsilon: training.adam_epsilon,
            max_grad_norm: training.max_grad_norm,
        };
        let metrics = Metric::of(model.task_type);
        let default = metrics.first().copied().unwrap_or(Metric::Loss);
        let metric = training.metric_for_best_model.unwrap_or(default);
        let names: Vec<&str> = metrics.iter().map(|metric| metric.name()).collect();
        let expected = format!("{} for task_type = {:?}", names.join(", "), model.task_type.name());
        check.that(
            metrics.contains(&metric),
            "training.metric_for_best_model",
            &metric.name(),
            &expected,
        )?;
        let greater_is_better = training.greater_is_better.unwrap_or(!metric.is_error());
        let device = device(&training.device)
            .map_err(|(found, expected)| check.error("training.device", &found, &expected))?;
        Ok(Self {
            origin: check,
            device,
            method,
            switches,
            adamw,
            metric,
            greater_is_better,
            config,
        })
    }

    /// The configuration with every value that the defaults, the base or the data decided. The run
    /// directory holds a copy.
    pub fn resolved(&self, labels: &[String], dropouts: Dropouts, method: &Method) -> RunConfig {
        let mut config = self.config.clone();
        if config.model.task_type != TaskType::Regression {
            config.model.num_labels = Some(labels.len());
            config.model.label_names = Some(labels.to_vec());
        }
        config.model.hidden_dropout_prob = Some(dropouts.hidden);
        config.model.attention_probs_dropout_prob = Some(dropouts.attention);
        config.model.classifier_dropout = Some(dropouts.classifier.unwrap_or(dropouts.hidden));
        config.method = as_section(method);
        config.training.learning_rate = Some(self.learning_rate());
        let bitfit = &mut config.bitfit;
        if method.has_switches() {
            bitfit.bias_learning_rate.get_or_insert(self.learning_rate());
            for (group, rate) in [
                (Group::Attention, &mut bitfit.attention_learning_rate),
                (Group::Feedforward, &mut bitfit.feedforward_learning_rate),
                (Group::LayerNorm, &mut bitfit.layer_norm_learning_rate),
                (Group::Other, &mut bitfit.other_learning_rate),
            ] {
                *rate = self.adamw.rates.get(&group).copied();
            }
        }
        config.data.seed = Some(self.data_seed());
        config.training.metric_for_best_model = Some(self.metric);
        config.training.greater_is_better = Some(self.greater_is_better);
        config
    }

    /// AdamW's learning rate for the head.
    pub fn learning_rate(&self) -> f64 {
        self.config.training.learning_rate.unwrap_or(self.method.learning_rate())
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
        let section = &self.config.data;
        Columns {
            text: section.text_column.clone(),
            text_pair: section.text_pair_column.clone(),
            labels: match &section.label_columns {
                Some(names) => LabelColumns::Each(names.clone()),
                None => LabelColumns::One {
                    name: section.label_column.clone(),
                    separator: section.label_separator.clone(),
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
        let Some(weights) = &self.config.training.class_weights else { return Ok(None) };
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
                let several = self.config.model.task_type == TaskType::MultiLabel;
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
        self.config.data.seed.unwrap_or(self.config.training.seed)
    }

    /// The class names that the configuration gives, or else the numbers 0 to `num_labels` - 1.
    /// `None` where the configuration gives neither; empty for a regression.
    pub fn label_names(&self) -> Option<Vec<String>> {
        let (model, data) = (&self.config.model, &self.config.data);
        if model.task_type == TaskType::Regression {
            return Some(vec![]);
        }
        let numbers = |count| (0..count).map(|i: usize| i.to_string()).collect();
        let given = model.label_names.clone().or_else(|| data.label_columns.clone());
        given.or_else(|| model.num_labels.map(numbers))
    }

    /// The path of the run's `delta.safetensors`.
    pub fn delta_path(&self) -> PathBuf {
        self.config.training.output_dir.join("delta.safetensors")
    }

    /// The error that `key` is `found` and not `expected`. It names the override that set the key,
    /// or else the configuration file.
    pub fn error(&self, key: &str, found: &dyn std::fmt::Display, expected: &str) -> Error {
        self.origin.error(key, found, expected)
    }

    /// Checks `data.max_length` against the number of positions that the base has.
    pub fn check_model(&self, model: &ModelConfig) -> Result<()> {
        let (found, most) = (self.config.data.max_length, model.max_length());
        let expected =
            format!("{MIN_LENGTH} to {most}, the longest that the base has positions for");
        self.origin.that(
            i64::try_from(found).is_ok_and(|n| n <= most),
            "data.max_length",
            &found,
            &expected,
        )
    }

    /// The dropout probabilities of the configuration, or else the base's.
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
    /// Checks `training.max_tokens_per_batch`. With it, the number of steps in an epoch depends on
    /// the order of the rows, so the steps of all epochs are counted before the first.
    fn tokens(&self, config: &RunConfig) -> Result<()> {
        let (length, training) = (config.data.max_length, &config.training);
        let Some(tokens) = training.max_tokens_per_batch else { return Ok(()) };
        let expected = format!("{length} or more, as many as data.max_length lets a text have");
        self.that(tokens >= length, "training.max_tokens_per_batch", &tokens, &expected)?;
        for (key, value, most) in [
            ("training.num_train_epochs", training.num_train_epochs, 10_000),
            ("training.max_steps", u64::try_from(training.max_steps).unwrap_or(0), 100_000_000),
        ] {
            let expected = format!("at most {most} with training.max_tokens_per_batch");
            self.that(value <= most, key, &value, &expected)?;
        }
        Ok(())
    }

    /// Checks the keys that only ids of the Hub may have.
    fn hub(&self, config: &RunConfig) -> Result<()> {
        let (model, data) = (&config.model, &config.data);
        let base_is_id = RunConfig::is_id(&model.model_name_or_path);
        let train_is_id = RunConfig::is_id(&data.train);
        let eval_id = data.eval.as_deref().filter(|path| RunConfig::is_id(path));
        for (key, value, fits, what) in [
            ("model.revision", &model.revision, base_is_id, "the id of a model on the Hub"),
            (
                "data.revision",
                &data.revision,
                train_is_id || eval_id.is_some(),
                "the id of a data set on the Hub",
            ),
            (
                "data.subset",
                &data.subset,
                train_is_id || eval_id.is_some(),
                "the id of a data set on the Hub",
            ),
            (
                "data.train_split",
                &data.train_split,
                train_is_id,
                "data.train the id of a data set on the Hub",
            ),
            (
                "data.eval_split",
                &data.eval_split,
                eval_id.is_some(),
                "data.eval the id of a data set on the Hub",
            ),
        ] {
            let Some(value) = value else { continue };
            self.that(!value.is_empty(), key, &"nothing", "a name")?;
            self.that(fits, key, value, &format!("none without {what}"))?;
            if key.ends_with(".revision") {
                self.that(hub::is_revision(value), key, value, hub::REVISION)?;
            }
        }
        match eval_id.filter(|id| train_is_id && *id != data.train) {
            None => Ok(()),
            Some(id) => {
                let expected = format!(
                    "{}, or a file: data.revision and data.subset are of one data set",
                    data.train.display()
                );
                Err(self.error("data.eval", &id.display(), &expected))
            }
        }
    }

    /// The fine-tuning method with its settings. Errs where a key of another method is set to
    /// anything but its default.
    fn method(&self, config: &RunConfig) -> Result<Method> {
        let section = &config.method;
        let (lora, adapter) =
            (LoraConfig::default(), AdapterConfig::new(section.config.unwrap_or_default()));
        let method = match section.name {
            MethodName::Bitfit => Method::Bitfit,
            MethodName::Full => Method::Full,
            MethodName::Head => Method::Head,
            MethodName::LayerNorm => Method::LayerNorm,
            MethodName::Lora => Method::Lora(LoraConfig {
                r: section.r.unwrap_or(lora.r),
                lora_alpha: section.lora_alpha.unwrap_or(lora.lora_alpha),
                lora_dropout: section.lora_dropout.unwrap_or(lora.lora_dropout),
                target_modules: section.target_modules.clone().unwrap_or_default(),
                bias: section.bias.unwrap_or_default(),
            }),
            MethodName::Adapter => Method::Adapter(AdapterConfig {
                reduction_factor: section.reduction_factor.unwrap_or(adapter.reduction_factor),
                non_linearity: section.non_linearity.unwrap_or(adapter.non_linearity),
                ..adapter
            }),
        };
        if let Err((key, found, expected)) = method.check() {
            return Err(self.error(key, &found, expected));
        }
        let (own, name) = (values(&as_section(&method))?, method.name());
        let defaults =
            [Method::Lora(lora), Method::Adapter(AdapterConfig::new(Default::default()))];
        for (key, value) in values(section)? {
            let owner = |method: &&Method| {
                values(&as_section(method)).is_ok_and(|values| values.contains_key(&key))
            };
            let Some(owner) = defaults.iter().find(owner).filter(|_| !own.contains_key(&key))
            else {
                continue;
            };
            let default = values(&as_section(owner))?.remove(&key);
            if default.as_ref() != Some(&value) {
                let expected =
                    format!("none with name = {name:?}: it is a key of {:?}", owner.name());
                return Err(self.error(&format!("method.{key}"), &value, &expected));
            }
        }
        if method.has_switches() {
            return Ok(method);
        }
        let defaults = values(&BitfitSection::default())?;
        for (key, value) in values(&config.bitfit)? {
            let tutorials = ["freeze_all_weights", "train_bias_only"].contains(&&*key);
            if defaults.get(&key) != Some(&value) && !tutorials {
                let expected = format!(
                    "its default with method.name = {name:?}: [bitfit] is of \"bitfit\", and of \"lora\" with bias = \"all\""
                );
                return Err(self.error(&format!("bitfit.{key}"), &value, &expected));
            }
        }
        Ok(method)
    }

    /// What the `[bitfit]` section trains. Errs where its keys contradict each other.
    fn switches(&self, section: &BitfitSection) -> Result<Switches> {
        let groups = [
            (Group::Attention, "train_attention_bias", section.train_attention_bias),
            (Group::Feedforward, "train_feedforward_bias", section.train_feedforward_bias),
            (Group::LayerNorm, "train_layer_norm_bias", section.train_layer_norm_bias),
            (Group::Classifier, "train_classifier_bias", section.train_classifier_bias),
            (Group::Other, "train_other_bias", section.train_other_bias),
        ];
        let key = "bitfit.bias_terms";
        for term in section.bias_terms.iter().flatten() {
            let off = groups.iter().find(|(group, _, on)| *group == term.group() && !on);
            let off = off.map(|(_, key, _)| format!("{key} = false"));
            let off = off.or((*term == Term::Key && !section.train_key_bias)
                .then(|| "train_key_bias = false".into()));
            let off = off.or((*term == Term::EmbeddingsLayerNorm && section.layers.is_some())
                .then(|| "layers, since it is in none".into()));
            if let Some(off) = off {
                return Err(self.error(key, &term.name(), &format!("no such term with {off}")));
            }
        }
        let layers = match &section.layers {
            None => None,
            Some(text) => Some(Layers::parse(text).ok_or_else(|| {
                self.error("bitfit.layers", &format!("{text:?}"), Layers::SYNTAX)
            })?),
        };
        let mut terms: BTreeSet<Term> =
            section.bias_terms.clone().unwrap_or(Term::ALL.into()).into_iter().collect();
        if !section.train_key_bias {
            terms.remove(&Term::Key);
        }
        Ok(Switches {
            biases: groups.into_iter().filter(|(_, _, on)| *on).map(|(group, ..)| group).collect(),
            terms,
            layers,
            classifier_weight: section.train_classifier_weight,
            include: section.include.clone(),
            exclude: section.exclude.clone(),
            random: None,
        })
    }

    /// Checks the keys about labels and columns against the task and against each other.
    fn labels(&self, config: &RunConfig) -> Result<()> {
        let (model, data) = (&config.model, &config.data);
        let task = format!("with task_type = {:?}", model.task_type.name());
        if model.task_type == TaskType::Regression {
            let names = model.label_names.as_ref();
            let found = names.map(|names| shown(names)).unwrap_or_default();
            self.that(names.is_none(), "model.label_names", &found, &format!("none {task}"))?;
            let outputs = model.num_labels.unwrap_or(1);
            self.that(outputs == 1, "model.num_labels", &outputs, &format!("1 {task}"))?;
        }
        let least = if model.task_type == TaskType::Classification { 2 } else { 1 };
        for (key, names) in
            [("model.label_names", &model.label_names), ("data.label_columns", &data.label_columns)]
        {
            let Some(names) = names else { continue };
            let distinct = names.iter().collect::<BTreeSet<_>>().len() == names.len();
            let found = shown(names);
            let expected = format!("{least} or more different names");
            self.that(distinct && names.len() >= least, key, &found, &expected)?;
            let count = model.num_labels.unwrap_or(names.len());
            let expected = format!("{}, the number of {key}", names.len());
            self.that(count == names.len(), "model.num_labels", &count, &expected)?;
        }
        if let (Some(names), Some(columns)) = (&model.label_names, &data.label_columns) {
            let expected = "the names of data.label_columns, in any order";
            let [own, other] = [names, columns].map(|names| names.iter().collect::<BTreeSet<_>>());
            self.that(own == other, "model.label_names", &shown(names), expected)?;
        }
        for (key, given) in [
            ("data.label_columns", data.label_columns.is_some()),
            ("data.label_separator", data.label_separator.is_some()),
        ] {
            let good = !given || model.task_type == TaskType::MultiLabel;
            self.that(
                good,
                key,
                &model.task_type.name(),
                "model.task_type = \"multi_label\" with it",
            )?;
        }
        let labels = match &data.label_columns {
            Some(names) => ("data.label_columns", &names[..]),
            None => ("data.label_column", std::slice::from_ref(&data.label_column)),
        };
        let pair = ("data.text_pair_column", data.text_pair_column.as_slice());
        for ((key, names), other, text) in [
            (pair, "data.text_column", Some(&data.text_column)),
            (labels, "data.text_column", Some(&data.text_column)),
            (labels, pair.0, data.text_pair_column.as_ref()),
        ] {
            if let Some(text) = text {
                let expected = format!("another column than {other}");
                self.that(!names.contains(text), key, &format!("{text:?}"), &expected)?;
            }
        }
        let separator = data.label_separator.as_deref();
        self.that(
            separator != Some(""),
            "data.label_separator",
            &"nothing",
            "what stands between labels",
        )?;
        let labels = model.num_labels.unwrap_or(least);
        let expected = if least == 2 {
            "2 to 10000 (one output is task_type = \"regression\")"
        } else {
            "1 to 10000"
        };
        self.that((least..=10_000).contains(&labels), "model.num_labels", &labels, expected)
    }

    /// Checks label smoothing and class weights against the task.
    fn loss(&self, config: &RunConfig) -> Result<()> {
        let (task, training) = (config.model.task_type, &config.training);
        self.that(
            training.label_smoothing_factor == 0.0 || task == TaskType::Classification,
            "training.label_smoothing_factor",
            &training.label_smoothing_factor,
            "0 without task_type = \"classification\"",
        )?;
        let (key, Some(weights)) = ("training.class_weights", &training.class_weights) else {
            return Ok(());
        };
        let found = task.name();
        let expected = "none with a number to predict";
        self.that(task != TaskType::Regression, key, &found, expected)?;
        let values: Vec<f64> = match weights {
            ClassWeights::Named(_) => vec![],
            ClassWeights::List(list) => list.clone(),
            ClassWeights::Table(table) => table.values().copied().collect(),
        };
        // The loss uses float32, in which other values become zero, subnormal or infinite.
        let good = |weight: &f64| (f32::MIN_POSITIVE..=f32::MAX).contains(&(*weight as f32));
        let expected = "positive numbers that float32 has, of at least 1.2e-38 and at most 3.4e38";
        self.that(values.iter().all(good), key, &format!("{values:?}"), expected)
    }

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

/// The `[method]` section of a method.
fn as_section(method: &Method) -> MethodSection {
    let name = match method {
        Method::Bitfit => MethodName::Bitfit,
        Method::Full => MethodName::Full,
        Method::Head => MethodName::Head,
        Method::LayerNorm => MethodName::LayerNorm,
        Method::Lora(lora) => {
            return MethodSection {
                name: MethodName::Lora,
                r: Some(lora.r),
                lora_alpha: Some(lora.lora_alpha),
                lora_dropout: Some(lora.lora_dropout),
                target_modules: Some(lora.target_modules.clone()),
                bias: Some(lora.bias),
                ..MethodSection::default()
            };
        }
        Method::Adapter(adapter) => {
            return MethodSection {
                name: MethodName::Adapter,
                config: Some(adapter.config),
                reduction_factor: Some(adapter.reduction_factor),
                non_linearity: Some(adapter.non_linearity),
                ..MethodSection::default()
            };
        }
    };
    MethodSection { name, ..MethodSection::default() }
}

/// The values of a section, by key.
fn values(section: &impl serde::Serialize) -> Result<toml::Table> {
    toml::Table::try_from(section).map_err(Error::bug)
}

/// The device that `name` stands for: `auto`, `cpu`, `cuda` or `cuda:N`. The error is what was
/// found and what was expected.
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

/// The first of the label names, for messages.
fn shown(names: &[String]) -> String {
    Labels { names: names.to_vec(), declared: true }.to_string()
}
