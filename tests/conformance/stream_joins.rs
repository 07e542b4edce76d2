//! Joins of streams with streams and with tables.

use std::time::Duration;

use kstreams::{JoinWindows, Joined, StoreBuilder, StreamJoined, WindowStore};
use serde_json::Value as Json;

use crate::build::text;
use crate::dsl::{Builder, Handle, Stream, Table};
use crate::functions;
use crate::key::Key;
use crate::outcome::{Stop, inexpressible, missing};
use crate::value::{Codec, Val};

pub(crate) fn stream_join(builder: &mut Builder<'_>, op: &Json) -> Result<Handle, Stop> {
    match (builder.handle(text(op, "left"))?, builder.handle(text(op, "right"))?) {
        (Handle::Stream(left), Handle::Stream(right)) => join_stream(builder, left, right, op),
        (Handle::WindowedStream(left), Handle::WindowedStream(right)) => join_stream(builder, left, right, op),
        _ => Err(missing(format!("op {op}"))),
    }
}

fn join_stream<K: Key>(builder: &Builder<'_>, left: Stream<K>, right: Stream<K>, op: &Json) -> Result<Handle, Stop> {
    let (left, right) = (left.stream, right.stream);
    let windows = windows(&op["window"])?;
    let joined = stream_joined::<K>(builder, op)?;
    let joiner = functions::joiner(&op["joiner"])?;
    let stream = match text(op, "type") {
        "inner" => left.join_stream_with_key(right, move |key: &K, l, r| joiner(&key.val(), l, r), windows, joined),
        "left" => {
            let joiner = move |key: &K, l: &Val, r: Option<&Val>| joiner(&key.val(), l, r.unwrap_or(&Val::Null));
            left.left_join_stream_with_key(right, joiner, windows, joined)
        }
        "outer" => {
            let joiner = move |key: &K, l: Option<&Val>, r: Option<&Val>| {
                joiner(&key.val(), l.unwrap_or(&Val::Null), r.unwrap_or(&Val::Null))
            };
            left.outer_join_stream_with_key(right, joiner, windows, joined)
        }
        other => return Err(missing(format!("{other} stream join"))),
    };
    Ok(K::stream(Stream { stream, codecs: (Codec::of(&op["key"])?, Codec::Text) }))
}

fn windows(spec: &Json) -> Result<JoinWindows, Stop> {
    let (difference, grace) = (millis(&spec["diff"])?, millis(&spec["grace"])?);
    let mut windows = JoinWindows::of_time_difference_and_grace(difference, grace);
    if let Some(before) = spec["before"].as_i64() {
        windows = windows.before_ms(before);
    }
    if let Some(after) = spec["after"].as_i64() {
        windows = windows.after_ms(after);
    }
    Ok(windows)
}

/// Nothing is zero.
fn millis(millis: &Json) -> Result<Duration, Stop> {
    let millis = millis.as_i64().unwrap_or(0);
    millis.try_into().map(Duration::from_millis).map_err(|_| inexpressible("a_negative_window"))
}

fn stream_joined<K: Key>(builder: &Builder<'_>, op: &Json) -> Result<StreamJoined<K, Val, Val>, Stop> {
    let [key, value, other] = [&op["key"], &op["value"], &op["other_value"]].map(Codec::of);
    let (key, value, other) = (key?, value?, other?);
    let mut joined = StreamJoined::with(K::codec(&key)?, value.clone(), other.clone());
    if let Some(name) = op["name"].as_str() {
        joined = joined.named(name);
    }
    if let Some(name) = op["store_name"].as_str() {
        joined = joined.with_store_name(name);
    }
    if op["logging"] == Json::Bool(false) {
        joined = joined.without_logging();
    }
    let of_config = builder.case["config"]["dsl.store.suppliers"].as_str();
    if op["store_type"].as_str().or(of_config) == Some("in_memory") {
        joined = joined.in_memory();
    }
    if let Some(spec) = op.get("this_store") {
        joined = joined.with_this_store(&join_store(spec, &key, &value)?);
    }
    if let Some(spec) = op.get("other_store") {
        joined = joined.with_other_store(&join_store(spec, &key, &other)?);
    }
    Ok(joined)
}

fn join_store<K: Key>(spec: &Json, key: &Codec, value: &Codec) -> Result<StoreBuilder<WindowStore<K, Val>>, Stop> {
    let (retention, size) = (millis(&spec["retention_ms"])?, millis(&spec["window_ms"])?);
    let duplicates = spec["retain_duplicates"].as_bool().unwrap_or(true);
    let (key, value) = (K::codec(key)?, value.clone());
    Ok(match spec["impl"].as_str() {
        Some("in_memory") => {
            kstreams::Stores::in_memory_window(text(spec, "name"), retention, size, duplicates, key, value)
        }
        None | Some("persistent") => {
            kstreams::Stores::window(text(spec, "name"), retention, size, duplicates, key, value)
        }
        Some(other) => return Err(missing(format!("join store {other}"))),
    })
}

pub(crate) fn stream_table_join(builder: &mut Builder<'_>, op: &Json) -> Result<Handle, Stop> {
    match (builder.handle(text(op, "left"))?, builder.handle(text(op, "right"))?) {
        (Handle::Stream(left), Handle::Table(right)) => join_table(left, right, op),
        (Handle::WindowedStream(left), Handle::WindowedTable(right)) => join_table(left, right, op),
        _ => Err(missing(format!("op {op}"))),
    }
}

fn join_table<K: Key>(left: Stream<K>, right: Table<K>, op: &Json) -> Result<Handle, Stop> {
    let (stream, right) = (left.stream, right.table);
    let mut joined = Joined::with(K::codec(&Codec::of(&op["key"])?)?, Codec::of(&op["value"])?);
    if let Some(name) = op["name"].as_str() {
        joined = joined.named(name);
    }
    if op.get("grace").is_some() {
        joined = joined.with_grace_period(millis(&op["grace"])?);
    }
    let joiner = functions::joiner(&op["joiner"])?;
    let stream = match text(op, "type") {
        "inner" => stream.join_with_key(&right, move |key: &K, left, right| joiner(&key.val(), &left, &right), joined),
        "left" => stream.left_join_with_key(
            &right,
            move |key: &K, left, right| joiner(&key.val(), &left, &right.unwrap_or(Val::Null)),
            joined,
        ),
        other => return Err(missing(format!("{other} stream-table join"))),
    };
    Ok(K::stream(Stream { stream, codecs: (Codec::of(&op["key"])?, Codec::Text) }))
}
