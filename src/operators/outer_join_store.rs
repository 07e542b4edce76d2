//! Records of a left or outer join that have found nobody yet, of both sides, in the order in which they are given up.
//!
//! ```text
//!   key     timestamp 8 | side 1 (left 1, right 0) | key
//!   row     1 | count 4 | (length 4 | side 1 | value)*       records of one side, key and time, in the order they came
//! ```
//!
//! The bytes are Java's, so a changelog goes from one to the other.

use std::ops::Bound;

use crate::error::{Error, Result};
use crate::state::{
    ByteLists, KeyValueStore, RecordContext, Side, StoreBuilder, TaskStores, decode_join_key, encode_join_key,
};

/// As it is declared: bytes, since the values of the two sides are of two types.
pub(crate) type OuterJoinRows = StoreBuilder<KeyValueStore<Vec<u8>, Vec<u8>>>;

/// The store in the hands of one side of the join.
pub(crate) struct OuterJoinStore {
    index: usize,
    /// Scratch; kept, so that encoding allocates nothing.
    row_key: Vec<u8>,
    entry: Vec<u8>,
    row: Vec<u8>,
}

/// A row, with its key taken apart.
#[derive(Debug)]
pub(crate) struct OuterJoinRow {
    /// What [`OuterJoinStore::remove_row`] takes.
    pub row_key: Vec<u8>,
    pub timestamp: i64,
    pub side: Side,
    row: Vec<u8>,
}

impl OuterJoinStore {
    pub(crate) fn new(rows: &KeyValueStore<Vec<u8>, Vec<u8>>) -> OuterJoinStore {
        OuterJoinStore { index: rows.index(), row_key: Vec::new(), entry: Vec::new(), row: Vec::new() }
    }

    /// Adds a record to those of its side, key and time.
    pub(crate) fn add(
        &mut self,
        (timestamp, side, key): (i64, Side, &[u8]),
        write_value: impl FnOnce(&mut Vec<u8>) -> Result<()>,
        stores: &mut TaskStores,
        context: &RecordContext,
    ) -> Result<()> {
        encode_join_key(timestamp, side, key, &mut self.row_key);
        self.entry.clear();
        self.entry.push(side.byte());
        write_value(&mut self.entry)?;
        self.row.clear();
        self.row.extend_from_slice(stores.get(self.index, &self.row_key)?.unwrap_or_default());
        ByteLists::append(&mut self.row, &self.entry)?;
        stores.put(self.index, &self.row_key, Some(&self.row), context)
    }

    /// Removes the records of a side, key and time, if there are any: they have found somebody.
    pub(crate) fn remove(
        &mut self,
        (timestamp, side, key): (i64, Side, &[u8]),
        stores: &mut TaskStores,
        context: &RecordContext,
    ) -> Result<()> {
        encode_join_key(timestamp, side, key, &mut self.row_key);
        if stores.get(self.index, &self.row_key)?.is_some() {
            stores.put(self.index, &self.row_key, None, context)?;
        }
        Ok(())
    }

    /// Removes a row that was read.
    pub(crate) fn remove_row(&self, row_key: &[u8], stores: &mut TaskStores, context: &RecordContext) -> Result<()> {
        stores.put(self.index, row_key, None, context)
    }

    /// At most `limit` rows behind a key, by time, right before left, by key.
    pub(crate) fn page(&self, after: Bound<&[u8]>, limit: usize, stores: &mut TaskStores) -> Result<Vec<OuterJoinRow>> {
        let page = stores.page(self.index, after, Bound::Unbounded, false, limit)?;
        let rows = page.into_iter().map(|(row_key, row)| {
            let (timestamp, side, _) = decode_join_key(&row_key)?;
            Ok(OuterJoinRow { row_key, timestamp, side, row })
        });
        rows.collect()
    }
}

impl OuterJoinRow {
    /// The bytes of the key of its records.
    pub(crate) fn key(&self) -> Result<&[u8]> {
        decode_join_key(&self.row_key).map(|(_, _, key)| key)
    }

    /// The bytes of the values of its records, in the order in which they came.
    pub(crate) fn values(&self) -> Result<Vec<&[u8]>> {
        let entries = ByteLists::items(&self.row)?.into_iter();
        // The side of an entry is that of its row.
        entries.map(|entry| entry.split_first().map(|(_, value)| value).ok_or_else(damaged)).collect()
    }
}

#[cold]
fn damaged() -> Error {
    Error::corrupted("a row of the store of an outer join is damaged")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::serdes::Bytes;
    use crate::state::{EngineKind, StoreKind};

    #[test]
    fn records_of_one_side_key_and_time_are_one_row() {
        let rows = OuterJoinRows::key_value(
            "unmatched",
            StoreKind::KeyValue,
            EngineKind::Memory,
            Arc::new(Bytes),
            Arc::new(Bytes),
        );
        let mut stores = TaskStores::in_memory(&[Arc::clone(&rows.spec)], 0);
        let mut store = OuterJoinStore::new(&rows.open(0));
        let context = RecordContext::default();
        for (time, side, value) in
            [(5, Side::Left, "a"), (5, Side::Right, "b"), (5, Side::Left, "c"), (4, Side::Left, "")]
        {
            let write = |bytes: &mut Vec<u8>| {
                bytes.extend_from_slice(value.as_bytes());
                Ok(())
            };
            store.add((time, side, b"k"), write, &mut stores, &context).unwrap();
        }
        let rows = store.page(Bound::Unbounded, 10, &mut stores).unwrap();
        let shown: Vec<_> = rows.iter().map(|row| (row.timestamp, row.side, row.values().unwrap())).collect();
        assert_eq!(
            shown,
            [(4, Side::Left, vec![&b""[..]]), (5, Side::Right, vec![b"b"]), (5, Side::Left, vec![b"a", b"c"])]
        );
        store.remove((5, Side::Left, b"k"), &mut stores, &context).unwrap();
        let logged = stores.changelog().count();
        store.remove((5, Side::Left, b"k"), &mut stores, &context).unwrap();
        assert_eq!((logged, stores.changelog().count()), (5, 5), "nothing is there to be removed");
    }
}
