//! Predicts labels and scores of texts, with a base and a task's delta.

#![deny(clippy::missing_errors_doc)]

mod mistakes;
mod open;
mod table;

pub use mistakes::{Mistake, MistakeLine};
pub use open::{PredictorBuilder, ResolvedTask, TaskSource};
pub use table::{Asking, Extent, InputColumns, Table, TableFormat, TableOptions, TableWriter};

use crate::base::Base;
use crate::data::{
    Batch, Labels, MIN_LENGTH, Row, TextSize, Tokenizer, Windows, check_length, examples, fits,
    has_embeddings, same_tokenizer,
};
use crate::delta::{Delta, Meta};
use crate::error::{Error, Result};
use crate::eval::{Evaluation, evaluate, in_batches};
use crate::methods::Method;
use crate::models::{LongTexts, Task, TaskType};
use crate::nn::{Precision, to_rows};
use crate::task_model::TaskModel;
use crate::threads;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// The number of texts in a batch where nothing else is said. Batches of short texts have more.
pub const BATCH_SIZE: usize = 32;

/// A text, or a pair of texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Input {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
}

impl From<&str> for Input {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), text_pair: None }
    }
}

impl From<String> for Input {
    fn from(text: String) -> Self {
        Self { text, text_pair: None }
    }
}

impl From<&String> for Input {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<(&str, &str)> for Input {
    fn from((text, pair): (&str, &str)) -> Self {
        Self { text: text.to_owned(), text_pair: Some(pair.to_owned()) }
    }
}

impl From<(String, String)> for Input {
    fn from((text, pair): (String, String)) -> Self {
        Self { text, text_pair: Some(pair) }
    }
}

impl From<Row> for Input {
    fn from(row: Row) -> Self {
        Self { text: row.text, text_pair: row.text_pair }
    }
}

/// The prediction for an input. A classification has `label`, `score` and `scores`; a multi-label
/// task has `labels` and `scores`; a regression has `score`.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The most likely label; with two classes and a threshold, the second if its probability
    /// reaches that. `None` if the prediction is unsure.
    pub label: Option<String>,
    /// The labels whose probability reaches the task's threshold, which is a half if it was not
    /// calibrated.
    pub labels: Option<Vec<String>>,
    /// The probability of `label`, or the number that a regression predicts.
    pub score: Option<f32>,
    /// Whether the label is left out, because its probability is below the least that was asked
    /// for.
    pub unsure: bool,
    /// The probability of each label, in the order of class numbers.
    pub scores: Vec<(String, f32)>,
}

/// Writes what the prediction has; of an unsure one, `label` too, as null.
impl Serialize for Prediction {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if self.unsure || self.label.is_some() {
            map.serialize_entry("label", &self.label)?;
        }
        if let Some(labels) = &self.labels {
            map.serialize_entry("labels", labels)?;
        }
        if let Some(score) = self.score {
            map.serialize_entry("score", &score)?;
        }
        if self.unsure {
            map.serialize_entry("unsure", &true)?;
        }
        if !self.scores.is_empty() {
            map.serialize_entry("scores", &Pairs(&self.scores))?;
        }
        map.end()
    }
}

/// Scores by label, as a map in their order.
struct Pairs<'a>(&'a [(String, f32)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, score)| (name, score)))
    }
}

impl Prediction {
    /// Makes the prediction of `task` from its scores: a probability for each label, or the number
    /// of a regression.
    pub(crate) fn new(task: &Task, scores: &[f32]) -> Self {
        let named = || task.labels.iter().cloned().zip(scores.iter().copied());
        let best = named().nth(task.class(scores));
        let (label, labels, score) = match task.task_type {
            TaskType::Classification => {
                let (label, score) = best.unzip();
                (label, None, score)
            }
            TaskType::MultiLabel => {
                let has = |(number, (_, score)): &(usize, (_, f32))| task.gives(*number, *score);
                let has = named().enumerate().filter(has).map(|(_, (name, _))| name);
                (None, Some(has.collect()), None)
            }
            TaskType::Regression => (None, None, scores.first().copied()),
        };
        Self { label, labels, score, unsure: false, scores: named().collect() }
    }

