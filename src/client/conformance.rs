//! The behaviour both clusters share, as functions over [`Cluster`]: each panics where a cluster behaves otherwise.
//!
//! [`conformance_tests!`] makes one test of each. Nothing here knows which cluster it talks to: names of topics, groups
//! and transactional ids are new in every call, and whatever may take a cluster some time is asked for until it is so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::{
    Admin, Cluster, Consumer, ConsumerSpec, Fetch, GroupMetadata, GroupSpec, Isolation, Lag, NewTopic, Producer,
    ProducerSpec, Watermarks, partition_for_key,
};
use crate::error::{Error, ErrorKind, Result};
use crate::membership::{LeaveMode, Membership, MembershipEvent, TaskMap};
use crate::record::{Headers, OffsetAndMetadata, ProducerRecord, RecordBatch, TopicPartition};
use crate::topology::TaskId;

/// How long a cluster may take for anything before the case has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// For the calls that take a timeout.
const CALL: Duration = Duration::from_secs(30);

/// One `#[test]` per case. The expression is an `Option` of a cluster; none skips the case and says so.
macro_rules! conformance_tests {
    ($cluster:expr) => {
        $crate::client::conformance::conformance_tests! { @ $cluster;
            records_come_back_in_order_with_nulls_headers_and_timestamps,
            a_key_finds_its_partition_by_murmur2,
            a_partition_is_moved_to_another_offset,
            an_unassigned_partition_is_not_read,
            the_position_moves_past_control_records,
            lag_is_unknown_then_behind_then_caught_up,
            a_position_outside_of_the_log_is_out_of_range,
            read_committed_skips_aborted_records,
            read_committed_waits_for_an_open_transaction,
            a_transaction_spans_topics,
            an_empty_transaction_commits,
            an_older_producer_of_a_transactional_id_is_fenced,
            a_transaction_past_its_timeout_is_aborted,
            tracked_records_tell_the_end_offset,
            partitions_of_a_missing_topic_are_invalid,
            a_plain_commit_is_read_back,
            offsets_are_visible_only_with_their_transaction,
            committed_waits_for_a_pending_transaction,
            offsets_of_an_old_generation_are_refused,
            offsets_of_an_unknown_member_are_refused,
            two_members_share_the_partitions,
            a_leaving_member_hands_its_tasks_over,
            a_join_wakes_the_other_member,
            creating_an_existing_topic_leaves_it_alone,
            a_topic_created_again_has_another_id,
            watermarks_follow_appends_and_deletes,
            offsets_for_a_time_are_found,
        }
    };
    (@ $cluster:expr; $($case:ident),* $(,)?) => {
        $(#[test]
        fn $case() {
            match $cluster {
                Some(cluster) => $crate::client::conformance::$case(&cluster),
                None => eprintln!("{} skipped: there is no cluster", stringify!($case)),
            }
        })*
    };
}
pub(crate) use conformance_tests;

// ---- reading and writing ----

pub(crate) fn records_come_back_in_order_with_nulls_headers_and_timestamps(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let mut producer = plain_producer(cluster);
    let mut headers = Headers::new();
    headers.add("a", "1");
    headers.add_null("a");
    headers.add("", "");
    let sent = [
        seen(Some("k"), Some("v"), 1_700_000_000_000, headers),
        seen(None, Some(""), 5, Headers::new()),
        seen(Some(""), None, 1_700_000_000_001, Headers::new()),
        // Not 0, which librdkafka takes for "now".
        seen(None, None, 1, Headers::new()),
    ];
    for record in &sent {
        producer.send(record.to(&topic, 0), false).unwrap();
    }
    confirm(producer.as_mut());

    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut consumer = consumer(cluster, Isolation::ReadUncommitted, &[(partition.clone(), 0)]);
    let read = read(consumer.as_mut(), &partition, 4);
    assert_eq!(read.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(read.into_iter().map(|(_, record)| record).collect::<Vec<_>>(), sent);
    assert_eq!(consumer.position(&partition), Some(4));

    let before = now_ms();
    let none = Headers::new();
    let record =
        ProducerRecord { topic: &topic, partition: Some(0), key: None, value: None, timestamp: None, headers: &none };
    producer.send(record, false).unwrap();
    confirm(producer.as_mut());
    let timestamp = read_one(consumer.as_mut(), &partition).timestamp;
    assert!((timestamp - before).abs() < 3_600_000, "a record without a timestamp gets the clock's, not {timestamp}");
}

pub(crate) fn a_key_finds_its_partition_by_murmur2(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 5, &[]);
    let mut producer = plain_producer(cluster);
    assert_eq!(producer.partitions(&topic).unwrap(), 5);
    for key in ["alice", "bob", "carol", "dave", "eve"] {
        let record = seen(Some(key), Some(key), 1, Headers::new());
        producer.send(ProducerRecord { partition: None, ..record.to(&topic, 0) }, true).unwrap();
        confirm(producer.as_mut());
        let partition = TopicPartition::new(Arc::clone(&topic), partition_for_key(key.as_bytes(), 5));
        let end = producer.end_offset(&partition).unwrap();
        let mut consumer = consumer(cluster, Isolation::ReadUncommitted, &[(partition.clone(), end - 1)]);
        assert_eq!(read_one(consumer.as_mut(), &partition).key.as_deref(), Some(key.as_bytes()));
    }
}

