//! Others in the group that should not be there: each is answered, and whoever was there before goes on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::membership::{Entry, LONG, Scene, begin, counting, start, wait_until};
use crate::client::conformance::party::{Client, Party};
use crate::client::{Cluster, GroupSpec, Isolation};
use crate::membership::classic::protocol::{GroupAnswer, GroupError, MemberAssignment};
use crate::membership::classic::user_data::{Assignment, Standing};
use crate::membership::{LeaveMode, TaskMap};
use crate::record::TopicPartition;
use crate::topology::TaskId;
use crate::{CloseOptions, Consumed, ErrorKind, GroupProtocol, KafkaStreams, Produced, Result, State, Utf8};

/// Nothing that any build has ever written.
const GARBLED: &[u8] = b"\0garbled";
/// Of a build whose words no earlier one can read.
const OF_TOMORROW: &[u8] = &[9, 9, 9, 9, 1, 2, 3];

#[test]
fn a_twin_from_another_state_directory_ends_the_first_one_and_loses_nothing() {
    let mut scene = Scene::new(LONG);
    let twin = |scene: &Scene, folder| scene.config(folder).group_instance_id("same");
    let first = start(twin(&scene, "first"));
    scene.count();
    let second = begin(twin(&scene, "second"));
    wait_until("the first one has ended", || first.state() == State::Error);
    let error = first.take_error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.report().contains("own state directory and group_instance_id"), "{}", error.report());
    scene.count();
    second.close(CloseOptions::default()).unwrap();
}

/// Somebody who speaks our protocol and says something else in it.
fn stranger(scene: &Scene, says: &[u8]) -> Client {
    let cluster: &dyn Cluster = &scene.cluster.inner;
    let party =
        Party { cluster, group: "app".to_owned(), topic: Arc::from("in"), rebalance_timeout: Duration::from_secs(60) };
    party.client(None, says)
}

#[test]
fn a_member_whose_words_cannot_be_read_is_told_so_and_stops_nobody() {
    let mut scene = Scene::new(LONG);
    let streams = scene.start("first");
    for says in [GARBLED, OF_TOMORROW, b""] {
        let mut stranger = stranger(&scene, says);
        stranger.joined();
        let GroupAnswer::Synced { partitions, user_data } = stranger.ask(stranger.sync_request(Vec::new())) else {
            panic!("it has no place")
        };
        let told = Assignment::decode(&user_data).unwrap();
        assert_eq!((partitions, told.standing, told.active), (Vec::new(), Standing::Unreadable, Vec::new()));
        let remedy = told.standing.error().unwrap().to_string();
        assert!(remedy.contains("upgrade the other instances, or let nothing else use the group"), "{remedy}");
        scene.count();
        assert_eq!(stranger.ask(stranger.leave_request()), GroupAnswer::Left);
        scene.count();
    }
    streams.close(CloseOptions::default()).unwrap();
}

/// One round in which the stranger leads, and says this to everybody.
fn lead(leader: &mut Client, says: &[u8]) {
    let members = leader.joined().members;
    let told = |id: String| MemberAssignment { member: id, partitions: Vec::new(), user_data: says.to_vec() };
    let assignments = members.into_iter().map(|member| told(member.id)).collect();
    assert!(matches!(leader.ask(leader.sync_request(assignments)), GroupAnswer::Synced { .. }));
}

#[test]
fn a_leader_whose_words_cannot_be_read_is_waited_for() {
    let mut scene = Scene::new(LONG);
    scene.write();
    let mut leader = stranger(&scene, GARBLED);
    lead(&mut leader, GARBLED);
    let streams = begin(scene.config("first"));
    // It asks again what it has not understood.
    for _ in 0..3 {
        leader.hears_of_a_rebalance();
        lead(&mut leader, GARBLED);
    }
    assert_eq!(streams.state(), State::Rebalancing);
    assert_eq!(leader.ask(leader.leave_request()), GroupAnswer::Left);
    scene.assert_counted();
    wait_until("it runs", || streams.state() == State::Running);
    streams.close(CloseOptions::default()).unwrap();
}

