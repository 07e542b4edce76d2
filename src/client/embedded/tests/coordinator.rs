//! Groups whose members deal the partitions themselves: what time does to them, by a virtual clock.

use std::time::Duration;

use proptest::prelude::*;

use crate::client::Cluster;
use crate::client::conformance::party::{Client, Party, dealt, kind_of, refused};
use crate::client::embedded::EmbeddedCluster;
use crate::client::embedded::tests::*;
use crate::error::ErrorKind;
use crate::membership::classic::protocol::{GroupAnswer, GroupError, GroupRequest, MemberAssignment, RequestKind};

const SECOND: Duration = Duration::from_secs(1);

/// Sessions of 30 s, rebalances of 60 s.
fn party(cluster: &EmbeddedCluster) -> Party<'_> {
    Party::new(cluster)
}

fn gone(kind: RequestKind) -> GroupAnswer {
    refused(kind, GroupError::UnknownMemberId)
}

#[test]
fn a_silent_member_is_out_when_its_session_is_over() {
    for instances in [[None, None], [Some("one"), Some("two")]] {
        let cluster = EmbeddedCluster::with_virtual_clock();
        let (mut leader, mut silent) = party(&cluster).pair(instances);
        cluster.advance(20 * SECOND).unwrap();
        assert_eq!(leader.heartbeat(), GroupAnswer::Alive);
        cluster.advance(10 * SECOND).unwrap();
        leader.hears_of_a_rebalance();
        assert_eq!(leader.joined().listed_data(), [b"leader"]);
        assert_eq!(silent.heartbeat(), gone(RequestKind::Heartbeat));
    }
}

#[test]
fn a_plain_commit_keeps_a_session() {
    let cluster = EmbeddedCluster::with_virtual_clock();
    let party = party(&cluster);
    let (mut leader, follower) = party.pair([None, None]);
    cluster.advance(20 * SECOND).unwrap();
    assert_eq!(leader.heartbeat(), GroupAnswer::Alive);
    party.commit(&follower.metadata()).unwrap();
    cluster.advance(20 * SECOND).unwrap();
    assert_eq!(leader.heartbeat(), GroupAnswer::Alive, "nobody is gone");
    cluster.advance(10 * SECOND).unwrap();
    leader.hears_of_a_rebalance();
}

#[test]
fn a_member_that_restarts_in_its_session_has_another_one() {
    let cluster = EmbeddedCluster::with_virtual_clock();
    let party = party(&cluster);
    let (mut leader, _) = party.pair([Some("one"), Some("two")]);
    cluster.advance(20 * SECOND).unwrap();
    assert_eq!(leader.heartbeat(), GroupAnswer::Alive);
    let mut again = party.client(Some("two"), b"follower");
    assert_eq!(again.joined().generation, leader.generation);
    cluster.advance(20 * SECOND).unwrap();
    assert_eq!(leader.heartbeat(), GroupAnswer::Alive);
    assert_eq!(again.heartbeat(), GroupAnswer::Alive);
}

#[test]
fn an_id_that_nobody_joins_with_holds_a_rebalance_back_until_it_is_forgotten() {
    let cluster = EmbeddedCluster::with_virtual_clock();
    let party = party(&cluster);
    let (mut leader, mut follower) = party.pair([None, None]);
    let mut never = party.client(None, b"");
    never.fetch_id();
    leader.send(leader.join_request());
    follower.send(follower.join_request());
    assert_eq!(leader.peek(RequestKind::Join), None);
    cluster.advance(30 * SECOND).unwrap();
    assert_eq!(leader.take_joined().listed_data(), [&b"follower"[..], b"leader"]);
    follower.take_joined();
    assert_eq!(never.ask(never.join_request()), gone(RequestKind::Join));
}

#[test]
fn a_join_that_waits_is_no_silence() {
    let cluster = EmbeddedCluster::with_virtual_clock();
    let (mut leader, mut late) = party(&cluster).pair([None, None]);
    leader.send(leader.join_request());
    for _ in 0..5 {
        cluster.advance(11 * SECOND).unwrap();
        late.hears_of_a_rebalance();
        assert_eq!(leader.peek(RequestKind::Join), None);
    }
    late.joined();
    leader.take_joined();
    // From here on it counts again.
    cluster.advance(30 * SECOND).unwrap();
    assert_eq!(leader.heartbeat(), gone(RequestKind::Heartbeat));
}

