//! Compaction and retention of a partition, as far as nobody has a transaction open.

use rustc_hash::FxHashMap;

use crate::client::embedded::log::{Content, Log, Stored};
use crate::client::embedded::topic::TopicConfig;

impl Log {
    /// Drops what the topic's policies no longer keep. Whether the records changed in the middle (`Rewritten`), so that
    /// a file of them must be written anew, or only at the front.
    pub(super) fn clean(&mut self, config: &TopicConfig, now: i64) -> Cleaned {
        self.appended_since_cleaning = 0;
        let start = self.start;
        if config.delete {
            self.expire(config, now);
        }
        let before = self.records.len();
        if config.compact {
            self.compact(config.delete_retention_ms, now);
        }
        match (self.records.len() < before, self.start > start) {
            (true, _) => Cleaned::Rewritten,
            (false, true) => Cleaned::Front,
            (false, false) => Cleaned::Nothing,
        }
    }

    /// Whether enough has come since the last time that cleaning costs little per record.
    pub(super) fn wants_cleaning(&self, config: &TopicConfig) -> bool {
        // A broker leaves the active segment alone: what is small stays as it was written.
        const APPENDED_MIN: usize = 50_000;
        let cleans = config.compact || config.retention_ms.is_some() || config.retention_bytes.is_some();
        cleans && self.appended_since_cleaning >= APPENDED_MIN.max(self.records.len() / 2)
    }

    fn expire(&mut self, config: &TopicConfig, now: i64) {
        let (stable_end, mut bytes, mut start) = (self.stable_end(), self.bytes, self.start);
        for record in self.records.iter().take_while(|record| record.offset < stable_end) {
            let old = config.retention_ms.is_some_and(|retention| record.timestamp < now.saturating_sub(retention));
            let too_much = config.retention_bytes.is_some_and(|max| bytes > max);
            if !old && !too_much {
                break;
            }
            bytes -= record.bytes();
            start = record.offset + 1;
        }
        self.delete_before(start);
    }

    fn compact(&mut self, delete_retention_ms: i64, now: i64) {
        let stable_end = self.stable_end();
        let mut latest: FxHashMap<&[u8], i64> = FxHashMap::default();
        for record in self.records.iter().take_while(|record| record.offset < stable_end) {
            if let (Content::Data(data), false) = (&record.content, self.is_aborted(record))
                && let Some(key) = &data.key
            {
                latest.insert(key, record.offset);
            }
        }
        // NOTE: the last record stays, whatever it is: a log that is read back knows its end by it. Kafka never compacts
        // the active segment for the same reason.
        let limit = stable_end.min(self.end - 1);
        let mut kept: Vec<bool> = Vec::with_capacity(self.records.len());
        for record in &self.records {
            let keep = match &record.content {
                _ if record.offset >= limit => true,
                Content::Marker(_) => false,
                Content::Data(_) if self.is_aborted(record) => false,
                Content::Data(data) => {
                    let newest = data.key.as_ref().and_then(|key| latest.get(key.as_ref())) == Some(&record.offset);
                    // Kafka counts a tombstone's grace from the first compaction that met it (KIP-534).
                    let grace = || now.saturating_add(delete_retention_ms);
                    let gone = |grace_end: i64| data.value.is_none() && now >= grace_end;
                    newest
                        && (data.value.is_some() || !gone(*self.tombstones.entry(record.offset).or_insert_with(grace)))
                }
            };
            kept.push(keep);
        }
        let mut kept = kept.into_iter();
        self.records.retain(|_| kept.next().unwrap_or(true));
        for record in self.records.iter_mut().take_while(|record| record.offset < limit) {
            // Its control record is gone: without one a log that is read back would take the transaction for open.
            record.transaction = None;
        }
        self.bytes = self.records.iter().map(Stored::bytes).sum();
        self.forget_transactions();
    }

    fn is_aborted(&self, record: &Stored) -> bool {
        record.transaction.is_some_and(|transaction| self.aborted.contains(&transaction))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cleaned {
    Nothing,
    Front,
    Rewritten,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::embedded::log::{Data, Outcome};

    fn push(log: &mut Log, transaction: Option<u64>, key: &str, value: Option<&str>) {
        let data = Data {
            key: Some(key.as_bytes().into()),
            value: value.map(|value| value.as_bytes().into()),
            ..Data::default()
        };
        let offset = log.end;
        log.push(Stored { offset, timestamp: offset, transaction, content: Content::Data(data) });
    }

    fn end(log: &mut Log, transaction: u64, outcome: Outcome) {
        let marker = log.marker(transaction, outcome, 0).unwrap();
        log.push(marker);
    }

    fn offsets(log: &Log) -> Vec<i64> {
        log.records.iter().map(|record| record.offset).collect()
    }

    fn config(pairs: &[(&str, &str)]) -> TopicConfig {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        TopicConfig::new("t", &pairs).unwrap()
    }

    #[test]
    fn compaction_keeps_the_last_committed_value_of_a_key() {
        let mut log = Log::default();
        push(&mut log, None, "a", Some("0"));
        push(&mut log, Some(1), "a", Some("1"));
        end(&mut log, 1, Outcome::Commit);
        push(&mut log, Some(2), "a", Some("3"));
        end(&mut log, 2, Outcome::Abort);
        push(&mut log, Some(3), "a", Some("5"));
        push(&mut log, None, "b", Some("6"));
        let compact = config(&[("cleanup.policy", "compact")]);
        assert_eq!(log.clean(&compact, 0), Cleaned::Rewritten);
        assert_eq!(offsets(&log), [1, 5, 6], "the open transaction and what stands behind it stay");
        end(&mut log, 3, Outcome::Abort);
        push(&mut log, None, "c", Some("8"));
        assert_eq!(log.clean(&compact, 0), Cleaned::Rewritten);
        assert_eq!(offsets(&log), [1, 6, 8]);
        assert!(log.aborted.is_empty());
        assert_eq!(log.clean(&compact, 0), Cleaned::Nothing);
    }

    #[test]
    fn a_tombstone_goes_after_its_grace() {
        let mut log = Log::default();
        push(&mut log, None, "a", Some("0"));
        push(&mut log, None, "a", None);
        push(&mut log, None, "b", Some("2"));
        let compact = config(&[("cleanup.policy", "compact"), ("delete.retention.ms", "100")]);
        log.clean(&compact, 1_000);
        assert_eq!(offsets(&log), [1, 2]);
        log.clean(&compact, 1_099);
        assert_eq!(offsets(&log), [1, 2]);
        log.clean(&compact, 1_100);
        assert_eq!(offsets(&log), [2]);
    }

    #[test]
    fn old_records_and_too_many_bytes_go_from_the_front() {
        let mut log = Log::default();
        for value in ["0", "1", "2", "3"] {
            push(&mut log, None, "k", Some(value));
        }
        assert_eq!(log.clean(&config(&[("retention.ms", "10")]), 12), Cleaned::Front);
        assert_eq!((log.start, offsets(&log)), (2, vec![2, 3]));
        let bytes = (log.bytes - 1).to_string();
        log.clean(&config(&[("retention.bytes", &bytes)]), 12);
        assert_eq!((log.start, offsets(&log)), (3, vec![3]));
        log.clean(&config(&[]), i64::MAX);
        assert_eq!(offsets(&log), [3], "nothing grows old by default");
    }
}
