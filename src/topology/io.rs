//! How topics are read and written: what a source and a sink are told.

use std::fmt;
use std::sync::Arc;

use crate::record::{Headers, RecordMetadata};
use crate::serdes::{DynSerde, Nullable, Serde};
use crate::state::Readable;

/// A record as a timestamp extractor sees it.
#[derive(Debug)]
pub struct Incoming<'a, K, V> {
    /// The key.
    pub key: &'a K,
    /// The value.
    pub value: &'a V,
    /// The record's own timestamp (ms); negative: it has none.
    pub timestamp: i64,
    /// Where it was read from.
    pub metadata: RecordMetadata<'a>,
    /// The headers.
    pub headers: &'a Headers,
    /// The highest timestamp (ms) of the partition so far; -1 when it is not known.
    pub partition_time: i64,
}

type Extract<K, V> = Arc<dyn Fn(&Incoming<'_, K, V>) -> i64 + Send + Sync>;

/// Where a record's time comes from. Asked once per record, when the record becomes the next of its partition.
pub struct TimestampExtractor<K, V>(pub(crate) Extracted<K, V>);

pub(crate) enum Extracted<K, V> {
    Record(OnInvalid),
    WallClock,
    Custom(Extract<K, V>),
}

/// What to do with a record whose timestamp is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnInvalid {
    Fail,
    Skip,
    UsePartitionTime,
}

impl<K, V> TimestampExtractor<K, V> {
    /// The record's own timestamp; a negative one fails the task. The default.
    pub fn fail_on_invalid() -> Self {
        TimestampExtractor(Extracted::Record(OnInvalid::Fail))
    }

    /// The record's own timestamp; a record with a negative one is dropped, counted and logged.
    pub fn log_and_skip_on_invalid() -> Self {
        TimestampExtractor(Extracted::Record(OnInvalid::Skip))
    }

    /// The record's own timestamp; instead of a negative one the highest of its partition so far, if there is one.
    pub fn use_partition_time_on_invalid() -> Self {
        TimestampExtractor(Extracted::Record(OnInvalid::UsePartitionTime))
    }

    /// The time of the machine.
    pub fn wall_clock() -> Self {
        TimestampExtractor(Extracted::WallClock)
    }

    /// A time (ms) from the record, such as a field of its value. A record with a negative one is dropped, counted and
    /// logged.
    pub fn of(extract: impl Fn(&Incoming<'_, K, V>) -> i64 + Send + Sync + 'static) -> Self {
        TimestampExtractor(Extracted::Custom(Arc::new(extract)))
    }
}

impl<K, V> Default for TimestampExtractor<K, V> {
    fn default() -> Self {
        TimestampExtractor::fail_on_invalid()
    }
}

impl<K, V> Clone for TimestampExtractor<K, V> {
    fn clone(&self) -> Self {
        TimestampExtractor(match &self.0 {
            Extracted::Record(on_invalid) => Extracted::Record(*on_invalid),
            Extracted::WallClock => Extracted::WallClock,
            Extracted::Custom(extract) => Extracted::Custom(Arc::clone(extract)),
        })
    }
}

impl<K, V> fmt::Debug for TimestampExtractor<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimestampExtractor")
    }
}

/// Where reading a topic begins when nothing is committed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OffsetReset {
    /// With the oldest record.
    Earliest,
    /// With records written from now on.
    Latest,
    /// With the first record that is at most this old.
    ByDuration(std::time::Duration),
    /// Nowhere: the start fails.
    None,
}

/// How a topic is read.
pub struct Consumed<K, V> {
    pub(crate) key: DynSerde<K>,
    pub(crate) value: DynSerde<V>,
    pub(crate) extractor: TimestampExtractor<K, V>,
    pub(crate) reset: Option<OffsetReset>,
    pub(crate) name: Option<String>,
}

impl<K: 'static, V: 'static> Consumed<K, V> {
    /// Reads keys and values with these serdes.
    pub fn with(key: impl Serde<Item = K>, value: impl Serde<Item = V>) -> Self {
        let (key, value) = (Arc::new(key), Arc::new(value));
        Consumed { key, value, extractor: TimestampExtractor::default(), reset: None, name: None }
    }

