//! What a store is, before there is one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::custom::MakeEngine;
#[cfg(feature = "rocksdb")]
use super::meta::Layout;
use super::row_format::RowFormat;
#[cfg(feature = "testing")]
use super::windowed_keys::Parts;
use super::windowed_keys::{Tail, WindowedKeys};
use crate::partition::KeyPartitioner;

/// Declares a store. One value for the whole application; every task opens its own store from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreSpec {
    pub name: Arc<str>,
    pub kind: StoreKind,
    pub engine: EngineKind,
    /// The program says nothing of it, so that the configuration may: see [`StoreSpec::in_memory`].
    pub is_default_engine: bool,
    /// Whether updates may be held back and merged until the commit.
    pub caching: bool,
    pub changelog: Changelog,
    /// In place of the engines here.
    pub custom: Option<MakeEngine>,
    pub logs_headers: LoggedHeaders,
    /// How long rows live after their own times, by the stream time; none: for ever.
    pub ttl_ms: Option<i64>,
    pub row_times: RowTimes,
    /// Where keys are looked for; none: where Kafka's clients write them.
    pub partitioner: Option<KeyPartitioner>,
}

/// How the times of a windowed store's rows compare with the timestamps of their changelog records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RowTimes {
    /// In any way. Sessions: a late record changes a session that ends later, with its own timestamp. Processors of the
    /// user's: they put rows of any time.
    #[default]
    Any,
    /// A row is never later than its record. A window begins before the records in it, and its row has the latest of their
    /// timestamps; a row of a join has that of its record.
    NotAfterRecords,
}

/// Which changelog records carry the headers of the records that caused them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoggedHeaders {
    None,
    /// Those that delete a row: the others have the headers of their rows, which are none (KIP-1285).
    OfDeletions,
    All,
    /// They have the version of a suppressed table's format: records of older ones are converted when they are restored.
    OfFormat,
}

/// How rows are laid out, and which of their parts go to the changelog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// `key → value`.
    KeyValue,
    /// `key → timestamp 8 | value`; the changelog holds the value, and the timestamp as the record's.
    TimestampedKeyValue,
    /// `key → headers | timestamp 8 | value`; the changelog holds the value, and the rest as the record's.
    KeyValueWithHeaders,
    /// A row for each key and time, dropped some time later: see [`WindowedKeys`].
    Window(WindowKind),
    /// A row for each key and session.
    Session(SessionKind),
    /// A row for each version of a key's value; the changelog has `key → value`, with the version's time as the record's.
    Versioned(VersionedKind),
}

/// A versioned store. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VersionedKind {
    /// Versions are kept as long as they were valid less than this before the largest time that was put.
    pub history_ms: i64,
    /// How far that time moves before versions that have expired are cleared away.
    pub segment_ms: i64,
}

impl VersionedKind {
    /// With Java's default for the second length.
    pub(crate) fn new(history_ms: i64) -> VersionedKind {
        let segment_ms = if history_ms <= 60_000 {
            (history_ms / 3).max(2_000)
        } else if history_ms <= 300_000 {
            (history_ms / 5).max(20_000)
        } else if history_ms <= 3_600_000 {
            (history_ms / 12).max(60_000)
        } else {
            (history_ms / 24).max(300_000)
        };
        VersionedKind { history_ms, segment_ms }
    }
}

/// A window store. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowKind {
    /// Rows expire this long before the largest time that was put.
    pub retention_ms: i64,
    /// From the start of a window to its end; no row knows its end.
    pub window_ms: i64,
    /// Rows of one key and time are kept beside each other.
    pub retains_duplicates: bool,
    /// Values are `timestamp 8 | value`.
    pub is_timestamped: bool,
    /// Values are `headers | timestamp 8 | value`.
    pub has_headers: bool,
    pub(super) keys: WindowedKeys,
}

