//! What the user of a running client can do with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use kstreams::{
    CloseOptions, Config, Consumed, EmbeddedCluster, Grouped, I64, KafkaStreams, Materialized, Produced, State,
    StreamsBuilder, UncaughtErrorResponse, Utf8,
};

use crate::application::{
    assert_gapless, cluster, config, expected, last_counts, start, wait_for, wait_until, word_count, write,
};

/// Active tasks of each thread.
fn loads(streams: &KafkaStreams) -> Vec<usize> {
    streams.metadata_for_local_threads().iter().map(|thread| thread.active_tasks.len()).collect()
}

#[test]
fn a_paused_client_processes_nothing_and_keeps_its_place() {
    let cluster = cluster();
    write(&cluster, &["a b"]);
    let streams = KafkaStreams::new(word_count(), config(&cluster)).unwrap();
    streams.pause();
    streams.start().unwrap();
    wait_until("it has been given its tasks", || {
        streams.metadata_for_local_threads().iter().any(|thread| thread.active_tasks.len() == 8)
    });
    assert!(streams.is_paused());
    assert_eq!(streams.state(), State::Rebalancing, "nothing is restored");
    assert_eq!(streams.processed_total(), 0);
    streams.resume();
    wait_until("the first words are counted", || last_counts(&cluster) == expected(&[("a", 1), ("b", 1)]));

    streams.pause();
    // Another instance gets its share all the same: whoever is paused hears of it.
    let other = start(config(&cluster));
    wait_for(&other, State::Running);
    wait_for(&streams, State::Running);
    streams.resume();
    write(&cluster, &["a", "a", "a", "a"]);
    wait_until("all are counted", || last_counts(&cluster).get("a") == Some(&5));
    streams.close(Duration::from_secs(30)).unwrap();
    other.close(Duration::from_secs(30)).unwrap();
}

#[test]
fn threads_come_and_go_while_the_client_runs() {
    let cluster = cluster();
    let streams = start(config(&cluster).cache_bytes(0));
    wait_until("one thread has all tasks", || loads(&streams) == [8]);
    assert_eq!(streams.add_stream_thread().as_deref(), Some("word-count-stream-2"));
    wait_until("both have half of them", || loads(&streams) == [4, 4]);
    write(&cluster, &["a", "a", "a b"]);
    wait_until("all are counted", || last_counts(&cluster) == expected(&[("a", 3), ("b", 1)]));

    let patience = Duration::from_secs(60);
    assert_eq!(streams.remove_stream_thread(patience).unwrap().as_deref(), Some("word-count-stream-2"));
    wait_until("the first one has all tasks again", || loads(&streams) == [8]);
    assert_eq!(streams.remove_stream_thread(patience).unwrap().as_deref(), Some("word-count-stream-1"));
    assert_eq!(streams.remove_stream_thread(patience).unwrap(), None, "there is none");
    write(&cluster, &["a"]);
    assert_eq!(streams.add_stream_thread().as_deref(), Some("word-count-stream-1"));
    wait_until("what came meanwhile is counted", || last_counts(&cluster).get("a") == Some(&4));
    wait_for(&streams, State::Running);
    streams.close(patience).unwrap();
    assert_eq!(streams.add_stream_thread(), None);
    assert_gapless(&cluster);
}

#[test]
fn an_instance_with_more_threads_gets_more_tasks() {
    let cluster = cluster();
    let (first, second) = (start(config(&cluster)), start(config(&cluster)));
    wait_until("each has half of the tasks", || loads(&first) == [4] && loads(&second) == [4]);
    first.add_stream_thread().unwrap();
    first.add_stream_thread().unwrap();
    wait_until("one has three quarters of them", || loads(&first) == [2, 2, 2] && loads(&second) == [2]);
    first.remove_stream_thread(Duration::from_secs(60)).unwrap();
    first.remove_stream_thread(Duration::from_secs(60)).unwrap();
    wait_until("each has half of the tasks again", || loads(&first) == [4] && loads(&second) == [4]);
    // Without threads it has nothing, and the other one everything.
    second.remove_stream_thread(Duration::from_secs(60)).unwrap();
    wait_until("one has all tasks", || loads(&first) == [8] && loads(&second).is_empty());
    first.close(Duration::from_secs(30)).unwrap();
    second.close(Duration::from_secs(30)).unwrap();
}

#[test]
fn instances_that_leave_together_do_not_wait_for_each_other() {
    let cluster = cluster();
    let (first, second) = (start(config(&cluster)), start(config(&cluster)));
    write(&cluster, &["a b c d e f"]);
    wait_until("all are counted", || last_counts(&cluster).len() == 6);
    let options = CloseOptions::default().leave_group().hand_over(Duration::from_secs(3600));
    std::thread::scope(|scope| {
        let leaving = [&first, &second].map(|streams| scope.spawn(|| streams.close(options)));
        leaving.into_iter().for_each(|closed| closed.join().unwrap().unwrap());
    });
    assert_eq!((first.state(), second.state()), (State::NotRunning, State::NotRunning));
}

/// Holds up whoever comes with the word "hang" first.
#[derive(Default)]
struct Gate {
    /// How many have come, and whether the first may go on.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        if state.0 == 1 {
            let _state = self.changed.wait_while(state, |(_, is_open)| !*is_open).unwrap();
        }
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    fn is_reached(&self) -> bool {
        self.state.lock().unwrap().0 > 0
    }
}

