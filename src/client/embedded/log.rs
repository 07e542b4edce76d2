//! One partition: records in offset order, and which of them a reader may see.
//!
//! ```text
//!   start        stable end (first record of an open transaction)        end (high watermark)
//!     |  d  d  t1  d  t1  M1  |  t2  d  t3  M3  t2                         |
//!       read_committed: d, and t1 if M1 is a commit     read_uncommitted: every data record
//! ```
//! Control records (M) take an offset and are never given to a reader.

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashSet;

use crate::client::Isolation;
use crate::error::Result;
use crate::record::{Headers, RecordBatch};

/// A transaction of the cluster; every one has another number.
pub(super) type TransactionNumber = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Commit,
    Abort,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    /// None once its transaction is decided and forgotten, or if there never was one.
    pub(super) transaction: Option<TransactionNumber>,
    pub(super) content: Content,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Data(Data),
    /// A control record: ends the transaction in this partition.
    Marker(Outcome),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Data {
    pub(super) key: Option<Box<[u8]>>,
    pub(super) value: Option<Box<[u8]>>,
    pub(super) headers: Headers,
}

impl Data {
    /// Bytes of keys, values and headers.
    pub(super) fn bytes(&self) -> usize {
        let length = |bytes: &Option<Box<[u8]>>| bytes.as_ref().map_or(0, |bytes| bytes.len());
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len) + 2);
        length(&self.key) + length(&self.value) + headers.sum::<usize>()
    }
}

impl Stored {
    /// Roughly what it takes on disk.
    pub(super) fn bytes(&self) -> u64 {
        const FRAME: u64 = 48;
        match &self.content {
            Content::Data(data) => FRAME + data.bytes() as u64,
            Content::Marker(_) => FRAME,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) records: VecDeque<Stored>,
    pub(super) start: i64,
    pub(super) end: i64,
    /// The first offset of each open transaction.
    pub(super) open: BTreeMap<TransactionNumber, i64>,
    /// The aborted transactions that still have records here.
    pub(super) aborted: FxHashSet<TransactionNumber>,
    /// When compaction first met a tombstone, plus its grace: see `cleaning`.
    pub(super) tombstones: BTreeMap<i64, i64>,
    pub(super) bytes: u64,
    pub(super) appended_since_cleaning: usize,
}

impl Log {
    /// Appends a record that has the next offset, or a later one when a log is read back.
    pub(super) fn push(&mut self, record: Stored) {
        match (&record.content, record.transaction) {
            (Content::Data(_), Some(transaction)) => {
                self.open.entry(transaction).or_insert(record.offset);
            }
            (Content::Marker(outcome), Some(transaction)) => {
                self.open.remove(&transaction);
                if *outcome == Outcome::Abort {
                    self.aborted.insert(transaction);
                }
            }
            (_, None) => {}
        }
        self.end = record.offset + 1;
        self.bytes += record.bytes();
        self.appended_since_cleaning += 1;
        self.records.push_back(record);
    }

    /// The control record that ends a transaction here; none if it has no open record.
    pub(super) fn marker(&self, transaction: TransactionNumber, outcome: Outcome, timestamp: i64) -> Option<Stored> {
        self.open.get(&transaction)?;
        let content = Content::Marker(outcome);
        Some(Stored { offset: self.end, timestamp, transaction: Some(transaction), content })
    }

    /// The first offset a read_committed reader may not see yet.
    pub(super) fn stable_end(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    pub(super) fn visible_end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.end,
            Isolation::ReadCommitted => self.stable_end(),
        }
    }

