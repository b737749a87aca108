//! Texts to labels and scores, with a base and a task's delta.

use crate::base::{Base, BaseFiles};
use crate::data::{Batch, Encoded, Example, Labels, Row, Tokenizer};
use crate::delta::{Delta, Meta};
use crate::error::{Error, Result};
use crate::eval::{Evaluation, evaluate};
use serde::Serialize;
use std::path::Path;
use tch::{Device, Kind};

/// A text, or a pair of texts.
pub type Text = (String, Option<String>);

/// A text's label with its confidence.
#[derive(Debug, Clone, Serialize)]
pub struct Prediction {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    /// The most likely label.
    pub label: String,
    /// Its probability.
    pub score: f32,
    /// The probability of each label, in the order of class numbers.
    #[serde(serialize_with = "as_map")]
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
    base: Base,
    tokenizer: Tokenizer,
    /// What the task's delta says of itself.
    pub meta: Meta,
}

impl Predictor {
    /// Reads the base `model` and applies `delta`; the tokenizer is `tokenizer`'s, and must be the one that the task was trained with.
    pub fn load(
        model: &Path,
        weights: Option<&str>,
        delta: &Path,
        tokenizer: &Path,
        device: Device,
    ) -> Result<Self> {
        let task = Delta::read(delta)?;
        let reader = Tokenizer::read(tokenizer)?;
        if reader.fingerprint != task.meta.tokenizer_fingerprint {
            let (expected, found) = (&task.meta.tokenizer_fingerprint, &reader.fingerprint);
            let problem = format!(
                "another tokenizer than {}'s: expected fingerprint {expected}, found {found}",
                delta.display()
            );
            return Err(Error::file(tokenizer, problem));
        }
        let files = BaseFiles::read(model, weights)?;
        fits(tokenizer, &reader, &files, [])?;
        let most = usize::try_from(files.config.max_position_embeddings).unwrap_or(0);
        if task.meta.task_type != "classification" {
            let problem =
                format!("task_type: found {}, expected classification", task.meta.task_type);
            return Err(Error::file(delta, problem));
        }
        if task.meta.labels.len() < 2 || !(3..=most).contains(&task.meta.max_length) {
            let problem = format!(
                "metadata: {} labels and max_length {}; expected two or more, and 3 to {most}",
                task.meta.labels.len(),
                task.meta.max_length
            );
            return Err(Error::file(delta, problem));
        }
        let mut base = files.build(task.meta.labels.len(), None, device)?;
        task.apply(delta, &mut base)?;
        base.store.freeze();
        Ok(Self { base, tokenizer: reader, meta: task.meta })
    }

    /// Predicts, `batch_size` rows at a time, in the order given.
    pub fn predict(&self, rows: &[Text], batch_size: usize) -> Result<Vec<Prediction>> {
        let _guard = tch::no_grad_guard();
        let encoded =
            self.tokenizer.encode_all(rows, |(a, b)| (a, b.as_deref()), self.meta.max_length);
        let mut predictions = Vec::with_capacity(rows.len());
        for (texts, tokens) in rows.chunks(batch_size).zip(encoded.chunks(batch_size)) {
            for (text, scores) in texts.iter().zip(self.scores(tokens)?) {
                if scores.iter().any(|score| !score.is_finite()) {
                    return Err(Error::NotFinite("the task's prediction".into()));
                }
                predictions.push(self.prediction(text, &scores));
            }
        }
        Ok(predictions)
    }

    /// Probabilities of a batch, a vector over the labels for each row.
    fn scores(&self, tokens: &[Encoded]) -> Result<Vec<Vec<f32>>> {
        let (packed, _) = Batch::new(tokens).to_device(self.base.device())?;
        let logits = self.base.model.forward(&packed)?;
        Ok(Vec::try_from(logits.f_softmax(-1, Kind::Float)?.f_to_device(Device::Cpu)?)?)
    }

    fn prediction(&self, (text, text_pair): &Text, scores: &[f32]) -> Prediction {
        let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0);
        let named = self.meta.labels.iter().zip(scores);
        Prediction {
            text: text.clone(),
            text_pair: text_pair.clone(),
            label: self.meta.labels[best].clone(),
            score: scores[best],
            scores: named.map(|(name, &score)| (name.clone(), score)).collect(),
        }
    }

    /// Evaluates on labelled rows.
    pub fn evaluate(
        &self,
        rows: &[Row],
        batch_size: usize,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Evaluation> {
        let labels = Labels { names: self.meta.labels.clone() };
        let examples = examples(&self.tokenizer, rows, &labels, self.meta.max_length)?;
        evaluate(
            &self.base.model,
            self.base.device(),
            &examples,
            labels.names.len(),
            batch_size,
            progress,
        )
    }
}

/// Tokenizes labelled rows.
pub fn examples(
    tokenizer: &Tokenizer,
    rows: &[Row],
    labels: &Labels,
    max_length: usize,
) -> Result<Vec<Example>> {
    let numbers = labels.number(rows)?;
    let encoded =
        tokenizer.encode_all(rows, |row| (&row.text, row.text_pair.as_deref()), max_length);
    Ok(encoded.into_iter().zip(numbers).map(|(tokens, label)| Example { tokens, label }).collect())
}

/// Checks that the base has an embedding for each id of the tokenizer, and for the second text of each pair in `tokens`.
pub fn fits<'a>(
    dir: &Path,
    tokenizer: &Tokenizer,
    base: &BaseFiles,
    tokens: impl IntoIterator<Item = &'a Encoded>,
) -> Result<()> {
    let (entries, expected) = (tokenizer.vocab_size(), base.config.vocab_size);
    if entries > expected {
        let problem = format!(
            "a vocabulary of {entries} entries, and the base's config.json says vocab_size = {expected}"
        );
        return Err(Error::file(dir, problem));
    }
    if base.config.type_vocab_size < 2 && tokens.into_iter().any(|t| t.first < t.ids.len()) {
        return Err(Error::file(
            dir,
            "the data has pairs, and the base's config.json says type_vocab_size = 1",
        ));
    }
    Ok(())
}
