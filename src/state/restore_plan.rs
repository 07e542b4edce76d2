//! What to do with a store that is found at start: read on from its offset, or begin again.

use std::fmt;

use super::meta::{ChangelogIdentity, Meta};

/// How a store was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreCondition {
    /// There is nothing.
    Empty,
    /// There are rows, but it is not known which.
    Unreadable(&'static str),
    /// The store is what the changelog was at the offset of its meta record.
    Known(Meta),
}

/// A changelog partition as the broker sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogState {
    /// The first offset that is there.
    pub start: i64,
    /// The end that readers of uncommitted records see, taken after all former writers have been fenced: the end of
    /// committed records may lag behind a transaction that has committed.
    pub end: i64,
    /// How long a deletion stays in the log after its compaction, in ms; none: the log is not compacted.
    pub delete_retention_ms: Option<i64>,
}

/// What to do before a store may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestorePlan {
    /// Forget what is there, and read the changelog from its start.
    FromScratch { from: i64, reason: Reason },
    /// Read the changelog from here.
    Resume { from: i64 },
}

/// Why a store begins again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Nothing is lost: there was nothing.
    Empty,
    Unreadable(&'static str),
    /// The rows are those of another changelog, or of an earlier one of the same name.
    OtherChangelog,
    /// The log ends before the offset: a leader was elected that did not have all records.
    AheadOfLog,
    /// Records between the offset and the start of the log are gone.
    BehindLog,
    /// Deletions since the offset may be compacted away: reading on could bring deleted rows back.
    DeletionsForgotten,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Empty => "there is nothing on disk",
            Reason::Unreadable(why) => why,
            Reason::OtherChangelog => {
                "it belongs to another changelog topic, or to one that was deleted and created again"
            }
            Reason::AheadOfLog => "it is ahead of its changelog, which has lost records (an unclean leader election?)",
            Reason::BehindLog => "its changelog no longer has the records that follow its offset",
            Reason::DeletionsForgotten => {
                "it was not used for about as long as its changelog keeps deletions (delete.retention.ms)"
            }
        })
    }
}

/// The startup table, one store at a time.
pub(crate) fn plan(stored: &StoreCondition, changelog: &ChangelogIdentity, log: &LogState, now_ms: i64) -> RestorePlan {
    let from_scratch = |reason| RestorePlan::FromScratch { from: log.start, reason };
    let meta = match stored {
        StoreCondition::Empty => return from_scratch(Reason::Empty),
        StoreCondition::Unreadable(why) => return from_scratch(Reason::Unreadable(why)),
        StoreCondition::Known(meta) => meta,
    };
    let (Some(from), Some(stored)) = (meta.next_offset, &meta.changelog) else {
        return from_scratch(Reason::Unreadable("its meta record has no offset"));
    };
    if !stored.is_same(changelog) {
        return from_scratch(Reason::OtherChangelog);
    }
    if from > log.end {
        return from_scratch(Reason::AheadOfLog);
    }
    if from < log.start {
        return from_scratch(Reason::BehindLog);
    }
    let age_ms = if meta.wall_clock_ms > 0 { now_ms.saturating_sub(meta.wall_clock_ms) } else { 0 };
    // Nothing to read is nothing that could be missing. Clocks differ, hence the margin of a tenth.
    if from < log.end && log.delete_retention_ms.is_some_and(|kept| age_ms > kept - kept / 10) {
        return from_scratch(Reason::DeletionsForgotten);
    }
    RestorePlan::Resume { from }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn changelog(id: u8) -> ChangelogIdentity {
        ChangelogIdentity { topic: "log".into(), topic_id: Some(Uuid::from_bytes([id; 16])), partition: 1 }
    }

    fn known(next_offset: i64) -> StoreCondition {
        let changelog = Some(changelog(1));
        StoreCondition::Known(Meta { changelog, next_offset: Some(next_offset), wall_clock_ms: 1000, stream_time: -1 })
    }

    const LOG: LogState = LogState { start: 10, end: 20, delete_retention_ms: Some(500) };

    fn planned(stored: &StoreCondition) -> RestorePlan {
        plan(stored, &changelog(1), &LOG, 1100)
    }

    fn scratch(reason: Reason) -> RestorePlan {
        RestorePlan::FromScratch { from: 10, reason }
    }

    #[test]
    fn an_empty_store_is_restored_from_the_start() {
        assert_eq!(planned(&StoreCondition::Empty), scratch(Reason::Empty));
    }

    #[test]
    fn rows_without_a_readable_meta_record_are_forgotten() {
        assert_eq!(planned(&StoreCondition::Unreadable("why")), scratch(Reason::Unreadable("why")));
        let meta = Meta { changelog: None, next_offset: None, wall_clock_ms: 1000, stream_time: -1 };
        assert!(matches!(planned(&StoreCondition::Known(meta)), RestorePlan::FromScratch { .. }));
    }

    #[test]
    fn a_changelog_that_was_created_again_is_another_one() {
        assert_eq!(plan(&known(15), &changelog(2), &LOG, 1100), scratch(Reason::OtherChangelog));
        let partition = ChangelogIdentity { partition: 2, ..changelog(1) };
        assert_eq!(plan(&known(15), &partition, &LOG, 1100), scratch(Reason::OtherChangelog));
        let unknown = ChangelogIdentity { topic_id: None, ..changelog(1) };
        assert_eq!(plan(&known(15), &unknown, &LOG, 1100), RestorePlan::Resume { from: 15 });
    }

    #[test]
    fn a_store_ahead_of_its_log_begins_again() {
        assert_eq!(planned(&known(21)), scratch(Reason::AheadOfLog));
        assert_eq!(planned(&known(20)), RestorePlan::Resume { from: 20 });
    }

    #[test]
    fn a_store_behind_the_start_of_its_log_begins_again() {
        assert_eq!(planned(&known(9)), scratch(Reason::BehindLog));
        assert_eq!(planned(&known(10)), RestorePlan::Resume { from: 10 });
    }

    #[test]
    fn a_store_that_may_have_missed_deletions_begins_again() {
        assert_eq!(plan(&known(15), &changelog(1), &LOG, 1451), scratch(Reason::DeletionsForgotten));
        assert_eq!(plan(&known(15), &changelog(1), &LOG, 1450), RestorePlan::Resume { from: 15 });
        assert_eq!(plan(&known(20), &changelog(1), &LOG, 9999), RestorePlan::Resume { from: 20 });
        let not_compacted = LogState { delete_retention_ms: None, ..LOG };
        assert_eq!(plan(&known(15), &changelog(1), &not_compacted, 9999), RestorePlan::Resume { from: 15 });
    }
}
