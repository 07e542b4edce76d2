//! On a real Kafka, named by `KSTREAMS_TEST_BOOTSTRAP`; `KSTREAMS_TEST_SETTINGS`, as `name=value name=value`, says what it asks
//! of clients (security).

use std::collections::BTreeMap;

use super::super::super::KafkaCluster;
use super::super::super::tests::bootstrap;
use super::*;
use crate::client::{Cluster, GroupMetadata, NewTopic, ProducerSpec};
use crate::error::ErrorKind;
use crate::membership::classic::protocol::{GroupError, GroupOffsets, MemberAssignment, RequestKind};
use crate::record::{Headers, OffsetAndMetadata, ProducerRecord, TopicPartition};

/// A group with a topic of its own.
struct Group {
    cluster: KafkaCluster,
    name: String,
    topic: Arc<str>,
}

impl Group {
    fn new() -> Option<Group> {
        let Some(bootstrap) = bootstrap() else {
            eprintln!("skipped: there is no broker");
            return None;
        };
        let name = format!("side-{}", uuid::Uuid::new_v4().simple());
        let settings = std::env::var("KSTREAMS_TEST_SETTINGS").unwrap_or_default();
        let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings: Option<BTreeMap<String, String>> = settings.split_whitespace().map(pair).collect();
        let cluster = KafkaCluster::new(&bootstrap, &name, settings.unwrap()).unwrap();
        let topic: Arc<str> = format!("{name}-in").into();
        let new = NewTopic { name: Arc::clone(&topic), partitions: 2, replication: None, config: BTreeMap::new() };
        cluster.admin().unwrap().create_topics(&[new]).unwrap();
        Some(Group { cluster, name, topic })
    }

    fn member(&self) -> Box<dyn GroupCoordinator> {
        self.cluster.coordinator(&self.name, "side").unwrap()
    }

    fn offsets(&self) -> Box<dyn GroupOffsets> {
        self.cluster.group_offsets(&self.name, "side").unwrap()
    }

    fn join(&self, member: &str, user_data: &[u8]) -> GroupRequest {
        GroupRequest::Join {
            member: member.to_owned(),
            instance: None,
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(60),
            topics: vec![Arc::clone(&self.topic)],
            user_data: user_data.to_vec(),
        }
    }

    fn partition(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(Arc::clone(&self.topic), partition)
    }
}

/// The id that the group gives to a new member.
fn id_of(member: &mut dyn GroupCoordinator, group: &Group) -> String {
    match ask(member, group.join("", b"")) {
        GroupAnswer::Refused { error: GroupError::MemberIdRequired(id), .. } => id,
        other => panic!("no id but {other:?}"),
    }
}

/// The first member, with everything.
fn settled(member: &mut dyn GroupCoordinator, group: &Group) -> (String, i32) {
    let id = id_of(member, group);
    let GroupAnswer::Joined { generation, leader, members, .. } = ask(member, group.join(&id, b"first")) else {
        panic!("not joined")
    };
    assert_eq!(leader, id);
    assert_eq!((members[0].user_data.as_slice(), &members[0].topics), (&b"first"[..], &vec![Arc::clone(&group.topic)]));
    let all = vec![group.partition(0), group.partition(1)];
    let given = MemberAssignment { member: id.clone(), partitions: all.clone(), user_data: b"plan".to_vec() };
    let sync = GroupRequest::Sync { generation, member: id.clone(), instance: None, assignments: vec![given] };
    assert_eq!(ask(member, sync), GroupAnswer::Synced { partitions: all, user_data: b"plan".to_vec() });
    (id, generation)
}

#[test]
fn two_members_share_a_group_and_one_leaves() {
    let Some(group) = Group::new() else { return };
    let (mut one, mut two) = (group.member(), group.member());
    let (first, generation) = settled(&mut *one, &group);
    let beat = |generation, id: &str| GroupRequest::Heartbeat { generation, member: id.to_owned(), instance: None };
    assert_eq!(ask(&mut *one, beat(generation, &first)), GroupAnswer::Alive);

    let second = id_of(&mut *two, &group);
    two.send(group.join(&second, b"second"));
    let rebalance = GroupAnswer::Refused { request: RequestKind::Heartbeat, error: GroupError::RebalanceInProgress };
    while ask(&mut *one, beat(generation, &first)) != rebalance {
        // Whose join is under way.
        assert_eq!(two.poll(), None);
    }
    let GroupAnswer::Joined { generation: next_generation, members, leader, .. } =
        ask(&mut *one, group.join(&first, b"first"))
    else {
        panic!("not joined")
    };
    assert_eq!((next_generation, &leader, members.len()), (generation + 1, &first, 2));
    assert!(matches!(next(&mut *two), GroupAnswer::Joined { members, .. } if members.is_empty()));

    let sync = |id: &str, assignments| GroupRequest::Sync {
        generation: next_generation,
        member: id.to_owned(),
        instance: None,
        assignments,
    };
    two.send(sync(&second, Vec::new()));
    let given = |id: &str, partition| MemberAssignment {
        member: id.to_owned(),
        partitions: vec![group.partition(partition)],
        user_data: id.as_bytes().to_vec(),
    };
    one.send(sync(&first, vec![given(&first, 0), given(&second, 1)]));
    for (member, id, partition) in [(&mut one, &first, 0), (&mut two, &second, 1)] {
        let partitions = vec![group.partition(partition)];
        assert_eq!(next(&mut **member), GroupAnswer::Synced { partitions, user_data: id.as_bytes().to_vec() });
    }

    let leave = GroupRequest::Leave { member: second.clone(), instance: None };
    assert_eq!(ask(&mut *two, leave), GroupAnswer::Left);
    let gone = GroupAnswer::Refused { request: RequestKind::Heartbeat, error: GroupError::UnknownMemberId };
    assert_eq!(ask(&mut *two, beat(next_generation, &second)), gone);
    assert_eq!(ask(&mut *one, beat(next_generation, &first)), rebalance);
}

