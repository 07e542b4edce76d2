//! The one error of the library: what can be done about it, what was being done, and why it failed.

use std::fmt;
use std::sync::Arc;

/// A result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, at which node, and why.
///
/// One pointer wide, so that the `Result<()>` of every hop travels in a register. The message says what was being done
/// on what; the cause is kept apart and reached through [`source`](std::error::Error::source).
#[derive(Debug)]
pub struct Error(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: ErrorKind,
    node: Option<Arc<str>>,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What the caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The program or its configuration is wrong: change it. Raised before any record is taken.
    Invalid,
    /// Something outside does not answer or is full: try again, or mend it.
    Unavailable,
    /// Another instance has taken over: what was not committed is lost here and redone there.
    Fenced,
    /// The open transaction must be aborted; its records are read again from the last commit.
    Aborted,
    /// Bytes that cannot be read: skip the record, or mend whoever writes it.
    Corrupted,
    /// A function or processor of the user failed: the record is processed again after a re-make.
    User,
    /// The part that was asked has been closed, or has failed before.
    Closed,
    /// A broken promise inside the library: report it.
    Internal,
}

impl Error {
    /// An error with what was being done, in lower case and without a stop: "could not commit task 0_3".
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Error {
        Error(Box::new(Parts { kind, node: None, context: context.into(), source: None }))
    }

    /// An error of user code, to be returned from a processor.
    pub fn user(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::new(ErrorKind::User, "a user function failed").with_source(source)
    }

    pub(crate) fn invalid(context: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, context)
    }

    pub(crate) fn corrupted(context: impl Into<String>) -> Error {
        Error::new(ErrorKind::Corrupted, context)
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// Says more behind what is said already: where it was, and what can be done.
    #[cold]
    pub(crate) fn and(mut self, more: &str) -> Error {
        self.0.context.push_str(more);
        self
    }

    /// Names the node. The innermost one wins: an error passes every parent on its way up.
    #[cold]
    pub(crate) fn at(mut self, node: &Arc<str>) -> Error {
        self.0.node.get_or_insert_with(|| Arc::clone(node));
        self
    }

    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The innermost node of the topology that the error came from.
    pub fn node(&self) -> Option<&str> {
        self.0.node.as_deref()
    }

    /// The message with every cause behind it, for a log line.
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.node {
            Some(node) => write!(f, "{node}: {}", self.0.context),
            None => f.write_str(&self.0.context),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_node_is_named_and_the_cause_is_kept_apart() {
        let error = Error::user("boom").at(&"inner".into()).at(&"outer".into());
        assert_eq!(error.to_string(), "inner: a user function failed");
        assert_eq!(error.report(), "inner: a user function failed: boom");
        assert_eq!((error.kind(), error.node()), (ErrorKind::User, Some("inner")));
    }
}
