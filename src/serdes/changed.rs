//! A change of a row as it travels through the repartition topic of a grouped table.

use super::{DynSerde, Serde, encode, read_varint, write_varint};
use crate::error::{Error, ErrorKind, Result};
use crate::record::Change;

/// Java's `ChangedSerializer`; the flag is the last byte.
///
/// ```text
///   new only   new | 1
///   old only   old | 0
///   both       zig-zag varint of new's length | new | old | 2      (KIP-904)
/// ```
/// 3, 4 and 5 are the same with one byte more before the flag, which says whether the row is the latest of its key.
pub(crate) struct Changed<V>(pub(crate) DynSerde<V>);

impl<V: 'static> Serde for Changed<V> {
    type Item = Change<V>;

    fn serialize(&self, item: &Change<V>, bytes: &mut Vec<u8>) -> Result<()> {
        let flag = match (&item.new, &item.old) {
            (Some(new), None) => {
                encode(&*self.0, new, bytes)?;
                1
            }
            (None, Some(old)) => {
                encode(&*self.0, old, bytes)?;
                0
            }
            (Some(new), Some(old)) => {
                let mut encoded = Vec::new();
                encode(&*self.0, new, &mut encoded)?;
                let length = i32::try_from(encoded.len());
                write_varint(length.map_err(|error| Error::invalid("a row is too long").with_source(error))?, bytes);
                bytes.extend_from_slice(&encoded);
                encode(&*self.0, old, bytes)?;
                2
            }
            (None, None) => {
                return Err(Error::new(ErrorKind::Internal, "a change of nothing to nothing has no bytes"));
            }
        };
        bytes.push(flag);
        Ok(())
    }

    fn deserialize(&self, bytes: &[u8]) -> Result<Change<V>> {
        let broken = || Error::corrupted("a change of a table without a known flag at its end");
        let (flag, rest) = bytes.split_last().ok_or_else(broken)?;
        let rest = if *flag >= 3 { rest.split_last().ok_or_else(broken)?.1 } else { rest };
        Ok(match flag % 3 {
            _ if *flag > 5 => return Err(broken()),
            0 => Change::latest(Some(self.0.deserialize(rest)?), None),
            1 => Change::latest(None, Some(self.0.deserialize(rest)?)),
            _ => {
                let (length, rest) = read_varint(rest).ok_or_else(broken)?;
                let length = usize::try_from(length).map_err(|_| broken())?;
                let (new, old) = rest.split_at_checked(length).ok_or_else(broken)?;
                Change::latest(Some(self.0.deserialize(old)?), Some(self.0.deserialize(new)?))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::serdes::Utf8;

    fn bytes(old: Option<&str>, new: Option<&str>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let change = Change::latest(old.map(str::to_owned), new.map(str::to_owned));
        Changed(Arc::new(Utf8)).serialize(&change, &mut bytes).unwrap();
        assert_eq!(Changed(Arc::new(Utf8)).deserialize(&bytes).unwrap(), change);
        bytes
    }

    #[test]
    fn a_change_has_the_bytes_of_java() {
        assert_eq!(bytes(None, Some("new")), b"new\x01");
        assert_eq!(bytes(Some("old"), None), b"old\x00");
        assert_eq!(bytes(Some("older"), Some("new")), b"\x06newolder\x02");
        assert_eq!(bytes(Some("y"), Some(&"x".repeat(127)))[..3], [0xfe, 0x01, b'x']);
    }

    #[test]
    fn a_flag_of_the_next_release_is_read() {
        let change = Changed(Arc::new(Utf8)).deserialize(b"new\x01\x04").unwrap();
        assert_eq!(change, Change::latest(None, Some("new".to_owned())));
        assert!(Changed(Arc::new(Utf8)).deserialize(b"new\x06").is_err());
        assert!(Changed(Arc::new(Utf8)).deserialize(b"").is_err());
    }
}
