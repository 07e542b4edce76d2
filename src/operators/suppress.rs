//! Holds the changes of a table back: until a window has closed, or for a time.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::suppress_buffer::{SuppressBuffer, Waiting};
use super::table::View;
use super::windowed::ObservedTime;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Change, Headers, Position, Record, ValueAndTimestamp};
use crate::serdes::{DynSerde, encode};
use crate::state::{KeyValueStore, RecordContext, StoreBuilder};
use crate::topology::{Processor, ProcessorContext, ProcessorInit, TaskContext};

/// The version of the changelog's format, in its header `v`.
const VERSION: [u8; 1] = [3];

/// The time by which an update waits; none: that of its record.
pub(crate) type TimeOf<K> = Arc<dyn Fn(&K) -> i64 + Send + Sync>;

/// What a buffer may hold, and what happens when that is not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub records_max: usize,
    pub bytes_max: usize,
    pub when_full: WhenFull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// The update that waits first goes downstream.
    EmitEarly,
    /// The record fails.
    ShutDown,
}

/// What the operator and its view are made from.
pub(crate) struct SuppressSpec<K, V> {
    pub store: StoreBuilder<KeyValueStore<Vec<u8>, Vec<u8>>>,
    pub key: DynSerde<K>,
    pub value: DynSerde<V>,
    pub time_of: Option<TimeOf<K>>,
    pub wait_ms: i64,
    pub limits: Limits,
    /// Final results of windows: a deletion of what was never seen is left out.
    pub drops_deletions: bool,
}

impl<K, V> Clone for SuppressSpec<K, V> {
    fn clone(&self) -> Self {
        SuppressSpec {
            store: self.store.clone(),
            key: Arc::clone(&self.key),
            value: Arc::clone(&self.value),
            time_of: self.time_of.as_ref().map(Arc::clone),
            wait_ms: self.wait_ms,
            limits: self.limits,
            drops_deletions: self.drops_deletions,
        }
    }
}

/// A buffer in memory, backed by a changelog in Java's format. Rows are written at the commit, so what comes and goes
/// between two commits costs a deletion at most.
///
/// Its time is the highest timestamp that it has seen, and is only looked at when a record comes. Where a restart does not
/// know it, changes may wait until there is a later one.
pub(crate) struct Suppress<K, V> {
    spec: SuppressSpec<K, V>,
    index: usize,
    buffer: Rc<RefCell<SuppressBuffer>>,
    time: ObservedTime,
    logged_headers: Headers,
    key_bytes: Vec<u8>,
}

impl<K: 'static, V: 'static> Suppress<K, V> {
    pub(crate) fn new(init: &mut ProcessorInit<'_>, spec: &SuppressSpec<K, V>) -> Result<Self> {
        let index = init.store(&spec.store)?.index();
        let buffer: Rc<RefCell<SuppressBuffer>> = init.task.shared(&spec.store.spec.name)?;
        buffer.borrow_mut().load(&mut init.task.stores, index)?;
        // The commit calls `flush`.
        init.task.stores.set_forwards(index);
        let mut logged_headers = Headers::new();
        logged_headers.add("v", VERSION);
        let (spec, time, key_bytes) = (spec.clone(), ObservedTime::resume_or(init, -1), Vec::new());
        Ok(Suppress { spec, index, buffer, time, logged_headers, key_bytes })
    }

    fn hold_back(&mut self, record: Record<K, Change<V>>, task: &TaskContext) -> Result<()> {
        let Record { key, value: Change { old, new, .. }, timestamp, headers } = record;
        self.key_bytes.clear();
        self.spec.key.serialize(&key, &mut self.key_bytes)?;
        let row = |row: Option<V>| -> Result<Option<Vec<u8>>> {
            let mut bytes = Vec::new();
            let length = row.map(|row| encode(&*self.spec.value, &row, &mut bytes)).transpose()?.flatten();
            Ok(length.map(|_| bytes))
        };
        let (old, new) = (row(old)?, row(new)?);
        let time = self.spec.time_of.as_ref().map_or(timestamp, |time_of| time_of(&key));
        let place = task.record_metadata().map(|at| (at.topic.to_owned(), at.partition, at.offset));
        let (topic, partition, offset) = place.unwrap_or((String::new(), -1, -1));
        // What is known of a key that waits stays.
        let prior = if self.buffer.borrow().waits(&self.key_bytes) { None } else { old.clone() };
        let source = task.record.source.clone();
        let update = Waiting { timestamp, topic, partition, offset, headers, prior, old, new, source };
        self.buffer.borrow_mut().put(&self.key_bytes, time, update);
        Ok(())
    }

