//! What has to be true after every step.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::scenario::{CHANGELOG, Model, Scenario};
use super::shared::{PARTITIONS, Shared};
use crate::client::embedded::faults::{Logged, LoggedEntry};
use crate::client::{Cluster, Consumer, ConsumerSpec, Isolation, Topics};
use crate::record::{RecordBatch, TopicPartition};
use crate::state::simulated_disk::{SimulatedDisk, StoreOnDisk};

pub(super) struct Oracle {
    shared: Arc<Shared>,
    model: Model,
    /// What each key of the output has to be given, in order, and how much of that is there.
    expected: BTreeMap<String, Vec<i64>>,
    seen: BTreeMap<String, usize>,
    reader: Box<dyn Consumer>,
    /// Of each partition, everything that its log ever held.
    changelogs: BTreeMap<i32, Changelog>,
    /// Of each store of each process, what of it was looked at.
    checked: HashMap<(usize, String), u64>,
    /// Of each partition of the input, the key and the number of each record.
    numbers: BTreeMap<i32, Vec<(String, i64)>>,
}

#[derive(Default)]
struct Changelog {
    entries: Vec<Logged>,
    next: i64,
    /// Transactions that have come to an end, and those of them that have committed.
    ended: BTreeSet<u64>,
    committed: BTreeSet<u64>,
    is_compacted: bool,
    /// The latest time of a row that was taken away because it had expired.
    forgotten: Option<i64>,
    /// Without transactions: the largest number of each key.
    numbers: BTreeMap<Vec<u8>, i64>,
}

/// As the changelog has them.
type Rows = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

