//! What waits in a buffer with its record's place: the rows of suppressed tables and of joins with a grace period.
//!
//! ```text
//!   value      context | prior | old | new
//!   context    timestamp 8 | offset 8 | topic | partition 4 | count 4 | (text key, bytes value)*
//!   text       length 4 | UTF-8            bytes    length 4 (-1: null) | bytes         old    the same, or -2: as prior
//! ```
//!
//! The bytes are Java's `BufferValue`: a changelog goes from one to the other.

use crate::error::{Error, Result};
use crate::record::Headers;

/// A record that waits, by reference to its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BufferValue<'a> {
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    pub offset: i64,
    pub topic: &'a str,
    pub partition: i32,
    pub headers: Headers,
    /// The row before the first update that waits.
    pub prior: Option<&'a [u8]>,
    /// The row before the last update.
    pub old: Option<&'a [u8]>,
    pub new: Option<&'a [u8]>,
}

/// Stands for an old row that is the prior one.
const SAME_AS_PRIOR: i32 = -2;

impl<'a> BufferValue<'a> {
    /// Appends its bytes.
    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<()> {
        let count = i32::try_from(self.headers.len()).map_err(too_long)?;
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        write_bytes(Some(self.topic.as_bytes()), out)?;
        out.extend_from_slice(&self.partition.to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
        for (key, value) in self.headers.iter() {
            write_bytes(Some(key.as_bytes()), out)?;
            write_bytes(value, out)?;
        }
        write_bytes(self.prior, out)?;
        if self.old.is_some() && self.old == self.prior {
            out.extend_from_slice(&SAME_AS_PRIOR.to_be_bytes());
        } else {
            write_bytes(self.old, out)?;
        }
        write_bytes(self.new, out)
    }

    /// Reads one, and what is behind it.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<(BufferValue<'a>, &'a [u8])> {
        let mut rest = bytes;
        let context = read_context(&mut rest)?;
        let prior = read_bytes(&mut rest, None)?;
        let old = read_bytes(&mut rest, prior)?;
        let new = read_bytes(&mut rest, None)?;
        Ok((BufferValue { prior, old, new, ..context }, rest))
    }
}

/// The record's place, without rows.
pub(super) fn read_context<'a>(rest: &mut &'a [u8]) -> Result<BufferValue<'a>> {
    let timestamp = i64::from_be_bytes(take(rest)?);
    let offset = i64::from_be_bytes(take(rest)?);
    let topic = read_text(rest)?;
    let partition = i32::from_be_bytes(take(rest)?);
    let count = i32::from_be_bytes(take(rest)?);
    let mut headers = Headers::new();
    for _ in 0..count.max(0) {
        let key = read_text(rest)?.to_owned();
        headers.push(key, read_bytes(rest, None)?.map(<[u8]>::to_vec));
    }
    Ok(BufferValue { timestamp, offset, topic, partition, headers, prior: None, old: None, new: None })
}

fn write_bytes(bytes: Option<&[u8]>, out: &mut Vec<u8>) -> Result<()> {
    let length = bytes.map_or(Ok(-1), |bytes| i32::try_from(bytes.len())).map_err(too_long)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
    Ok(())
}

fn read_bytes<'a>(rest: &mut &'a [u8], same: Option<&'a [u8]>) -> Result<Option<&'a [u8]>> {
    let length = i32::from_be_bytes(take(rest)?);
    if length < 0 {
        return Ok(same.filter(|_| length == SAME_AS_PRIOR));
    }
    let length = usize::try_from(length).unwrap_or(0);
    let (bytes, behind) = rest.split_at_checked(length).ok_or_else(damaged)?;
    *rest = behind;
    Ok(Some(bytes))
}

/// As older formats have it: a length below -1 is damage.
pub(super) fn read_nullable<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>> {
    if rest.first_chunk().is_some_and(|length| i32::from_be_bytes(*length) < -1) {
        return Err(damaged());
    }
    read_bytes(rest, None)
}

fn read_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str> {
    let text = read_bytes(rest, None)?.ok_or_else(damaged)?;
    std::str::from_utf8(text).map_err(|error| damaged().with_source(error))
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (chunk, behind) = rest.split_first_chunk().ok_or_else(damaged)?;
    *rest = behind;
    Ok(*chunk)
}

#[cold]
pub(super) fn damaged() -> Error {
    Error::corrupted("a row of a buffer is damaged")
}

#[cold]
fn too_long(error: std::num::TryFromIntError) -> Error {
    Error::invalid("a record is too long for a buffer").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value() -> BufferValue<'static> {
        let mut headers = Headers::new();
        headers.add("h", [1]);
        headers.add_null("n");
        let (prior, old, new) = (Some(&b"p"[..]), Some(&b"p"[..]), Some(&b"nn"[..]));
        BufferValue { timestamp: 1000, offset: 5, topic: "in", partition: 2, headers, prior, old, new }
    }

    #[test]
    fn a_value_has_javas_bytes() {
        let mut bytes = Vec::new();
        value().write(&mut bytes).unwrap();
        let expected =
            b"\0\0\0\0\0\0\x03\xe8\0\0\0\0\0\0\0\x05\0\0\0\x02in\0\0\0\x02\0\0\0\x02\0\0\0\x01h\0\0\0\x01\x01\
                         \0\0\0\x01n\xff\xff\xff\xff\0\0\0\x01p\xff\xff\xff\xfe\0\0\0\x02nn";
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_is_written_is_read_and_what_is_cut_off_is_an_error() {
        for value in
            [value(), BufferValue { old: Some(b""), new: None, ..value() }, BufferValue { old: None, ..value() }]
        {
            let mut bytes = Vec::new();
            value.write(&mut bytes).unwrap();
            for end in 0..bytes.len() {
                assert!(BufferValue::read(&bytes[..end]).is_err());
            }
            bytes.extend_from_slice(b"more");
            assert_eq!(BufferValue::read(&bytes).unwrap(), (value, &b"more"[..]));
        }
    }
}
