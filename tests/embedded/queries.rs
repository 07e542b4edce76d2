//! The state of an application, asked for while it processes, moves and is restored.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kstreams::{
    CloseOptions, Config, Consumed, EmbeddedCluster, Error, ErrorKind, Grouped, I64, KafkaStreams, KeyValueStore,
    Materialized, Position, QueryableStore, QueryableStoreTypes, SessionWindows, State, StreamsBuilder, TimeWindows,
    Topology, Utf8, ValueAndTimestamp, Window,
};

use crate::application::{self, PARTITIONS, PATIENCE, wait_for, wait_until};

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn cluster() -> EmbeddedCluster {
    let cluster = application::cluster();
    for topic in ["clicks", "towns", "customers"] {
        cluster.create_topic(topic, PARTITIONS).unwrap();
    }
    cluster
}

/// Stores of every kind.
pub(crate) fn topology() -> Topology {
    let builder = StreamsBuilder::new();
    let hour = Duration::from_secs(3_600);
    let rows = |name| Materialized::named(name).with_retention(hour);
    let clicks = builder.stream("clicks", Consumed::with(Utf8, Utf8)).group_by_key(Grouped::with(Utf8, Utf8));
    clicks.clone().count(Materialized::named("counts"));
    clicks.clone().windowed_by(TimeWindows::of_size_with_no_grace(MINUTE)).count(rows("per-minute"));
    clicks.windowed_by(SessionWindows::of_inactivity_gap_with_no_grace(MINUTE)).count(rows("visits"));
    builder.table("towns", Consumed::with(Utf8, Utf8), Materialized::named("towns").as_versioned(hour));
    builder.global_table("customers", Consumed::with(Utf8, Utf8), Materialized::named("customers"));
    builder.build().unwrap()
}

pub(crate) fn start(config: Config) -> KafkaStreams {
    let streams = KafkaStreams::new(topology(), config).unwrap();
    streams.start().unwrap();
    streams
}

/// Where the record is.
pub(crate) fn write(cluster: &EmbeddedCluster, topic: &str, key: &str, value: &str, at: i64) -> Position {
    let written = cluster.produce(topic, Some(key.as_bytes()), Some(value.as_bytes()), Some(at));
    let (partition, offset) = written.unwrap();
    Position::at(topic, partition, offset)
}

pub(crate) fn counts(streams: &KafkaStreams) -> QueryableStore<KeyValueStore<String, i64>> {
    streams.store("counts", QueryableStoreTypes::key_value(Utf8, I64)).unwrap()
}

pub(crate) fn text(text: &str) -> String {
    text.to_owned()
}

