//! Cases in the DSL (section 4 of the format): every stream is a `KStream<Val, Val>`, every table a `KTable<Val, Val>`.
//!
//! `count` runs as an aggregation of longs, because the typed `count` gives `i64`: same nodes, names and bytes. The typed
//! one has tests of its own.

use std::collections::BTreeMap;

use kstreams::{
    Branched, Grouped, Joined, KGroupedStream, KGroupedTable, KStream, KTable, Materialized, Processed, Repartitioned,
    StreamsBuilder,
};
use serde_json::Value as Json;

use crate::build::{Built, NotBuilt, consumed, list, produced, text, topics};
use crate::functions;
use crate::outcome::{Stop, inexpressible, missing};
use crate::processors::Script;
use crate::stores::{StoreDecl, Stores};
use crate::value::{Codec, Val};

/// Whatever an op gives a name to.
enum Handle {
    Stream(Stream),
    Table(Table),
    Grouped(KGroupedStream<Val, Val>, Codecs),
    GroupedTable(KGroupedTable<Val, Val>, Codecs),
    Branches(BTreeMap<String, Stream>),
}

/// What an op without codecs inherits.
type Codecs = (Codec, Codec);

struct Stream {
    stream: KStream<Val, Val>,
    codecs: Codecs,
}

struct Table {
    table: KTable<Val, Val>,
    codecs: Codecs,
}

struct Builder<'a> {
    case: &'a Json,
    builder: StreamsBuilder,
    handles: BTreeMap<String, Handle>,
    stores: Stores,
    queryable: BTreeMap<String, String>,
    branches: BTreeMap<String, Vec<String>>,
}

pub(crate) fn build(case: &Json) -> Result<Built, NotBuilt> {
    match case["optimize"].as_str() {
        None | Some("none") => {}
        Some(other) => return Err(missing(format!("topology.optimization {other}")).into()),
    }
    let mut builder = Builder {
        case,
        builder: StreamsBuilder::new(),
        handles: BTreeMap::new(),
        stores: Stores::default(),
        queryable: BTreeMap::new(),
        branches: BTreeMap::new(),
    };
    if case["config"]["ensure.explicit.internal.resource.naming"].as_str() == Some("true") {
        builder.builder.require_names();
    }
    let ops = case["topology"].as_array().map(Vec::as_slice).unwrap_or_default();
    // What is missing is said before anything is built: half a topology has mistakes of its own.
    for op in ops {
        check_known(op)?;
    }
    for op in ops {
        builder.add(op)?;
    }
    let Builder { builder, queryable, branches, handles, .. } = builder;
    drop(handles);
    Ok(Built { topology: builder.build()?, branches, queryable })
}

const OPS: &[&str] = &[
    "stream",
    "table",
    "add_store",
    "filter",
    "filter_not",
    "map",
    "map_values",
    "flat_map",
    "flat_map_values",
    "select_key",
    "peek",
    "foreach",
    "split",
    "merge",
    "repartition",
    "to",
    "to_table",
    "group_by",
    "group_by_key",
    "count",
    "reduce",
    "aggregate",
    "process",
    "process_values",
    "stream_table_join",
    "to_stream",
];

fn check_known(op: &Json) -> Result<(), Stop> {
    let name = text(op, "op");
    if !OPS.contains(&name) {
        return Err(missing(format!("op {name}")));
    }
    if name == "stream_table_join" && op.get("grace").is_some() {
        return Err(missing("grace of a stream-table join"));
    }
    if op["same_instance"] == Json::Bool(true) {
        return Err(inexpressible("a maker returns a new processor by value each time"));
    }
    match op["materialized"]["impl"].as_str() {
        None | Some("in_memory" | "persistent") => Ok(()),
        Some(other) => Err(missing(format!("materialized as {other}"))),
    }
}

