//! Kafka Streams for Rust: a library, not a cluster.

mod client;
mod error;
mod membership;
mod record;
mod topology;

pub use error::{Error, ErrorKind, Result};
pub use record::{
    Change, ConsumerRecord, Headers, OffsetAndMetadata, ProducerRecord, Record, RecordBatch, RecordMetadata,
    TopicPartition, ValueAndTimestamp,
};
pub use topology::TaskId;
