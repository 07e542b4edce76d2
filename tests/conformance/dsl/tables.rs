//! Ops on tables.

use serde_json::Value as Json;

use super::streams::grouped;
use super::{Builder, Handle, Stream, Table, codecs, codecs_of_materialized, named_table};
use crate::build::text;
use crate::key::Key;
use crate::outcome::{Stop, missing};
use crate::value::{Codec, Val};
use crate::{functions, suppress, transform_values};

impl Builder<'_> {
    pub(super) fn table_op<K: Key>(&mut self, input: Table<K>, op: &Json) -> Result<Handle, Stop> {
        match text(op, "op") {
            "to_stream" => return to_stream(input, op),
            "group_by" => return group(input, op),
            "suppress" => return suppress::suppress(self, input, op),
            "transform_values" => return transform_values::transform_values(self, input, op),
            _ => {}
        }
        let Table { table, codecs } = input;
        let before = named_table(table, op);
        let is_stored = op.get("materialized").is_some();
        let codecs = codecs_of_materialized(op, codecs)?;
        let rows = self.materialized(op, &codecs)?;
        let table = match text(op, "op") {
            filter @ ("filter" | "filter_not") => {
                let predicate = functions::predicate(&op["fn"])?;
                let keep = move |key: &K, row: &Val| predicate(&key.val(), row);
                match (filter, is_stored) {
                    ("filter", true) => before.filter_materialized(keep, rows),
                    ("filter", false) => before.filter(keep),
                    (_, true) => before.filter_not_materialized(keep, rows),
                    (_, false) => before.filter_not(keep),
                }
            }
            "map_values" => {
                let map = functions::value_mapper(&op["fn"])?;
                let map = move |key: &K, row: &Val| map(&key.val(), row).row();
                if is_stored { before.filter_map_values_materialized(map, rows) } else { before.filter_map_values(map) }
            }
            other => return Err(missing(format!("{other} of a table"))),
        };
        Ok(K::table(Table { table, codecs }))
    }
}

fn to_stream<K: Key>(input: Table<K>, op: &Json) -> Result<Handle, Stop> {
    let Table { table, codecs } = input;
    let stream = named_table(table, op).to_stream_with(|row| row.unwrap_or(Val::Null));
    let Some(function) = op.get("fn") else { return Ok(K::stream(Stream { stream, codecs })) };
    let select = functions::key_selector(function)?;
    let stream = stream.select_key(move |key: &K, value| select(&key.val(), value));
    Ok(Handle::Stream(Stream { stream, codecs: (Codec::Text, codecs.1) }))
}

fn group<K: Key>(input: Table<K>, op: &Json) -> Result<Handle, Stop> {
    let codecs = codecs(op)?;
    let map = functions::pair_mapper(&op["fn"])?;
    let select = move |key: &K, row: &Val| Some(map(&key.val(), row));
    Ok(Handle::GroupedTable(input.table.group_by(select, grouped(op, &codecs)?), codecs))
}
