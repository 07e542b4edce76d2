//! Rights that are taken away while an application runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Call, Fault, Faulty, KEYS, counting, counts};
use crate::client::embedded::EmbeddedCluster;
use crate::config::GivenCluster;
use crate::{CloseOptions, Config, ErrorKind, KafkaStreams, State};

#[expect(clippy::disallowed_methods, reason = "a test waits for threads")]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An application from which a right is taken: it ends and says which call was denied. Started again when it has the right
/// again, it counts everything: how often, exactly once.
fn deny(call: Call, config: impl Fn(Config) -> Config) -> (EmbeddedCluster, i64) {
    let inner = EmbeddedCluster::new();
    inner.create_topic("in", 2).unwrap();
    inner.create_topic("out", 2).unwrap();
    // Some calls go well before.
    let denied = Fault { after: 3, ..super::fault(call, ErrorKind::Invalid) }.times(usize::MAX);
    let folder = tempfile::tempdir().unwrap();
    let start = |faults: &[Fault]| {
        let mut config = config(Config::new("app", "embedded://"))
            .commit_interval(Duration::from_millis(5))
            .state_dir(folder.path())
            .cache_bytes(0);
        config.cluster = Some(GivenCluster(Arc::new(Faulty::new(inner.clone(), faults))));
        let streams = KafkaStreams::new(counting(), config).unwrap();
        streams.start().unwrap();
        streams
    };
    let streams = start(&[denied]);
    let mut written = 0;
    wait_until(&format!("{call:?} has ended it"), || {
        written += 1;
        for key in KEYS {
            inner.produce("in", Some(key.as_bytes()), Some(b"x"), Some(written)).unwrap();
        }
        streams.state() == State::Error
    });
    let error = streams.take_error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.report());
    assert!(error.report().contains(&format!("injected at {call:?}")), "{}", error.report());
    drop(streams);
    let streams = start(&[]);
    let is_counted = || KEYS.iter().all(|key| counts(&inner).get(*key).is_some_and(|seen| seen.contains(&written)));
    wait_until("everything is counted", is_counted);
    streams.close(CloseOptions::default()).unwrap();
    (inner, written)
}

#[test]
fn whatever_is_denied_ends_the_client_and_nothing_is_lost_or_doubled() {
    for call in [Call::Begin, Call::Send, Call::Confirm, Call::SendOffsets, Call::Commit] {
        let (cluster, written) = deny(call, Config::exactly_once);
        let counts = counts(&cluster);
        for key in KEYS {
            assert_eq!(counts[key], (1..=written).collect::<Vec<_>>(), "{key} after {call:?}");
        }
    }
}

#[test]
fn whatever_is_denied_loses_nothing_at_least_once() {
    for call in [Call::Send, Call::Confirm, Call::CommitOffsets] {
        deny(call, Config::at_least_once);
    }
}