#[test]
fn a_leader_of_a_later_build_that_cannot_be_followed_ends_the_instance_with_the_remedy() {
    let mut scene = Scene::new(LONG);
    scene.write();
    let mut leader = stranger(&scene, OF_TOMORROW);
    lead(&mut leader, OF_TOMORROW);
    let streams = begin(scene.config("first"));
    leader.hears_of_a_rebalance();
    lead(&mut leader, OF_TOMORROW);
    wait_until("it has ended", || streams.state() == State::Error);
    let error = streams.take_error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.report().contains("upgrade this instance"), "{}", error.report());
    leader.ask(leader.leave_request());
    // As it would be when it was upgraded.
    let streams = scene.start("first");
    scene.count();
    streams.close(CloseOptions::default()).unwrap();
}

/// What a consumer without tasks reads is nobody's task.
struct NoTasks;

impl TaskMap for NoTasks {
    fn tasks(&self, _partitions: &BTreeSet<TopicPartition>) -> Result<BTreeSet<TaskId>> {
        Ok(BTreeSet::new())
    }
}

#[test]
fn a_group_that_a_plain_consumer_uses_is_waited_for() {
    let mut scene = Scene::new(LONG);
    scene.write();
    let spec = GroupSpec {
        group: "app".to_owned(),
        client_id: "plain".to_owned(),
        instance_id: None,
        topics: vec!["in".into()],
        isolation: Isolation::ReadCommitted,
        tasks: Arc::new(NoTasks),
    };
    let (mut plain, _consumer) = scene.cluster.inner.join(&spec).unwrap();
    let streams = begin(scene.config("first"));
    let refused = Entry::Refused(GroupError::InconsistentProtocol);
    let tries = || scene.journal().into_iter().filter(|entry| *entry == refused).count();
    wait_until("it has tried more than once", || tries() > 1);
    assert_eq!(streams.state(), State::Rebalancing);
    plain.close(LeaveMode::Leave).unwrap();
    scene.assert_counted();
    wait_until("it runs", || streams.state() == State::Running);
    // And the other way round.
    let error = scene.cluster.inner.join(&spec).err().unwrap();
    assert!(error.report().contains("let them leave first"), "{}", error.report());
    scene.count();
    streams.close(CloseOptions::default()).unwrap();
}

#[test]
fn a_protocol_that_the_cluster_does_not_speak_is_refused_with_the_one_that_it_does() {
    let mut scene = Scene::new(LONG);
    scene.write();
    let config = scene.config("first").group_protocol(GroupProtocol::Streams);
    let streams = KafkaStreams::new(counting().build().unwrap(), config).unwrap();
    let error = streams.start().unwrap_err();
    assert_eq!((error.kind(), streams.state()), (ErrorKind::Invalid, State::Error));
    assert!(error.report().contains("Kafka cluster since 4.2, or set GroupProtocol::Sticky"), "{}", error.report());
    let streams = scene.start("first");
    scene.count();
    streams.close(CloseOptions::default()).unwrap();
}

#[test]
fn an_instance_with_another_topology_gets_nothing_until_it_is_alone() {
    let mut scene = Scene::new(LONG);
    let first = scene.start("first");
    scene.count();
    scene.cluster.inner.create_topic("more", 1).unwrap();
    let other = counting();
    other.stream("more", Consumed::with(Utf8, Utf8)).to("out", Produced::with(Utf8, Utf8));
    let second = KafkaStreams::new(other.build().unwrap(), scene.config("second")).unwrap();
    second.start().unwrap();
    let has_joined = |entry| matches!(entry, Entry::Joined { client, .. } if client.starts_with("second"));
    wait_until("it is in the group", || scene.journal().into_iter().any(has_joined));
    scene.count();
    assert_eq!(scene.reads("second"), Vec::<i32>::new());
    assert_eq!((first.state(), second.state().is_terminal()), (State::Running, false));
    // What both have goes on where it was; a part that is alike has the same state.
    first.close(CloseOptions::default().leave_group().hand_over(Duration::ZERO)).unwrap();
    scene.count();
    assert_eq!(scene.reads("second"), [0, 1, 2, 3, 4, 5]);
    second.close(CloseOptions::default()).unwrap();
}

#[test]
fn what_the_group_denies_ends_the_instance_and_is_gone_on_with_when_it_is_allowed() {
    let mut scene = Scene::new(LONG);
    let streams = scene.start("first");
    scene.count();
    scene.cluster.deny("READ on group app");
    wait_until("it has ended", || streams.state() == State::Error);
    let error = streams.take_error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.report().contains("allow READ on it: READ on group app"), "{}", error.report());
    scene.write();
    scene.cluster.allow();
    let streams = scene.start("first");
    scene.count();
    streams.close(CloseOptions::default()).unwrap();
}
