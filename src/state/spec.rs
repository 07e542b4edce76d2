//! What a store is, before there is one.

use std::collections::BTreeMap;
use std::sync::Arc;

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
}

impl StoreSpec {
    pub(crate) fn is_logged(&self) -> bool {
        !matches!(self.changelog, Changelog::Off)
    }

    pub(crate) fn is_on_disk(&self) -> bool {
        cfg!(feature = "rocksdb") && self.engine == EngineKind::Persistent
    }
}

#[cfg(feature = "rocksdb")]
impl StoreKind {
    /// The number of the layout in a store's meta record: never used for another one.
    pub(super) fn layout(self) -> u8 {
        match self {
            StoreKind::KeyValue => 0,
            StoreKind::TimestampedKeyValue => 1,
        }
    }
}
