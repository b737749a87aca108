//! The shapes of requests and answers: from JSON to rows, and from answers to JSON.

pub mod hf;
pub mod oip;
pub mod predict;
pub mod status;
pub mod tasks;
pub mod tei;
pub mod vllm;

use super::problem::Problem;
use super::routes::{Call, Response};
use super::service::{RowAsk, Scored, Timing};
use crate::predict::Input;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::convert::Infallible;
use std::fmt::Formatter;
use std::marker::PhantomData;
use std::sync::Arc;

/// Reads a body in each shape, as the fuzz target does. Returns how many shapes take it.
pub fn parse_in_each_shape(body: &Bytes) -> usize {
    let half = (body.len() / 2).to_string();
    let parsed = [
        read::<predict::PredictRequest>(body).is_ok(),
        read::<predict::PredictRow>(body).is_ok(),
        hf::parse(body).is_ok(),
        tei::parse(body).is_ok(),
        vllm::parse(body).is_ok(),
        oip::parse(body, None).is_ok(),
        oip::parse(body, Some(&half)).is_ok(),
    ];
    parsed.into_iter().filter(|is_ok| *is_ok).count()
}

/// A body of bytes.
pub fn full(bytes: impl Into<Bytes>) -> BoxBody<Bytes, Infallible> {
    Full::new(bytes.into()).boxed()
}

/// A response with a body of a type.
pub fn typed(content_type: &'static str, bytes: impl Into<Bytes>) -> Response {
    let mut response = Response::new(full(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A response of JSON.
pub fn json(value: &impl Serialize) -> Result<Response, Problem> {
    let bytes = serde_json::to_vec(value).map_err(Problem::failed)?;
    Ok(typed("application/json", bytes))
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// Sets a header of a response, unless its value cannot be one.
pub fn set(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

/// Adds what the body cannot say: the header `Server-Timing`, in milliseconds, and how many of the
/// rows `scored` were cut.
pub fn set_about(response: &mut Response, timing: &Timing, scored: &[Scored]) {
    let cut = scored.iter().filter(|row| row.is_cut).count();
    if cut > 0 {
        set(response, "x-truncated-rows", &cut.to_string());
    }
    set_timing(response, timing);
}

/// Adds the header `Server-Timing`, in milliseconds.
pub fn set_timing(response: &mut Response, timing: &Timing) {
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    let Timing { tokenize, queue, compute } = timing;
    let value = format!(
        "tokenize;dur={:.2}, queue;dur={:.2}, compute;dur={:.2}",
        ms(*tokenize),
        ms(*queue),
        ms(*compute)
    );
    set(response, "server-timing", &value);
}

/// Reads a body as JSON. Errs with the place of the mistake.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => {
            let at = error.valid_up_to();
            return Err(Problem::malformed(format!("the body is not UTF-8 at byte {at}")));
        }
    };
    // serde would take a list for an object's fields in order.
    if !text.trim_ascii_start().starts_with('{') {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| Problem::malformed(format!("not JSON: {error}")))?;
        let found = kind(&value);
        return Err(Problem::invalid(format!("found {found}, expected an object")));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = error.path().to_string();
        let error = error.into_inner();
        match error.is_data() {
            // The path of the whole body is ".".
            true if place == "." => Problem::invalid(error),
            true => Problem::invalid(format!("{place}: {error}")),
            false => Problem::malformed(format!("not JSON: {error}")),
        }
    })?;
    json.end().map_err(|error| Problem::malformed(format!("not JSON: {error}")))?;
    Ok(value)
}

/// A JSON object. serde would also take a list for an object's fields in order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Object<T>, M::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// Reads a field that is an object, or null.
fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    let found = Option::<Object<T>>::deserialize(from)?;
    Ok(found.map(|object| object.0))
}

/// Reads a field that is a list of objects.
fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    let found = Vec::<Object<T>>::deserialize(from)?;
    Ok(found.into_iter().map(|object| object.0).collect())
}

/// Reads a field that is a list of objects, or null.
fn some_objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let found = Option::<Vec<Object<T>>>::deserialize(from)?;
    Ok(found.map(|list| list.into_iter().map(|object| object.0).collect()))
}

/// The text of a JSON value.
fn text(value: Value, place: &str) -> Result<String, Problem> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(Problem::invalid(format!("{place}: found {}, expected a text", kind(&other)))),
    }
}

/// What kind of JSON value this is, with an article.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Texts and pairs of one task, as rows. `list` is their name in the request.
pub fn rows_of(task: &str, list: &'static str, inputs: Vec<Input>, truncate: bool) -> Vec<RowAsk> {
    let rows = inputs.into_iter().enumerate().map(|(number, input)| RowAsk {
        task: task.to_owned(),
        input: Arc::new(input),
        truncate,
        place: (list, number),
    });
    rows.collect()
}

/// Computes rows of `task`, of which each must be answered.
pub async fn answers(
    call: &Call,
    task: &str,
    rows: Vec<RowAsk>,
) -> Result<(Vec<Scored>, Timing), Problem> {
    if rows.is_empty() {
        // No row says whether the task is there.
        let map = call.service.engine.map();
        map.get(task).ok_or_else(|| Problem::no_task(map.no_task(task)))?;
    }
    call.service.ask(rows, false, call.deadline).await?.all().await
}

/// The task of a request that names none.
pub fn default_task(call: &Call, how: &str) -> Result<String, Problem> {
    if let Some(name) = &call.service.default_task {
        return Ok(name.clone());
    }
    let map = call.service.engine.map();
    let mut names = map.names();
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only.to_owned()),
        _ => Err(Problem::invalid(format!(
            "no task is named: {how}, or start the server with --default-task NAME"
        ))),
    }
}

/// Errs unless a number of labels is at least 1.
pub fn checked_top_k(top_k: Option<usize>) -> Result<Option<usize>, Problem> {
    match top_k {
        Some(0) => Err(Problem::invalid("top_k: found 0, expected at least 1")),
        top_k => Ok(top_k),
    }
}
