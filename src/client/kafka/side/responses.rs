//! What brokers answer. Anybody may have written it: a decoder gives a value or says what is wrong with the bytes.

use std::collections::HashMap;
use std::sync::Arc;

use super::code::Code;
use super::codec::{Malformed, Reader, Result};
use super::requests::Api;
use super::security::Address;
use super::settle::ProducerIdAndEpoch;
use crate::membership::classic::protocol::{GroupAnswer, GroupMember, RequestKind};
use crate::record::{OffsetAndMetadata, TopicPartition};

fn code(reader: &mut Reader<'_>) -> Result<Code> {
    reader.i16().map(Code)
}

/// Which versions of each request a broker understands.
#[derive(Debug, Clone, Default)]
pub(super) struct Versions(HashMap<i16, (i16, i16)>);

impl Versions {
    /// The newest version that both sides know.
    pub(super) fn of(&self, api: Api) -> Option<i16> {
        let (min, max) = self.0.get(&api.key()).copied()?;
        let ours = api.versions();
        let newest = max.min(*ours.end());
        (newest >= min && newest >= *ours.start()).then_some(newest)
    }

    /// What every broker since 2.5 understands before it has been asked.
    pub(super) fn before_asking() -> Versions {
        let oldest = |api: Api| (api.key(), (*api.versions().start(), *api.versions().start()));
        Versions([oldest(Api::ApiVersions)].into())
    }
}

pub(super) fn api_versions(body: &[u8]) -> Result<(Code, Versions)> {
    let mut reader = Reader::new(body);
    let error = code(&mut reader)?;
    if error == Code::UNSUPPORTED_VERSION {
        // Answered in version 0, whose lists have another encoding.
        return Ok((error, Versions::default()));
    }
    let versions = reader.list(|reader| {
        let known = (reader.i16()?, (reader.i16()?, reader.i16()?));
        reader.tags()?;
        Ok(known)
    })?;
    Ok((error, Versions(versions.into_iter().collect())))
}

/// The mechanisms that the broker offers, for when it does not take ours.
pub(super) fn sasl_handshake(body: &[u8]) -> Result<(Code, Vec<String>)> {
    let mut reader = Reader::new(body);
    Ok((code(&mut reader)?, reader.plain_list(Reader::plain_text)?))
}

#[derive(Debug)]
pub(super) struct Authenticated {
    pub(super) error: Code,
    pub(super) message: Option<String>,
    pub(super) token: Vec<u8>,
    /// After so many milliseconds the broker wants to see the credentials again; 0 is never.
    pub(super) lifetime_ms: i64,
}

pub(super) fn sasl_authenticate(body: &[u8]) -> Result<Authenticated> {
    let mut reader = Reader::new(body);
    Ok(Authenticated {
        error: code(&mut reader)?,
        message: reader.optional_text()?,
        token: reader.bytes()?.to_vec(),
        lifetime_ms: reader.i64()?,
    })
}

/// Hosts and ports of the brokers; what follows them is not read.
pub(super) fn metadata(body: &[u8]) -> Result<Vec<(String, u16)>> {
    let brokers = brokers(&mut Reader::new(body))?;
    let addresses = brokers.into_iter().map(|(_, address)| (address.host, address.port));
    Ok(addresses.collect())
}

/// With their ids.
pub(super) fn brokers(reader: &mut Reader<'_>) -> Result<Vec<(i32, Address)>> {
    reader.i32()?;
    let brokers = reader.list(|reader| {
        let id = reader.i32()?;
        let (host, port) = (reader.text()?, u16::try_from(reader.i32()?).unwrap_or(0));
        reader.optional_text()?;
        reader.tags()?;
        Ok((id, Address { host, port }))
    })?;
    Ok(brokers.into_iter().filter(|(_, address)| !address.host.is_empty() && address.port != 0).collect())
}

/// The partitions of each topic that there is, and the ids of their leaders; -1: none.
pub(super) type Leaders = Vec<(Arc<str>, Vec<(i32, i32)>)>;

