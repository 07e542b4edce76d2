//! The requests of the side connection, in versions that brokers since 2.5 understand; to fetch, since 2.7, and streams groups, since 4.2.
//!
//! Every one of them has the compact encoding, but for `SaslHandshake`, which has none.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::codec::{Reader, Result, Writer};
use super::heartbeat;
use super::outside::Inquiry;
use super::security::Address;
use super::settle::Ending;
use crate::client::GroupMetadata;
use crate::membership::classic::protocol::{GroupRequest, MemberAssignment, PROTOCOL_NAME, PROTOCOL_TYPE, RequestKind};
use crate::membership::streams::protocol::Heartbeat;
use crate::record::{OffsetAndMetadata, TopicPartition};

/// The transaction timeout that fencing gives to an id: the next owner sets its own. A transaction that puts right what a
/// broker has left open takes some milliseconds.
const FENCING_TRANSACTION_TIMEOUT_MS: i32 = 10_000;

/// The version of what a subscription and an assignment are written in, as tools read them.
const CONSUMER_PROTOCOL: i16 = 3;

/// The kinds of requests, by Kafka's names.
#[expect(clippy::enum_variant_names, reason = "ApiVersions is what Kafka calls it")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Fetch,
    Metadata,
    OffsetCommit,
    OffsetFetch,
    FindCoordinator,
    JoinGroup,
    Heartbeat,
    LeaveGroup,
    SyncGroup,
    DescribeGroups,
    ListGroups,
    SaslHandshake,
    ApiVersions,
    InitProducerId,
    AddPartitionsToTxn,
    AddOffsetsToTxn,
    EndTxn,
    SaslAuthenticate,
    DescribeProducers,
    DescribeTransactions,
    ListTransactions,
    StreamsGroupHeartbeat,
    StreamsGroupDescribe,
}

impl Api {
    pub(super) fn key(self) -> i16 {
        match self {
            Api::Fetch => 1,
            Api::Metadata => 3,
            Api::OffsetCommit => 8,
            Api::OffsetFetch => 9,
            Api::FindCoordinator => 10,
            Api::JoinGroup => 11,
            Api::Heartbeat => 12,
            Api::LeaveGroup => 13,
            Api::SyncGroup => 14,
            Api::DescribeGroups => 15,
            Api::ListGroups => 16,
            Api::SaslHandshake => 17,
            Api::ApiVersions => 18,
            Api::InitProducerId => 22,
            Api::AddPartitionsToTxn => 24,
            Api::AddOffsetsToTxn => 25,
            Api::EndTxn => 26,
            Api::SaslAuthenticate => 36,
            Api::DescribeProducers => 61,
            Api::DescribeTransactions => 65,
            Api::ListTransactions => 66,
            Api::StreamsGroupHeartbeat => 88,
            Api::StreamsGroupDescribe => 89,
        }
    }

    /// The versions that are written and read here.
    pub(super) fn versions(self) -> RangeInclusive<i16> {
        match self {
            // With the compact encoding and an end to truncated logs; 13 would name topics by id.
            Api::Fetch => 12..=12,
            Api::Metadata => 9..=9,
            Api::OffsetCommit => 8..=9,
            // 7 brought require_stable.
            Api::OffsetFetch => 7..=9,
            Api::FindCoordinator => 3..=3,
            // 7 brought the protocol's type, 9 skips a returning leader's assignment.
            Api::JoinGroup => 7..=9,
            Api::Heartbeat => 4..=4,
            Api::LeaveGroup => 4..=5,
            Api::SyncGroup => 5..=5,
            Api::DescribeGroups => 5..=5,
            // 4 brought states, 5 the kind of a group.
            Api::ListGroups => 3..=5,
            Api::SaslHandshake => 1..=1,
            Api::ApiVersions => 3..=3,
            Api::InitProducerId => 3..=4,
            // 4 of the first is for brokers, 5 of the last raises the epoch.
            Api::AddPartitionsToTxn | Api::AddOffsetsToTxn | Api::EndTxn => 3..=3,
            Api::SaslAuthenticate => 2..=2,
            // Since 2.8 and 3.0.
            Api::DescribeProducers | Api::DescribeTransactions => 0..=0,
            // 2 brought patterns of ids.
            Api::ListTransactions => 0..=2,
            Api::StreamsGroupHeartbeat => 0..=0,
            Api::StreamsGroupDescribe => 0..=0,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Api::Fetch => "Fetch",
            Api::Metadata => "Metadata",
            Api::OffsetCommit => "OffsetCommit",
            Api::OffsetFetch => "OffsetFetch",
            Api::FindCoordinator => "FindCoordinator",
            Api::JoinGroup => "JoinGroup",
            Api::Heartbeat => "Heartbeat",
            Api::LeaveGroup => "LeaveGroup",
            Api::SyncGroup => "SyncGroup",
            Api::DescribeGroups => "DescribeGroups",
            Api::ListGroups => "ListGroups",
            Api::SaslHandshake => "SaslHandshake",
            Api::ApiVersions => "ApiVersions",
            Api::InitProducerId => "InitProducerId",
            Api::AddPartitionsToTxn => "AddPartitionsToTxn",
            Api::AddOffsetsToTxn => "AddOffsetsToTxn",
            Api::EndTxn => "EndTxn",
            Api::SaslAuthenticate => "SaslAuthenticate",
            Api::DescribeProducers => "DescribeProducers",
            Api::DescribeTransactions => "DescribeTransactions",
            Api::ListTransactions => "ListTransactions",
            Api::StreamsGroupHeartbeat => "StreamsGroupHeartbeat",
            Api::StreamsGroupDescribe => "StreamsGroupDescribe",
        }
    }

