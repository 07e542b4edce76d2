//! Bytes of one type: what a source reads, a sink writes and a store keeps.
//!
//! A serde of one's own is one line with [`serde_fn`]:
//!
//! ```
//! use kstreams::{serde_fn, Error, ErrorKind, Serde};
//!
//! let celsius = serde_fn(
//!     |t: &f32, bytes| Ok(bytes.extend_from_slice(&t.to_be_bytes())),
//!     |bytes| bytes.try_into().map(f32::from_be_bytes).map_err(|e| Error::new(ErrorKind::Corrupted, "not 4 bytes").with_source(e)),
//! );
//! let mut bytes = Vec::new();
//! celsius.serialize(&21.5, &mut bytes)?;
//! assert_eq!(celsius.deserialize(&bytes)?, 21.5);
//! # Ok::<(), Error>(())
//! ```

mod builtin;
mod changed;
mod counted;
mod format;
mod function;
mod murmur3;
mod row_headers;
mod subscription;
mod varint;
mod windowed;

use std::sync::Arc;

pub use builtin::{Bytes, F32, F64, I16, I32, I64, Utf8, Uuid};
pub use counted::CountedSerde;
#[cfg(feature = "bincode")]
pub use format::Bincode;
pub use format::Json;
#[cfg(feature = "postcard")]
pub use format::Postcard;
pub use function::{SerdeFn, serde_fn};
pub use windowed::{SessionWindowedSerde, TimeWindowedSerde};

pub(crate) use changed::Changed;
pub(crate) use murmur3::murmur3_128;
#[cfg(feature = "testing")]
pub(crate) use row_headers::headers_bytes;
pub(crate) use row_headers::{read_row_headers, write_row_headers};
pub(crate) use subscription::{
    Answer, AnswerSerde, Instruction, Response, ResponseSerde, Subscriber, SubscriberSerde, Subscription,
    SubscriptionSerde, ValueHash, combined_key,
};

use varint::{read_varint, write_varint};

use crate::error::{Error, Result};
use crate::record::ValueAndTimestamp;

/// Reads and writes one type. The associated type lets `Consumed::with(Utf8, I64)` fix the types of a stream without a
/// turbofish.
///
/// Bytes that are written must be the same for equal items: they are keys of stores and decide about partitions.
pub trait Serde: Send + Sync + 'static {
    /// What is read and written.
    type Item: 'static;

    /// Appends the bytes of an item.
    ///
    /// # Errors
    /// An item that has no bytes; the production handler decides about the record.
    fn serialize(&self, item: &Self::Item, bytes: &mut Vec<u8>) -> Result<()>;

    /// Reads an item from all of the bytes.
    ///
    /// # Errors
    /// [`Corrupted`](crate::ErrorKind::Corrupted); the deserialization handler decides about the record.
    fn deserialize(&self, bytes: &[u8]) -> Result<Self::Item>;

    /// What a null of Kafka is in this type, if it has a place for it: see [`Nullable`].
    fn null(&self) -> Option<Self::Item> {
        None
    }

    /// Whether an item is written as a null. A null key is in no table, and a null value deletes.
    fn is_null(&self, _item: &Self::Item) -> bool {
        false
    }

    /// How many bytes at the end of a key are its window, and say nothing about its partition: 0 for other keys.
    fn window_bytes(&self) -> usize {
        0
    }
}

/// A serde behind a handle that only knows the type of the item. Never touched per hop, only at the edges of a task.
pub(crate) type DynSerde<T> = Arc<dyn Serde<Item = T>>;

impl<S: Serde + ?Sized> Serde for Arc<S> {
    type Item = S::Item;

    fn serialize(&self, item: &Self::Item, bytes: &mut Vec<u8>) -> Result<()> {
        (**self).serialize(item, bytes)
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<Self::Item> {
        (**self).deserialize(bytes)
    }
    fn null(&self) -> Option<Self::Item> {
        (**self).null()
    }
    fn is_null(&self, item: &Self::Item) -> bool {
        (**self).is_null(item)
    }
    fn window_bytes(&self) -> usize {
        (**self).window_bytes()
    }
}

/// Gives null a place: `Nullable(Utf8)` is a serde of `Option<String>`.
///
/// Without it a null key or value is a deserialization error, because the type has no word for it.
#[derive(Debug, Clone, Copy)]
pub struct Nullable<S>(pub S);

impl<S: Serde> Serde for Nullable<S> {
    type Item = Option<S::Item>;

    /// Called with `Some` only: whoever writes asks `is_null` first, because a null has no bytes.
    fn serialize(&self, item: &Self::Item, bytes: &mut Vec<u8>) -> Result<()> {
        item.iter().try_for_each(|item| self.0.serialize(item, bytes))
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<Self::Item> {
        self.0.deserialize(bytes).map(Some)
    }
    fn null(&self) -> Option<Self::Item> {
        Some(None)
    }
    fn is_null(&self, item: &Self::Item) -> bool {
        item.as_ref().is_none_or(|item| self.0.is_null(item))
    }
    fn window_bytes(&self) -> usize {
        self.0.window_bytes()
    }
}

/// The rows of timestamped stores, Java's `ValueAndTimestampSerde`: `timestamp 8 | value`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timestamped<S>(pub(crate) S);

impl<S: Serde> Serde for Timestamped<S> {
    type Item = ValueAndTimestamp<S::Item>;

    fn serialize(&self, item: &Self::Item, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.extend_from_slice(&item.timestamp.to_be_bytes());
        self.0.serialize(&item.value, bytes)
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<Self::Item> {
        let (timestamp, value) =
            bytes.split_first_chunk().ok_or_else(|| Error::corrupted("a row without timestamp"))?;
        Ok(ValueAndTimestamp { value: self.0.deserialize(value)?, timestamp: i64::from_be_bytes(*timestamp) })
    }
    fn is_null(&self, item: &Self::Item) -> bool {
        self.0.is_null(&item.value)
    }
}

/// The rows of a plain store that stands where a timestamped one is expected: their times are not kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Untimestamped<S>(pub(crate) S);

impl<S: Serde> Serde for Untimestamped<S> {
    type Item = ValueAndTimestamp<S::Item>;

    fn serialize(&self, item: &Self::Item, bytes: &mut Vec<u8>) -> Result<()> {
        self.0.serialize(&item.value, bytes)
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<Self::Item> {
        Ok(ValueAndTimestamp { value: self.0.deserialize(bytes)?, timestamp: -1 })
    }
    fn is_null(&self, item: &Self::Item) -> bool {
        self.0.is_null(&item.value)
    }
}

/// Appends an item; none for a null, which has no bytes.
pub(crate) fn encode<T: 'static>(serde: &dyn Serde<Item = T>, item: &T, bytes: &mut Vec<u8>) -> Result<Option<usize>> {
    if serde.is_null(item) {
        return Ok(None);
    }
    let start = bytes.len();
    serde.serialize(item, bytes)?;
    Ok(Some(bytes.len() - start))
}

/// Reads an item or a null.
///
/// Differs from Kafka Streams: a null is an error where the type has no place for it. Take [`Nullable`] to let it in.
pub(crate) fn decode<T: 'static>(serde: &dyn Serde<Item = T>, bytes: Option<&[u8]>, part: &str) -> Result<T> {
    match bytes {
        Some(bytes) => serde.deserialize(bytes),
        None => serde
            .null()
            .ok_or_else(|| Error::corrupted(format!("a null {part} has no place: read it with Nullable(..)"))),
    }
}
