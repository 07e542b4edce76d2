//! The queries of Kafka Streams (KIP-796, 805, 806, 960, 968, 969, 985, 992), by Java's names.
//!
//! All of them read what is committed, below every cache: Java's `skipCache` has nothing to do here.

use std::ops::Bound;

use super::iter::QueryIter;
use super::request::Query;
use super::store::QueryableStore;
use crate::error::{Error, Result};
use crate::record::ValueAndTimestamp;
use crate::state::{
    KeyValueStore, SessionStore, TimestampedKeyValueStore, VersionedKeyValueStore, VersionedRecord, WindowStore,
};
use crate::window::Windowed;

/// The value of a key, of a key-value store of any kind.
#[derive(Debug, Clone)]
pub struct KeyQuery<K> {
    key: K,
}

/// The value of a key and its timestamp: of a store that is seen as a timestamped one.
#[derive(Debug, Clone)]
pub struct TimestampedKeyQuery<K> {
    key: K,
}

/// The rows of a key-value store from one key to another, both included, in the order of their bytes.
#[derive(Debug, Clone)]
#[must_use]
pub struct RangeQuery<K> {
    lower: Bound<K>,
    upper: Bound<K>,
    order: Order,
}

/// The same with timestamps: of a store that is seen as a timestamped one.
#[derive(Debug, Clone)]
#[must_use]
pub struct TimestampedRangeQuery<K> {
    range: RangeQuery<K>,
}

/// The rows of a key of a window store by the starts of their windows (ms).
#[derive(Debug, Clone)]
pub struct WindowKeyQuery<K> {
    key: K,
    span: (i64, i64),
}

/// The sessions of a key of a session store, or the rows of all keys of a window store by the starts of their windows.
#[derive(Debug, Clone)]
pub struct WindowRangeQuery<K> {
    rows: WindowRange<K>,
}

#[derive(Debug, Clone)]
enum WindowRange<K> {
    Key(K),
    Starts(i64, i64),
}

/// The version of a key that is valid at a time, or the newest (KIP-960).
#[derive(Debug, Clone)]
#[must_use]
pub struct VersionedKeyQuery<K> {
    key: K,
    as_of: Option<i64>,
}

/// The versions of a key that are valid somewhere in a span of time (KIP-968), newest first unless it is told otherwise.
#[derive(Debug, Clone)]
#[must_use]
pub struct MultiVersionedKeyQuery<K> {
    key: K,
    span: (i64, i64),
    order: Order,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
}

/// More versions are not turned round.
const VERSIONS_ASCENDING_MAX: usize = 10_000;

impl<K> KeyQuery<K> {
    /// The key.
    pub fn with_key(key: K) -> KeyQuery<K> {
        KeyQuery { key }
    }
}

impl<K: 'static, V: 'static> Query<KeyValueStore<K, V>> for KeyQuery<K> {
    type Answer = Option<V>;

    fn ask(&self, store: &QueryableStore<KeyValueStore<K, V>>) -> Result<Option<V>> {
        store.get(&self.key)
    }
    fn is_nothing(&self, answer: &Option<V>) -> bool {
        answer.is_none()
    }
}

impl<K> TimestampedKeyQuery<K> {
    /// The key.
    pub fn with_key(key: K) -> TimestampedKeyQuery<K> {
        TimestampedKeyQuery { key }
    }
}

impl<K: 'static, V: 'static> Query<TimestampedKeyValueStore<K, V>> for TimestampedKeyQuery<K> {
    type Answer = Option<ValueAndTimestamp<V>>;

    fn ask(&self, store: &QueryableStore<TimestampedKeyValueStore<K, V>>) -> Result<Self::Answer> {
        store.get(&self.key)
    }
    fn is_nothing(&self, answer: &Self::Answer) -> bool {
        answer.is_none()
    }
}

impl<K> RangeQuery<K> {
    /// From a key to a key.
    pub fn with_range(lower: K, upper: K) -> RangeQuery<K> {
        RangeQuery { lower: Bound::Included(lower), upper: Bound::Included(upper), order: Order::Ascending }
    }

    /// From a key on.
    pub fn with_lower_bound(lower: K) -> RangeQuery<K> {
        RangeQuery { lower: Bound::Included(lower), ..RangeQuery::with_no_bounds() }
    }

