//! Stateful mapping of a table's rows.

use std::marker::PhantomData;
use std::sync::Arc;

use kstreams::{Processed, ProcessorInit, Result, TransformContext, ValueTransformerWithKey};
use serde_json::Value as Json;

use crate::build::list;
use crate::dsl::{Builder, Handle, Table, codecs_of_materialized, named_table};
use crate::functions::Call;
use crate::key::Key;
use crate::outcome::{Stop, missing};
use crate::stores::Opened;
use crate::value::Val;

const TRANSFORMERS: &[&str] = &["show", "show_or_null", "count_calls", "with_context"];

pub(crate) fn transform_values<K: Key>(builder: &mut Builder<'_>, input: Table<K>, op: &Json) -> Result<Handle, Stop> {
    let call = Arc::new(Call::parse(&op["fn"])?);
    if !TRANSFORMERS.contains(&call.name.as_str()) {
        return Err(missing(format!("transformer {}", call.name)));
    }
    let store = match call.name.as_str() {
        "count_calls" => Some(builder.stores.get(&call.text(0))?),
        _ => None,
    };
    let make = move |init: &mut ProcessorInit<'_>| {
        let store = store.as_ref().map(|store| store.open(init)).transpose()?;
        Ok(Transformer { call: Arc::clone(&call), store, keys: PhantomData::<fn(K)> })
    };
    let processed = Processed::stores(list(op, "stores"));
    let table = named_table(input.table, op);
    let codecs = codecs_of_materialized(op, input.codecs)?;
    let table = match op.get("materialized") {
        Some(_) => {
            let rows = builder.materialized(op, &codecs)?;
            table.transform_values_materialized(make, processed, rows)
        }
        None => table.transform_values(make, processed),
    };
    Ok(K::table(Table { table, codecs }))
}

struct Transformer<K> {
    call: Arc<Call>,
    store: Option<Opened>,
    keys: PhantomData<fn(K)>,
}

impl<K: Key> ValueTransformerWithKey<K, Val> for Transformer<K> {
    type ValueOut = Val;

    fn transform(&mut self, key: &K, row: Option<Val>, ctx: &mut TransformContext<'_>) -> Result<Option<Val>> {
        let key = key.val();
        let is_deleted = row.is_none();
        let row = row.unwrap_or(Val::Null);
        Ok(Some(match (self.call.name.as_str(), &mut self.store) {
            ("show_or_null", _) if is_deleted => return Ok(None),
            ("count_calls", Some(store)) => {
                let calls = store.count(ctx, &key)?;
                Val::text(format!("{}#{calls}", row.show()))
            }
            ("with_context", _) => {
                let offset = ctx.record_metadata().map_or(-1, |metadata| metadata.offset);
                Val::text(format!("{}@{}/{offset}", row.show(), ctx.timestamp()))
            }
            _ => Val::text(format!("{}={}", key.show(), row.show())),
        }))
    }
}
