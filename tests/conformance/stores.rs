//! Stores of a case: declared once, opened by every processor that uses them.

use std::collections::BTreeMap;

use kstreams::{
    Error, KeyValueStore, ProcessorInit, Record, Result, StoreBuilder, StoreContext, TimestampedKeyValueStore,
    ValueAndTimestamp,
};
use serde_json::Value as Json;

use crate::outcome::{Stop, missing};
use crate::value::{Codec, Val};

/// A store of one of the kinds that cases use.
#[derive(Clone)]
pub(crate) enum StoreDecl {
    KeyValue(StoreBuilder<KeyValueStore<Val, Val>>),
    Timestamped(StoreBuilder<TimestampedKeyValueStore<Val, Val>>),
}

pub(crate) enum Opened {
    KeyValue(KeyValueStore<Val, Val>),
    Timestamped(TimestampedKeyValueStore<Val, Val>),
}

/// All stores that have been declared so far, also those of tables.
#[derive(Default, Clone)]
pub(crate) struct Stores(BTreeMap<String, StoreDecl>);

impl Stores {
    pub(crate) fn get(&self, name: &str) -> Result<StoreDecl, Stop> {
        // A store that nobody has declared is a mistake of the case's topology, for the library to find.
        let unknown = || StoreDecl::KeyValue(kstreams::Stores::key_value(name, Codec::Text, Codec::Text));
        Ok(self.0.get(name).cloned().unwrap_or_else(unknown))
    }

    pub(crate) fn add(&mut self, store: StoreDecl) {
        self.0.insert(store.name().to_owned(), store);
    }

    /// The store of a table.
    pub(crate) fn add_table(&mut self, name: &str, key: Codec, value: Codec) {
        self.add(StoreDecl::Timestamped(kstreams::Stores::timestamped_key_value(name, key, value)));
    }
}

impl StoreDecl {
    /// A store as the format specifies it.
    pub(crate) fn parse(spec: &Json) -> Result<StoreDecl, Stop> {
        let name = spec["name"].as_str().unwrap_or_default();
        let (key, value) = (Codec::of(&spec["key"])?, Codec::of(&spec["value"])?);
        let in_memory = match spec["impl"].as_str() {
            None | Some("persistent") => false,
            Some("in_memory") => true,
            Some(other) => return Err(missing(format!("store implementation {other}"))),
        };
        let (logging, caching) = (spec["logging"] != Json::Bool(false), spec["caching"] == Json::Bool(true));
        macro_rules! settings {
            ($builder:expr) => {{
                let builder = if caching { $builder.with_caching() } else { $builder };
                if logging { builder } else { builder.without_logging() }
            }};
        }
        use kstreams::Stores as S;
        Ok(match spec["type"].as_str().unwrap_or_default() {
            "kv" if in_memory => StoreDecl::KeyValue(settings!(S::in_memory_key_value(name, key, value))),
            "kv" => StoreDecl::KeyValue(settings!(S::key_value(name, key, value))),
            "timestamped_kv" if in_memory => {
                StoreDecl::Timestamped(settings!(S::in_memory_timestamped_key_value(name, key, value)))
            }
            "timestamped_kv" => StoreDecl::Timestamped(settings!(S::timestamped_key_value(name, key, value))),
            other => return Err(missing(format!("store type {other}"))),
        })
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            StoreDecl::KeyValue(store) => store.name(),
            StoreDecl::Timestamped(store) => store.name(),
        }
    }

    pub(crate) fn open(&self, init: &ProcessorInit<'_>) -> Result<Opened> {
        Ok(match self {
            StoreDecl::KeyValue(store) => Opened::KeyValue(init.store(store)?),
            StoreDecl::Timestamped(store) => Opened::Timestamped(init.store(store)?),
        })
    }
}

impl Opened {
    pub(crate) fn kv(&mut self) -> Result<&mut KeyValueStore<Val, Val>> {
        match self {
            Opened::KeyValue(store) => Ok(store),
            Opened::Timestamped(_) => Err(Error::user("the store has timestamps")),
        }
    }

    pub(crate) fn timestamped(&mut self) -> Result<&mut TimestampedKeyValueStore<Val, Val>> {
        match self {
            Opened::Timestamped(store) => Ok(store),
            Opened::KeyValue(_) => Err(Error::user("the store has no timestamps")),
        }
    }

    /// Adds one to a count; the new count.
    pub(crate) fn count(&mut self, ctx: &mut impl StoreContext, key: &Val) -> Result<i64> {
        let store = self.kv()?;
        let count = store.get(ctx, key)?.map_or(0, |count| count.number()) + 1;
        store.put(ctx, key, &Val::Long(count))?;
        Ok(count)
    }

    pub(crate) fn put(&mut self, ctx: &mut impl StoreContext, record: &Record<Val, Val>) -> Result<()> {
        match self {
            Opened::KeyValue(store) => store.put(ctx, &record.key, &record.value),
            Opened::Timestamped(_) => self.put_timestamped(ctx, record),
        }
    }

    pub(crate) fn put_timestamped(&mut self, ctx: &mut impl StoreContext, record: &Record<Val, Val>) -> Result<()> {
        let row = ValueAndTimestamp { value: record.value.clone(), timestamp: record.timestamp };
        self.timestamped()?.put(ctx, &record.key, &row)
    }

    pub(crate) fn get_shown(&mut self, ctx: &mut impl StoreContext, key: &Val) -> Result<String> {
        Ok(match self {
            Opened::KeyValue(store) => store.get(ctx, key)?.map(|value| value.show()),
            Opened::Timestamped(store) => store.get(ctx, key)?.map(|row| show_row(&row)),
        }
        .unwrap_or_else(|| "null".to_owned()))
    }
}

pub(crate) fn show_row(row: &ValueAndTimestamp<Val>) -> String {
    format!("{}@{}", row.value.show(), row.timestamp)
}
