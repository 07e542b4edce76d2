//! The shared suite, and what only this cluster can show.

use crate::client::conformance::conformance_tests;
use crate::client::embedded::EmbeddedCluster;

mod suite {
    use super::*;

    conformance_tests!(Some(EmbeddedCluster::new()));
}
