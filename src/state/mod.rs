//! What a task owns: its stores, on one path for every kind.
//!
//! ```text
//!   KeyValueStore<K, V>  typed facade: serdes, scratch          (store)
//!          | bytes
//!   TaskStores           all stores of one task, by index       (task_stores)
//!          |  cache?     holds back and merges updates          (cache)
//!          |  changelog  pending records, in order
//!          v  buffer     uncommitted rows                       (write_buffer)
//!   Engine               committed rows: memory or RocksDB      (engine)
//! ```
//!
//! An engine only ever holds committed rows, and with them the changelog offset that they correspond to.

mod as_of;
#[cfg(feature = "testing")]
mod bench;
mod buffer_log;
mod buffer_value;
mod builder;
mod cache;
mod changelog;
mod custom;
#[cfg_attr(not(feature = "rocksdb"), allow(dead_code, reason = "asked for by stores on disk only"))]
mod directory;
mod engine;
mod expiry;
#[cfg(test)]
mod expiry_tests;
mod generation;
mod global_store;
mod join_side;
mod key_order;
mod known_rows;
mod list_store;
mod lru;
mod memory;
mod merge;
#[cfg_attr(not(feature = "rocksdb"), allow(dead_code, reason = "asked for by stores on disk only"))]
mod meta;
#[cfg(test)]
mod model_tests;
mod one_store;
mod open;
mod readers;
mod removal;
mod restore;
#[cfg_attr(not(feature = "rocksdb"), allow(dead_code, reason = "asked for by stores on disk only"))]
mod restore_plan;
mod retention;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod row_format;
mod row_values;
mod run;
mod run_rows;
mod session_store;
#[cfg(feature = "testing")]
mod shown_rows;
#[cfg(all(test, feature = "testing"))]
pub(crate) mod simulated_disk;
mod spec;
mod state_memory;
mod store;
mod task_stores;
#[cfg(test)]
mod tests;
mod versioned_store;
mod versions;
mod window_rows;
mod window_store;
mod windowed_keys;
#[cfg(test)]
mod windowed_tests;
mod with_headers;
mod work_queue;
mod write_buffer;

#[cfg(feature = "testing")]
pub use bench::BenchStore;
pub(crate) use buffer_value::BufferValue;
pub use builder::{StoreBuilder, Stores};
pub(crate) use cache::CacheBudget;
pub(crate) use custom::MakeEngine;
pub use custom::StoreEngine;
pub(crate) use directory::StateDirectory;
pub(crate) use global_store::GlobalStores;
pub(crate) use join_side::{Side, decode_join_key, encode_join_key};
pub(crate) use list_store::ByteLists;
pub(crate) use meta::ChangelogIdentity;
pub(crate) use open::{StateHome, StoreToOpen};
pub(crate) use readers::{NotRead, TaskReaders};
pub(crate) use removal::IdleState;
pub(crate) use restore::Reach;
pub(crate) use restore_plan::LogState;
pub(crate) use row_values::{timestamped_values, values};
pub(crate) use run::HeldBack;
pub use session_store::SessionStore;
pub(crate) use spec::StoreKind;
pub(crate) use spec::VersionedKind;
pub(crate) use spec::{Changelog, EngineKind, LoggedHeaders, Readable, RowTimes, StoreSpec};
pub(crate) use spec::{SessionKind, WindowKind};
pub(crate) use state_memory::{StateMemory, StateMemoryLimits};
pub use store::{KeyValueStore, Rows, StoreContext, TimestampedKeyValueStore};
pub(crate) use task_stores::{RecordContext, TaskStores};
pub(crate) use versioned_store::VersionRows;
pub use versioned_store::{VersionedKeyValueStore, VersionedRecord};
pub use versions::VersionPut;
pub(crate) use window_rows::WindowedKey;
pub use window_rows::{WindowRows, WindowValues};
pub use window_store::{TimestampedWindowStore, WindowStore};
pub use with_headers::{
    AggregationWithHeaders, SessionStoreWithHeaders, TimestampedKeyValueStoreWithHeaders,
    TimestampedWindowStoreWithHeaders, ValueTimestampHeaders,
};
pub(crate) use work_queue::WorkQueue;
