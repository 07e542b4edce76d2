//! What a store on disk knows about itself: written in the same batch as its rows, so it is never ahead of them nor behind.

use std::sync::Arc;

use uuid::Uuid;

/// The changelog partition that a store is backed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChangelogIdentity {
    pub topic: Arc<str>,
    /// None where the broker does not tell: then a topic that was deleted and created again looks the same.
    pub topic_id: Option<Uuid>,
    pub partition: i32,
}

impl ChangelogIdentity {
    /// Whether it is the same partition, as far as anybody can tell.
    pub(super) fn is_same(&self, other: &ChangelogIdentity) -> bool {
        let same_id = match (self.topic_id, other.topic_id) {
            (Some(this), Some(other)) => this == other,
            (None, _) | (_, None) => true,
        };
        self.topic == other.topic && self.partition == other.partition && same_id
    }
}

/// The meta record of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    /// None: the store has no changelog.
    pub changelog: Option<ChangelogIdentity>,
    /// The next changelog offset that the store needs.
    pub next_offset: Option<i64>,
    /// When it was written, in milliseconds since the epoch; 0: not known.
    pub wall_clock_ms: i64,
    /// The largest time (ms) that was put to a store whose rows expire; -1: none.
    pub stream_time: i64,
}

/// How the rows of a store are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The kind of the store.
    pub kind: u8,
    /// The length of the pieces of time (ms) that its rows lie in; 0: there are none.
    pub bucket_ms: i64,
}

/// A change of the layout of rows or of this record makes stores be restored from their changelogs: raise it then.
const FORMAT: u8 = 2;

impl Meta {
    /// Writes
    ///
    /// ```text
    ///   0   format 1 | kind of the store 1 | bucket in ms 8
    ///  10   topic id 16, zeros: not known
    ///  26   partition 4
    ///  30   next offset 8, -1: none
    ///  38   wall clock in ms 8
    ///  46   stream time in ms 8, -1: none
    ///  54   changelog topic, UTF-8, to the end; empty: no changelog
    /// ```
    ///
    /// Numbers are big endian.
    pub(super) fn encode(&self, layout: Layout, out: &mut Vec<u8>) {
        let (topic, id, partition) = match &self.changelog {
            Some(log) => (&*log.topic, log.topic_id.unwrap_or_default(), log.partition),
            None => ("", Uuid::nil(), 0),
        };
        out.clear();
        out.extend_from_slice(&[FORMAT, layout.kind]);
        out.extend_from_slice(&layout.bucket_ms.to_be_bytes());
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(&partition.to_be_bytes());
        out.extend_from_slice(&self.next_offset.unwrap_or(-1).to_be_bytes());
        out.extend_from_slice(&self.wall_clock_ms.to_be_bytes());
        out.extend_from_slice(&self.stream_time.to_be_bytes());
        out.extend_from_slice(topic.as_bytes());
    }

    /// Reads it again.
    ///
    /// # Errors
    /// Why it is of no use.
    pub(super) fn decode(bytes: &[u8], layout: Layout) -> Result<Meta, &'static str> {
        let short = "its meta record is too short";
        let (&[format, kind], rest) = bytes.split_first_chunk().ok_or(short)?;
        if format != FORMAT {
            return Err("its meta record has a format of another version");
        }
        if kind != layout.kind {
            return Err("it was a store of another kind");
        }
        let (bucket_ms, rest) = rest.split_first_chunk().ok_or(short)?;
        if i64::from_be_bytes(*bucket_ms) != layout.bucket_ms {
            return Err("its rows lie in pieces of another length: its retention was another one");
        }
        let (id, rest) = rest.split_first_chunk().ok_or(short)?;
        let (partition, rest) = rest.split_first_chunk().ok_or(short)?;
        let (offset, rest) = rest.split_first_chunk().ok_or(short)?;
        let (wall_clock, rest) = rest.split_first_chunk().ok_or(short)?;
        let (stream_time, topic) = rest.split_first_chunk().ok_or(short)?;
        let topic = std::str::from_utf8(topic).map_err(|_| "its meta record names no topic")?;
        let (id, offset) = (Uuid::from_bytes(*id), i64::from_be_bytes(*offset));
        let changelog = ChangelogIdentity {
            topic: topic.into(),
            topic_id: (!id.is_nil()).then_some(id),
            partition: i32::from_be_bytes(*partition),
        };
        Ok(Meta {
            changelog: (!topic.is_empty()).then_some(changelog),
            next_offset: (offset >= 0).then_some(offset),
            wall_clock_ms: i64::from_be_bytes(*wall_clock),
            stream_time: i64::from_be_bytes(*stream_time),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        let topic_id = Some(Uuid::from_bytes(*b"0123456789abcdef"));
        let changelog = Some(ChangelogIdentity { topic: "app-st-changelog".into(), topic_id, partition: 3 });
        Meta { changelog, next_offset: Some(258), wall_clock_ms: 1_700_000_000_000, stream_time: 515 }
    }

    const LAYOUT: Layout = Layout { kind: 1, bucket_ms: 772 };

    /// State that a released version has written must open in the next one: a change here is a change of the format.
    #[test]
    fn the_meta_record_has_these_bytes() {
        let mut bytes = Vec::new();
        meta().encode(LAYOUT, &mut bytes);
        let fixture =
            b"\x02\x01\0\0\0\0\0\0\x03\x040123456789abcdef\0\0\0\x03\0\0\0\0\0\0\x01\x02\0\0\x01\x8b\xcf\xe5\x68\0\0\0\0\0\0\0\x02\x03app-st-changelog";
        assert_eq!(bytes, fixture);
        assert_eq!(Meta::decode(fixture, LAYOUT), Ok(meta()));
    }

    #[test]
    fn a_record_of_another_version_kind_or_length_is_refused() {
        let mut bytes = Vec::new();
        meta().encode(LAYOUT, &mut bytes);
        assert!(Meta::decode(&bytes, Layout { kind: 0, ..LAYOUT }).is_err());
        assert!(Meta::decode(&bytes, Layout { bucket_ms: 0, ..LAYOUT }).is_err());
        assert!((0..54).all(|end| Meta::decode(&bytes[..end], LAYOUT).is_err()));
        bytes[0] = 3;
        assert!(Meta::decode(&bytes, LAYOUT).is_err());
        let none = Meta { changelog: None, next_offset: None, wall_clock_ms: 0, stream_time: -1 };
        none.encode(LAYOUT, &mut bytes);
        assert_eq!(Meta::decode(&bytes, LAYOUT), Ok(none));
    }
}