    /// The prediction without its label if the label's probability is below `least`.
    pub(crate) fn at_least(mut self, least: f32) -> Self {
        if self.label.is_some() && self.score.is_some_and(|score| score < least) {
            (self.label, self.unsure) = (None, true);
        }
        self
    }

    /// The prediction with the scores of only the `most` most likely labels, from the highest down.
    pub(crate) fn with_top(mut self, most: usize) -> Self {
        self.scores.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        self.scores.truncate(most);
        self
    }
}

/// Checks that an input is a pair of texts if `task` is about pairs, and one text if it is not. The
/// error is the problem.
pub fn check_pairs(task: &Task, is_pair: bool) -> std::result::Result<(), &'static str> {
    match (task.pairs, is_pair) {
        (Some(true), false) => Err(
            "the task is about pairs of texts, and only one is given; name the second's column with --text-pair-column, or give it with --text-pair",
        ),
        (Some(false), true) => Err("two texts are given, and the task is about one"),
        _ => Ok(()),
    }
}

/// A base with a task, which predicts.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let texts = folder.path().join("texts.csv");
/// # std::fs::write(&texts, "text,label\n".to_owned() + &"Good.,yes\nBad.,no\n".repeat(8))?;
/// # let run = folder.path().join("run");
/// # let mut config = bitfit::RunConfig::new("tests/golden/tiny-bert", &texts, &run);
/// # config.data.max_length = 32_u64.try_into()?;
/// # bitfit::Trainer::new(config)?.run()?;
/// use bitfit::{Device, Predictor};
///
/// let predictor = Predictor::open(&run)?;
/// let predictions = predictor.predict(["It never arrived.", "Thank you!"])?;
/// for prediction in &predictions {
///     let label = prediction.label.as_deref().unwrap_or_default();
///     assert!(predictor.task().labels.iter().any(|name| name == label));
/// }
///
/// // Or from its two parts, on a device of choice.
/// let predictor = Predictor::builder()
///     .base("tests/golden/tiny-bert")
///     .delta(run.join("delta.safetensors"))
///     .device(Device::Cpu)
///     .open()?;
/// let alone = predictor.predict(["It never arrived."])?;
/// assert_eq!(alone[0].label, predictions[0].label);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Predictor {
    model: TaskModel,
    tokenizer: Tokenizer,
    /// The metadata of the task's delta, or of the saved classifier.
    pub(crate) meta: Meta,
    batch_size: usize,
}

impl Predictor {
    /// Opens the task of a run directory.
    ///
    /// # Errors
    ///
    /// A file of the run or of its base that is missing or damaged, and a base or a tokenizer that
    /// is not the task's.
    pub fn open(run: impl Into<PathBuf>) -> Result<Self> {
        Self::builder().run(run).open()
    }

    /// Starts to open a task of a run, or of a base and a delta, or a classifier that was saved
    /// with its head.
    pub fn builder() -> PredictorBuilder {
        PredictorBuilder::default()
    }

