//! Ends for good what a transactional id has begun, on every partition.
//!
//! A coordinator decides a transaction and then tells the partitions. Brokers of Kafka 4 leave out a partition whose leader
//! is down at that moment, as when they start after a crash, and still call the transaction complete (KAFKA-20734). There it
//! stays open for ever: readers of committed records wait behind it, and the next transaction of the same producer decides
//! anew, so that what was aborted may be committed after all. So whoever takes over a transactional id looks first:
//!
//! ```text
//!   DescribeTransactions ── under way ──> InitProducerId ends it; how it ended is seen meanwhile
//!          │
//!   Metadata, DescribeProducers of each leader ── nothing open of this producer ──> done
//!          │ open
//!   AddPartitionsToTxn, AddOffsetsToTxn, EndTxn: a transaction of the open partitions alone, that ends as theirs did
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SideOffsets;
use super::code::Code;
use super::codec::{Malformed, Reader, Result, Writer};
use super::offsets::{FENCING_PAUSE, Verdict, judged};
use super::requests::{Api, Request, by_topic, encode_metadata};
use super::responses;
use super::security::Address;
use crate::error::{self, Error, ErrorKind};
use crate::record::TopicPartition;

const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Between two looks at a partition that has no leader, or at a transaction that is about to end.
const PAUSE: Duration = Duration::from_millis(20);

/// How long partitions without a leader are waited for.
pub(in crate::client::kafka) const LEADERS_PATIENCE: Duration = Duration::from_secs(10);

/// Who ends the transactions of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client::kafka) enum Claim {
    /// Its own next producer, that fences when it is ready; when it has begun to look.
    Own { since: Instant },
    /// Somebody else: whoever has the id does not write any more.
    Fence,
}

/// Who writes under a transactional id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProducerIdAndEpoch {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

#[derive(Debug, Clone)]
pub(super) enum Ending {
    Describe(String),
    /// Where the topics' partitions are.
    Topics(String, Arc<[Arc<str>]>),
    /// What producers have open on partitions that a broker leads.
    Producers(String, Address, Vec<TopicPartition>),
    AddPartitions(String, ProducerIdAndEpoch, Vec<TopicPartition>),
    /// The offsets of the group.
    AddOffsets(String, ProducerIdAndEpoch),
    End(String, ProducerIdAndEpoch, Outcome),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Committed,
    Aborted,
}

/// What the coordinator knows of a transactional id.
#[derive(Debug)]
struct Described {
    state: String,
    producer: i64,
    /// Where the transaction writes, as long as it is under way.
    topics: Vec<Arc<str>>,
}

impl Described {
    /// How the last transaction has ended, or will.
    fn outcome(&self) -> Option<Outcome> {
        match self.state.as_str() {
            "PrepareCommit" | "CompleteCommit" => Some(Outcome::Committed),
            "PrepareAbort" | "CompleteAbort" | "PrepareEpochFence" => Some(Outcome::Aborted),
            _ => None,
        }
    }

    fn is_under_way(&self) -> bool {
        !matches!(self.state.as_str(), "Empty" | "CompleteCommit" | "CompleteAbort" | "Dead")
    }
}

impl Ending {
    pub(super) fn api(&self) -> Api {
        match self {
            Ending::Describe(_) => Api::DescribeTransactions,
            Ending::Topics(..) => Api::Metadata,
            Ending::Producers(..) => Api::DescribeProducers,
            Ending::AddPartitions(..) => Api::AddPartitionsToTxn,
            Ending::AddOffsets(..) => Api::AddOffsetsToTxn,
            Ending::End(..) => Api::EndTxn,
        }
    }

    pub(super) fn transactional_id(&self) -> &str {
        match self {
            Ending::Describe(id)
            | Ending::Topics(id, _)
            | Ending::Producers(id, ..)
            | Ending::AddPartitions(id, ..)
            | Ending::AddOffsets(id, _)
            | Ending::End(id, ..) => id,
        }
    }

    pub(super) fn broker(&self) -> Option<&Address> {
        match self {
            Ending::Producers(_, leader, _) => Some(leader),
            Ending::Describe(_)
            | Ending::Topics(..)
            | Ending::AddPartitions(..)
            | Ending::AddOffsets(..)
            | Ending::End(..) => None,
        }
    }

