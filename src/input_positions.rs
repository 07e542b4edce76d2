//! How far a store is in the inputs of its task: Java's `Position`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// The last offset of each input partition that a store reflects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InputPositions(pub BTreeMap<Arc<str>, BTreeMap<i32, i64>>);

/// The only one.
const VERSION: u8 = 0;

impl InputPositions {
    /// `version 1 | topics 4 { length 4, topic, partitions 4 { partition 4, offset 8 }* }*`, big endian.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let count = |count: usize| i32::try_from(count).map(i32::to_be_bytes).map_err(|_| broken("it is too long"));
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&count(self.0.len())?);
        for (topic, partitions) in &self.0 {
            bytes.extend_from_slice(&count(topic.len())?);
            bytes.extend_from_slice(topic.as_bytes());
            bytes.extend_from_slice(&count(partitions.len())?);
            for (partition, offset) in partitions {
                bytes.extend_from_slice(&partition.to_be_bytes());
                bytes.extend_from_slice(&offset.to_be_bytes());
            }
        }
        Ok(bytes)
    }

    /// What follows the last topic is left alone: Java writes the whole buffer, zeros and all.
    ///
    /// # Errors
    /// `Corrupted` for bytes that are no such thing.
    pub(crate) fn decode(bytes: &[u8]) -> Result<InputPositions> {
        let mut rest = bytes;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(broken("it has another version"));
        }
        let mut topics = BTreeMap::new();
        for _ in 0..count(&mut rest)? {
            let length = count(&mut rest)?;
            let (topic, behind) = rest.split_at_checked(length).ok_or_else(|| broken("it ends too early"))?;
            rest = behind;
            let topic = std::str::from_utf8(topic).map_err(|_| broken("it has a topic that is not UTF-8"))?;
            let mut partitions = BTreeMap::new();
            for _ in 0..count(&mut rest)? {
                let partition = i32::from_be_bytes(take(&mut rest)?);
                partitions.insert(partition, i64::from_be_bytes(take(&mut rest)?));
            }
            topics.insert(topic.into(), partitions);
        }
        Ok(InputPositions(topics))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (head, behind) = rest.split_first_chunk().ok_or_else(|| broken("it ends too early"))?;
    *rest = behind;
    Ok(*head)
}

/// Of things of at least one byte each.
fn count(rest: &mut &[u8]) -> Result<usize> {
    let count = i32::from_be_bytes(take(rest)?);
    let count = usize::try_from(count).map_err(|_| broken("it has a negative count"))?;
    if count > rest.len() { Err(broken("it counts more than it holds")) } else { Ok(count) }
}

#[cold]
fn broken(why: &str) -> Error {
    Error::new(ErrorKind::Corrupted, format!("could not read a position: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_has_javas_bytes_and_hostile_ones_are_refused() {
        let positions = InputPositions(BTreeMap::from([("in".into(), BTreeMap::from([(0, 42), (3, 7)]))]));
        let bytes = positions.encode().unwrap();
        assert_eq!(&bytes[..15], b"\0\0\0\0\x01\0\0\0\x02in\0\0\0\x02");
        assert_eq!(InputPositions::decode(&bytes).unwrap(), positions);
        let padded = [bytes.as_slice(), &[0; 9]].concat();
        assert_eq!(InputPositions::decode(&padded).unwrap(), positions);
        assert!((0..bytes.len()).all(|end| InputPositions::decode(&bytes[..end]).is_err()));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            let _ = InputPositions::decode(&changed);
        }
    }
}