    /// Reads the base `model` and applies `delta`. The tokenizer is read from `tokenizer`, and must
    /// be the one that the task was trained with.
    ///
    /// Without a delta, the model must be a classifier that was saved with its head.
    #[doc(hidden)]
    pub fn load(
        model: &Path,
        weights: Option<&str>,
        delta: Option<&Path>,
        tokenizer: &Path,
        device: Device,
    ) -> Result<Self> {
        let task = delta.map(|path| Ok::<_, Error>((path, Delta::read(path)?))).transpose()?;
        let (reader, base) =
            threads::both(|| Tokenizer::read(tokenizer), || Base::read(model, weights, device));
        let reader = reader?;
        if let Some((path, task)) = &task {
            same_tokenizer(&task.meta, path, tokenizer, &reader)?;
        }
        let base = base?;
        let config = &base.info.config;
        fits(tokenizer, &reader, config)?;
        let (mut model, meta) = match task {
            Some((path, task)) => {
                check_length(&task.meta, path, config)?;
                let Task { pooling, .. } = task.meta.task;
                let mut model = TaskModel::new(&base, task.meta.task.outputs(), pooling, None)?;
                task.apply_with_method(path, &mut model)?;
                (model, task.meta)
            }
            None => {
                let (model, mut task) = TaskModel::saved(&base)?;
                task.max_length = task.max_length.max(MIN_LENGTH);
                let meta = Meta {
                    architecture: config.architecture.class.into(),
                    base_name: String::new(),
                    base_fingerprint: base.info.fingerprint.clone(),
                    base_config: BTreeMap::new(),
                    tokenizer_fingerprint: reader.fingerprint.clone(),
                    task,
                    method: Method::default(),
                    freeze_plan: vec![],
                    metrics: BTreeMap::new(),
                };
                (model, meta)
            }
        };
        model.store.freeze();
        Ok(Self { model, tokenizer: reader, meta, batch_size: BATCH_SIZE })
    }

    /// Returns the predictor with matrix products in `precision`.
    pub(crate) fn with_precision(mut self, precision: Precision) -> Result<Self> {
        self.model.set_precision(precision.kind_on(self.model.device())?)?;
        Ok(self)
    }

    /// Returns the predictor with `texts` in a batch, or more if they are short.
    pub(crate) fn with_batch_size(mut self, texts: usize) -> Self {
        self.batch_size = texts.max(1);
        self
    }

    /// The task: its type, its labels, and what its inputs are.
    pub fn task(&self) -> &Task {
        &self.meta.task
    }

    /// Predicts inputs in order: texts, or pairs of texts.
    ///
    /// # Errors
    ///
    /// A pair where the task is about single texts, or the other way round; scores that are NaN or
    /// infinite; a device that runs out of memory.
    pub fn predict<T: Into<Input>>(
        &self,
        inputs: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Prediction>> {
        let _guard = tch::no_grad_guard();
        let inputs: Vec<Input> = inputs.into_iter().map(Into::into).collect();
        for (input, number) in inputs.iter().zip(1..) {
            let error = |problem| Error::Usage(format!("input {number}: {problem}"));
            self.check(input).map_err(error)?;
        }
        let encoded = self.tokenizer.encode_all(
            &inputs,
            |input| (&input.text, input.text_pair.as_deref()),
            self.meta.task.reading(),
        );
        self.say_left_out(&encoded);
        let windows = encoded.iter().flat_map(Windows::iter);
        has_embeddings(&self.model.base.dir, &self.model.config, windows)?;
        let mut predictions = Vec::with_capacity(inputs.len());
        let sizes: Vec<TextSize> = encoded.iter().map(Windows::size).collect();
        in_batches(&sizes, self.batch_size, self.model.device(), &mut |range| {
            let scores = self.scores(encoded.get(range).unwrap_or_default())?;
            self.model.base.check_unchanged()?;
            if scores.iter().flatten().any(|score| !score.is_finite()) {
                let error = Error::NotFinite("the task's prediction".into());
                return Err(self.no_numbers(error)?);
            }
            predictions
                .extend(scores.iter().map(|scores| Prediction::new(&self.meta.task, scores)));
            Ok(())
        })?;
        Ok(predictions)
    }

    /// Warns of inputs with more windows than the task reads.
    fn say_left_out(&self, encoded: &[Windows]) {
        let LongTexts::Windows(settings) = self.meta.task.long_texts else { return };
        let most = settings.most_windows;
        let count = encoded.iter().filter(|text| text.is_cut && text.count() == most).count();
        if count > 0 {
            tracing::warn!(
                "texts with more than {most} windows, of which further windows are left out: {count}"
            );
        }
    }

    /// Checks that `input` is what the task is about: a text or a pair. The error is the problem.
    pub(crate) fn check(&self, input: &Input) -> std::result::Result<(), &'static str> {
        check_pairs(&self.meta.task, input.text_pair.is_some())
    }

