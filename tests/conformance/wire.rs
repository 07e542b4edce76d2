//! Byte formats and pure functions: each list of `wire.json` is a case (section 9 of the format).

use kstreams::{Headers, Wire};
use serde_json::Value as Json;

use crate::compare::Differences;
use crate::formats_groups;
use crate::formats_joins;
use crate::formats_stores;
use crate::outcome::{Outcome, Stop, missing};
use crate::value::{hex, unhex};

/// Every list of the file with its outcome.
pub(crate) fn run(file: &Json) -> Vec<(String, Outcome)> {
    let lists = file.as_object().into_iter().flatten();
    let lists = lists.filter_map(|(name, list)| Some((name, list.as_array()?)));
    lists.map(|(name, list)| (format!("wire/{name}"), outcome(name, list))).collect()
}

fn outcome(name: &str, list: &[Json]) -> Outcome {
    let results: Result<Vec<Differences>, Stop> = list.iter().map(|entry| check(name, entry)).collect();
    match results.map(|results| results.concat()) {
        Ok(differences) if differences.is_empty() => Outcome::Passed,
        Ok(differences) => Outcome::Failed(differences),
        Err(stop) => stop.into(),
    }
}

fn check(list: &str, entry: &Json) -> Result<Differences, Stop> {
    let text = |field: &str| entry[field].as_str().unwrap_or_default();
    let number = |field: &str| entry[field].as_i64().unwrap_or_default();
    let mut differences = Differences::new();
    let mut same = |what: &str, expected: &str, actual: &str| {
        if expected != actual {
            differences.push(format!("{entry}: {what}: expected {expected}, but was {actual}"));
        }
    };
    match list {
        "murmur2" => {
            let key = unhex(text("key"));
            same("hash", &number("hash").to_string(), &Wire::murmur2(&key).to_string());
            for (count, partition) in entry["partitions"].as_object().into_iter().flatten() {
                let actual = Wire::partition(&key, count.parse().unwrap());
                same(&format!("of {count}"), &partition.to_string(), &actual.to_string());
            }
        }
        "value_and_timestamp" => {
            let row = Wire::value_and_timestamp(text("value").into(), number("timestamp")).unwrap();
            same("bytes", text("bytes"), &hex(&row));
        }
        "changed" => {
            // With `upgrade.from` 3.4 a change is written otherwise; that setting is not there.
            let part = |field: &str| entry[field].as_str().map(|text| text.as_bytes().to_vec());
            let change = Wire::changed(part("old"), part("new")).unwrap();
            same("bytes", text("bytes"), &hex(&change));
            let read = Wire::read_changed(&unhex(text("bytes"))).unwrap();
            same("read", &format!("{:?}", (part("old"), part("new"))), &format!("{read:?}"));
        }
        "time_windows_for" => {
            let windows = Wire::time_windows_for(number("size") as u64, number("advance") as u64, number("timestamp"));
            let starts: Vec<_> = entry["starts"].as_array().into_iter().flatten().filter_map(Json::as_i64).collect();
            same("starts", &format!("{starts:?}"), &format!("{windows:?}"));
        }
        "offset_metadata" => {
            let time = number("partition_time");
            let stores = entry["processor_metadata"].as_object().into_iter().flatten();
            let stores: Vec<_> = stores.map(|(name, time)| (name.as_str(), time.as_i64().unwrap_or(0))).collect();
            same("encoded", text("encoded"), &Wire::offset_metadata(time, &stores));
            let stores: Vec<_> = stores.iter().map(|(name, time)| ((*name).to_owned(), *time)).collect();
            let read = Wire::read_offset_metadata(text("encoded"));
            same("read", &format!("{:?}", (time, stores)), &format!("{read:?}"));
        }
        list if formats_groups::LISTS.contains(&list) => formats_groups::check(list, entry, &mut same),
        list if formats_stores::LISTS.contains(&list) => formats_stores::check(list, entry, &mut same),
        list if formats_joins::LISTS.contains(&list) => formats_joins::check(list, entry, &mut same),
        "join_side_key" => {
            let is_left = text("side") == "left";
            same(
                "key",
                text("key_bytes"),
                &hex(&Wire::join_side_key(number("timestamp"), is_left, text("key").as_bytes())),
            );
            same("value", text("value_bytes"), &hex(&Wire::join_side_value(is_left, text("value").as_bytes())));
        }
        "buffer_value" => {
            let rows = ["prior", "old", "new"].map(|field| entry[field].as_str().map(|text| text.as_bytes().to_vec()));
            let mut headers = Headers::new();
            for header in entry["headers"].as_array().into_iter().flatten() {
                headers.add(header[0].as_str().unwrap_or_default(), header[1].as_str().unwrap_or_default());
            }
            let at = (text("topic"), number("partition") as i32, number("offset"));
            let mut bytes = Wire::buffer_value(number("timestamp"), at, headers, &rows).unwrap();
            let time = number("buffer_time").to_be_bytes().to_vec();
            bytes.extend_from_slice(&time);
            same("bytes", text("bytes"), &hex(&bytes));
            let read = Wire::read_buffer_value(&unhex(text("bytes"))).unwrap();
            same("read", &format!("{:?}", (rows, time)), &format!("{read:?}"));
        }
        other => return Err(missing(format!("format {other}"))),
    }
    Ok(differences)
}
