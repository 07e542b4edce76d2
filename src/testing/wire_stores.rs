//! Byte formats of stores, for the recorded vectors: not for applications.

use super::Wire;
use crate::error::Result;
use crate::serdes::Serde;
use crate::state::{ByteLists, EngineKind, SessionKind, VersionedKind, WindowKind};

#[doc(hidden)]
impl Wire {
    /// The changelog key of a window store's row.
    pub fn window_changelog_key(key: &[u8], start: i64, sequence: i64) -> Vec<u8> {
        WindowKind::new(0, 0, true, false, EngineKind::Memory).changelog_key(key, start, sequence)
    }

    /// Key, start and sequence number in such a key.
    pub fn read_window_changelog_key(logged: &[u8]) -> Option<(Vec<u8>, i64, i64)> {
        WindowKind::new(0, 0, true, false, EngineKind::Memory).read_changelog_key(logged)
    }

    /// The changelog key of a session store's row.
    pub fn session_changelog_key(key: &[u8], start: i64, end: i64) -> Vec<u8> {
        SessionKind::new(0, EngineKind::Memory).changelog_key(key, start, end)
    }

    /// A row of an outer join's store.
    pub fn list_value(items: &[Vec<u8>]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        ByteLists.serialize(&items.to_vec(), &mut bytes)?;
        Ok(bytes)
    }

    /// The items of such a row.
    pub fn read_list_value(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        ByteLists.deserialize(bytes)
    }

    /// How far the time of a versioned store moves before old versions are cleared away, both in ms.
    pub fn versioned_segment_interval(history_ms: i64) -> i64 {
        VersionedKind::new(history_ms).segment_ms
    }
}
