//! Global tables and stores.

use kstreams::{GlobalKTable, Joined, ProcessorInit, TopologyBuilder};
use serde_json::Value as Json;

use crate::build::{consumed, text, topics};
use crate::dsl::{Builder, Handle, Stream};
use crate::functions;
use crate::key::Key;
use crate::outcome::{Stop, missing};
use crate::processors::Script;
use crate::stores::{StoreDecl, Stores};
use crate::value::{Codec, Val};

/// A table that every task has whole.
#[derive(Clone)]
pub(crate) struct GlobalTable(GlobalKTable<Val, Val>);

impl GlobalTable {
    pub(crate) fn queryable_name(&self) -> Option<&str> {
        // The format has none for it.
        None
    }
}

pub(crate) fn global_table(builder: &mut Builder<'_>, op: &Json) -> Result<Handle, Stop> {
    let mut consumed = consumed(op, &builder.case["config"])?;
    if let Some(name) = op["name"].as_str() {
        consumed = consumed.named(name);
    }
    let codecs = (Codec::of(&op["key"])?, Codec::of(&op["value"])?);
    let rows = builder.materialized(op, &codecs)?;
    let table = builder.builder.global_table(topics(op)?[0], consumed, rows);
    Ok(Handle::GlobalTable(GlobalTable(table)))
}

pub(crate) fn add_global_store(builder: &mut Builder<'_>, op: &Json) -> Result<(), Stop> {
    let store = StoreDecl::parse(&op["store"])?;
    builder.stores.add(store.clone());
    let script = Script::parse(&op["processor"], &builder.stores)?;
    let mut consumed = consumed(op, &builder.case["config"])?;
    if let Some(name) = op["name"].as_str() {
        consumed = consumed.named(name);
    }
    let topic = text(op, "topic");
    let make = move |init: &mut ProcessorInit<'_>| script.make(init);
    match &store {
        StoreDecl::KeyValue(store) => builder.builder.add_global_store(store, topic, consumed, make),
        StoreDecl::Timestamped(store) => builder.builder.add_global_store(store, topic, consumed, make),
        #[allow(unreachable_patterns, reason = "other kinds cannot be global")]
        _ => return Err(missing("a global store of this kind")),
    };
    Ok(())
}

/// The two low-level ops: a global store, and one that is fed by its own topic.
pub(crate) fn add_fed_store(
    builder: &mut TopologyBuilder,
    op: &Json,
    stores: &Stores,
    config: &Json,
) -> Result<(), Stop> {
    let store = StoreDecl::parse(&op["store"])?;
    let script = Script::parse(&op["processor"], stores)?;
    let (source, topic, name) = (text(op, "source"), text(op, "topic"), text(op, "name"));
    let consumed = consumed(op, config)?;
    let make = move |init: &mut ProcessorInit<'_>| script.make(init);
    match (&store, text(op, "op")) {
        (StoreDecl::KeyValue(store), "add_global_store") => {
            builder.add_global_store(store, source, topic, consumed, name, make)
        }
        (StoreDecl::Timestamped(store), "add_global_store") => {
            builder.add_global_store(store, source, topic, consumed, name, make)
        }
        (StoreDecl::KeyValue(store), _) => builder.add_read_only_store(store, source, topic, consumed, name, make),
        (StoreDecl::Timestamped(store), _) => builder.add_read_only_store(store, source, topic, consumed, name, make),
        #[allow(unreachable_patterns, reason = "other kinds cannot be global")]
        _ => return Err(missing("a store of this kind fed by its own topic")),
    };
    Ok(())
}

pub(crate) fn global_join(builder: &mut Builder<'_>, op: &Json) -> Result<Handle, Stop> {
    match builder.handle(text(op, "left"))? {
        Handle::Stream(left) => join(builder, left, op),
        Handle::WindowedStream(left) => join(builder, left, op),
        _ => Err(missing(format!("op {op}"))),
    }
}

fn join<K: Key>(builder: &Builder<'_>, left: Stream<K>, op: &Json) -> Result<Handle, Stop> {
    let Stream { stream, codecs } = left;
    let Handle::GlobalTable(GlobalTable(table)) = builder.handle(text(op, "right"))? else {
        return Err(missing("a global join with something else than a global table"));
    };
    let mut joined = Joined::with(K::codec(&codecs.0)?, codecs.1.clone());
    if let Some(name) = op["name"].as_str() {
        joined = joined.named(name);
    }
    let select = functions::key_selector(&op["key_fn"])?;
    let joiner = functions::joiner(&op["joiner"])?;
    let stream = match text(op, "type") {
        "inner" => stream.join_global_with_key(
            &table,
            move |key: &K, value| select(&key.val(), value),
            move |key: &K, value, row| joiner(&key.val(), &value, &row),
            joined,
        ),
        "left" => stream.left_join_global_with_key(
            &table,
            move |key: &K, value| select(&key.val(), value),
            move |key: &K, value, row| joiner(&key.val(), &value, &row.unwrap_or(Val::Null)),
            joined,
        ),
        other => return Err(missing(format!("{other} global join"))),
    };
    Ok(K::stream(Stream { stream, codecs: (codecs.0, Codec::Text) }))
}
