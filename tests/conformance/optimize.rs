//! `topology.optimization`, which a case has beside its configuration.

use kstreams::Config;
use serde_json::Value as Json;

use crate::build::NotBuilt;

/// What the topology is built with.
pub(crate) fn config(case: &Json) -> Result<Config, NotBuilt> {
    let config = Config::new("app", "embedded://");
    Ok(match case["optimize"].as_str() {
        Some(optimize) => config.set("topology.optimization", optimize)?,
        None => config,
    })
}
