//! The byte formats, for the recorded vectors: not for applications.

use std::sync::Arc;

use crate::client::{murmur2, partition_for_key};
use crate::error::Result;
use crate::record::{Change, OffsetAndMetadata, ValueAndTimestamp};
use crate::serdes::{Bytes, Changed, Serde, Timestamped};
use crate::task::CommitPoint;

/// Null or bytes.
type Part = Option<Vec<u8>>;

/// Formats that are Java's, byte by byte.
#[derive(Debug)]
#[doc(hidden)]
pub struct Wire;

#[doc(hidden)]
impl Wire {
    /// The hash that decides about the partition of a key.
    pub fn murmur2(key: &[u8]) -> i32 {
        murmur2(key).cast_signed()
    }

    /// The partition of a key.
    pub fn partition(key: &[u8], partitions: i32) -> i32 {
        partition_for_key(key, partitions)
    }

    /// A row of a timestamped store.
    pub fn value_and_timestamp(value: Vec<u8>, timestamp: i64) -> Result<Vec<u8>> {
        written(&Timestamped(Bytes), &ValueAndTimestamp { value, timestamp })
    }

    /// A change of a table on its way through a repartition topic.
    pub fn changed(old: Part, new: Part) -> Result<Vec<u8>> {
        written(&Changed(Arc::new(Bytes)), &Change::latest(old, new))
    }

    /// What [`changed`](Wire::changed) has written: old and new.
    pub fn read_changed(bytes: &[u8]) -> Result<(Part, Part)> {
        Changed(Arc::new(Bytes)).deserialize(bytes).map(|change| (change.old, change.new))
    }

    /// The text that is committed with an offset.
    pub fn offset_metadata(partition_time: i64) -> String {
        CommitPoint { offset: 0, partition_time }.encode().metadata
    }

    /// The partition time in such a text.
    pub fn read_offset_metadata(metadata: &str) -> i64 {
        CommitPoint::decode(&OffsetAndMetadata { offset: 0, metadata: metadata.to_owned() }).partition_time
    }
}

fn written<S: Serde>(serde: &S, item: &S::Item) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    serde.serialize(item, &mut bytes)?;
    Ok(bytes)
}
