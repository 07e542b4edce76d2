//! Folds a stream into a row for each key and window of so many records.

use std::sync::Arc;

use super::changes::EmitStrategy;
use crate::error::{Error, Result};
use crate::operators::table::View;
use crate::operators::{Aggregator, Initializer};
use crate::record::{Change, Record, ValueAndTimestamp};
use crate::serdes::{DynSerde, encode};
use crate::state::{StoreBuilder, TimestampedKeyValueStore};
use crate::topology::{Processor, ProcessorContext, ProcessorInit, TaskContext};
use crate::window::{CountWindows, Counted};

/// A row of the store: how many records of the key there were, and its open windows.
///
/// ```text
///   timestamp 8 | records 8 | (first 8 | timestamp 8 | length 4 | aggregate)*
/// ```
/// The first timestamp, that of the last record or a later one, is the row's own; the changelog has it as the record's. A
/// window without an aggregate, because the aggregator has deleted it, is left out, and so is one that is full.
#[derive(Debug, Clone, Copy)]
struct OpenWindows<'a> {
    timestamp: i64,
    /// The number of the next record.
    records: i64,
    windows: &'a [u8],
}

impl<'a> OpenWindows<'a> {
    fn read(row: &'a [u8]) -> Result<OpenWindows<'a>> {
        let (timestamp, rest) = number(row)?;
        let (records, windows) = number(rest)?;
        Ok(OpenWindows { timestamp, records, windows })
    }

    /// The next window: its first record, the time of its last one, and its aggregate.
    fn next(&mut self) -> Result<Option<(i64, i64, &'a [u8])>> {
        if self.windows.is_empty() {
            return Ok(None);
        }
        let (first, rest) = number(self.windows)?;
        let (timestamp, rest) = number(rest)?;
        let (length, rest) = rest.split_first_chunk().ok_or_else(short_row)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (aggregate, rest) = rest.split_at_checked(length).ok_or_else(short_row)?;
        self.windows = rest;
        Ok(Some((first, timestamp, aggregate)))
    }

    /// The window that begins with a record; earlier ones are passed over.
    fn find(&mut self, first: i64) -> Result<Option<(i64, &'a [u8])>> {
        loop {
            let rest = self.windows;
            match self.next()? {
                Some((found, timestamp, aggregate)) if found == first => return Ok(Some((timestamp, aggregate))),
                Some((found, ..)) if found < first => {}
                Some(_) => {
                    self.windows = rest;
                    return Ok(None);
                }
                None => return Ok(None),
            }
        }
    }
}

fn number(bytes: &[u8]) -> Result<(i64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk().ok_or_else(short_row)?;
    Ok((i64::from_be_bytes(*number), rest))
}

#[cold]
fn short_row() -> Error {
    Error::corrupted("a row of count windows is too short")
}

/// What an operator over count windows is made from.
pub(crate) struct CountStoreSpec<K, A> {
    /// Its values are what is behind the first timestamp of a row.
    pub store: StoreBuilder<TimestampedKeyValueStore<K, Vec<u8>>>,
    pub key: DynSerde<K>,
    pub value: DynSerde<A>,
}

impl<K, A> Clone for CountStoreSpec<K, A> {
    fn clone(&self) -> Self {
        CountStoreSpec { store: self.store.clone(), key: Arc::clone(&self.key), value: Arc::clone(&self.value) }
    }
}

/// The user's functions, and what nulls are.
pub(crate) struct CountFunctions<K, V, A> {
    pub value: DynSerde<V>,
    /// What a window begins with; a reduction begins with the first value.
    pub initializer: Option<Initializer<A>>,
    pub aggregator: Aggregator<K, V, A>,
}

impl<K, V, A> Clone for CountFunctions<K, V, A> {
    fn clone(&self) -> Self {
        let (value, aggregator) = (Arc::clone(&self.value), Arc::clone(&self.aggregator));
        CountFunctions { value, initializer: self.initializer.as_ref().map(Arc::clone), aggregator }
    }
}

/// `count`, `reduce` and `aggregate` over count windows. All open windows of a key are one row, so a record costs a read and
/// a write.
pub(crate) struct CountWindowAggregate<K, V, A> {
    name: Arc<str>,
    index: usize,
    key: DynSerde<K>,
    rows: DynSerde<A>,
    functions: CountFunctions<K, V, A>,
    windows: CountWindows,
    emit: EmitStrategy,
    sends_old_values: bool,
    /// Scratch; kept, so that most records allocate nothing.
    key_bytes: Vec<u8>,
    old_row: Vec<u8>,
    new_row: Vec<u8>,
    changes: Vec<(i64, i64, Change<A>)>,
}

impl<K: 'static, V: 'static, A: 'static> CountWindowAggregate<K, V, A> {
    pub(crate) fn new(
        init: &mut ProcessorInit<'_>,
        spec: &CountStoreSpec<K, A>,
        windows: CountWindows,
        emit: EmitStrategy,
        functions: CountFunctions<K, V, A>,
    ) -> Result<Self> {
        let index = init.store(&spec.store)?.index();
        let (key, rows) = (Arc::clone(&spec.key), Arc::clone(&spec.value));
        let (name, sends_old_values) = (init.node_name(), init.sends_old_values());
        let (key_bytes, old_row, new_row, changes) = Default::default();
        Ok(CountWindowAggregate {
            name,
            index,
            key,
            rows,
            functions,
            windows,
            emit,
            sends_old_values,
            key_bytes,
            old_row,
            new_row,
            changes,
        })
    }

