//! Cases in the DSL (section 4 of the format): streams and tables of dynamic values, whose keys may have a window.
//!
//! `count` runs as an aggregation of longs, because the typed `count` gives `i64`: same nodes, names and bytes. The typed
//! one has tests of its own.

mod aggregates;
mod streams;
mod tables;

pub(crate) use aggregates::{add, codecs_of_aggregate, initial};

use std::collections::BTreeMap;

use kstreams::{KGroupedStream, KGroupedTable, KStream, KTable, Materialized, StreamsBuilder, Windowed};
use serde_json::Value as Json;

use crate::build::{Built, NotBuilt, consumed, text, topics};
use crate::key::Key;
use crate::outcome::{Stop, inexpressible, missing};
use crate::stores::{self, StoreDecl, Stores, each_store};
use crate::value::{Codec, Val};
use crate::{cogroup, global, optimize, stream_joins, table_joins, versioned, windowed};

/// Whatever an op gives a name to.
#[derive(Clone)]
pub(crate) enum Handle {
    Stream(Stream<Val>),
    WindowedStream(Stream<Windowed<Val>>),
    Table(Table<Val>),
    WindowedTable(Table<Windowed<Val>>),
    Grouped(KGroupedStream<Val, Val>, Codecs),
    WindowedGrouped(KGroupedStream<Windowed<Val>, Val>, Codecs),
    GroupedTable(KGroupedTable<Val, Val>, Codecs),
    Branches(BTreeMap<String, Handle>),
    Windows(windowed::Windows),
    Cogrouped(cogroup::Cogrouped),
    GlobalTable(global::GlobalTable),
}

/// What an op without codecs inherits.
pub(crate) type Codecs = (Codec, Codec);

#[derive(Clone)]
pub(crate) struct Stream<K: Key> {
    pub(crate) stream: KStream<K, Val>,
    pub(crate) codecs: Codecs,
}

#[derive(Clone)]
pub(crate) struct Table<K: Key> {
    pub(crate) table: KTable<K, Val>,
    pub(crate) codecs: Codecs,
}

pub(crate) struct Builder<'a> {
    pub(crate) case: &'a Json,
    pub(crate) builder: StreamsBuilder,
    handles: BTreeMap<String, Handle>,
    pub(crate) stores: Stores,
    queryable: BTreeMap<String, String>,
    branches: BTreeMap<String, Vec<String>>,
}

pub(crate) fn build(case: &Json) -> Result<Built, NotBuilt> {
    let mut builder = Builder {
        case,
        builder: StreamsBuilder::new(),
        handles: BTreeMap::new(),
        stores: Stores::default(),
        queryable: BTreeMap::new(),
        branches: BTreeMap::new(),
    };
    let config = optimize::config(case)?;
    if case["config"]["ensure.explicit.internal.resource.naming"].as_str() == Some("true") {
        builder.builder.require_names();
    }
    for op in case["topology"].as_array().into_iter().flatten() {
        builder.add(op)?;
    }
    let Builder { builder, queryable, branches, handles, .. } = builder;
    drop(handles);
    Ok(Built { topology: builder.build_with(&config)?, branches, queryable })
}

