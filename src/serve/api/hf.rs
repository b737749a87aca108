//! Hugging Face's shape: `POST /models/{task}`, and `POST /invocations` of SageMaker.

use super::{answers, checked_top_k, default_task, json, kind, read, rows_of, set_about};
use crate::predict::Input;
use crate::serve::problem::Problem;
use crate::serve::routes::{Call, Response};
use crate::serve::scores::ScoreFunction;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The header by which SageMaker's clients name a model.
const TARGET: &str = "x-amzn-sagemaker-target-model";

/// Texts of one task.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HfRequest {
    /// A text, a pair, or a list of them.
    #[schemars(with = "HfInputs")]
    inputs: Value,
    /// How to answer.
    #[serde(default, deserialize_with = "super::object")]
    parameters: Option<HfParameters>,
    /// Options of Hugging Face's service. They change nothing here.
    #[serde(default, deserialize_with = "super::object")]
    #[allow(dead_code)]
    options: Option<HfOptions>,
}

/// How to answer.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HfParameters {
    /// How many of the most likely labels to give; all by default.
    #[serde(default)]
    #[schemars(range(min = 1))]
    top_k: Option<usize>,
    /// What makes scores of logits; by default what the task was trained with.
    #[serde(default)]
    function_to_apply: Option<ScoreFunction>,
    /// Whether a text that is too long is cut; otherwise it is an error.
    #[serde(default)]
    truncation: Option<bool>,
}

/// Options of Hugging Face's service, which are taken and change nothing: no answer is cached, and
/// every task is loaded.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct HfOptions {
    /// Whether an answer may come from a cache.
    #[serde(default)]
    use_cache: Option<bool>,
    /// Whether to wait for a model that is not loaded.
    #[serde(default)]
    wait_for_model: Option<bool>,
}

/// A text, a pair, or a list of them.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)]
enum HfInputs {
    One(HfInput),
    Several(Vec<HfInput>),
}

/// A text, or a pair.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)]
enum HfInput {
    Text(String),
    Pair { text: String, text_pair: Option<String> },
}

/// A label with its score.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LabelScore {
    /// The label; `LABEL_0` for a regression.
    pub label: String,
    /// The score, or the number of a regression.
    pub score: f32,
}

fn input(value: Value, place: &str) -> Result<Input, Problem> {
    let expected = "expected a text or {\"text\": ..., \"text_pair\": ...}";
    match value {
        Value::String(text) => Ok(text.into()),
        Value::Object(mut fields) => {
            let text = fields.remove("text");
            let text = text.ok_or_else(|| Problem::invalid(format!("{place}.text: missing")))?;
            let text = super::text(text, &format!("{place}.text"))?;
            let pair = fields.remove("text_pair").filter(|pair| !pair.is_null());
            let pair = pair.map(|pair| super::text(pair, &format!("{place}.text_pair")));
            match fields.keys().next() {
                None => Ok(Input { text, text_pair: pair.transpose()? }),
                Some(key) => {
                    Err(Problem::invalid(format!("{place}: unknown field {key:?}, {expected}")))
                }
            }
        }
        other => Err(Problem::invalid(format!("{place}: found {}, {expected}", kind(&other)))),
    }
}

/// Answers with a list for each text: its labels from the most likely down.
pub async fn model(call: Call) -> Result<Response, Problem> {
    let task = call.param("task").to_owned();
    answer(call, &task).await
}

/// Like [`model`], for the task of a header, or the default one.
pub async fn invocations(call: Call) -> Result<Response, Problem> {
    let task = match call.header(TARGET) {
        Some(task) => task.to_owned(),
        None => default_task(&call, "set the header X-Amzn-SageMaker-Target-Model")?,
    };
    answer(call, &task).await
}

/// What a request asks for.
pub struct Asked {
    inputs: Vec<Input>,
    top_k: Option<usize>,
    function: ScoreFunction,
    truncate: bool,
}

/// Reads a request.
pub fn parse(body: &[u8]) -> Result<Asked, Problem> {
    let HfRequest { inputs, parameters, .. } = read(body)?;
    let inputs = match inputs {
        Value::Array(list) => {
            let each = list.into_iter().enumerate();
            each.map(|(i, value)| input(value, &format!("inputs[{i}]")))
                .collect::<Result<_, _>>()?
        }
        one => vec![input(one, "inputs")?],
    };
    let parameters = parameters.unwrap_or_default();
    let top_k = checked_top_k(parameters.top_k)?;
    let function = parameters.function_to_apply.unwrap_or_default();
    let truncate = parameters.truncation.unwrap_or(true);
    Ok(Asked { inputs, top_k, function, truncate })
}

async fn answer(call: Call, task: &str) -> Result<Response, Problem> {
    let Asked { inputs, top_k, function, truncate } = parse(&call.body)?;
    let (scored, timing) = answers(&call, task, rows_of(task, "inputs", inputs, truncate)).await?;
    let mut rows: Vec<Vec<LabelScore>> = vec![];
    for row in &scored {
        let scores = row.scores(function)?;
        let labels = scores.descending(top_k).into_iter();
        rows.push(labels.map(|(l, score)| LabelScore { label: l.to_owned(), score }).collect());
    }
    let mut response = json(&rows)?;
    set_about(&mut response, &timing, &scored);
    Ok(response)
}
