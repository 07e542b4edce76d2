//! Ops on streams.

use std::collections::BTreeMap;

use kstreams::{Branched, Grouped, KStream, Processed, Repartitioned};
use serde_json::Value as Json;

use super::{Builder, Codecs, Handle, Stream, Table, codecs, codecs_of_materialized, named};
use crate::build::{list, produced, text};
use crate::functions;
use crate::key::Key;
use crate::outcome::{Stop, missing};
use crate::processors::{Script, with_windows};
use crate::stores::{StoreDecl, each_store};
use crate::value::{Codec, Val};

impl Builder<'_> {
    pub(super) fn stream_op<K: Key>(&mut self, input: Stream<K>, op: &Json) -> Result<Handle, Stop> {
        let Stream { stream, codecs } = input;
        let (key, value) = codecs.clone();
        let stream_of_text_keys =
            |stream: KStream<Val, Val>, value| Handle::Stream(Stream { stream, codecs: (Codec::Text, value) });
        let (stream, codecs) = match text(op, "op") {
            "to" => return to(stream, op),
            "foreach" => {
                named(stream, op).for_each(|_, _| {});
                return Ok(Handle::Branches(BTreeMap::new()));
            }
            "split" => return split(stream, &codecs, op),
            "repartition" => return repartition(stream, op),
            "process" | "process_values" => return self.process(Stream { stream, codecs }, op),
            "group_by" | "group_by_key" => return group(stream, op),
            "to_table" => {
                let codecs = codecs_of_materialized(op, codecs)?;
                let rows = self.materialized(op, &codecs)?;
                return Ok(K::table(Table { table: named(stream, op).to_table(rows), codecs }));
            }
            "merge" => {
                let other = K::stream_of(self, text(op, "with"))?;
                (named(stream, op).merge(other.stream), codecs)
            }
            "filter" => {
                let predicate = functions::predicate(&op["fn"])?;
                (named(stream, op).filter(move |key, value| predicate(&key.val(), value)), codecs)
            }
            "filter_not" => {
                let predicate = functions::predicate(&op["fn"])?;
                (named(stream, op).filter_not(move |key, value| predicate(&key.val(), value)), codecs)
            }
            "peek" => (named(stream, op).peek(|_, _| {}), codecs),
            "map" => {
                let map = functions::pair_mapper(&op["fn"])?;
                let stream = named(stream, op).map(move |key, value| map(&key.val(), &value));
                return Ok(stream_of_text_keys(stream, Codec::Text));
            }
            "map_values" => {
                let map = functions::value_mapper(&op["fn"])?;
                let stream = named(stream, op).map_values_with_key(move |key: &K, value| map(&key.val(), &value));
                (stream, (key, Codec::Text))
            }
            "flat_map" => {
                let map = functions::flat_mapper(&op["fn"])?;
                let stream = named(stream, op).flat_map(move |key: K, value| map(&key.val(), &value));
                return Ok(stream_of_text_keys(stream, Codec::Text));
            }
            "flat_map_values" => {
                let map = functions::flat_value_mapper(&op["fn"])?;
                let values = move |key: &K, value: Val| map(&key.val(), &value).into_iter().map(|(_, value)| value);
                (named(stream, op).flat_map_values_with_key(values), (key, Codec::Text))
            }
            "select_key" => {
                let select = functions::key_selector(&op["fn"])?;
                let stream = named(stream, op).select_key(move |key: &K, value| select(&key.val(), value));
                return Ok(stream_of_text_keys(stream, value));
            }
            other => return Err(missing(format!("{other} of a stream"))),
        };
        Ok(K::stream(Stream { stream, codecs }))
    }

    fn process<K: Key>(&mut self, input: Stream<K>, op: &Json) -> Result<Handle, Stop> {
        let Stream { stream, codecs } = input;
        let mut processed = Processed::stores(list(op, "stores"));
        for spec in op["own_stores"].as_array().into_iter().flatten() {
            let store = StoreDecl::parse(spec)?;
            processed = each_store!(&store, store => processed.with_store(store));
            self.stores.add(store);
        }
        let stream = named(stream, op);
        if text(op, "op") == "process" {
            let script = Script::parse(&op["processor"], &self.stores)?;
            let stream = stream.process(move |init| script.make(init).map(with_windows::<K>), processed);
            return Ok(Handle::Stream(Stream { stream, codecs }));
        }
        let script = Script::parse_fixed_key(&op["processor"], &self.stores)?;
        let stream = stream.process_values(move |init| script.make(init), processed);
        Ok(K::stream(Stream { stream, codecs }))
    }
}

fn to<K: Key>(stream: KStream<K, Val>, op: &Json) -> Result<Handle, Stop> {
    let stream = named(stream, op);
    match op.get("topic_fn") {
        Some(function) => stream.to(functions::topic_function(function)?, produced(op)?),
        None => stream.to(text(op, "topic"), produced(op)?),
    }
    Ok(Handle::Branches(BTreeMap::new()))
}

fn split<K: Key>(stream: KStream<K, Val>, codecs: &Codecs, op: &Json) -> Result<Handle, Stop> {
    let mut split = named(stream, op).split();
    let branched = |branch: &Json| branch["name"].as_str().map_or_else(Branched::default, Branched::named);
    for branch in op["branches"].as_array().into_iter().flatten() {
        let predicate = functions::predicate(&branch["fn"])?;
        split = split.branch(move |key: &K, value| predicate(&key.val(), value), branched(branch));
    }
    let branches = match op.get("default") {
        Some(default) => split.default_branch(branched(default)),
        None => split.no_default_branch(),
    };
    let branch = |(name, stream)| (name, K::stream(Stream { stream, codecs: codecs.clone() }));
    Ok(Handle::Branches(branches.into_iter().map(branch).collect()))
}

fn repartition<K: Key>(stream: KStream<K, Val>, op: &Json) -> Result<Handle, Stop> {
    let codecs = codecs(op)?;
    let mut repartitioned = Repartitioned::with(K::codec(&codecs.0)?, codecs.1.clone());
    if let Some(name) = op["name"].as_str() {
        repartitioned = repartitioned.named(name);
    }
    if let Some(partitions) = op["partitions"].as_i64() {
        repartitioned = repartitioned.with_partitions(partitions as i32);
    }
    if let Some(function) = op.get("partitioner") {
        let choose = functions::partitioner(function)?;
        let choose = move |topic: &str, key: &K, value: &Val, n| choose(topic, &key.val(), value, n);
        repartitioned = repartitioned.with_partitioner(choose);
    }
    Ok(K::stream(Stream { stream: stream.repartition(repartitioned), codecs }))
}

fn group<K: Key>(stream: KStream<K, Val>, op: &Json) -> Result<Handle, Stop> {
    let codecs = codecs(op)?;
    if text(op, "op") == "group_by_key" {
        return Ok(K::grouped(stream.group_by_key(grouped::<K>(op, &codecs)?), codecs));
    }
    let select = functions::key_selector(&op["fn"])?;
    let grouped = stream.group_by(move |key: &K, value| select(&key.val(), value), grouped(op, &codecs)?);
    Ok(Handle::Grouped(grouped, codecs))
}

pub(crate) fn grouped<K: Key>(op: &Json, codecs: &Codecs) -> Result<Grouped<K, Val>, Stop> {
    let grouped = Grouped::with(K::codec(&codecs.0)?, codecs.1.clone());
    Ok(match op["name"].as_str() {
        Some(name) => grouped.named(name),
        None => grouped,
    })
}
