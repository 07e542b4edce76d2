//! Tables that remember what their rows were.

use std::time::Duration;

use kstreams::{Materialized, StoreBuilder, Stores, VersionedKeyValueStore};
use serde_json::Value as Json;

use crate::key::Key;
use crate::outcome::{Stop, inexpressible};
use crate::value::{Codec, Val};

/// A versioned store in place of the one of a table.
pub(crate) fn materialized<K: Key>(
    materialized: Materialized<K, Val>,
    spec: &Json,
) -> Result<Materialized<K, Val>, Stop> {
    let materialized = materialized.as_versioned(millis(&spec["history_ms"])?);
    Ok(match spec.get("segment_ms") {
        Some(interval) => materialized.with_segment_interval(millis(interval)?),
        None => materialized,
    })
}

/// The same store for processors.
pub(crate) fn declared(
    name: &str,
    key: Codec,
    value: Codec,
    spec: &Json,
) -> Result<StoreBuilder<VersionedKeyValueStore<Val, Val>>, Stop> {
    Ok(Stores::versioned_key_value(name, millis(&spec["history_ms"])?, key, value))
}

fn millis(json: &Json) -> Result<Duration, Stop> {
    let millis = json.as_i64().unwrap_or_default();
    let millis = u64::try_from(millis).map_err(|_| inexpressible("a_negative_window"))?;
    Ok(Duration::from_millis(millis))
}