    /// Appends the frame of a request: length, header, body.
    pub(super) fn frame(self, version: i16, correlation: i32, client_id: &str, body: &[u8], out: &mut Vec<u8>) {
        let mut header = Writer::default();
        header.i16(self.key());
        header.i16(version);
        header.i32(correlation);
        header.plain_text(client_id);
        if self != Api::SaslHandshake {
            header.no_tags();
        }
        let length = header.0.len() + body.len();
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&header.0);
        out.extend_from_slice(body);
    }

    /// Takes the header off a response; its correlation id.
    pub(super) fn open(self, response: &mut Reader<'_>) -> Result<i32> {
        let correlation = response.i32()?;
        // ApiVersions has none, so that every client can read it.
        if !matches!(self, Api::SaslHandshake | Api::ApiVersions) {
            response.tags()?;
        }
        Ok(correlation)
    }
}

/// What is answered for an offset that an open transaction may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pending {
    /// That it is not decided.
    Refused,
    /// The one before.
    PassedOver,
}

/// A request to a coordinator, or to a broker that is known by address.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Group(GroupRequest),
    Streams(Box<Heartbeat>),
    OffsetFetch(Vec<TopicPartition>, Pending),
    OffsetCommit(Vec<(TopicPartition, OffsetAndMetadata)>, GroupMetadata),
    InitProducerId(String),
    Ending(Ending),
    /// Of somebody who is no member.
    Outside(Inquiry),
}

impl Request {
    pub(super) fn api(&self) -> Api {
        match self {
            Request::Group(GroupRequest::Join { .. }) => Api::JoinGroup,
            Request::Group(GroupRequest::Sync { .. }) => Api::SyncGroup,
            Request::Group(GroupRequest::Heartbeat { .. }) => Api::Heartbeat,
            Request::Group(GroupRequest::Leave { .. }) => Api::LeaveGroup,
            Request::Streams(_) => Api::StreamsGroupHeartbeat,
            Request::OffsetFetch(..) => Api::OffsetFetch,
            Request::OffsetCommit(..) => Api::OffsetCommit,
            Request::InitProducerId(_) => Api::InitProducerId,
            Request::Ending(ending) => ending.api(),
            Request::Outside(inquiry) => inquiry.api(),
        }
    }

    /// The transactional id whose coordinator is asked; none: the group's.
    pub(super) fn transactional_id(&self) -> Option<&str> {
        match self {
            Request::InitProducerId(id) => Some(id),
            Request::Ending(ending) => Some(ending.transactional_id()),
            Request::Group(_)
            | Request::Streams(_)
            | Request::OffsetFetch(..)
            | Request::OffsetCommit(..)
            | Request::Outside(_) => None,
        }
    }

    /// The broker that is asked, when it is no coordinator.
    pub(super) fn broker(&self) -> Option<&Address> {
        match self {
            Request::Ending(ending) => ending.broker(),
            Request::Outside(inquiry) => inquiry.broker(),
            Request::InitProducerId(_)
            | Request::Group(_)
            | Request::Streams(_)
            | Request::OffsetFetch(..)
            | Request::OffsetCommit(..) => None,
        }
    }

    /// The body of the request.
    pub(super) fn encode(&self, group: &str, version: i16) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Request::Group(request) => encode_group(request, group, version, &mut out),
            Request::Streams(beat) => heartbeat::encode(beat, group, &mut out),
            Request::OffsetFetch(partitions, pending) => {
                encode_offset_fetch(Some(partitions), *pending, group, version, &mut out);
            }
            Request::OffsetCommit(offsets, member) => encode_offset_commit(offsets, member, &mut out),
            Request::InitProducerId(id) => {
                out.text(id);
                out.i32(FENCING_TRANSACTION_TIMEOUT_MS);
                // No producer id and epoch: whoever has them is fenced.
                out.i64(-1);
                out.i16(-1);
            }
            Request::Ending(ending) => ending.encode(group, &mut out),
            Request::Outside(inquiry) => inquiry.encode(group, version, &mut out),
        }
        out.no_tags();
        out.0
    }
}

