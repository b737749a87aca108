//! The shape of text-embeddings-inference: `POST /predict` and `POST /models/{task}/predict`.

use super::{answers, default_task, hf::LabelScore, json, kind, read, rows_of, set, set_about};
use crate::predict::Input;
use crate::serve::problem::Problem;
use crate::serve::routes::{Call, Response};
use crate::serve::scores::ScoreFunction;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// Texts of one task.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TeiRequest {
    /// A text; two texts, which are a pair; or a list of lists of one or two texts.
    #[schemars(with = "TeiInputs")]
    inputs: Value,
    /// The task, unless the path names it or the server has a default one.
    #[serde(default)]
    task: Option<String>,
    /// Whether to give logits.
    #[serde(default)]
    raw_scores: bool,
    /// Whether a text that is too long is cut; otherwise it is an error.
    #[serde(default)]
    truncate: Option<bool>,
    /// Which end of a text is kept: what comes first.
    #[serde(default)]
    #[allow(dead_code)]
    truncation_direction: TruncationDirection,
}

/// The end of a text that is cut.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[allow(dead_code)]
enum TruncationDirection {
    #[default]
    #[serde(rename = "right", alias = "Right")]
    Right,
}

/// A text; two texts, which are a pair; or a list of lists of one or two texts.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)]
enum TeiInputs {
    Text(String),
    TextOrPair(Vec<String>),
    Batch(Vec<Vec<String>>),
}

/// The labels of one text, or of each.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum TeiResponse {
    One(Vec<LabelScore>),
    Batch(Vec<Vec<LabelScore>>),
}

/// A list of one text, or of two, which are a pair.
fn text_or_pair(list: Vec<Value>, place: &str) -> Result<Input, Problem> {
    let count = list.len();
    let each = list.into_iter().enumerate();
    let texts = each.map(|(i, value)| super::text(value, &format!("{place}[{i}]")));
    let mut texts = texts.collect::<Result<Vec<String>, _>>()?.into_iter();
    match (texts.next(), texts.next(), texts.next()) {
        (Some(text), text_pair, None) => Ok(Input { text, text_pair }),
        _ => Err(Problem::invalid(format!(
            "{place}: a list of {count} texts; expected one, or two, which are a pair; for several \
             texts, a list of lists: [[\"a\"], [\"b\"]]"
        ))),
    }
}

/// The inputs, and whether they are a batch.
fn inputs(value: Value) -> Result<(Vec<Input>, bool), Problem> {
    match value {
        Value::String(text) => Ok((vec![text.into()], false)),
        Value::Array(list) if list.iter().any(Value::is_array) => {
            let each = list.into_iter().enumerate().map(|(i, value)| match value {
                Value::Array(list) => text_or_pair(list, &format!("inputs[{i}]")),
                other => Err(Problem::invalid(format!(
                    "inputs[{i}]: found {}, expected a list of one or two texts",
                    kind(&other)
                ))),
            });
            Ok((each.collect::<Result<_, _>>()?, true))
        }
        Value::Array(list) => Ok((vec![text_or_pair(list, "inputs")?], false)),
        other => {
            let found = kind(&other);
            Err(Problem::invalid(format!("inputs: found {found}, expected a text or a list")))
        }
    }
}

/// Reads a request: what it says, its inputs, and whether they are a batch.
pub fn parse(body: &[u8]) -> Result<(TeiRequest, Vec<Input>, bool), Problem> {
    let mut request: TeiRequest = read(body)?;
    let (inputs, is_batch) = inputs(request.inputs.take())?;
    Ok((request, inputs, is_batch))
}

/// Answers with labels from the most likely down: of one text, or a list for each text of a batch.
pub async fn predict(call: Call) -> Result<Response, Problem> {
    let (request, inputs, is_batch) = parse(&call.body)?;
    let task = match (call.find_param("task"), request.task) {
        (Some(task), None) => task.to_owned(),
        (Some(_), Some(_)) => return Err(Problem::invalid("task: the path names it already")),
        (None, Some(task)) => task,
        (None, None) => default_task(&call, "give \"task\", or POST to /models/{task}/predict")?,
    };
    let truncate = request.truncate.unwrap_or(true);
    let (scored, timing) =
        answers(&call, &task, rows_of(&task, "inputs", inputs, truncate)).await?;
    let function = if request.raw_scores { ScoreFunction::None } else { ScoreFunction::Auto };
    let mut rows = vec![];
    for row in &scored {
        let labels = row.scores(function)?.descending(None).into_iter();
        let labels = labels.map(|(l, score)| LabelScore { label: l.to_owned(), score });
        rows.push(labels.collect());
    }
    let mut response = json(&match is_batch {
        true => TeiResponse::Batch(rows),
        false => TeiResponse::One(rows.into_iter().next().unwrap_or_default()),
    })?;
    let tokens: usize = scored.iter().map(|row| row.tokens).sum();
    set(&mut response, "x-compute-type", if call.is_on_gpu() { "gpu" } else { "cpu" });
    set(&mut response, "x-compute-tokens", &tokens.to_string());
    let total = timing.tokenize + timing.queue + timing.compute;
    for (name, time) in [
        ("x-tokenization-time", timing.tokenize),
        ("x-queue-time", timing.queue),
        ("x-inference-time", timing.compute),
        ("x-total-time", total),
    ] {
        set(&mut response, name, &milliseconds(time));
    }
    set_about(&mut response, &timing, &scored);
    Ok(response)
}

/// Whole milliseconds, as text-embeddings-inference gives them.
fn milliseconds(time: Duration) -> String {
    time.as_millis().to_string()
}
