//! What a store is, before there is one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::windowed_keys::{Tail, WindowedKeys};

/// Declares a store. One value for the whole application; every task opens its own store from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreSpec {
    pub name: Arc<str>,
    pub kind: StoreKind,
    pub engine: EngineKind,
    /// Whether updates may be held back and merged until the commit.
    pub caching: bool,
    pub changelog: Changelog,
}

/// How rows are laid out, and which of their parts go to the changelog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// `key → value`.
    KeyValue,
    /// `key → timestamp 8 | value`; the changelog holds the value, and the timestamp as the record's.
    TimestampedKeyValue,
    /// A row for each key and time, dropped some time later: see [`WindowedKeys`].
    Window(WindowKind),
    /// A row for each key and session.
    Session(SessionKind),
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
    pub(super) keys: WindowedKeys,
}

/// A session store. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionKind {
    /// Rows expire this long before the largest end of a session that was put.
    pub retention_ms: i64,
    pub(super) keys: WindowedKeys,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineKind {
    /// On disk where the crate is built with RocksDB, in memory otherwise.
    Persistent,
    Memory,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changelog {
    /// Not backed: lost with the task.
    Off,
    /// A topic of its own, `<application>-<store>-changelog`, with these settings above the defaults.
    Topic { config: BTreeMap<String, String> },
    /// A source topic of the task that holds the same rows (without the application's prefix): nothing is written to it,
    /// and it is read up to what is committed of it as an input.
    Source { topic: Arc<str> },
}

impl StoreSpec {
    /// Whether updates are written to a changelog.
    pub(crate) fn is_logged(&self) -> bool {
        matches!(self.changelog, Changelog::Topic { .. })
    }

    /// The source topic that the store is restored from.
    pub(crate) fn source_changelog(&self) -> Option<&Arc<str>> {
        match &self.changelog {
            Changelog::Source { topic } => Some(topic),
            Changelog::Off | Changelog::Topic { .. } => None,
        }
    }

    pub(crate) fn is_on_disk(&self) -> bool {
        cfg!(feature = "rocksdb") && self.engine == EngineKind::Persistent
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
        mistakes
    }
}

/// The shortest bucket.
const BUCKET_MS_MIN: i64 = 60_000;

impl WindowedKeys {
    /// Java's segments for this retention; in memory rows lie by time.
    fn of(tail: Tail, retention_ms: i64, engine: EngineKind) -> WindowedKeys {
        let bucket_ms = (engine == EngineKind::Persistent).then_some((retention_ms / 2).max(BUCKET_MS_MIN));
        WindowedKeys { tail, bucket_ms }
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
        WindowKind { retention_ms, window_ms, retains_duplicates, is_timestamped, keys }
    }
}

impl SessionKind {
    pub(crate) fn new(retention_ms: i64, engine: EngineKind) -> SessionKind {
        SessionKind { retention_ms, keys: WindowedKeys::of(Tail::Start, retention_ms, engine) }
    }
}

impl StoreKind {
    /// Retention and keys of a windowed store.
    pub(super) fn windowed(self) -> Option<(i64, WindowedKeys)> {
        match self {
            StoreKind::Window(kind) => Some((kind.retention_ms, kind.keys)),
            StoreKind::Session(kind) => Some((kind.retention_ms, kind.keys)),
            StoreKind::KeyValue | StoreKind::TimestampedKeyValue => None,
        }
    }

    /// Whether rows of one key and time are kept beside each other.
    pub(super) fn retains_duplicates(self) -> bool {
        matches!(self, StoreKind::Window(WindowKind { retains_duplicates: true, .. }))
    }

    /// How long rows are kept behind the largest time that was put; none: for ever.
    pub(crate) fn retention_ms(self) -> Option<i64> {
        self.windowed().map(|(retention_ms, _)| retention_ms)
    }

    /// Whether values are `timestamp 8 | value`, of which the changelog only has the value.
    pub(super) fn is_timestamped(self) -> bool {
        match self {
            StoreKind::TimestampedKeyValue => true,
            StoreKind::Window(kind) => kind.is_timestamped,
            StoreKind::KeyValue | StoreKind::Session(_) => false,
        }
    }

    /// The number of the layout in a store's meta record: never used for another one.
    #[cfg(feature = "rocksdb")]
    pub(super) fn layout(self) -> u8 {
        match self {
            StoreKind::KeyValue => 0,
            StoreKind::TimestampedKeyValue => 1,
            StoreKind::Window(kind) => 2 + u8::from(kind.is_timestamped) + 2 * u8::from(kind.retains_duplicates),
            StoreKind::Session(_) => 6,
        }
    }
}