    /// The body without its tags.
    pub(super) fn encode(&self, group: &str, out: &mut Writer) {
        let begin = |out: &mut Writer, id: &str, producer: &ProducerIdAndEpoch| {
            out.text(id);
            out.i64(producer.id);
            out.i16(producer.epoch);
        };
        match self {
            Ending::Describe(id) => out.list([id].into_iter(), |out, id| out.text(id)),
            Ending::Topics(_, topics) => encode_metadata(topics, out),
            Ending::Producers(_, _, partitions) => encode_partitions(partitions, out),
            Ending::AddPartitions(id, producer, partitions) => {
                begin(out, id, producer);
                encode_partitions(partitions, out);
            }
            Ending::AddOffsets(id, producer) => {
                begin(out, id, producer);
                out.text(group);
            }
            Ending::End(id, producer, outcome) => {
                begin(out, id, producer);
                out.bool(*outcome == Outcome::Committed);
            }
        }
    }
}

fn encode_partitions(partitions: &[TopicPartition], out: &mut Writer) {
    out.list(by_topic(partitions.iter().map(|p| (p, ()))).into_iter(), |out, (topic, partitions)| {
        out.text(topic);
        out.list(partitions.into_iter(), |out, (partition, ())| out.i32(partition));
        out.no_tags();
    });
}

fn code(reader: &mut Reader<'_>) -> Result<Code> {
    reader.i16().map(Code)
}

fn described(body: &[u8]) -> Result<(Code, Described)> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    let states = reader.list(|reader| {
        let error = code(reader)?;
        reader.text()?;
        let state = reader.text()?;
        let (_timeout, _begun, producer, _epoch) = (reader.i32()?, reader.i64()?, reader.i64()?, reader.i16()?);
        let topics = reader.list(|reader| {
            let topic = Arc::from(reader.text()?);
            reader.list(Reader::i32)?;
            reader.tags()?;
            Ok(topic)
        })?;
        reader.tags()?;
        Ok((error, Described { state, producer, topics }))
    })?;
    states.into_iter().next().ok_or(Malformed("it says nothing of the transactional id"))
}

/// A transaction that is open on a partition: of which producer.
type Open = (TopicPartition, Code, Vec<i64>);

fn producers(body: &[u8]) -> Result<Vec<Open>> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    let topics = reader.list(|reader| {
        let topic: Arc<str> = reader.text()?.into();
        let partitions = reader.list(|reader| {
            let partition = TopicPartition::new(Arc::clone(&topic), reader.i32()?);
            let error = code(reader)?;
            reader.optional_text()?;
            let producers = reader.list(|reader| {
                let (producer, _epoch) = (reader.i64()?, reader.i32()?);
                let (_sequence, _time, _coordinator) = (reader.i32()?, reader.i64()?, reader.i32()?);
                let begun_at = reader.i64()?;
                reader.tags()?;
                Ok((begun_at >= 0).then_some(producer))
            })?;
            reader.tags()?;
            Ok((partition, error, producers.into_iter().flatten().collect()))
        })?;
        reader.tags()?;
        Ok(partitions)
    })?;
    Ok(topics.into_iter().flatten().collect())
}

/// The error of the first partition that has one.
fn added_partitions(body: &[u8]) -> Result<Code> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    let topics = reader.list(|reader| {
        reader.text()?;
        let codes = reader.list(|reader| {
            reader.i32()?;
            let error = code(reader)?;
            reader.tags()?;
            Ok(error)
        })?;
        reader.tags()?;
        Ok(codes)
    })?;
    Ok(topics.into_iter().flatten().find(|code| *code != Code::NONE).unwrap_or(Code::NONE))
}

/// A throttle time and a code, with more behind or not.
fn only_code(body: &[u8]) -> Result<Code> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    code(&mut reader)
}

