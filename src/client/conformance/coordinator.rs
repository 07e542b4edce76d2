//! The coordinator of classic groups, request by request (R11.1, R11.2, R11.4).

use std::sync::Arc;
use std::time::Duration;

use crate::client::conformance::groups::Member;
use crate::client::conformance::party::*;
use crate::client::conformance::steps::*;
use crate::client::{Cluster, GroupMetadata};
use crate::error::ErrorKind;
use crate::membership::classic::protocol::{GroupAnswer, GroupError, GroupRequest, RequestKind};
use crate::record::TopicPartition;

// ---- joining ----

pub(crate) fn a_dynamic_member_is_given_an_id_before_it_joins(cluster: &dyn Cluster) {
    let mut client = Party::new(cluster).client(None, b"data");
    let first = client.ask(client.join_request());
    let GroupAnswer::Refused { request: RequestKind::Join, error: GroupError::MemberIdRequired(id) } = first else {
        panic!("{first:?}")
    };
    client.member = id.clone();
    let joined = client.joined();
    assert_eq!((&joined.member, &joined.leader, joined.skip_assignment), (&id, &id, false));
    assert_eq!(joined.listed(), [(id.as_str(), &b"data"[..])]);
    assert_eq!(joined.members[0].topics, client.topics);
}

pub(crate) fn a_static_member_joins_at_once(cluster: &dyn Cluster) {
    let mut client = Party::new(cluster).client(Some("one"), b"data");
    let joined = client.joined();
    assert!(joined.member.starts_with("one-"), "{joined:?}");
    assert_eq!(joined.leader, joined.member);
    assert_eq!(joined.members[0].instance.as_deref(), Some("one"));
}

pub(crate) fn a_join_waits_until_the_others_have_joined(cluster: &dyn Cluster) {
    for [one, two] in [[None, None], [Some("one"), Some("two")]] {
        let party = Party::new(cluster);
        let mut first = party.client(one, b"first");
        first.joined();
        first.synced_as_leader(&[&first.member.clone()]);
        assert_eq!(first.heartbeat(), GroupAnswer::Alive);
        let mut second = party.client(two, b"second");
        second.fetch_id();
        second.send(second.join_request());
        first.hears_of_a_rebalance();
        assert_eq!(first.ask(first.sync_request(vec![])), refused(RequestKind::Sync, GroupError::RebalanceInProgress));
        assert_eq!(second.peek(RequestKind::Join), None);
        let before = first.generation;
        let joined = first.joined();
        let other = second.take_joined();
        assert_eq!((joined.generation, other.generation), (before + 1, before + 1));
        assert_eq!((&joined.leader, &other.leader), (&first.member, &first.member));
        assert_eq!(joined.listed_data(), [&b"first"[..], b"second"]);
        assert_eq!(other.members, []);
    }
}

pub(crate) fn the_leader_deals_and_everybody_is_told(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let (mut leader, mut follower) = party.joined_pair();
    follower.send(follower.sync_request(vec![]));
    assert_eq!(follower.heartbeat(), GroupAnswer::Alive, "a generation that is not dealt yet is one");
    assert_eq!(follower.peek(RequestKind::Sync), None);
    let plan = [leader.member.clone(), follower.member.clone()];
    leader.synced_as_leader(&[&plan[0], &plan[1]]);
    assert_eq!(follower.take(RequestKind::Sync), dealt(&party.topic, 1, &plan[1]));
    // Asked again, also with another plan, the same is told.
    assert_eq!(follower.ask(follower.sync_request(vec![])), dealt(&party.topic, 1, &plan[1]));
    let other_plan = plan_of(&party.topic, &[&plan[1], &plan[0]]);
    assert_eq!(leader.ask(leader.sync_request(other_plan)), dealt(&party.topic, 0, &plan[0]));
}

pub(crate) fn only_other_bytes_of_a_follower_start_a_rebalance(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let (mut leader, mut follower) = party.pair([None, None]);
    let (generation, member) = (follower.generation, follower.member.clone());
    let again = follower.joined();
    assert_eq!((again.generation, &again.member, again.skip_assignment), (generation, &member, false));
    assert_eq!(again.members, []);
    assert_eq!(follower.ask(follower.sync_request(vec![])), dealt(&party.topic, 1, &member));
    assert_eq!(leader.heartbeat(), GroupAnswer::Alive);
    follower.user_data = b"other".to_vec();
    follower.send(follower.join_request());
    leader.hears_of_a_rebalance();
    assert_eq!(leader.joined().listed_data(), [&b"leader"[..], b"other"]);
    assert_eq!(follower.take_joined().generation, generation + 1);
}

