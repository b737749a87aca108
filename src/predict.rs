//! Predicts labels and scores of texts, with a base and a task's delta.

use crate::base::Base;
use crate::data::{
    Batch, Encoded, Labels, MIN_LENGTH, Row, Tokenizer, check_length, examples, fits,
    has_embeddings, same_tokenizer,
};
use crate::delta::{Delta, Meta};
use crate::error::{Error, Result};
use crate::eval::{self, Evaluation, evaluate, in_batches};
use crate::methods::Method;
use crate::models::TaskType;
use crate::nn::{Precision, to_rows};
use crate::task_model::TaskModel;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// A text, or a pair of texts.
pub type Text = (String, Option<String>);

/// The prediction for a text. A classification has `label`, `score` and `scores`; a multi-label
/// task has `labels` and `scores`; a regression has `score`.
#[derive(Debug, Clone, Serialize)]
pub struct Prediction {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    /// The most likely label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The labels with a probability of a half or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// The probability of `label`, or the number that a regression predicts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// The probability of each label, in the order of class numbers.
    #[serde(serialize_with = "as_map", skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<(String, f32)>,
}

fn as_map<S: serde::Serializer>(
    pairs: &[(String, f32)],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, score)| (name, score)))
}

/// A model with a task applied.
pub struct Predictor {
    model: TaskModel,
    tokenizer: Tokenizer,
    /// The metadata of the task's delta, or of the saved classifier.
    pub meta: Meta,
}

