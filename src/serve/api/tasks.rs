//! The tasks: what is loaded, and on the listener of `--admin` changes of it.

use super::{empty, json, set};
use crate::models::TaskType;
use crate::serve::problem::Problem;
use crate::serve::registry::{IfMatch, Look, TaskDir};
use crate::serve::routes::{Call, Response};
use crate::tasks::{TaskMap, TaskSlot};
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

/// The tasks on a page unless a request says otherwise, and at most.
const PAGE: usize = 100;
const LONGEST_PAGE: usize = 1000;

/// Whether a task answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum State {
    Loaded,
    Refused,
}

/// A task. One that was refused has only `name`, `state` and `error`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TaskObject {
    /// The name.
    name: String,
    /// Whether the task answers.
    state: State,
    #[serde(flatten)]
    loaded: Option<LoadedTask>,
    /// Why the file was refused; with `loaded`, that of the newer version.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A task that answers.
#[derive(Debug, Serialize, JsonSchema)]
struct LoadedTask {
    /// The first digits of the SHA-256 that its file holds.
    version: String,
    /// What it predicts.
    task_type: TaskType,
    /// Its labels, in the order of class numbers.
    labels: Vec<String>,
    /// Whether it takes pairs of texts; null if it takes both.
    pairs: Option<bool>,
    /// The number of tokens that are read at once.
    max_length: usize,
    /// What is done with longer texts.
    long_texts: String,
    /// The probability from which a label is given, for the labels of a calibrated task.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    thresholds: BTreeMap<String, f32>,
    /// What trained it; null for the head that a base was saved with.
    method: Option<&'static str>,
    /// The bytes of its values.
    bytes: usize,
    /// The texts that it was asked to predict.
    requests: u64,
    /// When it was asked last; null for never.
    last_used: Option<String>,
}

/// A part of the tasks.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TaskPage {
    /// The tasks.
    tasks: Vec<TaskObject>,
    /// The value of `after` for the next page; null if there is none.
    next: Option<String>,
    /// The number of all tasks.
    total: usize,
}

/// What a look at the directory found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Reloaded {
    /// Tasks that are new, or have another version.
    loaded: usize,
    /// Files that were refused.
    refused: usize,
    /// Tasks whose files are gone.
    removed: usize,
}

fn loaded(name: &str, slot: &TaskSlot, error: Option<&String>) -> TaskObject {
    let task = &slot.task;
    let used = slot.last_used.load(Ordering::Relaxed);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(used);
    let thresholds = task.task.named_thresholds();
    TaskObject {
        name: name.to_owned(),
        state: State::Loaded,
        loaded: Some(LoadedTask {
            version: task.version.to_string(),
            task_type: task.task.task_type,
            labels: task.task.labels.clone(),
            pairs: task.task.pairs,
            max_length: task.task.max_length,
            long_texts: task.task.long_texts.to_string(),
            thresholds: thresholds.map(|(label, value)| (label.clone(), value)).collect(),
            method: task.method,
            bytes: task.bytes,
            requests: slot.requests.load(Ordering::Relaxed),
            last_used: (used > 0).then(|| humantime::format_rfc3339_seconds(time).to_string()),
        }),
        error: error.cloned(),
    }
}

fn refused(name: &str, error: &str) -> TaskObject {
    let (name, error) = (name.to_owned(), Some(error.to_owned()));
    TaskObject { name, state: State::Refused, loaded: None, error }
}

/// Which tasks a request lists.
struct Listing {
    after: Option<String>,
    limit: usize,
    state: Option<State>,
    by_requests: bool,
}

impl Listing {
    /// Reads the query.
    fn of(call: &Call) -> Result<Self, Problem> {
        let mut listing = Self { after: None, limit: PAGE, state: None, by_requests: false };
        for (key, value) in call.query() {
            let wrong = |expected: &str| {
                Problem::invalid(format!("{key}: found {value:?}, expected {expected}"))
            };
            match (key.as_str(), value.as_str()) {
                ("after", _) => listing.after = Some(value),
                ("limit", _) => {
                    let number = value.parse().ok().filter(|n| (1..=LONGEST_PAGE).contains(n));
                    listing.limit = number.ok_or_else(|| wrong("1 to 1000"))?;
                }
                ("state", "loaded") => listing.state = Some(State::Loaded),
                ("state", "refused") => listing.state = Some(State::Refused),
                ("state", _) => return Err(wrong("loaded or refused")),
                ("sort", "name") => listing.by_requests = false,
                ("sort", "requests") => listing.by_requests = true,
                ("sort", _) => return Err(wrong("name or requests")),
                _ => {
                    let problem = format!("{key:?}: expected after, limit, state or sort");
                    return Err(Problem::invalid(problem));
                }
            }
        }
        if listing.by_requests && listing.after.is_some() {
            let problem = "after: given, and sort=requests gives one page, of the most used";
            return Err(Problem::invalid(problem));
        }
        Ok(listing)
    }

    fn has(&self, state: State) -> bool {
        self.state.is_none_or(|own| own == state)
    }