impl SideOffsets {
    /// Ends what `id` has left open: with the coordinator, on the partitions of `outputs`, and in the offsets of the group.
    ///
    /// # Errors
    /// `Unavailable`: to be called again. `Invalid`: denied.
    pub(in crate::client::kafka) fn settle(
        &mut self,
        id: &str,
        outputs: &[Arc<str>],
        claim: Claim,
    ) -> error::Result<()> {
        let leaders_by = match claim {
            Claim::Fence => super::now() + LEADERS_PATIENCE,
            Claim::Own { since } => since + LEADERS_PATIENCE,
        };
        let found = match self.describe(id) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(()),
            // Brokers before 3.0 do not tell, and do not leave partitions out either.
            Err(error) if error.kind() == ErrorKind::Invalid => {
                tracing::debug!(transactional_id = id, error = error.report(), "its transactions cannot be looked at");
                return match claim {
                    Claim::Fence => self.take_over(id, &mut None).map(drop),
                    Claim::Own { .. } => Ok(()),
                };
            }
            Err(error) => return Err(error),
        };
        let topics: BTreeSet<Arc<str>> = outputs.iter().chain(&found.topics).cloned().collect();
        let topics: Arc<[Arc<str>]> = topics.into_iter().chain([OFFSETS_TOPIC.into()]).collect();
        let mut outcome = found.outcome();
        let mut producer = None;
        if found.is_under_way() || claim == Claim::Fence {
            producer = Some(self.take_over(id, &mut outcome)?);
        }
        let mut open = self.open(id, found.producer, &topics, leaders_by)?;
        if open.is_empty() {
            return Ok(());
        }
        let outcome = outcome.unwrap_or(Outcome::Aborted);
        tracing::warn!(
            transactional_id = id,
            ?outcome,
            partitions = ?open.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "a broker has ended a transaction without telling some partitions, where it is still open (KAFKA-20734); they \
             are told now"
        );
        let end = super::now() + self.patience;
        while !open.is_empty() {
            let producer = match producer.take() {
                Some(producer) => producer,
                None => self.take_over(id, &mut None)?,
            };
            self.end(id, producer, open, outcome)?;
            open = self.open(id, found.producer, &topics, leaders_by)?;
            if !open.is_empty() && super::now() >= end {
                let text = format!("could not end the transactions of {id}: they stay open on some partitions");
                return Err(Error::new(ErrorKind::Unavailable, text));
            }
        }
        Ok(())
    }

    /// Whether the last transaction of `id`, which has ended, is still open somewhere. Leaders are waited for until
    /// `leaders_by`.
    ///
    /// # Errors
    /// Those of [`settle`](SideOffsets::settle).
    pub(in crate::client::kafka) fn has_left_open(
        &mut self,
        id: &str,
        outputs: &[Arc<str>],
        leaders_by: Instant,
    ) -> error::Result<bool> {
        let Some(found) = self.describe(id)? else { return Ok(false) };
        if found.is_under_way() {
            let text = format!("could not look at the transactions of {id}: the last one is still being ended");
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        let topics: Arc<[Arc<str>]> = outputs.iter().cloned().chain([OFFSETS_TOPIC.into()]).collect();
        Ok(!self.open(id, found.producer, &topics, leaders_by)?.is_empty())
    }

    fn describe(&mut self, id: &str) -> error::Result<Option<Described>> {
        let judge = |_, body: &[u8]| {
            Ok(match described(body)? {
                (Code::NONE, described) => Verdict::Is(Some(described)),
                (Code::TRANSACTIONAL_ID_NOT_FOUND, _) => Verdict::Is(None),
                (code, _) => judged(code, String::new()),
            })
        };
        let request = Request::Ending(Ending::Describe(id.to_owned()));
        self.call(request, &format!("look at the transactions of {id}"), judge)
    }

    /// Takes the id from whoever had it, and sees how its transaction ends.
    fn take_over(&mut self, id: &str, outcome: &mut Option<Outcome>) -> error::Result<ProducerIdAndEpoch> {
        let doing = format!("end the transactions of {id}");
        let end = super::now() + self.patience;
        loop {
            let judge = |_, body: &[u8]| {
                let (code, producer) = responses::init_producer_id(body)?;
                Ok(match code {
                    Code::NONE => Verdict::Is(Some(producer)),
                    // It is being ended.
                    Code::CONCURRENT_TRANSACTIONS => Verdict::Is(None),
                    // Somebody else takes it at the same time.
                    Code::PRODUCER_FENCED | Code::INVALID_PRODUCER_EPOCH => Verdict::Again(code, Some(FENCING_PAUSE)),
                    code => judged(code, String::new()),
                })
            };
            if let Some(producer) = self.call(Request::InitProducerId(id.to_owned()), &doing, judge)? {
                return Ok(producer);
            }
            match self.describe(id) {
                Ok(described) => *outcome = described.and_then(|described| described.outcome()).or(*outcome),
                Err(error) if error.kind() == ErrorKind::Invalid => {}
                Err(error) => return Err(error),
            }
            if super::now() >= end {
                return Err(Error::new(ErrorKind::Unavailable, format!("could not {doing}: it takes too long")));
            }
            pause(FENCING_PAUSE);
        }
    }

    fn end(
        &mut self,
        id: &str,
        producer: ProducerIdAndEpoch,
        open: Vec<TopicPartition>,
        outcome: Outcome,
    ) -> error::Result<()> {
        let doing = format!("end the transactions of {id}");
        let mut ask = |ending, read: fn(&[u8]) -> Result<Code>| {
            let judge = |_, body: &[u8]| {
                Ok(match read(body)? {
                    Code::NONE => Verdict::Is(()),
                    code @ Code::CONCURRENT_TRANSACTIONS => Verdict::Again(code, Some(FENCING_PAUSE)),
                    code @ Code::UNKNOWN_TOPIC_OR_PARTITION => Verdict::Again(code, Some(PAUSE)),
                    code => judged(code, String::new()),
                })
            };
            self.call(Request::Ending(ending), &doing, judge)
        };
        let (offsets, others): (Vec<_>, Vec<_>) = open.into_iter().partition(|open| *open.topic == *OFFSETS_TOPIC);
        if !others.is_empty() {
            ask(Ending::AddPartitions(id.to_owned(), producer, others), added_partitions)?;
        }
        if !offsets.is_empty() {
            ask(Ending::AddOffsets(id.to_owned(), producer), only_code)?;
        }
        ask(Ending::End(id.to_owned(), producer, outcome), only_code)?;
        let end = super::now() + self.patience;
        while self.describe(id)?.is_some_and(|described| described.is_under_way()) {
            if super::now() >= end {
                return Err(Error::new(ErrorKind::Unavailable, format!("could not {doing}: it takes too long")));
            }
            pause(FENCING_PAUSE);
        }
        Ok(())
    }

    /// The partitions of `topics`, the group's own of the offsets topic, where `producer` has a transaction open.
    fn open(
        &mut self,
        id: &str,
        producer: i64,
        topics: &Arc<[Arc<str>]>,
        leaders_by: Instant,
    ) -> error::Result<Vec<TopicPartition>> {
        let end = super::now() + self.patience;
        loop {
            let (leaders, mut leaderless) = self.leaders(id, topics)?;
            let mut open = Vec::new();
            for (leader, partitions) in leaders {
                let (found, moved) = self.open_at(id, producer, leader, partitions)?;
                open.extend(found);
                leaderless = leaderless.or(moved);
            }
            let Some(leaderless) = leaderless else { return Ok(open) };
            let now = super::now();
            if now >= leaders_by {
                tracing::warn!(
                    transactional_id = id,
                    partition = %leaderless,
                    "a partition has no leader: whether a transaction is open there for good cannot be seen"
                );
                return Ok(open);
            }
            if now >= end {
                let text = format!("could not look at the transactions of {id}: {leaderless} has no leader");
                return Err(Error::new(ErrorKind::Unavailable, text));
            }
            pause(PAUSE);
        }
    }

    /// Which broker leads which partitions; and one that none does.
    #[expect(clippy::type_complexity, reason = "taken apart at once")]
    fn leaders(
        &mut self,
        id: &str,
        topics: &Arc<[Arc<str>]>,
    ) -> error::Result<(BTreeMap<Address, Vec<TopicPartition>>, Option<TopicPartition>)> {
        let judge = |_, body: &[u8]| Ok(Verdict::Is(responses::leaders(body)?));
        let request = Request::Ending(Ending::Topics(id.to_owned(), Arc::clone(topics)));
        let (brokers, found) = self.call(request, "look up the leaders of partitions", judge)?;
        let brokers: HashMap<i32, Address> = brokers.into_iter().collect();
        let mut leaders: BTreeMap<Address, Vec<TopicPartition>> = BTreeMap::new();
        let mut leaderless = None;
        for (topic, partitions) in found {
            let all = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
            let is_offsets = *topic == *OFFSETS_TOPIC;
            let own = is_offsets.then(|| offsets_partition(&self.group, all));
            for (partition, leader) in partitions {
                if own.is_some_and(|own| own != partition) {
                    continue;
                }
                let partition = TopicPartition::new(Arc::clone(&topic), partition);
                match brokers.get(&leader) {
                    Some(address) => leaders.entry(address.clone()).or_default().push(partition),
                    None => leaderless = Some(partition),
                }
            }
        }
        Ok((leaders, leaderless))
    }

    /// Of the partitions that `leader` leads; and one that it does not lead any more.
    fn open_at(
        &mut self,
        id: &str,
        producer: i64,
        leader: Address,
        partitions: Vec<TopicPartition>,
    ) -> error::Result<(Vec<TopicPartition>, Option<TopicPartition>)> {
        let judge = |_, body: &[u8]| Ok(Verdict::Is(producers(body)?));
        let first = partitions.first().cloned();
        let request = Request::Ending(Ending::Producers(id.to_owned(), leader, partitions));
        let found = match self.call(request, "look for open transactions", judge) {
            Ok(found) => found,
            // It has gone: the next look finds the new leader.
            Err(error) if error.kind() == ErrorKind::Unavailable => return Ok((Vec::new(), first)),
            Err(error) => return Err(error),
        };
        let (mut open, mut moved) = (Vec::new(), None);
        for (partition, error, producers) in found {
            match error {
                Code::NONE if producers.contains(&producer) => open.push(partition),
                Code::NONE => {}
                // Who may write need not be allowed to read: then nobody of this application reads it either.
                code if code.denial().is_some() => {
                    tracing::debug!(%partition, %code, "open transactions cannot be looked for");
                }
                _ => moved = Some(partition),
            }
        }
        Ok((open, moved))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the broker does not tell when it has ended a transaction; it takes milliseconds"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Where the offsets of a group are: Java's hash of its name.
fn offsets_partition(group: &str, partitions: i32) -> i32 {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX).checked_rem(partitions).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_offsets_are_where_java_looks_for_them() {
        // "a".hashCode() is 97, that of "power-cut" negative.
        assert_eq!(offsets_partition("a", 50), 47);
        assert_eq!(offsets_partition("power-cut", 4), 2);
        assert_eq!(offsets_partition("a", 0), 0);
    }

    #[test]
    fn requests_have_the_bytes_of_kafkas_schema() {
        let hex = |ending: Ending| {
            let mut out = Writer::default();
            ending.encode("g", &mut out);
            out.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let producer = ProducerIdAndEpoch { id: 7, epoch: 2 };
        let partitions = vec![TopicPartition::new("t", 1), TopicPartition::new("t", 0)];
        let of_id = "0261 0000000000000007 0002".replace(' ', "");
        let of_topic = "02 0274 03 00000001 00000000 00".replace(' ', "");
        assert_eq!(hex(Ending::Describe("a".to_owned())), "020261");
        assert_eq!(
            hex(Ending::AddPartitions("a".to_owned(), producer, partitions.clone())),
            format!("{of_id}{of_topic}")
        );
        assert_eq!(hex(Ending::AddOffsets("a".to_owned(), producer)), format!("{of_id}0267"));
        assert_eq!(hex(Ending::End("a".to_owned(), producer, Outcome::Committed)), format!("{of_id}01"));
        assert_eq!(hex(Ending::End("a".to_owned(), producer, Outcome::Aborted)), format!("{of_id}00"));
        let leader = Address { host: "h".to_owned(), port: 1 };
        assert_eq!(hex(Ending::Producers("a".to_owned(), leader, partitions)), of_topic);
        assert_eq!(hex(Ending::Topics("a".to_owned(), ["t".into()].into())), "02027400000000");
    }
}
