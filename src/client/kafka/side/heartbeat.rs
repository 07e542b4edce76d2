//! `StreamsGroupHeartbeat`, version 0: brokers 4.2 and later. (4.4 has a version 1, with a wider lag and descriptions of
//! topologies, which nothing here needs.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::code::Code;
use super::codec::{Malformed, Reader, Result, Writer};
use crate::membership::streams::declaration::{SubTopologyDeclaration, TopicDeclaration, TopologyDeclaration};
use crate::membership::streams::protocol::{Address, Heard, Heartbeat, Progress, Status, Taken, Tasks};
use crate::record::TopicPartition;
use crate::topology::TaskId;

/// As soon as a topology may change while its group lives on, this is what will tell the versions of it apart.
const TOPOLOGY_EPOCH: i32 = 0;

/// A structure that may be null: its prefix.
const NULL: i8 = -1;
const PRESENT: i8 = 1;

/// "As before" in the place of the rebalance timeout.
const UNCHANGED: i32 = -1;

pub(super) fn encode(beat: &Heartbeat, group: &str, out: &mut Writer) {
    out.text(group);
    out.text(&beat.member);
    out.i32(beat.epoch);
    out.i32(beat.endpoint_epoch);
    // No instance id, which brokers refuse before 4.4, and no rack.
    out.optional_text(None);
    out.optional_text(None);
    match &beat.introduction {
        Some(introduction) => {
            out.i32(i32::try_from(introduction.rebalance_timeout.as_millis()).unwrap_or(i32::MAX));
            encode_topology(&introduction.topology, out);
        }
        None => {
            out.i32(UNCHANGED);
            out.i8(NULL);
        }
    }
    match &beat.owned {
        Some(owned) => {
            [&owned.active, &owned.standby, &owned.warmup].into_iter().for_each(|ids| encode_tasks(ids, out))
        }
        None => (0..3).for_each(|_| out.null_list()),
    }
    out.optional_text(beat.introduction.as_ref().map(|introduction| &*introduction.process));
    match beat.introduction.as_ref().and_then(|introduction| introduction.endpoint.as_ref()) {
        Some((host, port)) => {
            out.i8(PRESENT);
            out.text(host);
            out.u16(*port);
            out.no_tags();
        }
        None => out.i8(NULL),
    }
    match &beat.introduction {
        Some(introduction) => out.list(introduction.tags.iter(), |out, (key, value)| {
            out.text(key);
            out.text(value);
            out.no_tags();
        }),
        None => out.null_list(),
    }
    match &beat.progress {
        Some(progress) => {
            encode_offsets(progress, |progress| progress.offset, out);
            encode_offsets(progress, |progress| progress.end, out);
        }
        None => (0..2).for_each(|_| out.null_list()),
    }
    out.bool(beat.shuts_down);
}

fn encode_topology(topology: &TopologyDeclaration, out: &mut Writer) {
    out.i8(PRESENT);
    out.i32(TOPOLOGY_EPOCH);
    out.list(topology.sub_topologies.iter(), encode_sub_topology);
    out.no_tags();
}

fn encode_sub_topology(out: &mut Writer, declared: &SubTopologyDeclaration) {
    let topic = |out: &mut Writer, topic: &Arc<str>| out.text(topic);
    let place = |out: &mut Writer, place: &i16| out.i16(*place);
    out.text(&declared.number.to_string());
    out.list(declared.sources.iter(), topic);
    // No patterns of topics.
    out.list([(); 0].into_iter(), |_, ()| {});
    out.list(declared.changelogs.iter(), encode_topic);
    out.list(declared.repartition_sinks.iter(), topic);
    out.list(declared.repartition_sources.iter(), encode_topic);
    out.list(declared.together.iter(), |out, group| {
        out.list(group.sources.iter(), place);
        out.list([(); 0].into_iter(), |_, ()| {});
        out.list(group.repartition_sources.iter(), place);
        out.no_tags();
    });
    out.no_tags();
}

fn encode_topic(out: &mut Writer, topic: &TopicDeclaration) {
    out.text(&topic.name);
    out.i32(topic.partitions.unwrap_or(0));
    // −1, not 0, for the broker's default: Java's number, and the two are not equal to the broker.
    out.i16(topic.replication.and_then(|replication| i16::try_from(replication).ok()).unwrap_or(-1));
    out.list(topic.config.iter(), |out, (name, value)| {
        out.text(name);
        out.text(value);
        out.no_tags();
    });
    out.no_tags();
}

fn encode_tasks(tasks: &BTreeSet<TaskId>, out: &mut Writer) {
    let mut sub_topologies: BTreeMap<usize, Vec<i32>> = BTreeMap::new();
    for task in tasks {
        sub_topologies.entry(task.sub_topology).or_default().push(task.partition);
    }
    out.list(sub_topologies.into_iter(), |out, (sub_topology, partitions)| {
        out.text(&sub_topology.to_string());
        out.list(partitions.into_iter(), |out, partition| out.i32(partition));
        out.no_tags();
    });
}

