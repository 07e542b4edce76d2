//! Formats of groups, positions and headers in rows.

use std::collections::BTreeMap;

use kstreams::{Headers, TaskId, TopicPartition, Wire, WireAssignmentInfo, WireSubscriptionInfo};
use serde_json::Value as Json;

use crate::build::{list, text};
use crate::value::{hex, unhex};

pub(crate) const LISTS: &[&str] = &["assignment_info", "copartition", "headers", "position", "subscription_info"];

pub(crate) fn check(list: &str, entry: &Json, same: &mut dyn FnMut(&str, &str, &str)) {
    match list {
        "copartition" => copartition(entry, same),
        "headers" => headers(entry, same),
        "position" => {
            let offsets: Vec<_> = partitions_of(text(entry, "position"), '=');
            let offsets: Vec<_> = offsets.iter().map(|(topic, at, offset)| (topic.as_str(), *at, *offset)).collect();
            same("bytes", text(entry, "bytes"), &hex(&Wire::position(&offsets).unwrap()));
            let read = Wire::read_position(&unhex(text(entry, "array"))).unwrap();
            let offsets: Vec<_> =
                offsets.iter().map(|(topic, at, offset)| ((*topic).to_owned(), *at, *offset)).collect();
            same("read", &format!("{offsets:?}"), &format!("{read:?}"));
        }
        "subscription_info" => {
            let info = subscription(entry);
            same("bytes", text(entry, "bytes"), &hex(&Wire::subscription_info(&info).unwrap()));
            let read = Wire::read_subscription_info(&unhex(text(entry, "bytes"))).unwrap();
            same("written again", text(entry, "bytes"), &hex(&Wire::subscription_info(&read).unwrap()));
        }
        _ => {
            let info = assignment(entry);
            same("bytes", text(entry, "bytes"), &hex(&Wire::assignment_info(&info).unwrap()));
            let read = Wire::read_assignment_info(&unhex(text(entry, "bytes"))).unwrap();
            same("read", &format!("{info:?}"), &format!("{read:?}"));
        }
    }
}

fn copartition(entry: &Json, same: &mut dyn FnMut(&str, &str, &str)) {
    let group = text(entry, "group");
    match (Wire::copartition(group), entry.get("error")) {
        (Ok(count), None) => {
            for (topic, expected) in entry["internal_partitions"].as_object().into_iter().flatten() {
                same(&format!("partitions of {topic}"), &expected.to_string(), &count.to_string());
            }
        }
        (Err(_), Some(_)) => {}
        (result, expected) => same("outcome", &format!("{expected:?}"), &format!("{result:?}")),
    }
}

fn headers(entry: &Json, same: &mut dyn FnMut(&str, &str, &str)) {
    let mut headers = Headers::new();
    for header in entry["headers"].as_array().into_iter().flatten() {
        let key = header[0].as_str().unwrap_or_default();
        match header[1].as_str() {
            Some(value) => headers.add(key, value),
            None => headers.add_null(key),
        }
    }
    let timestamp = entry["timestamp"].as_i64().unwrap();
    let rows = Wire::row_headers(&headers, text(entry, "value").as_bytes(), timestamp).unwrap();
    for (field, row) in ["bytes", "value_timestamp_headers", "aggregation_headers"].into_iter().zip(&rows) {
        same(field, text(entry, field), &hex(row));
    }
    let (read, rest) = Wire::read_row_headers(&rows[2]).unwrap();
    same(
        "read",
        &format!("{headers:?} {}", text(entry, "value")),
        &format!("{read:?} {}", String::from_utf8_lossy(&rest)),
    );
}

/// `t: 1=42, 2=7; u: 0=3` or, without offsets, `in-1`: topic, partition, offset.
fn partitions_of(shown: &str, separator: char) -> Vec<(String, i32, i64)> {
    let mut found = Vec::new();
    for topic in shown.split(';').filter(|topic| !topic.trim().is_empty()) {
        let (name, offsets) = topic.split_once(':').unwrap();
        for offset in offsets.split(',') {
            let (partition, offset) = offset.trim().split_once(separator).unwrap();
            found.push((name.trim().to_owned(), partition.parse().unwrap(), offset.parse().unwrap()));
        }
    }
    found
}

fn task(shown: &str) -> TaskId {
    let (sub_topology, partition) = shown.trim().split_once('_').unwrap();
    TaskId { sub_topology: sub_topology.parse().unwrap(), partition: partition.parse().unwrap() }
}

fn subscription(entry: &Json) -> WireSubscriptionInfo {
    let number = |field: &str| entry[field].as_i64().unwrap_or_default();
    let sums = entry["task_offset_sums"].as_object().into_iter().flatten();
    let tags = entry["client_tags"].as_object().into_iter().flatten();
    WireSubscriptionInfo {
        version: number("version") as i32,
        latest_version: number("latest_supported") as i32,
        process_id: unhex(&text(entry, "process_id").replace('-', "")).try_into().unwrap(),
        endpoint: entry["user_end_point"].as_str().map(str::to_owned),
        offset_sums: sums.map(|(name, sum)| (task(name), sum.as_i64().unwrap())).collect(),
        unique: number("unique_field") as i8,
        error_code: number("error_code") as i32,
        tags: tags.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect(),
    }
}

/// `0_1 -> in-1, in-2; 1_0 -> in-3` by what stands before the arrow.
fn by<K: Ord>(shown: &str, key: impl Fn(&str) -> K) -> BTreeMap<K, Vec<TopicPartition>> {
    let partition = |shown: &str| {
        let (topic, partition) = shown.trim().rsplit_once('-').unwrap();
        TopicPartition::new(topic, partition.parse().unwrap())
    };
    let entries = shown.split(';').filter_map(|entry| entry.split_once(" -> "));
    entries.map(|(name, partitions)| (key(name.trim()), partitions.split(',').map(partition).collect())).collect()
}

fn assignment(entry: &Json) -> WireAssignmentInfo {
    let number = |field: &str| entry[field].as_i64().unwrap_or_default();
    let host = |shown: &str| {
        let (host, port) = shown.rsplit_once(':').unwrap();
        (host.to_owned(), port.parse().unwrap())
    };
    WireAssignmentInfo {
        version: number("version") as i32,
        commonly_supported_version: number("commonly_supported_version") as i32,
        active: list(entry, "active").into_iter().map(task).collect(),
        standby: by(text(entry, "standby"), task),
        active_by_host: by(text(entry, "partitions_by_host"), host),
        standby_by_host: by(text(entry, "standby_partitions_by_host"), host),
        error_code: number("error_code") as i32,
        next_rebalance_ms: number("next_rebalance_ms"),
    }
}