#[test]
fn stores_of_every_kind_are_asked_over_all_partitions() {
    for in_memory in [false, true] {
        let cluster = cluster();
        let mut written = Position::new();
        for (number, user) in ["ann", "bob", "cid", "dan", "ann", "ann"].into_iter().enumerate() {
            written = written.merge(&write(&cluster, "clicks", user, "", number as i64 * 40_000));
        }
        let lived = [("york", 1_000), ("bath", 5_000)].map(|(town, at)| write(&cluster, "towns", "ann", town, at));
        let customer = write(&cluster, "customers", "7", "ann", 0);
        let streams = start(application::config(&cluster).stores_in_memory(in_memory));
        wait_for(&streams, State::Running);

        let counts = counts(&streams).with_position_bound(&written, PATIENCE);
        assert_eq!(counts.get(&text("ann")).unwrap(), Some(3));
        assert_eq!(counts.get(&text("eve")).unwrap(), None);
        let mut all: Vec<_> = counts.all().unwrap().map(Result::unwrap).collect();
        all.sort();
        let expected = [("ann", 3), ("bob", 1), ("cid", 1), ("dan", 1)].map(|(user, count)| (text(user), count));
        assert_eq!(all, expected);
        assert_eq!(counts.reverse_all().unwrap().count(), 4);
        let range = (Bound::Excluded(text("ann")), Bound::Excluded(text("dan")));
        let mut some: Vec<_> = counts.range(range).unwrap().map(|row| row.unwrap().0).collect();
        some.sort();
        assert_eq!(some, ["bob", "cid"]);
        assert_eq!(counts.prefix_scan(&text("b"), &Utf8).unwrap().count(), 1);
        let timed = streams.store("counts", QueryableStoreTypes::timestamped_key_value(Utf8, I64)).unwrap();
        assert_eq!(timed.get(&text("ann")).unwrap(), Some(ValueAndTimestamp { value: 3, timestamp: 200_000 }));

        let windows = streams.store("per-minute", QueryableStoreTypes::window(Utf8, I64)).unwrap();
        let windows = windows.with_position_bound(&written, PATIENCE);
        assert_eq!(windows.fetch(&text("ann"), 180_000).unwrap(), Some(1));
        let of_ann: Vec<_> = windows.fetch_range(&text("ann"), 0, 1_000_000).unwrap().map(Result::unwrap).collect();
        assert_eq!(of_ann, [(0, 1), (120_000, 1), (180_000, 1)]);
        let last = windows.backward_fetch(&text("ann"), 0, 1_000_000).unwrap().next().unwrap().unwrap();
        assert_eq!(last, (180_000, 1));
        assert_eq!(windows.all().unwrap().count(), 6);
        assert_eq!(windows.fetch_all(0, 60_000).unwrap().count(), 3);
        assert_eq!(windows.fetch_keys(text("b")..text("c"), 0, 1_000_000).unwrap().count(), 1);

        let visits = streams.store("visits", QueryableStoreTypes::session(Utf8, I64)).unwrap();
        let visits = visits.with_position_bound(&written, PATIENCE);
        assert_eq!(visits.fetch_session(&text("ann"), 160_000, 200_000).unwrap(), Some(2));
        let of_ann: Vec<_> = visits.fetch(&text("ann")).unwrap().map(Result::unwrap).collect();
        assert_eq!(of_ann.len(), 2);
        assert_eq!((of_ann[1].0.window, of_ann[1].1), (Window { start: 160_000, end: 200_000 }, 2));
        assert_eq!(visits.find_sessions(&text("ann"), 0, 100_000).unwrap().count(), 1);
        assert_eq!(visits.all().unwrap().count(), 5);

        let towns = streams.store("towns", QueryableStoreTypes::versioned(Utf8, Utf8)).unwrap();
        let towns = towns.with_position_bound(&lived[1], PATIENCE);
        assert_eq!(towns.get(&text("ann")).unwrap().unwrap().value, "bath");
        assert_eq!(towns.get_as_of(&text("ann"), 4_999).unwrap().unwrap().value, "york");

        let customers = streams.store("customers", QueryableStoreTypes::key_value(Utf8, Utf8)).unwrap();
        let customers = customers.with_position_bound(&customer, PATIENCE);
        assert_eq!(customers.get(&text("7")).unwrap(), Some(text("ann")));
    }
}

#[test]
fn only_what_is_committed_is_seen() {
    let cluster = cluster();
    let first = write(&cluster, "clicks", "ann", "", 0);
    let seldom = application::config(&cluster).commit_interval(Duration::from_secs(3_600)).cache_bytes(0);
    let streams = start(seldom.transaction_timeout(Duration::from_secs(7_200)));
    wait_for(&streams, State::Running);
    wait_until("the record is processed", || streams.processed_total() == 1);
    let counts = counts(&streams);
    assert_eq!(counts.get(&text("ann")).unwrap(), None);
    let ann = text("ann");
    let partition = (0..PARTITIONS).find(|partition| first.offset("clicks", *partition).is_some()).unwrap();
    let seen = counts.read_uncommitted(partition, PATIENCE, move |store, ctx| store.get(ctx, &ann));
    assert_eq!(seen.unwrap(), Some(1));
    let refused = counts.read_uncommitted(partition, PATIENCE, |store, ctx| store.put(ctx, &text("ann"), &7));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::User);
    let panicked = counts.read_uncommitted(partition, PATIENCE, |_, _| -> Result<(), Error> { panic!("of a query") });
    assert_eq!(panicked.unwrap_err().kind(), ErrorKind::User);
    let elsewhere = counts.read_uncommitted(PARTITIONS, PATIENCE, |_, _| Ok(()));
    assert_eq!(elsewhere.unwrap_err().kind(), ErrorKind::Unavailable);
    let refused = counts.with_position_bound(&first, Duration::ZERO).get(&text("ann")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(!counts.position().unwrap().covers(&first));
    streams.close(CloseOptions::default()).unwrap();

    let streams = start(application::config(&cluster));
    wait_for(&streams, State::Running);
    let counts = self::counts(&streams).with_position_bound(&first, PATIENCE);
    assert_eq!(counts.get(&text("ann")).unwrap(), Some(1));
    assert!(counts.position().unwrap().covers(&first));
}