pub(crate) fn a_partition_is_moved_to_another_offset(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut producer = plain_producer(cluster);
    for value in 0..10 {
        write(producer.as_mut(), &topic, 0, &value.to_string());
    }
    confirm(producer.as_mut());
    let mut consumer = consumer(cluster, Isolation::ReadCommitted, &[(partition.clone(), 4)]);
    assert_eq!(offsets(&read(consumer.as_mut(), &partition, 2)), [4, 5]);
    consumer.assign(&[(partition.clone(), 1)]).unwrap();
    assert_eq!(consumer.position(&partition), Some(1));
    assert_eq!(offsets(&read(consumer.as_mut(), &partition, 9)), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    consumer.assign(&[(partition.clone(), 8)]).unwrap();
    assert_eq!(offsets(&read(consumer.as_mut(), &partition, 2)), [8, 9]);
}

pub(crate) fn an_unassigned_partition_is_not_read(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[]);
    let [zero, one] = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
    let mut producer = plain_producer(cluster);
    write(producer.as_mut(), &topic, 0, "zero");
    write(producer.as_mut(), &topic, 1, "one");
    confirm(producer.as_mut());
    let mut consumer = consumer(cluster, Isolation::ReadCommitted, &[(zero.clone(), 0), (one.clone(), 0)]);
    assert_eq!(read_one(consumer.as_mut(), &zero).value.as_deref(), Some(&b"zero"[..]));
    consumer.unassign(&[zero.clone(), TopicPartition::new("never-assigned", 7)]).unwrap();
    assert_eq!(consumer.position(&zero), None);
    assert_eq!(read_one(consumer.as_mut(), &one).value.as_deref(), Some(&b"one"[..]));
    consumer.assign(&[(zero.clone(), 0)]).unwrap();
    assert_eq!(read_one(consumer.as_mut(), &zero).value.as_deref(), Some(&b"zero"[..]));
}

pub(crate) fn the_position_moves_past_control_records(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut producer = transactional_producer(cluster, &unique("tx"));
    for round in 0..2 {
        producer.begin_transaction().unwrap();
        write(producer.as_mut(), &topic, 0, &round.to_string());
        producer.commit_transaction(CALL).unwrap();
    }
    for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
        let mut consumer = consumer(cluster, isolation, &[(partition.clone(), 0)]);
        // Offsets 1 and 3 are control records.
        assert_eq!(offsets(&read(consumer.as_mut(), &partition, 2)), [0, 2]);
        let rest = drain(consumer.as_mut(), &partition);
        assert_eq!(rest, []);
        assert_eq!(consumer.position(&partition), Some(4), "{isolation:?}");
    }
}

pub(crate) fn lag_is_unknown_then_behind_then_caught_up(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[]);
    let [zero, one] = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
    let mut producer = plain_producer(cluster);
    write(producer.as_mut(), &topic, 0, "a");
    confirm(producer.as_mut());
    let mut consumer = consumer(cluster, Isolation::ReadCommitted, &[]);
    assert_eq!(consumer.lag(&zero), Lag::Unknown, "not assigned");
    consumer.assign(&[(zero.clone(), 0), (one.clone(), 0)]).unwrap();
    assert_ne!(consumer.lag(&zero), Lag::CaughtUp);
    assert_eq!(offsets(&drain(consumer.as_mut(), &zero)), [0]);
    assert_eq!(consumer.lag(&zero), Lag::CaughtUp);
    assert_eq!(offsets(&drain(consumer.as_mut(), &one)), [0; 0], "an empty partition is caught up with");
    assert_eq!(consumer.position(&one), Some(0));
    // A partition that is assigned anew knows nothing.
    consumer.assign(&[(zero.clone(), 0)]).unwrap();
    assert_ne!(consumer.lag(&zero), Lag::CaughtUp);
}

