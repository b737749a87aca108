//! The description of the API, OpenAPI 3.1: made from the table of routes and the types of their
//! bodies.

use super::api::predict::JSON_LINES;
use super::problem::ErrorBody;
use super::table::{Accepts, Described, Route, table};
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The description.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let error = generator.subschema_for::<ErrorBody>();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in table() {
        let method = route.method.as_str().to_lowercase();
        let operation = operation(&route, &error, &mut generator);
        paths.entry(route.path).or_default().insert(method, operation.into());
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "bitfit",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Text classification by many tasks on one frozen base.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(route: &Route, error: &Schema, generator: &mut SchemaGenerator) -> Map<String, Value> {
    let Described { summary, request, response, has_query } = route.about;
    let mut operation = Map::new();
    let mut add = |key: &str, value: Value| drop(operation.insert(key.into(), value));
    add("operationId", name(route).into());
    add("summary", summary.into());
    if route.is_admin {
        add("description", "On the listener of --admin alone.".into());
    }
    if !route.is_open {
        add("security", json!([{}, {"key": []}]));
    }
    let parts = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path =
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    let mut parameters: Vec<Value> = parts.map(in_path).collect();
    if has_query {
        parameters.extend(query());
    }
    if !parameters.is_empty() {
        add("parameters", parameters.into());
    }
    let mut body = Map::new();
    if let Some(request) = request {
        body.insert("application/json".into(), json!({"schema": request(generator)}));
    }
    match route.accepts {
        Accepts::JsonOrLines => {
            drop(body.insert(JSON_LINES.into(), json!({"schema": {"type": "string"}})));
        }
        Accepts::File => {
            let binary = json!({"schema": {"type": "string", "format": "binary"}});
            drop(body.insert("application/octet-stream".into(), binary));
        }
        _ => {}
    }
    if !body.is_empty() {
        add("requestBody", json!({"required": true, "content": body}));
    }
    let text = json!({"schema": {"type": "string"}});
    let content = match (response, route.path) {
        (Some(response), _) => json!({"application/json": {"schema": response(generator)}}),
        (None, "/") => json!({"text/html": text}),
        (None, "/metrics") => json!({"text/plain": text}),
        (None, "/openapi.json") => json!({"application/json": {}}),
        (None, _) => Value::Null,
    };
    let (code, done) = match content {
        Value::Null => ("204", json!({"description": "Done"})),
        content => ("200", json!({"description": "Done", "content": content})),
    };
    let error = json!({"application/json": {"schema": error}});
    let error = json!({"description": "An error", "content": error});
    add("responses", json!({code: done, "default": error}));
    operation
}

/// The parameters of the query of `GET /tasks`.
fn query() -> Vec<Value> {
    let one = |name: &str, schema: Value, about: &str| json!({"name": name, "in": "query", "schema": schema, "description": about});
    let after = "Begins after this name, which need not be a task's.";
    vec![
        one("after", json!({"type": "string"}), after),
        one("limit", json!({"type": "integer", "minimum": 1, "maximum": 1000}), "100 by default."),
        one("state", json!({"enum": ["loaded", "refused"]}), "Tasks of this state alone."),
        one("sort", json!({"enum": ["name", "requests"]}), "requests: the most used, one page."),
    ]
}

/// The name of a route's operation: its method, and the words of its path.
fn name(route: &Route) -> String {
    let words = route.path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    let path = if words.is_empty() { "page".into() } else { words.join("_") };
    format!("{}_{path}", route.method.as_str().to_lowercase())
}
