//! Why a query is not answered.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Why a query was refused (KIP-796's `FailureReason`), as far as callers act differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureReason {
    /// The store is of a kind that does not answer such queries: ask it otherwise.
    UnknownQueryType,
    /// A copy is here, and the query asks for what runs; or the task is being restored: ask again, or elsewhere.
    NotActive,
    /// The state has not reached the position that was asked for: ask again.
    NotUpToBound,
    /// A copy is here, and further behind than the query allows: ask again, or elsewhere. Java has no such bound.
    TooStale,
    /// The partition is not on this instance now: ask the one that owns it, or again when the tasks have moved.
    NotPresent,
    /// There is no such store or partition, and will not be.
    DoesNotExist,
    /// The store could not be read, or a serde has refused a row.
    StoreException,
}

impl FailureReason {
    /// Java's name of it, in capitals.
    pub fn name(self) -> &'static str {
        match self {
            FailureReason::UnknownQueryType => "UNKNOWN_QUERY_TYPE",
            FailureReason::NotActive => "NOT_ACTIVE",
            FailureReason::NotUpToBound => "NOT_UP_TO_BOUND",
            FailureReason::TooStale => "TOO_STALE",
            FailureReason::NotPresent => "NOT_PRESENT",
            FailureReason::DoesNotExist => "DOES_NOT_EXIST",
            FailureReason::StoreException => "STORE_EXCEPTION",
        }
    }

    /// Whether the same query may be answered later, here or elsewhere.
    pub fn is_retriable(self) -> bool {
        match self {
            FailureReason::NotActive
            | FailureReason::NotUpToBound
            | FailureReason::TooStale
            | FailureReason::NotPresent => true,
            FailureReason::UnknownQueryType | FailureReason::DoesNotExist | FailureReason::StoreException => false,
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A query that was not answered: why, for programs, and the error, for readers.
#[derive(Debug)]
pub struct QueryFailure {
    reason: FailureReason,
    error: Error,
}

impl QueryFailure {
    pub(crate) fn new(reason: FailureReason, context: impl Into<String>) -> QueryFailure {
        let kind = if reason.is_retriable() { ErrorKind::Unavailable } else { ErrorKind::Invalid };
        QueryFailure { reason, error: Error::new(kind, context) }
    }

    pub(crate) fn from_error(reason: FailureReason, error: Error) -> QueryFailure {
        QueryFailure { reason, error }
    }

    /// What the caller can do about it.
    pub fn reason(&self) -> FailureReason {
        self.reason
    }

    /// The error alone, of the same kind.
    pub fn into_error(self) -> Error {
        self.error
    }

    /// What it was about, and the remedy. Of kind [`Unavailable`](ErrorKind::Unavailable) when it may be asked again.
    pub fn error(&self) -> &Error {
        &self.error
    }
}

impl fmt::Display for QueryFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for QueryFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// A store or a serde has failed.
impl From<Error> for QueryFailure {
    fn from(error: Error) -> QueryFailure {
        let is_away = error.kind() == ErrorKind::Unavailable;
        let reason = if is_away { FailureReason::NotPresent } else { FailureReason::StoreException };
        QueryFailure { reason, error }
    }
}