    /// The most used tasks: one page, because the order changes while pages are read.
    fn most_used<'a>(&self, map: &'a TaskMap) -> Vec<&'a str> {
        let requests = |slot: &TaskSlot| slot.requests.load(Ordering::Relaxed);
        let tasks = map.tasks().iter().filter(|_| self.has(State::Loaded));
        let mut order: Vec<_> =
            tasks.map(|(name, slot)| (Reverse(requests(slot)), &**name)).collect();
        order.sort_unstable();
        order.into_iter().take(self.limit).map(|(_, name)| name).collect()
    }

    /// The names of a page, and one more if there are more.
    fn page<'a>(&self, map: &'a TaskMap) -> Vec<&'a str> {
        let from = self.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let range = (from, Bound::Unbounded);
        let mut names: Vec<&str> = vec![];
        if self.has(State::Loaded) {
            let tasks = map.tasks().range::<str, _>(range);
            names.extend(tasks.map(|(name, _)| &**name).take(self.limit + 1));
        }
        if self.has(State::Refused) {
            let wrong = map.refused().range::<str, _>(range).map(|(name, _)| name.as_str());
            let is_new = |name: &&str| self.state.is_some() || !map.tasks().contains_key(*name);
            names.extend(wrong.filter(is_new).take(self.limit + 1));
        }
        names.sort_unstable();
        names.truncate(self.limit + 1);
        names
    }
}

/// Lists tasks: `after`, `limit`, `state` and `sort` choose which.
pub async fn list(call: Call) -> Result<Response, Problem> {
    let listing = Listing::of(&call)?;
    let map = call.service.engine.map();
    let is_there = |name: &&String| map.tasks().contains_key(name.as_str());
    let total = match listing.state {
        Some(State::Loaded) => map.tasks().len(),
        None if listing.by_requests => map.tasks().len(),
        Some(State::Refused) => map.refused().len(),
        None => {
            map.tasks().len() + map.refused().len() - map.refused().keys().filter(is_there).count()
        }
    };
    let mut names = match listing.by_requests {
        true => listing.most_used(&map),
        false => listing.page(&map),
    };
    let has_more = names.len() > listing.limit;
    names.truncate(listing.limit);
    let next = names.last().filter(|_| has_more).map(|name| (*name).to_owned());
    let tasks = names.into_iter().filter_map(|name| object(&map, name)).collect();
    json(&TaskPage { tasks, next, total })
}

/// The task `name`, whether it was loaded or refused.
fn object(map: &TaskMap, name: &str) -> Option<TaskObject> {
    let error = map.refused().get(name);
    match map.tasks().get(name) {
        Some(slot) => Some(loaded(name, slot, error)),
        None => error.map(|error| refused(name, error)),
    }
}

/// Describes a task.
pub async fn describe(call: Call) -> Result<Response, Problem> {
    let (name, map) = (call.param("task"), call.service.engine.map());
    match object(&map, name) {
        Some(object) => json(&object),
        None => Err(Problem::no_task(map.no_task(name))),
    }
}

/// Runs `work` where it may wait for files.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Problem::failed("a panic while reading tasks"))
}

/// The directory of tasks, if there is one.
fn dir(call: &Call) -> Result<&TaskDir, Problem> {
    let problem = "the server has no directory of tasks (--tasks DIR)";
    call.service.dir.as_ref().ok_or_else(|| Problem::conflict(problem))
}

/// What the headers `If-Match` and `If-None-Match` ask for.
fn if_match(call: &Call) -> Result<IfMatch, Problem> {
    match (call.header("if-match"), call.header("if-none-match")) {
        (None, None) => Ok(IfMatch::Any),
        (None, Some("*")) => Ok(IfMatch::Absent),
        (None, Some(_)) => Err(Problem::invalid("If-None-Match: expected *")),
        (Some(_), Some(_)) => Err(Problem::invalid("If-Match and If-None-Match: expected one")),
        (Some("*"), None) => Ok(IfMatch::There),
        (Some(version), None) => Ok(IfMatch::Version(version.trim_matches('"').to_owned())),
    }
}

/// Writes a task's file. Answers when the task serves.
pub async fn put(call: Call) -> Result<Response, Problem> {
    dir(&call)?;
    let (service, body) = (call.service.clone(), call.body.clone());
    let (name, if_match) = (call.param("task").to_owned(), if_match(&call)?);
    let work = move || match &service.dir {
        Some(dir) => dir.put(&name, &body, &if_match),
        None => Ok(false),
    };
    let is_new = blocking(work).await??;
    let (name, map) = (call.param("task"), call.service.engine.map());
    let object = object(&map, name);
    let version = map.get(name).map(|task| format!("\"{}\"", task.version));
    let mut response = json(&object)?;
    if is_new {
        *response.status_mut() = StatusCode::CREATED;
    }
    set(&mut response, "etag", &version.unwrap_or_default());
    Ok(response)
}

/// Removes a task and its file.
pub async fn delete(call: Call) -> Result<Response, Problem> {
    dir(&call)?;
    let service = call.service.clone();
    let (name, if_match) = (call.param("task").to_owned(), if_match(&call)?);
    let work = move || match &service.dir {
        Some(dir) => dir.delete(&name, &if_match),
        None => Ok(()),
    };
    blocking(work).await??;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Looks at the directory of tasks now.
pub async fn reload(call: Call) -> Result<Response, Problem> {
    dir(&call)?;
    let service = call.service.clone();
    let work = move || service.dir.as_ref().map(|dir| dir.look(&mut |_, _| ())).transpose();
    let Look { loaded, refused, removed } =
        blocking(work).await?.map_err(Problem::failed)?.unwrap_or_default();
    json(&Reloaded { loaded, refused, removed })
}
