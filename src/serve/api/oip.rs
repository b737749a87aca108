//! The Open Inference Protocol, which KServe and Triton call v2: `/v2/...`.
//!
//! Texts come as the input `text`, with `text_pair` for pairs. The binary extension is supported:
//! tensors may follow the JSON, whose length is in the header `Inference-Header-Content-Length`.

use super::{answers, json, read, rows_of, set, set_about, typed};
use crate::bank::BankTask;
use crate::models::{Task, TaskType};
use crate::predict::Input;
use crate::serve::problem::Problem;
use crate::serve::routes::{Call, Response};
use crate::serve::scores::ScoreFunction;
use crate::serve::service::Scored;
use hyper::body::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The header with the length of the JSON before tensors in binary.
const HEADER_LENGTH: &str = "inference-header-content-length";

/// Texts of one task, as tensors.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InferRequest {
    /// An id, which the answer repeats.
    #[serde(default)]
    id: Option<String>,
    /// `text`, and `text_pair` for pairs.
    #[serde(deserialize_with = "super::objects")]
    inputs: Vec<InferInput>,
    /// The outputs to give; all by default.
    #[serde(default, deserialize_with = "super::some_objects")]
    outputs: Option<Vec<RequestedOutput>>,
    /// `binary_data_output`: whether all outputs are binary.
    #[serde(default, deserialize_with = "super::object")]
    parameters: Option<RequestParameters>,
}

/// The parameters of a request.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RequestParameters {
    /// Whether all outputs are binary.
    #[serde(default)]
    binary_data_output: bool,
}

/// A tensor of texts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InferInput {
    /// `text` or `text_pair`.
    name: String,
    /// `[n]` or `[n, 1]`.
    shape: Vec<usize>,
    /// `BYTES`.
    datatype: String,
    /// The texts.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    data: Option<Vec<Value>>,
    /// `binary_data_size`: the bytes of a tensor in binary.
    #[serde(default, deserialize_with = "super::object")]
    parameters: Option<InputParameters>,
}

/// The parameters of a tensor.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InputParameters {
    /// The bytes of the tensor, which follows the JSON.
    #[serde(default)]
    binary_data_size: Option<usize>,
}

/// An output to give.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RequestedOutput {
    /// Its name.
    name: String,
    #[serde(default, deserialize_with = "super::object")]
    parameters: Option<OutputParameters>,
}

/// How an output is given.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OutputParameters {
    /// Whether the output is binary.
    #[serde(default)]
    binary_data: Option<bool>,
}

/// The answers, as tensors.
#[derive(Debug, Serialize, JsonSchema)]
pub struct InferResponse {
    /// The task.
    model_name: String,
    /// The version that answered.
    model_version: String,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// The outputs.
    outputs: Vec<InferOutput>,
}

/// A tensor of answers.
#[derive(Debug, Serialize, JsonSchema)]
struct InferOutput {
    /// Its name.
    name: &'static str,
    /// `BYTES` or `FP32`.
    datatype: &'static str,
    /// `[n]` or `[n, L]`.
    shape: Vec<usize>,
    /// The values, unless they are binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
    /// `binary_data_size` of a tensor in binary.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(with = "Option<Map<String, Value>>")]
    parameters: Map<String, Value>,
}

/// What a task takes and gives.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelMetadata {
    /// The task.
    name: String,
    /// Its version.
    versions: Vec<String>,
    /// `bitfit`.
    platform: &'static str,
    /// What it takes.
    inputs: Vec<TensorMetadata>,
    /// What it gives.
    outputs: Vec<TensorMetadata>,
}

/// A tensor.
#[derive(Debug, Serialize, JsonSchema)]
struct TensorMetadata {
    /// Its name.
    name: &'static str,
    /// `BYTES` or `FP32`.
    datatype: &'static str,
    /// Its shape; -1 is any number of texts.
    shape: Vec<i64>,
}

/// What the server is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ServerMetadata {
    /// `bitfit`.
    name: &'static str,
    /// Its version.
    version: &'static str,
    /// The extensions of the protocol.
    extensions: Vec<&'static str>,
}

/// Whether a task can answer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelReady {
    /// The task.
    name: String,
    /// Whether it can answer.
    ready: bool,
}

/// The values of an output.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Data {
    Texts(Vec<String>),
    Numbers(Vec<f32>),
}

