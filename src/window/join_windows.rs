//! How far apart two records may be and still join.

use std::time::Duration;

use super::{check_fits, millis};

/// Two records join when the other one's time is from `before` earlier to `after` later than this one's, both included.
///
/// ```text
///   this         ────────────●────────────────▶ time
///   joins with       ├─before─┼──after──┤
/// ```
///
/// With a grace period the join remembers records for longer, so that late ones find them; and a left or outer join waits
/// that much longer before it gives a record up that nothing has joined.
///
/// ```
/// use std::time::Duration;
/// use kstreams::JoinWindows;
///
/// // A payment within an hour after its order, and up to a minute before it.
/// let windows = JoinWindows::of_time_difference_and_grace(Duration::from_secs(3600), Duration::from_secs(300))
///     .before(Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinWindows {
    before_ms: i64,
    after_ms: i64,
    grace_ms: i64,
}

impl JoinWindows {
    /// Records at most `difference` apart; the join takes no late records.
    pub fn of_time_difference_with_no_grace(difference: Duration) -> JoinWindows {
        JoinWindows::of_time_difference_and_grace(difference, Duration::ZERO)
    }

    /// Records at most `difference` apart; the join takes records until the time is `grace` past the end of their window.
    pub fn of_time_difference_and_grace(difference: Duration, grace: Duration) -> JoinWindows {
        let difference_ms = millis(difference);
        JoinWindows { before_ms: difference_ms, after_ms: difference_ms, grace_ms: millis(grace) }
    }

    /// The other record may be at most this much earlier.
    #[must_use]
    pub fn before(self, difference: Duration) -> JoinWindows {
        JoinWindows { before_ms: millis(difference), ..self }
    }

    /// The other record may be at most this much later.
    #[must_use]
    pub fn after(self, difference: Duration) -> JoinWindows {
        JoinWindows { after_ms: millis(difference), ..self }
    }

    /// The same in milliseconds, which may be negative: the other record is then at least that much later.
    #[must_use]
    pub fn before_ms(self, before_ms: i64) -> JoinWindows {
        JoinWindows { before_ms, ..self }
    }

    /// The same in milliseconds, which may be negative: the other record is then at least that much earlier.
    #[must_use]
    pub fn after_ms(self, after_ms: i64) -> JoinWindows {
        JoinWindows { after_ms, ..self }
    }

    /// From the first to the last time of a window.
    pub(crate) fn size_ms(&self) -> i64 {
        self.before_ms.saturating_add(self.after_ms)
    }

    /// How long the stores of a join keep their rows.
    pub(crate) fn retention_ms(&self) -> i64 {
        self.size_ms().saturating_add(self.grace_ms)
    }

    pub(crate) fn grace_ms(&self) -> i64 {
        self.grace_ms
    }

    /// How much earlier and how much later the other record may be.
    pub(crate) fn bounds_ms(&self) -> (i64, i64) {
        (self.before_ms, self.after_ms)
    }

    /// A sentence for `build` where the numbers make no sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        check_fits("a time difference", self.before_ms)?;
        check_fits("a time difference", self.after_ms)?;
        check_fits("a grace period", self.grace_ms)?;
        check_fits("a window with its grace period", self.retention_ms())?;
        if self.size_ms() < 0 {
            return Err(format!(
                "a join window from {} ms before to {} ms after a record has no time in it: the sum must not be negative",
                self.before_ms, self.after_ms
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(difference_ms: u64) -> JoinWindows {
        JoinWindows::of_time_difference_with_no_grace(Duration::from_millis(difference_ms))
    }

    #[test]
    fn a_window_may_lie_wholly_behind_its_record() {
        let windows = of(0).before_ms(-10).after_ms(20);
        assert_eq!(windows.check(), Ok(()));
        assert_eq!((windows.bounds_ms(), windows.size_ms()), ((-10, 20), 10));
    }

    #[test]
    fn a_window_of_negative_length_is_refused() {
        let mistake = of(0).before_ms(-5).after_ms(4).check().unwrap_err();
        assert!(mistake.contains("must not be negative"), "{mistake}");
    }

    #[test]
    fn rows_are_kept_for_the_window_and_its_grace_period() {
        let windows = JoinWindows::of_time_difference_and_grace(Duration::from_millis(10), Duration::from_millis(5));
        assert_eq!(windows.retention_ms(), 25);
        assert!(JoinWindows::of_time_difference_with_no_grace(Duration::MAX).check().is_err());
    }
}
