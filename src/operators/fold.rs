//! What an aggregation does with the records of a key, however they are grouped.

use std::sync::Arc;

use super::{Aggregator, Initializer};

/// A row to begin with, and how a record changes it.
pub(crate) struct Fold<K, V, A> {
    /// None: the first record does.
    pub initializer: Option<Initializer<A>>,
    pub aggregator: Aggregator<K, V, A>,
}

impl<K, V> Fold<K, V, i64> {
    /// Counts records.
    pub(crate) fn count() -> Self {
        Fold { initializer: Some(Arc::new(|| 0)), aggregator: Arc::new(|_, _, count| Some(count? + 1)) }
    }
}

impl<K, V> Fold<K, V, V> {
    /// Combines values, beginning with the first one.
    pub(crate) fn reduce<R: Into<Option<V>>>(reducer: impl Fn(V, V) -> R + Send + Sync + 'static) -> Self {
        let aggregator = move |_: &K, value, row| match row {
            Some(row) => reducer(row, value).into(),
            None => Some(value),
        };
        Fold { initializer: None, aggregator: Arc::new(aggregator) }
    }
}

impl<K, V, A> Fold<K, V, A> {
    /// Folds values into a row of another type.
    pub(crate) fn aggregate<R: Into<Option<A>>>(
        initializer: impl Fn() -> A + Send + Sync + 'static,
        aggregator: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
    ) -> Self {
        // Without a row before there is always what it begins with: the operator sees to it.
        let aggregator = move |key: &K, value, row: Option<A>| aggregator(key, value, row?).into();
        Fold { initializer: Some(Arc::new(initializer)), aggregator: Arc::new(aggregator) }
    }
}