    /// Makes the new row of the old one, and notes what goes downstream.
    fn fold(&mut self, key: &K, value: V, timestamp: i64) -> Result<()>
    where
        V: Clone,
    {
        let mut old = match self.old_row.is_empty() {
            true => OpenWindows { timestamp, records: 0, windows: &[] },
            false => OpenWindows::read(&self.old_row)?,
        };
        let number = old.records;
        self.new_row.clear();
        self.new_row.extend_from_slice(&old.timestamp.max(timestamp).to_be_bytes());
        self.new_row.extend_from_slice(&number.saturating_add(1).to_be_bytes());
        let functions = &self.functions;
        let initial = || functions.initializer.as_ref().map(|initializer| initializer());
        let (mut firsts, mut value) = (self.windows.firsts(number).peekable(), Some(value));
        while let Some(first) = firsts.next() {
            // The last window gets the value itself, the others copies.
            let value = if firsts.peek().is_some() { value.clone() } else { value.take() };
            let Some(value) = value else { break };
            let stored = old.find(first)?;
            let read = || stored.map(|(_, aggregate)| self.rows.deserialize(aggregate)).transpose();
            let timestamp = stored.map_or(timestamp, |(stored, _)| stored.max(timestamp));
            // Read twice rather than cloned: few ask for old values, and aggregates need not be Clone for them.
            let old = if self.sends_old_values { read()?.or_else(initial) } else { None };
            let new = (functions.aggregator)(key, value, read()?.or_else(initial));
            let new = new.filter(|aggregate| !self.rows.is_null(aggregate));
            let is_full = self.windows.is_last(number, first);
            if let Some(aggregate) = new.as_ref().filter(|_| !is_full) {
                append(&mut self.new_row, first, timestamp, aggregate, &self.rows)?;
            }
            match self.emit {
                EmitStrategy::OnWindowUpdate => self.changes.push((first, timestamp, Change::latest(old, new))),
                EmitStrategy::OnWindowClose if is_full && new.is_some() => {
                    self.changes.push((first, timestamp, Change::latest(None, new)));
                }
                EmitStrategy::OnWindowClose => {}
            }
        }
        Ok(())
    }
}

/// Appends a window to a row.
fn append<A: 'static>(row: &mut Vec<u8>, first: i64, timestamp: i64, aggregate: &A, serde: &DynSerde<A>) -> Result<()> {
    row.extend_from_slice(&first.to_be_bytes());
    row.extend_from_slice(&timestamp.to_be_bytes());
    let at = row.len();
    row.extend_from_slice(&[0; 4]);
    encode(&**serde, aggregate, row)?;
    let too_long = |_| Error::invalid("an aggregate of a count window has more than 2^32 bytes");
    let length = u32::try_from(row.len() - at - 4).map_err(too_long)?;
    if let Some(place) = row.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

