//! Rows of windowed stores over a span of time, read in pages.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use super::store::{PAGE, StoreContext};
use super::task_stores::TaskStores;
use super::windowed_keys::{Parts, Tail, WindowedKeys};
use crate::error::{Error, Result};
use crate::serdes::DynSerde;
use crate::window::{Window, Windowed};

/// What a read of a windowed store is after.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) keys: KeyRange,
    /// Rows whose time is in here, both ends included.
    pub(super) times: (i64, i64),
    /// The largest start of a session.
    pub(super) start_max: i64,
    pub(super) reverse: bool,
}

#[derive(Debug)]
pub(super) enum KeyRange {
    One(Vec<u8>),
    Range(Bound<Vec<u8>>, Bound<Vec<u8>>),
}

impl KeyRange {
    pub(super) const ALL: KeyRange = KeyRange::Range(Bound::Unbounded, Bound::Unbounded);

    fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::One(one) => one == key,
            KeyRange::Range(from, to) => {
                let is_behind_start = match from {
                    Bound::Included(from) => key >= from.as_slice(),
                    Bound::Excluded(from) => key > from.as_slice(),
                    Bound::Unbounded => true,
                };
                is_behind_start
                    && match to {
                        Bound::Included(to) => key <= to.as_slice(),
                        Bound::Excluded(to) => key < to.as_slice(),
                        Bound::Unbounded => true,
                    }
            }
        }
    }
}

type ByteRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Rows of a query as bytes, in the order of the store.
#[derive(Debug)]
pub(super) struct Scan {
    index: usize,
    layout: WindowedKeys,
    query: Query,
    /// Rows of one key that are known and left to be read by their names, behind all others; none: not begun.
    known: Option<std::vec::IntoIter<(i64, i64)>>,
    row_key: Vec<u8>,
    /// Rows of this time and later are among them.
    known_from: i64,
    /// Prefixes that are left; none: not begun.
    prefixes: Option<(i64, i64)>,
    /// What is left of the range that is being read.
    range: Option<ByteRange>,
    page: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
}

/// More prefixes than these are looked for instead of being tried one after the other.
const PREFIXES_TRIED_MAX: i64 = 8;

impl Scan {
    pub(super) fn new(index: usize, layout: WindowedKeys, query: Query) -> Scan {
        let page = Vec::new().into_iter();
        let (known, row_key, known_from) = (None, Vec::new(), i64::MAX);
        Scan { index, layout, query, known, row_key, known_from, prefixes: None, range: None, page }
    }

    /// The next row, by its key.
    pub(super) fn next(&mut self, stores: &mut TaskStores) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        if self.known.is_none() {
            self.known = Some(self.find_known(stores)?);
        }
        if self.query.reverse
            && let Some(row) = self.next_known(stores)?
        {
            return Ok(Some(row));
        }
        match self.next_read(stores)? {
            Some(row) => Ok(Some(row)),
            None => self.next_known(stores),
        }
    }

    /// Asks which rows are known.
    fn find_known(&mut self, stores: &mut TaskStores) -> Result<std::vec::IntoIter<(i64, i64)>> {
        let mut names = Vec::new();
        if let KeyRange::One(key) = &self.query.keys {
            self.known_from = stores.known_rows(self.index, key, self.query.times, &mut names)?;
        }
        Ok(names.into_iter())
    }

    /// The next row that is known.
    fn next_known(&mut self, stores: &mut TaskStores) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let (Some(known), KeyRange::One(key)) = (&mut self.known, &self.query.keys) else { return Ok(None) };
        let (is_session, start_max) = (self.layout.tail == Tail::Start, self.query.start_max);
        while let Some((time, tail)) = if self.query.reverse { known.next_back() } else { known.next() } {
            if is_session && tail > start_max {
                continue;
            }
            self.layout.encode(Parts { key, time, tail }, &mut self.row_key);
            if let Some(value) = stores.get(self.index, &self.row_key)? {
                return Ok(Some((self.row_key.clone(), value.to_vec())));
            }
        }
        Ok(None)
    }

    /// The next row of those that are not known.
    fn next_read(&mut self, stores: &mut TaskStores) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        loop {
            while let Some((key, value)) = self.page.next() {
                if let Some(parts) = self.layout.decode(&key)
                    && self.matches(parts)
                {
                    return Ok(Some((key, value)));
                }
            }
            if let Some((from, to)) = self.range.take() {
                let reverse = self.query.reverse;
                let page = stores.page(self.index, slice(&from), slice(&to), reverse, PAGE)?;
                if page.len() == PAGE
                    && let Some((last, _)) = page.last()
                {
                    let rest = Bound::Excluded(last.clone());
                    self.range = Some(if reverse { (from, rest) } else { (rest, to) });
                }
                self.page = page.into_iter();
                continue;
            }
            if !self.next_range(stores)? {
                return Ok(None);
            }
        }
    }

    fn matches(&self, Parts { key, time, tail }: Parts<'_>) -> bool {
        let (from, to) = self.query.times;
        let starts = self.layout.tail != Tail::Start || tail <= self.query.start_max;
        (from..=to).contains(&time) && starts && self.query.keys.contains(key)
    }

    /// Finds the next range that may have rows; whether there is one.
    fn next_range(&mut self, stores: &mut TaskStores) -> Result<bool> {
        let (from, mut to) = self.query.times;
        if matches!(self.query.keys, KeyRange::One(_)) {
            to = to.min(self.known_from.saturating_sub(1));
        }
        let (first, last) = match self.prefixes {
            Some(prefixes) => prefixes,
            None => {
                let (first, last) = stores.prefixes(self.index);
                let wanted = (self.layout.prefix(from.max(0)), self.layout.prefix(to));
                if from > to || to < 0 { (0, -1) } else { (first.max(wanted.0), last.min(wanted.1)) }
            }
        };
        if first > last {
            self.prefixes = Some((0, -1));
            return Ok(false);
        }
        let KeyRange::One(key) = &self.query.keys else {
            self.prefixes = Some((0, -1));
            self.range = Some((Bound::Included(start_of(first)), end_of(last)));
            return Ok(true);
        };
        let reverse = self.query.reverse;
        let mut prefix = if reverse { last } else { first };
        if last - first >= PREFIXES_TRIED_MAX {
            let (start, end) = (start_of(first), end_of(last));
            let row = stores.page(self.index, Bound::Included(&start), slice(&end), reverse, 1)?;
            let found = row.first().and_then(|(key, _)| key.first_chunk());
            let Some(found) = found.copied().map(i64::from_be_bytes) else {
                self.prefixes = Some((0, -1));
                return Ok(false);
            };
            prefix = found.clamp(first, last);
        }
        self.prefixes = Some(if reverse { (first, prefix - 1) } else { (prefix + 1, last) });
        let (start, end) = self.layout.range(prefix, key, (from.max(0), to));
        self.range = Some((Bound::Included(start), Bound::Included(end)));
        Ok(true)
    }
}

