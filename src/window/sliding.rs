//! Windows that begin or end at records.

use std::time::Duration;

use super::{check_fits, millis};

/// Windows of one size, both ends inside, that begin or end at a record: every set of records that lie within the time
/// difference of each other has one.
///
/// A difference of zero is refused with the first record, as in Kafka Streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingWindows {
    difference_ms: i64,
    grace_ms: i64,
}

impl SlidingWindows {
    /// Windows for records at most `difference` apart that take no late records.
    pub fn of_time_difference_with_no_grace(difference: Duration) -> SlidingWindows {
        SlidingWindows::of_time_difference_and_grace(difference, Duration::ZERO)
    }

    /// Windows for records at most `difference` apart that take records until the time is `grace` past their end.
    pub fn of_time_difference_and_grace(difference: Duration, grace: Duration) -> SlidingWindows {
        SlidingWindows { difference_ms: millis(difference), grace_ms: millis(grace) }
    }

    pub(crate) fn difference_ms(&self) -> i64 {
        self.difference_ms
    }

    pub(crate) fn grace_ms(&self) -> i64 {
        self.grace_ms
    }

    /// A sentence for `build` where the numbers make no sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        check_fits("a time difference", self.difference_ms)?;
        check_fits("a grace period", self.grace_ms)
    }
}
