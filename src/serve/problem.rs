//! Why a request, or a row of it, is not answered.

use crate::engine::RowError;
use crate::error::Error;
use crate::escape;
use crate::tasks::NotAsked;
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::Display;

/// The most characters of a message.
const MOST: usize = 2_000;

/// What answers a request, or why it is not answered.
pub type Answered<T> = Result<T, Problem>;

/// The answer to a request, or to a row, that cannot be answered otherwise.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The status of the response.
    pub status: StatusCode,
    /// The kind, for programs.
    pub kind: &'static str,
    /// What is wrong and what is expected.
    pub message: String,
    /// The seconds after which to ask again, if that may help.
    pub retry_after: Option<u64>,
    /// The methods that the path has, if the request's is another.
    pub allow: Option<String>,
}

/// An error.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ErrorBody {
    /// What is wrong, and what is expected.
    pub error: String,
    /// The kind of error.
    pub error_type: &'static str,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, message: impl Display) -> Self {
        let message = escape::short(&escape::line(message), MOST);
        Self { status, kind, message, retry_after: None, allow: None }
    }

    /// 400: a body that is not JSON.
    pub fn malformed(message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    /// 401: no key, or a wrong one.
    pub fn unauthorized(message: impl Display) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// 403: a request from elsewhere.
    pub fn forbidden(message: impl Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 404: no such task.
    pub fn no_task(message: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "task_not_found", message)
    }

    /// 404: no such path.
    pub fn no_path(message: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "path_not_found", message)
    }

    /// 405: another method than `allowed`.
    pub fn method(message: impl Display, allowed: String) -> Self {
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
        Self { allow: Some(allowed), ..problem }
    }

    /// 408: a body that does not come.
    pub fn slow_body(message: impl Display) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    /// 409: the server's state does not allow it.
    pub fn conflict(message: impl Display) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// 412: another version than the request's.
    pub fn precondition(message: impl Display) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", message)
    }

    /// 413: a body that is too large.
    pub fn too_large(message: impl Display) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// 415: a body of another type.
    pub fn media_type(message: impl Display) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// 422: a field with something wrong in it.
    pub fn invalid(message: impl Display) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message)
    }

    /// 500: a failure of the server.
    pub fn failed(message: impl Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", message)
    }

    /// 503: the server does not answer now.
    pub fn unavailable(message: impl Display) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        Self { retry_after: Some(1), ..problem }
    }

    /// 504: the deadline has passed.
    pub fn late() -> Self {
        let message = "no answer within the request's timeout";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }

    /// The same, about the part of the request that `place` names.
    pub fn at(mut self, place: impl Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// The body of the response.
    pub fn body(&self) -> ErrorBody {
        ErrorBody { error: self.message.clone(), error_type: self.kind }
    }
}

impl From<NotAsked> for Problem {
    fn from(problem: NotAsked) -> Self {
        match problem {
            NotAsked::NoTask(problem) => Self::no_task(problem),
            NotAsked::Input(problem) => Self::invalid(problem),
        }
    }
}

impl From<RowError> for Problem {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Late => Self::late(),
            RowError::Failed(error) => Self::failed(error),
            RowError::Ended(end) => Self::unavailable(format!("the engine has ended: {end}")),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::Busy { seconds, .. } => {
                let seconds = seconds.ceil().clamp(1.0, 60.0) as u64;
                let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", &error);
                Self { retry_after: Some(seconds), ..problem }
            }
            Error::Unanswered(_) => Self::unavailable(error),
            _ => Self::failed(error),
        }
    }
}
