//! Keys of window and session stores: where a row lies, and what its changelog record is called.
//!
//! ```text
//!   window    on disk     bucket(ts) 8  | key | ts 8 | seq 4?       changelog   key | ts 8 | seq 4
//!             in memory   ts 8  | key | seq 4?
//!   session   on disk     bucket(end) 8 | key | end 8 | start 8     changelog   key | end 8 | start 8
//!             in memory   end 8 | key | !start 8
//! ```
//!
//! Numbers are big endian. A bucket is what Java calls a segment, with its length: so rows come in Java's order, and those
//! that have expired lie together at the front. In memory the sessions of a key with the same end come from the latest start
//! to the earliest, as in Java. The changelog's keys are Java's.

/// How the rows of a windowed store are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowedKeys {
    pub(super) tail: Tail,
    /// The length of a bucket; none: rows lie by their time.
    pub(super) bucket_ms: Option<i64>,
    /// Whether a row that has expired is dropped although its bucket has not.
    pub(super) drops_each: bool,
}

/// What follows the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing here, a zero in the changelog.
    None,
    /// A number that keeps rows of one key and time apart.
    Sequence,
    /// The start of a session; its end is its time.
    Start,
}

/// The parts of a key. The time is the start of a window or the end of a session: what a row expires by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) key: &'a [u8],
    pub(super) time: i64,
    /// The sequence number or the start of the session; otherwise 0.
    pub(super) tail: i64,
}

impl Tail {
    fn len(self) -> usize {
        match self {
            Tail::None => 0,
            Tail::Sequence => 4,
            Tail::Start => 8,
        }
    }

    fn write(self, tail: i64, out: &mut Vec<u8>) {
        let bytes = tail.to_be_bytes();
        out.extend_from_slice(bytes.get(8 - self.len()..).unwrap_or_default());
    }

    /// Splits the tail off.
    fn read(self, bytes: &[u8]) -> Option<(&[u8], i64)> {
        let (rest, tail) = bytes.split_at_checked(bytes.len().checked_sub(self.len())?)?;
        Some((rest, tail.iter().fold(0, |number, byte| number << 8 | i64::from(*byte))))
    }

    /// What the changelog has in its place.
    fn logged(self) -> Tail {
        match self {
            Tail::None | Tail::Sequence => Tail::Sequence,
            Tail::Start => Tail::Start,
        }
    }
}

impl WindowedKeys {
    /// The first part of the keys of rows with this time.
    pub(super) fn prefix(self, time: i64) -> i64 {
        time / self.bucket_ms.unwrap_or(1)
    }

    /// Writes the key of a row.
    pub(super) fn encode(self, parts: Parts<'_>, out: &mut Vec<u8>) {
        out.clear();
        self.encode_at(self.prefix(parts.time), parts, out);
    }

    /// The same, in a given bucket.
    pub(super) fn encode_at(self, prefix: i64, Parts { key, time, tail }: Parts<'_>, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&prefix.to_be_bytes());
        out.extend_from_slice(key);
        if self.bucket_ms.is_some() {
            out.extend_from_slice(&time.to_be_bytes());
        }
        self.tail.write(self.turned(tail), out);
    }

    /// The keys of one key's rows lie from the first of these to the second.
    pub(super) fn range(self, prefix: i64, key: &[u8], times: (i64, i64)) -> (Vec<u8>, Vec<u8>) {
        let (mut start, mut end) = (Vec::new(), Vec::new());
        // What lies first is written turned, too.
        let (first, last) = if self.turned(0) == 0 { (0, i64::MAX) } else { (i64::MAX, 0) };
        self.encode_at(prefix, Parts { key, time: times.0, tail: first }, &mut start);
        self.encode_at(prefix, Parts { key, time: times.1, tail: last }, &mut end);
        (start, end)
    }

    /// A tail as it lies in the key of a row, and back.
    pub(super) fn turned(self, tail: i64) -> i64 {
        if self.tail == Tail::Start && self.bucket_ms.is_none() { !tail } else { tail }
    }

