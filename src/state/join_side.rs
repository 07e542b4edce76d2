//! Keys of the records of an outer join that have found nobody yet: `timestamp 8 | side 1 (left 1, right 0) | key`.
//!
//! The bytes are Java's, and their order is that in which records are given up: by time, right before left, by key.

use crate::error::{Error, Result};

/// A side of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

impl Side {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Side::Left => 1,
            Side::Right => 0,
        }
    }

    pub(crate) fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

pub(crate) fn encode_join_key(timestamp: i64, side: Side, key: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&timestamp.to_be_bytes());
    out.push(side.byte());
    out.extend_from_slice(key);
}

pub(crate) fn decode_join_key(row_key: &[u8]) -> Result<(i64, Side, &[u8])> {
    let (timestamp, rest) = row_key.split_first_chunk().ok_or_else(damaged)?;
    let (side, key) = rest.split_first().ok_or_else(damaged)?;
    let side = if *side == 0 { Side::Right } else { Side::Left };
    Ok((i64::from_be_bytes(*timestamp), side, key))
}

#[cold]
fn damaged() -> Error {
    Error::corrupted("a key of the store of an outer join is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_java() {
        let mut key = Vec::new();
        encode_join_key(1000, Side::Left, b"k1", &mut key);
        assert_eq!(key, b"\0\0\0\0\0\0\x03\xe8\x01k1");
        assert_eq!(decode_join_key(&key).unwrap(), (1000, Side::Left, &b"k1"[..]));
        encode_join_key(1000, Side::Right, b"k1", &mut key);
        assert_eq!(key, b"\0\0\0\0\0\0\x03\xe8\0k1");
        assert!(decode_join_key(b"\0\0").is_err());
    }
}
