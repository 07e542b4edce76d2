use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::operators::KeySelector;
use crate::serdes::{DynSerde, Serde};

/// How a join of a stream with a table writes and reads the repartition topic of its stream, and which keys and values are
/// null.
pub struct Joined<K, V> {
    pub(super) key: DynSerde<K>,
    pub(super) value: DynSerde<V>,
    pub(super) name: Option<String>,
    pub(super) grace: Option<Duration>,
    pub(super) as_of: Option<KeySelector<K, V, i64>>,
}

impl<K: 'static, V: 'static> Joined<K, V> {
    /// With these serdes.
    pub fn with(key: impl Serde<Item = K>, value: impl Serde<Item = V>) -> Joined<K, V> {
        Joined { key: Arc::new(key), value: Arc::new(value), name: None, grace: None, as_of: None }
    }

    /// Names the join and its repartition topic, `<application>-<name>-repartition`.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Joined { name: Some(name.to_owned()), ..self }
    }

    /// Lets each record of the stream wait until the stream's time is this much ahead of it, so that the table can catch up
    /// (KIP-923). Records are then joined in the order of their timestamps, each with the row as it was at its time; one
    /// that comes later than this is joined at once. While no record comes, none is joined.
    ///
    /// The table must be [versioned](crate::Materialized::as_versioned), with a history of at least this length. The records
    /// wait in a store, `<join>-Buffer`, which has a changelog. One with a null key is an error.
    #[must_use]
    pub fn with_grace_period(self, grace: Duration) -> Self {
        Joined { grace: Some(grace), ..self }
    }

    /// Looks the row up as it was at a time (ms) that the record tells, instead of the record's own time: the price when
    /// the order was made, for a record of its payment. Kafka Streams has no such join.
    ///
    /// The table must be [versioned](crate::Materialized::as_versioned), with a history that reaches back to that time;
    /// before it nothing is found.
    ///
    /// ```
    /// # use kstreams::*;
    /// # use std::time::Duration;
    /// let builder = StreamsBuilder::new();
    /// let week = Duration::from_secs(7 * 86_400);
    /// let prices = builder.table("prices", Consumed::with(Utf8, F64), Materialized::named("prices").as_versioned(week));
    /// builder
    ///     .stream("payments", Consumed::with(Utf8, Json::<(i64, u32)>::new()))
    ///     .join(
    ///         &prices,
    ///         |(_ordered_at, pieces), price| price * f64::from(pieces),
    ///         Joined::with(Utf8, Json::new()).as_of(|_article, (ordered_at, _pieces)| *ordered_at),
    ///     )
    ///     .to("to-pay", Produced::with(Utf8, F64));
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn as_of(self, time: impl Fn(&K, &V) -> i64 + Send + Sync + 'static) -> Self {
        Joined { as_of: Some(Arc::new(time)), ..self }
    }
}

impl<K, V> Clone for Joined<K, V> {
    fn clone(&self) -> Self {
        let (key, value) = (Arc::clone(&self.key), Arc::clone(&self.value));
        let as_of = self.as_of.as_ref().map(Arc::clone);
        Joined { key, value, name: self.name.clone(), grace: self.grace, as_of }
    }
}

impl<K, V> fmt::Debug for Joined<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joined").field("name", &self.name).field("grace", &self.grace).finish_non_exhaustive()
    }
}
