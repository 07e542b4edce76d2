//! The byte formats, for the recorded vectors: not for applications.

use std::sync::Arc;
use std::time::Duration;

use crate::client::partition_for_key;
use crate::error::{Error, Result};
use crate::partition::murmur2;
use crate::record::{Change, Headers, OffsetAndMetadata, ValueAndTimestamp};
use crate::serdes::{
    Answer, AnswerSerde, Bytes, Changed, Instruction, ResponseSerde, Serde, Subscription, SubscriptionSerde,
    Timestamped, combined_key, murmur3_128,
};
use crate::state::{BufferValue, Side, encode_join_key};
use crate::task::CommitPoint;
use crate::window::TimeWindows;

/// Null or bytes.
type Part = Option<Vec<u8>>;

/// A subscription of a foreign-key join, with the number of its instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(hidden)]
pub struct WireSubscription {
    pub hash: Option<Vec<u8>>,
    pub instruction: u8,
    pub primary_key: Vec<u8>,
    pub primary_partition: Option<i32>,
}

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

    /// The hash of a row in a foreign-key join.
    pub fn murmur3_128(bytes: &[u8]) -> [u8; 16] {
        murmur3_128(bytes)
    }

    /// What a left row sends in a foreign-key join.
    pub fn subscription(subscription: &WireSubscription) -> Result<Vec<u8>> {
        let WireSubscription { hash, instruction, primary_key, primary_partition } = subscription;
        let instruction = Instruction::of(*instruction).ok_or_else(|| Error::invalid("an unknown instruction"))?;
        let hash = hash.as_deref().map(as_hash).transpose()?;
        let (primary_key, primary_partition) = (primary_key.clone(), *primary_partition);
        written(&SubscriptionSerde, &Subscription { hash, instruction, primary_key, primary_partition })
    }

    /// What [`subscription`](Wire::subscription) has written.
    pub fn read_subscription(bytes: &[u8]) -> Result<WireSubscription> {
        let Subscription { hash, instruction, primary_key, primary_partition } =
            SubscriptionSerde.deserialize(bytes)?;
        let (hash, instruction) = (hash.map(|hash| hash.to_vec()), instruction as u8);
        Ok(WireSubscription { hash, instruction, primary_key, primary_partition })
    }

    /// What the right table answers.
    pub fn subscription_response(hash: Option<&[u8]>, foreign_value: Option<&[u8]>) -> Result<Vec<u8>> {
        let (hash, foreign_value) = (hash.map(as_hash).transpose()?, foreign_value.map(Into::into));
        written(&AnswerSerde, &Answer { hash, foreign_value, primary_partition: None })
    }

    /// What [`subscription_response`](Wire::subscription_response) has written: hash and row.
    pub fn read_subscription_response(bytes: &[u8]) -> Result<(Part, Part)> {
        let response = ResponseSerde(Arc::new(Bytes)).deserialize(bytes)?;
        Ok((response.hash.map(|hash| hash.to_vec()), response.foreign_value))
    }

    /// The key of a subscription in its store.
    pub fn combined_key(foreign_key: &[u8], primary_key: &[u8]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        combined_key(&Bytes, &foreign_key.to_vec(), primary_key, &mut bytes)?;
        Ok(bytes)
    }

    /// The row key of a record in the store of an outer join; true is the left side.
    pub fn join_side_key(timestamp: i64, is_left: bool, key: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_join_key(timestamp, side(is_left), key, &mut bytes);
        bytes
    }

    /// What such a row holds of each record.
    pub fn join_side_value(is_left: bool, value: &[u8]) -> Vec<u8> {
        [&[side(is_left).byte()], value].concat()
    }

    /// A row of a buffer, without what follows it in a changelog; the last of the parts is prior, old, new.
    pub fn buffer_value(timestamp: i64, at: (&str, i32, i64), headers: Headers, rows: &[Part; 3]) -> Result<Vec<u8>> {
        let ([prior, old, new], (topic, partition, offset)) = (rows, at);
        let (prior, old, new) = (prior.as_deref(), old.as_deref(), new.as_deref());
        let mut bytes = Vec::new();
        BufferValue { timestamp, offset, topic, partition, headers, prior, old, new }.write(&mut bytes)?;
        Ok(bytes)
    }

    /// What [`buffer_value`](Wire::buffer_value) has written: prior, old, new and what is behind it.
    pub fn read_buffer_value(bytes: &[u8]) -> Result<([Part; 3], Vec<u8>)> {
        let (BufferValue { prior, old, new, .. }, rest) = BufferValue::read(bytes)?;
        Ok(([prior, old, new].map(|part| part.map(<[u8]>::to_vec)), rest.to_vec()))
    }

    /// The text that is committed with an offset: the partition time, and times by the names of stores.
    pub fn offset_metadata(partition_time: i64, stores: &[(&str, i64)]) -> String {
        let processor_metadata = stores.iter().map(|(store, time)| ((*store).into(), *time)).collect();
        CommitPoint { offset: 0, partition_time, processor_metadata }.encode().metadata
    }

    /// The partition time in such a text, and the times by store.
    pub fn read_offset_metadata(metadata: &str) -> (i64, Vec<(String, i64)>) {
        let point = CommitPoint::decode(&OffsetAndMetadata { offset: 0, metadata: metadata.to_owned() });
        let times = point.processor_metadata.iter().map(|(store, time)| (store.to_string(), *time));
        (point.partition_time, times.collect())
    }

    /// The starts of the windows of a timestamp.
    pub fn time_windows_for(size_ms: u64, advance_ms: u64, timestamp: i64) -> Vec<i64> {
        let windows = TimeWindows::of_size_with_no_grace(Duration::from_millis(size_ms));
        let windows = windows.advance_by(Duration::from_millis(advance_ms));
        windows.windows_for(timestamp).map(|window| window.start).collect()
    }
}

fn side(is_left: bool) -> Side {
    if is_left { Side::Left } else { Side::Right }
}

fn as_hash(bytes: &[u8]) -> Result<[u8; 16]> {
    bytes.try_into().map_err(|error| Error::invalid("a hash is not 16 bytes long").with_source(error))
}

fn written<S: Serde>(serde: &S, item: &S::Item) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    serde.serialize(item, &mut bytes)?;
    Ok(bytes)
}
