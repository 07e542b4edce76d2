//! Kafka Streams for Rust: a library, not a cluster.
//!
//! A topology says what happens to event streams: map, filter, join, aggregate. It runs inside a service, in as many
//! instances as wanted; state lives beside the code and is backed by Kafka topics; input offsets, output and state commit
//! as one transaction.
//!
//! ```
//! use kstreams::*;
//!
//! let builder = StreamsBuilder::new();
//! builder
//!     .stream("lines", Consumed::with(Utf8, Utf8))
//!     .flat_map_values(|line| line.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>())
//!     .group_by(|_line, word| word.clone(), Grouped::with(Utf8, Utf8))
//!     .count(Materialized::named("word-counts"))
//!     .to_stream()
//!     .to("counts", Produced::with(Utf8, I64));
//!
//! // On a Kafka cluster inside this process; "localhost:9092" is a real one.
//! let config = Config::new("word-count", "embedded://docs")
//!     .exactly_once()
//!     .create_topics(TopicCreation::Everything { partitions: 2 });
//! # let directory = tempfile::tempdir().unwrap();
//! # let config = config.state_dir(directory.path());
//! let streams = KafkaStreams::new(builder.build()?, config)?;
//! streams.start()?;
//! // A service awaits `streams.run_until_signal()` instead.
//! streams.close(std::time::Duration::from_secs(10))?;
//! # Ok::<(), Error>(())
//! ```
//!
//! | to | begin with |
//! |---|---|
//! | describe a topology | [`StreamsBuilder`], [`KStream`], [`KTable`] |
//! | write an operator of one's own | [`Processor`], [`Stores`] |
//! | read and write other types | [`Serde`], [`Json`], [`serde_fn`] |
//! | run it | [`KafkaStreams`], [`Config`] |
//! | answer requests over events | [`Gateway`], [`IdempotencyKey`] |
//! | let it begin anew | [`ApplicationReset`] |
//! | test it without a broker | [`TopologyTestDriver`], [`EmbeddedCluster`] |
//! | decide about bad records | [`ErrorHandler`], [`ErrorKind`] |
//!
//! The README has guarantees, operations, and a table for those who come from Kafka Streams; `ARCHITECTURE.md` has the
//! inside.

mod client;
mod config;
mod dsl;
mod error;
mod membership;
mod metrics;
mod operators;
mod partition;
mod query;
mod record;
mod reset;
mod runtime;
mod serdes;
mod state;
mod task;
#[cfg(feature = "testing")]
mod testing;
mod topology;
mod window;

pub use client::embedded::{EmbeddedCluster, EmbeddedRecord};
pub use config::{Config, GroupProtocol, Guarantee, HostInfo, StoreFormat, TopicCreation};
pub use dsl::{
    AsyncCalls, Branched, BranchedKStream, BufferConfig, BufferFull, CogroupedKStream, CogroupedWindows,
    CountWindowedKStream, EmitEarly, GlobalKTable, Grouped, Joined, KGroupedStream, KGroupedTable, KStream, KTable,
    Materialized, Printed, Processed, Repartitioned, SessionWindowedCogroupedKStream, SessionWindowedKStream, ShutDown,
    StreamJoined, StreamsBuilder, Suppressed, TableJoined, TimeWindowedCogroupedKStream, TimeWindowedKStream, Windows,
};
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use membership::{BenchGroup, Settling};
pub use operators::{
    AsyncOrder, EmitStrategy, FixedKeyContext, FixedKeyProcessor, FixedKeyRecord, TransformContext,
    ValueTransformerWithKey,
};
pub use query::gateway::{
    Answers, Awaited, CorrelateBy, Gateway, GatewayLimits, IdempotencyKey, RequestTopic, StateWatch, Watched,
};
#[cfg(feature = "query-http")]
pub use query::http::{
    Answer, Forwarder, HttpLimits, Owner, Problem, ProblemCode, QueryClient, QueryServer, RemoteRows, RemoteStore,
    ServedStore,
};
pub use query::{
    FailureReason, KeyQuery, MultiVersionedKeyQuery, Position, Query, QueryContext, QueryFailure, QueryIn, QueryIter,
    QueryResult, QueryableStore, QueryableStoreType, QueryableStoreTypes, RangeQuery, RawAnswer, RawKind, RawPartition,
    RawQuery, RawRole, RawRow, RawStore, RawStores, Staleness, StateQueryRequest, StateQueryResult, StoreSnapshot,
    TimestampedKeyQuery, TimestampedRangeQuery, VersionedKeyQuery, WindowKeyQuery, WindowRangeQuery,
};
pub use record::{
    Change, ConsumerRecord, Headers, OffsetAndMetadata, ProducerRecord, Record, RecordBatch, RecordMetadata,
    TopicPartition, ValueAndTimestamp,
};
pub use reset::{ApplicationReset, ResetOffset, ResetPlan, ResetTo, SparedTopic};
pub use runtime::{
    CloseOptions, KafkaStreams, KeyMetadata, RestoreEvent, RestoreProgress, StandbyEnd, State, StoreLag,
    StreamsMetadata, TaskMetadata, ThreadMetadata, UncaughtErrorResponse,
};
#[cfg(feature = "bincode")]
pub use serdes::Bincode;
#[cfg(feature = "postcard")]
pub use serdes::Postcard;
pub use serdes::{
    Bytes, CountedSerde, F32, F64, I16, I32, I64, Json, Nullable, Serde, SerdeFn, SessionWindowedSerde,
    TimeWindowedSerde, Utf8, Uuid, serde_fn,
};
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use state::BenchStore;
pub use state::{
    AggregationWithHeaders, KeyValueStore, Rows, SessionStore, SessionStoreWithHeaders, StoreBuilder, StoreContext,
    StoreEngine, Stores, TimestampedKeyValueStore, TimestampedKeyValueStoreWithHeaders, TimestampedWindowStore,
    TimestampedWindowStoreWithHeaders, ValueTimestampHeaders, VersionPut, VersionedKeyValueStore, VersionedRecord,
    WindowRows, WindowStore, WindowValues,
};
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use testing::{SingleTask, Wire, WireAssignmentInfo, WireSubscription, WireSubscriptionInfo};
#[cfg(feature = "testing")]
pub use testing::{TestInputTopic, TestOutputTopic, TestRecord, TopicClient, TopologyTestDriver};
pub use topology::{
    CallKind, Consumed, CreatedTopic, ErrorContext, ErrorHandler, HandlerResponse, Incoming, Interception, OffsetReset,
    Optimization, Outgoing, Processor, ProcessorContext, ProcessorInit, ProcessorInterceptor, Produced, Punctuation,
    PunctuationType, SinkTopic, SubTopology, TaskContext, TaskId, TimestampExtractor, TopicNameExtractor, Topology,
    TopologyBuilder,
};
pub use window::{
    CountWindows, Counted, JoinWindows, SessionWindows, SlidingWindows, TimeWindows, UnlimitedWindows, Window, Windowed,
};

/// The programs of the README, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The recipes, likewise.
#[cfg(doctest)]
#[doc = include_str!("../COOKBOOK.md")]
struct Cookbook;
