//! Windows on a fixed grid: tumbling and hopping.

use std::time::Duration;

use super::{Window, check_fits, millis};

/// Windows of one size on a grid that begins at the epoch: `start ≤ t < start + size`.
///
/// They tumble, one after the other, unless [`advance_by`](TimeWindows::advance_by) makes them begin more often: then they
/// hop, and a record is in several.
///
/// ```
/// # use kstreams::TimeWindows;
/// # use std::time::Duration;
/// let five_minutes = TimeWindows::of_size_and_grace(Duration::from_secs(300), Duration::from_secs(60))
///     .advance_by(Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindows {
    size_ms: i64,
    advance_ms: i64,
    grace_ms: i64,
}

impl TimeWindows {
    /// Windows of this size that close as soon as the time has come to their end: a record that is late is dropped.
    pub fn of_size_with_no_grace(size: Duration) -> TimeWindows {
        TimeWindows::of_size_and_grace(size, Duration::ZERO)
    }

    /// Windows of this size that take records until the time is `grace` past their end.
    pub fn of_size_and_grace(size: Duration, grace: Duration) -> TimeWindows {
        let size_ms = millis(size);
        TimeWindows { size_ms, advance_ms: size_ms, grace_ms: millis(grace) }
    }

    /// Lets a window begin after each such time: above zero, and at most the size.
    #[must_use]
    pub fn advance_by(self, advance: Duration) -> TimeWindows {
        TimeWindows { advance_ms: millis(advance), ..self }
    }

    pub(crate) fn size_ms(&self) -> i64 {
        self.size_ms
    }

    pub(crate) fn advance_ms(&self) -> i64 {
        self.advance_ms
    }

    pub(crate) fn grace_ms(&self) -> i64 {
        self.grace_ms
    }

    /// The windows of a record, the earliest first. There are none before the epoch.
    pub(crate) fn windows_for(&self, timestamp: i64) -> impl Iterator<Item = Window> + use<> {
        let TimeWindows { size_ms, advance_ms, .. } = *self;
        let advance_ms = advance_ms.max(1);
        // Not by division of the difference alone: the sum can be beyond the end of time.
        let reach = timestamp.saturating_sub(size_ms).saturating_add(advance_ms).max(0);
        let first = reach / advance_ms * advance_ms;
        let starts = std::iter::successors(Some(first), move |start| start.checked_add(advance_ms));
        starts
            .take_while(move |start| *start <= timestamp)
            .map(move |start| Window::new(start, start.saturating_add(size_ms)))
    }

    /// A sentence for `build` where the numbers make no sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        let TimeWindows { size_ms, advance_ms, grace_ms } = *self;
        check_fits("a window", size_ms)?;
        check_fits("a grace period", grace_ms)?;
        if size_ms <= 0 {
            return Err("windows have a size of zero: take at least a millisecond".to_owned());
        }
        if advance_ms <= 0 || advance_ms > size_ms {
            return Err(format!(
                "windows of {size_ms} ms advance by {advance_ms} ms: let them advance by more than zero and at most their size"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(size_ms: u64, advance_ms: u64) -> TimeWindows {
        TimeWindows::of_size_with_no_grace(Duration::from_millis(size_ms)).advance_by(Duration::from_millis(advance_ms))
    }

    #[test]
    fn every_window_of_the_grid_that_contains_a_record_is_named_once() {
        for (size, advance) in [(1, 1), (10, 10), (10, 3), (10, 1), (7, 5)] {
            for timestamp in 0..60 {
                let named: Vec<_> = windows(size, advance).windows_for(timestamp).collect();
                let (size, advance) = (i64::try_from(size).unwrap(), i64::try_from(advance).unwrap());
                let grid = (0..=60).map(|n| Window::new(n * advance, n * advance + size));
                let containing: Vec<_> = grid.filter(|w| w.start <= timestamp && timestamp < w.end).collect();
                assert_eq!(named, containing, "size {size}, advance {advance}, at {timestamp}");
            }
        }
    }

    #[test]
    fn the_last_window_of_time_ends_with_it() {
        let last = windows(10, 10).windows_for(i64::MAX).collect::<Vec<_>>();
        assert_eq!(last, [Window::new(i64::MAX / 10 * 10, i64::MAX)]);
    }

    #[test]
    fn sizes_without_sense_are_told() {
        assert!(windows(10, 10).check().is_ok());
        for (size, advance, part) in [(0, 0, "size of zero"), (10, 0, "advance by 0"), (10, 11, "advance by 11")] {
            assert!(windows(size, advance).check().unwrap_err().contains(part));
        }
        assert!(TimeWindows::of_size_with_no_grace(Duration::MAX).check().unwrap_err().contains("too long"));
    }
}