    /// Up to a key.
    pub fn with_upper_bound(upper: K) -> RangeQuery<K> {
        RangeQuery { upper: Bound::Included(upper), ..RangeQuery::with_no_bounds() }
    }

    /// All rows.
    pub fn with_no_bounds() -> RangeQuery<K> {
        RangeQuery { lower: Bound::Unbounded, upper: Bound::Unbounded, order: Order::Ascending }
    }

    /// First key first, which is the default.
    pub fn with_ascending_keys(self) -> RangeQuery<K> {
        RangeQuery { order: Order::Ascending, ..self }
    }

    /// Last key first (KIP-985).
    pub fn with_descending_keys(self) -> RangeQuery<K> {
        RangeQuery { order: Order::Descending, ..self }
    }
}

impl<K: 'static, V: 'static> Query<KeyValueStore<K, V>> for RangeQuery<K> {
    type Answer = QueryIter<(K, V)>;

    fn ask(&self, store: &QueryableStore<KeyValueStore<K, V>>) -> Result<Self::Answer> {
        let range = (self.lower.as_ref(), self.upper.as_ref());
        match self.order {
            Order::Ascending => store.range(range),
            Order::Descending => store.reverse_range(range),
        }
    }
}

impl<K> TimestampedRangeQuery<K> {
    /// From a key to a key.
    pub fn with_range(lower: K, upper: K) -> TimestampedRangeQuery<K> {
        TimestampedRangeQuery { range: RangeQuery::with_range(lower, upper) }
    }

    /// From a key on.
    pub fn with_lower_bound(lower: K) -> TimestampedRangeQuery<K> {
        TimestampedRangeQuery { range: RangeQuery::with_lower_bound(lower) }
    }

    /// Up to a key.
    pub fn with_upper_bound(upper: K) -> TimestampedRangeQuery<K> {
        TimestampedRangeQuery { range: RangeQuery::with_upper_bound(upper) }
    }

    /// All rows.
    pub fn with_no_bounds() -> TimestampedRangeQuery<K> {
        TimestampedRangeQuery { range: RangeQuery::with_no_bounds() }
    }

    /// First key first, which is the default.
    pub fn with_ascending_keys(self) -> TimestampedRangeQuery<K> {
        TimestampedRangeQuery { range: self.range.with_ascending_keys() }
    }

    /// Last key first.
    pub fn with_descending_keys(self) -> TimestampedRangeQuery<K> {
        TimestampedRangeQuery { range: self.range.with_descending_keys() }
    }
}

impl<K: 'static, V: 'static> Query<TimestampedKeyValueStore<K, V>> for TimestampedRangeQuery<K> {
    type Answer = QueryIter<(K, ValueAndTimestamp<V>)>;

    fn ask(&self, store: &QueryableStore<TimestampedKeyValueStore<K, V>>) -> Result<Self::Answer> {
        self.range.ask(store)
    }
}

impl<K> WindowKeyQuery<K> {
    /// A key, and the starts of its windows (ms), both ends included.
    pub fn with_key_and_window_start_range(key: K, from: i64, to: i64) -> WindowKeyQuery<K> {
        WindowKeyQuery { key, span: (from, to) }
    }
}

impl<K: 'static, V: 'static> Query<WindowStore<K, V>> for WindowKeyQuery<K> {
    type Answer = QueryIter<(i64, V)>;

    fn ask(&self, store: &QueryableStore<WindowStore<K, V>>) -> Result<Self::Answer> {
        store.fetch_range(&self.key, self.span.0, self.span.1)
    }
}

impl<K> WindowRangeQuery<K> {
    /// The sessions of a key.
    pub fn with_key(key: K) -> WindowRangeQuery<K> {
        WindowRangeQuery { rows: WindowRange::Key(key) }
    }

    /// All keys, and the starts of their windows (ms), both ends included.
    pub fn with_window_start_range(from: i64, to: i64) -> WindowRangeQuery<K> {
        WindowRangeQuery { rows: WindowRange::Starts(from, to) }
    }
}

impl<K: 'static, V: 'static> Query<WindowStore<K, V>> for WindowRangeQuery<K> {
    type Answer = QueryIter<(Windowed<K>, V)>;