impl Predictor {
    /// Reads the base `model` and applies `delta`. The tokenizer is read from `tokenizer`, and must
    /// be the one that the task was trained with.
    ///
    /// Without a delta, the model must be a classifier that was saved with its head.
    pub fn load(
        model: &Path,
        weights: Option<&str>,
        delta: Option<&Path>,
        tokenizer: &Path,
        device: Device,
    ) -> Result<Self> {
        let task = delta.map(|path| Ok::<_, Error>((path, Delta::read(path)?))).transpose()?;
        let reader = Tokenizer::read(tokenizer)?;
        if let Some((path, task)) = &task {
            same_tokenizer(&task.meta, path, tokenizer, &reader)?;
        }
        let base = Base::read(model, weights, device)?;
        let config = &base.info.config;
        fits(tokenizer, &reader, config)?;
        let (mut model, meta) = match task {
            Some((path, task)) => {
                check_length(&task.meta, path, config)?;
                let mut model = TaskModel::new(&base, task.meta.task.outputs(), None)?;
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
        Ok(Self { model, tokenizer: reader, meta })
    }

    /// Returns the predictor with matrix products in `precision`.
    pub fn with_precision(mut self, precision: Precision) -> Result<Self> {
        self.model.set_precision(precision.kind())?;
        Ok(self)
    }

    /// Predicts `rows` in order, in batches of `batch_size` rows, or more if the rows are short.
    /// Errs if a score is NaN or infinite, or if `rows` are pairs and the task is not, or the other
    /// way round.
    pub fn predict(&self, rows: &[Text], batch_size: usize) -> Result<Vec<Prediction>> {
        let _guard = tch::no_grad_guard();
        let encoded =
            self.tokenizer.encode_all(rows, |(a, b)| (a, b.as_deref()), self.meta.task.max_length);
        has_embeddings(&self.model.base.dir, &self.model.config, &encoded)?;
        self.about_pairs(rows.iter().map(|(_, pair)| pair.is_some()))?;
        let mut predictions = Vec::with_capacity(rows.len());
        let lengths: Vec<usize> = encoded.iter().map(|tokens| tokens.ids.len()).collect();
        in_batches(&lengths, batch_size, self.model.device(), &mut |range| {
            let texts = rows.get(range.clone()).unwrap_or_default();
            let scores = self.scores(encoded.get(range).unwrap_or_default())?;
            self.model.base.check_unchanged()?;
            if scores.iter().flatten().any(|score| !score.is_finite()) {
                let error = Error::NotFinite("the task's prediction".into());
                return Err(self.no_numbers(error)?);
            }
            let found =
                texts.iter().zip(&scores).map(|(text, scores)| self.prediction(text, scores));
            predictions.extend(found);
            Ok(())
        })?;
        Ok(predictions)
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
    fn scores(&self, tokens: &[Encoded]) -> Result<Vec<Vec<f32>>> {
        let (packed, _) = Batch::new(tokens).to_device(self.model.device())?;
        let logits = self.model.classifier.forward(&packed)?;
        to_rows(&match self.meta.task.task_type {
            TaskType::Classification => logits.f_softmax(-1, Kind::Float)?,
            TaskType::MultiLabel => logits.f_sigmoid()?,
            TaskType::Regression => logits,
        })
    }

    fn prediction(&self, (text, text_pair): &Text, scores: &[f32]) -> Prediction {
        let named = || self.meta.task.labels.iter().cloned().zip(scores.iter().copied());
        let best = named().nth(eval::best(scores));
        let (label, labels, score) = match self.meta.task.task_type {
            TaskType::Classification => {
                let (label, score) = best.unzip();
                (label, None, score)
            }
            TaskType::MultiLabel => {
                let has = named().filter(|(_, score)| *score >= 0.5).map(|(name, _)| name);
                (None, Some(has.collect()), None)
            }
            TaskType::Regression => (None, None, scores.first().copied()),
        };
        let (text, text_pair) = (text.clone(), text_pair.clone());
        Prediction { text, text_pair, label, labels, score, scores: named().collect() }
    }

    /// Errs if one of the rows has a second text and the task has none, or the other way round.
    /// Each item of `rows` says whether the row has one.
    fn about_pairs(&self, mut rows: impl Iterator<Item = bool>) -> Result<()> {
        let Some(pairs) = self.meta.task.pairs else { return Ok(()) };
        if rows.all(|pair| pair == pairs) {
            return Ok(());
        }
        let problem = if pairs {
            "the task is about pairs of texts, and only one is given; name the second's column with --text-pair-column, or give it with --text-pair"
        } else {
            "two texts are given, and the task is about one"
        };
        Err(Error::Usage(problem.into()))
    }

    /// Evaluates on labelled rows, and calls `progress` with the number of rows done. Errs if the
    /// loss is NaN or infinite.
    pub fn evaluate(
        &self,
        rows: &[Row],
        batch_size: usize,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Evaluation> {
        let labels = self.labels();
        self.about_pairs(rows.iter().map(|row| row.text_pair.is_some()))?;
        let task = self.meta.task.task_type;
        let examples = examples(&self.tokenizer, rows, task, &labels, self.meta.task.max_length)?;
        let tokens = examples.iter().map(|example| &example.tokens);
        has_embeddings(&self.model.base.dir, &self.model.config, tokens)?;
        let (model, device) = (&self.model.classifier, self.model.device());
        let mut progress = |done| {
            self.model.base.check_unchanged()?;
            progress(done)
        };
        let found = evaluate(model, device, &examples, task, &labels, batch_size, &mut progress)?;
        match found.metrics.get("loss") {
            Some(&loss) if !loss.is_finite() => Err(self.no_numbers(Error::NoLoss(loss))?),
            _ => Ok(found),
        }
    }

    /// Returns how many rows to predict at once. A prediction has a score for each label, so more
    /// labels allow fewer rows.
    pub fn rows_at_once(&self) -> usize {
        const SCORES: usize = 1 << 21;
        (SCORES / self.meta.task.labels.len().max(1)).max(1)
    }

    /// The base's directory.
    pub fn base_dir(&self) -> &Path {
        &self.model.base.dir
    }

    /// The task's labels.
    pub fn labels(&self) -> Labels {
        Labels { names: self.meta.task.labels.clone(), declared: self.meta.task.labels_declared }
    }
}
