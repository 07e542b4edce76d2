use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::serdes::{DynSerde, Serde};
use crate::state::{Changelog, EngineKind, KeyValueStore, StoreBuilder, StoreKind, WindowKind, WindowStore};
use crate::topology::TopologyBuilder;
use crate::window::JoinWindows;

/// How a join of two streams reads and writes keys and values, and what it is called.
///
/// It keeps the records of each side in a window store, and a left or outer join those that nothing has joined yet in a
/// third store: on disk, and backed by changelog topics, unless said otherwise.
pub struct StreamJoined<K, V, VO> {
    pub(super) key: DynSerde<K>,
    pub(super) value: DynSerde<V>,
    pub(super) other_value: DynSerde<VO>,
    pub(super) name: Option<String>,
    store_name: Option<String>,
    logging: Option<BTreeMap<String, String>>,
    /// None: what the builder says.
    engine: Option<EngineKind>,
    this_store: Option<StoreBuilder<WindowStore<K, V>>>,
    other_store: Option<StoreBuilder<WindowStore<K, VO>>>,
}

impl<K: 'static, V: 'static, VO: 'static> StreamJoined<K, V, VO> {
    /// With these serdes: of the keys, of the values of the stream that is joined, and of the other one's.
    pub fn with(
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
        other_value: impl Serde<Item = VO>,
    ) -> StreamJoined<K, V, VO> {
        StreamJoined {
            key: Arc::new(key),
            value: Arc::new(value),
            other_value: Arc::new(other_value),
            name: None,
            store_name: None,
            logging: Some(BTreeMap::new()),
            engine: None,
            this_store: None,
            other_store: None,
        }
    }

    /// Names the join and its repartition topics, `<application>-<name>-left-repartition` and `…-right-repartition`.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        StreamJoined { name: Some(name.to_owned()), ..self }
    }

    /// Begins the names of the stores, and with them those of the changelog topics.
    #[must_use]
    pub fn with_store_name(self, name: &str) -> Self {
        StreamJoined { store_name: Some(name.to_owned()), ..self }
    }

    /// Settings of the changelog topics above the defaults, by Kafka's names.
    #[must_use]
    pub fn with_logging(self, config: BTreeMap<String, String>) -> Self {
        StreamJoined { logging: Some(config), ..self }
    }

    /// No changelogs: what waits for partners is lost with its task.
    #[must_use]
    pub fn without_logging(self) -> Self {
        StreamJoined { logging: None, ..self }
    }

    /// Keeps everything in memory; it is restored from the changelogs at every start.
    #[must_use]
    pub fn in_memory(self) -> Self {
        StreamJoined { engine: Some(EngineKind::Memory), ..self }
    }

    /// Keeps everything on disk. The default.
    #[must_use]
    pub fn persistent(self) -> Self {
        StreamJoined { engine: Some(EngineKind::Persistent), ..self }
    }

    /// Keeps the records of this side in a store of one's own, made with `Stores::window`: its window is as long as the
    /// join's, it retains that plus the grace period, and it retains duplicates.
    ///
    /// Records and changelogs are those of the join's own stores, and processors that read the store find it in the order of
    /// Java's. That order has a price in memory, as in Java: rows of a [`Stores::in_memory_window`](crate::Stores) lie by
    /// time, so a record looks at every time of its window. With [`in_memory`](StreamJoined::in_memory) alone they lie by key.
    #[must_use]
    pub fn with_this_store(self, store: &StoreBuilder<WindowStore<K, V>>) -> Self {
        StreamJoined { this_store: Some(store.clone()), ..self }
    }

    /// The same for the other side.
    #[must_use]
    pub fn with_other_store(self, store: &StoreBuilder<WindowStore<K, VO>>) -> Self {
        StreamJoined { other_store: Some(store.clone()), ..self }
    }

    /// The store of this side; the suffix follows the given name, `generated` stands where there is none.
    pub(super) fn this_window(
        &self,
        graph: &mut TopologyBuilder,
        windows: &JoinWindows,
        suffix: &str,
        generated: &str,
    ) -> StoreBuilder<WindowStore<K, V>> {
        match &self.this_store {
            Some(store) => fitting(graph, windows, store),
            None => self.window(graph, windows, suffix, generated, &self.value),
        }
    }

    /// The store of the other side.
    pub(super) fn other_window(
        &self,
        graph: &mut TopologyBuilder,
        windows: &JoinWindows,
        suffix: &str,
        generated: &str,
    ) -> StoreBuilder<WindowStore<K, VO>> {
        match &self.other_store {
            Some(store) => fitting(graph, windows, store),
            None => self.window(graph, windows, suffix, generated, &self.other_value),
        }
    }

    /// The store of records that nothing has joined yet.
    pub(super) fn unmatched(
        &self,
        graph: &mut TopologyBuilder,
        suffix: &str,
        generated: &str,
    ) -> StoreBuilder<KeyValueStore<Vec<u8>, Vec<u8>>> {
        let this = self.this_store.as_ref();
        let base = this.map(|store| store.name()).or(self.store_name.as_deref());
        let name = self.store_name(graph, base.map(|base| format!("{base}{suffix}")), generated);
        let own = self.engine.unwrap_or(graph.default_engine);
        let engine = this.map_or(own, |store| store.spec.engine);
        let bytes = || Arc::new(crate::serdes::Bytes);
        let store = StoreBuilder::key_value(&name, StoreKind::KeyValue, engine, bytes(), bytes())
            .with_default_engine(this.is_none() && self.engine.is_none());
        match &self.logging {
            Some(config) => store.with_logging(config.clone()),
            None => store.without_logging(),
        }
    }

    fn window<T: 'static>(
        &self,
        graph: &mut TopologyBuilder,
        windows: &JoinWindows,
        suffix: &str,
        generated: &str,
        value: &DynSerde<T>,
    ) -> StoreBuilder<WindowStore<K, T>> {
        let base = self.store_name.as_ref().map(|base| format!("{base}{suffix}"));
        let name = self.store_name(graph, base, generated);
        let engine = self.engine.unwrap_or(graph.default_engine);
        let kind = WindowKind::for_join(windows.retention_ms(), windows.size_ms(), engine);
        let store =
            StoreBuilder::<WindowStore<K, T>>::window(&name, kind, engine, Arc::clone(&self.key), Arc::clone(value))
                .with_logged_headers()
                .with_row_times_of_records()
                .with_default_engine(self.engine.is_none());
        match &self.logging {
            Some(config) => {
                // Rows of one key differ by a number, so there is nothing to compact.
                let mut config = config.clone();
                config.insert("cleanup.policy".to_owned(), "delete".to_owned());
                store.with_logging(config)
            }
            None => store.without_logging(),
        }
    }

    fn store_name(&self, graph: &mut TopologyBuilder, given: Option<String>, generated: &str) -> String {
        let is_given = given.is_some();
        let name = format!("{}-store", given.unwrap_or_else(|| generated.to_owned()));
        if !is_given {
            graph.generated(format!("store {name} (name it with StreamJoined::with_store_name)"));
        }
        name
    }

    /// Sentences about stores of one's own that cannot be right together.
    pub(super) fn check(&self, graph: &mut TopologyBuilder) {
        if let (Some(this), Some(other)) = (&self.this_store, &self.other_store)
            && this.name() == other.name()
        {
            graph.mistake(format!("both sides of a join keep their records in {}: give each a store", this.name()));
        }
    }
}