    /// The record's data if a reader may see it; the caller has looked at the visible end.
    pub(super) fn visible<'a>(&self, record: &'a Stored, isolation: Isolation) -> Option<&'a Data> {
        let Content::Data(data) = &record.content else { return None };
        let aborted = || record.transaction.is_some_and(|transaction| self.aborted.contains(&transaction));
        (isolation == Isolation::ReadUncommitted || !aborted()).then_some(data)
    }

    /// Appends what may be seen from an offset on, and gives the offset to go on from; none when it is out of range.
    pub(super) fn read(
        &self,
        from: i64,
        isolation: Isolation,
        records_max: usize,
        batch: &mut RecordBatch,
    ) -> Result<Option<i64>> {
        if from < self.start || from > self.end {
            return Ok(None);
        }
        let end = self.visible_end(isolation);
        let mut taken = 0;
        for record in self.records.range(self.index_of(from)..).take_while(|record| record.offset < end) {
            let Some(data) = self.visible(record, isolation) else { continue };
            if taken == records_max {
                return Ok(Some(record.offset));
            }
            let (key, value) = (data.key.as_deref(), data.value.as_deref());
            batch.push(record.offset, record.timestamp, key, value, data.headers.clone())?;
            taken += 1;
        }
        Ok(Some(from.max(end)))
    }

    /// The place of the first record at or after an offset: compaction leaves gaps.
    pub(super) fn index_of(&self, offset: i64) -> usize {
        self.records.partition_point(|record| record.offset < offset)
    }

    /// The first offset at or after a time, the end where there is none.
    pub(super) fn offset_for_time(&self, timestamp: i64) -> i64 {
        let found = self
            .records
            .iter()
            .find(|record| matches!(record.content, Content::Data(_)) && record.timestamp >= timestamp);
        found.map_or(self.end, |record| record.offset)
    }

    /// Forgets everything before an offset, at most up to the end.
    pub(super) fn delete_before(&mut self, offset: i64) {
        let offset = offset.min(self.end);
        if offset <= self.start {
            return;
        }
        while self.records.front().is_some_and(|record| record.offset < offset) {
            if let Some(record) = self.records.pop_front() {
                self.bytes -= record.bytes();
            }
        }
        self.start = offset;
        self.forget_transactions();
    }

    /// Loses everything from an offset on, as a log without replicas may when its broker loses power.
    #[cfg(test)]
    pub(super) fn lose_from(&mut self, offset: i64) {
        while let Some(record) = self.records.pop_back_if(|record| record.offset >= offset) {
            self.bytes -= record.bytes();
            self.end = record.offset;
        }
    }

    /// Forgets aborted transactions that have no record left.
    pub(super) fn forget_transactions(&mut self) {
        if !self.aborted.is_empty() {
            let left: FxHashSet<_> = self.records.iter().filter_map(|record| record.transaction).collect();
            self.aborted.retain(|transaction| left.contains(transaction));
        }
        self.tombstones = self.tombstones.split_off(&self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(log: &mut Log, transaction: Option<u64>, value: &str) {
        let data = Data { value: Some(value.as_bytes().into()), ..Data::default() };
        let offset = log.end;
        log.push(Stored { offset, timestamp: offset * 10, transaction, content: Content::Data(data) });
    }

    fn marker(log: &mut Log, transaction: u64, outcome: Outcome) {
        let offset = log.end;
        let content = Content::Marker(outcome);
        log.push(Stored { offset, timestamp: offset * 10, transaction: Some(transaction), content });
    }

    fn read(log: &Log, from: i64, isolation: Isolation, max: usize) -> (Vec<i64>, Option<i64>) {
        let mut batch = RecordBatch::default();
        let next = log.read(from, isolation, max, &mut batch).unwrap();
        (batch.iter(0).map(|record| record.offset).collect(), next)
    }

    #[test]
    fn two_open_transactions_hold_the_stable_end_at_the_first() {
        let mut log = Log::default();
        data(&mut log, None, "0");
        data(&mut log, Some(1), "1");
        data(&mut log, Some(2), "2");
        marker(&mut log, 1, Outcome::Commit);
        assert_eq!((log.stable_end(), log.end), (2, 4));
        assert_eq!(read(&log, 0, Isolation::ReadCommitted, 10), (vec![0, 1], Some(2)));
        marker(&mut log, 2, Outcome::Abort);
        assert_eq!(read(&log, 0, Isolation::ReadCommitted, 10), (vec![0, 1], Some(5)));
        assert_eq!(read(&log, 0, Isolation::ReadUncommitted, 10), (vec![0, 1, 2], Some(5)));
    }

    #[test]
    fn a_full_batch_still_skips_what_nobody_may_see() {
        let mut log = Log::default();
        data(&mut log, Some(1), "0");
        marker(&mut log, 1, Outcome::Commit);
        assert_eq!(read(&log, 0, Isolation::ReadCommitted, 1), (vec![0], Some(2)));
        data(&mut log, None, "2");
        assert_eq!(read(&log, 0, Isolation::ReadCommitted, 1), (vec![0], Some(2)));
    }

    #[test]
    fn deleted_records_are_out_of_range() {
        let mut log = Log::default();
        for value in ["0", "1", "2"] {
            data(&mut log, None, value);
        }
        log.delete_before(2);
        assert_eq!(read(&log, 1, Isolation::ReadCommitted, 9), (vec![], None));
        assert_eq!(read(&log, 2, Isolation::ReadCommitted, 9), (vec![2], Some(3)));
        assert_eq!(read(&log, 4, Isolation::ReadCommitted, 9), (vec![], None));
        log.delete_before(99);
        assert_eq!((log.start, log.end, log.bytes), (3, 3, 0));
    }
}
