//! Windowed aggregations.

use std::time::Duration;

use kstreams::{
    EmitStrategy, KGroupedStream, KTable, Materialized, SessionWindowedKStream, SessionWindows, SlidingWindows,
    TimeWindowedKStream, TimeWindows, UnlimitedWindows, Windowed,
};
use serde_json::{Value as Json, json};

use crate::build::text;
use crate::dsl::{Builder, Codecs, Handle, Table, add, codecs_of_aggregate, initial};
use crate::functions;
use crate::outcome::{Stop, inexpressible, missing};
use crate::value::{Codec, Val};

/// A stream by windows, with what its keys are read with.
#[derive(Clone)]
pub(crate) enum Windows {
    Time { stream: TimeWindowedKStream<Val, Val>, codecs: Codecs, size_ms: i64 },
    Session { stream: SessionWindowedKStream<Val, Val>, codecs: Codecs },
}

/// The windows of an op.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Time(TimeWindows, i64),
    Sliding(SlidingWindows, i64),
    Unlimited(UnlimitedWindows),
    Session(SessionWindows),
}

/// A duration in milliseconds. The one place where a negative one is met: Rust's durations are not.
pub(crate) fn duration(millis: &Json) -> Result<Duration, Stop> {
    let millis = millis.as_i64().ok_or_else(|| missing(format!("duration {millis}")))?;
    let negative = |_| inexpressible("a_negative_window");
    u64::try_from(millis).map(Duration::from_millis).map_err(negative)
}

impl Kind {
    pub(crate) fn parse(op: &Json) -> Result<Kind, Stop> {
        let grace = op.get("grace").map(duration).transpose()?;
        let size = |field: &str| -> Result<(Duration, i64), Stop> {
            Ok((duration(&op[field])?, op[field].as_i64().unwrap_or(0)))
        };
        Ok(match text(op, "kind") {
            "time" => {
                let (size, size_ms) = size("size")?;
                let windows = match grace {
                    Some(grace) => TimeWindows::of_size_and_grace(size, grace),
                    None => TimeWindows::of_size_with_no_grace(size),
                };
                let advance = op.get("advance").map(duration).transpose()?;
                Kind::Time(advance.map_or(windows, |advance| windows.advance_by(advance)), size_ms)
            }
            "sliding" => {
                let (diff, diff_ms) = size("diff")?;
                let windows = match grace {
                    Some(grace) => SlidingWindows::of_time_difference_and_grace(diff, grace),
                    None => SlidingWindows::of_time_difference_with_no_grace(diff),
                };
                Kind::Sliding(windows, diff_ms)
            }
            "session" => {
                let (gap, _) = size("gap")?;
                Kind::Session(match grace {
                    Some(grace) => SessionWindows::of_inactivity_gap_and_grace(gap, grace),
                    None => SessionWindows::of_inactivity_gap_with_no_grace(gap),
                })
            }
            "unlimited" => Kind::Unlimited(UnlimitedWindows::of().start_on(op["start"].as_i64().unwrap_or(0))),
            other => return Err(missing(format!("windows {other}"))),
        })
    }

    /// How the keys of its results are read.
    pub(crate) fn codec(self, inner: Codec) -> Codec {
        match self {
            Kind::Time(_, size) | Kind::Sliding(_, size) => Codec::TimeWindowed(Box::new(inner), size),
            Kind::Unlimited(_) => Codec::TimeWindowed(Box::new(inner), i64::MAX),
            Kind::Session(_) => Codec::SessionWindowed(Box::new(inner)),
        }
    }
}