    /// Takes timestamps from elsewhere.
    #[must_use]
    pub fn with_timestamp_extractor(self, extractor: TimestampExtractor<K, V>) -> Self {
        Consumed { extractor, ..self }
    }

    /// Begins there when nothing is committed; otherwise the application's setting counts.
    #[must_use]
    pub fn with_offset_reset(self, reset: OffsetReset) -> Self {
        Consumed { reset: Some(reset), ..self }
    }

    /// Names the source.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Consumed { name: Some(name.to_owned()), ..self }
    }

    /// Tells which records are read.
    pub(crate) fn readable(&self) -> Readable {
        let (key, value) = (Arc::clone(&self.key), Arc::clone(&self.value));
        Readable::new(move |key_bytes, value_bytes| {
            key.deserialize(key_bytes).is_ok() && value_bytes.is_none_or(|bytes| value.deserialize(bytes).is_ok())
        })
    }

    /// The same with the timestamps of the records.
    pub(crate) fn at_record_time(self) -> Self {
        Consumed { extractor: TimestampExtractor::default(), ..self }
    }

    /// The same topic with nulls let in, as a table reads it. A custom extractor does not see nulls.
    pub(crate) fn nullable(self) -> Consumed<K, Option<V>> {
        let Consumed { key, value, extractor, reset, name } = self;
        let extractor = TimestampExtractor(match extractor.0 {
            Extracted::Record(on_invalid) => Extracted::Record(on_invalid),
            Extracted::WallClock => Extracted::WallClock,
            Extracted::Custom(extract) => {
                let null = Arc::clone(&value);
                Extracted::Custom(Arc::new(move |incoming: &Incoming<'_, K, Option<V>>| {
                    let Incoming { key, timestamp, metadata, headers, partition_time, .. } = *incoming;
                    let null = if incoming.value.is_none() { null.null() } else { None };
                    let Some(value) = incoming.value.as_ref().or(null.as_ref()) else { return timestamp };
                    extract(&Incoming { key, value, timestamp, metadata, headers, partition_time })
                }))
            }
        });
        Consumed { key, value: Arc::new(Nullable(value)), extractor, reset, name }
    }
}

impl<K, V> Clone for Consumed<K, V> {
    fn clone(&self) -> Self {
        let (key, value) = (Arc::clone(&self.key), Arc::clone(&self.value));
        Consumed { key, value, extractor: self.extractor.clone(), reset: self.reset, name: self.name.clone() }
    }
}

/// Says which partitions a record goes to: none leaves it to the key's hash, an empty list drops the record.
pub(crate) type Partitioner<K, V> = Arc<dyn Fn(&str, &K, &V, i32) -> Option<Vec<i32>> + Send + Sync>;

/// How a topic is written.
pub struct Produced<K, V> {
    pub(crate) key: DynSerde<K>,
    pub(crate) value: DynSerde<V>,
    pub(crate) partitioner: Option<Partitioner<K, V>>,
    /// The partition that a value of the library's own says it goes to, before anybody else is asked.
    pub(crate) partition_of: Option<fn(&V) -> Option<i32>>,
    pub(crate) name: Option<String>,
}

impl<K: 'static, V: 'static> Produced<K, V> {
    /// Writes keys and values with these serdes.
    pub fn with(key: impl Serde<Item = K>, value: impl Serde<Item = V>) -> Self {
        Produced { key: Arc::new(key), value: Arc::new(value), partitioner: None, partition_of: None, name: None }
    }

    /// Chooses partitions by topic, key, value and number of partitions. None: by the hash of the key, as Java; an empty
    /// list: the record is dropped and counted; several: each gets a copy.
    #[must_use]
    pub fn with_partitioner(
        self,
        partitioner: impl Fn(&str, &K, &V, i32) -> Option<Vec<i32>> + Send + Sync + 'static,
    ) -> Self {
        Produced { partitioner: Some(Arc::new(partitioner)), ..self }
    }

