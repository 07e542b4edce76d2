//! What a request is refused with: problem+json (RFC 9457) with a code that stays.

use std::fmt;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::headers;
use crate::error::{Error, ErrorKind};

/// Why a request was refused. The text of each code does not change between releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemCode {
    /// Path, parameters, headers or body cannot be read: change the request.
    MalformedRequest,
    /// The request names no token, or a wrong one.
    Unauthorized,
    /// Who asks may not.
    Forbidden,
    /// There is no such path.
    NoSuchRoute,
    /// The application has no such store, or does not serve it.
    NoSuchStore,
    /// The store has no row of the key. A final answer, with a position.
    NoSuchKey,
    /// The path is there, the method is not.
    MethodNotAllowed,
    /// The store is of a kind that is asked in another way.
    WrongKind,
    /// The body is larger than is taken.
    BodyTooLarge,
    /// The key is longer than is taken.
    KeyTooLong,
    /// This instance does not have the partition now, and the request may not be sent on.
    NotOwner,
    /// The same key of idempotency came with another request.
    Conflict,
    /// The server has as many requests as it takes.
    Overloaded,
    /// The partition moves or is being restored.
    NotReady,
    /// The state has not come to the position in time.
    BehindPosition,
    /// The client of the instance is closing or closed.
    ShuttingDown,
    /// The instance that has the partition does not answer.
    Unreachable,
    /// Some partitions have not answered; they are named.
    Incomplete,
    /// The time that the request had is over.
    DeadlineExceeded,
    /// The store holds bytes that its serde refuses.
    UnreadableRow,
    /// A flaw of the server: report it.
    Internal,
}

impl ProblemCode {
    /// All of them.
    pub const ALL: [ProblemCode; 21] = [
        ProblemCode::MalformedRequest,
        ProblemCode::Unauthorized,
        ProblemCode::Forbidden,
        ProblemCode::NoSuchRoute,
        ProblemCode::NoSuchStore,
        ProblemCode::NoSuchKey,
        ProblemCode::MethodNotAllowed,
        ProblemCode::WrongKind,
        ProblemCode::BodyTooLarge,
        ProblemCode::KeyTooLong,
        ProblemCode::NotOwner,
        ProblemCode::Conflict,
        ProblemCode::Overloaded,
        ProblemCode::NotReady,
        ProblemCode::BehindPosition,
        ProblemCode::ShuttingDown,
        ProblemCode::Unreachable,
        ProblemCode::Incomplete,
        ProblemCode::DeadlineExceeded,
        ProblemCode::UnreadableRow,
        ProblemCode::Internal,
    ];

    /// As it is in the body (`code`) and the header `x-kstreams-problem`.
    pub fn as_str(self) -> &'static str {
        self.parts().0
    }

    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        self.parts().1
    }

    /// Whether the same request may be answered later, or by another instance.
    pub fn is_retriable(self) -> bool {
        matches!(
            self,
            ProblemCode::NotOwner
                | ProblemCode::Overloaded
                | ProblemCode::NotReady
                | ProblemCode::BehindPosition
                | ProblemCode::ShuttingDown
                | ProblemCode::Unreachable
                | ProblemCode::Incomplete
                | ProblemCode::DeadlineExceeded
        )
    }

    /// Whether it says that the partition is elsewhere, or soon will be.
    pub(super) fn is_about_place(self) -> bool {
        matches!(
            self,
            ProblemCode::NotOwner | ProblemCode::NotReady | ProblemCode::ShuttingDown | ProblemCode::Unreachable
        )
    }

    pub(super) fn named(name: &str) -> Option<ProblemCode> {
        ProblemCode::ALL.into_iter().find(|code| code.as_str() == name)
    }

    fn parts(self) -> (&'static str, StatusCode) {
        match self {
            ProblemCode::MalformedRequest => ("malformed_request", StatusCode::BAD_REQUEST),
            ProblemCode::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED),
            ProblemCode::Forbidden => ("forbidden", StatusCode::FORBIDDEN),
            ProblemCode::NoSuchRoute => ("no_such_route", StatusCode::NOT_FOUND),
            ProblemCode::NoSuchStore => ("no_such_store", StatusCode::NOT_FOUND),
            ProblemCode::NoSuchKey => ("no_such_key", StatusCode::NOT_FOUND),
            ProblemCode::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
            ProblemCode::WrongKind => ("wrong_kind", StatusCode::BAD_REQUEST),
            ProblemCode::BodyTooLarge => ("body_too_large", StatusCode::PAYLOAD_TOO_LARGE),
            ProblemCode::KeyTooLong => ("key_too_long", StatusCode::URI_TOO_LONG),
            ProblemCode::NotOwner => ("not_owner", StatusCode::MISDIRECTED_REQUEST),
            ProblemCode::Conflict => ("conflict", StatusCode::CONFLICT),
            ProblemCode::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE),
            ProblemCode::NotReady => ("not_ready", StatusCode::SERVICE_UNAVAILABLE),
            ProblemCode::BehindPosition => ("behind_position", StatusCode::SERVICE_UNAVAILABLE),
            ProblemCode::ShuttingDown => ("shutting_down", StatusCode::SERVICE_UNAVAILABLE),
            ProblemCode::Unreachable => ("unreachable", StatusCode::SERVICE_UNAVAILABLE),
            ProblemCode::Incomplete => ("incomplete", StatusCode::SERVICE_UNAVAILABLE),
            ProblemCode::DeadlineExceeded => ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
            ProblemCode::UnreadableRow => ("unreadable_row", StatusCode::INTERNAL_SERVER_ERROR),
            ProblemCode::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal, to be returned from a handler: it becomes the answer.
