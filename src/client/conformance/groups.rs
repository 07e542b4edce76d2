//! Members, tasks and committed offsets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::client::conformance::steps::*;
use crate::client::{Cluster, Consumer, GroupMetadata, GroupSpec, Isolation};
use crate::error::{ErrorKind, Result};
use crate::membership::{LeaveMode, Membership, MembershipEvent, TaskMap};
use crate::record::{OffsetAndMetadata, TopicPartition};
use crate::topology::TaskId;

pub(crate) fn a_plain_commit_is_read_back(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[]);
    let [zero, one] = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
    let group = unique("group");
    let mut member = Member::join(cluster, &group, &topic);
    until("the member has both tasks", || member.step().len() == 2);
    assert_eq!(member.membership.committed(&[zero.clone(), one.clone()]).unwrap(), [None, None]);
    member.membership.commit(&[(zero.clone(), at(3, "AgAAAYvP5WgA"))]).unwrap();
    let committed = member.membership.committed(&[one.clone(), zero.clone()]).unwrap();
    assert_eq!(committed, [None, Some(at(3, "AgAAAYvP5WgA"))]);
    member.membership.close(LeaveMode::Leave).unwrap();

    let mut next = Member::join(cluster, &group, &topic);
    until("the next member has both tasks", || next.step().len() == 2);
    assert_eq!(next.membership.committed(&[zero, one]).unwrap(), [Some(at(3, "AgAAAYvP5WgA")), None]);
    next.membership.close(LeaveMode::Leave).unwrap();
}

pub(crate) fn offsets_are_visible_only_with_their_transaction(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut member = Member::join(cluster, &unique("group"), &topic);
    let metadata = member.metadata();
    let mut producer = transactional_producer(cluster, &unique("tx"));
    producer.begin_transaction().unwrap();
    producer.send_offsets(&[(partition.clone(), at(5, "aborted"))], &metadata).unwrap();
    producer.abort_transaction(CALL).unwrap();
    assert_eq!(member.membership.committed(std::slice::from_ref(&partition)).unwrap(), [None]);
    producer.begin_transaction().unwrap();
    producer.send_offsets(&[(partition.clone(), at(7, "committed"))], &metadata).unwrap();
    producer.commit_transaction(CALL).unwrap();
    assert_eq!(member.membership.committed(&[partition]).unwrap(), [Some(at(7, "committed"))]);
    member.membership.close(LeaveMode::Leave).unwrap();
}

pub(crate) fn committed_waits_for_a_pending_transaction(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut member = Member::join(cluster, &unique("group"), &topic);
    let metadata = member.metadata();
    let mut producer = transactional_producer(cluster, &unique("tx"));
    producer.begin_transaction().unwrap();
    producer.send_offsets(&[(partition.clone(), at(9, ""))], &metadata).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Any delay will do: the answer must be the same whether the commit comes before or after the question.
            pause(Duration::from_millis(50));
            producer.commit_transaction(CALL).unwrap();
        });
        assert_eq!(member.committed(std::slice::from_ref(&partition)), [Some(at(9, ""))]);
    });
    member.membership.close(LeaveMode::Leave).unwrap();
}

pub(crate) fn offsets_of_an_old_generation_are_refused(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let group = unique("group");
    let mut first = Member::join(cluster, &group, &topic);
    let old = first.metadata();
    let mut second = Member::join(cluster, &group, &topic);
    until("both have a task", || first.step().len() == 1 && second.step().len() == 1);
    let new = first.metadata();
    assert_eq!(new.member, old.member);
    assert!(new.generation > old.generation);

    let mut producer = transactional_producer(cluster, &unique("tx"));
    producer.begin_transaction().unwrap();
    write(producer.as_mut(), &topic, 0, "refused");
    let offsets = [(partition.clone(), at(1, ""))];
    let error = producer.send_offsets(&offsets, &old).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted, "{}", error.report());
    let error = producer.commit_transaction(CALL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted, "{}", error.report());
    producer.abort_transaction(CALL).unwrap();
    assert_eq!(first.committed(std::slice::from_ref(&partition)), [None]);

    producer.begin_transaction().unwrap();
    producer.send_offsets(&offsets, &new).unwrap();
    producer.commit_transaction(CALL).unwrap();
    assert_eq!(first.committed(&[partition]), [Some(at(1, ""))]);
    first.membership.close(LeaveMode::Leave).unwrap();
    second.membership.close(LeaveMode::Leave).unwrap();
}

pub(crate) fn offsets_of_an_unknown_member_are_refused(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut member = Member::join(cluster, &unique("group"), &topic);
    let metadata = GroupMetadata { member: unique("nobody"), ..member.metadata() };
    let mut producer = transactional_producer(cluster, &unique("tx"));
    producer.begin_transaction().unwrap();
    let error = producer.send_offsets(&[(partition.clone(), at(1, ""))], &metadata).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted, "{}", error.report());
    producer.abort_transaction(CALL).unwrap();
    assert_eq!(member.committed(&[partition]), [None]);
    member.membership.close(LeaveMode::Leave).unwrap();
}

