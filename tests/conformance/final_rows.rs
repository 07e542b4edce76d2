//! What windowed and versioned stores hold at the end of a case (section 6 of the format).

use kstreams::{Bytes, TopologyTestDriver, Windowed};
use serde_json::{Value as Json, json};

use crate::build::text;
use crate::compare::{Differences, lossy, same_bytes};
use crate::outcome::{Stop, missing};
use crate::value::hex;

/// Key, value and timestamp of a row.
type Row = (Windowed<Vec<u8>>, Vec<u8>, Option<i64>);

/// Compares the rows of a window or session store as a set.
pub(crate) fn windowed(
    name: &str,
    store: &Json,
    driver: &mut TopologyTestDriver,
    differences: &mut Differences,
) -> Result<(), Stop> {
    let expected = store["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let headers = |row: &&Json| row.as_array().and_then(|row| row.last()).is_some_and(|last| !is_without_headers(last));
    if text(store, "type").ends_with("_headers") && expected.iter().any(|row| headers(&row)) {
        return Err(missing("headers in rows"));
    }
    let rows = match rows(name, text(store, "type"), driver) {
        Ok(rows) => rows,
        Err(error) => {
            differences.push(format!("store {name}: {}", error.report()));
            return Ok(());
        }
    };
    let mut left: Vec<&Row> = rows.iter().collect();
    for row in expected {
        match left.iter().position(|actual| same_row(row, actual)) {
            Some(place) => drop(left.remove(place)),
            None => differences.push(format!("store {name}: expected row {row}")),
        }
    }
    for (key, value, timestamp) in left {
        let window = key.window;
        let row = json!([{"key": lossy(&key.key), "start": window.start, "end": window.end}, lossy(value), timestamp]);
        differences.push(format!("store {name}: unexpected row {row}"));
    }
    Ok(())
}

fn rows(name: &str, kind: &str, driver: &mut TopologyTestDriver) -> kstreams::Result<Vec<Row>> {
    if kind.starts_with("session") {
        let rows = driver.session_store(name, Bytes, Bytes)?.all().collect(driver)?;
        return Ok(rows.into_iter().map(|(key, value)| (key, value, None)).collect());
    }
    if kind.starts_with("timestamped_window")
        && let Ok(store) = driver.timestamped_window_store(name, Bytes, Bytes)
    {
        let rows = store.all().collect(driver)?;
        return Ok(rows.into_iter().map(|(key, row)| (key, row.value, Some(row.timestamp))).collect());
    }
    // Java shows the windows of a stream-stream join as rows with the timestamp -1.
    let rows = driver.window_store(name, Bytes, Bytes)?.all().collect(driver)?;
    Ok(rows.into_iter().map(|(key, value)| (key, value, None)).collect())
}

fn same_row(expected: &Json, (key, value, timestamp): &Row) -> bool {
    let window = &expected[0];
    same_bytes(&window["key"], &key.key)
        && window["start"] == json!(key.window.start)
        && window["end"] == json!(key.window.end)
        && same_bytes(&expected[1], value)
        && timestamp.is_none_or(|timestamp| expected[2].as_i64() == Some(timestamp))
}

fn is_without_headers(last: &Json) -> bool {
    last.as_str().is_none_or(str::is_empty)
}

/// A question to a versioned store, and the recorded answer.
pub(crate) fn query(query: &Json, driver: &mut TopologyTestDriver, differences: &mut Differences) {
    let key = match &query["key"] {
        Json::String(key) => key.as_bytes().to_vec(),
        Json::Number(number) => number.as_i64().unwrap_or_default().to_be_bytes().to_vec(),
        other => crate::value::unhex(text(other, "hex")),
    };
    let found =
        driver.versioned_key_value_store(text(query, "store"), Bytes, Bytes).and_then(|mut store| match query["as_of"]
            .as_i64()
        {
            Some(as_of) => store.get_as_of(driver, &key, as_of),
            None => store.get(driver, &key),
        });
    let expected = &query["result"];
    let same = match &found {
        Ok(None) => expected.is_null(),
        Ok(Some(version)) => {
            same_bytes(&expected["value"], &version.value)
                && expected["timestamp"] == json!(version.timestamp)
                && expected["valid_to"].as_i64().is_none_or(|valid_to| version.valid_to == Some(valid_to))
        }
        Err(_) => false,
    };
    if !same {
        let found =
            found.map(|version| version.map(|version| (hex(&version.value), version.timestamp, version.valid_to)));
        differences.push(format!("query {query}: but was {found:?}"));
    }
}
