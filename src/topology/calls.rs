//! The seam between operators that call other services and whoever runs the calls: a task is synchronous, a call is not.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::NodeId;

/// A call on its way. It reports what came of it by itself; dropped before that, it reports that nothing will.
pub(crate) type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Dropped, it ends the call.
pub(crate) type RunningCall = Box<dyn Any + Send>;

/// Runs calls: side by side in an application, each to its end under the test driver.
pub(crate) trait CallRunner: Send + Sync {
    /// Begins a call, and drops it if it has not ended in time.
    fn start(&self, call: Call, timeout: Duration) -> RunningCall;
}

/// How the calls of a task stand.
#[derive(Debug, Default)]
pub(crate) struct CallLevels {
    /// Records that wait for a call or for one before them.
    pub in_flight: usize,
    /// Records that have gone on since the task was made.
    pub ended: u64,
    /// Nodes that call.
    pub nodes: Vec<NodeId>,
    /// Operators that take no further record for now.
    full: Vec<Arc<str>>,
}

impl CallLevels {
    /// Whether the task should take no further record for now.
    pub(crate) fn are_full(&self) -> bool {
        !self.full.is_empty()
    }

    pub(crate) fn set_full(&mut self, operator: &Arc<str>, is_full: bool) {
        let known = self.full.iter().position(|known| known == operator);
        match (known, is_full) {
            (None, true) => self.full.push(Arc::clone(operator)),
            (Some(place), false) => {
                self.full.swap_remove(place);
            }
            (None, false) | (Some(_), true) => {}
        }
    }
}

impl fmt::Debug for dyn CallRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallRunner")
    }
}