fn encode_offsets(progress: &[Progress], offset: impl Fn(&Progress) -> i64, out: &mut Writer) {
    out.list(progress.iter(), |out, progress| {
        out.text(&progress.task.sub_topology.to_string());
        out.i32(progress.task.partition);
        out.i64(offset(progress));
        out.no_tags();
    });
}

/// What the member hears; or the code of the refusal, with the broker's words.
pub(super) fn decode(body: &[u8]) -> Result<std::result::Result<Heard, (Code, String)>> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    let (error, words) = (Code(reader.i16()?), reader.text()?);
    if error != Code::NONE {
        return Ok(Err((error, words)));
    }
    reader.text()?;
    let (epoch, interval_ms) = (reader.i32()?, reader.i32()?);
    // The lag that the broker accepts is its own affair.
    reader.i32()?;
    let progress_interval_ms = reader.i32()?;
    let statuses = reader.list(|reader| {
        let status = (Status::of(reader.i8()?), reader.text()?);
        reader.tags()?;
        Ok(status)
    })?;
    let (active, standby, warmup) =
        (decode_tasks(&mut reader)?, decode_tasks(&mut reader)?, decode_tasks(&mut reader)?);
    // All of them are there, or none.
    let tasks =
        active.map(|active| Tasks { active, standby: standby.unwrap_or_default(), warmup: warmup.unwrap_or_default() });
    let endpoint_epoch = reader.i32()?;
    let addresses = reader.optional_list(decode_address)?;
    let taken = Taken { epoch, endpoint_epoch, interval_ms, progress_interval_ms, statuses, tasks, addresses };
    Ok(Ok(Heard::Taken(taken)))
}

fn decode_address(reader: &mut Reader<'_>) -> Result<Address> {
    let (host, port) = (reader.text()?, reader.i16()?.cast_unsigned());
    reader.tags()?;
    let address = Address { host, port, active: decode_partitions(reader)?, standby: decode_partitions(reader)? };
    reader.tags()?;
    Ok(address)
}

fn decode_partitions(reader: &mut Reader<'_>) -> Result<Vec<TopicPartition>> {
    let topics = reader.list(|reader| {
        let topic: Arc<str> = reader.text()?.into();
        let partitions = reader.list(Reader::i32)?;
        reader.tags()?;
        Ok(partitions.into_iter().map(move |partition| TopicPartition::new(Arc::clone(&topic), partition)))
    })?;
    Ok(topics.into_iter().flatten().collect())
}

