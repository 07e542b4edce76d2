//! Rows as bytes, from stores of every kind.

#![expect(clippy::wildcard_enum_match_arm, reason = "a kind of store refuses every query that it does not know")]

use std::sync::Arc;

use super::iter::Cursor;
use super::raw::{RawQuery, RawRow};
use super::store::QueryContext;
use crate::error::{Error, ErrorKind, Result};
use crate::record::ValueAndTimestamp;
use crate::serdes::{Bytes, DynSerde, Serde};
use crate::state::{
    KeyValueStore, Rows, SessionStore, StoreKind, VersionRows, VersionedKeyValueStore, VersionedRecord, WindowRows,
    WindowStore, WindowValues, timestamped_values, values,
};
use crate::window::{Window, Windowed};

/// The bytes of a value, and its time if the store keeps it.
type RawValue = (Vec<u8>, Option<i64>);

/// Reads the values of a kind of store.
pub(super) enum RawValues {
    Plain(DynSerde<Vec<u8>>),
    Timed(DynSerde<ValueAndTimestamp<Vec<u8>>>),
}

impl RawValues {
    pub(super) fn of(kind: StoreKind) -> RawValues {
        match timestamped_values(kind, Arc::new(Bytes)) {
            Some(timed) => RawValues::Timed(timed),
            None => RawValues::Plain(values(kind, Arc::new(Bytes))),
        }
    }
}

impl Serde for RawValues {
    type Item = RawValue;

    fn serialize(&self, _: &RawValue, _: &mut Vec<u8>) -> Result<()> {
        Err(Error::new(ErrorKind::User, "a store that was asked for by a query can only be read"))
    }
    fn deserialize(&self, row: &[u8]) -> Result<RawValue> {
        match self {
            RawValues::Plain(plain) => Ok((plain.deserialize(row)?, None)),
            RawValues::Timed(timed) => timed.deserialize(row).map(|row| (row.value, Some(row.timestamp))),
        }
    }
}

/// The rows of one partition that a query is after.
pub(super) struct RawCursor {
    partition: i32,
    rows: Left,
}

/// What is left of them.
enum Left {
    One(Option<One>),
    Read(Option<RawRow>),
    Keys(Rows<Vec<u8>, RawValue>),
    Values { key: Vec<u8>, window_ms: i64, values: WindowValues<RawValue> },
    Windowed(WindowRows<Vec<u8>, RawValue>),
    Versions(Vec<u8>, VersionRows<Vec<u8>>),
}

/// A single row that was not looked for yet.
enum One {
    Key(KeyValueStore<Vec<u8>, RawValue>, Vec<u8>),
    Window(WindowStore<Vec<u8>, RawValue>, Vec<u8>, Window),
    Session(SessionStore<Vec<u8>, RawValue>, Vec<u8>, Window),
    /// At a time, or the newest.
    Version(VersionedKeyValueStore<Vec<u8>, Vec<u8>>, Vec<u8>, Option<i64>),
}

impl RawCursor {
    /// A query of a kind of store that answers it.
    pub(super) fn begin(query: &RawQuery, index: usize, kind: StoreKind, partition: i32) -> Result<RawCursor> {
        let rows = match kind {
            StoreKind::KeyValue | StoreKind::TimestampedKeyValue | StoreKind::KeyValueWithHeaders => {
                of_keys(query, KeyValueStore::new(index, Arc::new(Bytes), Arc::new(RawValues::of(kind))))?
            }
            StoreKind::Window(window) => {
                let store = WindowStore::new(index, window, Arc::new(Bytes), Arc::new(RawValues::of(kind)));
                of_windows(query, store, window.window_ms)?
            }
            StoreKind::Session(session) => {
                of_sessions(query, SessionStore::new(index, session, Arc::new(Bytes), Arc::new(RawValues::of(kind))))?
            }
            StoreKind::Versioned(_) => {
                of_versions(query, VersionedKeyValueStore::new(index, Arc::new(Bytes), Arc::new(Bytes)))?
            }
        };
        Ok(RawCursor { partition, rows })
    }

    /// A row that was read.
    pub(super) fn read(row: Option<RawRow>) -> RawCursor {
        RawCursor { partition: row.as_ref().map_or(0, |row| row.partition), rows: Left::Read(row) }
    }
}

fn of_keys(query: &RawQuery, store: KeyValueStore<Vec<u8>, RawValue>) -> Result<Left> {
    match query {
        RawQuery::Get { key } => Ok(Left::One(Some(One::Key(store, key.clone())))),
        RawQuery::Range { from, to, reverse: false } => store.range((from.as_ref(), to.as_ref())).map(Left::Keys),
        RawQuery::Range { from, to, reverse: true } => {
            store.reverse_range((from.as_ref(), to.as_ref())).map(Left::Keys)
        }
        RawQuery::Prefix { prefix } => store.prefix_scan(prefix, &Bytes).map(Left::Keys),
        _ => Err(of_another_kind()),
    }
}

