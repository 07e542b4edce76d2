//! The settings that a topology is built with; `topology.optimization` stands beside a case's configuration.

use kstreams::Config;
use serde_json::Value as Json;

use crate::build::NotBuilt;

/// What the topology is built with.
pub(crate) fn config(case: &Json) -> Result<Config, NotBuilt> {
    let config = Config::new("app", "embedded://");
    let config = match case["optimize"].as_str() {
        Some(optimize) => config.set("topology.optimization", optimize)?,
        None => config,
    };
    Ok(match case["config"]["dsl.store.format"].as_str() {
        Some(format) => config.set("dsl.store.format", format)?,
        None => config,
    })
}