/// A store of the user's, if it holds what the join needs.
fn fitting<K, T>(
    graph: &mut TopologyBuilder,
    windows: &JoinWindows,
    store: &StoreBuilder<WindowStore<K, T>>,
) -> StoreBuilder<WindowStore<K, T>> {
    let (retention_ms, window_ms) = (windows.retention_ms(), windows.size_ms());
    if let StoreKind::Window(kind) = store.spec.kind {
        let fits = kind.retention_ms == retention_ms && kind.window_ms == window_ms && kind.retains_duplicates;
        if !fits || store.spec.caching {
            let millis = |millis: i64| Duration::from_millis(u64::try_from(millis).unwrap_or(0));
            graph.mistake(format!(
                "store {} does not fit its join: make it with a retention of {:?}, a window size of {:?}, with duplicates \
                 and without a cache",
                store.name(),
                millis(retention_ms),
                millis(window_ms),
            ));
        }
    }
    let store = store.clone().with_logged_headers();
    match &store.spec.changelog {
        // Java compacts the changelogs of these, unlike those of the join's own.
        Changelog::Topic { config } => {
            let mut config = config.clone();
            config.entry("cleanup.policy".to_owned()).or_insert_with(|| "compact,delete".to_owned());
            store.with_logging(config)
        }
        Changelog::Off | Changelog::Source { .. } => store,
    }
}

impl<K, V, VO> Clone for StreamJoined<K, V, VO> {
    fn clone(&self) -> Self {
        StreamJoined {
            key: Arc::clone(&self.key),
            value: Arc::clone(&self.value),
            other_value: Arc::clone(&self.other_value),
            name: self.name.clone(),
            store_name: self.store_name.clone(),
            logging: self.logging.clone(),
            engine: self.engine,
            this_store: self.this_store.clone(),
            other_store: self.other_store.clone(),
        }
    }
}

impl<K, V, VO> fmt::Debug for StreamJoined<K, V, VO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamJoined")
            .field("name", &self.name)
            .field("store_name", &self.store_name)
            .finish_non_exhaustive()
    }
}