fn decode_tasks(reader: &mut Reader<'_>) -> Result<Option<BTreeSet<TaskId>>> {
    let sub_topologies = reader.optional_list(|reader| {
        let sub_topology = reader.text()?.parse().map_err(|_| Malformed("a sub-topology has no number"))?;
        let partitions = reader.list(Reader::i32)?;
        reader.tags()?;
        Ok(partitions.into_iter().map(move |partition| TaskId { sub_topology, partition }))
    })?;
    Ok(sub_topologies.map(|sub_topologies| sub_topologies.into_iter().flatten().collect()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::requests::Request;
    use super::*;
    use crate::membership::streams::declaration::CopartitionGroup;
    use crate::membership::streams::protocol::Introduction;

    fn beat() -> Heartbeat {
        Heartbeat {
            number: 1,
            member: "m-1".to_owned(),
            epoch: 3,
            endpoint_epoch: 1,
            introduction: None,
            owned: None,
            progress: None,
            shuts_down: false,
        }
    }

    fn task(sub_topology: usize, partition: i32) -> TaskId {
        TaskId { sub_topology, partition }
    }

    fn hex(beat: Heartbeat) -> String {
        Request::Streams(Box::new(beat)).encode("app", 0).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_join_is_written_as_java_writes_it() {
        let changelog = |side| {
            let pairs =
                [("cleanup.policy", "delete"), ("message.timestamp.type", "CreateTime"), ("retention.ms", "86520000")];
            let config = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let name = format!("app-join-{side}-join-store-changelog").into();
            TopicDeclaration { name, config, ..TopicDeclaration::default() }
        };
        let together = CopartitionGroup { sources: vec![0, 1], repartition_sources: vec![] };
        let declared = SubTopologyDeclaration {
            sources: vec!["left".into(), "right".into()],
            changelogs: vec![changelog("other"), changelog("this")],
            together: vec![together],
            ..SubTopologyDeclaration::default()
        };
        let introduction = Introduction {
            topology: TopologyDeclaration { sub_topologies: vec![declared] },
            rebalance_timeout: Duration::from_secs(60),
            process: "p-1".to_owned(),
            endpoint: None,
            tags: Vec::new(),
        };
        let (owned, introduction) = (Some(Tasks::default()), Some(Arc::new(introduction)));
        let join = Heartbeat { epoch: 0, endpoint_epoch: -1, introduction, owned, ..beat() };
        // By the Java client 4.3.1, of a join of two streams.
        let java = "04617070046d2d3100000000ffffffff00000000ea60010000000002023003056c6566740672696768740103246170702d6a\
            6f696e2d6f746865722d6a6f696e2d73746f72652d6368616e67656c6f6700000000ffff040f636c65616e75702e706f6c696379\
            0764656c65746500176d6573736167652e74696d657374616d702e747970650b43726561746554696d65000d726574656e74696f\
            6e2e6d730938363532303030300000236170702d6a6f696e2d746869732d6a6f696e2d73746f72652d6368616e67656c6f670000\
            0000ffff040f636c65616e75702e706f6c6963790764656c65746500176d6573736167652e74696d657374616d702e747970650b\
            43726561746554696d65000d726574656e74696f6e2e6d7309383635323030303000000101020300000001010100000001010104\
            702d31ff0100000000";
        assert_eq!(hex(join), java);
    }

    #[test]
    fn a_join_tells_where_the_instance_is() {
        let introduction = Introduction {
            topology: TopologyDeclaration::default(),
            rebalance_timeout: Duration::from_secs(45),
            process: "p".to_owned(),
            endpoint: Some(("h".to_owned(), 80)),
            tags: vec![("zone".to_owned(), "a".to_owned())],
        };
        let join = Heartbeat { epoch: 0, introduction: Some(Arc::new(introduction)), ..beat() };
        let hex = hex(join);
        assert!(hex.ends_with("0270010268005000 02057a6f6e6502610000000000".replace(' ', "").as_str()), "{hex}");
    }

    #[test]
    fn what_has_not_changed_is_null() {
        let alive = "04617070046d2d3100000003000000010000ffffffffff00000000ff0000000000";
        assert_eq!(hex(beat()), alive);
        let owned = Tasks { active: [task(0, 1), task(1, 0)].into(), ..Tasks::default() };
        let progress = vec![Progress { task: task(2, 3), offset: 5, end: 7 }];
        let full = "04617070046d2d3100000003000000010000ffffffffff0302300200000001000231020000000000010100ff00\
            02023200000003000000000000000500020232000000030000000000000007000000";
        assert_eq!(hex(Heartbeat { owned: Some(owned), progress: Some(progress), ..beat() }), full);
    }

    /// Status 1 with the text "d", active 0_0 and 0_1, interval 5000, endpoint epoch 1.
    const TAKEN: &[u8] = b"\0\0\0\0\0\0\0\x04m-1\0\0\0\x03\0\0\x13\x88\0\0\0\0\0\0\0\0\x02\x01\x02d\0\
        \x02\x020\x03\0\0\0\0\0\0\0\x01\0\x01\x01\0\0\0\x01\
        \x02\x02h\0\x50\0\x02\x03in\x03\0\0\0\0\0\0\0\x01\0\x01\0\0";

    #[test]
    fn an_answer_gives_epoch_statuses_and_tasks() {
        let tasks = Tasks { active: [task(0, 0), task(0, 1)].into(), ..Tasks::default() };
        let active = vec![TopicPartition::new("in", 0), TopicPartition::new("in", 1)];
        let address = Address { host: "h".to_owned(), port: 80, active, standby: Vec::new() };
        let taken = Taken {
            epoch: 3,
            endpoint_epoch: 1,
            interval_ms: 5000,
            progress_interval_ms: 0,
            statuses: vec![(Status::MissingSourceTopics, "d".to_owned())],
            tasks: Some(tasks),
            addresses: Some(vec![address]),
        };
        assert_eq!(decode(TAKEN), Ok(Ok(Heard::Taken(taken))));
        let unchanged = b"\0\0\0\0\0\0\0\x04m-1\0\0\0\x03\0\0\x13\x88\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0";
        let Ok(Ok(Heard::Taken(taken))) = decode(unchanged) else { panic!("{:?}", decode(unchanged)) };
        assert_eq!((taken.tasks, taken.statuses, taken.addresses), (None, vec![], None));
    }

    #[test]
    fn a_refusal_brings_the_brokers_words() {
        assert_eq!(decode(b"\0\0\0\0\0\x2a\x03no\0"), Ok(Err((Code::INVALID_REQUEST, "no".to_owned()))));
        assert_eq!(decode(b"\0\0\0\0\0\x2a\0\0"), Ok(Err((Code::INVALID_REQUEST, String::new()))));
    }

    #[test]
    fn a_truncated_answer_is_refused() {
        for length in 0..TAKEN.len() - 2 {
            assert!(decode(&TAKEN[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_end_the_process(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn no_damaged_answer_ends_the_process(place in 0..TAKEN.len(), byte in any::<u8>(), cut in 1..TAKEN.len()) {
            let mut damaged = TAKEN.to_vec();
            damaged[place] = byte;
            damaged.truncate(cut);
            let _ = decode(&damaged);
        }
    }
}
