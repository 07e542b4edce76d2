//! Crashes at every step of a commit, and what a restart finds.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kstreams::{KafkaStreams, RestoreEvent, State};

use crate::application::{
    PARTITIONS, assert_gapless, cluster, config, counts, start, wait_for, wait_until, word_count, write,
};

#[test]
fn a_crash_at_any_step_of_a_commit_loses_and_doubles_nothing() {
    for step in ["drained", "confirmed", "offsets-sent", "committed", "applied-one"] {
        for time in [1, 3] {
            let cluster = cluster();
            let config = config(&cluster).cache_bytes(0).transaction_timeout(Duration::from_millis(500));
            write(&cluster, &["a b c d e f g h a b c d", "a a a b b b"]);
            let crashing = start(config.clone().crash_at(&format!("{step}:{time}")));
            wait_until("it has crashed", || {
                crashing.state() == State::Error || {
                    write(&cluster, &["a"]);
                    false
                }
            });
            drop(crashing);
            let written = cluster.records("lines").unwrap();
            let words = written.iter().map(|line| String::from_utf8(line.value.clone().unwrap()).unwrap());
            let a = words.flat_map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>()).filter(|w| w == "a");
            let a = a.count();
            let streams = start(config);
            wait_until(&format!("everything is counted after a crash at {step}:{time}"), || {
                counts(&cluster).get("a").is_some_and(|counts| counts.len() >= a)
            });
            streams.close(Duration::from_secs(30)).unwrap();
            assert_gapless(&cluster);
            assert_eq!(counts(&cluster)["a"].len(), a, "after a crash at {step}:{time}");
        }
    }
}

#[test]
fn every_store_tells_how_it_is_restored() {
    let cluster = cluster();
    let config = config(&cluster).cache_bytes(0);
    write(&cluster, &["a b c d e f g h"]);
    let streams = start(config.clone());
    wait_until("all is counted", || counts(&cluster).len() == 8);
    streams.crash();
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let streams = KafkaStreams::new(word_count(), config)
        .unwrap()
        .on_restore(move |event| sink.lock().unwrap().push(event.clone()));
    streams.start().unwrap();
    wait_for(&streams, State::Running);
    streams.close(Duration::from_secs(30)).unwrap();
    let events = events.lock().unwrap();
    let started = events.iter().filter(|event| matches!(event, RestoreEvent::Started { .. })).count();
    let ended: Vec<_> = events
        .iter()
        .filter_map(|event| if let RestoreEvent::Ended { records, .. } = event { Some(*records) } else { None })
        .collect();
    assert_eq!((started, ended.len()), (PARTITIONS as usize, PARTITIONS as usize));
    assert!(ended.iter().sum::<u64>() <= 8, "no more than there is: {ended:?}");
    if cfg!(feature = "rocksdb") {
        let resumed = |event: &&RestoreEvent| matches!(event, RestoreEvent::Started { from, .. } if *from > 0);
        assert_eq!(events.iter().filter(resumed).count(), PARTITIONS as usize, "nothing is wiped: {events:?}");
        assert_eq!(ended.iter().sum::<u64>(), 0, "everything that is committed is on disk");
    }
}
