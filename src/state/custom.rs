//! Engines of the user's own.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use super::engine::Scan;
use super::merge::Direction;
use super::retention::Expired;
use super::versions::has_expired;
use crate::error::Result;

/// Expired rows that are deleted at once.
const EXPIRED_ROWS_MAX: usize = 1_024;

/// Keeps the rows of one store of one task in a way of one's own: Java's custom store suppliers. Given with
/// [`StoreBuilder::with_engine`](crate::StoreBuilder::with_engine) or
/// [`Materialized::with_engine`](crate::Materialized::with_engine).
///
/// It only ever sees committed rows, as bytes; caching, the changelog and transactions are the library's. It begins empty
/// and is filled from the changelog each time that its task comes to this instance.
///
/// Every kind of store may have one. The order of the keys is the order of their bytes, and what lies there depends on the
/// kind (numbers are big endian, 8 bytes):
///
/// | store | key of a row | what the order is good for |
/// |---|---|---|
/// | key-value | the key | |
/// | window | bucket, key, start of the window, and 4 bytes more where rows are kept beside each other | rows of a key lie together within a span of time |
/// | session | bucket, key, end, start | the same |
/// | versioned | key, and a time that counts down | versions of a key lie together, the newest first |
///
/// A bucket is a span of time, a number that grows: rows of windows and sessions that have expired lie before all others
/// and are taken away with [`delete_range`](StoreEngine::delete_range). In a store that is made
/// [in memory](crate::Materialized::in_memory) with an engine of one's own, buckets may be as short as a millisecond, and the
/// start of a session is inverted.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::ops::Bound;
/// use kstreams::*;
///
/// /// Rows in a tree.
/// #[derive(Default)]
/// struct Tree(BTreeMap<Vec<u8>, Vec<u8>>);
///
/// impl StoreEngine for Tree {
///     fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
///         Ok(self.0.get(key).cloned())
///     }
///
///     fn scan(
///         &mut self,
///         (from, to): (Bound<&[u8]>, Bound<&[u8]>),
///         reverse: bool,
///         each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
///     ) -> Result<()> {
///         let mut rows = self.0.range::<[u8], _>((from, to));
///         while let Some((key, row)) = if reverse { rows.next_back() } else { rows.next() } {
///             if !each(key, row) {
///                 break;
///             }
///         }
///         Ok(())
///     }
///
///     fn apply(&mut self, rows: &mut dyn Iterator<Item = (&[u8], Option<&[u8]>)>) -> Result<()> {
///         for (key, row) in rows {
///             match row {
///                 Some(row) => drop(self.0.insert(key.to_vec(), row.to_vec())),
///                 None => drop(self.0.remove(key)),
///             }
///         }
///         Ok(())
///     }
///
///     fn clear(&mut self) -> Result<()> {
///         self.0.clear();
///         Ok(())
///     }
///
///     fn approximate_len(&self) -> u64 {
///         self.0.len() as u64
///     }
/// }
///
/// let seen = Stores::key_value("seen", Utf8, I64).with_engine(|| Box::new(Tree::default()));
/// ```
pub trait StoreEngine: Send + 'static {
    /// The row of a key.
    ///
    /// # Errors
    /// A store that cannot be read; the task ends with it.
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Shows the rows between two keys in the order of their bytes, or in the reverse order, until `each` says no.
    ///
    /// # Errors
    /// As [`get`](StoreEngine::get).
    fn scan(
        &mut self,
        keys: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()>;

    /// Writes rows and deletes others, in the order of their keys and each key once.
    ///
    /// # Errors
    /// A store that cannot be written; the changelog has the rows, and the task begins again with an empty store.
    fn apply(&mut self, rows: &mut dyn Iterator<Item = (&[u8], Option<&[u8]>)>) -> Result<()>;

    /// As [`apply`](StoreEngine::apply), for rows that are read from the changelog, up to the offset that is read next: Java's
    /// `StateRestoreCallback` and `BatchingStateRestoreCallback`. Called for each batch while the task is restored, and on
    /// standbys all the time; the last row of each key in the batch is shown, in the order of the keys. Whether a restoration
    /// begins or has ended is told by [`KafkaStreams::on_restore`](crate::KafkaStreams::on_restore).
    ///
    /// # Errors
    /// As [`apply`](StoreEngine::apply).
    fn restore(&mut self, rows: &mut dyn Iterator<Item = (&[u8], Option<&[u8]>)>, next_offset: i64) -> Result<()> {
        let _ = next_offset;
        self.apply(rows)
    }

    /// Deletes the rows between two keys: those of windows and sessions that have expired, which no read asks for any more.
    /// By default they are found with [`scan`](StoreEngine::scan) and deleted with [`apply`](StoreEngine::apply).
    ///
    /// # Errors
    /// As [`apply`](StoreEngine::apply).
    fn delete_range(&mut self, keys: (Bound<&[u8]>, Bound<&[u8]>)) -> Result<()> {
        delete_where(self, keys, &|_, _| true)
    }

    /// Forgets all rows.
    ///
    /// # Errors
    /// As [`apply`](StoreEngine::apply).
    fn clear(&mut self) -> Result<()>;

    /// About how many rows there are.
    fn approximate_len(&self) -> u64;
}

