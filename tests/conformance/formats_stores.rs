//! Formats of window, session, list and versioned stores.

use std::time::Duration;

use kstreams::{
    Bytes, Consumed, Processor, ProcessorContext, Record, Serde, SessionWindowedSerde, Stores, TimeWindowedSerde,
    TopologyBuilder, TopologyTestDriver, Utf8, Window, Windowed, Wire,
};
use serde_json::Value as Json;

use crate::value::{hex, unhex};

pub(crate) const LISTS: &[&str] =
    &["time_windowed_keys", "session_windowed_keys", "list_value", "versioned_segment_interval", "versioned_segment"];

pub(crate) fn check(list: &str, entry: &Json, mut same: impl FnMut(&str, &str, &str)) {
    let text = |field: &str| entry[field].as_str().unwrap_or_default();
    let number = |field: &str| entry[field].as_i64().unwrap_or_default();
    let window = Window { start: number("start"), end: number("end") };
    let key = || Windowed { key: text("key").as_bytes().to_vec(), window };
    // `time_first` and `key_first` are keys of files that only Java reads.
    match list {
        "time_windowed_keys" => {
            let size = (window.end - window.start).unsigned_abs();
            let serde = TimeWindowedSerde::new(Bytes, Duration::from_millis(size));
            same("sink", text("sink"), &hex(&written(&serde, &key())));
            let read = serde.deserialize(&unhex(text("sink"))).unwrap();
            same("read", &format!("{:?}", key()), &format!("{read:?}"));
            for (field, sequence) in [("changelog_seq_0", 0), ("changelog_seq_5", 5)] {
                let logged = Wire::window_changelog_key(text("key").as_bytes(), window.start, sequence);
                same(field, text(field), &hex(&logged));
                let read = Wire::read_window_changelog_key(&logged);
                let expected = Some((text("key").as_bytes().to_vec(), window.start, sequence));
                same("read", &format!("{expected:?}"), &format!("{read:?}"));
            }
        }
        "session_windowed_keys" => {
            let serde = SessionWindowedSerde::new(Bytes);
            same("sink", text("sink"), &hex(&written(&serde, &key())));
            let read = serde.deserialize(&unhex(text("sink"))).unwrap();
            same("read", &format!("{:?}", key()), &format!("{read:?}"));
            let logged = Wire::session_changelog_key(text("key").as_bytes(), window.start, window.end);
            same("changelog", text("changelog"), &hex(&logged));
        }
        "list_value" => {
            let values = entry["values"].as_array().into_iter().flatten();
            let values: Vec<_> = values.map(|value| value.as_str().unwrap_or_default().as_bytes().to_vec()).collect();
            same("bytes", text("bytes"), &hex(&Wire::list_value(&values).unwrap()));
            let read = Wire::read_list_value(&unhex(text("bytes"))).unwrap();
            same("read", &format!("{values:?}"), &format!("{read:?}"));
        }
        "versioned_segment_interval" => {
            let interval = Wire::versioned_segment_interval(number("history_ms"));
            same("segment_ms", &number("segment_ms").to_string(), &interval.to_string());
        }
        _ => {
            let java = versions_of(&unhex(text("bytes")));
            same("versions", &format!("{java:?}"), &format!("{:?}", versions_here(&java)));
        }
    }
}

/// A version: valid from, valid to, value (none: a deletion).
type Version = (i64, i64, Option<Vec<u8>>);

/// The versions in a row of the files that only Java reads, oldest first:
/// `valid to 8 | oldest 8 | (valid from 8 | size 4)*, newest first | value*, oldest first`.
fn versions_of(row: &[u8]) -> Vec<Version> {
    let number = |at: usize| i64::from_be_bytes(row[at..at + 8].try_into().unwrap());
    let (mut valid_to, oldest) = (number(0), number(8));
    let (mut at, mut sizes) = (16, Vec::new());
    while valid_to != oldest {
        let size = i32::from_be_bytes(row[at + 8..at + 12].try_into().unwrap());
        sizes.push((number(at), valid_to, size));
        (valid_to, at) = (number(at), at + 12);
    }
    let mut values = &row[at..];
    let version = |(from, to, size): (i64, i64, i32)| {
        let (value, rest) = values.split_at(usize::try_from(size).unwrap_or(0));
        values = rest;
        (from, to, (size >= 0).then(|| value.to_vec()))
    };
    sizes.into_iter().rev().map(version).collect()
}

/// The same versions, put into a store of ours and read back, one for each time.
fn versions_here(java: &[Version]) -> Vec<Version> {
    let store = Stores::versioned_key_value("versions", Duration::from_millis(1000), Utf8, Bytes);
    let mut builder = TopologyBuilder::new();
    builder.add_source("source", &["in"], Consumed::with(Utf8, Utf8));
    builder.add_processor("keeper", |_| Ok(Keeper), &["source"]).add_state_store(&store, &["keeper"]);
    let mut driver = TopologyTestDriver::new(&builder.build().unwrap()).unwrap();
    let (mut rows, key) = (driver.store(&store).unwrap(), "k".to_owned());
    for (from, _, value) in java {
        rows.put(&mut driver, &key, value.as_ref(), *from).unwrap();
    }
    let end = java.last().unwrap().1;
    rows.put(&mut driver, &key, None, end).unwrap();
    let mut version = |&(from, to, _): &Version| {
        let first = rows.get_as_of(&mut driver, &key, from).unwrap();
        assert_eq!(first, rows.get_as_of(&mut driver, &key, to - 1).unwrap(), "within one version");
        match first {
            Some(found) => (found.timestamp, found.valid_to.unwrap(), Some(found.value)),
            None => (from, to, None),
        }
    };
    java.iter().map(&mut version).collect()
}

struct Keeper;

impl Processor<String, String> for Keeper {
    type KeyOut = ();
    type ValueOut = ();

    fn process(&mut self, _: Record<String, String>, _: &mut ProcessorContext<'_, (), ()>) -> kstreams::Result<()> {
        Ok(())
    }
}

fn written<S: Serde>(serde: &S, item: &S::Item) -> Vec<u8> {
    let mut bytes = Vec::new();
    serde.serialize(item, &mut bytes).unwrap();
    bytes
}