    pub(super) fn decode(self, row: &[u8]) -> Option<Parts<'_>> {
        let (prefix, rest) = row.split_first_chunk()?;
        let (rest, tail) = self.tail.read(rest)?;
        let tail = self.turned(tail);
        Some(match self.bucket_ms {
            Some(_) => {
                let (key, time) = rest.split_last_chunk()?;
                Parts { key, time: i64::from_be_bytes(*time), tail }
            }
            None => Parts { key: rest, time: i64::from_be_bytes(*prefix), tail },
        })
    }

    /// The time of a row.
    pub(super) fn time(self, row: &[u8]) -> Option<i64> {
        self.decode(row).map(|parts| parts.time)
    }

    /// The key of the changelog record of a row.
    pub(super) fn to_changelog(self, row: &[u8], out: &mut Vec<u8>) {
        out.clear();
        if let Some(parts) = self.decode(row) {
            self.encode_logged(parts, out);
        }
    }

    pub(super) fn encode_logged(self, parts: Parts<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(parts.key);
        out.extend_from_slice(&parts.time.to_be_bytes());
        self.tail.logged().write(parts.tail, out);
    }

    /// What the key of a changelog record says.
    pub(super) fn decode_logged(self, key: &[u8]) -> Option<Parts<'_>> {
        let (rest, tail) = self.tail.logged().read(key)?;
        let (key, time) = rest.split_last_chunk()?;
        Some(Parts { key, time: i64::from_be_bytes(*time), tail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(keys: WindowedKeys, parts: Parts<'_>) -> (Vec<u8>, Vec<u8>) {
        let (mut row, mut logged) = (Vec::new(), Vec::new());
        keys.encode(parts, &mut row);
        assert_eq!(keys.decode(&row), Some(parts));
        keys.to_changelog(&row, &mut logged);
        assert_eq!(keys.decode_logged(&logged), Some(parts));
        (row, logged)
    }

    /// State that a released version has written must open in the next one.
    #[test]
    fn rows_have_these_keys() {
        let bucket_ms = Some(60_000);
        let parts = Parts { key: b"k1", time: 120_001, tail: 0 };
        let plain = WindowedKeys { tail: Tail::None, bucket_ms, drops_each: false };
        let logged = b"k1\0\0\0\0\0\x01\xd4\xc1\0\0\0\0".to_vec();
        assert_eq!(bytes(plain, parts), (b"\0\0\0\0\0\0\0\x02k1\0\0\0\0\0\x01\xd4\xc1".to_vec(), logged.clone()));
        let in_memory = WindowedKeys { tail: Tail::None, bucket_ms: None, drops_each: false };
        assert_eq!(bytes(in_memory, parts), (b"\0\0\0\0\0\x01\xd4\xc1k1".to_vec(), logged));
        let parts = Parts { tail: 7, ..parts };
        let duplicates = WindowedKeys { tail: Tail::Sequence, bucket_ms, drops_each: false };
        let logged = b"k1\0\0\0\0\0\x01\xd4\xc1\0\0\0\x07".to_vec();
        assert_eq!(bytes(duplicates, parts).1, logged);
        let session = WindowedKeys { tail: Tail::Start, bucket_ms, drops_each: false };
        let logged = b"k1\0\0\0\0\0\x01\xd4\xc1\0\0\0\0\0\0\0\x07".to_vec();
        assert_eq!(bytes(session, parts).1, logged);
    }

    #[test]
    fn a_key_that_is_too_short_is_none() {
        for tail in [Tail::None, Tail::Sequence, Tail::Start] {
            for bucket_ms in [None, Some(60_000)] {
                let keys = WindowedKeys { tail, bucket_ms, drops_each: false };
                assert_eq!(keys.decode(b"\0\0\0"), None);
                assert_eq!(keys.decode_logged(b"\0\0\0\0\0\0"), None);
            }
        }
    }
}