impl Builder<'_> {
    fn add(&mut self, op: &Json) -> Result<(), Stop> {
        let handle = match text(op, "op") {
            "stream" => self.stream(op)?,
            "table" => self.table(op)?,
            "add_store" => return self.add_store(op),
            "to" => return self.to(op),
            "foreach" => {
                let Stream { stream, .. } = self.input(op)?;
                named(stream, op).for_each(|_, _| {});
                return Ok(());
            }
            "split" => self.split(op)?,
            "merge" => self.merge(op)?,
            "repartition" => self.repartition(op)?,
            "process" | "process_values" => self.process(op)?,
            "group_by" | "group_by_key" => self.group(op)?,
            "count" | "reduce" | "aggregate" => self.aggregate(op)?,
            "stream_table_join" => self.stream_table_join(op)?,
            "to_stream" => self.to_stream(op)?,
            "to_table" => self.to_table(op)?,
            _ if self.is_table(op) => self.table_op(op)?,
            _ => self.stream_op(op)?,
        };
        let id = text(op, "id").to_owned();
        if let Handle::Table(table) = &handle
            && let Some(name) = table.table.queryable_name()
        {
            self.queryable.insert(id.clone(), name.to_owned());
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
        Ok(table(self.builder.table(topics(op)?[0], consumed, materialized), codecs))
    }

    fn add_store(&mut self, op: &Json) -> Result<(), Stop> {
        let store = StoreDecl::parse(&op["store"])?;
        match &store {
            StoreDecl::KeyValue(store) => self.builder.add_state_store(store),
            StoreDecl::Timestamped(store) => self.builder.add_state_store(store),
        };
        self.stores.add(store);
        Ok(())
    }

    fn to(&self, op: &Json) -> Result<(), Stop> {
        let Stream { stream, .. } = self.input(op)?;
        let stream = named(stream, op);
        match op.get("topic_fn") {
            Some(function) => stream.to(functions::topic_function(function)?, produced(op)?),
            None => stream.to(text(op, "topic"), produced(op)?),
        }
        Ok(())
    }

    fn split(&mut self, op: &Json) -> Result<Handle, Stop> {
        let Stream { stream, codecs } = self.input(op)?;
        let mut split = named(stream, op).split();
        let branched = |branch: &Json| branch["name"].as_str().map_or(Branched::default(), Branched::named);
        for branch in op["branches"].as_array().into_iter().flatten() {
            let predicate = functions::predicate(&branch["fn"])?;
            split = split.branch(move |key, value| predicate(key, value), branched(branch));
        }
        let branches = match op.get("default") {
            Some(default) => split.default_branch(branched(default)),
            None => split.no_default_branch(),
        };
        self.branches.insert(text(op, "id").to_owned(), branches.keys().cloned().collect());
        let branch = |(name, stream)| (name, Stream { stream, codecs: codecs.clone() });
        Ok(Handle::Branches(branches.into_iter().map(branch).collect()))
    }

    fn merge(&self, op: &Json) -> Result<Handle, Stop> {
        let Stream { stream, codecs } = self.input(op)?;
        let other = self.stream_of(text(op, "with"))?;
        Ok(Handle::Stream(Stream { stream: named(stream, op).merge(other.stream), codecs }))
    }

    fn repartition(&self, op: &Json) -> Result<Handle, Stop> {
        let Stream { stream, .. } = self.input(op)?;
        let codecs = codecs(op)?;
        let mut repartitioned = Repartitioned::with(codecs.0.clone(), codecs.1.clone());
        if let Some(name) = op["name"].as_str() {
            repartitioned = repartitioned.named(name);
        }
        if let Some(partitions) = op["partitions"].as_i64() {
            repartitioned = repartitioned.with_partitions(partitions as i32);
        }
        if let Some(function) = op.get("partitioner") {
            let choose = functions::partitioner(function)?;
            repartitioned = repartitioned.with_partitioner(move |topic, key, value, n| choose(topic, key, value, n));
        }
        Ok(Handle::Stream(Stream { stream: stream.repartition(repartitioned), codecs }))
    }

    fn process(&mut self, op: &Json) -> Result<Handle, Stop> {
        let Stream { stream, codecs } = self.input(op)?;
        let mut processed = Processed::stores(list(op, "stores"));
        for spec in op["own_stores"].as_array().into_iter().flatten() {
            let store = StoreDecl::parse(spec)?;
            processed = match &store {
                StoreDecl::KeyValue(store) => processed.with_store(store),
                StoreDecl::Timestamped(store) => processed.with_store(store),
            };
            self.stores.add(store);
        }
        let stream = named(stream, op);
        let stream = if text(op, "op") == "process" {
            let script = Script::parse(&op["processor"], &self.stores)?;
            stream.process(move |init| script.make(init), processed)
        } else {
            let script = Script::parse_fixed_key(&op["processor"], &self.stores)?;
            stream.process_values(move |init| script.make(init), processed)
        };
        Ok(Handle::Stream(Stream { stream, codecs }))
    }

    fn group(&self, op: &Json) -> Result<Handle, Stop> {
        let codecs = codecs(op)?;
        let mut grouped = Grouped::with(codecs.0.clone(), codecs.1.clone());
        if let Some(name) = op["name"].as_str() {
            grouped = grouped.named(name);
        }
        if self.is_table(op) {
            let Table { table, .. } = self.table_of(text(op, "in"))?;
            let map = functions::pair_mapper(&op["fn"])?;
            let grouped = table.group_by(move |key, row| Some(map(key, row)), grouped);
            return Ok(Handle::GroupedTable(grouped, codecs));
        }
        let Stream { stream, .. } = self.input(op)?;
        let grouped = if text(op, "op") == "group_by" {
            let select = functions::key_selector(&op["fn"])?;
            stream.group_by(move |key, value| select(key, value), grouped)
        } else {
            stream.group_by_key(grouped)
        };
        Ok(Handle::Grouped(grouped, codecs))
    }

    fn aggregate(&mut self, op: &Json) -> Result<Handle, Stop> {
        let kind = text(op, "op");
        let input = text(op, "in");
        let inherited = match self.handles.get(input) {
            Some(Handle::Grouped(_, codecs) | Handle::GroupedTable(_, codecs)) => codecs.clone(),
            _ => return Err(missing(format!("{kind} of {input}"))),
        };
        let value = match kind {
            "count" => Codec::Long,
            "reduce" => inherited.1,
            _ => Codec::Text,
        };
        let codecs = self.codecs_of_materialized(op, (inherited.0, value))?;
        let rows = self.materialized(op, &codecs)?;
        let add = |op: &Json, field: &str| -> Result<functions::Three, Stop> {
            match (kind, &op[field]) {
                ("count", _) => functions::aggregator(&match field {
                    "sub" => serde_json::json!("minus_one"),
                    _ => serde_json::json!("plus_one"),
                }),
                (_, function) => functions::aggregator(function),
            }
        };
        let initial = match kind {
            "count" => Val::Long(0),
            "aggregate" => functions::initial(&op["init"])?,
            _ => Val::Null,
        };
        let result = match self.handles.get(input) {
            Some(Handle::Grouped(grouped, _)) => {
                let grouped = op["name"].as_str().map_or(grouped.clone(), |name| grouped.clone().named(name));
                if kind == "reduce" {
                    let reduce = functions::reducer(&op["reducer"])?;
                    grouped.reduce(move |row, value| reduce(&row, &value).row(), rows)
                } else {
                    let add = add(op, "agg")?;
                    grouped.aggregate(
                        move || initial.clone(),
                        move |key, value, row| add(key, &value, &row).row(),
                        rows,
                    )
                }
            }
            Some(Handle::GroupedTable(grouped, _)) => {
                let grouped = op["name"].as_str().map_or(grouped.clone(), |name| grouped.clone().named(name));
                if kind == "reduce" {
                    let (add, sub) = (functions::reducer(&op["add"])?, functions::reducer(&op["sub"])?);
                    grouped.reduce(
                        move |row, value| add(&row, &value).row(),
                        move |row, value| sub(&row, &value).row(),
                        rows,
                    )
                } else {
                    let (add, sub) = (add(op, "add")?, add(op, "sub")?);
                    grouped.aggregate(
                        move || initial.clone(),
                        move |key, value, row| add(key, &value, &row).row(),
                        move |key, value, row| sub(key, &value, &row).row(),
                        rows,
                    )
                }
            }
            _ => return Err(missing(format!("{kind} of {input}"))),
        };
        Ok(table(result, codecs))
    }

    fn stream_table_join(&self, op: &Json) -> Result<Handle, Stop> {
        let Stream { stream, .. } = self.stream_of(text(op, "left"))?;
        let right = self.table_of(text(op, "right"))?.table;
        let mut joined = Joined::with(Codec::of(&op["key"])?, Codec::of(&op["value"])?);
        if let Some(name) = op["name"].as_str() {
            joined = joined.named(name);
        }
        let joiner = functions::joiner(&op["joiner"])?;
        let stream = match text(op, "type") {
            "inner" => stream.join_with_key(&right, move |key, left, right| joiner(key, &left, &right), joined),
            "left" => stream.left_join_with_key(
                &right,
                move |key, left, right| joiner(key, &left, &right.unwrap_or(Val::Null)),
                joined,
            ),
            other => return Err(missing(format!("{other} stream-table join"))),
        };
        Ok(Handle::Stream(Stream { stream, codecs: (Codec::of(&op["key"])?, Codec::Text) }))
    }

    fn to_stream(&self, op: &Json) -> Result<Handle, Stop> {
        let Table { table, codecs } = self.table_of(text(op, "in"))?;
        let table = op["name"].as_str().map_or(table.clone(), |name| table.clone().named(name));
        let stream = table.to_stream_with(|row| row.unwrap_or(Val::Null));
        let Some(function) = op.get("fn") else { return Ok(Handle::Stream(Stream { stream, codecs })) };
        let select = functions::key_selector(function)?;
        let stream = stream.select_key(move |key, value| select(key, value));
        Ok(Handle::Stream(Stream { stream, codecs: (Codec::Text, codecs.1) }))
    }

    fn to_table(&mut self, op: &Json) -> Result<Handle, Stop> {
        let Stream { stream, codecs } = self.input(op)?;
        let codecs = self.codecs_of_materialized(op, codecs)?;
        let rows = self.materialized(op, &codecs)?;
        Ok(table(named(stream, op).to_table(rows), codecs))
    }

    fn table_op(&mut self, op: &Json) -> Result<Handle, Stop> {
        let Table { table: before, codecs } = self.table_of(text(op, "in"))?;
        let before = op["name"].as_str().map_or(before.clone(), |name| before.clone().named(name));
        let is_stored = op.get("materialized").is_some();
        let codecs = self.codecs_of_materialized(op, codecs)?;
        let rows = self.materialized(op, &codecs)?;
        let result = match text(op, "op") {
            filter @ ("filter" | "filter_not") => {
                let predicate = functions::predicate(&op["fn"])?;
                let keep = move |key: &Val, row: &Val| predicate(key, row);
                match (filter, is_stored) {
                    ("filter", true) => before.filter_materialized(keep, rows),
                    ("filter", false) => before.filter(keep),
                    (_, true) => before.filter_not_materialized(keep, rows),
                    (_, false) => before.filter_not(keep),
                }
            }
            "map_values" => {
                let map = functions::value_mapper(&op["fn"])?;
                let map = move |key: &Val, row: &Val| map(key, row).row();
                if is_stored { before.filter_map_values_materialized(map, rows) } else { before.filter_map_values(map) }
            }
            other => return Err(missing(format!("{other} of a table"))),
        };
        Ok(table(result, codecs))
    }

    fn stream_op(&self, op: &Json) -> Result<Handle, Stop> {
        let Stream { stream, codecs } = self.input(op)?;
        let stream = named(stream, op);
        let (key, value) = codecs;
        let (stream, codecs) = match text(op, "op") {
            "filter" => {
                let predicate = functions::predicate(&op["fn"])?;
                (stream.filter(move |key, value| predicate(key, value)), (key, value))
            }
            "filter_not" => {
                let predicate = functions::predicate(&op["fn"])?;
                (stream.filter_not(move |key, value| predicate(key, value)), (key, value))
            }
            "peek" => (stream.peek(|_, _| {}), (key, value)),
            "map" => {
                let map = functions::pair_mapper(&op["fn"])?;
                (stream.map(move |key, value| map(&key, &value)), (Codec::Text, Codec::Text))
            }
            "map_values" => {
                let map = functions::value_mapper(&op["fn"])?;
                (stream.map_values_with_key(move |key, value| map(key, &value)), (key, Codec::Text))
            }
            "flat_map" => {
                let map = functions::flat_mapper(&op["fn"])?;
                (stream.flat_map(move |key, value| map(&key, &value)), (Codec::Text, Codec::Text))
            }
            "flat_map_values" => {
                let map = functions::flat_value_mapper(&op["fn"])?;
                let values = move |key: &Val, value: Val| map(key, &value).into_iter().map(|(_, value)| value);
                (stream.flat_map_values_with_key(values), (key, Codec::Text))
            }
            "select_key" => {
                let select = functions::key_selector(&op["fn"])?;
                (stream.select_key(move |key, value| select(key, value)), (Codec::Text, value))
            }
            other => return Err(missing(format!("{other} of a stream"))),
        };
        Ok(Handle::Stream(Stream { stream, codecs }))
    }

    fn is_table(&self, op: &Json) -> bool {
        matches!(self.handles.get(text(op, "in")), Some(Handle::Table(_)))
    }

    fn input(&self, op: &Json) -> Result<Stream, Stop> {
        self.stream_of(text(op, "in"))
    }

    /// A stream by its id, or `ID:KEY` for a branch. Each use is a child.
    fn stream_of(&self, id: &str) -> Result<Stream, Stop> {
        let (id, branch) = id.split_once(':').map_or((id, None), |(id, branch)| (id, Some(branch)));
        let found = match (self.handles.get(id), branch) {
            (Some(Handle::Stream(stream)), None) => Some(stream),
            (Some(Handle::Branches(branches)), Some(branch)) => branches.get(branch),
            _ => None,
        };
        let Stream { stream, codecs } = found.ok_or_else(|| missing(format!("input {id} {branch:?} as a stream")))?;
        Ok(Stream { stream: stream.clone(), codecs: codecs.clone() })
    }

    fn table_of(&self, id: &str) -> Result<Table, Stop> {
        match self.handles.get(id) {
            Some(Handle::Table(Table { table, codecs })) => Ok(Table { table: table.clone(), codecs: codecs.clone() }),
            _ => Err(missing(format!("input {id} as a table"))),
        }
    }

    fn codecs_of_materialized(&self, op: &Json, inherited: Codecs) -> Result<Codecs, Stop> {
        let Some(materialized) = op.get("materialized") else { return Ok(inherited) };
        let of = |field: &str, inherited: Codec| match materialized[field].as_str() {
            Some(codec) => Codec::parse(codec),
            None => Ok(inherited),
        };
        Ok((of("key", inherited.0)?, of("value", inherited.1)?))
    }

    /// The store of a table, which processors may use under its name.
    fn materialized(&mut self, op: &Json, codecs: &Codecs) -> Result<Materialized<Val, Val>, Stop> {
        let spec = &op["materialized"];
        let (key, value) = codecs.clone();
        let mut materialized = Materialized::with(key.clone(), value.clone());
        if let Some(name) = spec["name"].as_str() {
            materialized = materialized.with_name(name);
            self.stores.add_table(name, key, value);
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
            None if in_memory => materialized = materialized.in_memory(),
            None | Some("persistent" | "rocks_db") => {}
            Some(other) => return Err(missing(format!("materialized as {other}"))),
        }
        Ok(materialized)
    }
}

fn named(stream: KStream<Val, Val>, op: &Json) -> KStream<Val, Val> {
    match op["name"].as_str() {
        Some(name) => stream.named(name),
        None => stream,
    }
}

fn table(table: KTable<Val, Val>, codecs: Codecs) -> Handle {
    Handle::Table(Table { table, codecs })
}

fn codecs(op: &Json) -> Result<Codecs, Stop> {
    Ok((Codec::of(&op["key"])?, Codec::of(&op["value"])?))
}
