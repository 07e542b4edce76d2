//! Of what time a store is: when it was last known to have everything that its changelog had then.
//!
//! A changelog keeps a deletion for so long (`delete.retention.ms`) and then forgets it together with the row. A store that
//! has the row, and reads on later than that, would keep it.

/// The time of one store, in ms of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct AsOf {
    ms: i64,
    /// Where the changelog ended at a later time: who has read up to there is of that time.
    mark: Option<(i64, i64)>,
}

impl AsOf {
    /// The store has everything, or has nothing and begins to read.
    pub(super) fn at(ms: i64) -> AsOf {
        AsOf { ms, mark: None }
    }

    /// The changelog has this end now.
    pub(super) fn mark(&mut self, end: i64, now_ms: i64) {
        self.mark.get_or_insert((end, now_ms));
    }

    /// The store has what is before an offset of a changelog that has this end now: of what time it is then.
    pub(super) fn read_to(&mut self, next_offset: i64, end: i64, now_ms: i64) -> i64 {
        if next_offset >= end {
            *self = AsOf::at(now_ms);
        } else if let Some((_, ms)) = self.mark.filter(|(offset, _)| next_offset >= *offset) {
            *self = AsOf::at(ms);
        }
        self.mark(end, now_ms);
        self.ms
    }

    /// Whether deletions may be gone that the store has not read. Clocks differ, hence the margin of a tenth. Of an unknown
    /// time (0) nothing can be said.
    pub(super) fn is_older_than(self, kept_ms: i64, now_ms: i64) -> bool {
        self.ms > 0 && now_ms.saturating_sub(self.ms) > kept_ms - kept_ms / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_never_comes_to_the_end_is_of_the_time_whose_end_it_has_passed() {
        let mut as_of = AsOf::at(100);
        assert_eq!(as_of.read_to(5, 10, 200), 100);
        assert_eq!(as_of.read_to(9, 12, 300), 100, "what was there at 200 is not all read");
        assert_eq!(as_of.read_to(11, 14, 400), 200);
        assert_eq!(as_of.read_to(13, 15, 500), 200);
        assert_eq!(as_of.read_to(14, 16, 600), 400);
        assert_eq!(as_of.read_to(16, 16, 700), 700);
        assert_eq!(as_of.read_to(17, 20, 800), 700);
    }

    #[test]
    fn a_store_is_too_old_a_little_before_its_changelog_forgets() {
        assert!(!AsOf::at(100).is_older_than(1_000, 1_000));
        assert!(AsOf::at(100).is_older_than(1_000, 1_001));
        assert!(!AsOf::at(0).is_older_than(1_000, 9_999), "nobody knows");
    }
}