#[test]
fn what_was_written_is_read_as_soon_as_its_position_is_there() {
    let cluster = cluster();
    let streams = start(application::config(&cluster));
    wait_for(&streams, State::Running);
    let counts = counts(&streams);
    for round in 1..=100 {
        let written = write(&cluster, "clicks", "ann", "", round);
        let counts = counts.with_position_bound(&written, PATIENCE);
        assert_eq!(counts.get(&text("ann")).unwrap(), Some(round));
    }
}

#[test]
fn a_store_that_cannot_be_asked_says_why() {
    let cluster = cluster();
    let streams = KafkaStreams::new(topology(), application::config(&cluster)).unwrap();
    let key_value = || QueryableStoreTypes::key_value(Utf8, I64);
    assert_eq!(streams.store("counts", key_value()).unwrap_err().kind(), ErrorKind::Closed);
    streams.start().unwrap();
    wait_for(&streams, State::Running);
    let unknown = streams.store("nothing", key_value()).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Invalid);
    let windows = streams.store("per-minute", key_value()).unwrap_err();
    assert_eq!(windows.to_string(), "store per-minute cannot be asked as key_value: it is of another kind");
    let counts = counts(&streams);
    let nowhere = counts.with_partition(PARTITIONS).get(&text("ann")).unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::Unavailable);
    streams.close(CloseOptions::default()).unwrap();
    assert_eq!(counts.get(&text("ann")).unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn tasks_move_and_fail_under_queries_that_never_see_a_count_go_back() {
    let cluster = cluster();
    for round in 0..20 {
        write(&cluster, "clicks", &format!("user-{round}"), "", round);
    }
    let config = || application::config(&cluster).session_timeout(Duration::from_secs(2));
    let first = start(config());
    wait_for(&first, State::Running);
    let (asked, over) = (counts(&first), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (asked, over) = (&asked, &over);
            scope.spawn(move || {
                let mut last = [0; 20];
                while !over.load(Ordering::Relaxed) {
                    for (number, last) in last.iter_mut().enumerate() {
                        match asked.get(&format!("user-{number}")) {
                            // Another instance has it, or nobody has committed it yet.
                            Ok(None) => {}
                            Ok(Some(count)) => {
                                assert!(count >= *last, "thread {thread} has seen {last}, then {count}");
                                *last = count;
                            }
                            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report()),
                        }
                    }
                    match asked.all() {
                        Ok(rows) => rows.for_each(|row| match row {
                            Ok((_, count)) => assert!(count > 0),
                            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report()),
                        }),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report()),
                    }
                }
            });
        }
        for _ in 0..3 {
            let second = start(config());
            wait_for(&second, State::Running);
            for round in 0..200 {
                write(&cluster, "clicks", &format!("user-{}", round % 20), "", round);
            }
            second.close(CloseOptions::default().leave_group()).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    let all = |users: &QueryableStore<KeyValueStore<String, i64>>| -> i64 {
        users.all().map_or(0, |rows| rows.filter_map(Result::ok).map(|(_, count)| count).sum())
    };
    wait_until("everything is counted here", || all(&asked) == 20 + 3 * 200);
}

#[test]
fn a_standby_answers_whom_old_rows_are_enough() {
    let cluster = cluster();
    let config = || {
        let config = application::config(&cluster).num_standby_replicas(1).acceptable_recovery_lag(0);
        config.session_timeout(Duration::from_secs(2)).stores_in_memory(true)
    };
    let (first, second) = (start(config()), start(config()));
    for number in 0..40 {
        write(&cluster, "clicks", &format!("user-{number}"), "", number);
    }
    let (one, other) = (counts(&first), counts(&second));
    let count = |store: &QueryableStore<KeyValueStore<String, i64>>| store.all().map_or(0, Iterator::count);
    wait_until("the tasks are shared", || {
        let (one, other) = (count(&one), count(&other));
        one > 0 && other > 0 && one + other == 40
    });
    wait_until("each has copies of the rest", || {
        [&one, &other].iter().all(|store| count(&store.enable_stale_stores(u64::MAX)) == 40)
    });
}
