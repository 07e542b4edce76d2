//! What is committed for an input partition.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::record::OffsetAndMetadata;

/// The next offset of an input, and the time its partition has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommitPoint {
    pub offset: i64,
    /// The highest timestamp (ms) taken from the partition; -1: not known.
    pub partition_time: i64,
}

/// Java's commit metadata: Base64 of `magic 1 = 2 | partition time 8 | [ count 4 { name, value 8 }* ]`.
const MAGIC: u8 = 2;
/// Only a time: written by older versions of Java.
const MAGIC_TIME_ONLY: u8 = 1;

impl CommitPoint {
    pub(crate) fn encode(self) -> OffsetAndMetadata {
        let mut bytes = [MAGIC; 9];
        let (_, time) = bytes.split_at_mut(1);
        time.copy_from_slice(&self.partition_time.to_be_bytes());
        OffsetAndMetadata { offset: self.offset, metadata: STANDARD.encode(bytes) }
    }

    /// Text that is not ours makes the time unknown, as in Java: the offset still counts.
    pub(crate) fn decode(committed: &OffsetAndMetadata) -> CommitPoint {
        let time = || {
            let bytes = STANDARD.decode(&committed.metadata).ok()?;
            let (magic, rest) = bytes.split_first()?;
            let known = matches!(*magic, MAGIC | MAGIC_TIME_ONLY);
            known.then(|| rest.first_chunk().map(|time| i64::from_be_bytes(*time))).flatten()
        };
        CommitPoint { offset: committed.offset, partition_time: time().unwrap_or(-1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_is_that_of_java() {
        let text = |partition_time| CommitPoint { offset: 0, partition_time }.encode().metadata;
        assert_eq!(text(1000), "AgAAAAAAAAPo");
        assert_eq!(text(-1), "Av//////////");
        let with_map = "AgAAAAAAAAPoAAAAAQAAAAZjb3VudHMAAAAAAAFfkA==";
        for (metadata, time) in [("AgAAAAAAAAPo", 1000), (with_map, 1000), ("", -1), ("not ours", -1)] {
            let committed = OffsetAndMetadata { offset: 7, metadata: metadata.to_owned() };
            assert_eq!(CommitPoint::decode(&committed), CommitPoint { offset: 7, partition_time: time });
        }
    }
}
