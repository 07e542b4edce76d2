//! What both graph forms of the cases share.

use std::collections::BTreeMap;
use std::time::Duration;

use kstreams::{Consumed, Error, OffsetReset, Produced, Topology};
use serde_json::Value as Json;

use crate::functions;
use crate::key::Key;
use crate::outcome::{Stop, missing};
use crate::value::{Codec, Val};

/// A built topology, with what else the format says about it.
pub(crate) struct Built {
    pub(crate) topology: Topology,
    /// Keys of the branch map of each split.
    pub(crate) branches: BTreeMap<String, Vec<String>>,
    /// Queryable names, by the id of the table.
    pub(crate) queryable: BTreeMap<String, String>,
}

/// Why there is no topology.
pub(crate) enum NotBuilt {
    Stop(Stop),
    Error(Error),
}

impl From<Stop> for NotBuilt {
    fn from(stop: Stop) -> NotBuilt {
        NotBuilt::Stop(stop)
    }
}

impl From<Error> for NotBuilt {
    fn from(error: Error) -> NotBuilt {
        NotBuilt::Error(error)
    }
}

pub(crate) fn text<'a>(op: &'a Json, field: &str) -> &'a str {
    op[field].as_str().unwrap_or_default()
}

/// A list of texts; empty where the field is absent.
pub(crate) fn list<'a>(op: &'a Json, field: &str) -> Vec<&'a str> {
    op[field].as_array().into_iter().flatten().filter_map(Json::as_str).collect()
}

/// The topics of a source.
pub(crate) fn topics(op: &Json) -> Result<Vec<&str>, Stop> {
    Ok(match op["topic"].as_str() {
        Some(topic) => vec![topic],
        None => list(op, "topics"),
    })
}

/// How a source reads, with the extractor of the application where it names none.
pub(crate) fn consumed(op: &Json, config: &Json) -> Result<Consumed<Val, Val>, Stop> {
    let mut consumed = Consumed::with(Codec::of(&op["key"])?, Codec::of(&op["value"])?);
    if let Some(extractor) = op.get("extractor").or(config.get("default.timestamp.extractor")) {
        consumed = consumed.with_timestamp_extractor(functions::extractor(extractor)?);
    }
    if let Some(reset) = op["reset"].as_str() {
        consumed = consumed.with_offset_reset(match reset {
            "earliest" => OffsetReset::Earliest,
            "latest" => OffsetReset::Latest,
            "none" => OffsetReset::None,
            duration => OffsetReset::ByDuration(iso_duration(duration)?),
        });
    }
    Ok(consumed)
}

/// How a sink writes.
pub(crate) fn produced<K: Key>(op: &Json) -> Result<Produced<K, Val>, Stop> {
    let produced = Produced::with(K::codec(&Codec::of(&op["key"])?)?, Codec::of(&op["value"])?);
    Ok(match op.get("partitioner") {
        None => produced,
        Some(partitioner) => {
            let partitioner = functions::partitioner(partitioner)?;
            produced.with_partitioner(move |topic, key: &K, value, n| partitioner(topic, &key.val(), value, n))
        }
    })
}

/// `PT1H30M`, `P2D`, `PT0.5S`.
fn iso_duration(text: &str) -> Result<Duration, Stop> {
    let unknown = || missing(format!("offset reset {text}"));
    let mut rest = text.strip_prefix('P').ok_or_else(unknown)?;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        rest = rest.trim_start_matches('T');
        let end = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(unknown)?;
        let (number, unit) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| unknown())?;
        seconds += number
            * match &unit[..1] {
                "D" => 86_400.0,
                "H" => 3_600.0,
                "M" => 60.0,
                _ => 1.0,
            };
        rest = &unit[1..];
    }
    Ok(Duration::from_secs_f64(seconds))
}
