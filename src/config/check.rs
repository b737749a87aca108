//! Checks of a configuration's keys against each other. The bounds of single values are in their
//! types.

use super::origin::Origin;
use super::sections::Length;
use super::{
    BitfitSection, ClassWeights, DataSection, LongTextMode, MethodName, MethodSection, Metric,
    RunConfig, ThresholdGoal, values,
};
use crate::bounds::{Count, Integer, Positive, Probability, ProbeC, ReductionFactor};
use crate::data::{DELIMITER, Labels, can_delimit};
use crate::error::Result;
use crate::freeze::{Group, Layers, Switches};
use crate::hub;
use crate::methods::{AdapterConfig, LoraConfig, Method, ProbeConfig, Rank};
use crate::models::{Reading, TaskType, Term};
use crate::nn::{Pooling, WindowPooling};
use std::collections::BTreeSet;

/// Checks everything but the method, the switches and the metric.
pub fn all(origin: &Origin, config: &RunConfig, method: &Method) -> Result<()> {
    paths(origin, config)?;
    tutorials(origin, &config.bitfit, method)?;
    labels(origin, config)?;
    columns(origin, &config.data)?;
    self::hub(origin, config)?;
    data(origin, &config.data)?;
    long_texts(origin, &config.data)?;
    tokens(origin, config)?;
    head_rate(origin, config, method)?;
    calibration(origin, config)?;
    if !method.takes_steps() {
        without_steps(origin, config, method)?;
    }
    loss(origin, config)
}

/// Errs where nothing could be calibrated, and at keys without effect.
fn calibration(origin: &Origin, config: &RunConfig) -> Result<()> {
    let Some(section) = &config.calibration else { return Ok(()) };
    let task = config.model.task_type;
    origin.ensure(
        task != TaskType::Regression,
        "calibration",
        &"a section",
        "none with task_type = \"regression\", which predicts no probabilities",
    )?;
    origin.ensure(
        section.temperature || section.thresholds.is_some(),
        "calibration.temperature",
        &section.temperature,
        "true without calibration.thresholds, because nothing is left to calibrate",
    )?;
    for (key, cost) in [
        ("calibration.false_positive_cost", section.false_positive_cost),
        ("calibration.false_negative_cost", section.false_negative_cost),
    ] {
        let Some(cost) = cost else { continue };
        let with_cost = section.thresholds == Some(ThresholdGoal::Cost);
        origin.ensure(with_cost, key, &cost, "none without calibration.thresholds = \"cost\"")?;
    }
    Ok(())
}

/// Errs where the head of `method` has no learning rate of its own.
fn head_rate(origin: &Origin, config: &RunConfig, method: &Method) -> Result<()> {
    let Some(rate) = config.training.head_learning_rate else { return Ok(()) };
    let has_own = matches!(method, Method::Bitfit | Method::Head | Method::LayerNorm);
    let expected = format!(
        "none with method.name = {:?}: bitfit, head and layer_norm have a rate for the head alone",
        method.name()
    );
    origin.ensure(has_own, "training.head_learning_rate", &rate, &expected)
}

/// Errs where a key is set that has no meaning for a `method` without steps, or that its head
/// cannot follow.
fn without_steps(origin: &Origin, config: &RunConfig, method: &Method) -> Result<()> {
    let (model, training) = (&config.model, &config.training);
    let with = format!("with method.name = {:?}", method.name());
    let no_dense = format!(
        "\"mean\" or \"auto\" {with}: a head on first tokens has a dense layer, for which there is no solution to compute"
    );
    let first = model.pooling.fixed() != Some(Pooling::First);
    origin.ensure(first, "model.pooling", &"first", &no_dense)?;
    let start = model.init_delta.as_ref().map(|path| path.display().to_string());
    let expected = format!("none {with}, whose solution is the same wherever it starts");
    origin.ensure(start.is_none(), "model.init_delta", &start.unwrap_or_default(), &expected)?;
    let pooling = config.data.window_pooling.unwrap_or_default();
    let expected = format!(
        "\"mean\" {with}: the head is solved for the mean of a text's windows, of which the logits are the mean"
    );
    let mean = pooling == WindowPooling::Mean;
    origin.ensure(mean, "data.window_pooling", &pooling.name(), &expected)?;
    let smoothing = training.label_smoothing_factor;
    let expected = format!("0 {with}, which has no label smoothing");
    let none = smoothing.get() == 0.0;
    origin.ensure(none, "training.label_smoothing_factor", &smoothing, &expected)?;
    match training.of_steps()?.first() {
        None => Ok(()),
        Some((key, value)) => {
            let expected = format!("its default {with}, which takes no steps");
            Err(origin.error(key, value, &expected))
        }
    }
}

