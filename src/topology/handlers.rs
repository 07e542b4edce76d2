//! What happens to a record that cannot be read, processed or written.

use std::fmt;
use std::sync::Arc;

use super::{Interceptor, TaskId};
use crate::error::Error;
use crate::record::{ConsumerRecord, Headers};

/// What a handler decides about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandlerResponse {
    /// The task fails; its records since the last commit are processed again once it runs again.
    Fail,
    /// The record is dropped, counted and logged, and processing goes on.
    Continue,
    /// The same, and there is no dead letter of it: Java's response of a handler of one's own that builds none.
    Discard,
}

/// Where a failure happened.
#[derive(Debug, Clone, Copy)]
pub struct ErrorContext<'a> {
    /// The task.
    pub task: TaskId,
    /// The node that failed.
    pub node: &'a str,
    /// The topic of the source record; none inside a punctuation.
    pub topic: Option<&'a str>,
    /// The record as it was read, where it could not be: what has failed in a processor has no bytes any more. A dead
    /// letter has those of the source record in any case.
    pub record: Option<&'a ConsumerRecord<'a>>,
}

type Decide = Arc<dyn Fn(&ErrorContext<'_>, &Error) -> HandlerResponse + Send + Sync>;

/// Decides about records that fail; the library logs and counts each of them in any case.
#[derive(Clone)]
pub struct ErrorHandler(Decide);

impl ErrorHandler {
    /// Fails the task: the default everywhere.
    pub fn log_and_fail() -> ErrorHandler {
        ErrorHandler::new(|_, _| HandlerResponse::Fail)
    }

    /// Drops the record.
    pub fn log_and_continue() -> ErrorHandler {
        ErrorHandler::new(|_, _| HandlerResponse::Continue)
    }

    /// A decision of one's own.
    pub fn new(decide: impl Fn(&ErrorContext<'_>, &Error) -> HandlerResponse + Send + Sync + 'static) -> ErrorHandler {
        ErrorHandler(Arc::new(decide))
    }

    pub(crate) fn decide(&self, context: &ErrorContext<'_>, error: &Error) -> HandlerResponse {
        (self.0)(context, error)
    }
}

impl fmt::Debug for ErrorHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ErrorHandler")
    }
}

/// The handlers of an application.
#[derive(Debug, Clone)]
pub(crate) struct Handlers {
    pub deserialization: ErrorHandler,
    pub processing: ErrorHandler,
    pub production: ErrorHandler,
    /// Gets a copy of the source record of every failure (KIP-1034); must exist.
    pub dead_letter_topic: Option<Arc<str>>,
    /// Stands around every call of a processor.
    pub interceptor: Interceptor,
}

impl Default for Handlers {
    fn default() -> Self {
        let fail = ErrorHandler::log_and_fail;
        Handlers {
            deserialization: fail(),
            processing: fail(),
            production: fail(),
            dead_letter_topic: None,
            interceptor: Interceptor::default(),
        }
    }
}

/// The headers of a dead letter: those of the record in hand, then what went wrong. Without a place the topic is null, as in
/// Java.
pub(crate) fn dead_letter_headers(record: &Headers, error: &Error, place: Option<(&str, i32, i64)>) -> Headers {
    let mut headers = record.clone();
    headers.add("__streams.errors.exception", format!("{:?}", error.kind()));
    headers.add("__streams.errors.message", error.to_string());
    headers.add("__streams.errors.stacktrace", error.report());
    match place {
        Some((topic, ..)) => headers.add("__streams.errors.topic", topic),
        None => headers.add_null("__streams.errors.topic"),
    }
    let (partition, offset) = place.map_or((-1, -1), |(_, partition, offset)| (partition, offset));
    headers.add("__streams.errors.partition", partition.to_string());
    headers.add("__streams.errors.offset", offset.to_string());
    headers
}
