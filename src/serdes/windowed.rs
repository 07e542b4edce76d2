//! Keys with a window, as topics and stores have them.

use std::time::Duration;

use super::Serde;
use crate::error::{Error, Result};
use crate::window::{Window, Windowed, millis};

/// Keys of time, sliding and unlimited windows: `key | start 8`. The end is not written, so the reader is told the size.
///
/// Sinks send such records where those of the inner key go.
///
/// ```
/// use kstreams::{Serde, TimeWindowedSerde, Utf8, Window, Windowed};
/// use std::time::Duration;
///
/// let serde = TimeWindowedSerde::new(Utf8, Duration::from_secs(60));
/// let key = Windowed::new("k1".to_owned(), Window::new(60_000, 120_000));
/// let mut bytes = Vec::new();
/// serde.serialize(&key, &mut bytes)?;
/// assert_eq!(bytes, b"k1\x00\x00\x00\x00\x00\x00\xea\x60");
/// assert_eq!(serde.deserialize(&bytes)?, key);
/// # Ok::<(), kstreams::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TimeWindowedSerde<S> {
    inner: S,
    size_ms: i64,
}

impl<S: Serde> TimeWindowedSerde<S> {
    /// With the serde of the keys and the size of the windows.
    pub fn new(inner: S, size: Duration) -> Self {
        TimeWindowedSerde::with_size_ms(inner, millis(size))
    }

    pub(crate) fn with_size_ms(inner: S, size_ms: i64) -> Self {
        TimeWindowedSerde { inner, size_ms }
    }
}

impl<S: Serde> Serde for TimeWindowedSerde<S> {
    type Item = Windowed<S::Item>;

    fn serialize(&self, item: &Self::Item, bytes: &mut Vec<u8>) -> Result<()> {
        self.inner.serialize(&item.key, bytes)?;
        bytes.extend_from_slice(&item.window.start.to_be_bytes());
        Ok(())
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<Self::Item> {
        let (key, start) = bytes.split_last_chunk().ok_or_else(no_window)?;
        let start = i64::from_be_bytes(*start);
        let window = Window { start, end: start.saturating_add(self.size_ms) };
        Ok(Windowed { key: self.inner.deserialize(key)?, window })
    }
    fn null(&self) -> Option<Self::Item> {
        null(&self.inner)
    }
    fn is_null(&self, item: &Self::Item) -> bool {
        self.inner.is_null(&item.key)
    }
    fn window_bytes(&self) -> usize {
        8
    }
}

/// Keys of sessions: `key | end 8 | start 8`, the end first.
///
/// Sinks send such records where those of the inner key go.
#[derive(Debug, Clone, Copy)]
pub struct SessionWindowedSerde<S> {
    inner: S,
}

impl<S: Serde> SessionWindowedSerde<S> {
    /// With the serde of the keys.
    pub fn new(inner: S) -> Self {
        SessionWindowedSerde { inner }
    }
}

impl<S: Serde> Serde for SessionWindowedSerde<S> {
    type Item = Windowed<S::Item>;

    fn serialize(&self, item: &Self::Item, bytes: &mut Vec<u8>) -> Result<()> {
        self.inner.serialize(&item.key, bytes)?;
        bytes.extend_from_slice(&item.window.end.to_be_bytes());
        bytes.extend_from_slice(&item.window.start.to_be_bytes());
        Ok(())
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<Self::Item> {
        let (rest, start) = bytes.split_last_chunk().ok_or_else(no_window)?;
        let (key, end) = rest.split_last_chunk().ok_or_else(no_window)?;
        let window = Window { start: i64::from_be_bytes(*start), end: i64::from_be_bytes(*end) };
        Ok(Windowed { key: self.inner.deserialize(key)?, window })
    }
    fn null(&self) -> Option<Self::Item> {
        null(&self.inner)
    }
    fn is_null(&self, item: &Self::Item) -> bool {
        self.inner.is_null(&item.key)
    }
    fn window_bytes(&self) -> usize {
        16
    }
}

fn null<S: Serde>(inner: &S) -> Option<Windowed<S::Item>> {
    Some(Windowed { key: inner.null()?, window: Window { start: 0, end: 0 } })
}

fn no_window() -> Error {
    Error::corrupted("a windowed key that is too short for its window")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serdes::{Nullable, Utf8};

    #[test]
    fn a_session_is_written_with_its_end_first() {
        let serde = SessionWindowedSerde::new(Utf8);
        let key = Windowed::new("k1".to_owned(), Window::new(60_000, 120_000));
        let mut bytes = Vec::new();
        serde.serialize(&key, &mut bytes).unwrap();
        assert_eq!(bytes, b"k1\x00\x00\x00\x00\x00\x01\xd4\xc0\x00\x00\x00\x00\x00\x00\xea\x60");
        assert_eq!(serde.deserialize(&bytes).unwrap(), key);
    }

    #[test]
    fn a_window_beyond_the_end_of_time_ends_there() {
        let serde = TimeWindowedSerde::new(Utf8, Duration::from_millis(10));
        let read = serde.deserialize(b"a\x7f\xff\xff\xff\xff\xff\xff\xff").unwrap();
        assert_eq!(read.window, Window::new(i64::MAX, i64::MAX));
    }

    #[test]
    fn too_few_bytes_are_refused_and_nulls_are_those_of_the_key() {
        assert!(TimeWindowedSerde::new(Utf8, Duration::ZERO).deserialize(b"1234567").is_err());
        assert!(SessionWindowedSerde::new(Utf8).deserialize(b"123456789012345").is_err());
        assert!(SessionWindowedSerde::new(Utf8).null().is_none());
        let nullable = SessionWindowedSerde::new(Nullable(Utf8));
        assert!(nullable.is_null(&nullable.null().unwrap()));
    }
}