pub(crate) fn a_leader_that_joins_again_starts_a_rebalance(cluster: &dyn Cluster) {
    let (mut leader, mut follower) = Party::new(cluster).pair([None, None]);
    let generation = leader.generation;
    leader.send(leader.join_request());
    follower.hears_of_a_rebalance();
    follower.joined();
    assert_eq!(leader.take_joined().generation, generation + 1);
}

pub(crate) fn members_of_another_protocol_are_not_mixed(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let mut other = Member::join(cluster, &party.group, &party.topic);
    other.metadata();
    let mut client = party.client(Some("one"), b"data");
    let refused_join = refused(RequestKind::Join, GroupError::InconsistentProtocol);
    assert_eq!(client.ask(client.join_request()), refused_join);
    other.leave();
    until("the group is left", || client.ask(client.join_request()) != refused_join);
}

pub(crate) fn a_session_timeout_out_of_bounds_is_refused(cluster: &dyn Cluster) {
    let mut client = Party::new(cluster).client(Some("one"), b"data");
    client.session_timeout = Duration::from_secs(3600);
    assert_eq!(client.ask(client.join_request()), refused(RequestKind::Join, GroupError::InvalidSessionTimeout));
}

pub(crate) fn blobs_beyond_a_megabyte_are_refused_at_the_sync(cluster: &dyn Cluster) {
    let mut client = Party::new(cluster).client(Some("one"), &[7; 1_100 << 10]);
    client.joined();
    let answer = client.ask(client.sync_request(vec![]));
    let is_refused =
        matches!(answer, GroupAnswer::Refused { request: RequestKind::Sync, error: GroupError::Other(-1, _) });
    assert!(is_refused, "{answer:?}");
}

// ---- restarts of static members ----

pub(crate) fn a_follower_that_restarts_keeps_its_place(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let (mut leader, follower) = party.pair([Some("one"), Some("two")]);
    let mut again = party.client(Some("two"), b"follower");
    let joined = again.joined();
    assert_eq!((joined.generation, joined.skip_assignment), (follower.generation, false));
    assert_ne!(joined.member, follower.member);
    assert_eq!((&joined.leader, &joined.members[..]), (&leader.member, &[][..]));
    assert_eq!(again.ask(again.sync_request(vec![])), dealt(&party.topic, 1, &follower.member));
    assert_eq!(leader.heartbeat(), GroupAnswer::Alive, "nobody else notices");
}

pub(crate) fn a_leader_that_restarts_skips_the_assignment(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let (leader, mut follower) = party.pair([Some("one"), Some("two")]);
    let mut again = party.client(Some("one"), b"leader");
    let joined = again.joined();
    assert_eq!((joined.generation, joined.skip_assignment), (leader.generation, true));
    assert_ne!(joined.member, leader.member);
    assert_eq!(joined.leader, joined.member);
    assert_eq!(joined.listed_data(), [&b"leader"[..], b"follower"]);
    // The old assignment, whether it sends a plan or none.
    for plan in [vec![], plan_of(&party.topic, &[&follower.member, &joined.member])] {
        assert_eq!(again.ask(again.sync_request(plan)), dealt(&party.topic, 0, &leader.member));
    }
    assert_eq!(follower.heartbeat(), GroupAnswer::Alive, "nobody else notices");
}

pub(crate) fn changed_bytes_of_a_member_that_restarts_wait_for_the_next_rebalance(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let (mut leader, follower) = party.pair([Some("one"), Some("two")]);
    let mut again = party.client(Some("two"), b"other");
    again.session_timeout += Duration::from_secs(1);
    assert_eq!(again.joined().generation, follower.generation);
    assert_eq!(leader.heartbeat(), GroupAnswer::Alive);
    // Now they are the stored ones: only others are news.
    assert_eq!(again.joined().generation, follower.generation);
    assert_eq!(leader.heartbeat(), GroupAnswer::Alive);
    again.user_data = b"another".to_vec();
    again.send(again.join_request());
    leader.hears_of_a_rebalance();
    assert_eq!(leader.joined().listed_data(), [&b"leader"[..], b"another"]);
    assert_eq!(again.take_joined().generation, follower.generation + 1);
}

