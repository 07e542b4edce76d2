//! What stands between a task and its engine: uncommitted rows, and a read cache of committed ones, in one table.
//!
//! ```text
//!   get   hot ── old (promoted) ── engine (kept in hot)
//!   put   hot, marked dirty
//!   commit   dirty rows, sorted, to the engine; they stay in hot as clean rows
//!   full     old is dropped, hot becomes old; dirty rows are carried over
//! ```
//!
//! So a key that is read and written all the time never reaches the engine between two commits, and a commit copies
//! nothing. What is in `old` may be an uncommitted row from before a rotation, always hidden by the one in `hot`: an abort
//! therefore forgets both.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::engine::Engine;
use super::generation::{Generation, ROW_OVERHEAD, hash};
use super::key_order::{self, Place};
use crate::error::Result;

#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    hot: Generation,
    old: Generation,
    /// Rows of `hot` that are not committed, in the order in which they were first written.
    dirty: Vec<u32>,
    /// Bytes of their keys and values, exactly.
    dirty_bytes: usize,
    /// The same rows by key; only while the store is asked for ranges, so that others do not pay for the order.
    ordered: Option<BTreeMap<Box<[u8]>, u32>>,
    /// A range was asked for since the last commit.
    is_ranged: bool,
    /// What one generation of committed rows may take.
    clean_bytes_max: usize,
    /// A row on its way from the engine.
    scratch: Vec<u8>,
    /// The dirty rows by key, for the commit.
    sorted: Vec<Place>,
}

impl WriteBuffer {
    /// What the read cache of this store may take from now on, in bytes; 0: nothing is kept.
    pub(super) fn set_clean_bytes_max(&mut self, bytes: usize) {
        self.clean_bytes_max = bytes / 2;
    }

    pub(super) fn get(&mut self, key: &[u8], engine: &mut Engine) -> Result<Option<&[u8]>> {
        let hash = hash(key);
        if let Some(id) = self.hot.find(hash, key) {
            return Ok(self.hot.value(id));
        }
        if let Some(id) = self.old.find(hash, key) {
            if self.is_full() {
                // Cannot be rotated away now: the row is in the generation that would go.
                return Ok(self.old.value(id));
            }
            let id = self.hot.insert(hash, key, self.old.value(id))?;
            return Ok(self.hot.value(id));
        }
        self.scratch.clear();
        let found = engine.get(key, &mut self.scratch)?;
        if self.is_full() {
            self.rotate()?;
        }
        if self.is_full() {
            return Ok(found.then_some(&self.scratch));
        }
        let id = self.hot.insert(hash, key, found.then_some(&self.scratch))?;
        Ok(self.hot.value(id))
    }