#[derive(Debug, Clone)]
pub struct Problem {
    code: ProblemCode,
    detail: String,
    missing: Vec<i32>,
    headers: Box<HeaderMap>,
}

impl Problem {
    /// With what was being done on what, and the remedy: lower case, without a stop.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Problem {
        Problem { code, detail: detail.into(), missing: Vec::new(), headers: Box::default() }
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Problem {
        Problem::new(ProblemCode::MalformedRequest, detail)
    }

    /// Of a handler whose thread or task has ended without an answer.
    pub(super) fn lost() -> Problem {
        Problem::new(ProblemCode::Internal, "the request was lost on its way through the server")
    }

    /// The partitions that have not answered.
    #[must_use]
    pub fn with_missing(mut self, partitions: Vec<i32>) -> Problem {
        self.missing = partitions;
        self
    }

    /// A header of the answer. One that has signs which headers may not have is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Problem {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Why.
    pub fn code(&self) -> ProblemCode {
        self.code
    }

    /// In words.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What another instance has answered; none: it was no refusal.
    pub(super) fn of_answer<T>(answer: &axum::http::Response<T>) -> Option<ProblemCode> {
        let name = answer.headers().get(headers::PROBLEM)?.to_str().ok()?;
        ProblemCode::named(name)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Problem { code, detail, missing, headers } = self;
        let mut body = json!({
            "type": format!("urn:kstreams:problem:{code}"),
            "title": code.status().canonical_reason(),
            "status": code.status().as_u16(),
            "code": code.as_str(),
            "detail": detail,
            "retriable": code.is_retriable(),
        });
        if let Some(body) = body.as_object_mut().filter(|_| !missing.is_empty()) {
            body.insert("missing".to_owned(), json!(missing));
        }
        let mut answer = Response::new(Body::from(body.to_string()));
        *answer.status_mut() = code.status();
        *answer.headers_mut() = *headers;
        let fields = answer.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        fields.insert(headers::PROBLEM, HeaderValue::from_static(code.as_str()));
        if code.status() == StatusCode::SERVICE_UNAVAILABLE {
            fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if code == ProblemCode::Unauthorized {
            fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    }
}

/// What the client of this instance fails with.
impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let code = match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Fenced | ErrorKind::Aborted => ProblemCode::NotReady,
            ErrorKind::Closed => ProblemCode::ShuttingDown,
            ErrorKind::Invalid => ProblemCode::MalformedRequest,
            ErrorKind::Corrupted => ProblemCode::UnreadableRow,
            ErrorKind::User | ErrorKind::Internal => ProblemCode::Internal,
        };
        Problem::new(code, error.report())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_name_and_what_may_be_asked_again_says_so() {
        for code in ProblemCode::ALL {
            assert_eq!(ProblemCode::named(code.as_str()), Some(code));
            let answer = Problem::new(code, "because").into_response();
            assert_eq!(Problem::of_answer(&answer), Some(code));
            assert_eq!(answer.headers().contains_key(header::RETRY_AFTER), answer.status() == 503, "{code}");
            if answer.status() == 503 {
                assert!(code.is_retriable(), "{code}");
            }
        }
    }
}
