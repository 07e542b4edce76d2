//! Sources of a topic pattern.

use std::collections::BTreeMap;

use kstreams::{OffsetAndMetadata, TopicPartition, Wire};
use serde_json::Value as Json;

use crate::build::{list, text};

/// Java's driver has one partition for all topics of a pattern, by the pattern's name: its time is the latest of them.
pub(crate) fn committed(
    case: &Json,
    committed: &BTreeMap<TopicPartition, OffsetAndMetadata>,
) -> BTreeMap<String, String> {
    let ops = || case["topology"].as_array().into_iter().flatten();
    let pattern = ops().find_map(|op| op["pattern"].as_str());
    let is_source = |op: &&Json| !matches!(text(op, "op"), "to" | "add_sink");
    let is_named = |topic: &str| {
        ops().filter(is_source).any(|op| text(op, "topic") == topic || list(op, "topics").contains(&topic))
    };
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    for (at, point) in committed {
        let topic = match pattern {
            Some(pattern) if !is_named(&at.topic) && !at.topic.starts_with("app-") => pattern,
            _ => &*at.topic,
        };
        let time = Wire::read_offset_metadata(&point.metadata).0;
        match shown.get(topic) {
            Some(known) if Wire::read_offset_metadata(known).0 >= time => {}
            _ => drop(shown.insert(topic.to_owned(), point.metadata.clone())),
        }
    }
    shown
}
