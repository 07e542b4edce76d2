//! The suite of behaviour on a real Kafka, and what only a real one shows.

use std::collections::BTreeMap;

use super::*;
use crate::client::conformance::conformance_tests;

/// The broker named by `KSTREAMS_TEST_BOOTSTRAP`, which `make test` sets; none skips the test, but not in CI.
fn bootstrap() -> Option<String> {
    let bootstrap = std::env::var("KSTREAMS_TEST_BOOTSTRAP").ok();
    assert!(
        bootstrap.is_some() || std::env::var_os("CI").is_none(),
        "CI tests on a real Kafka: KSTREAMS_TEST_BOOTSTRAP must name a broker"
    );
    bootstrap
}

fn cluster() -> Option<KafkaCluster> {
    let bootstrap = bootstrap()?;
    Some(KafkaCluster::new(&bootstrap, "kstreams-conformance", BTreeMap::new()).unwrap())
}

mod conformance {
    super::conformance_tests!(super::cluster());
}