impl Oracle {
    pub(super) fn new(shared: Arc<Shared>) -> Oracle {
        let spec =
            ConsumerSpec { client_id: "reader".to_owned(), isolation: Isolation::ReadCommitted, topics: Topics::Any };
        let mut reader = shared.cluster.consumer(&spec).unwrap();
        let starts: Vec<_> = (0..PARTITIONS).map(|number| (TopicPartition::new("out", number), 0)).collect();
        reader.assign(&starts).unwrap();
        let model = Model::new(shared.scenario);
        let (expected, seen, numbers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (changelogs, checked) = (BTreeMap::new(), HashMap::new());
        Oracle { shared, model, expected, seen, reader, changelogs, checked, numbers }
    }

    /// Of a key, from 1.
    pub(super) fn next_number(&self, key: &str) -> usize {
        self.expected.get(key).map_or(0, Vec::len) + 1
    }

    /// A record was written to the input.
    pub(super) fn takes(&mut self, partition: i32, key: &str, timestamp: i64) {
        if let Some((key, value)) = self.model.takes(partition, key, timestamp) {
            if !self.shared.scenario.is_exactly_once() {
                self.numbers.entry(partition).or_default().push((key.clone(), value));
            }
            self.expected.entry(key).or_default().push(value);
        }
    }

    pub(super) fn check(&mut self, disks: &[SimulatedDisk]) {
        self.check_output();
        self.check_nothing_is_lost();
        if self.shared.is_doubtful() && !self.shared.scenario.is_exactly_once() {
            // What two owners have written is in no store as a whole.
            return;
        }
        for (process, disk) in disks.iter().enumerate() {
            for store in disk.stores() {
                let name = (process, store.task.clone());
                if self.checked.get(&name) != Some(&store.changes) {
                    self.checked.insert(name, store.changes);
                    self.check_store(process, disk, &store);
                }
            }
        }
    }

    /// What readers of committed records see is what one thread would have written, as far as it goes.
    fn check_output(&mut self) {
        let mut batch = RecordBatch::default();
        for partition in (0..PARTITIONS).map(|number| TopicPartition::new("out", number)) {
            batch.clear();
            self.reader.fetch(&partition, usize::MAX, &mut batch).unwrap();
            for record in batch.iter(0) {
                let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                let value = i64::from_be_bytes(record.value.unwrap().try_into().unwrap());
                if !self.shared.scenario.is_exactly_once() {
                    self.comes_at_least_once(&key, value);
                    continue;
                }
                let expected = self.expected.get(&key).map(Vec::as_slice).unwrap_or_default();
                let seen = self.seen.entry(key).or_default();
                // A cache leaves out what is not the last.
                let skips = if self.shared.cache_bytes > 0 { expected.len() } else { 1 };
                let next = expected.iter().skip(*seen).take(skips).position(|expected| *expected == value);
                let Some(next) = next else {
                    let key = String::from_utf8_lossy(record.key.unwrap());
                    panic!("{partition}@{} gives {key} {value} after {seen} of {expected:?}", record.offset);
                };
                *seen += next + 1;
            }
        }
    }

    /// In order, but for what comes again.
    fn comes_at_least_once(&mut self, key: &str, number: i64) {
        let is_known = number > 0 || self.shared.is_doubtful();
        assert!(is_known, "the store had forgotten {key} before {}", -number);
        let number = usize::try_from(number.abs()).unwrap();
        let seen = self.seen.entry(key.to_owned()).or_default();
        assert!(number <= *seen + 1, "{key} {number} comes after {seen}");
        *seen = number.max(*seen);
    }

    /// What the committed offsets cover has been written, to the output and to the changelog.
    fn check_nothing_is_lost(&mut self) {
        if self.numbers.is_empty() {
            return;
        }
        self.read_changelogs();
        for (partition, numbers) in &self.numbers {
            let committed = self.shared.cluster.committed_offset("app", "in", *partition).unwrap().unwrap_or(0);
            for (key, number) in numbers.iter().take(usize::try_from(committed).unwrap()).rev().take(40) {
                let number = usize::try_from(*number).unwrap();
                let seen = self.seen.get(key).copied().unwrap_or(0);
                assert!(
                    number <= seen,
                    "in[{partition}]@{committed} is committed, and {key} {number} was never written"
                );
                let logged = self.changelogs.get(partition).and_then(|log| log.numbers.get(key.as_bytes())).copied();
                let logged = logged.unwrap_or(0);
                assert!(number as i64 <= logged, "{key} {number} is committed, and its changelog has {logged}");
            }
        }
    }

    /// A store is what its changelog was at its offset: it has no row of a transaction that has not committed.
    fn check_store(&mut self, process: usize, disk: &SimulatedDisk, store: &StoreOnDisk) {
        let Some((_, partition)) = store.task.split_once('_') else { return };
        let partition: i32 = partition.parse().unwrap();
        self.read_changelogs();
        let version = disk.version(store);
        let Some(offset) = version.next_offset else {
            assert!(version.rows.is_empty(), "a store of {} has rows and no offset", store.task);
            return;
        };
        let scenario = self.shared.scenario;
        let head = scenario.row_timestamp_len();
        let rows = version.rows.into_iter().map(|(key, row)| {
            let (timestamp, value) = row.split_at(head);
            let timestamp = timestamp.first_chunk::<8>().map_or(0, |bytes| i64::from_be_bytes(*bytes));
            (scenario.logged_key(key), (value.to_vec(), timestamp))
        });
        let mut rows: Rows = rows.collect();
        let mut folded = self.changelogs.entry(partition).or_default().rows_at(offset);
        if head == 0 {
            folded.values_mut().for_each(|(_, timestamp)| *timestamp = 0);
        }
        // What compaction has taken away is only seen when its successor is read.
        let succeeded = self.changelogs.entry(partition).or_default().compacted_behind(offset);
        // By the time that the rows say: a store that believes it to be later has too few of them.
        let newest = folded.keys().filter_map(|key| scenario.logged_time(key)).max();
        let forgotten = self.changelogs.entry(partition).or_default().forgotten;
        let counts = |key: &Vec<u8>| {
            let time = scenario.logged_time(key);
            !succeeded.contains(key) && scenario.keeps(time, newest) && (time.is_none() || time > forgotten)
        };
        rows.retain(|key, _| counts(key));
        folded.retain(|key, _| counts(key));
        assert_eq!(rows, folded, "{} of process {process} at offset {offset} of its changelog", store.task);
    }

    fn read_changelogs(&mut self) {
        for number in 0..PARTITIONS {
            let changelog = self.changelogs.entry(number).or_default();
            let partition = TopicPartition::new(CHANGELOG, number);
            let Ok((entries, end)) = self.shared.cluster.logged(&partition, changelog.next) else { continue };
            for entry in entries {
                match (&entry.entry, entry.transaction) {
                    (LoggedEntry::Committed, Some(transaction)) => {
                        changelog.committed.insert(transaction);
                        changelog.ended.insert(transaction);
                    }
                    (LoggedEntry::Aborted, Some(transaction)) => _ = changelog.ended.insert(transaction),
                    (LoggedEntry::Committed | LoggedEntry::Aborted, None) | (LoggedEntry::Record { .. }, _) => {}
                }
                if let (LoggedEntry::Record { key: Some(key), value: Some(value) }, None) =
                    (&entry.entry, entry.transaction)
                    && let Ok(number) = value.as_slice().try_into()
                {
                    let largest = changelog.numbers.entry(key.clone()).or_default();
                    *largest = i64::from_be_bytes(number).max(*largest);
                }
                changelog.entries.push(entry);
            }
            changelog.next = end;
        }
    }

    /// To be called before anything that is in the changelogs is taken away.
    pub(super) fn is_compacted(&mut self) {
        self.read_changelogs();
        self.changelogs.values_mut().for_each(|changelog| changelog.is_compacted = true);
    }

    /// How much of a changelog retention takes away, at most: rows that no store keeps, whose successors none takes.
    pub(super) fn forgets(&mut self, partition: i32) -> i64 {
        self.read_changelogs();
        self.changelogs.entry(partition).or_default().forget(self.shared.scenario)
    }

    /// Another leader does not have what was behind this offset.
    pub(super) fn is_truncated(&mut self, partition: &TopicPartition, end: i64) {
        if &*partition.topic == CHANGELOG {
            let changelog = self.changelogs.entry(partition.partition).or_default();
            changelog.entries.retain(|entry| entry.offset < end);
            changelog.next = end.min(changelog.next);
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.expected.iter().all(|(key, expected)| self.seen.get(key) == Some(&expected.len()))
    }

    pub(super) fn missing(&self) -> BTreeMap<&String, (usize, usize)> {
        let seen = |key: &String| self.seen.get(key).copied().unwrap_or(0);
        let counted = self.expected.iter().map(|(key, expected)| (key, (seen(key), expected.len())));
        counted.filter(|(_, (seen, expected))| seen < expected).collect()
    }
}

impl Changelog {
    /// The keys whose rows before an offset may be gone.
    fn compacted_behind(&self, offset: i64) -> BTreeSet<Vec<u8>> {
        let later = self.entries.iter().filter(|entry| self.is_compacted && entry.offset >= offset);
        let keys = later.filter_map(|entry| match &entry.entry {
            LoggedEntry::Record { key, .. } => key.clone(),
            LoggedEntry::Committed | LoggedEntry::Aborted => None,
        });
        keys.collect()
    }

    /// Where it may begin, since what is before that has expired by the time of what is committed.
    fn forget(&mut self, scenario: Scenario) -> i64 {
        let time = |entry: &Logged| match &entry.entry {
            LoggedEntry::Record { key: Some(key), .. } => scenario.logged_time(key),
            LoggedEntry::Record { key: None, .. } | LoggedEntry::Committed | LoggedEntry::Aborted => None,
        };
        let is_in = |of: &BTreeSet<u64>, entry: &Logged| entry.transaction.is_some_and(|number| of.contains(&number));
        let committed = self.entries.iter().filter(|entry| is_in(&self.committed, entry));
        let newest = committed.filter_map(time).max();
        let is_over = |entry: &&Logged| match &entry.entry {
            LoggedEntry::Record { .. } => is_in(&self.ended, entry) && !scenario.keeps(time(entry), newest),
            LoggedEntry::Committed | LoggedEntry::Aborted => true,
        };
        let mut start = 0;
        for entry in self.entries.iter().take_while(is_over) {
            start = entry.offset + 1;
            self.forgotten = self.forgotten.max(time(entry));
        }
        start
    }

    /// What is committed before an offset.
    fn rows_at(&self, offset: i64) -> Rows {
        let mut rows = Rows::new();
        for entry in self.entries.iter().take_while(|entry| entry.offset < offset) {
            // Without one, it counts as it is.
            let is_committed = entry.transaction.is_none_or(|transaction| self.committed.contains(&transaction));
            let (true, LoggedEntry::Record { key: Some(key), value }) = (is_committed, &entry.entry) else { continue };
            match value {
                Some(value) => _ = rows.insert(key.clone(), (value.clone(), entry.timestamp)),
                None => _ = rows.remove(key),
            }
        }
        rows
    }
}
