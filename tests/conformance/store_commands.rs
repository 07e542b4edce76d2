//! Commands to stores, and their answers (section 8 of the format).

use std::ops::Bound;

use kstreams::{Error, KeyValueStore, Record, Result, StoreContext, TimestampedKeyValueStore, ValueAndTimestamp};

use crate::stores::show_row;
use crate::value::{Codec, Val};

pub(crate) fn kv<C: StoreContext>(
    store: &mut KeyValueStore<Val, Val>,
    ctx: &mut C,
    record: &Record<Val, Val>,
) -> Result<String> {
    let text = record.value.show();
    let (command, rest) = text.split_once(' ').unwrap_or((&text, ""));
    let args: Vec<&str> = rest.split_whitespace().collect();
    let key = &record.key;
    Ok(match (command, args.as_slice()) {
        ("put", _) => store.put(ctx, key, &argument(rest)).map(|()| "ok".to_owned())?,
        ("put_if_absent", _) => shown(store.put_if_absent(ctx, key, &argument(rest))?),
        ("put_all", pairs) => {
            let pairs = pairs.iter().filter_map(|pair| pair.split_once('='));
            let rows: Vec<_> = pairs.map(|(key, value)| (Val::text(key), argument(value))).collect();
            store.put_all(ctx, rows).map(|()| "ok".to_owned())?
        }
        ("get", _) => shown(store.get(ctx, key)?),
        ("delete", _) => shown(store.delete(ctx, key)?),
        ("range", [from, to]) => rows(&store.range((bound(from), bound(to)))?.collect(ctx)?, Val::show),
        ("reverse_range", [from, to]) => rows(&store.reverse_range((bound(from), bound(to)))?.collect(ctx)?, Val::show),
        ("all", _) => rows(&store.all().collect(ctx)?, Val::show),
        ("reverse_all", _) => rows(&store.reverse_all().collect(ctx)?, Val::show),
        ("prefix", [prefix]) => rows(&store.prefix_scan(&Val::text(*prefix), &Codec::Text)?.collect(ctx)?, Val::show),
        ("count", _) => store.approximate_num_entries(ctx).to_string(),
        _ => return Err(Error::user(format!("unknown command {text}"))),
    })
}

pub(crate) fn timestamped_kv<C: StoreContext>(
    store: &mut TimestampedKeyValueStore<Val, Val>,
    ctx: &mut C,
    record: &Record<Val, Val>,
) -> Result<String> {
    let text = record.value.show();
    let (command, rest) = text.split_once(' ').unwrap_or((&text, ""));
    let args: Vec<&str> = rest.split_whitespace().collect();
    let key = &record.key;
    let row = |value: &str, timestamp: &str| {
        let timestamp = timestamp.parse().map_err(|error| Error::user(format!("{text}: {error}")))?;
        Ok::<_, Error>(ValueAndTimestamp { value: argument(value), timestamp })
    };
    let shown = |row: Option<ValueAndTimestamp<Val>>| row.map_or("null".to_owned(), |row| show_row(&row));
    Ok(match (command, args.as_slice()) {
        ("put", [value, timestamp]) => store.put(ctx, key, &row(value, timestamp)?).map(|()| "ok".to_owned())?,
        ("put_if_absent", [value, timestamp]) => shown(store.put_if_absent(ctx, key, &row(value, timestamp)?)?),
        ("get", _) => shown(store.get(ctx, key)?),
        ("delete", _) => shown(store.delete(ctx, key)?),
        ("all", _) => rows(&store.all().collect(ctx)?, show_row),
        ("range", [from, to]) => rows(&store.range((bound(from), bound(to)))?.collect(ctx)?, show_row),
        _ => return Err(Error::user(format!("unknown command {text}"))),
    })
}

pub(crate) fn argument(text: &str) -> Val {
    if text == "null" { Val::Null } else { Val::text(text) }
}

pub(crate) fn bound(text: &str) -> Bound<Val> {
    if text == "-" { Bound::Unbounded } else { Bound::Included(Val::text(text)) }
}

pub(crate) fn shown(value: Option<Val>) -> String {
    value.map_or("null".to_owned(), |value| value.show())
}

fn rows<V>(rows: &[(Val, V)], show: impl Fn(&V) -> String) -> String {
    let rows: Vec<_> = rows.iter().map(|(key, value)| format!("{}={}", key.show(), show(value))).collect();
    format!("[{}]", rows.join(" "))
}