#[test]
fn a_new_member_waits_for_the_others_longer_than_its_session() {
    let cluster = EmbeddedCluster::with_virtual_clock();
    let party = Party { rebalance_timeout: 1_000 * SECOND, ..party(&cluster) };
    let (mut leader, mut follower) = party.pair([Some("one"), Some("two")]);
    let mut new = party.client(Some("three"), b"new");
    new.send(new.join_request());
    for _ in 0..29 {
        cluster.advance(10 * SECOND).unwrap();
        leader.hears_of_a_rebalance();
        follower.hears_of_a_rebalance();
        assert_eq!(new.peek(RequestKind::Join), None);
    }
    cluster.advance(10 * SECOND).unwrap();
    assert_eq!(new.take(RequestKind::Join), gone(RequestKind::Join), "after five minutes it is to ask again");
}

#[test]
fn a_member_that_does_not_ask_for_its_assignment_is_out_after_the_rebalance_timeout() {
    let cluster = EmbeddedCluster::with_virtual_clock();
    let party = party(&cluster);
    let (mut leader, mut lazy) = party.joined_pair();
    leader.synced_as_leader(&[&leader.member.clone(), &lazy.member]);
    for _ in 0..5 {
        cluster.advance(11 * SECOND).unwrap();
        assert_eq!(leader.heartbeat(), GroupAnswer::Alive);
        assert_eq!(lazy.heartbeat(), GroupAnswer::Alive);
    }
    cluster.advance(5 * SECOND).unwrap();
    leader.hears_of_a_rebalance();
    assert_eq!(lazy.heartbeat(), gone(RequestKind::Heartbeat));
    assert_eq!(leader.joined().listed_data(), [b"leader"]);
}

#[test]
fn a_leader_that_never_deals_is_replaced() {
    let cluster = EmbeddedCluster::with_virtual_clock();
    let (_silent, mut follower) = party(&cluster).joined_pair();
    follower.send(follower.sync_request(vec![]));
    cluster.advance(30 * SECOND).unwrap();
    assert_eq!(follower.take(RequestKind::Sync), refused(RequestKind::Sync, GroupError::RebalanceInProgress));
    assert_eq!(follower.joined().leader, follower.member);
}

#[test]
fn a_round_in_which_nobody_joins_goes_on_until_the_sessions_are_over() {
    let cluster = EmbeddedCluster::with_virtual_clock();
    let party = Party { rebalance_timeout: 5 * SECOND, ..party(&cluster) };
    let (mut leader, mut follower) = party.pair([Some("one"), Some("two")]);
    let mut third = party.client(Some("three"), b"third");
    third.send(third.join_request());
    let out = GroupRequest::Leave { member: String::new(), instance: Some("three".to_owned()) };
    assert_eq!(leader.ask(out), GroupAnswer::Left);
    assert_eq!(third.take(RequestKind::Join), gone(RequestKind::Join));
    cluster.advance(6 * SECOND).unwrap();
    assert_eq!(follower.heartbeat(), refused(RequestKind::Heartbeat, GroupError::RebalanceInProgress));
    cluster.advance(40 * SECOND).unwrap();
    assert_eq!(leader.heartbeat(), gone(RequestKind::Heartbeat));
    assert_eq!(follower.heartbeat(), gone(RequestKind::Heartbeat));
    let mut new = party.client(Some("four"), b"new");
    assert_eq!(new.joined().listed_data(), [b"new"]);
}

#[test]
fn a_directory_keeps_offsets_and_no_members() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::open(directory.path()).unwrap();
    let party = Party::new(&cluster);
    let (leader, follower) = party.pair([None, None]);
    party.commit(&follower.metadata()).unwrap();
    let (group, topic, old) = (party.group.clone(), Arc::clone(&party.topic), follower.metadata());
    let join = follower.join_request();
    drop((leader, follower, party));
    drop(cluster);

    let cluster = EmbeddedCluster::open(directory.path()).unwrap();
    let mut coordinator = cluster.coordinator(&group, "client").unwrap();
    coordinator.send(join);
    assert_eq!(coordinator.poll(), Some(gone(RequestKind::Join)));
    let mut offsets = cluster.group_offsets(&group, "client").unwrap();
    let partition = TopicPartition::new(topic, 0);
    assert_eq!(offsets.committed(std::slice::from_ref(&partition)).unwrap(), [Some(at(1))]);
    let error = offsets.commit(&[(partition, at(2))], &old).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
}

#[derive(Debug, Clone)]
enum Act {
    Join,
    Sync,
    Heartbeat,
    Leave,
    /// Another process in its place, which knows nothing.
    Restart,
    ChangeBytes(u8),
    Advance(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Join),
        4 => Just(Act::Sync),
        2 => Just(Act::Heartbeat),
        1 => Just(Act::Leave),
        1 => Just(Act::Restart),
        1 => any::<u8>().prop_map(Act::ChangeBytes),
        2 => (0..4_000_u64).prop_map(Act::Advance),
    ]
}

