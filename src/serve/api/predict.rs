//! `POST /v1/predict`: rows of any tasks in one request.

use super::{checked_top_k, default_task, full, json, read, set_timing};
use crate::predict::Input;
use crate::serve::problem::{ErrorBody, Problem};
use crate::serve::routes::{Call, Response};
use crate::serve::scores::ScoreFunction;
use crate::serve::service::{RowAsk, Scored, Scoring};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::{Bytes, Frame};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;

/// The type of a body of JSON lines.
pub const JSON_LINES: &str = "application/x-ndjson";

/// Lines that wait for a slow client.
const LINES_AHEAD: usize = 16;

/// Texts, each with the tasks that predict it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PredictRequest {
    /// The texts.
    #[serde(deserialize_with = "super::objects")]
    pub rows: Vec<PredictRow>,
    /// How many of the most likely labels `scores` has; all by default.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub top_k: Option<usize>,
    /// The probability below which no label is given: the answer is then unsure. For tasks with one
    /// label a text.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    pub min_score: Option<f32>,
    /// What makes scores of logits.
    #[serde(default)]
    pub activation: ScoreFunction,
    /// Whether a text that is too long is cut; otherwise it is an error.
    #[serde(default = "yes")]
    pub truncate: bool,
    /// Whether a row that cannot be answered is an error in its place, instead of one of all rows.
    #[serde(default)]
    pub partial: bool,
}

/// A text, or a pair of texts, and the tasks that predict it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PredictRow {
    /// The task; or `tasks`, for several. By default the server's only or default task.
    #[serde(default)]
    pub task: Option<String>,
    /// Several tasks, which answer in this order.
    #[serde(default)]
    pub tasks: Option<Vec<String>>,
    /// The text.
    pub text: String,
    /// The second text, for tasks about pairs.
    #[serde(default)]
    pub text_pair: Option<String>,
    /// The request's `top_k`, for this row.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub top_k: Option<usize>,
    /// The request's `min_score`, for this row.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    pub min_score: Option<f32>,
    /// The request's `activation`, for this row.
    #[serde(default)]
    pub activation: Option<ScoreFunction>,
    /// The request's `truncate`, for this row.
    #[serde(default)]
    pub truncate: Option<bool>,
}

fn yes() -> bool {
    true
}

/// The answers to each row, in order: one for each of its tasks.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PredictResponse {
    rows: Vec<Vec<TaskAnswer>>,
}

/// A task's answer to a row, or why there is none.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum TaskAnswer {
    Scores(TaskScores),
    Error(TaskError),
}

/// A task's answer. A classification has `label`, `score` and `scores`; a multi-label task has
/// `labels` and `scores`; a regression has `score`.
#[derive(Debug, Serialize, JsonSchema)]
struct TaskScores {
    /// The task.
    task: String,
    /// The version of the task that answered.
    version: String,
    /// The most likely label, or what the task's threshold gives of two; null if the answer is
    /// unsure.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<Option<String>>,
    /// The labels whose probability reaches the task's threshold, by default a half.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,
    /// The score of the label, or the number that a regression predicts.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    /// Whether the label's probability is below `min_score`.
    #[serde(skip_serializing_if = "Option::is_none")]
    unsure: Option<bool>,
    /// The scores by label: in the order of the task's labels, or with `top_k` from the highest
    /// down.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    #[schemars(with = "Option<std::collections::BTreeMap<String, f32>>")]
    scores: Vec<(String, f32)>,
    /// The number of tokens, special tokens included.
    tokens: usize,
    /// Whether the text was cut.
    truncated: bool,
}

/// Why a task does not answer a row.
#[derive(Debug, Serialize, JsonSchema)]
struct TaskError {
    /// The task.
    task: String,
    #[serde(flatten)]
    error: ErrorBody,
}

fn as_map<S: Serializer>(pairs: &[(String, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, score)| (name, score)))
}

/// The options of a row; those of the request hold for rows that have none.
#[derive(Clone, Copy)]
struct RowOptions {
    top_k: Option<usize>,
    min_score: Option<f32>,
    activation: ScoreFunction,
    truncate: bool,
}

/// How a row is asked for and answered.
struct RowPlan {
    tasks: Vec<String>,
    options: RowOptions,
}