pub(crate) fn a_position_outside_of_the_log_is_out_of_range(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut producer = plain_producer(cluster);
    for value in 0..6 {
        write(producer.as_mut(), &topic, 0, &value.to_string());
    }
    confirm(producer.as_mut());
    cluster.admin().unwrap().delete_records(&[(partition.clone(), 3)]).unwrap();
    for offset in [0, 100] {
        let mut consumer = consumer(cluster, Isolation::ReadCommitted, &[(partition.clone(), offset)]);
        let mut batch = RecordBatch::default();
        until("the offset is out of range", || {
            consumer.wait(Duration::from_millis(10)).unwrap();
            consumer.fetch(&partition, 10, &mut batch).unwrap() == Fetch::OutOfRange
        });
        assert!(batch.is_empty());
        consumer.assign(&[(partition.clone(), 3)]).unwrap();
        assert_eq!(offsets(&read(consumer.as_mut(), &partition, 3)), [3, 4, 5]);
    }
}

// ---- transactions ----

pub(crate) fn read_committed_skips_aborted_records(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut producer = transactional_producer(cluster, &unique("tx"));
    for (value, keep) in [("one", true), ("two", false), ("three", true), ("four", false)] {
        producer.begin_transaction().unwrap();
        write(producer.as_mut(), &topic, 0, value);
        confirm(producer.as_mut());
        match keep {
            true => producer.commit_transaction(CALL).unwrap(),
            false => producer.abort_transaction(CALL).unwrap(),
        }
    }
    let mut committed = consumer(cluster, Isolation::ReadCommitted, &[(partition.clone(), 0)]);
    assert_eq!(values(&drain_to(committed.as_mut(), &partition, 8)), ["one", "three"]);
    let mut everything = consumer(cluster, Isolation::ReadUncommitted, &[(partition.clone(), 0)]);
    assert_eq!(values(&drain_to(everything.as_mut(), &partition, 8)), ["one", "two", "three", "four"]);
}

pub(crate) fn read_committed_waits_for_an_open_transaction(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut plain = plain_producer(cluster);
    let mut producer = transactional_producer(cluster, &unique("tx"));
    write(plain.as_mut(), &topic, 0, "before");
    confirm(plain.as_mut());
    producer.begin_transaction().unwrap();
    write(producer.as_mut(), &topic, 0, "open");
    confirm(producer.as_mut());
    write(plain.as_mut(), &topic, 0, "behind");
    confirm(plain.as_mut());

    let mut committed = consumer(cluster, Isolation::ReadCommitted, &[(partition.clone(), 0)]);
    assert_eq!(values(&drain(committed.as_mut(), &partition)), ["before"]);
    assert_eq!(committed.position(&partition), Some(1));
    let mut everything = consumer(cluster, Isolation::ReadUncommitted, &[(partition.clone(), 0)]);
    assert_eq!(values(&read(everything.as_mut(), &partition, 3)), ["before", "open", "behind"]);
    producer.commit_transaction(CALL).unwrap();
    assert_eq!(values(&read(committed.as_mut(), &partition, 2)), ["open", "behind"]);
}

pub(crate) fn a_transaction_spans_topics(cluster: &dyn Cluster) {
    let topics = [new_topic(cluster, 1, &[]), new_topic(cluster, 2, &[])];
    let all = [
        TopicPartition::new(Arc::clone(&topics[0]), 0),
        TopicPartition::new(Arc::clone(&topics[1]), 0),
        TopicPartition::new(Arc::clone(&topics[1]), 1),
    ];
    let mut producer = transactional_producer(cluster, &unique("tx"));
    for keep in [false, true] {
        producer.begin_transaction().unwrap();
        for partition in &all {
            write(producer.as_mut(), &partition.topic, partition.partition, &keep.to_string());
        }
        match keep {
            true => producer.commit_transaction(CALL).unwrap(),
            false => {
                confirm(producer.as_mut());
                producer.abort_transaction(CALL).unwrap();
            }
        }
    }
    for partition in &all {
        let mut consumer = consumer(cluster, Isolation::ReadCommitted, &[(partition.clone(), 0)]);
        assert_eq!(values(&drain_to(consumer.as_mut(), partition, 4)), ["true"], "{partition}");
    }
}

