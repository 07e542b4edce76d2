//! What restoring and standbys tell of themselves, and what goes on beside them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kstreams::{
    CloseOptions, Config, Consumed, EmbeddedCluster, Grouped, Headers, KafkaStreams, Materialized, ProducerRecord,
    RestoreEvent, StandbyEnd, State, StreamsBuilder, Topology, Utf8,
};

use crate::application::{PARTITIONS, cluster, config, counts, wait_for, wait_until, word_count, write};

type Events = Arc<Mutex<Vec<RestoreEvent>>>;

fn listening(streams: KafkaStreams) -> (KafkaStreams, Events) {
    let events = Events::default();
    let heard = Arc::clone(&events);
    (streams.on_restore(move |event| heard.lock().unwrap().push(event.clone())), events)
}

/// Counts by key, without a repartition topic; `seen` counts what it has processed.
fn counting(seen: &Arc<AtomicU64>) -> Topology {
    let builder = StreamsBuilder::new();
    let seen = Arc::clone(seen);
    builder
        .stream("lines", Consumed::with(Utf8, Utf8))
        .group_by_key(Grouped::with(Utf8, Utf8))
        .count(Materialized::named("n"))
        .to_stream()
        .for_each(move |_, _: &Option<i64>| {
            seen.fetch_add(1, Ordering::SeqCst);
        });
    builder.build().unwrap()
}

/// Fills a changelog with rows.
fn fill(cluster: &EmbeddedCluster, topic: &str, partition: i32, rows: u64) {
    let topic = &Arc::from(topic);
    for row in 0..rows {
        let (key, value) = (format!("row-{row}"), row.to_be_bytes());
        let record = ProducerRecord {
            topic,
            partition: Some(partition),
            key: Some(key.as_bytes()),
            value: Some(&value),
            timestamp: Some(row as i64),
            headers: &Headers::new(),
        };
        cluster.produce_record(record).unwrap();
    }
}

#[test]
fn a_task_that_runs_goes_on_while_another_one_is_restored() {
    const ROWS: u64 = 60_000;
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("lines", 2).unwrap();
    cluster.create_topic("word-count-n-changelog", 2).unwrap();
    fill(&cluster, "word-count-n-changelog", 1, ROWS);
    let line = ProducerRecord {
        topic: &"lines".into(),
        partition: Some(0),
        key: Some(b"k"),
        value: Some(b"v"),
        timestamp: Some(1),
        headers: &Headers::new(),
    };
    cluster.produce_record(line).unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    let settings = config(&cluster).cache_bytes(0).stores_in_memory(true);
    let streams = KafkaStreams::new(counting(&seen), settings).unwrap();
    let batches: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let (heard, counted) = (Arc::clone(&batches), Arc::clone(&seen));
    let streams = streams.on_restore(move |event| {
        if let RestoreEvent::Batch { partition: 1, records, progress, .. } = event {
            assert_eq!(progress.records() + progress.remaining(), ROWS);
            heard.lock().unwrap().push((*records, counted.load(Ordering::SeqCst)));
        }
    });
    streams.start().unwrap();
    wait_for(&streams, State::Running);
    streams.close(Duration::from_secs(30)).unwrap();
    let batches = batches.lock().unwrap();
    assert_eq!(batches.iter().map(|(records, _)| records).sum::<u64>(), ROWS);
    // The other task runs from the first turn on, and its record is processed long before the last one.
    assert!(batches.iter().skip(1).all(|(records, _)| *records <= 4096), "a turn was too long: {batches:?}");
    assert_eq!(batches.last().map(|(_, seen)| *seen), Some(1), "the other task waited: {batches:?}");
}

fn with_a_standby(cluster: &EmbeddedCluster) -> Config {
    let config = config(cluster).cache_bytes(0).session_timeout(Duration::from_secs(2));
    config.num_standby_replicas(1).acceptable_recovery_lag(0)
}

/// For each partition: where its standby began, what it has read, and how it ended.
fn story(events: &Events, of: i32) -> (Vec<i64>, u64, Vec<(i64, StandbyEnd)>) {
    let (mut begun, mut read, mut ended) = (Vec::new(), 0, Vec::new());
    for event in events.lock().unwrap().iter() {
        match event {
            RestoreEvent::StandbyStarted { partition, from, .. } if *partition == of => begun.push(*from),
            RestoreEvent::StandbyBatch { partition, records, position, end, .. } if *partition == of => {
                assert!(position <= end);
                assert!(begun.len() > ended.len(), "a batch of a standby that is none");
                read += records;
            }
            RestoreEvent::StandbyEnded { partition, position, reason, .. } if *partition == of => {
                ended.push((*position, *reason));
            }
            RestoreEvent::Started { .. } | _ => {}
        }
    }
    (begun, read, ended)
}

#[test]
fn standbys_tell_where_they_begin_what_they_read_and_how_they_end() {
    let cluster = cluster();
    let (first, _) = listening(KafkaStreams::new(word_count(), with_a_standby(&cluster)).unwrap());
    first.start().unwrap();
    let lines: Vec<String> = (0..50).map(|number| format!("all word-{}", number % 23)).collect();
    write(&cluster, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    wait_until("all is counted", || counts(&cluster).get("all").map_or(0, Vec::len) == 50);

    let (second, events) = listening(KafkaStreams::new(word_count(), with_a_standby(&cluster)).unwrap());
    second.start().unwrap();
    wait_until("each has two tasks and two standbys", || {
        let caught_up = |streams: &KafkaStreams| -> BTreeSet<i32> {
            streams.lags().iter().filter(|store| store.lag() == 0).map(|store| store.partition).collect()
        };
        let (one, other) = (caught_up(&first), caught_up(&second));
        one.len() == 2 && other.len() == 2 && one.is_disjoint(&other)
    });
    let still_there: Vec<i32> = second.lags().iter().map(|store| store.partition).collect();
    for partition in 0..PARTITIONS {
        let (begun, _, ended) = story(&events, partition);
        assert_eq!(begun, [0], "partition {partition} came as a standby first");
        let expected = usize::from(!still_there.contains(&partition));
        assert_eq!(ended.len(), expected, "a standby of partition {partition} ended: {ended:?}");
        assert!(ended.iter().all(|(_, reason)| *reason == StandbyEnd::Promoted));
    }
    first.close(CloseOptions::default().leave_group()).unwrap();
    wait_until("what was a standby is active", || {
        still_there.iter().all(|partition| !story(&events, *partition).2.is_empty())
    });
    let written = cluster.records("word-count-word-counts-changelog").unwrap();
    for partition in still_there {
        let (_, read, ended) = story(&events, partition);
        let logged = written.iter().filter(|row| row.partition == partition).count() as u64;
        assert_eq!(read, logged, "partition {partition} was read once and as a standby");
        assert_eq!(ended[0].1, StandbyEnd::Promoted);
    }
    second.close(Duration::from_secs(30)).unwrap();
}