/// A session store. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionKind {
    /// Rows expire this long before the largest end of a session that was put.
    pub retention_ms: i64,
    /// Values are `headers | aggregate`.
    pub has_headers: bool,
    pub(super) keys: WindowedKeys,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum EngineKind {
    /// On disk where the crate is built with RocksDB, in memory otherwise.
    #[default]
    Persistent,
    Memory,
    /// In memory, with at most so many rows: the one that was not used for the longest time is deleted.
    Lru(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changelog {
    /// Not backed: lost with the task.
    Off,
    /// A topic of its own, `<application>-<store>-changelog`, with these settings above the defaults.
    Topic { config: BTreeMap<String, String> },
    /// A source topic of the task that holds the same rows (without the application's prefix): nothing is written to it,
    /// and it is read up to what is committed of it as an input.
    Source { topic: Arc<str>, readable: Readable },
}

/// Whether the source has read a record, and not skipped it: only then is it a row.
#[derive(Clone)]
pub(crate) struct Readable(Arc<IsReadable>);

type IsReadable = dyn Fn(&[u8], Option<&[u8]>) -> bool + Send + Sync;

impl Readable {
    pub(crate) fn new(is_readable: impl Fn(&[u8], Option<&[u8]>) -> bool + Send + Sync + 'static) -> Readable {
        Readable(Arc::new(is_readable))
    }
}

impl PartialEq for Readable {
    fn eq(&self, other: &Readable) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Readable {}

impl fmt::Debug for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readable")
    }
}

impl StoreSpec {
    /// Whether updates are written to a changelog.
    pub(crate) fn is_logged(&self) -> bool {
        matches!(self.changelog, Changelog::Topic { .. })
    }

    /// Whether a record of the changelog is a row of the store.
    pub(super) fn is_row(&self, key: &[u8], value: Option<&[u8]>) -> bool {
        match &self.changelog {
            Changelog::Source { readable, .. } => (readable.0)(key, value),
            Changelog::Off | Changelog::Topic { .. } => true,
        }
    }

    /// The source topic that the store is restored from.
    pub(crate) fn source_changelog(&self) -> Option<&Arc<str>> {
        match &self.changelog {
            Changelog::Source { topic, .. } => Some(topic),
            Changelog::Off | Changelog::Topic { .. } => None,
        }
    }

    /// The same store where the configuration keeps in memory what the program leaves to it; none: it stays as it is.
    pub(crate) fn in_memory(&self) -> Option<StoreSpec> {
        let moves = self.is_default_engine && self.engine == EngineKind::Persistent && self.custom.is_none();
        let kind = self.kind.in_memory();
        moves.then(|| StoreSpec { engine: EngineKind::Memory, kind, ..self.clone() })
    }

    pub(crate) fn is_on_disk(&self) -> bool {
        cfg!(feature = "rocksdb") && self.engine == EngineKind::Persistent && self.custom.is_none()
    }

    /// What makes no sense about it, each with its remedy.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let name = &self.name;
        let mut mistakes = Vec::new();
        if let StoreKind::Window(WindowKind { retention_ms, window_ms, .. }) = self.kind
            && window_ms > retention_ms
        {
            mistakes.push(format!(
                "store {name} keeps windows of {window_ms} ms for {retention_ms} ms only: its retention must not be shorter \
                 than a window"
            ));
        }
        match self.engine {
            EngineKind::Lru(_) if self.kind.windowed().is_some() => mistakes.push(format!(
                "store {name} is windowed and cannot be bounded by rows: its rows expire, so bound its retention"
            )),
            EngineKind::Persistent | EngineKind::Memory | EngineKind::Lru(_) => {}
        }
        mistakes.extend(self.ttl_mistake().map(|mistake| format!("store {name} {mistake}")));
        if let StoreKind::Versioned(VersionedKind { segment_ms, .. }) = self.kind {
            if self.caching {
                mistakes.push(format!("store {name} is versioned and cannot be cached: leave with_caching out"));
            }
            if segment_ms < 1 {
                mistakes.push(format!("store {name} has segments of {segment_ms} ms: they need at least one"));
            }
        }
        mistakes
    }
}

impl StoreSpec {
    fn ttl_mistake(&self) -> Option<&'static str> {
        match (self.ttl_ms?, self.kind) {
            (i64::MIN..=0, _) => Some("has rows that live for 0 ms: give with_ttl at least a millisecond"),
            (i64::MAX, _) => Some("has rows that live longer than time: leave with_ttl out"),
            (_, StoreKind::TimestampedKeyValue | StoreKind::KeyValueWithHeaders)
                if matches!(self.engine, EngineKind::Lru(_)) =>
            {
                Some("is bounded by rows: leave with_ttl or the bound out")
            }
            (_, StoreKind::TimestampedKeyValue | StoreKind::KeyValueWithHeaders) => None,
            (_, StoreKind::KeyValue) => Some(
                "keeps no times of its rows, by which they could expire: make it a timestamped one, or leave with_ttl out",
            ),
            (_, StoreKind::Window(_) | StoreKind::Session(_)) => {
                Some("is windowed, and its rows expire in any case: give with_retention in place of with_ttl")
            }
            (_, StoreKind::Versioned(_)) => Some("is versioned, and its history ends in any case: leave with_ttl out"),
        }
    }

    /// The layout in a store's meta record: never the same for two of them.
    #[cfg(feature = "rocksdb")]
    pub(super) fn layout(&self) -> Layout {
        let layout = self.kind.layout();
        match self.ttl_ms {
            Some(_) => Layout { kind: layout.kind | 0x80, ..layout },
            None => layout,
        }
    }
}

