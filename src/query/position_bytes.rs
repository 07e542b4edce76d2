//! The bytes of a position, Java's.

use super::position::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

/// The only one.
const VERSION: u8 = 0;

impl Position {
    /// `version 1 | topics 4 { length 4, topic, partitions 4 { partition 4, offset 8 }* }*`, big endian.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let count = |count: usize| i32::try_from(count).map(i32::to_be_bytes).map_err(|_| broken("it is too long"));
        let offsets: Vec<_> = self.iter().collect();
        let topics = || offsets.chunk_by(|(one, _), (other, _)| one.topic == other.topic);
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&count(topics().count())?);
        for partitions in topics() {
            let topic = partitions.first().map_or("", |(at, _)| &at.topic);
            bytes.extend_from_slice(&count(topic.len())?);
            bytes.extend_from_slice(topic.as_bytes());
            bytes.extend_from_slice(&count(partitions.len())?);
            for (at, offset) in partitions {
                bytes.extend_from_slice(&at.partition.to_be_bytes());
                bytes.extend_from_slice(&offset.to_be_bytes());
            }
        }
        Ok(bytes)
    }

    /// What follows the last topic is left alone: Java writes the whole buffer, zeros and all.
    ///
    /// # Errors
    /// `Corrupted` for bytes that are no such thing.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Position> {
        let mut rest = bytes;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(broken("it has another version"));
        }
        let mut position = Position::new();
        for _ in 0..count(&mut rest)? {
            let length = count(&mut rest)?;
            let (topic, behind) = rest.split_at_checked(length).ok_or_else(|| broken("it ends too early"))?;
            rest = behind;
            let topic = std::str::from_utf8(topic).map_err(|_| broken("it has a topic that is not UTF-8"))?;
            for _ in 0..count(&mut rest)? {
                let partition = i32::from_be_bytes(take(&mut rest)?);
                position.add(TopicPartition::new(topic, partition), i64::from_be_bytes(take(&mut rest)?));
            }
        }
        Ok(position)
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
        let positions = Position::at("in", 0, 42).with("in", 3, 7).with("other", 1, 2);
        let bytes = positions.encode().unwrap();
        assert_eq!(&bytes[..15], b"\0\0\0\0\x02\0\0\0\x02in\0\0\0\x02");
        assert_eq!(Position::decode(&bytes).unwrap(), positions);
        let padded = [bytes.as_slice(), &[0; 9]].concat();
        assert_eq!(Position::decode(&padded).unwrap(), positions);
        assert!((0..bytes.len()).all(|end| Position::decode(&bytes[..end]).is_err()));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            let _ = Position::decode(&changed);
        }
    }
}