pub(crate) fn an_empty_transaction_commits(cluster: &dyn Cluster) {
    let mut producer = transactional_producer(cluster, &unique("tx"));
    producer.begin_transaction().unwrap();
    producer.commit_transaction(CALL).unwrap();
    producer.begin_transaction().unwrap();
    producer.abort_transaction(CALL).unwrap();
}

pub(crate) fn an_older_producer_of_a_transactional_id_is_fenced(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let id = unique("tx");
    let mut old = transactional_producer(cluster, &id);
    old.begin_transaction().unwrap();
    write(old.as_mut(), &topic, 0, "old");
    confirm(old.as_mut());
    let mut new = transactional_producer(cluster, &id);
    let error = old.commit_transaction(CALL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.report());
    new.begin_transaction().unwrap();
    write(new.as_mut(), &topic, 0, "new");
    new.commit_transaction(CALL).unwrap();
    let mut consumer = consumer(cluster, Isolation::ReadCommitted, &[(partition.clone(), 0)]);
    assert_eq!(values(&drain_to(consumer.as_mut(), &partition, 4)), ["new"]);
}

/// Slow on a broker: it looks for such transactions every ten seconds by default.
pub(crate) fn a_transaction_past_its_timeout_is_aborted(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let spec = ProducerSpec {
        client_id: unique("client"),
        transactional_id: Some(unique("tx")),
        transaction_timeout: Duration::from_secs(1),
    };
    let mut producer = cluster.producer(&spec).unwrap();
    producer.init_transactions(CALL).unwrap();
    producer.begin_transaction().unwrap();
    write(producer.as_mut(), &topic, 0, "late");
    confirm(producer.as_mut());
    let mut consumer = consumer(cluster, Isolation::ReadCommitted, &[(partition.clone(), 0)]);
    assert_eq!(values(&drain_to(consumer.as_mut(), &partition, 2)), [""; 0]);
    let error = producer.commit_transaction(CALL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.report());
}

pub(crate) fn tracked_records_tell_the_end_offset(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[]);
    let [zero, one] = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
    let mut producer = transactional_producer(cluster, &unique("tx"));
    producer.begin_transaction().unwrap();
    let record = seen(Some("k"), Some("v"), 1, Headers::new());
    producer.send(record.to(&topic, 0), true).unwrap();
    producer.send(record.to(&topic, 0), true).unwrap();
    producer.send(record.to(&topic, 0), false).unwrap();
    producer.send(record.to(&topic, 1), false).unwrap();
    confirm(producer.as_mut());
    assert_eq!(producer.end_offset(&zero), Some(2), "the third record is not tracked");
    assert_eq!(producer.end_offset(&one), None);
    producer.commit_transaction(CALL).unwrap();
    assert_eq!(producer.end_offset(&zero), Some(2), "a control record is not counted");
    producer.begin_transaction().unwrap();
    producer.send(record.to(&topic, 0), true).unwrap();
    confirm(producer.as_mut());
    assert_eq!(producer.end_offset(&zero), Some(5));
    producer.commit_transaction(CALL).unwrap();
}

pub(crate) fn partitions_of_a_missing_topic_are_invalid(cluster: &dyn Cluster) {
    let mut producer = plain_producer(cluster);
    let name: Arc<str> = unique("missing").into();
    let error = producer.partitions(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.report());
    assert!(error.report().contains(&*name), "{}", error.report());
}

// ---- groups ----

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
            std::thread::sleep(Duration::from_millis(50));
            producer.commit_transaction(CALL).unwrap();
        });
        assert_eq!(member.committed(&[partition.clone()]), [Some(at(9, ""))]);
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
    assert_eq!(first.committed(&[partition.clone()]), [None]);

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

// ---- topics ----

pub(crate) fn creating_an_existing_topic_leaves_it_alone(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[("cleanup.policy", "compact")]);
    let mut admin = cluster.admin().unwrap();
    let before = admin.topics(&[Arc::clone(&topic), unique("missing").into()]).unwrap();
    assert_eq!(
        before.iter().map(|info| info.as_ref().map(|info| info.partitions)).collect::<Vec<_>>(),
        [Some(2), None]
    );
    let other: Arc<str> = unique("topic").into();
    let new = |name: &Arc<str>, partitions| NewTopic {
        name: Arc::clone(name),
        partitions,
        replication: None,
        config: BTreeMap::new(),
    };
    admin.create_topics(&[new(&topic, 5), new(&other, 1)]).unwrap();
    until("the other topic is there", || admin.topics(std::slice::from_ref(&other)).unwrap()[0].is_some());
    assert_eq!(admin.topics(&[topic]).unwrap()[0], before[0]);
}

