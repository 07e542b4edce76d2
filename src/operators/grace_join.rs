//! A join of a stream with a versioned table that waits for the table (KIP-923).
//!
//! ```text
//!   record -> buffer, by time -> (time is a grace period ahead of it) -> StreamTableJoin, as of the record's time
//! ```

use std::ops::Bound;

use super::stream_table_join::StreamTableJoin;
use crate::error::{Error, Result};
use crate::record::{Headers, Position, Record};
use crate::serdes::DynSerde;
use crate::state::{BufferValue, KeyValueStore, RecordContext, StoreBuilder};
use crate::topology::{Processor, ProcessorContext, TaskContext};

/// As the buffer is declared: bytes, since a row holds more than a value.
pub(crate) type BufferRows = StoreBuilder<KeyValueStore<Vec<u8>, Vec<u8>>>;

/// Holds the records of a stream back until the time of the stream is a grace period ahead of them, and joins them in the
/// order of their timestamps. A record that is later than that is joined at once.
pub(crate) struct GraceJoin<K, V, VT, VR> {
    pub join: StreamTableJoin<K, V, VT, VR>,
    pub buffer: GraceBuffer<K, V>,
}

impl<K: 'static, V: 'static, VT: 'static, VR: 'static> Processor<K, V> for GraceJoin<K, V, VT, VR> {
    type KeyOut = K;
    type ValueOut = VR;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, VR>) -> Result<()> {
        if self.join.drops(&record) {
            return self.join.process(record, ctx);
        }
        if !self.buffer.put(&record, ctx.task)? {
            return self.join.process(record, ctx);
        }
        self.join_due(ctx)
    }
}

impl<K: 'static, V: 'static, VT: 'static, VR: 'static> GraceJoin<K, V, VT, VR> {
    /// Joins the records whose time has come, each as if it were in hand again.
    fn join_due(&mut self, ctx: &mut ProcessorContext<'_, K, VR>) -> Result<()> {
        while let Some(Due { row_key, record, context }) = self.buffer.next_due(ctx.task)? {
            let outer = ctx.task.take_up(context);
            let joined = self.join.process(record, ctx);
            ctx.task.put_back(outer);
            joined?;
            self.buffer.remove(&row_key, ctx.task)?;
        }
        Ok(())
    }
}

/// The records that wait.
///
/// ```text
///   key     0 | timestamp 8 | key | number 4      Java's PrefixedWindowKeySchemas.TimeFirst
///   row     BufferValue | 0 8                     the same in the changelog
/// ```
pub(crate) struct GraceBuffer<K, V> {
    pub index: usize,
    pub key: DynSerde<K>,
    pub value: DynSerde<V>,
    pub grace_ms: i64,
    /// The largest timestamp that was put; none: not looked up yet.
    observed: Option<i64>,
    /// No record that waits is older.
    min_time: i64,
    /// Rows that have been read and are due.
    due: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
    /// Scratch.
    row_key: Vec<u8>,
    value_bytes: Vec<u8>,
    row: Vec<u8>,
}

/// A record that has waited long enough, and what was in hand with it.
struct Due<K, V> {
    row_key: Vec<u8>,
    record: Record<K, V>,
    context: RecordContext,
}

/// Rows that are read at once.
const PAGE: usize = 256;

/// Before everything else in the key.
const TIME_FIRST: u8 = 0;

impl<K: 'static, V: 'static> GraceBuffer<K, V> {
    pub(crate) fn new(
        rows: &KeyValueStore<Vec<u8>, Vec<u8>>,
        key: DynSerde<K>,
        value: DynSerde<V>,
        grace_ms: i64,
    ) -> GraceBuffer<K, V> {
        let (row_key, value_bytes, row) = (Vec::new(), Vec::new(), Vec::new());
        let (observed, min_time, due) = (None, i64::MIN, Vec::new().into_iter());
        GraceBuffer { index: rows.index(), key, value, grace_ms, observed, min_time, due, row_key, value_bytes, row }
    }

