//! Aggregations by window. What they have in common: their time, and how results go downstream.
//!
//! An operator's time is the highest timestamp that it has seen: neither the task's time nor any clock. The store below has
//! a time of its own.
//!
//! Differs from Kafka Streams: there both times begin anew with a restart or a rebalance, and records that were late before
//! are taken, so that results depend on when a process was stopped. Here they go on. Exactly once they are committed with the
//! offsets (`task/times_entry.rs`), and a restart changes nothing. At least once, and where Java has run the task meanwhile,
//! an operator's time is derived: it is not later than the time of the task, which is committed in Java's format, nor than
//! the windows that the store has rows of. Where the two do not tell it to the millisecond, as behind a filter, it is taken
//! for later, by less than a window's advance.

pub(crate) mod changes;
pub(crate) mod closing;
pub(crate) mod count;
pub(crate) mod late;
pub(crate) mod session;
pub(crate) mod sliding;
pub(crate) mod time;

use std::cell::Cell;
use std::rc::Rc;

use crate::topology::{ProcessorInit, TaskContext};
use crate::window::Window;

/// The highest timestamp that an operator has seen; -1: none.
#[derive(Debug)]
pub(crate) struct ObservedTime(Rc<Cell<i64>>);

impl ObservedTime {
    /// Goes on where the operator was at the last commit. Where that does not tell it, its store's rows are of so much time
    /// (ms) at most before it; of rows that others write, too, nobody knows whose they are.
    pub(crate) fn resume(init: &mut ProcessorInit<'_>, store: &str, span_ms: i64) -> ObservedTime {
        let index = init.task.stores.index(store).filter(|_| !init.is_shared(store));
        let guess = index.map_or(-1, |index| last_time(init.task, index, span_ms));
        ObservedTime::resume_or(init, guess)
    }

    /// Goes on where the operator was at the last commit, or else from a guess.
    pub(crate) fn resume_or(init: &mut ProcessorInit<'_>, guess: i64) -> ObservedTime {
        ObservedTime(init.remembered_time(guess))
    }

    pub(crate) fn observe(&mut self, timestamp: i64) -> i64 {
        let time = self.0.get().max(timestamp);
        self.0.set(time);
        time
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.get()
    }
}

/// The highest timestamp that has led to a row of a store, as far as that is known after a restart; -1: there was none.
pub(crate) fn last_time(task: &TaskContext, store: usize, span_ms: i64) -> i64 {
    // A crash, at least once, can leave a store ahead of the offsets: what will be read again is not late.
    let reached = task.stream_time.unwrap_or(-1);
    task.stores.observed(store).map_or(-1, |time| reached.min(time.saturating_add(span_ms)))
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