pub(crate) fn a_topic_created_again_has_another_id(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let mut admin = cluster.admin().unwrap();
    let names = [Arc::clone(&topic)];
    let before = admin.topics(&names).unwrap()[0].clone().unwrap();
    admin.delete_topics(&names).unwrap();
    until("the topic is gone", || admin.topics(&names).unwrap()[0].is_none());
    let new = NewTopic { name: topic, partitions: 3, replication: None, config: BTreeMap::new() };
    until("the topic is back", || {
        // A broker that still deletes it takes the new one for the old one.
        admin.create_topics(std::slice::from_ref(&new)).unwrap();
        admin.topics(&names).unwrap()[0].is_some()
    });
    let after = admin.topics(&names).unwrap()[0].clone().unwrap();
    assert_eq!(after.partitions, 3);
    if before.id.is_some() {
        assert_ne!(after.id, before.id);
    }
}

pub(crate) fn watermarks_follow_appends_and_deletes(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[]);
    let all = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
    let mut admin = cluster.admin().unwrap();
    until("the partitions are empty", || {
        admin.watermarks(&all).is_ok_and(|marks| marks == [Watermarks { start: 0, end: 0 }; 2])
    });
    let mut producer = transactional_producer(cluster, &unique("tx"));
    producer.begin_transaction().unwrap();
    for _ in 0..4 {
        write(producer.as_mut(), &topic, 1, "x");
    }
    confirm(producer.as_mut());
    // The high watermark, not the last stable offset.
    until("the open records count", || admin.watermarks(&all).unwrap()[1] == Watermarks { start: 0, end: 4 });
    producer.commit_transaction(CALL).unwrap();
    until("the control record counts", || admin.watermarks(&all).unwrap()[1] == Watermarks { start: 0, end: 5 });
    admin.delete_records(&[(all[1].clone(), 2)]).unwrap();
    assert_eq!(admin.watermarks(&all).unwrap(), [Watermarks { start: 0, end: 0 }, Watermarks { start: 2, end: 5 }]);
    let missing = TopicPartition::new(unique("missing"), 0);
    assert!(admin.watermarks(&[missing]).is_err());
}

pub(crate) fn offsets_for_a_time_are_found(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[]);
    let all = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
    let base = now_ms();
    let mut producer = plain_producer(cluster);
    for time in [0, 10, 20, 30] {
        producer.send(seen(None, Some("v"), base + time, Headers::new()).to(&topic, 0), false).unwrap();
        confirm(producer.as_mut());
    }
    let mut admin = cluster.admin().unwrap();
    for (time, offset) in [(0, 0), (1, 1), (10, 1), (11, 2), (30, 3), (31, 4)] {
        assert_eq!(admin.offsets_for_time(&all, base + time).unwrap(), [offset, 0], "at {time} ms");
    }
}

// ---- what the cases are written with ----

/// A record as it was sent or read.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: i64,
    headers: Headers,
}

impl Seen {
    fn to<'a>(&'a self, topic: &'a Arc<str>, partition: i32) -> ProducerRecord<'a> {
        ProducerRecord {
            topic,
            partition: Some(partition),
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            timestamp: Some(self.timestamp),
            headers: &self.headers,
        }
    }
}

fn seen(key: Option<&str>, value: Option<&str>, timestamp: i64, headers: Headers) -> Seen {
    Seen { key: key.map(Into::into), value: value.map(Into::into), timestamp, headers }
}

/// A member of a group, and the tasks it has been told of.
struct Member {
    membership: Box<dyn Membership>,
    consumer: Box<dyn Consumer>,
    owned: BTreeSet<TaskId>,
}

impl Member {
    fn join(cluster: &dyn Cluster, group: &str, topic: &Arc<str>) -> Member {
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
            Some(MembershipEvent::Revoked { tasks } | MembershipEvent::Lost { tasks }) => {
                assert!(tasks.is_subset(&self.owned), "revoked {tasks:?} from the owner of {:?}", self.owned);
                self.owned = &self.owned - &tasks;
                self.membership.acknowledge().unwrap();
            }
            None => {}
        }
        self.owned.clone()
    }

    fn metadata(&mut self) -> GroupMetadata {
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
    fn tasks(&self, partitions: &BTreeSet<TopicPartition>) -> Result<BTreeSet<TaskId>, Error> {
        Ok(partitions.iter().map(|one| TaskId { sub_topology: 0, partition: one.partition }).collect())
    }
}

