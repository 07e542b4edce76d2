//! What an application wants to do around every call of a processor (KIP-1112).

use std::fmt;
use std::sync::Arc;

use super::TaskId;
use crate::error::Result;

/// Stands around every call of every processor, the library's own and the user's: to measure, to trace, to add to errors.
/// Takes the place of Java's `ProcessorWrapper`. Given with [`Config::processor_interceptor`](crate::Config::processor_interceptor).
///
/// ```
/// use kstreams::*;
///
/// /// Tells which processors run.
/// struct Trace;
///
/// impl ProcessorInterceptor for Trace {
///     fn intercept(&self, at: &Interception<'_>, call: &mut dyn FnMut() -> Result<()>) -> Result<()> {
///         println!("{} runs {:?} at {}", at.node, at.kind, at.timestamp);
///         call()
///     }
/// }
///
/// let config = Config::new("app", "embedded://").processor_interceptor(Trace);
/// ```
pub trait ProcessorInterceptor: Send + Sync + 'static {
    /// Runs a call: `call` does it, with everything that the processor forwards to, and may be made once. Without it the
    /// record goes no further.
    ///
    /// # Errors
    /// Those of the call, or others: the processing handler decides about them as about any failure of the processor.
    fn intercept(&self, at: &Interception<'_>, call: &mut dyn FnMut() -> Result<()>) -> Result<()>;
}

/// A call of a processor.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Interception<'a> {
    /// The task.
    pub task: TaskId,
    /// The node, as in `describe()`.
    pub node: &'a str,
    /// What is called.
    pub kind: CallKind,
    /// The timestamp (ms) of the record, or the time of the punctuation.
    pub timestamp: i64,
}

/// What a processor is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallKind {
    /// To take a record.
    Record,
    /// Because a schedule is due.
    Punctuation,
    /// To forward what it has held back, before a commit.
    Flush,
}

/// The one of an application, if it has any.
#[derive(Clone, Default)]
pub(crate) struct Interceptor(pub Option<Arc<dyn ProcessorInterceptor>>);

impl fmt::Debug for Interceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interceptor").field(&self.0.is_some()).finish()
    }
}
