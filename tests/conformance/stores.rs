//! Stores of a case: declared once, opened by every processor that uses them.

use std::collections::BTreeMap;
use std::time::Duration;

use kstreams::{
    Error, KeyValueStore, ProcessorInit, Record, Result, SessionStore, StoreBuilder, StoreContext,
    TimestampedKeyValueStore, TimestampedWindowStore, ValueAndTimestamp, VersionedKeyValueStore, WindowStore,
};
use serde_json::Value as Json;

use crate::outcome::{Stop, missing};
use crate::value::{Codec, Val};

/// A store of one of the kinds that cases use.
#[derive(Clone)]
pub(crate) enum StoreDecl {
    KeyValue(StoreBuilder<KeyValueStore<Val, Val>>),
    Timestamped(StoreBuilder<TimestampedKeyValueStore<Val, Val>>),
    Window(StoreBuilder<WindowStore<Val, Val>>),
    TimestampedWindow(StoreBuilder<TimestampedWindowStore<Val, Val>>),
    Session(StoreBuilder<SessionStore<Val, Val>>),
    Versioned(StoreBuilder<VersionedKeyValueStore<Val, Val>>),
}

/// The same expression for every kind of declared store.
macro_rules! each_store {
    ($decl:expr, $store:ident => $body:expr) => {
        match $decl {
            $crate::stores::StoreDecl::KeyValue($store) => $body,
            $crate::stores::StoreDecl::Timestamped($store) => $body,
            $crate::stores::StoreDecl::Window($store) => $body,
            $crate::stores::StoreDecl::TimestampedWindow($store) => $body,
            $crate::stores::StoreDecl::Session($store) => $body,
            $crate::stores::StoreDecl::Versioned($store) => $body,
        }
    };
}
pub(crate) use each_store;

pub(crate) enum Opened {
    KeyValue(KeyValueStore<Val, Val>),
    Timestamped(TimestampedKeyValueStore<Val, Val>),
    Window(WindowStore<Val, Val>),
    TimestampedWindow(TimestampedWindowStore<Val, Val>),
    Session(SessionStore<Val, Val>),
    Versioned(VersionedKeyValueStore<Val, Val>),
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
            Some("in_memory" | "lru") => true,
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
            "kv" if spec["impl"] == "lru" => {
                StoreDecl::KeyValue(settings!(S::lru_map(name, max_entries(spec), key, value)))
            }
            "kv" if in_memory => StoreDecl::KeyValue(settings!(S::in_memory_key_value(name, key, value))),
            "kv" => StoreDecl::KeyValue(settings!(S::key_value(name, key, value))),
            "timestamped_kv" if in_memory => {
                StoreDecl::Timestamped(settings!(S::in_memory_timestamped_key_value(name, key, value)))
            }
            "timestamped_kv" => StoreDecl::Timestamped(settings!(S::timestamped_key_value(name, key, value))),
            "window" if in_memory => {
                let (retention, window, duplicates) = window_settings(spec);
                StoreDecl::Window(settings!(S::in_memory_window(name, retention, window, duplicates, key, value)))
            }
            "window" => {
                let (retention, window, duplicates) = window_settings(spec);
                StoreDecl::Window(settings!(S::window(name, retention, window, duplicates, key, value)))
            }
            "timestamped_window" if in_memory => {
                let (retention, window, duplicates) = window_settings(spec);
                let store = S::in_memory_timestamped_window(name, retention, window, duplicates, key, value);
                StoreDecl::TimestampedWindow(settings!(store))
            }
            "timestamped_window" => {
                let (retention, window, duplicates) = window_settings(spec);
                let store = S::timestamped_window(name, retention, window, duplicates, key, value);
                StoreDecl::TimestampedWindow(settings!(store))
            }
            "session" if in_memory => {
                StoreDecl::Session(settings!(S::in_memory_session(name, millis(spec, "retention_ms"), key, value)))
            }
            "session" => StoreDecl::Session(settings!(S::session(name, millis(spec, "retention_ms"), key, value))),
            "versioned_kv" => {
                let store = S::versioned_key_value(name, millis(spec, "history_ms"), key, value);
                let segment = spec.get("segment_ms").map(|_| millis(spec, "segment_ms"));
                let store = segment.map_or(store.clone(), |segment| store.with_segment_interval(segment));
                StoreDecl::Versioned(settings!(store))
            }
            other => return Err(missing(format!("store type {other}"))),
        })
    }

    pub(crate) fn name(&self) -> &str {
        each_store!(self, store => store.name())
    }

    pub(crate) fn open(&self, init: &ProcessorInit<'_>) -> Result<Opened> {
        Ok(match self {
            StoreDecl::KeyValue(store) => Opened::KeyValue(init.store(store)?),
            StoreDecl::Timestamped(store) => Opened::Timestamped(init.store(store)?),
            StoreDecl::Window(store) => Opened::Window(init.store(store)?),
            StoreDecl::TimestampedWindow(store) => Opened::TimestampedWindow(init.store(store)?),
            StoreDecl::Session(store) => Opened::Session(init.store(store)?),
            StoreDecl::Versioned(store) => Opened::Versioned(init.store(store)?),
        })
    }
}

pub(crate) fn max_entries(spec: &Json) -> usize {
    spec["max_entries"].as_u64().unwrap_or(0) as usize
}

fn window_settings(spec: &Json) -> (Duration, Duration, bool) {
    let duplicates = spec["retain_duplicates"] == Json::Bool(true);
    (millis(spec, "retention_ms"), millis(spec, "window_ms"), duplicates)
}

fn millis(spec: &Json, field: &str) -> Duration {
    Duration::from_millis(spec[field].as_u64().unwrap_or(0))
}

impl Opened {
    pub(crate) fn kv(&mut self) -> Result<&mut KeyValueStore<Val, Val>> {
        match self {
            Opened::KeyValue(store) => Ok(store),
            _ => Err(Error::user("the store is no plain key-value store")),
        }
    }

    pub(crate) fn timestamped(&mut self) -> Result<&mut TimestampedKeyValueStore<Val, Val>> {
        match self {
            Opened::Timestamped(store) => Ok(store),
            _ => Err(Error::user("the store is no key-value store with timestamps")),
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
            _ => self.put_timestamped(ctx, record),
        }
    }

    pub(crate) fn put_timestamped(&mut self, ctx: &mut impl StoreContext, record: &Record<Val, Val>) -> Result<()> {
        let row = ValueAndTimestamp { value: record.value.clone(), timestamp: record.timestamp };
        self.timestamped()?.put(ctx, &record.key, &row)
    }

    pub(crate) fn get_shown(&mut self, ctx: &mut impl StoreContext, key: &Val) -> Result<String> {
        Ok(match self {
            Opened::KeyValue(store) => store.get(ctx, key)?.map(|value| value.show()),
            _ => self.timestamped()?.get(ctx, key)?.map(|row| show_row(&row)),
        }
        .unwrap_or_else(|| "null".to_owned()))
    }
}

pub(crate) fn show_row(row: &ValueAndTimestamp<Val>) -> String {
    format!("{}@{}", row.value.show(), row.timestamp)
}
