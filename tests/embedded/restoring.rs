//! What restoring and standbys tell of themselves, and what goes on beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kstreams::{
    CloseOptions, Config, Consumed, EmbeddedCluster, FixedKeyContext, FixedKeyProcessor, FixedKeyRecord, Grouped,
    Headers, KafkaStreams, Materialized, Optimization, Processed, Produced, ProducerRecord, RestoreEvent, StandbyEnd,
    State, StreamsBuilder, TimeWindows, Topology, Utf8, Windowed,
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
    let batches: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (heard, counted) = (Arc::clone(&batches), Arc::clone(&seen));
    let streams = streams.on_restore(move |event| {
        if let RestoreEvent::Batch { partition: 1, records, progress, .. } = event {
            assert_eq!(progress.records() + progress.remaining(), ROWS);
            heard.lock().unwrap().push(*records);
            // However slow a store is: the restoration stands still until the other task has done its work.
            wait_until("the other task processes its record", || counted.load(Ordering::SeqCst) == 1);
        }
    });
    streams.start().unwrap();
    wait_for(&streams, State::Running);
    streams.close(Duration::from_secs(30)).unwrap();
    let batches = batches.lock().unwrap();
    assert_eq!(batches.iter().sum::<u64>(), ROWS);
    assert!(batches.len() > 1 && seen.load(Ordering::SeqCst) == 1, "{batches:?}");
}

/// Counts by key in windows of a second, which are kept for an hour; `touch`: a processor of the program's has the store, too.
fn windowed(touch: bool) -> Topology {
    let builder = StreamsBuilder::new();
    let lines = builder.stream("lines", Consumed::with(Utf8, Utf8));
    let windows = TimeWindows::of_size_and_grace(Duration::from_secs(1), Duration::from_secs(600));
    let counts = Materialized::named("n").with_retention(Duration::from_secs(3600));
    let windowed = lines.group_by_key(Grouped::with(Utf8, Utf8)).windowed_by(windows);
    let named = |window: Windowed<String>, count: Option<i64>| {
        (format!("{}@{}", window.key, window.window.start), count.unwrap_or(0).to_string())
    };
    let counted = windowed.count(counts).to_stream().map(named);
    let counted = match touch {
        true => counted.process_values(|_| Ok(Same), Processed::stores(["n"])),
        false => counted,
    };
    counted.to("counts", Produced::with(Utf8, Utf8));
    builder.build().unwrap()
}

/// Leaves everything as it is.
struct Same;

impl FixedKeyProcessor<String, String> for Same {
    type ValueOut = String;

    fn process(
        &mut self,
        record: FixedKeyRecord<String, String>,
        ctx: &mut FixedKeyContext<'_, '_, String, String>,
    ) -> kstreams::Result<()> {
        ctx.forward(record)
    }
}

/// Counts a record every minute of two days, forgets all state but the changelog, and counts another one in the last window:
/// offsets of the changelog, records that were read again, and what the other one came to.
fn restored_windows(touch: bool) -> (u64, u64, String) {
    const MINUTES: i64 = 2 * 24 * 60;
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("lines", 1).unwrap();
    cluster.create_topic("counts", 1).unwrap();
    let write = |minute: i64| {
        cluster.produce("lines", Some(b"k"), Some(b"v"), Some(minute * 60_000)).unwrap();
    };
    let settings = || config(&cluster).cache_bytes(0).stores_in_memory(true);
    let first = KafkaStreams::new(windowed(touch), settings()).unwrap();
    first.start().unwrap();
    (0..MINUTES).for_each(write);
    let results = || cluster.read_committed("counts").unwrap();
    wait_until("all is counted", || results().len() as i64 == MINUTES);
    first.close(CloseOptions::default().leave_group()).unwrap();

    let (second, events) = listening(KafkaStreams::new(windowed(touch), settings()).unwrap());
    second.start().unwrap();
    wait_for(&second, State::Running);
    write(MINUTES - 1);
    wait_until("it is counted", || results().len() as i64 == MINUTES + 1);
    second.close(Duration::from_secs(30)).unwrap();
    let read = |event: &RestoreEvent| match event {
        RestoreEvent::Batch { records, .. } => *records,
        RestoreEvent::Started { .. } | _ => 0,
    };
    let read = events.lock().unwrap().iter().map(read).sum();
    let logged = cluster.read_committed("word-count-n-changelog").unwrap().len() as u64;
    let last = results().pop().and_then(|record| record.value).unwrap();
    (logged, read, String::from_utf8(last).unwrap())
}