#[test]
fn brokers_are_learned_under_the_names_they_advertise() {
    let Some(group) = Group::new() else { return };
    let mut settings = group.cluster.side("side").unwrap();
    for server in &mut settings.bootstrap {
        server.host = server.host.replace("127.0.0.1", "localhost");
    }
    let advertised = settings.bootstrap.iter().any(|server| server.host == "localhost");
    let mut member = coordinator(settings);
    let nobody = GroupAnswer::Refused { request: RequestKind::Heartbeat, error: GroupError::UnknownMemberId };
    assert_eq!(ask(&mut member, heartbeat()), nobody);
    let known = format!("{member:?}");
    assert_eq!(known.contains("learned: [Address { host: \"127.0.0.1\""), advertised, "{known}");
}

#[test]
fn a_member_commits_and_a_stranger_does_not() {
    let Some(group) = Group::new() else { return };
    let mut one = group.member();
    let (id, generation) = settled(&mut *one, &group);
    let mut offsets = group.offsets();
    let at = |offset| OffsetAndMetadata { offset, metadata: format!("at {offset}") };
    let member = GroupMetadata { group: group.name.clone(), generation, member: id, instance: None };
    offsets.commit(&[(group.partition(0), at(3)), (group.partition(1), at(4))], &member).unwrap();
    let all = [group.partition(1), group.partition(0)];
    assert_eq!(offsets.committed(&all).unwrap(), [Some(at(4)), Some(at(3))]);

    for stranger in [
        GroupMetadata { generation: generation - 1, ..member.clone() },
        GroupMetadata { member: "stranger".to_owned(), ..member },
    ] {
        let error = offsets.commit(&[(group.partition(0), at(9))], &stranger).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.report());
    }
    assert_eq!(offsets.committed(&all[..1]).unwrap(), [Some(at(4))]);
}

#[test]
fn fencing_ends_an_open_transaction_and_decides_its_offsets() {
    let Some(group) = Group::new() else { return };
    let mut one = group.member();
    let (id, generation) = settled(&mut *one, &group);
    let member = GroupMetadata { group: group.name.clone(), generation, member: id, instance: None };
    let transactional_id = format!("{}-0", group.name);
    let spec = ProducerSpec {
        client_id: "side".to_owned(),
        transactional_id: Some(transactional_id.clone()),
        transaction_timeout: Duration::from_secs(300),
        outputs: [Arc::clone(&group.topic)].into(),
    };
    let wait = Duration::from_secs(30);
    let mut producer = group.cluster.producer(&spec).unwrap();
    producer.init_transactions(wait).unwrap();
    producer.begin_transaction().unwrap();
    let headers = Headers::new();
    let record = ProducerRecord {
        topic: &group.topic,
        partition: Some(0),
        key: None,
        value: Some(b"v"),
        timestamp: Some(1),
        headers: &headers,
    };
    producer.send(record, false).unwrap();
    let at = OffsetAndMetadata { offset: 7, metadata: String::new() };
    producer.send_offsets(&[(group.partition(0), at)], &member).unwrap();

    let mut offsets = group.offsets();
    let settings = group.cluster.side("side").unwrap();
    let mut hasty = SideOffsets::with_patience(settings, &group.name, "side", Duration::from_secs(2)).unwrap();
    let open = hasty.committed(&[group.partition(0)]).unwrap_err();
    assert!(open.to_string().contains("transaction"), "{}", open.report());

    offsets.fence(&[transactional_id], &[Arc::clone(&group.topic)]).unwrap();
    assert_eq!(offsets.committed(&[group.partition(0)]).unwrap(), [None]);
    let error = producer.commit_transaction(wait).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.report());
}