/// Some members, dynamic and static ones, and everything they have heard.
struct Play<'a> {
    cluster: &'a EmbeddedCluster,
    party: Party<'a>,
    clients: Vec<Client>,
    /// Of each, whether a join or a sync is under way, and the members to deal to.
    waits: Vec<bool>,
    listed: Vec<Vec<String>>,
    heard: Vec<(usize, GroupAnswer)>,
}

impl<'a> Play<'a> {
    fn new(cluster: &'a EmbeddedCluster) -> Play<'a> {
        cluster.create_topic("t", 2).unwrap();
        let party = Party { group: "app".into(), topic: "t".into(), cluster, rebalance_timeout: 5 * SECOND };
        let clients: Vec<_> = (0..4).map(|number| Play::client(&party, number)).collect();
        let (waits, listed) = (vec![false; clients.len()], vec![vec![]; clients.len()]);
        Play { cluster, party, clients, waits, listed, heard: vec![] }
    }

    fn client(party: &Party<'_>, number: usize) -> Client {
        let mut client = party.client([None, Some("one"), Some("two"), None][number], b"");
        client.session_timeout = 6 * SECOND;
        client
    }

    fn act(&mut self, number: usize, act: &Act) {
        let client = &mut self.clients[number];
        match act {
            Act::Join | Act::Sync if self.waits[number] => {}
            Act::Join => {
                self.waits[number] = true;
                client.send(client.join_request());
            }
            Act::Sync => {
                self.waits[number] = true;
                let plan = self.listed[number].iter().map(|member| MemberAssignment {
                    member: member.clone(),
                    partitions: vec![],
                    user_data: client.generation.to_be_bytes().to_vec(),
                });
                client.send(client.sync_request(plan.collect()));
            }
            Act::Heartbeat => client.send(client.heartbeat_request()),
            Act::Leave => client.send(client.leave_request()),
            Act::Restart => {
                self.clients[number] = Play::client(&self.party, number);
                self.waits[number] = false;
                self.listed[number].clear();
            }
            Act::ChangeBytes(byte) => client.user_data = vec![*byte],
            Act::Advance(ms) => self.cluster.advance(Duration::from_millis(*ms)).unwrap(),
        }
        self.hear();
    }

    fn hear(&mut self) {
        for (number, client) in self.clients.iter_mut().enumerate() {
            while let Some(answer) = client.poll() {
                let before = client.generation;
                client.heed(&answer);
                if let GroupAnswer::Joined { generation, leader, member, members, .. } = &answer {
                    assert_eq!(leader == member, !members.is_empty(), "{answer:?}");
                    assert!(members.is_empty() || members.iter().any(|one| one.id == *member), "{answer:?}");
                    assert!(*generation >= before, "{answer:?} after {before}");
                    self.listed[number] = members.iter().map(|one| one.id.clone()).collect();
                }
                if let GroupAnswer::Synced { user_data, .. } = &answer
                    && !user_data.is_empty()
                {
                    assert_eq!(user_data[..], client.generation.to_be_bytes(), "dealt in that generation");
                }
                if matches!(kind_of(&answer), RequestKind::Join | RequestKind::Sync) {
                    self.waits[number] = false;
                }
                self.heard.push((number, answer));
            }
        }
    }
}

fn play(acts: &[(usize, Act)]) -> Vec<(usize, GroupAnswer)> {
    let cluster = EmbeddedCluster::with_virtual_clock();
    let mut play = Play::new(&cluster);
    acts.iter().for_each(|(number, act)| play.act(*number, act));
    // Then everybody is silent: whoever waits gets an answer all the same.
    for _ in 0..5 {
        play.act(0, &Act::Advance(301_000));
    }
    assert_eq!(play.waits, [false; 4]);
    play.heard
}

proptest! {
    #[test]
    fn everybody_is_answered_and_the_same_requests_have_the_same_answers(
        acts in proptest::collection::vec((0..4_usize, act()), 0..150)
    ) {
        prop_assert_eq!(play(&acts), play(&acts));
    }
}

#[test]
fn a_member_may_be_thrown_out() {
    let cluster = EmbeddedCluster::new();
    let party = party(&cluster);
    let (mut leader, follower) = party.pair([None, None]);
    let mut members = vec![leader.member.clone(), follower.member.clone()];
    members.sort();
    assert_eq!(cluster.members(&party.group).unwrap(), members);
    assert!(cluster.expire_member(&party.group, &follower.member).unwrap());
    assert!(!cluster.expire_member(&party.group, &follower.member).unwrap());
    leader.hears_of_a_rebalance();
    leader.joined();
    leader.synced_as_leader(&[&leader.member.clone()]);
    assert_eq!(leader.ask(leader.sync_request(vec![])), dealt(&party.topic, 0, &leader.member));
}
