//! Which row of a store with a bounded number of rows was not used for the longest time.

use std::collections::{BTreeMap, HashMap};

/// The order in which rows were last read or written.
#[derive(Debug)]
pub(super) struct LastUses {
    rows_max: usize,
    by_use: BTreeMap<u64, Vec<u8>>,
    uses: HashMap<Vec<u8>, u64>,
    next: u64,
    /// Rows came or went without being told.
    is_stale: bool,
}

impl LastUses {
    pub(super) fn new(rows_max: usize) -> LastUses {
        LastUses { rows_max, by_use: BTreeMap::new(), uses: HashMap::new(), next: 0, is_stale: false }
    }

    /// A row was read, if there is one.
    pub(super) fn read(&mut self, key: &[u8]) {
        if self.uses.contains_key(key) {
            self.use_now(key);
        }
    }

    /// A row was written: the one that has to go.
    pub(super) fn written(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.use_now(key);
        if self.uses.len() <= self.rows_max {
            return None;
        }
        let (_, eldest) = self.by_use.pop_first()?;
        self.uses.remove(&eldest);
        Some(eldest)
    }

    pub(super) fn deleted(&mut self, key: &[u8]) {
        if let Some(last) = self.uses.remove(key) {
            self.by_use.remove(&last);
        }
    }

    /// The rows are those of the last commit again.
    pub(super) fn abort(&mut self) {
        self.is_stale = true;
    }

    pub(super) fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Takes over which rows there are. One that is new here counts as not used for long.
    pub(super) fn refresh(&mut self, keys: Vec<Vec<u8>>) {
        self.is_stale = false;
        let before = std::mem::take(&mut self.uses);
        let mut keys: Vec<(Option<u64>, Vec<u8>)> =
            keys.into_iter().map(|key| (before.get(&key).copied(), key)).collect();
        keys.sort_unstable();
        self.by_use.clear();
        self.next = 0;
        keys.iter().for_each(|(_, key)| self.use_now(key));
    }

    fn use_now(&mut self, key: &[u8]) {
        let last = self.uses.insert(key.to_vec(), self.next);
        if let Some(last) = last {
            self.by_use.remove(&last);
        }
        self.by_use.insert(self.next, key.to_vec());
        self.next += 1;
    }
}