impl<K: Clone + 'static, V: Clone + 'static, A: 'static> Processor<K, V> for CountWindowAggregate<K, V, A> {
    type KeyOut = Counted<K>;
    type ValueOut = Change<A>;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, Counted<K>, Change<A>>) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        if self.key.is_null(&key) || self.functions.value.is_null(&value) {
            ctx.task.drop_record(&self.name, "its key or value is null");
            return Ok(());
        }
        self.key_bytes.clear();
        self.key.serialize(&key, &mut self.key_bytes)?;
        self.old_row.clear();
        self.old_row.extend_from_slice(ctx.task.stores.get(self.index, &self.key_bytes)?.unwrap_or_default());
        self.changes.clear();
        self.fold(&key, value, timestamp)?;
        let TaskContext { stores, record, .. } = &mut *ctx.task;
        stores.put(self.index, &self.key_bytes, Some(&self.new_row), record)?;
        let size = self.windows.size();
        let last = self.changes.pop();
        for (first, timestamp, value) in self.changes.drain(..) {
            let key = Counted { key: key.clone(), first, size };
            ctx.forward(Record { key, value, timestamp, headers: headers.clone() })?;
        }
        // The last one takes the key and the headers with it: tumbling windows never clone.
        let Some((first, timestamp, value)) = last else { return Ok(()) };
        ctx.forward(Record { key: Counted { key, first, size }, value, timestamp, headers })
    }
}

/// The open windows, as others read them.
pub(crate) struct OpenWindowsView<K, A> {
    index: usize,
    key: DynSerde<K>,
    value: DynSerde<A>,
    key_bytes: Vec<u8>,
}

impl<K: 'static, A: 'static> OpenWindowsView<K, A> {
    pub(crate) fn new(init: &mut ProcessorInit<'_>, spec: &CountStoreSpec<K, A>) -> Result<Self> {
        let index = init.store(&spec.store)?.index();
        let (key, value) = (Arc::clone(&spec.key), Arc::clone(&spec.value));
        Ok(OpenWindowsView { index, key, value, key_bytes: Vec::new() })
    }
}

impl<K: 'static, A: 'static> View<Counted<K>, A> for OpenWindowsView<K, A> {
    fn get(&mut self, task: &mut TaskContext, key: &Counted<K>) -> Result<Option<ValueAndTimestamp<A>>> {
        self.key_bytes.clear();
        self.key.serialize(&key.key, &mut self.key_bytes)?;
        let Some(row) = task.stores.get(self.index, &self.key_bytes)? else { return Ok(None) };
        let Some((timestamp, aggregate)) = OpenWindows::read(row)?.find(key.first)? else { return Ok(None) };
        Ok(Some(ValueAndTimestamp { value: self.value.deserialize(aggregate)?, timestamp }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serdes::I64;

    /// Two records of a key in windows of three that advance by one, at 5 and 7 ms.
    const ROW: &[u8] = b"\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x02\
        \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\x08\0\0\0\0\0\0\0\x0b\
        \0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x07\0\0\0\x08\0\0\0\0\0\0\0\x0a";

    #[test]
    fn a_row_reads_back_window_by_window() {
        let mut row = OpenWindows::read(ROW).unwrap();
        assert_eq!((row.timestamp, row.records), (7, 2));
        assert_eq!(row.find(0).unwrap(), Some((7, &11_i64.to_be_bytes()[..])));
        assert_eq!(row.find(1).unwrap(), Some((7, &10_i64.to_be_bytes()[..])));
        assert_eq!(row.find(2).unwrap(), None);
        let mut skipping = OpenWindows::read(ROW).unwrap();
        assert_eq!(skipping.find(1).unwrap(), Some((7, &10_i64.to_be_bytes()[..])));
    }

    #[test]
    fn the_bytes_of_a_row_stay_as_they_are() {
        let mut row = [7_i64.to_be_bytes(), 2_i64.to_be_bytes()].concat();
        let serde: DynSerde<i64> = Arc::new(I64);
        append(&mut row, 0, 7, &11, &serde).unwrap();
        append(&mut row, 1, 7, &10, &serde).unwrap();
        assert_eq!(row, ROW);
    }

    #[test]
    fn a_row_that_is_cut_off_is_refused() {
        for end in (0..ROW.len()).filter(|end| ![16, 44].contains(end)) {
            let read = || {
                let mut row = OpenWindows::read(&ROW[..end])?;
                while row.next()?.is_some() {}
                Ok::<(), Error>(())
            };
            assert!(read().is_err(), "{end} bytes");
        }
    }
}
