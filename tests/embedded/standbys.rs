//! Stores that are kept up to date for tasks that run elsewhere. They are in memory here: one that had been closed and
//! opened again would be empty, and be restored from offset 0.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kstreams::{CloseOptions, Config, EmbeddedCluster, KafkaStreams, RestoreEvent, State};

use crate::application::{
    PARTITIONS, assert_gapless, cluster, config, counts, wait_for, wait_until, word_count, write,
};

/// Where restorations began, by partition.
type Begun = Arc<Mutex<BTreeMap<i32, i64>>>;

struct Instance {
    streams: KafkaStreams,
    begun: Begun,
}

impl Instance {
    fn start(config: Config) -> Instance {
        let begun = Begun::default();
        let heard = Arc::clone(&begun);
        let streams = KafkaStreams::new(word_count(), config).unwrap().on_restore(move |event| {
            if let RestoreEvent::Started { partition, from, .. } = event {
                heard.lock().unwrap().insert(*partition, *from);
            }
        });
        streams.start().unwrap();
        Instance { streams, begun }
    }

    /// The positions of its standbys, once nothing is lacking.
    fn standbys(&self) -> BTreeMap<i32, i64> {
        let lags = self.streams.lags();
        let caught_up = lags.iter().filter(|store| store.lag() == 0);
        caught_up.map(|store| (store.partition, store.position)).collect()
    }

    /// Once it has been given so many tasks. It hears of its standbys before it hears of them.
    fn begun(&self, tasks: usize) -> BTreeMap<i32, i64> {
        wait_until("the tasks are given", || self.begun.lock().unwrap().len() >= tasks);
        std::mem::take(&mut *self.begun.lock().unwrap())
    }
}

fn with_a_standby(cluster: &EmbeddedCluster) -> Config {
    config(cluster)
        .cache_bytes(0)
        .stores_in_memory(true)
        .session_timeout(Duration::from_secs(2))
        .num_standby_replicas(1)
        .acceptable_recovery_lag(0)
}

fn lines() -> Vec<String> {
    (0..50).map(|number| format!("all word-{}", number % 23)).collect()
}

/// Every round is 50 lines.
fn write_round(cluster: &EmbeddedCluster, round: usize) {
    let lines = lines();
    write(cluster, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    wait_until("the round is counted", || counts(cluster).get("all").map_or(0, Vec::len) == 50 * round);
}

/// Each partition is active on one of them and a standby on the other, and all have what was written.
fn wait_until_shared(first: &Instance, second: &Instance) {
    wait_until("the tasks are shared and each has a standby", || {
        let (one, other) = (first.standbys(), second.standbys());
        let all: BTreeMap<i32, i64> = one.iter().chain(&other).map(|(partition, at)| (*partition, *at)).collect();
        one.len() == 2 && other.len() == 2 && all.len() == PARTITIONS as usize
    });
}

#[test]
fn a_task_stays_where_it_is_until_its_stores_are_elsewhere_and_a_standby_goes_on_after_a_crash() {
    let cluster = cluster();
    let first = Instance::start(with_a_standby(&cluster));
    write_round(&cluster, 1);
    let written = cluster.records("word-count-word-counts-changelog").unwrap();
    let filled: Vec<i32> = (0..PARTITIONS).filter(|number| written.iter().any(|r| r.partition == *number)).collect();

    let second = Instance::start(with_a_standby(&cluster));
    wait_until_shared(&first, &second);
    let moved = second.begun(2);
    assert_eq!(moved.len(), 2, "of four tasks with state two have moved: {moved:?}");
    for partition in filled.iter().filter(|partition| moved.contains_key(partition)) {
        assert!(moved[partition] > 0, "partition {partition} was warm before it came: {moved:?}");
    }

    write_round(&cluster, 2);
    wait_until_shared(&first, &second);
    let standbys = second.standbys();
    first.streams.crash();
    write_round(&cluster, 3);
    let begun = second.begun(standbys.len());
    wait_for(&second.streams, State::Running);
    for (partition, position) in standbys {
        assert!(begun[&partition] >= position, "partition {partition} went on behind {position}: {begun:?}");
        assert!(!filled.contains(&partition) || position > 0);
    }
    second.streams.close(Duration::from_secs(30)).unwrap();
    assert_gapless(&cluster);
}

#[test]
fn a_task_that_moves_leaves_a_standby_behind_with_its_stores_open() {
    let cluster = cluster();
    let first = Instance::start(with_a_standby(&cluster));
    write_round(&cluster, 1);
    let second = Instance::start(with_a_standby(&cluster));
    wait_until_shared(&first, &second);
    first.begun(PARTITIONS as usize);
    let left_behind = first.standbys();
    second.streams.close(CloseOptions::default().leave_group()).unwrap();
    write_round(&cluster, 2);
    let begun = first.begun(left_behind.len());
    wait_for(&first.streams, State::Running);
    for (partition, position) in left_behind {
        assert!(begun[&partition] >= position, "partition {partition} went on behind {position}: {begun:?}");
    }
    first.streams.close(Duration::from_secs(30)).unwrap();
    assert_gapless(&cluster);
}

#[test]
fn without_standbys_a_task_warms_up_where_it_is_to_go() {
    let cluster = cluster();
    let settings = || with_a_standby(&cluster).num_standby_replicas(0);
    let first = Instance::start(settings());
    write_round(&cluster, 1);
    let written = cluster.records("word-count-word-counts-changelog").unwrap();
    let second = Instance::start(settings());
    let moved = second.begun(2);
    wait_for(&second.streams, State::Running);
    for (partition, from) in moved {
        let is_filled = written.iter().any(|row| row.partition == partition);
        assert!(!is_filled || from > 0, "partition {partition} came with its stores");
    }
    write_round(&cluster, 2);
    wait_until("what has moved leaves nothing behind", || first.standbys().is_empty());
    first.streams.close(Duration::from_secs(30)).unwrap();
    second.streams.close(Duration::from_secs(30)).unwrap();
    assert_gapless(&cluster);
}

#[test]
fn an_instance_that_leaves_goes_on_until_others_have_its_stores() {
    let cluster = cluster();
    let settings = || with_a_standby(&cluster).num_standby_replicas(0);
    let (first, second) = (Instance::start(settings()), Instance::start(settings()));
    wait_for(&first.streams, State::Running);
    wait_for(&second.streams, State::Running);
    write_round(&cluster, 1);
    let written = cluster.records("word-count-word-counts-changelog").unwrap();
    let (of_first, of_second) = (first.begun(2), second.begun(2));
    let gone: Vec<i32> = of_first.keys().copied().filter(|partition| !of_second.contains_key(partition)).collect();
    // No more than an hour: whoever waits for that has not been given anything.
    let options = CloseOptions::default().leave_group().hand_over(Duration::from_secs(3600));
    first.streams.close(options).unwrap();
    let begun = second.begun(gone.len());
    for (partition, from) in &begun {
        let is_filled = written.iter().any(|row| row.partition == *partition);
        assert!(!is_filled || *from > 0, "partition {partition} came with its stores: {begun:?}");
    }
    assert_eq!(begun.len(), gone.len());
    write_round(&cluster, 2);
    second.streams.close(Duration::from_secs(30)).unwrap();
    assert_gapless(&cluster);
}
