//! Windows that grow with the activity of a key.

use std::time::Duration;

use super::{check_fits, millis};

/// Sessions: a record at most the inactivity gap away from a session extends it, and one between two merges them.
///
/// With a gap of zero only records of the same time are in one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionWindows {
    gap_ms: i64,
    grace_ms: i64,
}

impl SessionWindows {
    /// Sessions with this gap that take no late records.
    pub fn of_inactivity_gap_with_no_grace(gap: Duration) -> SessionWindows {
        SessionWindows::of_inactivity_gap_and_grace(gap, Duration::ZERO)
    }

    /// Sessions with this gap that take records until the time is `grace` past the point where they can no longer grow.
    pub fn of_inactivity_gap_and_grace(gap: Duration, grace: Duration) -> SessionWindows {
        SessionWindows { gap_ms: millis(gap), grace_ms: millis(grace) }
    }

    pub(crate) fn gap_ms(&self) -> i64 {
        self.gap_ms
    }

    pub(crate) fn grace_ms(&self) -> i64 {
        self.grace_ms
    }

    /// A sentence for `build` where the numbers make no sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        check_fits("an inactivity gap", self.gap_ms)?;
        check_fits("a grace period", self.grace_ms)
    }
}
