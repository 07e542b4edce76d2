//! The requests of the reader: `Fetch` in the version that names topics and tells of truncation (12, since Kafka 2.7), and
//! `Metadata`.
//!
//! Without fetch sessions: what is asked for changes with every answer.

use std::sync::Arc;
use std::time::Duration;

use super::super::code::Code;
use super::super::codec::{Reader, Result, Writer};
use super::super::requests::encode_metadata;
use super::super::responses::brokers;
use super::super::security::Address;
use crate::client::Isolation;
use crate::record::TopicPartition;

/// The tag of the field that tells that what was fetched before is not in the leader's log.
const DIVERGING_EPOCH: usize = 0;

/// What all partitions of a request have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) isolation: Isolation,
    pub(super) max_wait: Duration,
    pub(super) min_bytes: i32,
    pub(super) max_bytes: i32,
    pub(super) partition_max_bytes: i32,
}

/// What is asked of one partition.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) partition: &'a TopicPartition,
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    /// Of the batch before the offset; -1: not known.
    pub(super) fetched_epoch: i32,
}

/// The body of a `Fetch`. The broker serves partitions in this order until the answer is full.
pub(super) fn encode_fetch(terms: &Terms, wanted: &[Wanted<'_>]) -> Vec<u8> {
    let mut out = Writer::default();
    // Not a broker.
    out.i32(-1);
    out.i32(i32::try_from(terms.max_wait.as_millis()).unwrap_or(i32::MAX));
    out.i32(terms.min_bytes);
    out.i32(terms.max_bytes);
    out.i8(match terms.isolation {
        Isolation::ReadUncommitted => 0,
        Isolation::ReadCommitted => 1,
    });
    // No session.
    out.i32(0);
    out.i32(-1);
    // As Java: a topic may come more than once, since the order counts.
    let topics = wanted.chunk_by(|a, b| a.partition.topic == b.partition.topic).collect::<Vec<_>>();
    out.list(topics.into_iter(), |out, partitions| {
        out.text(partitions.first().map_or("", |wanted| &wanted.partition.topic));
        out.list(partitions.iter(), |out, wanted| {
            out.i32(wanted.partition.partition);
            out.i32(wanted.leader_epoch);
            out.i64(wanted.offset);
            out.i32(wanted.fetched_epoch);
            // The log start of a follower.
            out.i64(-1);
            out.i32(terms.partition_max_bytes);
            out.no_tags();
        });
        out.no_tags();
    });
    // Nothing of a session is forgotten, and no rack: followers are not read.
    out.list([(); 0].into_iter(), |_, ()| {});
    out.text("");
    out.no_tags();
    out.0
}

/// What a broker says of one partition.
#[derive(Debug)]
pub(super) struct Fetched<'a> {
    pub(super) partition: i32,
    pub(super) error: Code,
    pub(super) high_watermark: i64,
    /// -1: the broker does not know.
    pub(super) stable_end: i64,
    /// First offsets and producers.
    pub(super) aborted: Vec<(i64, i64)>,
    pub(super) is_diverging: bool,
    pub(super) records: &'a [u8],
}

/// A broker's answer to a `Fetch`.
#[derive(Debug)]
pub(super) struct FetchAnswer<'a> {
    pub(super) throttle: Duration,
    pub(super) error: Code,
    pub(super) topics: Vec<(&'a str, Vec<Fetched<'a>>)>,
}

pub(super) fn decode_fetch(body: &[u8]) -> Result<FetchAnswer<'_>> {
    let mut reader = Reader::new(body);
    let throttle = Duration::from_millis(u64::try_from(reader.i32()?).unwrap_or(0));
    let error = Code(reader.i16()?);
    // The session.
    reader.i32()?;
    let topics = reader.list(|reader| {
        let topic = reader.str()?;
        let partitions = reader.list(decode_partition)?;
        reader.tags()?;
        Ok((topic, partitions))
    })?;
    Ok(FetchAnswer { throttle, error, topics })
}

fn decode_partition<'a>(reader: &mut Reader<'a>) -> Result<Fetched<'a>> {
    let (partition, error) = (reader.i32()?, Code(reader.i16()?));
    let (high_watermark, stable_end) = (reader.i64()?, reader.i64()?);
    // The log's start.
    reader.i64()?;
    let aborted = reader.list(|reader| {
        let (producer, first) = (reader.i64()?, reader.i64()?);
        reader.tags()?;
        Ok((first, producer))
    })?;
    // Which follower had better be asked.
    reader.i32()?;
    let records = reader.bytes()?;
    let mut is_diverging = false;
    reader.tagged(|tag, _| is_diverging |= tag == DIVERGING_EPOCH)?;
    Ok(Fetched { partition, error, high_watermark, stable_end, aborted, is_diverging, records })
}

