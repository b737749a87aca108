//! The shape of vLLM and SGLang: `POST /classify`, `POST /v1/classify` and `GET /v1/models`.

use super::{answers, default_task, json, kind, read, rows_of, set_about};
use crate::bank::BankTask;
use crate::predict::Input;
use crate::process::unix_seconds;
use crate::serve::problem::Problem;
use crate::serve::routes::{Call, Response};
use crate::serve::scores::ScoreFunction;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// Texts of one task.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VllmRequest {
    /// The task, unless the server has a default one.
    #[serde(default)]
    model: Option<String>,
    /// A text, or a list of texts.
    #[schemars(with = "VllmInput")]
    input: Value,
    /// Whether to give probabilities; otherwise logits.
    #[serde(default, alias = "activation")]
    use_activation: Option<bool>,
    /// Who asks. This changes nothing.
    #[serde(default)]
    #[allow(dead_code)]
    user: Option<String>,
}

/// A text, or a list of texts.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)]
enum VllmInput {
    One(String),
    Several(Vec<String>),
}

/// The answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VllmResponse {
    /// The request's id.
    id: String,
    /// `list`.
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    /// The task.
    model: String,
    /// An answer for each text.
    data: Vec<VllmAnswer>,
    /// The tokens that were computed.
    usage: VllmUsage,
}

/// The answer to a text.
#[derive(Debug, Serialize, JsonSchema)]
struct VllmAnswer {
    /// The number of the text.
    index: usize,
    /// The task's label, or the most likely of several; `LABEL_0` for a regression.
    label: String,
    /// The scores, in the order of the task's labels.
    probs: Vec<f32>,
    /// The number of scores.
    num_classes: usize,
}

/// The tokens that were computed.
#[derive(Debug, Serialize, JsonSchema)]
struct VllmUsage {
    prompt_tokens: usize,
    total_tokens: usize,
    completion_tokens: usize,
}

/// The tasks, as models.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelList {
    /// `list`.
    object: &'static str,
    /// The tasks.
    data: Vec<ModelCard>,
}

/// A task, as a model.
#[derive(Debug, Serialize, JsonSchema)]
struct ModelCard {
    /// The task.
    id: String,
    /// `model`.
    object: &'static str,
    /// When the server started, in seconds since 1970.
    created: u64,
    /// `bitfit`.
    owned_by: &'static str,
    /// The base.
    root: String,
}

/// Reads a request: what it says, and its texts.
pub fn parse(body: &[u8]) -> Result<(VllmRequest, Vec<String>), Problem> {
    let mut request: VllmRequest = read(body)?;
    let texts = match request.input.take() {
        Value::String(text) => vec![text],
        Value::Array(list) => {
            let each = list.into_iter().enumerate();
            let each = each.map(|(i, value)| super::text(value, &format!("input[{i}]")));
            each.collect::<Result<Vec<String>, _>>()?
        }
        other => {
            let found = kind(&other);
            let problem = format!("input: found {found}, expected a text or a list of texts");
            return Err(Problem::invalid(problem));
        }
    };
    Ok((request, texts))
}

/// Answers with the scores of each text.
pub async fn classify(call: Call) -> Result<Response, Problem> {
    let (request, texts) = parse(&call.body)?;
    let task = match request.model {
        Some(task) => task,
        None => default_task(&call, "give \"model\"")?,
    };
    let is_pairs = |task: &Arc<BankTask>| task.task.pairs == Some(true);
    if call.service.engine.map().get(&task).is_some_and(is_pairs) {
        let problem = "takes pairs of texts, for which this shape has no place; expected another";
        return Err(Problem::invalid(format!("model: the task {task} {problem}")));
    }
    let inputs = texts.into_iter().map(Input::from).collect();
    let (scored, timing) = answers(&call, &task, rows_of(&task, "input", inputs, true)).await?;
    let function = match request.use_activation {
        Some(false) => ScoreFunction::None,
        _ => ScoreFunction::Auto,
    };
    let (mut data, mut tokens) = (vec![], 0);
    for (index, row) in scored.iter().enumerate() {
        let scores = row.scores(function)?;
        let best = scores.descending(Some(1));
        let best = best.first().map_or("", |(label, _)| label);
        let label = row.prediction().label.unwrap_or_else(|| best.to_owned());
        tokens += row.tokens;
        let num_classes = scores.scores.len();
        data.push(VllmAnswer { index, label, probs: scores.scores, num_classes });
    }
    let usage = VllmUsage { prompt_tokens: tokens, total_tokens: tokens, completion_tokens: 0 };
    let id = format!("classify-{}", call.request_id);
    let (object, created) = ("list", unix_seconds());
    let response = VllmResponse { id, object, created, model: task, data, usage };
    let mut response = json(&response)?;
    set_about(&mut response, &timing, &scored);
    Ok(response)
}

/// Lists the tasks.
pub async fn models(call: Call) -> Result<Response, Problem> {
    let card = |id: &str| ModelCard {
        id: id.to_owned(),
        object: "model",
        created: call.service.started,
        owned_by: "bitfit",
        root: call.service.about.base.clone(),
    };
    let data = call.service.engine.map().names().map(card).collect();
    json(&ModelList { object: "list", data })
}
