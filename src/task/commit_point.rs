//! What is committed for an input partition.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::record::OffsetAndMetadata;
use crate::topology::ProcessorMetadata;

/// The next offset of an input, and the time its partition has reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommitPoint {
    pub offset: i64,
    /// The highest timestamp (ms) taken from the partition; -1: not known.
    pub partition_time: i64,
    /// What operators keep with the offsets, the same at every input of a task.
    pub processor_metadata: ProcessorMetadata,
}

/// Java's commit metadata: Base64 of `magic 1 = 2 | partition time 8 | [ count 4 { name, value 8 }* ]`.
const MAGIC: u8 = 2;
/// Only a time: written by older versions of Java.
const MAGIC_TIME_ONLY: u8 = 1;

impl CommitPoint {
    /// Nothing was taken from the partition before this offset.
    pub(crate) fn starting_at(offset: i64) -> CommitPoint {
        CommitPoint { offset, partition_time: -1, processor_metadata: ProcessorMetadata::new() }
    }

    pub(crate) fn encode(&self) -> OffsetAndMetadata {
        let mut bytes = vec![MAGIC];
        bytes.extend_from_slice(&self.partition_time.to_be_bytes());
        if !self.processor_metadata.is_empty() {
            let length = |length: usize| i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes();
            bytes.extend_from_slice(&length(self.processor_metadata.len()));
            for (name, value) in &self.processor_metadata {
                bytes.extend_from_slice(&length(name.len()));
                bytes.extend_from_slice(name.as_bytes());
                bytes.extend_from_slice(&value.to_be_bytes());
            }
        }
        OffsetAndMetadata { offset: self.offset, metadata: STANDARD.encode(bytes) }
    }

    /// Text that is not ours makes the time unknown, as in Java: the offset still counts.
    pub(crate) fn decode(committed: &OffsetAndMetadata) -> CommitPoint {
        let bytes = STANDARD.decode(&committed.metadata).unwrap_or_default();
        let (partition_time, processor_metadata) = read(&bytes).unwrap_or_else(|| (-1, ProcessorMetadata::new()));
        CommitPoint { offset: committed.offset, partition_time, processor_metadata }
    }
}

fn read(bytes: &[u8]) -> Option<(i64, ProcessorMetadata)> {
    let (magic, rest) = bytes.split_first()?;
    let (time, mut rest) = rest.split_first_chunk()?;
    let time = i64::from_be_bytes(*time);
    let mut metadata = ProcessorMetadata::new();
    if *magic == MAGIC_TIME_ONLY || rest.is_empty() {
        return (*magic == MAGIC_TIME_ONLY || *magic == MAGIC).then_some((time, metadata));
    }
    if *magic != MAGIC {
        return None;
    }
    let mut take = |length: usize| {
        let (taken, left) = rest.split_at_checked(length)?;
        rest = left;
        Some(taken)
    };
    let int = |bytes: &[u8]| usize::try_from(i32::from_be_bytes(bytes.try_into().ok()?)).ok();
    for _ in 0..int(take(4)?)? {
        let length = int(take(4)?)?;
        let name = std::str::from_utf8(take(length)?).ok()?;
        metadata.insert(name.into(), i64::from_be_bytes(take(8)?.try_into().ok()?));
    }
    Some((time, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_is_that_of_java() {
        let point = |partition_time| CommitPoint { partition_time, ..CommitPoint::starting_at(7) };
        assert_eq!(point(1000).encode().metadata, "AgAAAAAAAAPo");
        assert_eq!(point(-1).encode().metadata, "Av//////////");
        let with_map = "AgAAAAAAAAPoAAAAAQAAAAZjb3VudHMAAAAAAAFfkA==";
        let processor_metadata = ProcessorMetadata::from([("counts".into(), 90_000)]);
        let counts = CommitPoint { processor_metadata, ..point(1000) };
        assert_eq!(counts.encode().metadata, with_map);
        for (metadata, expected) in
            [("AgAAAAAAAAPo", point(1000)), (with_map, counts), ("", point(-1)), ("not ours", point(-1))]
        {
            let committed = OffsetAndMetadata { offset: 7, metadata: metadata.to_owned() };
            assert_eq!(CommitPoint::decode(&committed), expected);
        }
    }
}
