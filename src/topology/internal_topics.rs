//! Topics that the library makes for itself: names and settings are Java's, so that an application can move over.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::state::{Changelog, StoreSpec};

/// A topic that sends records to the task of their new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RepartitionTopic {
    /// Given by the user; none: as many as the topics before it have.
    pub partitions: Option<i32>,
}

/// `<application>-<store>-changelog`
pub(crate) fn changelog_topic(application_id: &str, store: &str) -> Arc<str> {
    format!("{application_id}-{store}-changelog").into()
}

/// How much longer than its store a changelog keeps rows that expire: Java's default of
/// `windowstore.changelog.additional.retention.ms`, for clocks that differ.
const ADDITIONAL_RETENTION_MS: i64 = 24 * 60 * 60 * 1000;

/// Java's settings of a changelog topic, then those of the store. None: the store has no topic of its own.
pub(crate) fn changelog_topic_config(spec: &StoreSpec) -> Option<BTreeMap<String, String>> {
    match &spec.changelog {
        Changelog::Off | Changelog::Source { .. } => None,
        Changelog::Topic { config } => {
            let mut settings = table_topic_config();
            if let Some(retention_ms) = spec.kind.retention_ms() {
                let kept_ms = retention_ms.saturating_add(ADDITIONAL_RETENTION_MS);
                // No two rows have one key where duplicates are retained: there is nothing to compact.
                let policy = if spec.kind.retains_duplicates() { "delete" } else { "compact,delete" };
                settings.insert("cleanup.policy".to_owned(), policy.to_owned());
                settings.insert("retention.ms".to_owned(), kept_ms.to_string());
            }
            if let Some(history_ms) = spec.kind.history_ms() {
                let lag_ms = history_ms.saturating_add(ADDITIONAL_RETENTION_MS);
                settings.insert("min.compaction.lag.ms".to_owned(), lag_ms.to_string());
            }
            settings.extend(config.clone());
            Some(settings)
        }
    }
}

/// What Java expects of a topic that is compacted: of a changelog, and of a source topic in the place of one.
pub(crate) fn table_topic_config() -> BTreeMap<String, String> {
    settings([("cleanup.policy", "compact"), ("message.timestamp.type", "CreateTime")])
}

/// Never expires by time: records are deleted once they are committed.
pub(crate) fn repartition_topic_config() -> BTreeMap<String, String> {
    settings([
        ("cleanup.policy", "delete"),
        ("message.timestamp.type", "CreateTime"),
        ("retention.ms", "-1"),
        ("segment.bytes", "52428800"),
    ])
}

fn settings<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