    /// Returns the error of scores that are NaN or infinite: one that names a tensor with such
    /// values, or `error` if there is none.
    fn no_numbers(&self, error: Error) -> Result<Error> {
        let (own, new) = (&self.meta.freeze_plan, &self.model.new);
        let of_base = |name: &str, _: &Tensor| !own.iter().chain(new).any(|own| own == name);
        Ok(match self.model.not_finite(of_base)? {
            Some(name) => {
                let problem = format!("{name} holds NaN or infinity, and so would the scores");
                Error::file(&self.model.base.file, problem)
            }
            None => match self.model.not_finite(|_, _| true)? {
                Some(name) => Error::NotFinite(format!("the task's {name}")),
                None => error,
            },
        })
    }

    /// Returns the probabilities of a batch, or the numbers of a regression, as a vector for each
    /// row.
    fn scores(&self, texts: &[Windows]) -> Result<Vec<Vec<f32>>> {
        let (packed, _) = Batch::of_texts(texts).to_device(self.model.device())?;
        let (task, logits) = (&self.meta.task, self.model.classifier.forward(&packed)?);
        let logits = packed.by_text(logits, task.long_texts.pooling())?;
        to_rows(&task.task_type.scores(&logits)?)
    }

    /// Evaluates on labelled rows, and calls `progress` with the number of rows done. Adds what is
    /// predicted wrong to `mistakes`, if given. Errs if the loss is NaN or infinite.
    pub(crate) fn evaluate(
        &self,
        rows: &[Row],
        mut mistakes: Option<&mut Vec<Mistake>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Evaluation> {
        let labels = self.labels();
        for row in rows {
            let pair = row.text_pair.is_some();
            check_pairs(&self.meta.task, pair).map_err(|problem| row.place.error(problem))?;
        }
        let (task, batch_size) = (&self.meta.task, self.batch_size);
        let examples = examples(&self.tokenizer, rows, task.task_type, &labels, task.reading())?;
        let tokens = examples.iter().flat_map(|example| example.tokens.iter());
        has_embeddings(&self.model.base.dir, &self.model.config, tokens)?;
        let (model, device) = (&self.model.classifier, self.model.device());
        let mut on_batch = |rows: Range<usize>, logits: &[Vec<f32>]| {
            self.model.base.check_unchanged()?;
            let done = rows.end;
            if let Some(mistakes) = mistakes.as_deref_mut() {
                let found = rows.zip(logits).filter_map(|(row, logits)| {
                    Mistake::of(&self.meta.task, row, &examples.get(row)?.target, logits)
                });
                mistakes.extend(found);
            }
            progress(done)
        };
        let found = evaluate(model, device, &examples, task, batch_size, &mut on_batch)?;
        match found.metrics.get("loss") {
            Some(&loss) if !loss.is_finite() => Err(self.no_numbers(Error::NoLoss(loss))?),
            _ => Ok(found),
        }
    }

    /// Returns how many rows to predict at once. A prediction has a score for each label, so more
    /// labels allow fewer rows.
    pub(crate) fn rows_at_once(&self) -> usize {
        const SCORES: usize = 1 << 21;
        (SCORES / self.meta.task.labels.len().max(1)).max(1)
    }

    /// The base's directory.
    pub(crate) fn base_dir(&self) -> &Path {
        &self.model.base.dir
    }

    /// The task's labels.
    pub(crate) fn labels(&self) -> Labels {
        Labels { names: self.meta.task.labels.clone(), declared: self.meta.task.labels_declared }
    }
}