    fn is_full(&self) -> bool {
        let (buffer, limits) = (self.buffer.borrow(), &self.spec.limits);
        buffer.len() > limits.records_max || buffer.bytes() > limits.bytes_max
    }

    /// Forwards the update that waits first, as if its record were in hand again.
    fn emit_first(&mut self, ctx: &mut ProcessorContext<'_, K, Change<V>>) -> Result<()> {
        let Some((key, update)) = self.buffer.borrow_mut().take_first() else { return Ok(()) };
        let Waiting { timestamp, topic, partition, offset, headers, old, new, source, .. } = update;
        if new.is_none() && self.spec.drops_deletions {
            return Ok(());
        }
        let key = self.spec.key.deserialize(&key)?;
        let read = |row: Option<Vec<u8>>| row.map(|row| self.spec.value.deserialize(&row)).transpose();
        let value = Change::latest(read(old)?, read(new)?);
        let input = ctx.task.topics.iter().position(|known| **known == *topic);
        let position = input.map(|topic| Position { topic, partition, offset });
        let context = RecordContext { timestamp, headers: headers.clone(), position, source };
        let outer = ctx.task.take_up(context);
        let result = ctx.forward(Record { key, value, timestamp, headers });
        ctx.task.put_back(outer);
        result
    }
}

impl<K: 'static, V: 'static> Processor<K, Change<V>> for Suppress<K, V> {
    type KeyOut = K;
    type ValueOut = Change<V>;

    fn process(&mut self, record: Record<K, Change<V>>, ctx: &mut ProcessorContext<'_, K, Change<V>>) -> Result<()> {
        let expired = self.time.observe(record.timestamp).saturating_sub(self.spec.wait_ms);
        self.hold_back(record, ctx.task)?;
        while self.buffer.borrow().first_time().is_some_and(|first| first <= expired) {
            self.emit_first(ctx)?;
        }
        while self.is_full() {
            if self.spec.limits.when_full == WhenFull::ShutDown {
                let (records, bytes) = (self.buffer.borrow().len(), self.buffer.borrow().bytes());
                let Limits { records_max, bytes_max, .. } = self.spec.limits;
                let context = format!(
                    "the buffer of a suppressed table holds {records} of {records_max} records and {bytes} of {bytes_max} \
                     bytes: raise its limits, or let it emit early"
                );
                return Err(Error::new(ErrorKind::User, context));
            }
            self.emit_first(ctx)?;
        }
        Ok(())
    }

    /// Writes what has changed; nothing is forwarded.
    fn flush(&mut self, ctx: &mut ProcessorContext<'_, K, Change<V>>) -> Result<()> {
        let none = Headers::new();
        for (key, row) in self.buffer.borrow_mut().take_dirty()? {
            let headers = if row.is_some() { &self.logged_headers } else { &none };
            ctx.task.stores.put_logged_as(self.index, &key, row.as_deref(), (&key, row.as_deref(), headers))?;
        }
        Ok(())
    }
}

/// The rows of a suppressed table: what has not come through yet is as it was before.
pub(crate) struct SuppressedView<K, V> {
    pub buffer: Rc<RefCell<SuppressBuffer>>,
    pub parent: Box<dyn View<K, V>>,
    pub key: DynSerde<K>,
    pub value: DynSerde<V>,
}

/// A time that is not known.
const UNKNOWN: i64 = -1;

impl<K: 'static, V: 'static> View<K, V> for SuppressedView<K, V> {
    fn get(&mut self, task: &mut TaskContext, key: &K) -> Result<Option<ValueAndTimestamp<V>>> {
        let mut bytes = Vec::new();
        self.key.serialize(key, &mut bytes)?;
        let buffer = self.buffer.borrow();
        let Some(prior) = buffer.prior(&bytes) else { return self.parent.get(task, key) };
        let row = prior.map(|row| self.value.deserialize(row)).transpose()?;
        Ok(row.map(|value| ValueAndTimestamp { value, timestamp: UNKNOWN }))
    }
}