fn start_with(gate: &Arc<Gate>, config: Config) -> KafkaStreams {
    let (builder, gate) = (StreamsBuilder::new(), Arc::clone(gate));
    builder
        .stream("lines", Consumed::with(Utf8, Utf8))
        .map_values(move |line: String| {
            if line == "hang" {
                gate.pass();
            }
            line
        })
        .group_by(|_line, word: &String| word.clone(), Grouped::with(Utf8, Utf8).named("by-word"))
        .count(Materialized::named("word-counts"))
        .to_stream()
        .to("counts", Produced::with(Utf8, I64));
    let streams = KafkaStreams::new(builder.build().unwrap(), config).unwrap();
    streams.start().unwrap();
    streams
}

fn impatient(cluster: &EmbeddedCluster) -> Config {
    config(cluster).cache_bytes(0).stores_in_memory(true).max_poll_interval(Duration::from_secs(2))
}

#[test]
fn the_tasks_of_a_thread_that_hangs_go_on_elsewhere_and_it_comes_back() {
    let cluster = cluster();
    hang_and_come_back(&cluster, || impatient(&cluster));
    assert_eq!(last_counts(&cluster).values().sum::<i64>(), 17);
    assert_gapless(&cluster);
}

#[test]
fn what_a_thread_that_has_hung_has_to_say_is_not_heard_at_least_once_either() {
    let cluster = cluster();
    hang_and_come_back(&cluster, || impatient(&cluster).at_least_once());
    // Nothing that the new owner has counted was overwritten.
    let rows = cluster.records("word-count-word-counts-changelog").unwrap();
    let count = |value: Vec<u8>| i64::from_be_bytes(*value.last_chunk().unwrap());
    let mut counts = std::collections::BTreeMap::new();
    for row in rows {
        let (key, now) = (row.key.unwrap(), count(row.value.unwrap()));
        let before = counts.insert(key, now).unwrap_or(0);
        assert!(before <= now, "a count went back from {before} to {now}");
    }
}

fn hang_and_come_back(cluster: &EmbeddedCluster, config: impl Fn() -> Config) {
    let gate = Arc::new(Gate::default());
    let instances = [start_with(&gate, config()), start_with(&gate, config())];
    wait_until("each has half of the tasks", || instances.iter().all(|instance| loads(instance) == [4]));
    write(cluster, &["a", "b", "c", "d", "hang"]);
    wait_until("one hangs", || gate.is_reached());
    write(cluster, &["a", "b", "c", "d", "a", "b", "c", "d"]);
    let all = expected(&[("a", 3), ("b", 3), ("c", 3), ("d", 3), ("hang", 1)]);
    let has_counted = |least: &std::collections::BTreeMap<String, i64>| {
        let counts = last_counts(cluster);
        least.iter().all(|(word, count)| counts.get(word).is_some_and(|counted| counted >= count))
    };
    wait_until("the other one has done it all", || has_counted(&all));
    wait_until("it says so", || instances.iter().any(|instance| loads(instance) == [8]));

    gate.open();
    wait_until("each has half of the tasks again", || instances.iter().all(|instance| loads(instance) == [4]));
    write(cluster, &["a", "b", "c", "d"]);
    wait_until("the rest is counted", || has_counted(&expected(&[("a", 4), ("b", 4), ("c", 4), ("d", 4)])));
    instances.iter().for_each(|instance| instance.close(Duration::from_secs(30)).unwrap());
}

#[test]
fn a_thread_that_hangs_where_there_is_nobody_else_gets_its_tasks_again() {
    let (cluster, gate) = (cluster(), Arc::new(Gate::default()));
    let streams = start_with(&gate, impatient(&cluster));
    write(&cluster, &["a", "hang"]);
    wait_until("it hangs", || gate.is_reached());
    // Longer than it may take. Whether that has been noticed by then is a matter of chance, and both go on.
    std::thread::park_timeout(Duration::from_secs(4));
    gate.open();
    wait_until("everything is counted", || last_counts(&cluster).get("hang") == Some(&1));
    wait_for(&streams, State::Running);
    streams.close(Duration::from_secs(30)).unwrap();
    assert_gapless(&cluster);
}

#[test]
fn one_instance_ends_all_of_them_and_all_can_start_again() {
    let (cluster, is_broken) = (cluster(), Arc::new(AtomicBool::new(true)));
    let start = |config: Config| {
        let (builder, is_broken) = (StreamsBuilder::new(), Arc::clone(&is_broken));
        builder
            .stream("lines", Consumed::with(Utf8, Utf8))
            .map_values(move |line: String| {
                assert!(line != "poison" || !is_broken.load(Ordering::SeqCst), "poisoned");
                1_i64
            })
            .to("counts", Produced::with(Utf8, I64));
        let streams = KafkaStreams::new(builder.build().unwrap(), config)
            .unwrap()
            .on_uncaught_error(|_| UncaughtErrorResponse::ShutdownApplication);
        streams.start().unwrap();
        streams
    };
    let configs = [config(&cluster), config(&cluster)];
    let instances = configs.clone().map(start);
    wait_until("each has half of the tasks", || instances.iter().all(|instance| loads(instance) == [2]));
    write(&cluster, &["poison"]);
    instances.iter().for_each(|instance| wait_for(instance, State::Error));
    let reasons: Vec<_> = instances.iter().map(|instance| instance.take_error().unwrap().report()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("poisoned")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("asked all of them to end")), "{reasons:?}");
    drop(instances);

    is_broken.store(false, Ordering::SeqCst);
    let instances = configs.map(start);
    wait_until("the record is processed", || cluster.read_committed("counts").unwrap().len() == 1);
    instances.iter().for_each(|instance| wait_for(instance, State::Running));
    instances.iter().for_each(|instance| instance.close(Duration::from_secs(30)).unwrap());
}