impl RowPlan {
    /// Plans the row at `place`, which has `options` where it has none of its own, and adds what it
    /// asks for to `asks`.
    fn new(
        call: &Call,
        row: PredictRow,
        place: (&'static str, usize),
        options: RowOptions,
        asks: &mut Vec<RowAsk>,
    ) -> Result<Self, Problem> {
        let tasks = match (row.task, row.tasks) {
            (Some(task), None) => vec![task],
            (None, Some(tasks)) if !tasks.is_empty() => tasks,
            (None, Some(_)) => return Err(Problem::invalid("tasks: found no names")),
            (Some(_), Some(_)) => {
                return Err(Problem::invalid("task and tasks: expected one of them"));
            }
            (None, None) => vec![default_task(call, "give \"task\" or \"tasks\"")?],
        };
        let input = Arc::new(Input { text: row.text, text_pair: row.text_pair });
        let truncate = row.truncate.unwrap_or(options.truncate);
        let min_score = row.min_score.or(options.min_score);
        if let Some(least) = min_score.filter(|least| !(0.0..=1.0).contains(least)) {
            let problem = format!("min_score: found {least}, expected a probability from 0 to 1");
            return Err(Problem::invalid(problem));
        }
        for task in &tasks {
            asks.push(RowAsk { task: task.clone(), input: input.clone(), truncate, place });
        }
        let top_k = checked_top_k(row.top_k.or(options.top_k))?;
        let activation = row.activation.unwrap_or(options.activation);
        Ok(Self { tasks, options: RowOptions { top_k, min_score, activation, truncate } })
    }

    /// The row's answers, of which `scorings` yields the next.
    fn answers(
        &self,
        scorings: &mut impl Iterator<Item = Scoring>,
        is_partial: bool,
    ) -> Result<Vec<TaskAnswer>, Problem> {
        let answers = self.tasks.iter().zip(scorings).map(|(task, scoring)| {
            let answer = scoring.and_then(|scored| self.answer(&scored));
            match answer {
                Ok(answer) => Ok(TaskAnswer::Scores(answer)),
                Err(problem) if is_partial => {
                    let (task, error) = (task.clone(), problem.body());
                    Ok(TaskAnswer::Error(TaskError { task, error }))
                }
                Err(problem) => Err(problem),
            }
        });
        answers.collect()
    }

    fn answer(&self, scored: &Scored) -> Result<TaskScores, Problem> {
        let mut prediction = scored.prediction();
        let RowOptions { top_k, min_score, activation, .. } = self.options;
        let scores = scored.scores(activation)?;
        let best = prediction
            .label
            .as_ref()
            .map(|label| scores.labels.iter().position(|other| other == label).unwrap_or_default());
        let score = scores.scores.get(best.unwrap_or_default()).copied();
        if let Some(least) = min_score {
            if prediction.label.is_none() {
                let problem = format!(
                    "min_score: found {least}, and the task {} does not give one label",
                    scored.name
                );
                return Err(Problem::invalid(problem));
            }
            prediction = prediction.at_least(least);
        }
        let pairs: Vec<(&str, f32)> = match top_k {
            Some(_) => scores.descending(top_k),
            None => scores.labels.iter().copied().zip(scores.scores.iter().copied()).collect(),
        };
        let is_regression = prediction.scores.is_empty();
        let named = |(label, score): (&str, f32)| (label.to_owned(), score);
        Ok(TaskScores {
            task: scored.name.to_string(),
            version: scored.task.version.to_string(),
            score: score.filter(|_| is_regression || best.is_some()),
            unsure: prediction.unsure.then_some(true),
            label: (prediction.unsure || prediction.label.is_some()).then_some(prediction.label),
            labels: prediction.labels,
            scores: if is_regression { vec![] } else { pairs.into_iter().map(named).collect() },
            tokens: scored.tokens,
            truncated: scored.is_cut,
        })
    }
}

/// Answers JSON with JSON, and JSON lines with JSON lines.
pub async fn predict(call: Call) -> Result<Response, Problem> {
    if call.is_of_type(JSON_LINES) {
        return predict_lines(call).await;
    }
    let request: PredictRequest = read(&call.body)?;
    let options = RowOptions {
        top_k: request.top_k,
        min_score: request.min_score,
        activation: request.activation,
        truncate: request.truncate,
    };
    let (mut asks, mut plans) = (vec![], vec![]);
    for (row, number) in request.rows.into_iter().zip(0..) {
        let plan = RowPlan::new(&call, row, ("rows", number), options, &mut asks);
        plans.push(plan.map_err(|problem| problem.at(format_args!("rows[{number}]")))?);
    }
    let asking = call.service.ask(asks, request.partial, call.deadline).await?;
    let (scorings, timing) = match request.partial {
        true => asking.each().await,
        false => {
            let (all, timing) = asking.all().await?;
            (all.into_iter().map(Ok).collect(), timing)
        }
    };
    let mut scorings = scorings.into_iter();
    let rows = plans.iter().map(|plan| plan.answers(&mut scorings, request.partial));
    let rows = rows.collect::<Result<_, _>>()?;
    let mut response = json(&PredictResponse { rows })?;
    set_timing(&mut response, &timing);
    Ok(response)
}

/// Answers each line, a row, with a line: the list of its answers, or an error if it is no row. The
/// lines are written as they are ready.
async fn predict_lines(call: Call) -> Result<Response, Problem> {
    let (mut asks, mut plans) = (vec![], vec![]);
    for (line, number) in call.body.split(|byte| *byte == b'\n').zip(1..) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        plans.push(read(line).and_then(|row: PredictRow| {
            let options = RowOptions {
                top_k: None,
                min_score: None,
                activation: ScoreFunction::Auto,
                truncate: true,
            };
            RowPlan::new(&call, row, ("line", number), options, &mut asks)
        }));
    }
    let mut asking = call.service.ask(asks, true, call.deadline).await?;
    let (mut sender, body) = Channel::new(LINES_AHEAD);
    tokio::spawn(async move {
        for plan in plans {
            let line = match plan {
                Ok(plan) => {
                    let mut scorings = vec![];
                    for _ in &plan.tasks {
                        scorings.extend(asking.next().await);
                    }
                    let answers = plan.answers(&mut scorings.into_iter(), true);
                    answers.map(|answers| serde_json::to_string(&answers))
                }
                Err(problem) => Err(problem),
            };
            let line = line.unwrap_or_else(|problem| serde_json::to_string(&problem.body()));
            let line = line.unwrap_or_default() + "\n";
            // An error says that the client has left: what waits is dropped.
            if sender.send(Frame::data(Bytes::from(line))).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(full(Bytes::new()));
    *response.body_mut() = body.boxed();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON_LINES));
    Ok(response)
}
