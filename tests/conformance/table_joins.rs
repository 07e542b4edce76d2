//! Joins of tables, by key and by foreign key.

use kstreams::TableJoined;
use serde_json::Value as Json;

use crate::build::text;
use crate::dsl::{Builder, Handle, Table, codecs_of_materialized, named_table};
use crate::functions;
use crate::key::Key;
use crate::outcome::{Stop, missing};
use crate::value::{Codec, Val};

/// No row is a null to the functions of the cases.
fn val(row: Option<Val>) -> Val {
    row.unwrap_or(Val::Null)
}

pub(crate) fn table_join(builder: &mut Builder<'_>, op: &Json) -> Result<Handle, Stop> {
    match (builder.handle(text(op, "left"))?, builder.handle(text(op, "right"))?) {
        (Handle::Table(left), Handle::Table(right)) => join(builder, left, right, op),
        (Handle::WindowedTable(left), Handle::WindowedTable(right)) => join(builder, left, right, op),
        _ => Err(missing(format!("op {op}"))),
    }
}

fn join<K: Key>(builder: &mut Builder<'_>, left: Table<K>, right: Table<K>, op: &Json) -> Result<Handle, Stop> {
    let (Table { table, codecs }, other) = (left, right.table);
    let table = named_table(table, op);
    let function = functions::joiner(&op["joiner"])?;
    let joiner = move |left: Val, right: Val| function(&Val::Null, &left, &right).row();
    let codecs = codecs_of_materialized(op, (codecs.0, Codec::Text))?;
    let stored = match op.get("materialized") {
        Some(_) => Some(builder.materialized(op, &codecs)?),
        None => None,
    };
    let table = match (text(op, "type"), stored) {
        ("inner", None) => table.join_filter_map(&other, joiner),
        ("inner", Some(rows)) => table.join_materialized(&other, joiner, rows),
        ("left", None) => table.left_join_filter_map(&other, move |l, r| joiner(l, val(r))),
        ("left", Some(rows)) => table.left_join_materialized(&other, move |l, r| joiner(l, val(r)), rows),
        ("outer", None) => table.outer_join_filter_map(&other, move |l, r| joiner(val(l), val(r))),
        ("outer", Some(rows)) => table.outer_join_materialized(&other, move |l, r| joiner(val(l), val(r)), rows),
        (other, _) => return Err(missing(format!("{other} join of tables"))),
    };
    Ok(K::table(Table { table, codecs }))
}

pub(crate) fn fk_join(builder: &mut Builder<'_>, op: &Json) -> Result<Handle, Stop> {
    let right = builder.table_of(text(op, "right"))?;
    match builder.handle(text(op, "left"))? {
        Handle::Table(left) => foreign_join(builder, left, right, op),
        Handle::WindowedTable(left) => foreign_join(builder, left, right, op),
        _ => Err(missing(format!("op {op}"))),
    }
}

fn foreign_join<K: Key>(
    builder: &mut Builder<'_>,
    left: Table<K>,
    right: Table<Val>,
    op: &Json,
) -> Result<Handle, Stop> {
    let (Table { table, codecs }, other) = (left, right.table);
    let select = functions::key_selector(&op["fk"])?;
    let foreign_key = move |key: &K, row: &Val| select(&key.val(), row);
    let function = functions::joiner(&op["joiner"])?;
    let joiner = move |left: Val, right: Val| function(&Val::Null, &left, &right).row();
    let joined = op["name"].as_str().map_or_else(TableJoined::default, TableJoined::named);
    let codecs = codecs_of_materialized(op, (codecs.0, Codec::Text))?;
    let rows = builder.materialized(op, &codecs)?;
    let table = match text(op, "type") {
        "inner" => table.join_foreign_key_materialized(&other, foreign_key, joiner, joined, rows),
        "left" => {
            let joiner = move |left, right| joiner(left, val(right));
            table.left_join_foreign_key_materialized(&other, foreign_key, joiner, joined, rows)
        }
        other => return Err(missing(format!("{other} join of tables on a foreign key"))),
    };
    Ok(K::table(Table { table, codecs }))
}
