//! Aggregations of grouped streams and tables.

use kstreams::{KGroupedStream, KGroupedTable};
use serde_json::{Value as Json, json};

use super::{Builder, Codecs, Handle, Table, codecs_of_materialized};
use crate::build::text;
use crate::functions;
use crate::key::Key;
use crate::outcome::{Stop, missing};
use crate::value::{Codec, Val};

impl Builder<'_> {
    pub(super) fn aggregate<K: Key>(
        &mut self,
        grouped: KGroupedStream<K, Val>,
        inherited: Codecs,
        op: &Json,
    ) -> Result<Handle, Stop> {
        let codecs = codecs_of_aggregate(op, inherited)?;
        let rows = self.materialized(op, &codecs)?;
        let grouped = match op["name"].as_str() {
            Some(name) => grouped.named(name),
            None => grouped,
        };
        let table = if text(op, "op") == "reduce" {
            let reduce = functions::reducer(&op["reducer"])?;
            grouped.reduce(move |row, value| reduce(&row, &value).row(), rows)
        } else {
            let (initial, add) = (initial(op)?, add(op, "agg")?);
            grouped.aggregate(
                move || initial.clone(),
                move |key: &K, value, row| add(&key.val(), &value, &row).row(),
                rows,
            )
        };
        Ok(K::table(Table { table, codecs }))
    }

    pub(super) fn aggregate_table(
        &mut self,
        grouped: KGroupedTable<Val, Val>,
        inherited: Codecs,
        op: &Json,
    ) -> Result<Handle, Stop> {
        let codecs = codecs_of_aggregate(op, inherited)?;
        let rows = self.materialized(op, &codecs)?;
        let grouped = match op["name"].as_str() {
            Some(name) => grouped.named(name),
            None => grouped,
        };
        let table = if text(op, "op") == "reduce" {
            let (add, sub) = (functions::reducer(&op["add"])?, functions::reducer(&op["sub"])?);
            grouped.reduce(move |row, value| add(&row, &value).row(), move |row, value| sub(&row, &value).row(), rows)
        } else {
            let (initial, add, sub) = (initial(op)?, add(op, "add")?, add(op, "sub")?);
            grouped.aggregate(
                move || initial.clone(),
                move |key, value, row| add(key, &value, &row).row(),
                move |key, value, row| sub(key, &value, &row).row(),
                rows,
            )
        };
        Ok(Handle::Table(Table { table, codecs }))
    }
}

pub(crate) fn codecs_of_aggregate(op: &Json, inherited: Codecs) -> Result<Codecs, Stop> {
    let value = match text(op, "op") {
        "count" => Codec::Long,
        "reduce" => inherited.1,
        _ => Codec::Text,
    };
    codecs_of_materialized(op, (inherited.0, value))
}

/// What a row begins with.
pub(crate) fn initial(op: &Json) -> Result<Val, Stop> {
    match text(op, "op") {
        "count" => Ok(Val::Long(0)),
        "aggregate" => functions::initial(&op["init"]),
        other => Err(missing(format!("initial value of {other}"))),
    }
}

/// What adds a value to a row, or with the field `sub` takes it away.
pub(crate) fn add(op: &Json, field: &str) -> Result<functions::Three, Stop> {
    match (text(op, "op"), field) {
        ("count", "sub") => functions::aggregator(&json!("minus_one")),
        ("count", _) => functions::aggregator(&json!("plus_one")),
        _ => functions::aggregator(&op[field]),
    }
}