    pub(super) fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let hash = hash(key);
        let id = match self.hot.find(hash, key) {
            Some(id) => {
                let before = self.hot.row_bytes(id);
                self.hot.set(id, value)?;
                if self.hot.set_dirty(id, true) {
                    self.dirty_bytes = self.dirty_bytes + self.hot.row_bytes(id) - before;
                    return Ok(());
                }
                id
            }
            None => {
                let id = self.hot.insert(hash, key, value)?;
                self.hot.set_dirty(id, true);
                id
            }
        };
        self.dirty.push(id);
        self.dirty_bytes += self.hot.row_bytes(id);
        if let Some(ordered) = &mut self.ordered {
            ordered.insert(key.into(), id);
        }
        Ok(())
    }

    pub(super) fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Memory that its rows take, committed ones too.
    pub(super) fn bytes(&self) -> usize {
        self.hot.used() + self.old.used()
    }

    pub(super) fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// Uncommitted rows by key; a deletion is a row without a value.
    pub(super) fn range(
        &mut self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&[u8], Option<&[u8]>)> {
        self.is_ranged = true;
        let (hot, dirty) = (&self.hot, &self.dirty);
        let ordered = self.ordered.get_or_insert_with(|| dirty.iter().map(|id| (hot.key(*id).into(), *id)).collect());
        ordered.range::<[u8], _>((from, to)).map(|(key, id)| (&**key, hot.value(*id)))
    }

    /// Sorts the uncommitted rows, for [`dirty`](WriteBuffer::dirty).
    pub(super) fn sort(&mut self) {
        let hot = &self.hot;
        self.sorted.clear();
        self.sorted.extend(self.dirty.iter().map(|id| (0, *id)));
        key_order::sort(&mut self.sorted, |id| hot.key(id));
    }

    /// Uncommitted rows in the order of the last [`sort`](WriteBuffer::sort).
    pub(super) fn dirty(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.sorted.iter().map(|(_, id)| (self.hot.key(*id), self.hot.value(*id)))
    }

    /// The engine has the uncommitted rows: they stay as clean ones.
    pub(super) fn commit(&mut self) {
        for id in self.dirty.drain(..) {
            self.hot.set_dirty(id, false);
        }
        self.forget_order();
        if self.hot.used() > 2 * self.clean_bytes_max {
            // Too large even for a generation: a row of `old` may be older than the one that goes with `hot`.
            self.forget();
        } else if self.is_full() {
            self.turn();
        }
    }

    /// Forgets everything, uncommitted rows and the read cache.
    pub(super) fn forget(&mut self) {
        self.dirty.clear();
        self.forget_order();
        self.hot.clear();
        self.old.clear();
    }

    fn forget_order(&mut self) {
        self.dirty_bytes = 0;
        self.sorted.clear();
        self.ordered = self.ordered.take().filter(|_| std::mem::take(&mut self.is_ranged));
        if let Some(ordered) = &mut self.ordered {
            ordered.clear();
        }
    }

    /// Whether another clean row has to wait for a rotation. Dirty rows raise the limit, so that carrying them over costs
    /// no more than the reads in between.
    fn is_full(&self) -> bool {
        let dirty = self.dirty_bytes + self.dirty.len() * ROW_OVERHEAD;
        self.hot.used() >= dirty + if self.clean_bytes_max == 0 { 0 } else { self.clean_bytes_max.max(dirty) }
    }

    fn turn(&mut self) {
        std::mem::swap(&mut self.hot, &mut self.old);
        self.hot.clear();
    }

    fn rotate(&mut self) -> Result<()> {
        if self.clean_bytes_max == 0 {
            return Ok(());
        }
        self.turn();
        for id in &mut self.dirty {
            let key = self.old.key(*id);
            *id = self.hot.insert(hash(key), key, self.old.value(*id))?;
            self.hot.set_dirty(*id, true);
        }
        for (key, id) in self.ordered.iter_mut().flatten() {
            *id = self.hot.find(hash(key), key).unwrap_or(*id);
        }
        if self.old.used() > 2 * self.clean_bytes_max {
            self.old.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::engine::At;
    use crate::state::memory::MemoryEngine;

    fn engine() -> Engine {
        let mut engine = Engine::Memory(MemoryEngine::default());
        engine.apply([(&b"a"[..], Some(&b"1"[..]))].into_iter(), At::default()).unwrap();
        engine
    }

    #[test]
    fn a_row_stays_in_the_read_cache_after_its_commit() {
        let (mut buffer, mut engine) = (WriteBuffer::default(), engine());
        buffer.set_clean_bytes_max(1 << 20);
        buffer.put(b"b", Some(b"2")).unwrap();
        assert_eq!((buffer.dirty_bytes(), buffer.dirty_len()), (2, 1));
        buffer.sort();
        engine.apply(buffer.dirty(), At::default()).unwrap();
        buffer.commit();
        assert_eq!((buffer.dirty_bytes(), buffer.dirty_len()), (0, 0));
        let mut empty = Engine::Memory(MemoryEngine::default());
        assert_eq!(buffer.get(b"b", &mut empty).unwrap(), Some(&b"2"[..]));
    }

    #[test]
    fn uncommitted_rows_survive_a_rotation_and_not_an_abort() {
        let (mut buffer, mut engine) = (WriteBuffer::default(), engine());
        buffer.set_clean_bytes_max(1000);
        buffer.put(b"a", Some(b"uncommitted")).unwrap();
        assert_eq!(buffer.range(Bound::Unbounded, Bound::Unbounded).count(), 1);
        for n in 0..1000_u32 {
            assert_eq!(buffer.get(&n.to_be_bytes(), &mut engine).unwrap(), None);
            assert!(buffer.hot.used() + buffer.old.used() < 4000);
        }
        assert_eq!(buffer.get(b"a", &mut engine).unwrap(), Some(&b"uncommitted"[..]));
        let rows: Vec<_> = buffer.range(Bound::Unbounded, Bound::Unbounded).collect();
        assert_eq!(rows, [(&b"a"[..], Some(&b"uncommitted"[..]))]);
        buffer.forget();
        assert_eq!(buffer.get(b"a", &mut engine).unwrap(), Some(&b"1"[..]));
    }

    #[test]
    fn without_a_read_cache_nothing_is_kept() {
        let (mut buffer, mut engine) = (WriteBuffer::default(), engine());
        assert_eq!(buffer.get(b"a", &mut engine).unwrap(), Some(&b"1"[..]));
        assert_eq!(buffer.hot.used(), 0);
    }
}
