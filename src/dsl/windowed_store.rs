//! The stores of windowed tables, as operators are told of them.

use std::sync::Arc;

use super::Materialized;
use super::options::serde_or_missing;
use crate::operators::windowed::changes::EmitStrategy;
use crate::operators::windowed::session::SessionStoreSpec;
use crate::operators::windowed::time::WindowStoreSpec;
use crate::serdes::DynSerde;
use crate::state::{SessionKind, SessionStore, StoreBuilder, TimestampedWindowStore, WindowKind};
use crate::topology::TopologyBuilder;
use crate::window::{SessionWindows, StoredWindows, millis};

/// A window store as an operator was told of it.
pub(super) struct WindowStoreOption<K, A> {
    pub spec: WindowStoreSpec<K, A>,
    pub kind: WindowKind,
    /// Whether the user named it: it can be queried.
    pub is_named: bool,
}

/// A session store as an operator was told of it.
pub(super) struct SessionStoreOption<K, A> {
    pub spec: SessionStoreSpec<K, A>,
    pub is_named: bool,
}

/// What both have in common.
struct Settled<K, A> {
    name: String,
    key: DynSerde<K>,
    value: DynSerde<A>,
    retention_ms: i64,
}

impl<K: 'static, A: 'static> Materialized<K, A> {
    /// The store of time, sliding or unlimited windows. A number is used up when the name is generated.
    pub(super) fn window_store(
        mut self,
        graph: &mut TopologyBuilder,
        prefix: &str,
        serdes: (&DynSerde<K>, Option<&DynSerde<A>>),
        windows: &StoredWindows,
        emit: EmitStrategy,
    ) -> WindowStoreOption<K, A> {
        let (is_named, engine, custom) = (self.name.is_some(), self.engine(graph), self.custom.take());
        let Settled { name, key, value, retention_ms } = self.settle(graph, prefix, serdes, windows.retention_ms_min());
        let kind = WindowKind::new(retention_ms, windows.size_ms(), false, true, engine).by_key();
        let store = StoreBuilder::<TimestampedWindowStore<K, A>>::timestamped_window(
            &name,
            kind,
            engine,
            Arc::clone(&key),
            Arc::clone(&value),
        )
        .with_row_times_of_records();
        // As in Java: results of sliding windows that wait for the end would only wait twice.
        let is_sliding = matches!(windows, StoredWindows::Sliding(_));
        let caching = self.caching && !(is_sliding && emit == EmitStrategy::OnWindowClose);
        let partitioner = self.key_partitioner(&key);
        let store = self.with_settings(store, caching).with_made_engine(custom).with_key_partitioner(partitioner);
        WindowStoreOption { spec: WindowStoreSpec { store, key, value, emit }, kind, is_named }
    }

    /// The store of sessions.
    pub(super) fn session_store(
        mut self,
        graph: &mut TopologyBuilder,
        prefix: &str,
        serdes: (&DynSerde<K>, Option<&DynSerde<A>>),
        windows: &SessionWindows,
        emit: EmitStrategy,
    ) -> SessionStoreOption<K, A> {
        let (is_named, engine, custom) = (self.name.is_some(), self.engine(graph), self.custom.take());
        let retention_ms_min = windows.gap_ms().saturating_add(windows.grace_ms());
        let Settled { name, key, value, retention_ms } = self.settle(graph, prefix, serdes, retention_ms_min);
        let kind = SessionKind::new(retention_ms, engine).by_key();
        let store =
            StoreBuilder::<SessionStore<K, A>>::session(&name, kind, engine, Arc::clone(&key), Arc::clone(&value));
        let caching = self.caching && emit == EmitStrategy::OnWindowUpdate;
        let partitioner = self.key_partitioner(&key);
        let store = self.with_settings(store, caching).with_made_engine(custom).with_key_partitioner(partitioner);
        SessionStoreOption { spec: SessionStoreSpec { store, kind, key, value, emit }, is_named }
    }

    fn settle(
        &mut self,
        graph: &mut TopologyBuilder,
        prefix: &str,
        (key, value): (&DynSerde<K>, Option<&DynSerde<A>>),
        retention_ms_min: i64,
    ) -> Settled<K, A> {
        let name = match self.name.take() {
            Some(name) => graph.checked(name),
            None => graph.name(&format!("{prefix}STATE-STORE-")),
        };
        let mut missing = None;
        let key = serde_or_missing(self.key.take().or(Some(Arc::clone(key))), &name, "key", &mut missing);
        let value = serde_or_missing(self.value.take().or(value.map(Arc::clone)), &name, "value", &mut missing);
        if let Some(missing) = missing {
            graph.mistake(missing.to_string());
        }
        let retention_ms = self.retention.map_or(retention_ms_min, millis);
        if retention_ms < retention_ms_min {
            graph.mistake(format!(
                "store {name} keeps rows for {retention_ms} ms, but its windows take records for {retention_ms_min} ms: give \
                 Materialized::with_retention at least that"
            ));
        }
        Settled { name, key, value, retention_ms }
    }

    fn with_settings<S>(self, store: StoreBuilder<S>, caching: bool) -> StoreBuilder<S> {
        let is_default = self.is_default_engine();
        let store = store.with_ttl_ms(self.ttl.map(millis)).with_default_engine(is_default); // a ttl is for `build` to refuse
        let store = if caching { store.with_caching() } else { store };
        match self.logging {
            Some(config) => store.with_logging(config),
            None => store.without_logging(),
        }
    }
}