pub(crate) fn window(grouped: KGroupedStream<Val, Val>, codecs: Codecs, op: &Json) -> Result<Handle, Stop> {
    let time =
        |stream: TimeWindowedKStream<Val, Val>, size_ms| Windows::Time { stream, codecs: codecs.clone(), size_ms };
    let windows = match Kind::parse(op)? {
        Kind::Time(windows, size) => time(grouped.windowed_by(windows), size),
        Kind::Sliding(windows, size) => time(grouped.windowed_by(windows), size),
        Kind::Unlimited(windows) => time(grouped.windowed_by(windows), i64::MAX),
        Kind::Session(windows) => Windows::Session { stream: grouped.windowed_by(windows), codecs },
    };
    Ok(Handle::Windows(match (op["emit"].as_str(), windows) {
        (None, windows) => windows,
        (Some("close"), Windows::Time { stream, codecs, size_ms }) => {
            Windows::Time { stream: stream.emit_strategy(EmitStrategy::OnWindowClose), codecs, size_ms }
        }
        (Some("close"), Windows::Session { stream, codecs }) => {
            Windows::Session { stream: stream.emit_strategy(EmitStrategy::OnWindowClose), codecs }
        }
        (Some(other), _) => return Err(missing(format!("emit {other}"))),
    }))
}

pub(crate) fn aggregate(builder: &mut Builder<'_>, windows: Windows, op: &Json) -> Result<Handle, Stop> {
    let (table, (key, value)) = match windows {
        Windows::Time { stream, codecs, size_ms } => {
            let (inner, value) = codecs_of_aggregate(op, codecs)?;
            let rows = windowed_store(builder, op, &(inner.clone(), value.clone()))?;
            let stream = op["name"].as_str().map_or(stream.clone(), |name| stream.clone().named(name));
            (of_time(stream, rows, op)?, (Codec::TimeWindowed(Box::new(inner), size_ms), value))
        }
        Windows::Session { stream, codecs } => {
            let (inner, value) = codecs_of_aggregate(op, codecs)?;
            let rows = windowed_store(builder, op, &(inner.clone(), value.clone()))?;
            let stream = op["name"].as_str().map_or(stream.clone(), |name| stream.clone().named(name));
            (of_sessions(stream, rows, op)?, (Codec::SessionWindowed(Box::new(inner)), value))
        }
    };
    Ok(Handle::WindowedTable(Table { table, codecs: (key, value) }))
}

fn of_time(
    stream: TimeWindowedKStream<Val, Val>,
    rows: Materialized<Val, Val>,
    op: &Json,
) -> Result<KTable<Windowed<Val>, Val>, Stop> {
    if text(op, "op") == "reduce" {
        let reduce = functions::reducer(&op["reducer"])?;
        return Ok(stream.reduce(move |row, value| reduce(&row, &value).row(), rows));
    }
    let (initial, add) = (initial(op)?, add(op, "agg")?);
    Ok(stream.aggregate(move || initial.clone(), move |key, value, row| add(key, &value, &row).row(), rows))
}

fn of_sessions(
    stream: SessionWindowedKStream<Val, Val>,
    rows: Materialized<Val, Val>,
    op: &Json,
) -> Result<KTable<Windowed<Val>, Val>, Stop> {
    if text(op, "op") == "reduce" {
        let reduce = functions::reducer(&op["reducer"])?;
        return Ok(stream.reduce(move |row, value| reduce(&row, &value).row(), rows));
    }
    let (initial, add, merge) = (initial(op)?, add(op, "agg")?, merger(op)?);
    Ok(stream.aggregate(
        move || initial.clone(),
        move |key, value, row| add(key, &value, &row).row(),
        // A null is a value like any other until the row is written.
        move |_, one, other| Some(merge(&one, &other)),
        rows,
    ))
}

/// What makes one row of those of two sessions.
pub(crate) fn merger(op: &Json) -> Result<functions::Two, Stop> {
    match text(op, "op") {
        "count" => functions::merger(&json!("sum")),
        _ => functions::merger(&op["merger"]),
    }
}

/// The store of a windowed table. An explicit one says its retention and the size of its windows.
pub(crate) fn windowed_store(
    builder: &mut Builder<'_>,
    op: &Json,
    codecs: &Codecs,
) -> Result<Materialized<Val, Val>, Stop> {
    let rows = builder.materialized(op, codecs)?;
    match op["materialized"].get("retention_ms") {
        Some(retention) => Ok(rows.with_retention(duration(retention)?)),
        None => Ok(rows),
    }
}