    /// Keeps a record; not if it is too late to wait.
    fn put(&mut self, record: &Record<K, V>, task: &mut TaskContext) -> Result<bool> {
        if self.key.is_null(&record.key) {
            let remedy = "filter such records out, or join without a grace period";
            return Err(Error::user(format!("a record with a null key cannot wait for its table: {remedy}")));
        }
        let observed = self.observed(task)?;
        if observed.saturating_sub(self.grace_ms) > record.timestamp {
            return Ok(false);
        }
        self.row_key.clear();
        self.row_key.push(TIME_FIRST);
        self.row_key.extend_from_slice(&record.timestamp.to_be_bytes());
        self.key.serialize(&record.key, &mut self.row_key)?;
        self.row_key.extend_from_slice(&task.stores.next_sequence(self.index, true).to_be_bytes());
        self.value_bytes.clear();
        self.value.serialize(&record.value, &mut self.value_bytes)?;
        let at = task.record_metadata();
        let buffered = BufferValue {
            timestamp: record.timestamp,
            offset: at.map_or(-1, |at| at.offset),
            topic: at.map_or("", |at| at.topic),
            partition: at.map_or(-1, |at| at.partition),
            headers: record.headers.clone(),
            prior: None,
            old: None,
            new: Some(&self.value_bytes),
        };
        self.row.clear();
        buffered.write(&mut self.row)?;
        self.row.extend_from_slice(&[0; 8]);
        let (key, row) = (self.row_key.as_slice(), Some(self.row.as_slice()));
        task.stores.put_logged_as(self.index, key, row, (key, row, &Headers::new()))?;
        self.observed = Some(observed.max(record.timestamp));
        self.min_time = self.min_time.min(record.timestamp);
        Ok(true)
    }

    /// The record that has waited long enough, in the order of times; its row stays until it is removed.
    fn next_due(&mut self, task: &mut TaskContext) -> Result<Option<Due<K, V>>> {
        let due_until = self.observed(task)?.saturating_sub(self.grace_ms);
        if self.due.len() == 0 {
            if self.min_time > due_until {
                return Ok(None);
            }
            let end = time_prefix(due_until.saturating_add(1));
            let page = task.stores.page(self.index, Bound::Unbounded, Bound::Excluded(&end), false, PAGE)?;
            if page.is_empty() {
                self.min_time = due_until.saturating_add(1);
            }
            self.due = page.into_iter();
        }
        let Some((row_key, row)) = self.due.next() else { return Ok(None) };
        let key = row_key.get(9..row_key.len().saturating_sub(4)).ok_or_else(damaged)?;
        let key = self.key.deserialize(key)?;
        let (buffered, _) = BufferValue::read(&row)?;
        let value = self.value.deserialize(buffered.new.ok_or_else(damaged)?)?;
        let topic = task.topics.iter().position(|topic| **topic == *buffered.topic);
        let BufferValue { timestamp, offset, partition, headers, .. } = buffered;
        let position = topic.map(|topic| Position { topic, partition, offset });
        let context = RecordContext { timestamp, headers: headers.clone(), position, source: None };
        Ok(Some(Due { row_key, record: Record { key, value, timestamp, headers }, context }))
    }

    fn remove(&self, row_key: &[u8], task: &mut TaskContext) -> Result<()> {
        task.stores.put_logged_as(self.index, row_key, None, (row_key, None, &Headers::new()))
    }

    /// The newest record stays in the buffer, so its time is known after a restart: without grace none stays, but then
    /// none has to wait either.
    fn observed(&mut self, task: &mut TaskContext) -> Result<i64> {
        if let Some(observed) = self.observed {
            return Ok(observed);
        }
        let last = task.stores.page(self.index, Bound::Unbounded, Bound::Unbounded, true, 1)?;
        let last = last.first().and_then(|(row_key, _)| row_key.get(1..)?.first_chunk());
        let observed = last.map_or(-1, |time| i64::from_be_bytes(*time));
        self.observed = Some(observed);
        Ok(observed)
    }
}

/// Where rows of a time begin.
fn time_prefix(time: i64) -> [u8; 9] {
    let mut prefix = [TIME_FIRST; 9];
    if let Some(place) = prefix.last_chunk_mut() {
        *place = time.max(0).to_be_bytes();
    }
    prefix
}

#[cold]
fn damaged() -> Error {
    Error::corrupted("a row of the buffer of a join is damaged")
}