fn start_of(prefix: i64) -> Vec<u8> {
    prefix.to_be_bytes().to_vec()
}

fn end_of(prefix: i64) -> Bound<Vec<u8>> {
    prefix.checked_add(1).map_or(Bound::Unbounded, |next| Bound::Excluded(start_of(next)))
}

fn slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// Rows of one key in the order of their windows (start in ms, value), read in pages: the store may be written between two
/// of them, and nothing has to be closed.
pub struct WindowValues<V> {
    pub(super) scan: Scan,
    pub(super) value: DynSerde<V>,
}

impl<V: 'static> WindowValues<V> {
    /// The next row.
    ///
    /// # Errors
    /// A row that the serde refuses, or a store that cannot be read.
    pub fn next(&mut self, ctx: &mut impl StoreContext) -> Result<Option<(i64, V)>> {
        let Some((key, value)) = self.scan.next(ctx.stores().0)? else { return Ok(None) };
        let start = self.scan.layout.time(&key).ok_or_else(short_key)?;
        Ok(Some((start, self.value.deserialize(&value)?)))
    }

    /// All rows that are left. For windows that are known to be few.
    ///
    /// # Errors
    /// As [`next`](WindowValues::next).
    pub fn collect(mut self, ctx: &mut impl StoreContext) -> Result<Vec<(i64, V)>> {
        let mut rows = Vec::new();
        while let Some(row) = self.next(ctx)? {
            rows.push(row);
        }
        Ok(rows)
    }
}

impl<V> fmt::Debug for WindowValues<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowValues").field("query", &self.scan.query).finish_non_exhaustive()
    }
}

/// Rows of a window or session store, each with its key and window, read in pages: the store may be written between two of
/// them, and nothing has to be closed.
pub struct WindowRows<K, V> {
    pub(super) scan: Scan,
    pub(super) decode: WindowedKey<K>,
    pub(super) value: DynSerde<V>,
}

impl<K: 'static, V: 'static> WindowRows<K, V> {
    /// The next row.
    ///
    /// # Errors
    /// A row that the serde refuses, or a store that cannot be read.
    pub fn next(&mut self, ctx: &mut impl StoreContext) -> Result<Option<(Windowed<K>, V)>> {
        let Some((key, value)) = self.scan.next(ctx.stores().0)? else { return Ok(None) };
        Ok(Some((self.decode.read(&key)?, self.value.deserialize(&value)?)))
    }

    /// All rows that are left. For stores that are known to be small.
    ///
    /// # Errors
    /// As [`next`](WindowRows::next).
    pub fn collect(mut self, ctx: &mut impl StoreContext) -> Result<Vec<(Windowed<K>, V)>> {
        let mut rows = Vec::new();
        while let Some(row) = self.next(ctx)? {
            rows.push(row);
        }
        Ok(rows)
    }
}

impl<K, V> fmt::Debug for WindowRows<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowRows").field("query", &self.scan.query).finish_non_exhaustive()
    }
}

/// Reads the key of a row as key and window.
pub(crate) struct WindowedKey<K> {
    pub(super) key: DynSerde<K>,
    pub(super) layout: WindowedKeys,
    /// From the start of a window to its end; sessions know theirs.
    pub(super) window_ms: i64,
}

impl<K: 'static> WindowedKey<K> {
    pub(crate) fn read(&self, row: &[u8]) -> Result<Windowed<K>> {
        let Parts { key, time, tail } = self.layout.decode(row).ok_or_else(short_key)?;
        let window = match self.layout.tail {
            Tail::Start => Window { start: tail, end: time },
            Tail::None | Tail::Sequence => Window { start: time, end: time.saturating_add(self.window_ms) },
        };
        Ok(Windowed { key: self.key.deserialize(key)?, window })
    }
}

impl<K> Clone for WindowedKey<K> {
    fn clone(&self) -> Self {
        WindowedKey { key: Arc::clone(&self.key), layout: self.layout, window_ms: self.window_ms }
    }
}

#[cold]
fn short_key() -> Error {
    Error::corrupted("the key of a windowed row is too short")
}