impl Builder<'_> {
    fn add(&mut self, op: &Json) -> Result<(), Stop> {
        if op["same_instance"] == Json::Bool(true) {
            return Err(inexpressible("one_processor_for_two_tasks"));
        }
        let handle = match text(op, "op") {
            "stream" => self.stream(op)?,
            "table" => self.table(op)?,
            "add_store" => return self.add_store(op),
            "global_table" => global::global_table(self, op)?,
            "add_global_store" => return global::add_global_store(self, op),
            "global_join" => global::global_join(self, op)?,
            "stream_join" => stream_joins::stream_join(self, op)?,
            "stream_table_join" => stream_joins::stream_table_join(self, op)?,
            "table_join" => table_joins::table_join(self, op)?,
            "fk_join" => table_joins::fk_join(self, op)?,
            "cogroup" => cogroup::cogroup(self, op)?,
            _ => match self.handle(text(op, "in"))? {
                Handle::Stream(stream) => self.stream_op(stream, op)?,
                Handle::WindowedStream(stream) => self.stream_op(stream, op)?,
                Handle::Table(table) => self.table_op(table, op)?,
                Handle::WindowedTable(table) => self.table_op(table, op)?,
                Handle::Grouped(grouped, codecs) if text(op, "op") == "window" => {
                    windowed::window(grouped, codecs, op)?
                }
                Handle::Grouped(grouped, codecs) => self.aggregate(grouped, codecs, op)?,
                Handle::WindowedGrouped(grouped, codecs) => self.aggregate(grouped, codecs, op)?,
                Handle::GroupedTable(grouped, codecs) => self.aggregate_table(grouped, codecs, op)?,
                Handle::Windows(windows) => windowed::aggregate(self, windows, op)?,
                Handle::Cogrouped(cogrouped) => cogroup::aggregate(self, cogrouped, op)?,
                Handle::Branches(_) | Handle::GlobalTable(_) => return Err(missing(format!("op {op}"))),
            },
        };
        let name = match &handle {
            Handle::Table(table) => table.table.queryable_name(),
            Handle::WindowedTable(table) => table.table.queryable_name(),
            Handle::GlobalTable(table) => table.queryable_name(),
            _ => None,
        };
        let id = text(op, "id").to_owned();
        if let Some(name) = name {
            self.queryable.insert(id.clone(), name.to_owned());
        }
        if let (Handle::Branches(branches), "split") = (&handle, text(op, "op")) {
            self.branches.insert(id.clone(), branches.keys().cloned().collect());
        }
        self.handles.insert(id, handle);
        Ok(())
    }

    fn stream(&self, op: &Json) -> Result<Handle, Stop> {
        let mut consumed = consumed(op, &self.case["config"])?;
        if let Some(name) = op["name"].as_str() {
            consumed = consumed.named(name);
        }
        let stream = match topics(op)?.as_slice() {
            [] if op.get("pattern").is_some() => self.builder.stream_matching(text(op, "pattern"), consumed),
            [topic] => self.builder.stream(topic, consumed),
            topics => self.builder.stream_of(topics, consumed),
        };
        Ok(Handle::Stream(Stream { stream, codecs: codecs(op)? }))
    }

    fn table(&mut self, op: &Json) -> Result<Handle, Stop> {
        let mut consumed = consumed(op, &self.case["config"])?;
        if let Some(name) = op["name"].as_str() {
            consumed = consumed.named(name);
        }
        let codecs = codecs(op)?;
        let materialized = self.materialized(op, &codecs)?;
        let table = self.builder.table(topics(op)?[0], consumed, materialized);
        Ok(Handle::Table(Table { table, codecs }))
    }

    fn add_store(&mut self, op: &Json) -> Result<(), Stop> {
        let store = StoreDecl::parse(&op["store"])?;
        each_store!(&store, store => {
            self.builder.add_state_store(store);
        });
        self.stores.add(store);
        Ok(())
    }

    /// What has an id, or `ID:KEY` for a branch. Each use is a child.
    pub(crate) fn handle(&self, id: &str) -> Result<Handle, Stop> {
        let (id, branch) = id.split_once(':').map_or((id, None), |(id, branch)| (id, Some(branch)));
        let found = match (self.handles.get(id), branch) {
            (Some(Handle::Branches(branches)), Some(branch)) => branches.get(branch),
            (found, None) => found,
            _ => None,
        };
        found.cloned().ok_or_else(|| missing(format!("input {id} {branch:?}")))
    }

    pub(crate) fn stream_of(&self, id: &str) -> Result<Stream<Val>, Stop> {
        match self.handle(id)? {
            Handle::Stream(stream) => Ok(stream),
            _ => Err(missing(format!("input {id} as a stream"))),
        }
    }

    pub(crate) fn table_of(&self, id: &str) -> Result<Table<Val>, Stop> {
        match self.handle(id)? {
            Handle::Table(table) => Ok(table),
            _ => Err(missing(format!("input {id} as a table"))),
        }
    }

    /// The store of a table, which processors may use under its name.
    pub(crate) fn materialized<K: Key>(&mut self, op: &Json, codecs: &Codecs) -> Result<Materialized<K, Val>, Stop> {
        let spec = &op["materialized"];
        let (key, value) = codecs.clone();
        let mut materialized = Materialized::with(K::codec(&key)?, value.clone());
        if let Some(name) = spec["name"].as_str() {
            materialized = materialized.with_name(name);
            match spec["impl"].as_str() {
                Some("versioned") => {
                    self.stores.add(StoreDecl::Versioned(versioned::declared(name, key, value, spec)?));
                }
                _ => self.stores.add_table(name, key, value),
            }
        }
        if spec["caching"] == Json::Bool(false) {
            materialized = materialized.without_caching();
        }
        if spec["logging"] == Json::Bool(false) {
            materialized = materialized.without_logging();
        }
        let in_memory = self.case["config"]["dsl.store.suppliers"].as_str() == Some("in_memory");
        match spec["impl"].as_str().or(spec["store_type"].as_str()) {
            Some("in_memory") => materialized = materialized.in_memory(),
            Some("versioned") => materialized = versioned::materialized(materialized, spec)?,
            Some("lru") => materialized = materialized.lru(stores::max_entries(spec)),
            Some("plain") => materialized = materialized.without_timestamps(),
            None if in_memory => materialized = materialized.in_memory(),
            None | Some("persistent" | "rocks_db") => {}
            Some(other) => return Err(missing(format!("materialized as {other}"))),
        }
        Ok(materialized)
    }
}

pub(crate) fn codecs_of_materialized(op: &Json, inherited: Codecs) -> Result<Codecs, Stop> {
    let Some(materialized) = op.get("materialized") else { return Ok(inherited) };
    let of = |field: &str, inherited: Codec| match materialized[field].as_str() {
        Some(codec) => Codec::parse(codec),
        None => Ok(inherited),
    };
    Ok((of("key", inherited.0)?, of("value", inherited.1)?))
}

pub(crate) fn named<K: Key>(stream: KStream<K, Val>, op: &Json) -> KStream<K, Val> {
    match op["name"].as_str() {
        Some(name) => stream.named(name),
        None => stream,
    }
}

pub(crate) fn named_table<K: Key>(table: KTable<K, Val>, op: &Json) -> KTable<K, Val> {
    match op["name"].as_str() {
        Some(name) => table.named(name),
        None => table,
    }
}

pub(crate) fn codecs(op: &Json) -> Result<Codecs, Stop> {
    Ok((Codec::of(&op["key"])?, Codec::of(&op["value"])?))
}