/// Checks that the paths without default are given.
fn paths(origin: &Origin, config: &RunConfig) -> Result<()> {
    for (key, value) in [
        ("model.model_name_or_path", &config.model.model_name_or_path),
        ("data.train", &config.data.train),
        ("training.output_dir", &config.training.output_dir),
    ] {
        origin.ensure(!value.as_os_str().is_empty(), key, &"nothing", "a path")?;
    }
    Ok(())
}

/// Checks the two keys that are always true for BitFit.
fn tutorials(origin: &Origin, section: &BitfitSection, method: &Method) -> Result<()> {
    for (key, value) in [
        ("bitfit.freeze_all_weights", section.freeze_all_weights),
        ("bitfit.train_bias_only", section.train_bias_only),
    ] {
        let expected =
            "true: other methods train weights, such as full fine-tuning, method.name = \"full\"";
        origin.ensure(value || *method == Method::Full, key, &value, expected)?;
    }
    Ok(())
}

/// Checks the split and the delimiter. `data.eval_fraction` has no effect beside `data.eval`.
fn data(origin: &Origin, data: &DataSection) -> Result<()> {
    let fraction = data.eval_fraction;
    let splits = fraction > 0.0 && fraction < 1.0;
    let expected = "more than 0 and less than 1";
    origin.ensure(data.eval.is_some() || splits, "data.eval_fraction", &fraction, expected)?;
    if let Some(delimiter) = data.delimiter {
        let shown = format!("{delimiter:?}");
        origin.ensure(can_delimit(delimiter), "data.delimiter", &shown, DELIMITER)?;
    }
    Ok(())
}

/// Checks the keys about texts of more than `max_length` tokens. Errs where a key of windows is set
/// and there are none.
fn long_texts(origin: &Origin, data: &DataSection) -> Result<()> {
    let mode = data.long_texts;
    if mode != LongTextMode::Windows {
        let expected =
            format!("none with long_texts = {:?}: it is a key of \"windows\"", mode.name());
        for (key, found) in [
            ("data.window_stride", data.window_stride.map(|stride| stride.to_string())),
            ("data.most_windows", data.most_windows.map(|most| most.to_string())),
            ("data.window_pooling", data.window_pooling.map(|pooling| pooling.name().into())),
        ] {
            origin.ensure(found.is_none(), key, &found.unwrap_or_default(), &expected)?;
        }
    }
    let Reading { max_length, long_texts } = data.reading();
    long_texts
        .check(max_length)
        .map_err(|(key, found, expected)| origin.error(&format!("data.{key}"), &found, &expected))
}

/// The metric that decides which state is best. Errs if the task has no such metric.
pub fn metric(origin: &Origin, config: &RunConfig) -> Result<Metric> {
    let task = config.model.task_type;
    let metrics = Metric::of(task);
    let default = metrics.first().copied().unwrap_or(Metric::Loss);
    let metric = config.training.metric_for_best_model.unwrap_or(default);
    let names: Vec<&str> = metrics.iter().map(|metric| metric.name()).collect();
    let expected = format!("{} for task_type = {:?}", names.join(", "), task.name());
    let key = "training.metric_for_best_model";
    origin.ensure(metrics.contains(&metric), key, &metric.name(), &expected)?;
    Ok(metric)
}

/// The fine-tuning method with its settings. Errs where a key of another method is set to anything
/// but its default.
pub fn method(origin: &Origin, config: &RunConfig) -> Result<Method> {
    let method = settings(&config.method);
    if let Err((key, error)) = method.check() {
        return Err(origin.error(key, &error.found, &error.expected));
    }
    only_own_keys(origin, &config.method, &method)?;
    if !method.has_switches() {
        no_switches(origin, &config.bitfit, &method)?;
    }
    Ok(method)
}

