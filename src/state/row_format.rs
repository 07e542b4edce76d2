//! What stands in front of the value in a row. In the changelog it travels beside the value, as in Java.
//!
//! ```text
//!   Value                  value
//!   Timestamped            timestamp 8 | value
//!   HeadersAndTimestamp    headers | timestamp 8 | value        KIP-1271
//!   Headers                headers | value                      sessions: their end is their time
//! ```

use crate::error::{Error, Result};
use crate::record::Headers;
use crate::serdes::{read_row_headers, write_row_headers};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowFormat {
    Value,
    Timestamped,
    HeadersAndTimestamp,
    Headers,
}

/// A row as the changelog has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LoggedRow<'a> {
    /// None: that of the record that wrote the row.
    pub(super) timestamp: Option<i64>,
    /// None: rows have none.
    pub(super) headers: Option<Headers>,
    pub(super) value: &'a [u8],
}

impl RowFormat {
    fn has_headers(self) -> bool {
        matches!(self, RowFormat::HeadersAndTimestamp | RowFormat::Headers)
    }

    fn has_timestamp(self) -> bool {
        matches!(self, RowFormat::Timestamped | RowFormat::HeadersAndTimestamp)
    }

    /// Takes a row apart.
    #[inline]
    pub(super) fn split(self, row: &[u8]) -> Result<LoggedRow<'_>> {
        let (mut headers, mut timestamp, mut value) = (None, None, row);
        if self.has_headers() {
            let (own, rest) = read_row_headers(value)?;
            (headers, value) = (Some(own), rest);
        }
        if self.has_timestamp() {
            let (own, rest) = value.split_first_chunk().ok_or_else(|| Error::corrupted("a row without timestamp"))?;
            (timestamp, value) = (Some(i64::from_be_bytes(*own)), rest);
        }
        Ok(LoggedRow { timestamp, headers, value })
    }

    /// Puts a row together from its changelog record.
    pub(super) fn join<'a>(
        self,
        value: &'a [u8],
        timestamp: i64,
        headers: &Headers,
        row: &'a mut Vec<u8>,
    ) -> Result<&'a [u8]> {
        if self == RowFormat::Value {
            return Ok(value);
        }
        row.clear();
        if self.has_headers() {
            write_row_headers(headers, row)?;
        }
        if self.has_timestamp() {
            row.extend_from_slice(&timestamp.to_be_bytes());
        }
        row.extend_from_slice(value);
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_put_together_and_taken_apart_in_javas_bytes() {
        let mut headers = Headers::new();
        headers.add("h", [1, 2]);
        headers.add_null("n");
        let (with, time) = (b"\x12\x04\x02h\x04\x01\x02\x02n\x01", b"\0\0\0\0\0\0\x03\xe8");
        let cases: [(RowFormat, &Headers, Vec<u8>); 5] = [
            (RowFormat::Value, &headers, b"v".to_vec()),
            (RowFormat::Timestamped, &headers, [&time[..], b"v"].concat()),
            (RowFormat::HeadersAndTimestamp, &headers, [&with[..], time, b"v"].concat()),
            (RowFormat::HeadersAndTimestamp, &Headers::new(), [b"\0", &time[..], b"v"].concat()),
            (RowFormat::Headers, &headers, [&with[..], b"v"].concat()),
        ];
        for (format, headers, expected) in cases {
            let mut scratch = Vec::new();
            assert_eq!(format.join(b"v", 1000, headers, &mut scratch).unwrap(), expected, "{format:?}");
            let timestamp = format.has_timestamp().then_some(1000);
            let headers = format.has_headers().then(|| headers.clone());
            assert_eq!(format.split(&expected).unwrap(), LoggedRow { timestamp, headers, value: b"v" });
            assert!(format == RowFormat::Value || format.split(b"\x08").is_err(), "{format:?}");
        }
    }
}
