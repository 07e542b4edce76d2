//! How old an answer may be.

use std::time::Duration;

/// How far behind a copy may be that answers a query: that of a standby, or a store that is being restored. Java has a bound
/// in records only, and leaves it to the caller (KIP-535).
///
/// ```
/// use kstreams::Staleness;
/// use std::time::Duration;
///
/// let bound = Staleness::any().records(1_000).age(Duration::from_secs(5));
/// assert_ne!(bound, Staleness::any());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct Staleness {
    records_max: Option<u64>,
    age_max: Option<Duration>,
}

impl Staleness {
    /// Every copy answers, also one of which nobody knows yet how far it is.
    pub fn any() -> Staleness {
        Staleness::default()
    }

    /// And it lacks at most so many records of its changelogs, as far as it knows their ends.
    pub fn records(self, behind_max: u64) -> Staleness {
        Staleness { records_max: Some(behind_max), ..self }
    }

    /// And it lacked nothing so short a time ago.
    pub fn age(self, age_max: Duration) -> Staleness {
        Staleness { age_max: Some(age_max), ..self }
    }

    /// Of a copy that lacks so much, as far as that is known, and was last whole so long ago.
    pub(super) fn allows(self, lag: Option<u64>, age: Option<Duration>) -> bool {
        self.records_max.is_none_or(|max| lag.is_some_and(|lag| lag <= max))
            && self.age_max.is_none_or(|max| age.is_some_and(|age| age <= max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_holds_only_for_what_is_known() {
        let second = Duration::from_secs(1);
        assert!(Staleness::any().allows(None, None));
        assert!(!Staleness::any().records(u64::MAX).allows(None, Some(second)));
        assert!(!Staleness::any().age(second).allows(Some(0), None));
        let both = Staleness::any().records(3).age(second);
        assert!(both.allows(Some(3), Some(second)));
        assert!(!both.allows(Some(4), Some(second)) && !both.allows(Some(3), Some(second * 2)));
    }
}