/// The shortest bucket.
const BUCKET_MS_MIN: i64 = 60_000;

/// The shortest bucket of a join in memory: rows that have expired are kept about as long.
const MEMORY_BUCKET_MS_MIN: i64 = 1_000;

impl WindowedKeys {
    /// Java's segments for this retention; in memory rows lie by time.
    fn of(tail: Tail, retention_ms: i64, engine: EngineKind) -> WindowedKeys {
        let bucket_ms = (engine == EngineKind::Persistent).then_some((retention_ms / 2).max(BUCKET_MS_MIN));
        WindowedKeys { tail, bucket_ms, drops_each: bucket_ms.is_none() }
    }

    fn by_key(self, retention_ms: i64) -> WindowedKeys {
        let bucket_ms = self.bucket_ms.or(Some((retention_ms / 2).max(MEMORY_BUCKET_MS_MIN)));
        WindowedKeys { bucket_ms, ..self }
    }
}

impl WindowKind {
    pub(crate) fn new(
        retention_ms: i64,
        window_ms: i64,
        retains_duplicates: bool,
        is_timestamped: bool,
        engine: EngineKind,
    ) -> WindowKind {
        let tail = if retains_duplicates { Tail::Sequence } else { Tail::None };
        let keys = WindowedKeys::of(tail, retention_ms, engine);
        WindowKind { retention_ms, window_ms, retains_duplicates, is_timestamped, has_headers: false, keys }
    }

    pub(super) fn with_headers(self) -> WindowKind {
        WindowKind { has_headers: true, ..self }
    }

    /// The window of one side of a join.
    pub(crate) fn for_join(retention_ms: i64, window_ms: i64, engine: EngineKind) -> WindowKind {
        WindowKind::new(retention_ms, window_ms, true, false, engine).by_key()
    }

    /// Asked for the rows of one key before all: they lie by key in memory, too.
    pub(crate) fn by_key(self) -> WindowKind {
        WindowKind { keys: self.keys.by_key(self.retention_ms), ..self }
    }
}

impl SessionKind {
    pub(crate) fn new(retention_ms: i64, engine: EngineKind) -> SessionKind {
        SessionKind { retention_ms, has_headers: false, keys: WindowedKeys::of(Tail::Start, retention_ms, engine) }
    }

    pub(super) fn with_headers(self) -> SessionKind {
        SessionKind { has_headers: true, ..self }
    }

    /// Asked for the sessions of one key before all: they lie by key in memory, too.
    pub(crate) fn by_key(self) -> SessionKind {
        SessionKind { keys: self.keys.by_key(self.retention_ms), ..self }
    }
}

#[cfg(feature = "testing")]
impl WindowKind {
    pub(crate) fn changelog_key(&self, key: &[u8], time: i64, sequence: i64) -> Vec<u8> {
        let mut logged = Vec::new();
        self.keys.encode_logged(Parts { key, time, tail: sequence }, &mut logged);
        logged
    }

    pub(crate) fn read_changelog_key(&self, logged: &[u8]) -> Option<(Vec<u8>, i64, i64)> {
        self.keys.decode_logged(logged).map(|Parts { key, time, tail }| (key.to_vec(), time, tail))
    }
}

#[cfg(feature = "testing")]
impl SessionKind {
    pub(crate) fn changelog_key(&self, key: &[u8], start: i64, end: i64) -> Vec<u8> {
        let mut logged = Vec::new();
        self.keys.encode_logged(Parts { key, time: end, tail: start }, &mut logged);
        logged
    }
}

