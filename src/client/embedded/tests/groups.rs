use super::*;
use crate::error::ErrorKind;
use crate::membership::{LeaveMode, MembershipEvent};

type Joined = (Box<dyn Membership>, Box<dyn Consumer>);

fn assigned(member: &mut Joined) -> Vec<i32> {
    match member.0.poll().unwrap() {
        Some(MembershipEvent::Assigned { active }) => active.into_iter().map(|task| task.partition).collect(),
        other => panic!("expected an assignment, not {other:?}"),
    }
}

fn revoked(member: &mut Joined) -> Vec<i32> {
    match member.0.poll().unwrap() {
        Some(MembershipEvent::Revoked { tasks }) => tasks.into_iter().map(|task| task.partition).collect(),
        other => panic!("expected tasks to be revoked, not {other:?}"),
    }
}

fn cluster(partitions: i32) -> EmbeddedCluster {
    let cluster = EmbeddedCluster::with_virtual_clock();
    cluster.create_topic("t", partitions).unwrap();
    cluster
}

#[test]
fn tasks_move_only_when_they_are_given_back() {
    let cluster = cluster(3);
    let mut a = cluster.join(&spec("a", &["t"])).unwrap();
    assert_eq!(assigned(&mut a), [0, 1, 2]);
    let old = a.0.group_metadata().unwrap().unwrap();
    let mut b = cluster.join(&spec("b", &["t"])).unwrap();
    assert_eq!(b.0.group_metadata().unwrap(), None, "nothing is assigned yet");
    assert_eq!(revoked(&mut a), [0, 1, 2]);
    assert_eq!((a.0.poll().unwrap(), b.0.poll().unwrap()), (None, None));
    // Its place is lost only with the last acknowledgement.
    a.0.commit(&[(TopicPartition::new("t", 0), at(4))]).unwrap();
    a.0.acknowledge().unwrap();
    let error = a.0.commit(&[(TopicPartition::new("t", 0), at(5))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.report());
    assert_eq!((assigned(&mut a), assigned(&mut b)), (vec![0, 1], vec![2]));
    assert_eq!(a.0.group_metadata().unwrap().unwrap().generation, old.generation + 1);
    assert_eq!(b.0.committed(&[TopicPartition::new("t", 0)]).unwrap(), [Some(at(4))]);
    assert_eq!(cluster.committed_offset("app", "t", 0).unwrap(), Some(4));
}

#[test]
fn a_member_that_has_not_heard_of_its_tasks_gives_none_back() {
    let cluster = cluster(2);
    let mut a = cluster.join(&spec("a", &["t"])).unwrap();
    let mut b = cluster.join(&spec("b", &["t"])).unwrap();
    assert_eq!((assigned(&mut a), assigned(&mut b)), (vec![0], vec![1]));
}

#[test]
fn topics_read_together_stay_together_whatever_their_partition_counts() {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("long", 4).unwrap();
    cluster.create_topic("short", 2).unwrap();
    struct Partitions;
    impl TaskMap for Partitions {
        fn tasks(&self, partitions: &BTreeSet<TopicPartition>) -> Result<BTreeSet<TaskId>> {
            // The number of partitions per number, as a sub-topology, to look at.
            let count = |number| partitions.iter().filter(|one| one.partition == number).count();
            Ok(partitions
                .iter()
                .map(|one| TaskId { sub_topology: count(one.partition), ..task(one.partition) })
                .collect())
        }
    }
    let spec = |client| GroupSpec { tasks: Arc::new(Partitions), ..spec(client, &["long", "short"]) };
    let mut members = ["a", "b", "c"].map(|client| cluster.join(&spec(client)).unwrap());
    let tasks = members.each_mut().map(|member| match member.0.poll().unwrap() {
        Some(MembershipEvent::Assigned { active }) => active.iter().map(ToString::to_string).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    });
    assert_eq!(tasks, [vec!["2_0", "2_1"], vec!["1_2"], vec!["1_3"]]);
}

#[test]
fn a_member_without_a_task_hears_so() {
    let cluster = cluster(1);
    let mut a = cluster.join(&spec("a", &["t"])).unwrap();
    let mut b = cluster.join(&spec("b", &["t"])).unwrap();
    assert_eq!((assigned(&mut a), assigned(&mut b)), (vec![0], vec![]));
    // It has nothing to give back, so the other one's leaving is all there is to wait for.
    a.0.close(LeaveMode::Leave).unwrap();
    assert_eq!(assigned(&mut b), [0]);
    assert_eq!(a.0.poll().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn the_tasks_of_a_member_that_is_dropped_go_to_the_others() {
    let cluster = cluster(2);
    let mut a = cluster.join(&spec("a", &["t"])).unwrap();
    let mut b = cluster.join(&spec("b", &["t"])).unwrap();
    assert_eq!((assigned(&mut a), assigned(&mut b)), (vec![0], vec![1]));
    drop(a);
    assert_eq!(revoked(&mut b), [1]);
    b.0.acknowledge().unwrap();
    assert_eq!(assigned(&mut b), [0, 1]);
}

#[test]
fn an_expired_member_hears_that_its_tasks_are_lost_and_joins_again() {
    let cluster = cluster(2);
    let mut a = cluster.join(&spec("a", &["t"])).unwrap();
    assert_eq!(assigned(&mut a), [0, 1]);
    let old = a.0.group_metadata().unwrap().unwrap();
    assert!(cluster.expire_member("app", &old.member).unwrap());
    assert!(!cluster.expire_member("app", &old.member).unwrap());
    assert_eq!(a.0.commit(&[(TopicPartition::new("t", 0), at(1))]).unwrap_err().kind(), ErrorKind::Fenced);
    let tasks = BTreeSet::from([task(0), task(1)]);
    assert_eq!(a.0.poll().unwrap(), Some(MembershipEvent::Lost { tasks }));
    assert_eq!(a.0.poll().unwrap(), None);
    assert!(cluster.members("app").unwrap().is_empty(), "it joins when its tasks are closed");
    a.0.acknowledge().unwrap();
    assert_eq!(assigned(&mut a), [0, 1]);
    assert_ne!(a.0.group_metadata().unwrap().unwrap().member, old.member);
}

#[test]
fn a_member_expired_while_it_gives_back_joins_again_after_that() {
    let cluster = cluster(2);
    let mut a = cluster.join(&spec("a", &["t"])).unwrap();
    assert_eq!(assigned(&mut a), [0, 1]);
    let mut b = cluster.join(&spec("b", &["t"])).unwrap();
    assert_eq!(revoked(&mut a), [0, 1]);
    let member = a.0.group_metadata().unwrap().unwrap().member;
    cluster.expire_member("app", &member).unwrap();
    assert_eq!(assigned(&mut b), [0, 1]);
    assert_eq!(a.0.poll().unwrap(), None);
    a.0.acknowledge().unwrap();
    assert_eq!(revoked(&mut b), [0, 1]);
    b.0.acknowledge().unwrap();
    assert_eq!((assigned(&mut a), assigned(&mut b)), (vec![0], vec![1]));
}

#[test]
fn a_member_that_stays_away_keeps_its_tasks_until_its_session_is_over() {
    let cluster = cluster(2);
    let mut a = cluster.join(&spec("a", &["t"])).unwrap();
    let mut b = cluster.join(&spec("b", &["t"])).unwrap();
    assert_eq!((assigned(&mut a), assigned(&mut b)), (vec![0], vec![1]));
    a.0.close(LeaveMode::Stay).unwrap();
    drop(a);
    cluster.advance(Duration::from_secs(6)).unwrap();
    assert_eq!(b.0.poll().unwrap(), None);
    cluster.advance(Duration::from_millis(1)).unwrap();
    assert_eq!(revoked(&mut b), [1]);
    b.0.acknowledge().unwrap();
    assert_eq!(assigned(&mut b), [0, 1]);
}

#[test]
fn a_static_member_comes_back_to_its_tasks_and_nobody_notices() {
    let cluster = cluster(2);
    let fixed = GroupSpec { instance_id: Some("one".into()), ..spec("a", &["t"]) };
    let mut a = cluster.join(&fixed).unwrap();
    let mut b = cluster.join(&spec("b", &["t"])).unwrap();
    assert_eq!((assigned(&mut a), assigned(&mut b)), (vec![0], vec![1]));
    let before = a.0.group_metadata().unwrap().unwrap();
    a.0.close(LeaveMode::Stay).unwrap();
    let mut again = cluster.join(&fixed).unwrap();
    assert_eq!(assigned(&mut again), [0]);
    assert_eq!(b.0.poll().unwrap(), None);
    let after = again.0.group_metadata().unwrap().unwrap();
    assert_eq!(after.generation, before.generation);
    assert_ne!(after.member, before.member);

    // A twin fences the one that is there.
    let mut twin = cluster.join(&fixed).unwrap();
    assert_eq!(assigned(&mut twin), [0]);
    assert_eq!(again.0.poll().unwrap_err().kind(), ErrorKind::Fenced);
    let mut producer = transactional(&cluster, "tx", Duration::from_secs(1));
    producer.begin_transaction().unwrap();
    let error = producer.send_offsets(&[(TopicPartition::new("t", 0), at(1))], &after).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted);
    drop(again);
    assert_eq!(twin.0.poll().unwrap(), None, "the twin's place is its own");
}

#[test]
fn a_new_topic_of_a_group_is_dealt_out() {
    let cluster = EmbeddedCluster::new();
    let mut a = cluster.join(&spec("a", &["t"])).unwrap();
    assert!(assigned(&mut a).is_empty());
    cluster.create_topic("t", 2).unwrap();
    assert_eq!(assigned(&mut a), [0, 1]);
    cluster.create_topic("other", 2).unwrap();
    assert_eq!(a.0.poll().unwrap(), None);
    cluster.delete_topic("t").unwrap();
    assert_eq!(revoked(&mut a), [0, 1]);
    a.0.acknowledge().unwrap();
    assert!(assigned(&mut a).is_empty());
}

#[test]
fn a_pending_offset_is_neither_old_nor_new() {
    let cluster = cluster(2);
    let mut a = cluster.join(&spec("a", &["t"])).unwrap();
    assert_eq!(assigned(&mut a), [0, 1]);
    let [zero, one] = [0, 1].map(|partition| TopicPartition::new("t", partition));
    let metadata = a.0.group_metadata().unwrap().unwrap();
    let mut producer = transactional(&cluster, "tx", Duration::from_secs(1));
    producer.begin_transaction().unwrap();
    producer.send_offsets(&[(zero.clone(), at(1))], &metadata).unwrap();
    let error = a.0.committed(std::slice::from_ref(&zero)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("t[0]"), "{error}");
    assert_eq!(a.0.committed(&[one]).unwrap(), [None], "others are answered");
    // A rebalance between the offsets and the commit does not matter (R11.2).
    let _b = cluster.join(&spec("b", &["t"])).unwrap();
    assert_eq!(revoked(&mut a), [0, 1]);
    a.0.acknowledge().unwrap();
    producer.commit_transaction(Duration::ZERO).unwrap();
    assert_eq!(a.0.committed(&[zero]).unwrap(), [Some(at(1))]);
}

#[test]
fn a_wait_ends_with_news_of_the_group_and_of_what_is_read() {
    let cluster = cluster(1);
    let mut a = cluster.join(&spec("a", &["t"])).unwrap();
    // With nothing new these would take the whole of an hour.
    let hour = Duration::from_secs(3600);
    a.1.wait(hour).unwrap();
    assert_eq!(assigned(&mut a), [0]);
    let partition = TopicPartition::new("t", 0);
    a.1.assign(&[(partition.clone(), 0)]).unwrap();
    cluster.produce("t", None, Some(b"v"), None).unwrap();
    a.1.wait(hour).unwrap();
    std::thread::scope(|scope| {
        let mut batch = crate::record::RecordBatch::default();
        a.1.fetch(&partition, 10, &mut batch).unwrap();
        scope.spawn(|| cluster.produce("t", None, Some(b"w"), None).unwrap());
        a.1.wait(hour).unwrap();
    });
}
