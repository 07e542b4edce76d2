//! Formats of window, session, list and versioned stores.

use std::time::Duration;

use kstreams::{Bytes, Serde, SessionWindowedSerde, TimeWindowedSerde, Window, Windowed, Wire};
use serde_json::Value as Json;

use crate::outcome::{Stop, inexpressible};
use crate::value::{hex, unhex};

pub(crate) const LISTS: &[&str] =
    &["time_windowed_keys", "session_windowed_keys", "list_value", "versioned_segment_interval", "versioned_segment"];

pub(crate) fn check(list: &str, entry: &Json, mut same: impl FnMut(&str, &str, &str)) -> Result<(), Stop> {
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
        _ => return Err(inexpressible("rows of files that only Java reads: ours has a row for each version")),
    }
    Ok(())
}

fn written<S: Serde>(serde: &S, item: &S::Item) -> Vec<u8> {
    let mut bytes = Vec::new();
    serde.serialize(item, &mut bytes).unwrap();
    bytes
}