pub(crate) fn the_older_of_two_twins_is_fenced(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let (_leader, mut old) = party.pair([Some("one"), Some("two")]);
    let mut new = party.client(Some("two"), b"follower");
    new.joined();
    for request in [old.join_request(), old.sync_request(vec![]), old.heartbeat_request(), old.leave_request()] {
        let kind = request.kind();
        assert_eq!(old.ask(request), refused(kind, GroupError::FencedInstance));
    }
    assert_eq!(new.heartbeat(), GroupAnswer::Alive);
    assert_eq!(party.commit_in_transaction(&old.metadata()), Err(ErrorKind::Aborted));
    assert_eq!(party.commit(&old.metadata()), Err(ErrorKind::Fenced));
    assert_eq!(party.commit(&new.metadata()), Ok(()));
}

pub(crate) fn a_twin_that_waits_for_its_join_is_fenced_at_once(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let (mut old, mut other) = party.pair([Some("one"), Some("two")]);
    old.send(old.join_request());
    other.hears_of_a_rebalance();
    let mut new = party.client(Some("one"), b"leader");
    new.send(new.join_request());
    assert_eq!(old.take(RequestKind::Join), refused(RequestKind::Join, GroupError::FencedInstance));
    other.joined();
    assert_eq!(new.take_joined().generation, old.generation + 1);
}

pub(crate) fn a_restart_between_join_and_sync_starts_another_rebalance(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let (leader, mut follower) = party.joined_pair();
    follower.send(follower.sync_request(vec![]));
    assert_eq!(follower.heartbeat(), GroupAnswer::Alive);
    let mut again = party.client(leader.instance.as_deref(), b"leader");
    again.send(again.join_request());
    assert_eq!(follower.take(RequestKind::Sync), refused(RequestKind::Sync, GroupError::RebalanceInProgress));
    follower.hears_of_a_rebalance();
    follower.joined();
    assert_eq!(again.take_joined().generation, leader.generation + 1);
}

// ---- leaving, and being late ----

pub(crate) fn a_leaving_member_starts_a_rebalance(cluster: &dyn Cluster) {
    let (mut leader, mut follower) = Party::new(cluster).pair([None, None]);
    assert_eq!(leader.ask(leader.leave_request()), GroupAnswer::Left);
    assert_eq!(leader.heartbeat(), refused(RequestKind::Heartbeat, GroupError::UnknownMemberId));
    follower.hears_of_a_rebalance();
    let joined = follower.joined();
    assert_eq!((&joined.leader, joined.generation), (&follower.member, leader.generation + 1));
    assert_eq!(joined.listed_data(), [&b"follower"[..]]);
}

pub(crate) fn a_static_member_is_taken_out_by_its_instance_id(cluster: &dyn Cluster) {
    let (mut leader, mut follower) = Party::new(cluster).pair([Some("one"), Some("two")]);
    let out = GroupRequest::Leave { member: String::new(), instance: Some("two".to_owned()) };
    assert_eq!(leader.ask(out.clone()), GroupAnswer::Left);
    assert_eq!(follower.heartbeat(), refused(RequestKind::Heartbeat, GroupError::UnknownMemberId));
    leader.hears_of_a_rebalance();
    assert_eq!(leader.joined().listed_data(), [&b"leader"[..]]);
    assert_eq!(leader.ask(out), refused(RequestKind::Leave, GroupError::UnknownMemberId));
}

pub(crate) fn a_dynamic_member_that_joins_too_late_is_out(cluster: &dyn Cluster) {
    let party = Party { rebalance_timeout: Duration::from_millis(300), ..Party::new(cluster) };
    let (mut leader, mut late) = party.pair([None, None]);
    assert_eq!(leader.joined().listed_data(), [&b"leader"[..]]);
    assert_eq!(late.heartbeat(), refused(RequestKind::Heartbeat, GroupError::UnknownMemberId));
    assert_eq!(late.ask(late.join_request()), refused(RequestKind::Join, GroupError::UnknownMemberId));
}