impl StoreKind {
    /// As the DSL lays a store out in memory.
    fn in_memory(self) -> StoreKind {
        let by_key = |keys: WindowedKeys, retention_ms| {
            WindowedKeys::of(keys.tail, retention_ms, EngineKind::Memory).by_key(retention_ms)
        };
        match self {
            StoreKind::Window(kind) => {
                StoreKind::Window(WindowKind { keys: by_key(kind.keys, kind.retention_ms), ..kind })
            }
            StoreKind::Session(kind) => {
                StoreKind::Session(SessionKind { keys: by_key(kind.keys, kind.retention_ms), ..kind })
            }
            StoreKind::KeyValue
            | StoreKind::TimestampedKeyValue
            | StoreKind::KeyValueWithHeaders
            | StoreKind::Versioned(_) => self,
        }
    }

    /// Whether rows have room for headers in Java (KIP-1271).
    pub(crate) fn may_keep_headers(self) -> bool {
        match self {
            StoreKind::TimestampedKeyValue | StoreKind::Session(_) => true,
            StoreKind::Window(kind) => kind.is_timestamped,
            StoreKind::KeyValueWithHeaders => true,
            StoreKind::KeyValue | StoreKind::Versioned(_) => false,
        }
    }

    /// Whether rows are known by their keys alone.
    pub(crate) fn is_key_value(self) -> bool {
        matches!(self, StoreKind::KeyValue | StoreKind::TimestampedKeyValue | StoreKind::KeyValueWithHeaders)
    }

    /// Retention and keys of a windowed store.
    pub(super) fn windowed(self) -> Option<(i64, WindowedKeys)> {
        match self {
            StoreKind::Window(kind) => Some((kind.retention_ms, kind.keys)),
            StoreKind::Session(kind) => Some((kind.retention_ms, kind.keys)),
            StoreKind::KeyValue
            | StoreKind::TimestampedKeyValue
            | StoreKind::KeyValueWithHeaders
            | StoreKind::Versioned(_) => None,
        }
    }

    pub(super) fn versioned(self) -> Option<VersionedKind> {
        if let StoreKind::Versioned(kind) = self { Some(kind) } else { None }
    }

    /// How long a versioned store remembers; none: it is no such store.
    pub(crate) fn history_ms(self) -> Option<i64> {
        self.versioned().map(|kind| kind.history_ms)
    }

    /// Whether rows of one key and time are kept beside each other.
    pub(crate) fn retains_duplicates(self) -> bool {
        matches!(self, StoreKind::Window(WindowKind { retains_duplicates: true, .. }))
    }

    /// Whether rows leave the store by themselves.
    #[cfg(feature = "rocksdb")]
    pub(super) fn expires(self) -> bool {
        self.windowed().is_some() || self.versioned().is_some()
    }

    /// How long rows are kept behind the largest time that was put; none: for ever.
    pub(crate) fn retention_ms(self) -> Option<i64> {
        self.windowed().map(|(retention_ms, _)| retention_ms)
    }

    /// What stands in front of the value in a row.
    pub(super) fn row_format(self) -> RowFormat {
        match self {
            StoreKind::TimestampedKeyValue => RowFormat::Timestamped,
            StoreKind::KeyValueWithHeaders => RowFormat::HeadersAndTimestamp,
            StoreKind::Window(kind) if kind.has_headers => RowFormat::HeadersAndTimestamp,
            StoreKind::Window(kind) if kind.is_timestamped => RowFormat::Timestamped,
            StoreKind::Session(kind) if kind.has_headers => RowFormat::Headers,
            StoreKind::KeyValue | StoreKind::Window(_) | StoreKind::Session(_) | StoreKind::Versioned(_) => {
                RowFormat::Value
            }
        }
    }

    #[cfg(feature = "rocksdb")]
    fn layout(self) -> Layout {
        let kind = match self {
            StoreKind::KeyValue => 0,
            StoreKind::TimestampedKeyValue => 1,
            StoreKind::Window(kind) if kind.has_headers => 9 + u8::from(kind.retains_duplicates),
            StoreKind::Window(kind) => 2 + u8::from(kind.is_timestamped) + 2 * u8::from(kind.retains_duplicates),
            StoreKind::Session(kind) if kind.has_headers => 11,
            StoreKind::Session(_) => 6,
            StoreKind::Versioned(_) => 7,
            StoreKind::KeyValueWithHeaders => 8,
        };
        Layout { kind, bucket_ms: self.windowed().and_then(|(_, keys)| keys.bucket_ms).unwrap_or(0) }
    }
}