/// The brokers, and who leads which partition.
pub(super) fn leaders(body: &[u8]) -> Result<(Vec<(i32, Address)>, Leaders)> {
    let mut reader = Reader::new(body);
    let brokers = brokers(&mut reader)?;
    // The cluster, and its controller.
    reader.optional_text()?;
    reader.i32()?;
    let topics = reader.list(|reader| {
        reader.i16()?;
        let name = Arc::from(reader.text()?);
        reader.bool()?;
        let partitions = reader.list(|reader| {
            reader.i16()?;
            let (partition, leader, _epoch) = (reader.i32()?, reader.i32()?, reader.i32()?);
            for _ in ["replicas", "in sync", "offline"] {
                reader.list(Reader::i32)?;
            }
            reader.tags()?;
            Ok((partition, leader))
        })?;
        reader.i32()?;
        reader.tags()?;
        Ok((name, partitions))
    })?;
    Ok((brokers, topics))
}

/// Host and port of the coordinator.
pub(super) fn find_coordinator(body: &[u8]) -> Result<(Code, String, u16)> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    let error = code(&mut reader)?;
    reader.optional_text()?;
    reader.i32()?;
    let (host, port) = (reader.text()?, reader.i32()?);
    if error != Code::NONE {
        return Ok((error, String::new(), 0));
    }
    let port = u16::try_from(port).map_err(|_| Malformed("the coordinator's port is none"))?;
    if host.is_empty() || port == 0 {
        return Err(Malformed("it names no coordinator"));
    }
    Ok((error, host, port))
}

/// The answer to a member, or the code of the refusal and the member id that came with it.
pub(super) type GroupOutcome = std::result::Result<GroupAnswer, (Code, String)>;

pub(super) fn group(request: RequestKind, version: i16, body: &[u8]) -> Result<GroupOutcome> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    let error = code(&mut reader)?;
    let refused = |member: String| Ok(Err((error, member)));
    match request {
        RequestKind::Join => {
            let generation = reader.i32()?;
            reader.optional_text()?;
            reader.optional_text()?;
            let leader = reader.text()?;
            let skip_assignment = version >= 9 && reader.bool()?;
            let member = reader.text()?;
            if error != Code::NONE {
                return refused(member);
            }
            let members = reader.list(|reader| {
                let (id, instance, metadata) = (reader.text()?, reader.optional_text()?, reader.bytes()?);
                reader.tags()?;
                let (topics, user_data) = read_subscription(metadata)?;
                Ok(GroupMember { id, instance, topics, user_data })
            })?;
            Ok(Ok(GroupAnswer::Joined { generation, member, leader, skip_assignment, members }))
        }
        RequestKind::Sync if error == Code::NONE => {
            reader.optional_text()?;
            reader.optional_text()?;
            let (partitions, user_data) = read_assignment(reader.bytes()?)?;
            Ok(Ok(GroupAnswer::Synced { partitions, user_data }))
        }
        RequestKind::Heartbeat if error == Code::NONE => Ok(Ok(GroupAnswer::Alive)),
        RequestKind::Leave if error == Code::NONE => Ok(match removed(body)? {
            Code::NONE => Ok(GroupAnswer::Left),
            error => Err((error, String::new())),
        }),
        RequestKind::Sync | RequestKind::Heartbeat | RequestKind::Leave => refused(String::new()),
    }
}

/// What became of the members that should leave: the first error.
pub(super) fn removed(body: &[u8]) -> Result<Code> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    let error = code(&mut reader)?;
    if error != Code::NONE {
        return Ok(error);
    }
    let errors = reader.list(|reader| {
        reader.text()?;
        reader.optional_text()?;
        let error = code(reader)?;
        reader.tags()?;
        Ok(error)
    })?;
    Ok(errors.into_iter().find(|error| *error != Code::NONE).unwrap_or(Code::NONE))
}

/// The topics and the user data of a `ConsumerProtocolSubscription`; what later fields hold is nobody's business here.
fn read_subscription(bytes: &[u8]) -> Result<(Vec<Arc<str>>, Vec<u8>)> {
    let mut reader = Reader::new(bytes);
    if reader.i16()? < 0 {
        return Err(Malformed("a subscription has a negative version"));
    }
    let topics = reader.plain_list(|reader| reader.plain_text().map(Arc::from))?;
    Ok((topics, reader.plain_bytes()?.to_vec()))
}

