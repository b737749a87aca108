//! The table of routes. The router, the metrics' label `route` and `openapi.json` come from it.

use super::api::{hf, oip, predict, status, tasks, tei, vllm};
use super::routes::{Answering, Call};
use hyper::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::any::TypeId;

/// What a route takes as a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// No body.
    Nothing,
    /// JSON.
    Json,
    /// JSON, or JSON lines.
    JsonOrLines,
    /// JSON, or JSON with tensors after it.
    JsonOrTensors,
    /// A file.
    File,
}

/// A route.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, with names of its parts in braces.
    pub path: &'static str,
    /// The body.
    pub accepts: Accepts,
    /// Whether the route is on the listener of `--admin` alone.
    pub is_admin: bool,
    /// Whether the route needs no key.
    pub is_open: bool,
    /// Whether the route answers while the server loads or drains.
    pub is_always: bool,
    /// What answers.
    pub handler: fn(Call) -> Answering,
    /// What `openapi.json` says.
    pub about: Described,
}

/// What the description says of a route.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// What the route does.
    pub summary: &'static str,
    /// The schema of the body; `None` if it is not JSON, or there is none.
    pub request: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// The schema of the response's body; `None` if that is not JSON.
    pub response: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// Whether the route takes the query of `GET /tasks`.
    pub has_query: bool,
}

/// Describes a route with JSON bodies of the types `Q` and `R`; `()` stands for none.
pub fn described<Q: JsonSchema + 'static, R: JsonSchema + 'static>(
    summary: &'static str,
) -> Described {
    fn of<T: JsonSchema + 'static>() -> Option<fn(&mut SchemaGenerator) -> Schema> {
        let schema: fn(&mut SchemaGenerator) -> Schema = |generator| generator.subschema_for::<T>();
        (TypeId::of::<T>() != TypeId::of::<()>()).then_some(schema)
    }
    Described { summary, request: of::<Q>(), response: of::<R>(), has_query: false }
}

impl Described {
    /// The same, with the query of `GET /tasks`.
    pub fn with_query(self) -> Self {
        Self { has_query: true, ..self }
    }
}

/// Makes a route.
macro_rules! route {
    ($method:ident $path:literal $accepts:ident, $handler:expr, $about:expr) => {
        Route {
            method: Method::$method,
            path: $path,
            accepts: Accepts::$accepts,
            is_admin: false,
            is_open: false,
            is_always: false,
            handler: |call| Box::pin($handler(call)),
            about: $about,
        }
    };
}

/// The routes.
pub fn table() -> Vec<Route> {
    [of_server(), of_tasks(), of_predictions(), of_open_inference_protocol()]
        .into_iter()
        .flatten()
        .collect()
}

/// Routes that say how the server is.
fn of_server() -> Vec<Route> {
    let always = |route: Route| Route { is_open: true, is_always: true, ..route };
    let status = described::<(), status::Status>;
    let text = described::<(), ()>;
    let (works, answers) = ("Whether the process works", "Whether requests are answered");
    vec![
        always(route!(GET "/" Nothing, status::page, text("A page to try tasks"))),
        always(route!(GET "/health" Nothing, status::health, status(works))),
        always(route!(GET "/ready" Nothing, status::ready, status(answers))),
        always(route!(GET "/ping" Nothing, status::ready, status(answers))),
        always(route!(GET "/v2/health/live" Nothing, status::health, status(works))),
        always(route!(GET "/v2/health/ready" Nothing, status::ready, status(answers))),
        Route {
            is_always: true,
            ..route!(GET "/metrics" Nothing, status::metrics, text("Metrics"))
        },
        route!(GET "/info" Nothing, status::info, described::<(), status::Info>("What runs")),
        route!(GET "/openapi.json" Nothing, status::openapi, text("This description")),
    ]
}

/// Routes of the tasks themselves.
fn of_tasks() -> Vec<Route> {
    let admin = |route: Route| Route { is_admin: true, ..route };
    let page = described::<(), tasks::TaskPage>("The tasks").with_query();
    let task = described::<(), tasks::TaskObject>;
    let remove = described::<(), ()>("Remove a task and its file");
    let reload = described::<(), tasks::Reloaded>("Look at the directory of tasks now");
    let models = described::<(), vllm::ModelList>("The tasks as models");
    vec![
        route!(GET "/tasks" Nothing, tasks::list, page),
        route!(GET "/tasks/{task}" Nothing, tasks::describe, task("A task")),
        route!(GET "/v1/models" Nothing, vllm::models, models),
        admin(route!(PUT "/tasks/{task}" File, tasks::put, task("Write a task's file"))),
        admin(route!(DELETE "/tasks/{task}" Nothing, tasks::delete, remove)),
        admin(route!(POST "/reload" Nothing, tasks::reload, reload)),
    ]
}

/// Routes that predict.
fn of_predictions() -> Vec<Route> {
    let rows = described::<predict::PredictRequest, predict::PredictResponse>;
    let rows = rows("Predict texts, each by any tasks");
    let hf = described::<hf::HfRequest, Vec<Vec<hf::LabelScore>>>;
    let of_task = hf("Predict texts, Hugging Face's shape");
    let of_default = hf("Predict texts of the default task, Hugging Face's shape");
    let tei = described::<tei::TeiRequest, tei::TeiResponse>;
    let tei = tei("Predict texts, the shape of text-embeddings-inference");
    let vllm = described::<vllm::VllmRequest, vllm::VllmResponse>("Predict texts, vLLM's shape");
    vec![
        route!(POST "/v1/predict" JsonOrLines, predict::predict, rows),
        route!(POST "/models/{task}" Json, hf::model, of_task),
        route!(POST "/" Json, hf::invocations, of_default),
        route!(POST "/invocations" Json, hf::invocations, of_default),
        route!(POST "/predict" Json, tei::predict, tei),
        route!(POST "/models/{task}/predict" Json, tei::predict, tei),
        route!(POST "/classify" Json, vllm::classify, vllm),
        route!(POST "/v1/classify" Json, vllm::classify, vllm),
    ]
}

/// Routes of the Open Inference Protocol, beside health.
fn of_open_inference_protocol() -> Vec<Route> {
    let server = described::<(), oip::ServerMetadata>("What the server is");
    let model = described::<(), oip::ModelMetadata>("A task's tensors");
    let ready = described::<(), oip::ModelReady>("Whether a task answers");
    let infer = described::<oip::InferRequest, oip::InferResponse>;
    let infer = infer("Predict texts, the Open Inference Protocol");
    vec![
        route!(GET "/v2" Nothing, oip::server, server),
        route!(GET "/v2/models/{task}" Nothing, oip::metadata, model),
        route!(GET "/v2/models/{task}/versions/{version}" Nothing, oip::metadata, model),
        route!(GET "/v2/models/{task}/ready" Nothing, oip::ready, ready),
        route!(GET "/v2/models/{task}/versions/{version}/ready" Nothing, oip::ready, ready),
        route!(POST "/v2/models/{task}/infer" JsonOrTensors, oip::infer, infer),
        route!(
            POST "/v2/models/{task}/versions/{version}/infer" JsonOrTensors, oip::infer, infer
        ),
    ]
}
