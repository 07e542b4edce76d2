//! Kafka Streams for Rust: a library, not a cluster.

mod client;
mod config;
mod dsl;
mod error;
mod membership;
mod metrics;
mod operators;
mod record;
mod runtime;
mod serdes;
mod state;
mod task;
#[cfg(feature = "testing")]
mod testing;
mod topology;

pub use client::embedded::{EmbeddedCluster, EmbeddedRecord};
pub use config::{Config, Guarantee, TopicCreation};
pub use dsl::{
    Branched, BranchedKStream, Grouped, Joined, KGroupedStream, KGroupedTable, KStream, KTable, Materialized, Printed,
    Processed, Repartitioned, StreamsBuilder,
};
pub use error::{Error, ErrorKind, Result};
pub use operators::{FixedKeyContext, FixedKeyProcessor, FixedKeyRecord};
pub use record::{
    Change, ConsumerRecord, Headers, OffsetAndMetadata, ProducerRecord, Record, RecordBatch, RecordMetadata,
    TopicPartition, ValueAndTimestamp,
};
pub use runtime::{CloseOptions, KafkaStreams, RestoreEvent, State, UncaughtErrorResponse};
#[cfg(feature = "bincode")]
pub use serdes::Bincode;
#[cfg(feature = "postcard")]
pub use serdes::Postcard;
pub use serdes::{Bytes, F32, F64, I16, I32, I64, Json, Nullable, Serde, SerdeFn, Utf8, Uuid, serde_fn};
pub use state::{KeyValueStore, Rows, StoreBuilder, StoreContext, Stores, TimestampedKeyValueStore};
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use testing::SingleTask;
#[cfg(feature = "testing")]
pub use testing::{TestInputTopic, TestOutputTopic, TestRecord, TestSettings, TopologyTestDriver};
pub use topology::{
    Consumed, CreatedTopic, ErrorContext, ErrorHandler, HandlerResponse, Incoming, OffsetReset, Outgoing, Processor,
    ProcessorContext, ProcessorInit, Produced, Punctuation, PunctuationType, SinkTopic, SubTopology, TaskContext,
    TaskId, TimestampExtractor, TopicNameExtractor, Topology, TopologyBuilder,
};
