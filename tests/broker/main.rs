//! Tests on a real Kafka, which they start themselves. They run when `KSTREAMS_BROKER_TESTS` is set, as `make test` does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic in its helpers too, and waits for other processes"
)]

mod application;
mod bad_input;
mod chaos;
mod cluster;
mod exactly_once;
mod faults;
mod globals;
mod instance;
mod ledger;
mod process;
#[cfg(feature = "query-http")]
mod readers;
#[cfg(feature = "query-http")]
mod reads;
mod reset;
#[cfg(feature = "query-http")]
mod served;
mod sharing;
mod soak;
mod standbys;
mod streams_group;
mod takeover;
mod word_count;

use cluster::TestKafka;

#[test]
fn a_topic_made_on_the_broker_is_listed() {
    let Some(kafka) = TestKafka::shared() else { return };
    kafka.topics(&["--create", "--topic", "smoke", "--partitions", "3"]).unwrap();
    let listed = kafka.topics(&["--list"]).unwrap();
    assert!(listed.lines().any(|line| line == "smoke"), "{listed}");
}

#[test]
fn a_killed_broker_comes_back_with_its_topics() {
    let Some(kafka) = TestKafka::start(1) else { return };
    kafka.topics(&["--create", "--topic", "kept", "--partitions", "1"]).unwrap();
    kafka.kill(1).unwrap();
    kafka.restart(1).unwrap();
    let listed = kafka.topics(&["--list"]).unwrap();
    assert!(listed.lines().any(|line| line == "kept"), "{listed}");
}

#[test]
fn brokers_of_two_tests_keep_their_ports_while_one_is_down() {
    let Some(first) = TestKafka::start(1) else { return };
    first.kill(1).unwrap();
    let second = TestKafka::start(1).unwrap();
    assert_ne!(first.bootstrap(), second.bootstrap());
    first.restart(1).unwrap();
    for (kafka, topic) in [(&first, "of-the-first"), (&second, "of-the-second")] {
        kafka.topics(&["--create", "--topic", topic, "--partitions", "1"]).unwrap();
        assert_eq!(kafka.topics(&["--list"]).unwrap().trim(), topic);
    }
}