/// The name of an output, whether it is of texts, and its shape.
type Output = (&'static str, bool, Vec<i64>);

/// The outputs of a task.
fn outputs(task: &Task) -> Vec<Output> {
    let labels = task.labels.len() as i64;
    match task.task_type {
        TaskType::Classification => {
            vec![("label", true, vec![-1]), ("probabilities", false, vec![-1, labels])]
        }
        TaskType::MultiLabel => {
            vec![("labels", true, vec![-1]), ("probabilities", false, vec![-1, labels])]
        }
        TaskType::Regression => vec![("score", false, vec![-1])],
    }
}

/// The task of a path, of the version that the path names.
fn task_of(call: &Call) -> Result<Arc<BankTask>, Problem> {
    let name = call.param("task");
    let map = call.service.engine.map();
    let task = map.get(name).ok_or_else(|| Problem::no_task(map.no_task(name)))?;
    match call.find_param("version") {
        Some(version) if version != &*task.version => Err(Problem::no_task(format!(
            "task {name}: no version {version}; it has version {}",
            task.version
        ))),
        _ => Ok(task.clone()),
    }
}

/// Says what the server is.
pub async fn server(_: Call) -> Result<Response, Problem> {
    let (name, version) = ("bitfit", env!("CARGO_PKG_VERSION"));
    json(&ServerMetadata { name, version, extensions: vec!["binary_tensor_data"] })
}

/// Says what a task takes and gives.
pub async fn metadata(call: Call) -> Result<Response, Problem> {
    let task = task_of(&call)?;
    let tensor = |(name, is_text, shape): Output| TensorMetadata {
        name,
        datatype: if is_text { "BYTES" } else { "FP32" },
        shape,
    };
    let mut inputs = vec![("text", true, vec![-1])];
    if task.task.pairs != Some(false) {
        inputs.push(("text_pair", true, vec![-1]));
    }
    json(&ModelMetadata {
        name: call.param("task").to_owned(),
        versions: vec![task.version.to_string()],
        platform: "bitfit",
        inputs: inputs.into_iter().map(tensor).collect(),
        outputs: outputs(&task.task).into_iter().map(tensor).collect(),
    })
}

/// Says that a task can answer.
pub async fn ready(call: Call) -> Result<Response, Problem> {
    task_of(&call)?;
    json(&ModelReady { name: call.param("task").to_owned(), ready: true })
}

/// Reads a request, whose JSON has the length in the header `length` if tensors follow. Returns
/// what the request says, and its inputs.
pub fn parse(body: &Bytes, length: Option<&str>) -> Result<(InferRequest, Vec<Input>), Problem> {
    let length = match length {
        None => body.len(),
        Some(length) => {
            let length = length.parse::<usize>().ok().filter(|length| *length <= body.len());
            length.ok_or_else(|| {
                let most = body.len();
                Problem::malformed(format!("{HEADER_LENGTH}: expected a number up to {most}"))
            })?
        }
    };
    let mut request: InferRequest = read(&body.slice(..length))?;
    let inputs = inputs(std::mem::take(&mut request.inputs), body.slice(length..))?;
    Ok((request, inputs))
}

/// The texts of a tensor in binary, each after its length.
fn binary_texts(mut bytes: &[u8], name: &str) -> Result<Vec<String>, Problem> {
    let mut texts = vec![];
    while !bytes.is_empty() {
        let text = bytes.split_first_chunk().and_then(|(length, rest)| {
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
        });
        let Some((text, rest)) = text else {
            let problem = "a text that ends after the tensor's bytes";
            return Err(Problem::malformed(format!("input {name}: {problem}")));
        };
        let text = std::str::from_utf8(text).map_err(|error| {
            let (number, at) = (texts.len(), error.valid_up_to());
            Problem::malformed(format!("input {name}: text {number} is not UTF-8 at byte {at}"))
        })?;
        texts.push(text.to_owned());
        bytes = rest;
    }
    Ok(texts)
}

/// The texts of `input`, of which `tensors` holds those in binary.
fn texts(input: InferInput, tensors: &mut Bytes) -> Result<Vec<String>, Problem> {
    let InferInput { name, shape, datatype, data, parameters } = input;
    let at = |problem: String| Problem::invalid(format!("input {name}: {problem}"));
    if datatype != "BYTES" {
        return Err(at(format!("datatype: found {datatype:?}, expected \"BYTES\"")));
    }
    let texts = match (data, parameters.unwrap_or_default().binary_data_size) {
        (Some(data), None) => {
            let each = data.into_iter().enumerate();
            let each = each.map(|(i, value)| super::text(value, &format!("input {name}[{i}]")));
            each.collect::<Result<Vec<String>, _>>()?
        }
        (None, Some(size)) if size <= tensors.len() => {
            binary_texts(&tensors.split_to(size), &name)?
        }
        (None, Some(size)) => {
            let there = tensors.len();
            return Err(at(format!("binary_data_size: found {size}, and {there} bytes follow")));
        }
        _ => return Err(at("expected data, or binary_data_size".into())),
    };
    let count = texts.len();
    match shape[..] {
        [n] | [n, 1] if n == count => Ok(texts),
        _ => Err(at(format!("shape: found {shape:?}, expected [{count}] for {count} texts"))),
    }
}

/// The inputs of a request as texts or pairs.
fn inputs(inputs: Vec<InferInput>, mut tensors: Bytes) -> Result<Vec<Input>, Problem> {
    let (mut first, mut second) = (None, None);
    for input in inputs {
        let place = match input.name.as_str() {
            "text" => &mut first,
            "text_pair" => &mut second,
            other => {
                let problem = format!("input {other:?}: expected \"text\" or \"text_pair\"");
                return Err(Problem::invalid(problem));
            }
        };
        if place.is_some() {
            return Err(Problem::invalid(format!("input {:?}: given twice", input.name)));
        }
        *place = Some(texts(input, &mut tensors)?);
    }
    if !tensors.is_empty() {
        let left = tensors.len();
        return Err(Problem::malformed(format!("{left} bytes follow the tensors")));
    }
    let first = first.ok_or_else(|| Problem::invalid("inputs: no input \"text\""))?;
    let Some(second) = second else { return Ok(first.into_iter().map(Input::from).collect()) };
    if first.len() != second.len() {
        let (first, second) = (first.len(), second.len());
        return Err(Problem::invalid(format!("{first} of text, and {second} of text_pair")));
    }
    Ok(first.into_iter().zip(second).map(Input::from).collect())
}

/// The outputs that a request asks for, each with whether it is binary.
fn chosen(
    all: Vec<Output>,
    requested: Option<Vec<RequestedOutput>>,
    is_binary: bool,
) -> Result<Vec<(Output, bool)>, Problem> {
    let Some(requested) = requested else {
        return Ok(all.into_iter().map(|output| (output, is_binary)).collect());
    };
    let names: Vec<_> = all.iter().map(|(name, _, _)| *name).collect();
    let each = requested.into_iter().map(|RequestedOutput { name, parameters }| {
        let own = parameters.unwrap_or_default().binary_data.unwrap_or(is_binary);
        let output = all.iter().find(|(other, _, _)| *other == name).cloned();
        let expected = || format!("output {name:?}: expected one of {}", names.join(", "));
        Ok((output.ok_or_else(|| Problem::invalid(expected()))?, own))
    });
    each.collect()
}

/// The values of the output `name`.
fn values(name: &str, scored: &[Scored]) -> Result<Data, Problem> {
    let each = scored.iter();
    Ok(match name {
        "label" => Data::Texts(each.filter_map(|row| row.prediction().label).collect()),
        "labels" => {
            let labels = each.filter_map(|row| row.prediction().labels);
            let texts = labels.map(|labels| serde_json::to_string(&labels));
            Data::Texts(texts.collect::<Result<_, _>>().map_err(Problem::failed)?)
        }
        _ => {
            let mut numbers = vec![];
            for row in scored {
                numbers.extend(row.scores(ScoreFunction::Auto)?.scores);
            }
            Data::Numbers(numbers)
        }
    })
}

/// The bytes of a tensor in binary.
fn binary(tensor: &Data) -> Vec<u8> {
    match tensor {
        Data::Numbers(numbers) => numbers.iter().flat_map(|n| n.to_le_bytes()).collect(),
        Data::Texts(texts) => {
            let each = texts.iter().flat_map(|text| {
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                [&length.to_le_bytes()[..], text.as_bytes()].concat()
            });
            each.collect()
        }
    }
}

/// Predicts texts.
pub async fn infer(call: Call) -> Result<Response, Problem> {
    let task = task_of(&call)?;
    let name = call.param("task").to_owned();
    let (request, inputs) = parse(&call.body, call.header(HEADER_LENGTH))?;
    let is_binary = request.parameters.unwrap_or_default().binary_data_output;
    let chosen = chosen(outputs(&task.task), request.outputs, is_binary)?;
    let rows = rows_of(&name, "text", inputs, true);
    let (scored, timing) = answers(&call, &name, rows).await?;
    let count = scored.len();
    let (mut outputs, mut tail) = (vec![], vec![]);
    for ((output, is_text, shape), is_binary) in chosen {
        let tensor = values(output, &scored)?;
        let (mut data, mut parameters) = (None, Map::new());
        if is_binary {
            let bytes = binary(&tensor);
            parameters.insert("binary_data_size".into(), bytes.len().into());
            tail.extend(bytes);
        } else {
            data = Some(tensor);
        }
        let width = shape.get(1).and_then(|width| usize::try_from(*width).ok());
        let shape = [count].into_iter().chain(width).collect();
        let datatype = if is_text { "BYTES" } else { "FP32" };
        outputs.push(InferOutput { name: output, datatype, shape, data, parameters });
    }
    // Rows of one request may be of two versions only if the task was replaced between them.
    let version = scored.first().map_or(&task.version, |row| &row.task.version).to_string();
    let response =
        InferResponse { model_name: name, model_version: version, id: request.id, outputs };
    let mut response = match tail.is_empty() {
        true => json(&response)?,
        false => {
            let mut bytes = serde_json::to_vec(&response).map_err(Problem::failed)?;
            let length = bytes.len().to_string();
            bytes.extend(tail);
            let mut response = typed("application/octet-stream", bytes);
            set(&mut response, HEADER_LENGTH, &length);
            response
        }
    };
    set_about(&mut response, &timing, &scored);
    Ok(response)
}