pub(super) fn kind(request: &GroupRequest) -> RequestKind {
    match request {
        GroupRequest::Join { .. } => RequestKind::Join,
        GroupRequest::Sync { .. } => RequestKind::Sync,
        GroupRequest::Heartbeat { .. } => RequestKind::Heartbeat,
        GroupRequest::Leave { .. } => RequestKind::Leave,
    }
}

fn millis(duration: std::time::Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

fn encode_group(request: &GroupRequest, group: &str, version: i16, out: &mut Writer) {
    out.text(group);
    match request {
        GroupRequest::Join { member, instance, session_timeout, rebalance_timeout, topics, user_data } => {
            out.i32(millis(*session_timeout));
            out.i32(millis(*rebalance_timeout));
            out.text(member);
            out.optional_text(instance.as_deref());
            out.text(PROTOCOL_TYPE);
            out.list([PROTOCOL_NAME].into_iter(), |out, name| {
                out.text(name);
                out.bytes(&subscription(topics, user_data));
                out.no_tags();
            });
            if version >= 8 {
                // Why it joins, for the broker's log.
                out.optional_text(None);
            }
        }
        GroupRequest::Sync { generation, member, instance, assignments } => {
            out.i32(*generation);
            out.text(member);
            out.optional_text(instance.as_deref());
            out.text(PROTOCOL_TYPE);
            out.text(PROTOCOL_NAME);
            out.list(assignments.iter(), |out, given| {
                out.text(&given.member);
                out.bytes(&assignment(given));
                out.no_tags();
            });
        }
        GroupRequest::Heartbeat { generation, member, instance } => {
            out.i32(*generation);
            out.text(member);
            out.optional_text(instance.as_deref());
        }
        GroupRequest::Leave { member, instance } => out.list([()].into_iter(), |out, ()| {
            out.text(member);
            out.optional_text(instance.as_deref());
            if version >= 5 {
                out.optional_text(Some("the application leaves"));
            }
            out.no_tags();
        }),
    }
}

/// `ConsumerProtocolSubscription`. No owned partitions and no generation: the broker compares these bytes to tell a
/// repeated join from a changed member.
fn subscription(topics: &[Arc<str>], user_data: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.i16(CONSUMER_PROTOCOL);
    out.plain_list(topics.iter(), |out, topic| out.plain_text(topic));
    out.plain_bytes(user_data);
    out.plain_list([0; 0].into_iter(), |out, _| out.i32(0));
    out.i32(-1);
    // No rack: a null string.
    out.i16(-1);
    out.0
}

/// `ConsumerProtocolAssignment`.
fn assignment(given: &MemberAssignment) -> Vec<u8> {
    let mut out = Writer::default();
    out.i16(CONSUMER_PROTOCOL);
    out.plain_list(by_topic(given.partitions.iter().map(|p| (p, ()))).into_iter(), |out, (topic, partitions)| {
        out.plain_text(topic);
        out.plain_list(partitions.into_iter(), |out, (partition, ())| out.i32(partition));
    });
    out.plain_bytes(&given.user_data);
    out.0
}

pub(super) fn by_topic<'a, T>(
    items: impl Iterator<Item = (&'a TopicPartition, T)>,
) -> BTreeMap<&'a str, Vec<(i32, T)>> {
    let mut topics: BTreeMap<&str, Vec<(i32, T)>> = BTreeMap::new();
    for (partition, item) in items {
        topics.entry(&partition.topic).or_default().push((partition.partition, item));
    }
    topics
}

/// None: every partition that the group has committed.
pub(super) fn encode_offset_fetch(
    partitions: Option<&[TopicPartition]>,
    pending: Pending,
    group: &str,
    version: i16,
    out: &mut Writer,
) {
    let topics = |out: &mut Writer| {
        let Some(partitions) = partitions else { return out.null_list() };
        out.list(by_topic(partitions.iter().map(|p| (p, ()))).into_iter(), |out, (topic, partitions)| {
            out.text(topic);
            out.list(partitions.into_iter(), |out, (partition, ())| out.i32(partition));
            out.no_tags();
        });
    };
    if version < 8 {
        out.text(group);
        topics(out);
    } else {
        out.list([()].into_iter(), |out, ()| {
            out.text(group);
            if version >= 9 {
                // Not as a member: those of the newer group protocol would be held to their epoch.
                out.optional_text(None);
                out.i32(-1);
            }
            topics(out);
            out.no_tags();
        });
    }
    // `require_stable`.
    out.bool(pending == Pending::Refused);
}