    /// Names the sink.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Produced { name: Some(name.to_owned()), ..self }
    }
}

impl<K, V> Clone for Produced<K, V> {
    fn clone(&self) -> Self {
        let (key, value) = (Arc::clone(&self.key), Arc::clone(&self.value));
        let (partitioner, name) = (self.partitioner.clone(), self.name.clone());
        Produced { key, value, partitioner, partition_of: self.partition_of, name }
    }
}

/// A stream of `Option<V>` may be written with the serde of `V`: none becomes a null. So
/// `table.to_stream().to("counts", Produced::with(Utf8, I64))` needs no word about nulls.
impl<K: 'static, V: 'static> From<Produced<K, V>> for Produced<K, Option<V>> {
    fn from(produced: Produced<K, V>) -> Self {
        let Produced { key, value, partitioner, name, .. } = produced;
        let partitioner = partitioner.map(|partitioner| {
            let null = Arc::clone(&value);
            let nullable: Partitioner<K, Option<V>> = Arc::new(move |topic, key, value, partitions| {
                let null = if value.is_none() { null.null() } else { None };
                partitioner(topic, key, value.as_ref().or(null.as_ref())?, partitions)
            });
            nullable
        });
        Produced { key, value: Arc::new(Nullable(value)), partitioner, partition_of: None, name }
    }
}

/// A record as a topic chooser sees it.
#[derive(Debug)]
pub struct Outgoing<'a, K, V> {
    /// The key.
    pub key: &'a K,
    /// The value.
    pub value: &'a V,
    /// The record's timestamp (ms).
    pub timestamp: i64,
    /// The headers.
    pub headers: &'a Headers,
    /// Where the source record was read from; none inside a punctuation.
    pub metadata: Option<RecordMetadata<'a>>,
}

pub(crate) type ChooseTopic<K, V> = Arc<dyn Fn(&Outgoing<'_, K, V>) -> String + Send + Sync>;

/// Chooses a topic for each record. The topics must exist.
pub struct TopicNameExtractor<K, V> {
    /// What `describe()` shows.
    pub(crate) label: String,
    pub(crate) choose: ChooseTopic<K, V>,
}

impl<K, V> TopicNameExtractor<K, V> {
    /// A function under the name that `describe()` shows for it.
    pub fn new(label: &str, choose: impl Fn(&Outgoing<'_, K, V>) -> String + Send + Sync + 'static) -> Self {
        TopicNameExtractor { label: label.to_owned(), choose: Arc::new(choose) }
    }
}

/// Where a sink writes: a topic, or one chosen for each record.
pub struct SinkTopic<K, V>(pub(crate) Destination<K, V>);

pub(crate) enum Destination<K, V> {
    Fixed(Arc<str>),
    Chosen(TopicNameExtractor<K, V>),
}

impl<K, V> From<&str> for SinkTopic<K, V> {
    fn from(topic: &str) -> Self {
        SinkTopic(Destination::Fixed(topic.into()))
    }
}

impl<K, V> From<String> for SinkTopic<K, V> {
    fn from(topic: String) -> Self {
        SinkTopic(Destination::Fixed(topic.into()))
    }
}

impl<K, V> From<TopicNameExtractor<K, V>> for SinkTopic<K, V> {
    fn from(extractor: TopicNameExtractor<K, V>) -> Self {
        SinkTopic(Destination::Chosen(extractor))
    }
}

impl<K, V> fmt::Debug for Consumed<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumed").field("name", &self.name).field("reset", &self.reset).finish_non_exhaustive()
    }
}

impl<K, V> fmt::Debug for Produced<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Produced").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<K, V> fmt::Debug for TopicNameExtractor<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicNameExtractor").field("label", &self.label).finish_non_exhaustive()
    }
}

impl<K, V> fmt::Debug for SinkTopic<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Destination::Fixed(topic) => f.debug_tuple("SinkTopic").field(topic).finish(),
            Destination::Chosen(extractor) => f.debug_tuple("SinkTopic").field(extractor).finish(),
        }
    }
}