#[test]
fn a_windowed_store_is_restored_from_where_its_rows_are_still_alive() {
    let (logged, read, last) = restored_windows(false);
    assert_eq!(last, "2", "the last window goes on");
    // An hour is kept and whole half hours go, of two days.
    assert!((60..=120).contains(&read), "{read} of {logged} records were read");
}

#[test]
fn a_windowed_store_that_a_processor_may_write_is_restored_from_the_start() {
    let (logged, read, last) = restored_windows(true);
    assert_eq!((read, &*last), (logged - 1, "2"));
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

/// A table that reads its source topic as its changelog, and a stream that finds its rows.
fn source_table(config: &Config) -> Topology {
    let builder = StreamsBuilder::new();
    let rows = builder.table("lines", Consumed::with(Utf8, Utf8), Materialized::named("rows"));
    rows.to_stream().to("counts", Produced::with(Utf8, Utf8));
    builder.build_with(config).unwrap()
}

#[test]
fn a_standby_reads_a_source_topic_ahead_as_far_as_it_is_committed() {
    let cluster = cluster();
    let settings = || with_a_standby(&cluster).optimization(Optimization::all());
    let config = settings();
    let first = KafkaStreams::new(source_table(&config), config).unwrap();
    first.start().unwrap();
    let write_round = |round: usize| {
        let lines: Vec<String> = (0..100).map(|number| format!("round {round}, line {number}")).collect();
        write(&cluster, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        wait_until("the round is in the table", || cluster.read_committed("counts").unwrap().len() == 100 * round);
    };
    write_round(1);

    let config = settings();
    let (of_group, begun) = (cluster.clone(), Arc::new(Mutex::new(BTreeMap::new())));
    let heard = Arc::clone(&begun);
    let second = KafkaStreams::new(source_table(&config), config).unwrap().on_restore(move |event| match event {
        RestoreEvent::StandbyBatch { partition, position, .. } => {
            let committed = of_group.committed_offset("word-count", "lines", *partition).unwrap();
            assert!(committed.is_some_and(|committed| *position <= committed), "{position} of {committed:?}");
        }
        RestoreEvent::Started { partition, from, .. } => {
            heard.lock().unwrap().insert(*partition, *from);
        }
        RestoreEvent::Batch { .. } | _ => {}
    });
    second.start().unwrap();
    let committed = |partition| cluster.committed_offset("word-count", "lines", partition).unwrap().unwrap_or(0);
    let has_all = |streams: &KafkaStreams| -> BTreeSet<i32> {
        let lags = streams.lags();
        let caught_up = lags.iter().filter(|store| store.lag() == 0 && store.position == committed(store.partition));
        caught_up.map(|store| store.partition).collect()
    };
    let is_shared = || {
        let (one, other) = (has_all(&first), has_all(&second));
        one.len() == 2 && other.len() == 2 && one.is_disjoint(&other)
    };
    wait_until("each has two tasks and two standbys", is_shared);
    write_round(2);
    wait_until("the standbys have what was committed meanwhile", is_shared);

    let standbys = has_all(&second);
    let read: BTreeMap<i32, i64> = standbys.iter().map(|partition| (*partition, committed(*partition))).collect();
    begun.lock().unwrap().clear();
    first.crash();
    let has_begun = || standbys.iter().all(|partition| begun.lock().unwrap().contains_key(partition));
    wait_until("the standbys take over", has_begun);
    for (partition, read) in read {
        assert_eq!(begun.lock().unwrap()[&partition], read, "partition {partition} goes on where its standby was");
    }
    write_round(3);
    second.close(Duration::from_secs(30)).unwrap();
}

#[test]
fn a_changelog_that_another_kind_of_store_has_written_is_an_error_with_its_place() {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("lines", 2).unwrap();
    cluster.create_topic("word-count-n-changelog", 2).unwrap();
    // `row-0` has no room for a window.
    fill(&cluster, "word-count-n-changelog", 1, 1);
    let builder = StreamsBuilder::new();
    builder
        .stream("lines", Consumed::with(Utf8, Utf8))
        .group_by_key(Grouped::with(Utf8, Utf8))
        .windowed_by(TimeWindows::of_size_with_no_grace(Duration::from_secs(60)))
        .count(Materialized::named("n"));
    let topology = builder.build().unwrap();
    for in_memory in [false, true] {
        let settings = config(&cluster).stores_in_memory(in_memory);
        let streams = KafkaStreams::new(topology.clone(), settings).unwrap();
        streams.start().unwrap();
        wait_for(&streams, State::Error);
        let report = streams.take_error().unwrap().report();
        let place = "what is at offset 0 of word-count-n-changelog[1] was not written by a store of its kind";
        assert!(report.contains(place), "{report}");
    }
}