fn unique(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4().simple())
}

fn at(offset: i64, metadata: &str) -> OffsetAndMetadata {
    OffsetAndMetadata { offset, metadata: metadata.to_owned() }
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn new_topic(cluster: &dyn Cluster, partitions: i32, config: &[(&str, &str)]) -> Arc<str> {
    let name: Arc<str> = unique("topic").into();
    let mut admin: Box<dyn Admin> = cluster.admin().unwrap();
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    admin.create_topics(&[NewTopic { name: Arc::clone(&name), partitions, replication: None, config }]).unwrap();
    until("the topic is created", || {
        admin.topics(std::slice::from_ref(&name)).unwrap()[0].as_ref().is_some_and(|info| info.partitions == partitions)
    });
    name
}

fn plain_producer(cluster: &dyn Cluster) -> Box<dyn Producer> {
    let spec = ProducerSpec { client_id: unique("client"), transactional_id: None, transaction_timeout: CALL };
    cluster.producer(&spec).unwrap()
}

fn transactional_producer(cluster: &dyn Cluster, id: &str) -> Box<dyn Producer> {
    let spec = ProducerSpec {
        client_id: unique("client"),
        transactional_id: Some(id.to_owned()),
        transaction_timeout: Duration::from_secs(60),
    };
    let mut producer = cluster.producer(&spec).unwrap();
    producer.init_transactions(CALL).unwrap();
    producer
}

fn consumer(cluster: &dyn Cluster, isolation: Isolation, from: &[(TopicPartition, i64)]) -> Box<dyn Consumer> {
    let mut consumer = cluster.consumer(&ConsumerSpec { client_id: unique("client"), isolation }).unwrap();
    consumer.assign(from).unwrap();
    consumer
}

fn write(producer: &mut dyn Producer, topic: &Arc<str>, partition: i32, value: &str) {
    let record = seen(Some("key"), Some(value), now_ms(), Headers::new());
    producer.send(record.to(topic, partition), false).unwrap();
}

fn confirm(producer: &mut dyn Producer) {
    let failures = producer.confirm(CALL).unwrap();
    assert!(failures.is_empty(), "{failures:?}");
}

/// Exactly that many records of a partition, with their offsets.
fn read(consumer: &mut dyn Consumer, partition: &TopicPartition, count: usize) -> Vec<(i64, Seen)> {
    let mut read = Vec::new();
    until("the records are there", || {
        fetch(consumer, partition, count - read.len(), &mut read);
        read.len() == count
    });
    read
}

fn read_one(consumer: &mut dyn Consumer, partition: &TopicPartition) -> Seen {
    read(consumer, partition, 1).remove(0).1
}

/// Everything that may be seen now.
fn drain(consumer: &mut dyn Consumer, partition: &TopicPartition) -> Vec<(i64, Seen)> {
    let mut read = Vec::new();
    until("the consumer has caught up", || {
        fetch(consumer, partition, 100, &mut read);
        consumer.lag(partition) == Lag::CaughtUp
    });
    read
}

/// Everything up to an offset.
fn drain_to(consumer: &mut dyn Consumer, partition: &TopicPartition, end: i64) -> Vec<(i64, Seen)> {
    let mut read = Vec::new();
    until("the end is reached", || {
        fetch(consumer, partition, 100, &mut read);
        consumer.position(partition) == Some(end) && consumer.lag(partition) == Lag::CaughtUp
    });
    read
}

fn fetch(consumer: &mut dyn Consumer, partition: &TopicPartition, max: usize, read: &mut Vec<(i64, Seen)>) {
    let mut batch = RecordBatch::default();
    consumer.wait(Duration::from_millis(10)).unwrap();
    assert_eq!(consumer.fetch(partition, max, &mut batch).unwrap(), Fetch::Records);
    assert!(batch.len() <= max);
    read.extend(batch.iter(partition.partition).map(|record| {
        assert_eq!(record.partition, partition.partition);
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let (key, value) = (owned(record.key), owned(record.value));
        (record.offset, Seen { key, value, timestamp: record.timestamp, headers: record.headers.clone() })
    }));
}

fn offsets(records: &[(i64, Seen)]) -> Vec<i64> {
    records.iter().map(|(offset, _)| *offset).collect()
}

fn values(records: &[(i64, Seen)]) -> Vec<String> {
    let text = |record: &Seen| String::from_utf8(record.value.clone().unwrap_or_default()).unwrap();
    records.iter().map(|(_, record)| text(record)).collect()
}