pub(crate) fn two_members_share_the_partitions(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 4, &[]);
    let group = unique("group");
    let mut first = Member::join(cluster, &group, &topic);
    until("the first member has all tasks", || first.step().len() == 4);
    let mut second = Member::join(cluster, &group, &topic);

    // The first member is asked for tasks, and nobody has what it has not given back.
    let mut asked = BTreeSet::new();
    until("the first member is asked for tasks", || {
        assert!(second.step().is_empty(), "the second member has tasks that are not given back");
        match first.poll() {
            Some(MembershipEvent::Revoked { tasks }) => asked = tasks,
            Some(event) => panic!("expected tasks to be revoked, not {event:?}"),
            None => {}
        }
        !asked.is_empty()
    });
    assert!(asked.is_subset(&first.owned));
    for _ in 0..20 {
        assert!(second.step().is_disjoint(&first.owned));
    }
    first.owned = &first.owned - &asked;
    first.membership.acknowledge().unwrap();
    until("both members have two tasks", || {
        let (first, second) = (first.step(), second.step());
        assert!(first.is_disjoint(&second), "{first:?} {second:?}");
        first.len() == 2 && second.len() == 2
    });

    // Each reads what it owns.
    let mut producer = plain_producer(cluster);
    for partition in 0..4 {
        write(producer.as_mut(), &topic, partition, &partition.to_string());
    }
    confirm(producer.as_mut());
    for member in [&mut first, &mut second] {
        for task in member.owned.clone() {
            let partition = TopicPartition::new(Arc::clone(&topic), task.partition);
            member.consumer.assign(&[(partition.clone(), 0)]).unwrap();
            let record = read_one(member.consumer.as_mut(), &partition);
            assert_eq!(record.value.as_deref(), Some(task.partition.to_string().as_bytes()));
        }
    }
    first.membership.close(LeaveMode::Leave).unwrap();
    second.membership.close(LeaveMode::Leave).unwrap();
}

pub(crate) fn a_leaving_member_hands_its_tasks_over(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 3, &[]);
    let group = unique("group");
    let mut members = [(); 3].map(|()| Member::join(cluster, &group, &topic));
    // Each takes its step, whatever the others have: a group waits for all of its members.
    until("every member has a task", || members.each_mut().map(|member| member.step().len()) == [1; 3]);
    let [mut leaver, mut first, mut second] = members;
    leaver.membership.close(LeaveMode::Leave).unwrap();
    until("the others have all tasks", || {
        let (first, second) = (first.step(), second.step());
        assert!(first.is_disjoint(&second));
        first.len() + second.len() == 3
    });
    first.membership.close(LeaveMode::Leave).unwrap();
    until("the last one has all tasks", || second.step().len() == 3);
    second.membership.close(LeaveMode::Leave).unwrap();
}

pub(crate) fn a_join_wakes_the_other_member(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[]);
    let group = unique("group");
    let mut first = Member::join(cluster, &group, &topic);
    until("the first member has all tasks", || first.step().len() == 2);
    let mut second = Member::join(cluster, &group, &topic);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            until("the first member is asked for tasks", || {
                first.consumer.wait(Duration::from_secs(1)).unwrap();
                matches!(first.poll(), Some(MembershipEvent::Revoked { .. }))
            });
        });
        until("the first member has heard of it", || {
            second.step();
            waiter.is_finished()
        });
    });
    first.membership.close(LeaveMode::Leave).unwrap();
    second.membership.close(LeaveMode::Leave).unwrap();
}

// ---- what the cases are written with ----

/// A member of a group, and the tasks it has been told of.
pub(super) struct Member {
    membership: Box<dyn Membership>,
    consumer: Box<dyn Consumer>,
    owned: BTreeSet<TaskId>,
}

impl Member {
    pub(super) fn join(cluster: &dyn Cluster, group: &str, topic: &Arc<str>) -> Member {
        let spec = GroupSpec {
            group: group.to_owned(),
            client_id: unique("client"),
            instance_id: None,
            topics: vec![Arc::clone(topic)],
            isolation: Isolation::ReadCommitted,
            tasks: Arc::new(TaskPerPartition),
        };
        let (membership, consumer) = cluster.join(&spec).unwrap();
        Member { membership, consumer, owned: BTreeSet::new() }
    }

    /// The next event, without an answer to it.
    fn poll(&mut self) -> Option<MembershipEvent> {
        self.consumer.wait(Duration::from_millis(1)).unwrap();
        match self.membership.poll() {
            Ok(event) => event,
            Err(error) if error.kind() == ErrorKind::Unavailable => None,
            Err(error) => panic!("{}", error.report()),
        }
    }

    /// Takes and answers the next event; the tasks owned then.
    fn step(&mut self) -> BTreeSet<TaskId> {
        match self.poll() {
            Some(MembershipEvent::Assigned { active }) => {
                assert!(active.is_disjoint(&self.owned), "assigned {active:?} to the owner of {:?}", self.owned);
                self.owned.extend(active);
            }
            Some(MembershipEvent::Standby { .. }) => {}
            Some(MembershipEvent::Revoked { tasks } | MembershipEvent::Lost { tasks }) => {
                assert!(tasks.is_subset(&self.owned), "revoked {tasks:?} from the owner of {:?}", self.owned);
                self.owned = &self.owned - &tasks;
                self.membership.acknowledge().unwrap();
            }
            None => {}
        }
        self.owned.clone()
    }

    pub(super) fn leave(&mut self) {
        self.membership.close(LeaveMode::Leave).unwrap();
    }

    pub(super) fn metadata(&mut self) -> GroupMetadata {
        let mut metadata = None;
        until("the member has a task", || {
            let owned = self.step();
            metadata = self.membership.group_metadata().unwrap();
            metadata.is_some() && !owned.is_empty()
        });
        metadata.unwrap()
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Vec<Option<OffsetAndMetadata>> {
        let mut committed = None;
        until("the offsets are decided", || match self.membership.committed(partitions) {
            Ok(offsets) => {
                committed = Some(offsets);
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
                false
            }
        });
        committed.unwrap()
    }
}

/// One sub-topology that reads one topic.
struct TaskPerPartition;

impl TaskMap for TaskPerPartition {
    fn tasks(&self, partitions: &BTreeSet<TopicPartition>) -> Result<BTreeSet<TaskId>> {
        Ok(partitions.iter().map(|one| TaskId { sub_topology: 0, partition: one.partition }).collect())
    }
}