pub(crate) fn a_static_member_that_joins_too_late_stays_listed(cluster: &dyn Cluster) {
    let party = Party { rebalance_timeout: Duration::from_millis(300), ..Party::new(cluster) };
    let (mut leader, mut late) = party.pair([Some("one"), Some("two")]);
    let joined = leader.joined();
    assert_eq!(joined.listed_data(), [&b"leader"[..], b"follower"]);
    assert_eq!(late.heartbeat(), refused(RequestKind::Heartbeat, GroupError::IllegalGeneration));
    leader.synced_as_leader(&[&leader.member.clone(), &late.member]);
    // The same bytes: it takes its place in the generation that it has missed.
    assert_eq!(late.joined().generation, joined.generation);
    assert_eq!(late.ask(late.sync_request(vec![])), dealt(&party.topic, 1, &late.member));
}

pub(crate) fn who_is_not_in_the_group_is_refused(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let (mut leader, mut follower) = party.pair([None, Some("two")]);
    let unknown = |kind| refused(kind, GroupError::UnknownMemberId);
    for request in [follower.join_request(), follower.sync_request(vec![]), follower.heartbeat_request()] {
        let kind = request.kind();
        assert_eq!(follower.ask(with_member(request.clone(), "nobody", None)), unknown(kind));
        assert_eq!(follower.ask(with_member(request, &leader.member, Some("nobody"))), unknown(kind));
    }
    assert_eq!(follower.ask(with_member(follower.leave_request(), "nobody", None)), unknown(RequestKind::Leave));
    for generation in [leader.generation - 1, leader.generation + 1] {
        let illegal = |kind| refused(kind, GroupError::IllegalGeneration);
        assert_eq!(
            leader.ask(with_generation(leader.heartbeat_request(), generation)),
            illegal(RequestKind::Heartbeat)
        );
        assert_eq!(leader.ask(with_generation(leader.sync_request(vec![]), generation)), illegal(RequestKind::Sync));
    }
    let mut stranger = Party::new(cluster).client(None, b"");
    stranger.member = "nobody".to_owned();
    for request in [stranger.join_request(), stranger.sync_request(vec![]), stranger.heartbeat_request()] {
        let kind = request.kind();
        assert_eq!(stranger.ask(request), unknown(kind), "a group that does not exist");
    }
}

// ---- commits ----

pub(crate) fn commits_are_checked_by_generation_member_and_instance(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let (leader, mut follower) = party.pair([None, Some("two")]);
    let good = follower.metadata();
    let instance = |name: &str| Some(name.to_owned());
    let no_member = String::new;
    let cases = [
        (good.clone(), Ok(())),
        (GroupMetadata { instance: None, ..good.clone() }, Ok(())),
        (GroupMetadata { generation: good.generation - 1, ..good.clone() }, Err(())),
        (GroupMetadata { generation: good.generation + 1, ..good.clone() }, Err(())),
        (GroupMetadata { member: "nobody".to_owned(), instance: None, ..good.clone() }, Err(())),
        (GroupMetadata { member: leader.member.clone(), ..good.clone() }, Err(())),
        (GroupMetadata { instance: instance("nobody"), ..good.clone() }, Err(())),
        (GroupMetadata { member: no_member(), instance: None, ..good.clone() }, Err(())),
    ];
    for (metadata, outcome) in cases {
        assert_eq!(party.commit_in_transaction(&metadata), outcome.map_err(|()| ErrorKind::Aborted), "{metadata:?}");
        assert_eq!(party.commit(&metadata), outcome.map_err(|()| ErrorKind::Fenced), "{metadata:?}");
    }
    assert_eq!(follower.ask(follower.leave_request()), GroupAnswer::Left);
    assert_eq!(party.commit_in_transaction(&good), Err(ErrorKind::Aborted), "it has left");
    assert_eq!(party.commit(&good), Err(ErrorKind::Fenced), "it has left");
}

pub(crate) fn commits_go_on_in_a_rebalance(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let (mut leader, mut follower) = party.pair([None, None]);
    leader.send(leader.join_request());
    follower.hears_of_a_rebalance();
    let old = follower.metadata();
    assert_eq!(party.commit_in_transaction(&old), Ok(()), "while the others are waited for");
    assert_eq!(party.commit(&old), Ok(()), "while the others are waited for");
    follower.joined();
    leader.take_joined();
    let new = follower.metadata();
    assert_eq!(party.commit_in_transaction(&old), Err(ErrorKind::Aborted), "the generation has begun");
    assert_eq!(party.commit_in_transaction(&new), Ok(()), "before the sync");
    assert_eq!(party.commit(&new), Err(ErrorKind::Unavailable), "before the sync");
    leader.synced_as_leader(&[&leader.member.clone(), &follower.member]);
    assert_eq!(party.commit(&new), Ok(()), "after the sync");
}

