//! Committed rows in memory: restored from the changelog at every start.

use std::collections::BTreeMap;
use std::ops::Bound;

#[derive(Debug, Default)]
pub(super) struct MemoryEngine {
    rows: BTreeMap<Box<[u8]>, Vec<u8>>,
    /// The next changelog offset, once something of the changelog is here.
    pub(super) offset: Option<i64>,
}

impl MemoryEngine {
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.rows.get(key).map(Vec::as_slice)
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        match self.rows.get_mut(key) {
            Some(row) => {
                row.clear();
                row.extend_from_slice(value);
            }
            None => drop(self.rows.insert(key.into(), value.to_vec())),
        }
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        self.rows.remove(key);
    }

    pub(super) fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        self.rows.range::<[u8], _>((from, to)).map(|(key, row)| (&**key, row.as_slice()))
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}
