//! The one merge: rows that the cache holds back, above uncommitted rows, above committed ones.

use std::ops::Bound;

use super::engine::{Engine, Scan};
use crate::error::Result;

/// Which way a range is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

impl Direction {
    pub(super) fn of(reverse: bool) -> Direction {
        if reverse { Direction::Backward } else { Direction::Forward }
    }

    /// The next item of an iterator that runs forward.
    pub(super) fn next<I: DoubleEndedIterator>(self, rows: &mut I) -> Option<I::Item> {
        match self {
            Direction::Forward => rows.next(),
            Direction::Backward => rows.next_back(),
        }
    }

    fn is_before(self, a: &[u8], b: &[u8]) -> bool {
        match self {
            Direction::Forward => a < b,
            Direction::Backward => a > b,
        }
    }
}

/// A row of an upper layer; without a value it hides the row below.
type Upper<'a> = (&'a [u8], Option<&'a [u8]>);

/// One upper layer, looked at one row ahead.
struct Layer<I: Iterator> {
    direction: Direction,
    rows: I,
    head: Option<I::Item>,
}

impl<'a, I: DoubleEndedIterator<Item = Upper<'a>>> Layer<I> {
    fn new(mut rows: I, direction: Direction) -> Self {
        let head = direction.next(&mut rows);
        Layer { direction, rows, head }
    }

    fn take(&mut self) -> Option<Upper<'a>> {
        let next = self.direction.next(&mut self.rows);
        std::mem::replace(&mut self.head, next)
    }
}

/// The range of an engine, read in one direction, with a bound on the rows.
pub(super) struct Page<'a> {
    pub(super) from: Bound<&'a [u8]>,
    pub(super) to: Bound<&'a [u8]>,
    pub(super) direction: Direction,
    pub(super) limit: usize,
}

pub(super) type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// The rows of a page as a task sees them; `cache` hides `buffer`, and both hide the engine, of which only some rows may
/// be shown.
pub(super) fn merge<'a>(
    cache: impl DoubleEndedIterator<Item = Upper<'a>>,
    buffer: impl DoubleEndedIterator<Item = Upper<'a>>,
    engine: &mut Engine,
    page: &Page<'_>,
    shows: impl Fn(&[u8]) -> bool,
) -> Result<Rows> {
    let &Page { from, to, direction, limit } = page;
    let (mut cache, mut buffer) = (Layer::new(cache, direction), Layer::new(buffer, direction));
    let mut rows = Rows::new();
    if limit == 0 {
        return Ok(rows);
    }
    engine.scan(from, to, direction, |key, row| {
        while let Some((upper, value)) = next_upper(&mut cache, &mut buffer, Some(key)) {
            if let Some(value) = value {
                rows.push((upper.to_vec(), value.to_vec()));
            }
            if upper == key {
                return if rows.len() < limit { Scan::Next } else { Scan::Enough };
            }
            if rows.len() >= limit {
                return Scan::Enough;
            }
        }
        if shows(key) {
            rows.push((key.to_vec(), row.to_vec()));
        }
        if rows.len() < limit { Scan::Next } else { Scan::Enough }
    })?;
    while rows.len() < limit {
        let Some((upper, value)) = next_upper(&mut cache, &mut buffer, None) else { break };
        rows.extend(value.map(|value| (upper.to_vec(), value.to_vec())));
    }
    Ok(rows)
}

/// The next row of the upper layers that does not come behind `limit`.
fn next_upper<'a>(
    cache: &mut Layer<impl DoubleEndedIterator<Item = Upper<'a>>>,
    buffer: &mut Layer<impl DoubleEndedIterator<Item = Upper<'a>>>,
    limit: Option<&[u8]>,
) -> Option<Upper<'a>> {
    let direction = cache.direction;
    let is_due =
        |head: Option<Upper<'a>>| head.is_some_and(|(key, _)| limit.is_none_or(|l| !direction.is_before(l, key)));
    match (cache.head, buffer.head) {
        (Some((upper, _)), Some((lower, _))) if direction.is_before(lower, upper) => {
            if is_due(buffer.head) {
                buffer.take()
            } else {
                None
            }
        }
        (Some((upper, _)), lower) => {
            if !is_due(cache.head) {
                return None;
            }
            if lower.is_some_and(|(lower, _)| lower == upper) {
                buffer.take();
            }
            cache.take()
        }
        (None, _) => {
            if is_due(buffer.head) {
                buffer.take()
            } else {
                None
            }
        }
    }
}

/// Whether a key can lie in the range; an ordered map refuses one that is turned around.
pub(super) fn is_empty_range(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
