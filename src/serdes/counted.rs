//! Keys with a window by number, as topics have them.

use super::Serde;
use crate::error::{Error, Result};
use crate::window::Counted;

/// Keys of count windows: `key | first 8`, the number of the window's first record. The size is not written, so the reader
/// is told it.
///
/// Sinks send such records where those of the inner key go.
///
/// ```
/// use kstreams::{Counted, CountedSerde, Serde, Utf8};
///
/// let serde = CountedSerde::new(Utf8, 10);
/// let key = Counted { key: "k1".to_owned(), first: 30, size: 10 };
/// let mut bytes = Vec::new();
/// serde.serialize(&key, &mut bytes)?;
/// assert_eq!(bytes, b"k1\x00\x00\x00\x00\x00\x00\x00\x1e");
/// assert_eq!(serde.deserialize(&bytes)?, key);
/// # Ok::<(), kstreams::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct CountedSerde<S> {
    inner: S,
    size: i64,
}

impl<S: Serde> CountedSerde<S> {
    /// With the serde of the keys and the size of the windows.
    pub fn new(inner: S, size: u64) -> Self {
        CountedSerde::with_size(inner, i64::try_from(size).unwrap_or(i64::MAX))
    }

    pub(crate) fn with_size(inner: S, size: i64) -> Self {
        CountedSerde { inner, size }
    }
}

impl<S: Serde> Serde for CountedSerde<S> {
    type Item = Counted<S::Item>;

    fn serialize(&self, item: &Self::Item, bytes: &mut Vec<u8>) -> Result<()> {
        self.inner.serialize(&item.key, bytes)?;
        bytes.extend_from_slice(&item.first.to_be_bytes());
        Ok(())
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<Self::Item> {
        let short = || Error::corrupted("a key of a count window is too short for its number");
        let (key, first) = bytes.split_last_chunk().ok_or_else(short)?;
        Ok(Counted { key: self.inner.deserialize(key)?, first: i64::from_be_bytes(*first), size: self.size })
    }
    fn null(&self) -> Option<Self::Item> {
        Some(Counted { key: self.inner.null()?, first: 0, size: self.size })
    }
    fn is_null(&self, item: &Self::Item) -> bool {
        self.inner.is_null(&item.key)
    }
    fn window_bytes(&self) -> usize {
        8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serdes::{Nullable, Utf8};

    #[test]
    fn too_few_bytes_are_refused_and_nulls_are_those_of_the_key() {
        assert!(CountedSerde::new(Utf8, 3).deserialize(b"1234567").is_err());
        assert!(CountedSerde::new(Utf8, 3).null().is_none());
        let nullable = CountedSerde::new(Nullable(Utf8), 3);
        assert!(nullable.is_null(&nullable.null().unwrap()));
    }
}