pub(crate) fn what_is_committed_is_read_back_by_anybody(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let mut client = party.client(Some("one"), b"");
    client.joined();
    client.synced_as_leader(&[&client.member.clone()]);
    let [zero, one] = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&party.topic), partition));
    let mut offsets = cluster.group_offsets(&party.group, &unique("client")).unwrap();
    assert_eq!(offsets.committed(&[zero.clone(), one.clone()]).unwrap(), [None, None]);
    offsets.commit(&[(zero.clone(), at(3, "AgAAAYvP5WgA"))], &client.metadata()).unwrap();
    let mut others = cluster.group_offsets(&party.group, &unique("client")).unwrap();
    assert_eq!(others.committed(&[one, zero]).unwrap(), [None, Some(at(3, "AgAAAYvP5WgA"))]);
}

pub(crate) fn fencing_ends_what_a_producer_has_left_open(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let mut client = party.client(Some("one"), b"");
    client.joined();
    client.synced_as_leader(&[&client.member.clone()]);
    let id = unique("tx");
    let mut dead = transactional_producer(cluster, &id);
    dead.begin_transaction().unwrap();
    let partition = TopicPartition::new(Arc::clone(&party.topic), 0);
    write(dead.as_mut(), &party.topic, 0, "open");
    confirm(dead.as_mut());
    dead.send_offsets(&[(partition.clone(), at(9, ""))], &client.metadata()).unwrap();
    let mut offsets = cluster.group_offsets(&party.group, &unique("client")).unwrap();
    offsets.fence(&[id, unique("never-used")], &[]).unwrap();
    assert_eq!(offsets.committed(&[partition]).unwrap(), [None]);
    let error = dead.commit_transaction(CALL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.report());
}

pub(crate) fn committed_offsets_wait_for_a_transaction_that_is_open(cluster: &dyn Cluster) {
    ask_while_a_transaction_ends(cluster, None, |group, partition| {
        let mut offsets = cluster.group_offsets(group, &unique("client")).unwrap();
        assert_eq!(offsets.committed(&[partition]).unwrap(), [Some(at(9, ""))]);
    });
}

/// The transaction sets the group's position in the partition, which may have one `before`, to 9.
pub(super) fn ask_while_a_transaction_ends(
    cluster: &dyn Cluster,
    before: Option<i64>,
    ask: impl FnOnce(&str, TopicPartition),
) {
    let party = Party::new(cluster);
    let mut client = party.client(Some("one"), b"");
    client.joined();
    client.synced_as_leader(&[&client.member.clone()]);
    let mut producer = transactional_producer(cluster, &unique("tx"));
    let partition = TopicPartition::new(Arc::clone(&party.topic), 0);
    let mut impatient = cluster.group_offsets(&party.group, &unique("client")).unwrap();
    let before = before.map(|offset| at(offset, ""));
    if let Some(before) = before.clone() {
        impatient.commit(&[(partition.clone(), before)], &client.metadata()).unwrap();
    }
    producer.begin_transaction().unwrap();
    producer.send_offsets(&[(partition.clone(), at(9, ""))], &client.metadata()).unwrap();
    assert_eq!(impatient.committed_so_far(std::slice::from_ref(&partition)).unwrap(), [before]);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Any delay will do: the answer must be the same whether the commit comes before or after the question.
            pause(Duration::from_millis(50));
            producer.commit_transaction(CALL).unwrap();
        });
        ask(&party.group, partition);
    });
}

pub(crate) fn a_waker_ends_a_wait(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let mut coordinator = cluster.coordinator(&party.group, &unique("client")).unwrap();
    // If nothing woke it, this would take the whole of an hour.
    let hour = Duration::from_secs(3600);
    let wake = coordinator.waker();
    wake();
    coordinator.wait(hour);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| coordinator.wait(hour));
        until("the wait has ended", || {
            wake();
            waiter.is_finished()
        });
    });
}