/// The method of the `[method]` section, with the defaults of its settings.
fn settings(section: &MethodSection) -> Method {
    let (lora, adapter) =
        (LoraConfig::default(), AdapterConfig::new(section.config.unwrap_or_default()));
    match section.name {
        MethodName::Bitfit => Method::Bitfit,
        MethodName::Full => Method::Full,
        MethodName::Head => Method::Head,
        MethodName::LayerNorm => Method::LayerNorm,
        MethodName::Probe => Method::Probe(ProbeConfig {
            c: section.c.map_or(ProbeConfig::default().c, ProbeC::get),
        }),
        MethodName::Lora => Method::Lora(LoraConfig {
            r: section.r.map_or(lora.r, Rank::signed),
            lora_alpha: section.lora_alpha.map_or(lora.lora_alpha, Positive::get),
            lora_dropout: section.lora_dropout.map_or(lora.lora_dropout, Probability::get),
            target_modules: section.target_modules.clone().unwrap_or_default(),
            bias: section.bias.unwrap_or_default(),
        }),
        MethodName::Adapter => Method::Adapter(AdapterConfig {
            reduction_factor: section
                .reduction_factor
                .map_or(adapter.reduction_factor, ReductionFactor::get),
            non_linearity: section.non_linearity.unwrap_or(adapter.non_linearity),
            ..adapter
        }),
    }
}

/// Errs where the `[method]` section sets a key of another method to anything but its default.
fn only_own_keys(origin: &Origin, section: &MethodSection, method: &Method) -> Result<()> {
    let (own, name) = (values(method)?, method.name());
    let others = [
        Method::Lora(LoraConfig::default()),
        Method::Adapter(AdapterConfig::new(Default::default())),
        Method::Probe(ProbeConfig::default()),
    ];
    for (key, value) in values(section)? {
        if own.contains_key(&key) {
            continue;
        }
        for owner in &others {
            let Some(default) = values(owner)?.remove(&key) else { continue };
            if default != value {
                let expected =
                    format!("none with name = {name:?}: it is a key of {:?}", owner.name());
                return Err(origin.error(&format!("method.{key}"), &value, &expected));
            }
        }
    }
    Ok(())
}

/// Errs where the `[bitfit]` section, which `method` does not read, sets a key to anything but its
/// default.
fn no_switches(origin: &Origin, section: &BitfitSection, method: &Method) -> Result<()> {
    let defaults = values(&BitfitSection::default())?;
    for (key, value) in values(section)? {
        let tutorials = ["freeze_all_weights", "train_bias_only"].contains(&&*key);
        if defaults.get(&key) != Some(&value) && !tutorials {
            let expected = format!(
                "its default with method.name = {:?}: only \"bitfit\" reads [bitfit], and \"lora\" with bias = \"all\"",
                method.name()
            );
            return Err(origin.error(&format!("bitfit.{key}"), &value, &expected));
        }
    }
    Ok(())
}

/// Checks `training.max_tokens_per_batch`. With it, the number of steps in an epoch depends on
/// the order of the rows, so the steps of all epochs are counted before the first.
fn tokens(origin: &Origin, config: &RunConfig) -> Result<()> {
    let (Reading { max_length, long_texts }, training) = (config.data.reading(), &config.training);
    let Some(tokens) = training.max_tokens_per_batch.map(Length::get) else { return Ok(()) };
    let windows = long_texts.most_windows();
    let length = u64::try_from(max_length.saturating_mul(windows)).unwrap_or(u64::MAX);
    let why = if windows > 1 { " and data.most_windows let" } else { " lets" };
    let expected = format!("{length} or more, as many as data.max_length{why} a text have");
    origin.ensure(tokens >= length, "training.max_tokens_per_batch", &tokens, &expected)?;
    for (key, value, most) in [
        ("training.num_train_epochs", training.num_train_epochs.map_or(0, Count::get), 10_000),
        ("training.max_steps", u64::try_from(training.max_steps).unwrap_or(0), 100_000_000),
    ] {
        let expected = format!("at most {most} with training.max_tokens_per_batch");
        origin.ensure(value <= most, key, &value, &expected)?;
    }
    Ok(())
}

/// Checks the keys that only ids of the Hub may have.
fn hub(origin: &Origin, config: &RunConfig) -> Result<()> {
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
        origin.ensure(!value.is_empty(), key, &"nothing", "a name")?;
        origin.ensure(fits, key, value, &format!("none without {what}"))?;
        if key.ends_with(".revision") {
            origin.ensure(hub::is_revision(value), key, value, hub::REVISION)?;
        }
    }
    match eval_id.filter(|id| train_is_id && *id != data.train) {
        None => Ok(()),
        Some(id) => {
            let expected = format!(
                "{}, or a file: data.revision and data.subset are of one data set",
                data.train.display()
            );
            Err(origin.error("data.eval", &id.display(), &expected))
        }
    }
}