/// Deletes some of the rows between two keys, a bounded number at once.
fn delete_where<E: StoreEngine + ?Sized>(
    engine: &mut E,
    (from, to): (Bound<&[u8]>, Bound<&[u8]>),
    is_chosen: &dyn Fn(&[u8], &[u8]) -> bool,
) -> Result<()> {
    let mut from = from.map(<[u8]>::to_vec);
    loop {
        let mut chosen: Vec<Vec<u8>> = Vec::new();
        engine.scan((from.as_ref().map(Vec::as_slice), to), false, &mut |key, row| {
            if is_chosen(key, row) {
                chosen.push(key.to_vec());
            }
            chosen.len() < EXPIRED_ROWS_MAX
        })?;
        engine.apply(&mut chosen.iter().map(|key| (key.as_slice(), None)))?;
        match chosen.pop() {
            Some(last) if chosen.len() + 1 == EXPIRED_ROWS_MAX => from = Bound::Excluded(last),
            Some(_) | None => return Ok(()),
        }
    }
}

/// Makes an engine for each task.
#[derive(Clone)]
pub(crate) struct MakeEngine(pub Arc<dyn Fn() -> Box<dyn StoreEngine> + Send + Sync>);

impl PartialEq for MakeEngine {
    fn eq(&self, other: &MakeEngine) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for MakeEngine {}

impl fmt::Debug for MakeEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MakeEngine")
    }
}

/// An engine of the user's, with the changelog offset that its rows correspond to.
pub(super) struct CustomEngine {
    rows: Box<dyn StoreEngine>,
    pub(super) offset: Option<i64>,
}

impl CustomEngine {
    pub(super) fn make(make: &MakeEngine) -> CustomEngine {
        CustomEngine { rows: (make.0)(), offset: None }
    }

    pub(super) fn get(&mut self, key: &[u8], row: &mut Vec<u8>) -> Result<bool> {
        let found = self.rows.get(key)?;
        row.extend_from_slice(found.as_deref().unwrap_or_default());
        Ok(found.is_some())
    }

    pub(super) fn scan(
        &mut self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        mut each: impl FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<()> {
        let reverse = direction == Direction::Backward;
        self.rows.scan((from, to), reverse, &mut |key, row| each(key, row) == Scan::Next)
    }

    pub(super) fn apply<'a>(
        &mut self,
        mut rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        next_offset: Option<i64>,
    ) -> Result<()> {
        self.rows.apply(&mut rows)?;
        self.offset = next_offset.or(self.offset);
        Ok(())
    }

    pub(super) fn restore<'a>(
        &mut self,
        mut rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        next_offset: i64,
    ) -> Result<()> {
        self.rows.restore(&mut rows, next_offset)?;
        self.offset = Some(next_offset);
        Ok(())
    }

    /// Clears rows away that no read shows.
    pub(super) fn clear(&mut self, expired: Expired) -> Result<()> {
        match expired {
            Expired::Before(first) => self.rows.delete_range((Bound::Unbounded, Bound::Excluded(&first[..]))),
            Expired::Versions(horizon) => {
                let all = (Bound::Unbounded, Bound::Unbounded);
                delete_where(&mut *self.rows, all, &|key, row| has_expired(key, row, horizon))
            }
        }
    }

    pub(super) fn wipe(&mut self) -> Result<()> {
        self.offset = None;
        self.rows.clear()
    }

    pub(super) fn approximate_len(&self) -> u64 {
        self.rows.approximate_len()
    }
}

impl fmt::Debug for CustomEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomEngine").field("offset", &self.offset).finish_non_exhaustive()
    }
}