    fn ask(&self, store: &QueryableStore<WindowStore<K, V>>) -> Result<Self::Answer> {
        match self.rows {
            WindowRange::Starts(from, to) => store.fetch_all(from, to),
            // As in Java.
            WindowRange::Key(_) => Err(Error::invalid(format!(
                "window store {} is not asked for a key by WindowRangeQuery: use WindowKeyQuery",
                store.name()
            ))),
        }
    }
}

impl<K: 'static, A: 'static> Query<SessionStore<K, A>> for WindowRangeQuery<K> {
    type Answer = QueryIter<(Windowed<K>, A)>;

    fn ask(&self, store: &QueryableStore<SessionStore<K, A>>) -> Result<Self::Answer> {
        match &self.rows {
            WindowRange::Key(key) => store.fetch(key),
            // As in Java.
            WindowRange::Starts(..) => Err(Error::invalid(format!(
                "session store {} is not asked for starts of windows: use WindowRangeQuery::with_key",
                store.name()
            ))),
        }
    }
}

impl<K> VersionedKeyQuery<K> {
    /// The newest version of a key.
    pub fn with_key(key: K) -> VersionedKeyQuery<K> {
        VersionedKeyQuery { key, as_of: None }
    }

    /// The one that is valid at a time (ms).
    pub fn as_of(self, time: i64) -> VersionedKeyQuery<K> {
        VersionedKeyQuery { as_of: Some(time), ..self }
    }
}

impl<K: 'static, V: 'static> Query<VersionedKeyValueStore<K, V>> for VersionedKeyQuery<K> {
    type Answer = Option<VersionedRecord<V>>;

    fn ask(&self, store: &QueryableStore<VersionedKeyValueStore<K, V>>) -> Result<Self::Answer> {
        match self.as_of {
            Some(time) => store.get_as_of(&self.key, time),
            None => store.get(&self.key),
        }
    }
    fn is_nothing(&self, answer: &Self::Answer) -> bool {
        answer.is_none()
    }
}

impl<K> MultiVersionedKeyQuery<K> {
    /// All versions of a key.
    pub fn with_key(key: K) -> MultiVersionedKeyQuery<K> {
        MultiVersionedKeyQuery { key, span: (i64::MIN, i64::MAX), order: Order::Descending }
    }

    /// Those that are valid at this time (ms) or later.
    pub fn from_time(self, from: i64) -> MultiVersionedKeyQuery<K> {
        MultiVersionedKeyQuery { span: (from, self.span.1), ..self }
    }

    /// Those that are valid at this time (ms) or earlier.
    pub fn to_time(self, to: i64) -> MultiVersionedKeyQuery<K> {
        MultiVersionedKeyQuery { span: (self.span.0, to), ..self }
    }

    /// Oldest first, of 10,000 versions at most.
    pub fn with_ascending_timestamps(self) -> MultiVersionedKeyQuery<K> {
        MultiVersionedKeyQuery { order: Order::Ascending, ..self }
    }

    /// Newest first, which is the default.
    pub fn with_descending_timestamps(self) -> MultiVersionedKeyQuery<K> {
        MultiVersionedKeyQuery { order: Order::Descending, ..self }
    }
}

impl<K: 'static, V: 'static> Query<VersionedKeyValueStore<K, V>> for MultiVersionedKeyQuery<K> {
    type Answer = QueryIter<VersionedRecord<V>>;

    fn ask(&self, store: &QueryableStore<VersionedKeyValueStore<K, V>>) -> Result<Self::Answer> {
        let newest_first = store.versions(&self.key, self.span.0, self.span.1)?;
        if self.order == Order::Descending {
            return Ok(newest_first);
        }
        let mut versions = newest_first.take(VERSIONS_ASCENDING_MAX + 1).collect::<Result<Vec<_>>>()?;
        if versions.len() > VERSIONS_ASCENDING_MAX {
            return Err(Error::invalid(format!(
                "a key of store {} has more than {VERSIONS_ASCENDING_MAX} versions: ask newest first, or for less time",
                store.name()
            )));
        }
        versions.reverse();
        Ok(QueryIter::of(versions))
    }
}
