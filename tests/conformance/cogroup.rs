//! Aggregations of several grouped streams into one table.

use kstreams::{CogroupedKStream, SessionWindowedCogroupedKStream, TimeWindowedCogroupedKStream, Windowed};
use serde_json::Value as Json;

use crate::build::text;
use crate::dsl::{Builder, Codecs, Handle, Table, codecs_of_materialized, initial};
use crate::functions;
use crate::key::Key;
use crate::outcome::{Stop, missing};
use crate::value::{Codec, Val};
use crate::windowed::{Kind, merger, windowed_store};

/// A cogroup as far as it has been described. It is built at the end: in the library a stream is added only once.
#[derive(Clone)]
pub(crate) struct Cogrouped {
    streams: Vec<(String, Json)>,
    key: Codec,
    windows: Option<Json>,
}

pub(crate) fn cogroup(builder: &mut Builder<'_>, op: &Json) -> Result<Handle, Stop> {
    let input = text(op, "in");
    let cogrouped = match builder.handle(input)? {
        Handle::Cogrouped(mut cogrouped) => {
            cogrouped.streams.push((text(op, "with").to_owned(), op["agg"].clone()));
            cogrouped
        }
        Handle::Grouped(_, (key, _)) | Handle::WindowedGrouped(_, (key, _)) => {
            Cogrouped { streams: vec![(input.to_owned(), op["agg"].clone())], key, windows: None }
        }
        _ => return Err(missing(format!("cogroup of {input}"))),
    };
    Ok(Handle::Cogrouped(cogrouped))
}

pub(crate) fn aggregate(builder: &mut Builder<'_>, mut cogrouped: Cogrouped, op: &Json) -> Result<Handle, Stop> {
    if text(op, "op") == "window" {
        cogrouped.windows = Some(op.clone());
        return Ok(Handle::Cogrouped(cogrouped));
    }
    let inherited: Codecs = (cogrouped.key.clone(), Codec::Text);
    let (inner, value) = codecs_of_materialized(op, inherited)?;
    let codecs = (inner.clone(), value.clone());
    let Some(windows) = &cogrouped.windows else {
        let has_windows = matches!(inner, Codec::TimeWindowed(..) | Codec::SessionWindowed(_));
        return match has_windows {
            true => table::<Windowed<Val>>(builder, &cogrouped, op, codecs),
            false => table::<Val>(builder, &cogrouped, op, codecs),
        };
    };
    let streams = built::<Val>(builder, &cogrouped)?;
    let initial = initial(op)?;
    let name = op["name"].as_str();
    let kind = Kind::parse(windows)?;
    let rows = windowed_store(builder, op, &codecs)?;
    let of_time = |windows: TimeWindowedCogroupedKStream<Val, Val>| match name {
        Some(name) => windows.named(name),
        None => windows,
    };
    let table = match kind {
        Kind::Time(windows, _) => of_time(streams.windowed_by(windows)).aggregate(move || initial.clone(), rows),
        Kind::Sliding(windows, _) => of_time(streams.windowed_by(windows)).aggregate(move || initial.clone(), rows),
        Kind::Unlimited(windows) => of_time(streams.windowed_by(windows)).aggregate(move || initial.clone(), rows),
        Kind::Session(windows) => {
            let merge = merger(op)?;
            let windows: SessionWindowedCogroupedKStream<Val, Val> = streams.windowed_by(windows);
            let windows = match name {
                Some(name) => windows.named(name),
                None => windows,
            };
            windows.aggregate(move || initial.clone(), move |_, one, other| Some(merge(&one, &other)), rows)
        }
    };
    Ok(Handle::WindowedTable(Table { table, codecs: (kind.codec(inner), value) }))
}

/// Without windows.
fn table<K: Key>(builder: &mut Builder<'_>, cogrouped: &Cogrouped, op: &Json, codecs: Codecs) -> Result<Handle, Stop> {
    let streams = built::<K>(builder, cogrouped)?;
    let initial = initial(op)?;
    let rows = builder.materialized(op, &codecs)?;
    let streams = match op["name"].as_str() {
        Some(name) => streams.named(name),
        None => streams,
    };
    Ok(K::table(Table { table: streams.aggregate(move || initial.clone(), rows), codecs }))
}

fn built<K: Key>(builder: &Builder<'_>, cogrouped: &Cogrouped) -> Result<CogroupedKStream<K, Val>, Stop> {
    let mut built: Option<CogroupedKStream<K, Val>> = None;
    for (id, function) in &cogrouped.streams {
        let grouped = K::grouped_of(builder, id)?;
        let add = functions::aggregator(function)?;
        let fold = move |key: &K, value: Val, row: Val| add(&key.val(), &value, &row).row();
        built = Some(match built {
            Some(built) => built.cogroup(grouped, fold),
            None => grouped.cogroup(fold),
        });
    }
    built.ok_or_else(|| missing("a cogroup of nothing"))
}