/// The body of a `Metadata`.
pub(super) fn encode_topics(topics: &[Arc<str>]) -> Vec<u8> {
    let mut out = Writer::default();
    encode_metadata(topics, &mut out);
    out.no_tags();
    out.0
}

/// A topic, as any broker tells of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) error: Code,
    pub(super) partitions: Vec<Led>,
}

/// Who leads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Led {
    pub(super) partition: i32,
    pub(super) error: Code,
    /// -1: nobody.
    pub(super) leader: i32,
    pub(super) epoch: i32,
}

/// The brokers with their ids, and the topics that were asked for.
#[derive(Debug)]
pub(super) struct Whereabouts {
    pub(super) brokers: Vec<(i32, Address)>,
    pub(super) topics: Vec<Topic>,
}

pub(super) fn decode_whereabouts(body: &[u8]) -> Result<Whereabouts> {
    let mut reader = Reader::new(body);
    let brokers = brokers(&mut reader)?;
    // The cluster, and its controller.
    reader.optional_text()?;
    reader.i32()?;
    let topics = reader.list(|reader| {
        let error = Code(reader.i16()?);
        let name = Arc::from(reader.str()?);
        reader.bool()?;
        let partitions = reader.list(|reader| {
            let error = Code(reader.i16()?);
            let led = Led { error, partition: reader.i32()?, leader: reader.i32()?, epoch: reader.i32()? };
            for _ in ["replicas", "in sync", "offline"] {
                reader.list(Reader::i32)?;
            }
            reader.tags()?;
            Ok(led)
        })?;
        // What one may do with it.
        reader.i32()?;
        reader.tags()?;
        Ok(Topic { name, error, partitions })
    })?;
    Ok(Whereabouts { brokers, topics })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// One topic with two partitions: records `abc` and an aborted transaction of one, divergence of the other.
    const FETCHED: &[u8] = b"\0\0\0\x05\0\0\0\0\0\0\x02\x02t\x03\
        \0\0\0\x01\0\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\0\
        \x02\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x03\0\xff\xff\xff\xff\x04abc\0\
        \0\0\0\x02\0\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\0\
        \0\xff\xff\xff\xff\0\x01\0\x0d\0\0\0\x01\0\0\0\0\0\0\0\x04\0\0\0";

    #[test]
    fn a_fetch_has_the_bytes_of_its_version() {
        let terms = Terms {
            isolation: Isolation::ReadCommitted,
            max_wait: Duration::from_millis(100),
            min_bytes: 1,
            max_bytes: 16,
            partition_max_bytes: 8,
        };
        let partition = TopicPartition::new("t", 3);
        let wanted = [Wanted { partition: &partition, offset: 9, leader_epoch: 4, fetched_epoch: -1 }];
        let expected = "ffffffff 00000064 00000001 00000010 01 00000000 ffffffff \
            02 0274 02 00000003 00000004 0000000000000009 ffffffff ffffffffffffffff 00000008 00 00 01 01 00";
        assert_eq!(hex(&encode_fetch(&terms, &wanted)), expected.replace(' ', ""));
    }

    #[test]
    fn an_answer_tells_records_aborted_transactions_and_divergence() {
        let answer = decode_fetch(FETCHED).unwrap();
        assert_eq!((answer.throttle, answer.error), (Duration::from_millis(5), Code::NONE));
        let [(topic, partitions)] = &answer.topics[..] else { panic!("not one topic: {answer:?}") };
        let [one, two] = &partitions[..] else { panic!("not two partitions: {answer:?}") };
        assert_eq!((*topic, one.partition, one.records, one.is_diverging), ("t", 1, &b"abc"[..], false));
        assert_eq!((one.high_watermark, one.stable_end, &one.aborted[..]), (9, 8, &[(3, 7)][..]));
        assert_eq!((two.partition, two.records, two.is_diverging), (2, &b""[..], true));
    }

    proptest! {
        #[test]
        fn no_damaged_answer_ends_the_process(place in 0usize..200, byte in any::<u8>(), cut in 1usize..200) {
            let mut whole = FETCHED.to_vec();
            let length = whole.len();
            whole[place % length] = byte;
            whole.truncate(cut);
            let _ = decode_fetch(&whole);
            let _ = decode_whereabouts(&whole);
        }
    }
}