/// A `ConsumerProtocolAssignment`. A member that the leader has given nothing gets no bytes at all.
fn read_assignment(bytes: &[u8]) -> Result<(Vec<TopicPartition>, Vec<u8>)> {
    if bytes.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut reader = Reader::new(bytes);
    if reader.i16()? < 0 {
        return Err(Malformed("an assignment has a negative version"));
    }
    let topics = reader.plain_list(|reader| {
        let topic: Arc<str> = reader.plain_text()?.into();
        let partitions = reader.plain_list(Reader::i32)?;
        Ok(partitions.into_iter().map(move |partition| TopicPartition::new(Arc::clone(&topic), partition)))
    })?;
    Ok((topics.into_iter().flatten().collect(), reader.plain_bytes()?.to_vec()))
}

/// The committed position of each partition, and its error.
pub(super) type Fetched = HashMap<TopicPartition, (Code, Option<OffsetAndMetadata>)>;

/// The group's error, and what is known of each partition.
pub(super) fn offset_fetch(version: i16, body: &[u8]) -> Result<(Code, Fetched)> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    let (error, topics) = if version < 8 {
        let topics = reader.list(fetched_topic)?;
        (code(&mut reader)?, topics)
    } else {
        let groups = reader.list(|reader| {
            reader.text()?;
            let topics = reader.list(fetched_topic)?;
            let error = code(reader)?;
            reader.tags()?;
            Ok((error, topics))
        })?;
        groups.into_iter().next().ok_or(Malformed("it says nothing of the group"))?
    };
    Ok((error, topics.into_iter().flatten().collect()))
}

type FetchedPartition = (TopicPartition, (Code, Option<OffsetAndMetadata>));

fn fetched_topic(reader: &mut Reader<'_>) -> Result<Vec<FetchedPartition>> {
    let topic: Arc<str> = reader.text()?.into();
    let partitions = reader.list(|reader| {
        let (partition, offset, _leader_epoch) = (reader.i32()?, reader.i64()?, reader.i32()?);
        let metadata = reader.text()?;
        let error = code(reader)?;
        reader.tags()?;
        let position = (offset >= 0).then_some(OffsetAndMetadata { offset, metadata });
        Ok((TopicPartition::new(Arc::clone(&topic), partition), (error, position)))
    })?;
    reader.tags()?;
    Ok(partitions)
}

/// The error of each partition.
pub(super) fn offset_commit(body: &[u8]) -> Result<Vec<(TopicPartition, Code)>> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    let topics = reader.list(|reader| {
        let topic: Arc<str> = reader.text()?.into();
        let partitions = reader.list(|reader| {
            let committed = (TopicPartition::new(Arc::clone(&topic), reader.i32()?), code(reader)?);
            reader.tags()?;
            Ok(committed)
        })?;
        reader.tags()?;
        Ok(partitions)
    })?;
    Ok(topics.into_iter().flatten().collect())
}