fn of_windows(query: &RawQuery, store: WindowStore<Vec<u8>, RawValue>, window_ms: i64) -> Result<Left> {
    match query {
        RawQuery::Fetch { key, start } => {
            let window = Window { start: *start, end: start.saturating_add(window_ms) };
            Ok(Left::One(Some(One::Window(store, key.clone(), window))))
        }
        RawQuery::FetchRange { key, times: (from, to), reverse } => {
            let values =
                if *reverse { store.backward_fetch(key, *from, *to) } else { store.fetch_range(key, *from, *to) };
            Ok(Left::Values { key: key.clone(), window_ms, values: values? })
        }
        RawQuery::FetchKeys { from, to, times: (first, last), reverse } => {
            let keys = (from.as_ref(), to.as_ref());
            let rows = match reverse {
                true => store.backward_fetch_keys(keys, *first, *last),
                false => store.fetch_keys(keys, *first, *last),
            };
            rows.map(Left::Windowed)
        }
        _ => Err(of_another_kind()),
    }
}

fn of_sessions(query: &RawQuery, store: SessionStore<Vec<u8>, RawValue>) -> Result<Left> {
    match query {
        RawQuery::Session { key, window } => Ok(Left::One(Some(One::Session(store, key.clone(), *window)))),
        RawQuery::FetchRange { key, times: (from, to), reverse } => {
            let rows = match reverse {
                true => store.backward_find_sessions(key, *from, *to),
                false => store.find_sessions(key, *from, *to),
            };
            rows.map(Left::Windowed)
        }
        RawQuery::FetchKeys { from, to, times: (first, last), reverse } => {
            let keys = (from.as_ref(), to.as_ref());
            let rows = match reverse {
                true => store.backward_find_sessions_of_keys(keys, *first, *last),
                false => store.find_sessions_of_keys(keys, *first, *last),
            };
            rows.map(Left::Windowed)
        }
        _ => Err(of_another_kind()),
    }
}

fn of_versions(query: &RawQuery, store: VersionedKeyValueStore<Vec<u8>, Vec<u8>>) -> Result<Left> {
    match query {
        RawQuery::Get { key } => Ok(Left::One(Some(One::Version(store, key.clone(), None)))),
        RawQuery::GetAsOf { key, time } => Ok(Left::One(Some(One::Version(store, key.clone(), Some(*time))))),
        RawQuery::Versions { key, times: (from, to) } => {
            Ok(Left::Versions(key.clone(), store.versions(key, *from, *to)?))
        }
        _ => Err(of_another_kind()),
    }
}

impl Cursor<RawRow> for RawCursor {
    fn next(&mut self, ctx: &mut QueryContext<'_>) -> Result<Option<RawRow>> {
        let partition = self.partition;
        let row = |key, window, (value, timestamp)| RawRow { partition, key, window, value, timestamp, valid_to: None };
        let version = |key, VersionedRecord { value, timestamp, valid_to }| RawRow {
            partition,
            key,
            window: None,
            value,
            timestamp: Some(timestamp),
            valid_to,
        };
        let windowed = |(Windowed { key, window }, value)| row(key, Some(window), value);
        Ok(match &mut self.rows {
            Left::One(one) => match one.take() {
                None => None,
                Some(One::Key(mut store, key)) => store.get(ctx, &key)?.map(|value| row(key, None, value)),
                Some(One::Window(mut store, key, window)) => {
                    store.fetch(ctx, &key, window.start)?.map(|value| row(key, Some(window), value))
                }
                Some(One::Session(mut store, key, window)) => {
                    store.fetch_session(ctx, &key, window.start, window.end)?.map(|value| row(key, Some(window), value))
                }
                Some(One::Version(mut store, key, None)) => store.get(ctx, &key)?.map(|found| version(key, found)),
                Some(One::Version(mut store, key, Some(time))) => {
                    store.get_as_of(ctx, &key, time)?.map(|found| version(key, found))
                }
            },
            Left::Read(read) => read.take(),
            Left::Keys(rows) => rows.next(ctx)?.map(|(key, value)| row(key, None, value)),
            Left::Values { key, window_ms, values } => values.next(ctx)?.map(|(start, value)| {
                let window = Window { start, end: start.saturating_add(*window_ms) };
                row(key.clone(), Some(window), value)
            }),
            Left::Windowed(rows) => rows.next(ctx)?.map(windowed),
            Left::Versions(key, versions) => versions.next(ctx)?.map(|found| version(key.clone(), found)),
        })
    }
}

#[cold]
fn of_another_kind() -> Error {
    Error::new(ErrorKind::Internal, "a store was asked what its kind does not answer")
}
