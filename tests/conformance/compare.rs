//! What was expected against what came.

use std::collections::{BTreeMap, BTreeSet};

use kstreams::{CreatedTopic, SubTopology};
use serde_json::{Value as Json, json};

use crate::value::hex;

/// One line each.
pub(crate) type Differences = Vec<String>;

/// Records written to external topics in a step, in order.
pub(crate) fn records(step: usize, expected: &Json, actual: &[Json], differences: &mut Differences) {
    let expected = expected.as_array().map(Vec::as_slice).unwrap_or_default();
    for place in 0..expected.len().max(actual.len()) {
        match (expected.get(place), actual.get(place)) {
            (Some(expected), Some(actual)) if same_record(expected, actual) => {}
            (expected, actual) => {
                differences.push(format!("step {step}: record {place}"));
                differences.push(format!("    expected {}", shown(expected)));
                differences.push(format!("    but was  {}", shown(actual)));
            }
        }
    }
}

fn shown(record: Option<&Json>) -> String {
    record.map_or("nothing".to_owned(), Json::to_string)
}

fn same_record(expected: &Json, actual: &Json) -> bool {
    let (Some(wanted), Some(got)) = (expected.as_object(), actual.as_object()) else { return false };
    let keys: BTreeSet<&String> = wanted.keys().chain(got.keys()).collect();
    keys.into_iter().all(|key| match (wanted.get(key), got.get(key)) {
        (Some(expected), Some(actual)) if key == "headers" => same_headers(expected, actual),
        (Some(expected), Some(actual)) => same(expected, actual),
        // Only shown for windowed keys; where the format leaves it out there is nothing to compare.
        (None, Some(_)) => key == "key_hex",
        _ => false,
    })
}

fn same_headers(expected: &Json, actual: &Json) -> bool {
    let (Some(expected), Some(actual)) = (expected.as_array(), actual.as_array()) else { return false };
    expected.len() == actual.len()
        && expected.iter().zip(actual).all(|(expected, actual)| {
            let is_any = expected[1].as_str() == Some("<any>");
            // The name of a Java class: only its presence counts.
            let is_class = expected[0].as_str() == Some("__streams.errors.exception");
            expected[0] == actual[0] && (is_any || is_class || expected[1] == actual[1])
        })
}

/// Numbers are equal when their values are.
fn same(expected: &Json, actual: &Json) -> bool {
    expected == actual || expected.as_f64().is_some_and(|number| actual.as_f64() == Some(number))
}

/// The rows of a key-value store, in order, as bytes.
pub(crate) fn rows(
    store: &str,
    expected: &Json,
    actual: &[(Vec<u8>, Vec<u8>, Option<i64>)],
    differences: &mut Differences,
) {
    let expected = expected.as_array().map(Vec::as_slice).unwrap_or_default();
    for place in 0..expected.len().max(actual.len()) {
        let same = match (expected.get(place), actual.get(place)) {
            (Some(expected), Some((key, value, timestamp))) => {
                same_bytes(&expected[0], key)
                    && same_bytes(&expected[1], value)
                    && timestamp.is_none_or(|timestamp| expected[2].as_i64() == Some(timestamp))
            }
            _ => false,
        };
        if !same {
            let row = actual.get(place);
            let row = row.map(|(key, value, timestamp)| json!([lossy(key), lossy(value), timestamp]));
            let expected = shown(expected.get(place));
            differences
                .push(format!("store {store}: row {place}: expected {expected}, but was {}", shown(row.as_ref())));
        }
    }
}

pub(crate) fn same_bytes(expected: &Json, bytes: &[u8]) -> bool {
    match expected {
        Json::String(text) => text.as_bytes() == bytes,
        Json::Number(number) => {
            let long = number.as_i64();
            long.is_some_and(|long| long.to_be_bytes() == bytes)
                || long.and_then(|long| i32::try_from(long).ok()).is_some_and(|int| int.to_be_bytes() == bytes)
                || number.as_f64().is_some_and(|double| double.to_be_bytes() == bytes)
        }
        other => other["hex"].as_str() == Some(&hex(bytes)),
    }
}

pub(crate) fn lossy(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => text.to_owned(),
        _ => format!("0x{}", hex(bytes)),
    }
}

/// Records of internal topics, per topic in order.
pub(crate) fn internal(expected: &Json, actual: &BTreeMap<String, Vec<Json>>, differences: &mut Differences) {
    let none = serde_json::Map::new();
    let expected = expected.as_object().unwrap_or(&none);
    let topics: BTreeSet<&String> = expected.keys().chain(actual.keys()).collect();
    for topic in topics {
        let expected = expected.get(topic).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        let actual = actual.get(topic).map(Vec::as_slice).unwrap_or_default();
        for place in 0..expected.len().max(actual.len()) {
            let is_same = match (expected.get(place), actual.get(place)) {
                (Some(expected), Some(actual)) => same_internal(expected, actual),
                _ => false,
            };
            if !is_same {
                differences.push(format!("internal topic {topic}: record {place}"));
                differences.push(format!("    expected {}", shown(expected.get(place))));
                differences.push(format!("    but was  {}", shown(actual.get(place))));
            }
        }
    }
}