/// The switches of the `[bitfit]` section. Errs where its keys contradict each other.
pub fn switches(origin: &Origin, config: &RunConfig) -> Result<Switches> {
    let section = &config.bitfit;
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
            return Err(origin.error(key, &term.name(), &format!("no such term with {off}")));
        }
    }
    let layers =
        match &section.layers {
            None => None,
            Some(text) => Some(Layers::parse(text).ok_or_else(|| {
                origin.error("bitfit.layers", &format!("{text:?}"), Layers::SYNTAX)
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
        random: section.random_biases.map(|count| (count, config.training.seed)),
    })
}

/// Checks the keys about labels and columns against the task and against each other.
fn labels(origin: &Origin, config: &RunConfig) -> Result<()> {
    let (model, data) = (&config.model, &config.data);
    let num_labels = model.num_labels.map(Integer::size);
    let task = format!("with task_type = {:?}", model.task_type.name());
    if model.task_type == TaskType::Regression {
        let names = model.label_names.as_ref();
        let found = names.map(|names| shown(names)).unwrap_or_default();
        origin.ensure(names.is_none(), "model.label_names", &found, &format!("none {task}"))?;
        let outputs = num_labels.unwrap_or(1);
        origin.ensure(outputs == 1, "model.num_labels", &outputs, &format!("1 {task}"))?;
    }
    let least = if model.task_type == TaskType::Classification { 2 } else { 1 };
    for (key, names) in
        [("model.label_names", &model.label_names), ("data.label_columns", &data.label_columns)]
    {
        let Some(names) = names else { continue };
        let expected = format!("{least} or more different names");
        origin.ensure(names.len() >= least, key, &shown(names), &expected)?;
        let count = num_labels.unwrap_or(names.len());
        let expected = format!("{}, the number of {key}", names.len());
        origin.ensure(count == names.len(), "model.num_labels", &count, &expected)?;
    }
    if let (Some(names), Some(columns)) = (&model.label_names, &data.label_columns) {
        let expected = "the names of data.label_columns, in any order";
        let [own, other] = [names, columns].map(|names| names.iter().collect::<BTreeSet<_>>());
        origin.ensure(own == other, "model.label_names", &shown(names), expected)?;
    }
    for (key, given) in [
        ("data.label_columns", data.label_columns.is_some()),
        ("data.label_separator", data.label_separator.is_some()),
    ] {
        let good = !given || model.task_type == TaskType::MultiLabel;
        let expected = "model.task_type = \"multi_label\" with it";
        origin.ensure(good, key, &model.task_type.name(), expected)?;
    }
    let expected = "2 to 10000 (one output is task_type = \"regression\")";
    let labels = num_labels.unwrap_or(least);
    origin.ensure(labels >= least, "model.num_labels", &labels, expected)
}

/// Checks that texts, pairs and labels are in different columns.
fn columns(origin: &Origin, data: &DataSection) -> Result<()> {
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
        let Some(text) = text else { continue };
        let expected = format!("another column than {other}");
        origin.ensure(!names.contains(text), key, &format!("{text:?}"), &expected)?;
    }
    Ok(())
}

/// Checks label smoothing and class weights against the task.
fn loss(origin: &Origin, config: &RunConfig) -> Result<()> {
    let (task, training) = (config.model.task_type, &config.training);
    origin.ensure(
        training.label_smoothing_factor.get() == 0.0 || task == TaskType::Classification,
        "training.label_smoothing_factor",
        &training.label_smoothing_factor,
        "0 without task_type = \"classification\"",
    )?;
    origin.ensure(
        training.standardize_target.is_none() || task == TaskType::Regression,
        "training.standardize_target",
        &training.standardize_target.unwrap_or_default(),
        "none without task_type = \"regression\"",
    )?;
    let (key, Some(weights)) = ("training.class_weights", &training.class_weights) else {
        return Ok(());
    };
    let found = task.name();
    let expected = "none with a number to predict";
    origin.ensure(task != TaskType::Regression, key, &found, expected)?;
    let values: Vec<f64> = match weights {
        ClassWeights::Named(_) => vec![],
        ClassWeights::List(list) => list.clone(),
        ClassWeights::Table(table) => table.values().copied().collect(),
    };
    // The loss uses float32, in which other values become zero, subnormal or infinite.
    let good = |weight: &f64| (f32::MIN_POSITIVE..=f32::MAX).contains(&(*weight as f32));
    let expected = "positive numbers that float32 has, of at least 1.2e-38 and at most 3.4e38";
    origin.ensure(values.iter().all(good), key, &format!("{values:?}"), expected)
}

/// The first of the label names, for messages.
fn shown(names: &[String]) -> String {
    Labels { names: names.to_vec(), declared: true }.to_string()
}
