//! Snapshots, bounds on age, and iterators that outlive what they read.

use std::time::Duration;

use kstreams::{
    CloseOptions, ErrorKind, FailureReason, I64, KafkaStreams, Position, QueryableStoreTypes, RawKind, RawQuery,
    RawRole, Staleness, State, Utf8,
};

use crate::application::{self, PARTITIONS, PATIENCE, wait_for, wait_until};
use crate::queries::{cluster, counts, start, text, write};

/// The partition that a record was written to.
fn partition_of(written: &Position) -> i32 {
    written.iter().next().unwrap().0.partition
}

#[test]
fn a_snapshot_does_not_see_what_is_written_after_it() {
    let cluster = cluster();
    let streams = start(application::config(&cluster));
    wait_for(&streams, State::Running);
    let first = write(&cluster, "clicks", "ann", "", 0);
    let partition = partition_of(&first);
    let counts = counts(&streams).with_position_bound(&first, PATIENCE);
    let mut before = counts.snapshot(partition, &[], 10).unwrap();
    assert!(before.position().covers(&first));
    let second = write(&cluster, "clicks", "ann", "", 1);
    let later = counts.with_position_bound(&second, PATIENCE);
    assert_eq!(later.get(&text("ann")).unwrap(), Some(2));
    streams.close(CloseOptions::default()).unwrap();
    assert_eq!(before.read(|store, ctx| store.get(ctx, &text("ann"))).unwrap(), Some(1));
    assert_eq!(before.read(|store, ctx| store.all().collect(ctx)).unwrap(), [(text("ann"), 1)]);
    let refused = before.read(|store, ctx| store.put(ctx, &text("ann"), &7)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::User);
    let windows = QueryableStoreTypes::window(Utf8, I64);
    let not_copied = before.read_other("per-minute", &windows, |store, ctx| store.all().collect(ctx)).unwrap_err();
    assert_eq!(not_copied.kind(), ErrorKind::Invalid);
}

#[test]
fn a_snapshot_that_cannot_be_taken_says_why() {
    let cluster = cluster();
    let streams = start(application::config(&cluster));
    wait_for(&streams, State::Running);
    let written = write(&cluster, "clicks", "ann", "", 0);
    let (counts, partition) = (counts(&streams).with_position_bound(&written, PATIENCE), partition_of(&written));
    let refused = |others: &[&str], rows_max| counts.snapshot(partition, others, rows_max).unwrap_err();
    assert_eq!(refused(&[], 0).kind(), ErrorKind::Invalid);
    assert_eq!(refused(&["customers"], 9).kind(), ErrorKind::Invalid);
    assert_eq!(counts.snapshot(PARTITIONS, &[], 9).unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn stores_of_one_task_are_copied_as_one_commit_has_left_them() {
    let cluster = cluster();
    let streams = start(application::config(&cluster).commit_interval(Duration::from_millis(1)));
    wait_for(&streams, State::Running);
    let mut written = Position::new();
    let counts = counts(&streams);
    for round in 0..60 {
        for number in 0..10 {
            written = written.merge(&write(&cluster, "clicks", &format!("user-{number}"), "", round * 1_000));
        }
        for partition in 0..PARTITIONS {
            let mut snapshot = match counts.snapshot(partition, &["per-minute"], 10_000) {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
                    continue;
                }
            };
            let all = snapshot.read(|store, ctx| store.all().collect(ctx)).unwrap();
            let windows = QueryableStoreTypes::window(Utf8, I64);
            let per_minute =
                snapshot.read_other("per-minute", &windows, |store, ctx| store.all().collect(ctx)).unwrap();
            let sums = (all.iter().map(|row| row.1).sum::<i64>(), per_minute.iter().map(|row| row.1).sum::<i64>());
            assert_eq!(sums.0, sums.1, "in round {round}");
        }
    }
    let counts = counts.with_position_bound(&written, PATIENCE);
    assert_eq!(counts.all().unwrap().map(|row| row.unwrap().1).sum::<i64>(), 600);
}

/// Rows of several pages in each partition.
const USERS: usize = 300 * PARTITIONS as usize * 2;

#[test]
fn an_iterator_that_is_kept_while_its_task_closes_ends_with_an_error() {
    let cluster = cluster();
    let written = (0..USERS).fold(Position::new(), |position, number| {
        position.merge(&write(&cluster, "clicks", &format!("user-{number}"), "", 0))
    });
    let streams = start(application::config(&cluster));
    wait_for(&streams, State::Running);
    let mut kept = counts(&streams).with_position_bound(&written, PATIENCE).all().unwrap();
    assert!(kept.next().unwrap().is_ok());
    // It is not waited for.
    streams.close(CloseOptions::default()).unwrap();
    let streams = start(application::config(&cluster));
    wait_for(&streams, State::Running);
    let counts = counts(&streams).with_position_bound(&written, PATIENCE);
    assert_eq!(counts.all().unwrap().count(), USERS);
    let rest: Vec<_> = kept.by_ref().collect();
    let (failed, rows): (Vec<_>, Vec<_>) = rest.into_iter().partition(Result::is_err);
    assert!(rows.len() < 256, "a page at most");
    assert_eq!(failed.len(), 1);
    assert_eq!(failed.into_iter().next().unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(kept.next().is_none());
}

#[test]
fn a_copy_answers_only_within_the_age_that_is_asked_for() {
    let cluster = cluster();
    let config = || {
        let config = application::config(&cluster).num_standby_replicas(1).acceptable_recovery_lag(0);
        config.session_timeout(Duration::from_secs(2))
    };
    let (first, second) = (start(config()), start(config()));
    write(&cluster, "clicks", "ann", "", 0);
    let standbys = |streams: &KafkaStreams| -> Vec<_> {
        let counts = streams.raw_stores().open("counts").unwrap();
        let partitions = counts.partitions().into_iter();
        partitions.filter(|known| known.role == RawRole::Standby && known.age.is_some()).collect()
    };
    wait_until("each has copies that were whole once", || {
        !standbys(&first).is_empty() && !standbys(&second).is_empty()
    });
    let copy = standbys(&first)[0].partition;
    let counts = first.raw_stores().open("counts").unwrap().with_partition(copy);
    assert_eq!(counts.kind(), RawKind::TimestampedKeyValue);
    let get = RawQuery::Get { key: b"ann".to_vec() };
    let reason = |store: &kstreams::RawStore| store.ask(&get).map(|_| ()).map_err(|failure| failure.reason());
    assert_eq!(reason(&counts), Err(FailureReason::NotActive));
    assert_eq!(reason(&counts.with_staleness(Staleness::any().age(Duration::from_secs(3_600)))), Ok(()));
    assert_eq!(reason(&counts.with_staleness(Staleness::any().age(Duration::ZERO))), Err(FailureReason::TooStale));
    let answer = counts.with_staleness(Staleness::any()).ask(&get).unwrap();
    assert!(answer.age.is_some_and(|age| age > Duration::ZERO));
}