/// Whose id it is from now on.
pub(super) fn init_producer_id(body: &[u8]) -> Result<(Code, ProducerIdAndEpoch)> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    Ok((code(&mut reader)?, ProducerIdAndEpoch { id: reader.i64()?, epoch: reader.i16()? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whatever the bytes are, every decoder comes back.
    fn decode_all(bytes: &[u8]) {
        let _ = api_versions(bytes);
        let _ = sasl_handshake(bytes);
        let _ = sasl_authenticate(bytes);
        let _ = metadata(bytes);
        let _ = find_coordinator(bytes);
        for request in [RequestKind::Join, RequestKind::Sync, RequestKind::Heartbeat, RequestKind::Leave] {
            let _ = group(request, 9, bytes);
        }
        let _ = offset_fetch(7, bytes);
        let _ = offset_fetch(9, bytes);
        let _ = offset_commit(bytes);
        let _ = init_producer_id(bytes);
        let _ = leaders(bytes);
    }

    /// A response to a join with two members, the second in an older encoding of its subscription.
    fn joined() -> Vec<u8> {
        let head = b"\0\0\0\0\0\0\0\0\0\x05\x09consumer\x0drs-streams-1\x02l\x01\x02m\x03";
        let new = b"\x02l\0\x18\0\x03\0\0\0\x01\0\x02in\0\0\0\x01\x07\0\0\0\0\xff\xff\xff\xff\0";
        let old = b"\x02m\x02i\x0b\0\0\0\0\0\0\xff\xff\xff\xff\0";
        [&head[..], new, old, b"\0"].concat()
    }

    fn synced() -> Vec<u8> {
        b"\0\0\0\0\0\0\0\0\x1c\0\x03\0\0\0\x01\0\x02in\0\0\0\x02\0\0\0\x01\0\0\0\x02\0\0\0\x01\x09\0".to_vec()
    }

    #[test]
    fn a_join_lists_the_members_for_the_leader() {
        let Ok(Ok(GroupAnswer::Joined { generation, member, leader, skip_assignment, members })) =
            group(RequestKind::Join, 9, &joined())
        else {
            panic!("{:?}", group(RequestKind::Join, 9, &joined()))
        };
        assert_eq!((generation, &*member, &*leader, skip_assignment), (5, "m", "l", true));
        let first = GroupMember { id: "l".into(), instance: None, topics: vec!["in".into()], user_data: vec![7] };
        let second = GroupMember { id: "m".into(), instance: Some("i".into()), topics: vec![], user_data: vec![] };
        assert_eq!(members, [first, second]);
    }

    #[test]
    fn a_sync_gives_partitions_and_user_data() {
        let partitions = vec![TopicPartition::new("in", 1), TopicPartition::new("in", 2)];
        let given = Ok(Ok(GroupAnswer::Synced { partitions, user_data: vec![9] }));
        assert_eq!(group(RequestKind::Sync, 5, &synced()), given);
        let nothing = Ok(Ok(GroupAnswer::Synced { partitions: vec![], user_data: vec![] }));
        assert_eq!(group(RequestKind::Sync, 5, b"\0\0\0\0\0\0\0\0\x01\0"), nothing);
    }

    #[test]
    fn a_member_that_could_not_leave_is_told() {
        let body = b"\0\0\0\0\0\0\x02\x02m\0\0\x19\0\0";
        assert_eq!(group(RequestKind::Leave, 5, body), Ok(Err((Code::UNKNOWN_MEMBER_ID, String::new()))));
    }

    #[test]
    fn a_fetched_offset_is_a_position_or_none() {
        let topics = b"\x02\x02t\x03\0\0\0\0\0\0\0\0\0\0\0\x07\xff\xff\xff\xff\x02x\0\0\0\
            \0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\x58\0\0";
        let seven = [&b"\0\0\0\0"[..], topics, b"\0\0\0"].concat();
        let nine = [&b"\0\0\0\0\x02\x02g"[..], topics, b"\0\0\0\0"].concat();
        let at = OffsetAndMetadata { offset: 7, metadata: "x".to_owned() };
        let fetched = HashMap::from([
            (TopicPartition::new("t", 0), (Code::NONE, Some(at))),
            (TopicPartition::new("t", 1), (Code::UNSTABLE_OFFSET_COMMIT, None)),
        ]);
        assert_eq!(offset_fetch(7, &seven), Ok((Code::NONE, fetched.clone())));
        assert_eq!(offset_fetch(9, &nine), Ok((Code::NONE, fetched)));
    }

    #[test]
    fn the_newest_version_that_both_know_is_taken() {
        let versions = Versions([(11, (0, 8)), (9, (1, 6)), (12, (5, 9))].into());
        assert_eq!(versions.of(Api::JoinGroup), Some(8));
        assert_eq!(versions.of(Api::OffsetFetch), None);
        assert_eq!(versions.of(Api::Heartbeat), None);
        assert_eq!(versions.of(Api::SyncGroup), None);
    }

    #[test]
    fn a_truncated_response_is_refused() {
        for whole in [joined(), synced()] {
            for length in 0..whole.len() - 1 {
                decode_all(&whole[..length]);
                assert!(group(RequestKind::Join, 9, &joined()[..length.min(joined().len() - 2)]).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_end_the_process(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            decode_all(&bytes);
        }

        #[test]
        fn no_damaged_response_ends_the_process(
            place in 0usize..120, byte in any::<u8>(), cut in 0usize..120, which in any::<bool>(),
        ) {
            let mut whole = if which { joined() } else { synced() };
            let length = whole.len();
            whole[place % length] = byte;
            whole.truncate(cut.max(1));
            decode_all(&whole);
        }
    }
}