/// A record without a timestamp gets the producer's.
fn same_internal(expected: &Json, actual: &Json) -> bool {
    if expected.get("timestamp") != Some(&Json::Null) {
        return expected == actual;
    }
    let mut actual = actual.clone();
    actual["timestamp"] = Json::Null;
    *expected == actual
}

pub(crate) fn branches(case: &Json, actual: &BTreeMap<String, Vec<String>>, differences: &mut Differences) {
    map("branches", &case["branches"], &json!(actual), differences);
}

/// Two maps; an absent one is empty.
pub(crate) fn map(what: &str, expected: &Json, actual: &Json, differences: &mut Differences) {
    let empty = json!({});
    let expected = if expected.is_null() { &empty } else { expected };
    if expected != actual {
        differences.push(format!("{what}: expected {expected}, but was {actual}"));
    }
}

/// Line by line; the lists behind arrows and in brackets are sets.
pub(crate) fn description(expected: &str, actual: &str, differences: &mut Differences) {
    let (expected, actual): (Vec<_>, Vec<_>) = (expected.split('\n').collect(), actual.split('\n').collect());
    for line in 0..expected.len().max(actual.len()) {
        let (expected, actual) = (expected.get(line), actual.get(line));
        if expected.map(|line| as_sets(line)) != actual.map(|line| as_sets(line)) {
            differences.push(format!("describe: line {line}"));
            differences.push(format!("    expected {expected:?}"));
            differences.push(format!("    but was  {actual:?}"));
        }
    }
}

fn as_sets(line: &str) -> (String, BTreeSet<String>) {
    let set = |list: &str| list.split(", ").map(str::to_owned).collect();
    for arrow in ["--> ", "<-- "] {
        if let Some((before, list)) = line.split_once(arrow) {
            return (format!("{before}{arrow}"), set(list));
        }
    }
    match line.split_once('[').and_then(|(before, rest)| Some((before, rest.split_once(']')?))) {
        Some((before, (list, after))) => (format!("{before}[]{after}"), set(list)),
        None => (line.to_owned(), BTreeSet::new()),
    }
}

pub(crate) fn sub_topologies(expected: &Json, actual: &[SubTopology], differences: &mut Differences) {
    let expected = expected.as_array().map(Vec::as_slice).unwrap_or_default();
    let actual: Vec<Json> = actual.iter().map(sub_topology).collect();
    for place in 0..expected.len().max(actual.len()) {
        let expected = expected.get(place).map(normal);
        if expected.as_ref() != actual.get(place) {
            differences.push(format!("sub-topology {place}"));
            differences.push(format!("    expected {}", shown(expected.as_ref())));
            differences.push(format!("    but was  {}", shown(actual.get(place))));
        }
    }
}

/// Lists as sets, absent fields as empty ones.
fn normal(expected: &Json) -> Json {
    let set = |json: &Json| {
        let items: BTreeSet<&str> = json.as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        json!(items)
    };
    let map = |json: &Json| if json.is_null() { json!({}) } else { json.clone() };
    let groups: BTreeSet<String> =
        expected["copartition"].as_array().into_iter().flatten().map(|group| set(group).to_string()).collect();
    json!({
        "id": expected["id"],
        "sources": set(&expected["sources"]),
        "sinks": set(&expected["sinks"]),
        "repartition": map(&expected["repartition"]),
        "changelogs": map(&expected["changelogs"]),
        "source_changelogs": set(&expected["source_changelogs"]),
        "copartition": groups,
    })
}

fn sub_topology(actual: &SubTopology) -> Json {
    let topics = |topics: &[CreatedTopic]| {
        let topics = topics.iter().map(|topic| {
            let shown = match topic.partitions {
                Some(partitions) => json!({"partitions": partitions, "config": topic.config}),
                None => json!({"config": topic.config}),
            };
            (topic.name.clone(), shown)
        });
        json!(topics.collect::<BTreeMap<_, _>>())
    };
    let groups: BTreeSet<String> = actual.copartitions.iter().map(|group| json!(group).to_string()).collect();
    json!({
        "id": actual.id,
        "sources": actual.sources,
        "sinks": actual.sinks,
        "repartition": topics(&actual.repartition_topics),
        "changelogs": topics(&actual.changelog_topics),
        "source_changelogs": actual.source_changelogs,
        "copartition": groups,
    })
}
