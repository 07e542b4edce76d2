//! Aggregations by window. What they have in common: their time, and how results go downstream.
//!
//! An operator's time is the highest timestamp that it has seen since it was made, as in Kafka Streams: neither the task's
//! time nor any clock, and not kept over a restart. The store below has a time of its own, which is.

pub(crate) mod changes;
pub(crate) mod closing;
pub(crate) mod count;
pub(crate) mod late;
pub(crate) mod session;
pub(crate) mod sliding;
pub(crate) mod time;

use crate::topology::TaskContext;
use crate::window::Window;

/// The highest timestamp that an operator has seen.
#[derive(Debug)]
pub(crate) struct ObservedTime(i64);

impl ObservedTime {
    pub(crate) fn new() -> ObservedTime {
        ObservedTime(-1)
    }

    pub(crate) fn observe(&mut self, timestamp: i64) -> i64 {
        self.0 = self.0.max(timestamp);
        self.0
    }

    pub(crate) fn get(&self) -> i64 {
        self.0
    }
}

/// Counts and logs a record that comes too late for a window.
#[cold]
pub(crate) fn drop_late(task: &mut TaskContext, node: &str, window: Window, observed: i64, close_time: i64) {
    let Window { start, end } = window;
    task.drop_record(
        node,
        &format!("it is late: window {start} to {end} has closed; stream time is {observed}, and windows that end before {close_time} are closed"),
    );
}
