//! The bytes of what is kept in a directory.
//!
//! Numbers are little endian. `bytes` is a length (u32, 0xffff_ffff for null) and that many bytes; `text` is `bytes` in
//! UTF-8; a list is a length (u32) and its items.
//!
//! ```text
//! record   kind u8 (0 data, 1 commit marker, 2 abort marker), offset i64, timestamp i64, transaction u64 (0: none),
//!          and for data: key bytes, value bytes, headers list of (name text, value bytes)
//! entry    kind u8, then the fields of the `Entry` in their order
//! ```

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::client::embedded::log::{Content, Data, Outcome, Stored};
use crate::error::{Error, Result};
use crate::record::{Headers, OffsetAndMetadata, TopicPartition};

/// What the meta log holds: everything but the records.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    TopicCreated {
        name: String,
        id: Uuid,
        partitions: i32,
        settings: BTreeMap<String, String>,
    },
    TopicDeleted {
        name: String,
    },
    LogStart {
        topic: Uuid,
        partition: i32,
        offset: i64,
    },
    /// A producer took over a transactional id, or its transaction timed out.
    Epoch {
        id: String,
        epoch: i32,
    },
    Begin {
        transaction: u64,
        id: String,
        started: i64,
        timeout_ms: i64,
    },
    /// The decision. Control records that did not reach their logs are written when the directory is opened.
    End {
        transaction: u64,
        outcome: Outcome,
        offsets: Vec<Committed>,
    },
    Offsets {
        offsets: Vec<Committed>,
    },
    NextTransaction {
        transaction: u64,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Committed {
    pub(super) group: String,
    pub(super) partition: TopicPartition,
    pub(super) position: OffsetAndMetadata,
}

impl Stored {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let kind = match &self.content {
            Content::Data(_) => 0,
            Content::Marker(Outcome::Commit) => 1,
            Content::Marker(Outcome::Abort) => 2,
        };
        out.push(kind);
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.timestamp.to_le_bytes());
        out.extend_from_slice(&self.transaction.unwrap_or(0).to_le_bytes());
        if let Content::Data(data) = &self.content {
            put_bytes(out, data.key.as_deref());
            put_bytes(out, data.value.as_deref());
            put_length(out, data.headers.len());
            for (name, value) in data.headers.iter() {
                put_bytes(out, Some(name.as_bytes()));
                put_bytes(out, value);
            }
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Stored> {
        let mut input = Input(bytes);
        let kind = input.byte()?;
        let (offset, timestamp) = (input.i64()?, input.i64()?);
        let transaction = Some(input.u64()?).filter(|transaction| *transaction != 0);
        let content = match kind {
            0 => {
                let (key, value) = (input.bytes()?.map(Into::into), input.bytes()?.map(Into::into));
                let mut headers = Headers::new();
                for _ in 0..input.u32()? {
                    headers.push(input.text()?, input.bytes()?.map(<[u8]>::to_vec));
                }
                Content::Data(Data { key, value, headers })
            }
            1 => Content::Marker(Outcome::Commit),
            2 => Content::Marker(Outcome::Abort),
            other => return Err(Error::corrupted(format!("a record is of the unknown kind {other}"))),
        };
        input.end()?;
        Ok(Stored { offset, timestamp, transaction, content })
    }
}

impl Entry {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Entry::TopicCreated { name, id, partitions, settings } => {
                out.push(0);
                put_text(out, name);
                out.extend_from_slice(id.as_bytes());
                out.extend_from_slice(&partitions.to_le_bytes());
                put_length(out, settings.len());
                for (name, value) in settings {
                    put_text(out, name);
                    put_text(out, value);
                }
            }
            Entry::TopicDeleted { name } => {
                out.push(1);
                put_text(out, name);
            }
            Entry::LogStart { topic, partition, offset } => {
                out.push(2);
                out.extend_from_slice(topic.as_bytes());
                out.extend_from_slice(&partition.to_le_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
            }
            Entry::Epoch { id, epoch } => {
                out.push(3);
                put_text(out, id);
                out.extend_from_slice(&epoch.to_le_bytes());
            }
            Entry::Begin { transaction, id, started, timeout_ms } => {
                out.push(4);
                out.extend_from_slice(&transaction.to_le_bytes());
                put_text(out, id);
                out.extend_from_slice(&started.to_le_bytes());
                out.extend_from_slice(&timeout_ms.to_le_bytes());
            }
            Entry::End { transaction, outcome, offsets } => {
                out.push(5);
                out.extend_from_slice(&transaction.to_le_bytes());
                out.push(u8::from(*outcome == Outcome::Commit));
                put_committed(out, offsets);
            }
            Entry::Offsets { offsets } => {
                out.push(6);
                put_committed(out, offsets);
            }
            Entry::NextTransaction { transaction } => {
                out.push(7);
                out.extend_from_slice(&transaction.to_le_bytes());
            }
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Entry> {
        let mut input = Input(bytes);
        let entry = match input.byte()? {
            0 => {
                let (name, id, partitions) = (input.text()?, input.uuid()?, input.i32()?);
                let mut settings = BTreeMap::new();
                for _ in 0..input.u32()? {
                    let name = input.text()?;
                    settings.insert(name, input.text()?);
                }
                Entry::TopicCreated { name, id, partitions, settings }
            }
            1 => Entry::TopicDeleted { name: input.text()? },
            2 => Entry::LogStart { topic: input.uuid()?, partition: input.i32()?, offset: input.i64()? },
            3 => Entry::Epoch { id: input.text()?, epoch: input.i32()? },
            4 => Entry::Begin {
                transaction: input.u64()?,
                id: input.text()?,
                started: input.i64()?,
                timeout_ms: input.i64()?,
            },
            5 => {
                let transaction = input.u64()?;
                let outcome = if input.byte()? == 0 { Outcome::Abort } else { Outcome::Commit };
                Entry::End { transaction, outcome, offsets: input.committed()? }
            }
            6 => Entry::Offsets { offsets: input.committed()? },
            7 => Entry::NextTransaction { transaction: input.u64()? },
            other => return Err(Error::corrupted(format!("an entry is of the unknown kind {other}"))),
        };
        input.end()?;
        Ok(entry)
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // Nothing that long gets here: records are bounded by the topic's max.message.bytes.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX - 1).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
        None => out.extend_from_slice(&u32::MAX.to_le_bytes()),
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, Some(text.as_bytes()));
}

fn put_committed(out: &mut Vec<u8>, offsets: &[Committed]) {
    put_length(out, offsets.len());
    for Committed { group, partition, position } in offsets {
        put_text(out, group);
        put_text(out, &partition.topic);
        out.extend_from_slice(&partition.partition.to_le_bytes());
        out.extend_from_slice(&position.offset.to_le_bytes());
        put_text(out, &position.metadata);
    }
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| Error::corrupted("a record is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn uuid(&mut self) -> Result<Uuid> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    fn bytes(&mut self) -> Result<Option<&'a [u8]>> {
        match self.u32()? {
            u32::MAX => Ok(None),
            length => self.take(length as usize).map(Some),
        }
    }

    fn text(&mut self) -> Result<String> {
        let bytes = self.bytes()?.unwrap_or_default();
        String::from_utf8(bytes.to_vec()).map_err(|error| Error::corrupted("a name is not in utf-8").with_source(error))
    }

    fn committed(&mut self) -> Result<Vec<Committed>> {
        let mut offsets = Vec::new();
        for _ in 0..self.u32()? {
            let (group, topic, partition) = (self.text()?, self.text()?, self.i32()?);
            let position = OffsetAndMetadata { offset: self.i64()?, metadata: self.text()? };
            offsets.push(Committed { group, partition: TopicPartition::new(topic, partition), position });
        }
        Ok(offsets)
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::corrupted("a record is longer than what it says")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = Stored> {
        let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20));
        let headers = proptest::collection::vec(("[a-zäö]{0,5}", bytes()), 0..4);
        let data = (bytes(), bytes(), headers).prop_map(|(key, value, pairs)| {
            let mut headers = Headers::new();
            pairs.into_iter().for_each(|(name, value)| headers.push(name, value));
            Content::Data(Data { key: key.map(Into::into), value: value.map(Into::into), headers })
        });
        let marker = any::<bool>().prop_map(|commit| match commit {
            true => Content::Marker(Outcome::Commit),
            false => Content::Marker(Outcome::Abort),
        });
        (any::<i64>(), any::<i64>(), proptest::option::of(1..u64::MAX), prop_oneof![data, marker])
            .prop_map(|(offset, timestamp, transaction, content)| Stored { offset, timestamp, transaction, content })
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(record in record()) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(Stored::decode(&bytes).unwrap(), record);
            for length in 0..bytes.len() {
                prop_assert!(Stored::decode(&bytes[..length]).is_err());
            }
        }

        #[test]
        fn hostile_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Stored::decode(&bytes);
            let _ = Entry::decode(&bytes);
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let offsets = vec![Committed {
            group: "app".into(),
            partition: TopicPartition::new("orders", 3),
            position: OffsetAndMetadata { offset: 7, metadata: "AgAA".into() },
        }];
        let id = Uuid::new_v4();
        let settings = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        for entry in [
            Entry::TopicCreated { name: "orders".into(), id, partitions: 4, settings },
            Entry::TopicDeleted { name: "orders".into() },
            Entry::LogStart { topic: id, partition: 3, offset: 9 },
            Entry::Epoch { id: "app-1".into(), epoch: 2 },
            Entry::Begin { transaction: 5, id: "app-1".into(), started: 1, timeout_ms: 10_000 },
            Entry::End { transaction: 5, outcome: Outcome::Commit, offsets: offsets.clone() },
            Entry::End { transaction: 6, outcome: Outcome::Abort, offsets: vec![] },
            Entry::Offsets { offsets },
            Entry::NextTransaction { transaction: 8 },
        ] {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            assert_eq!(Entry::decode(&bytes).unwrap(), entry);
        }
    }
}