fn encode_offset_commit(offsets: &[(TopicPartition, OffsetAndMetadata)], member: &GroupMetadata, out: &mut Writer) {
    out.text(&member.group);
    out.i32(member.generation);
    out.text(&member.member);
    out.optional_text(member.instance.as_deref());
    out.list(by_topic(offsets.iter().map(|(p, at)| (p, at))).into_iter(), |out, (topic, partitions)| {
        out.text(topic);
        out.list(partitions.into_iter(), |out, (partition, at)| {
            out.i32(partition);
            out.i64(at.offset);
            // No leader epoch.
            out.i32(-1);
            out.text(&at.metadata);
            out.no_tags();
        });
        out.no_tags();
    });
}

/// Which coordinator is looked for.
pub(super) fn find_coordinator(request: &Request, group: &str) -> Vec<u8> {
    let mut out = Writer::default();
    let (key, kind) = request.transactional_id().map_or((group, 0), |id| (id, 1));
    out.text(key);
    out.i8(kind);
    out.no_tags();
    out.0
}

/// Asks for the brokers and for no topic.
pub(super) fn metadata() -> Vec<u8> {
    let mut out = Writer::default();
    encode_metadata(&[], &mut out);
    out.no_tags();
    out.0
}

/// The brokers, and where the partitions of topics are; without its tags.
pub(super) fn encode_metadata(topics: &[Arc<str>], out: &mut Writer) {
    out.list(topics.iter(), |out, topic| {
        out.text(topic);
        out.no_tags();
    });
    // Neither make topics nor tell rights on the cluster or on topics.
    out.bool(false);
    out.bool(false);
    out.bool(false);
}

/// Names this library to the broker, which shows it in its metrics.
pub(super) fn api_versions() -> Vec<u8> {
    let mut out = Writer::default();
    out.text("kstreams");
    out.text(env!("CARGO_PKG_VERSION"));
    out.no_tags();
    out.0
}

pub(super) fn sasl_handshake(mechanism: &str) -> Vec<u8> {
    let mut out = Writer::default();
    out.plain_text(mechanism);
    out.0
}

pub(super) fn sasl_authenticate(token: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(token);
    out.no_tags();
    out.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn join() -> Request {
        Request::Group(GroupRequest::Join {
            member: "m".to_owned(),
            instance: None,
            session_timeout: Duration::from_secs(6),
            rebalance_timeout: Duration::from_secs(60),
            topics: vec!["in".into()],
            user_data: vec![7],
        })
    }

    #[test]
    fn a_join_has_the_bytes_of_its_version() {
        // 2+2+ "in" + 1 byte of user data, no owned partitions, generation -1, no rack.
        let metadata = "0003 00000001 0002696e 00000001 07 00000000 ffffffff ffff";
        let seven = format!(
            "0261 00001770 0000ea60 026d 00 09636f6e73756d6572 02 0d72732d73747265616d732d31 1a {metadata} 00 00"
        );
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&join().encode("a", 7)), seven.replace(' ', ""));
        let nine = seven.strip_suffix(" 00").unwrap().replace(' ', "") + "0000";
        assert_eq!(hex(&join().encode("a", 9)), nine);
    }

    #[test]
    fn a_frame_begins_with_its_length_and_a_header() {
        let mut out = Vec::new();
        Api::Heartbeat.frame(4, 5, "c", b"body", &mut out);
        assert_eq!(out, b"\0\0\0\x10\0\x0c\0\x04\0\0\0\x05\0\x01c\0body");
        out.clear();
        Api::SaslHandshake.frame(1, 5, "c", b"body", &mut out);
        assert_eq!(out, b"\0\0\0\x0f\0\x11\0\x01\0\0\0\x05\0\x01cbody");
    }

    #[test]
    fn offsets_are_asked_for_in_the_layout_of_the_version() {
        let partitions = vec![TopicPartition::new("t", 1), TopicPartition::new("t", 0)];
        let request = Request::OffsetFetch(partitions.clone(), Pending::Refused);
        let topics = b"\x02\x02t\x03\0\0\0\x01\0\0\0\0\0";
        assert_eq!(request.encode("g", 7), [&b"\x02g"[..], topics, b"\x01\0"].concat());
        assert_eq!(request.encode("g", 8), [&b"\x02\x02g"[..], topics, b"\0\x01\0"].concat());
        let member = b"\x02\x02g\0\xff\xff\xff\xff";
        assert_eq!(request.encode("g", 9), [&member[..], topics, b"\0\x01\0"].concat());
        let request = Request::OffsetFetch(partitions, Pending::PassedOver);
        assert_eq!(request.encode("g", 9), [&member[..], topics, b"\0\0\0"].concat());
    }
}
