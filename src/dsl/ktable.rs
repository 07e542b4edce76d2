use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::builder::Graph;
use super::kstream::{claim, one_name};
use super::table_node::{OldValues, Table, TableStoreOption, connect_store};
use super::{Grouped, KGroupedTable, KStream, Materialized, Processed};
use crate::error::Result;
use crate::operators::table::{FilteredView, MappedView, TableFilter, TableMapValues, ToStream, View, ViewMaker};
use crate::operators::table_aggregate::SelectGroup;
use crate::operators::table_store::{TableStore, TableStoreSpec};
use crate::operators::{KeySelector, Predicate, RowMapper};
use crate::record::Change;
use crate::serdes::DynSerde;
use crate::topology::{NodeId, NodeSpec, Processor, ProcessorInit, TopologyBuilder};

/// The one operator on rows that uses up no number for a store it does not have.
pub(super) const TRANSFORM_VALUES: &str = "KTABLE-TRANSFORMVALUES-";

/// A table: the last value of each key. Its changes travel like records; its rows can be joined with.
///
/// A table that is filtered or mapped has rows of its own only if it is [named](Materialized::named); otherwise a reader
/// computes them from the table before. A method takes the handle, so a table has one child; `clone()` it for another.
pub struct KTable<K, V> {
    pub(super) graph: Graph,
    pub(super) node: NodeId,
    pub(super) table: Table<K, V>,
    pub(super) given: Option<String>,
}

impl<K: Clone + 'static, V: Clone + 'static> Clone for KTable<K, V> {
    fn clone(&self) -> Self {
        self.graph.borrow_mut().duplicate::<K, Change<V>>(self.node);
        KTable::new(&self.graph, self.node, self.table.clone())
    }
}

impl<K: 'static, V: 'static> KTable<K, V> {
    pub(super) fn new(graph: &Graph, node: NodeId, table: Table<K, V>) -> KTable<K, V> {
        KTable { graph: Rc::clone(graph), node, table, given: None }
    }

    /// Gives the next operator on this handle a name: see [`KStream::named`].
    #[must_use = "a name that no operator takes is refused by build"]
    pub fn named(mut self, name: &str) -> Self {
        self.graph.borrow_mut().announce(name);
        if let Some(earlier) = self.given.replace(name.to_owned()) {
            self.graph.borrow_mut().mistake(format!("an operator is named twice, {earlier} and {name}: name it once"));
        }
        self
    }

    /// The name under which the rows can be queried; none for a table without a store of a given name.
    pub fn queryable_name(&self) -> Option<&str> {
        self.table.queryable.as_deref()
    }

    /// Keeps the rows for which the predicate holds. A row that no longer passes is deleted, and so is one that never
    /// passed, unless the table before has a store: only then is it known.
    #[must_use = "a table that nobody reads is not worth making"]
    pub fn filter(self, keep: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> KTable<K, V> {
        self.filter_with(Arc::new(keep), None)
    }

    /// The same with a store of its own.
    #[expect(clippy::return_self_not_must_use, reason = "its store can be queried")]
    pub fn filter_materialized(
        self,
        keep: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
        materialized: Materialized<K, V>,
    ) -> KTable<K, V> {
        self.filter_with(Arc::new(keep), Some(materialized))
    }

    /// Keeps the rows for which the predicate does not hold: see [`filter`](KTable::filter).
    #[must_use = "a table that nobody reads is not worth making"]
    pub fn filter_not(self, drop: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> KTable<K, V> {
        self.filter(move |key, row| !drop(key, row))
    }

    /// The same with a store of its own.
    #[expect(clippy::return_self_not_must_use, reason = "its store can be queried")]
    pub fn filter_not_materialized(
        self,
        drop: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
        materialized: Materialized<K, V>,
    ) -> KTable<K, V> {
        self.filter_materialized(move |key, row| !drop(key, row), materialized)
    }

    /// Maps each row. Not called for a deletion, which stays one.
    pub fn map_values<V2: 'static>(self, map: impl Fn(&V) -> V2 + Send + Sync + 'static) -> KTable<K, V2> {
        self.filter_map_values(move |_, row| Some(map(row)))
    }

    /// The same with a store of its own.
    pub fn map_values_materialized<V2: 'static>(
        self,
        map: impl Fn(&V) -> V2 + Send + Sync + 'static,
        materialized: Materialized<K, V2>,
    ) -> KTable<K, V2> {
        self.filter_map_values_materialized(move |_, row| Some(map(row)), materialized)
    }

    /// Maps each row with a look at the key.
    pub fn map_values_with_key<V2: 'static>(self, map: impl Fn(&K, &V) -> V2 + Send + Sync + 'static) -> KTable<K, V2> {
        self.filter_map_values(move |key, row| Some(map(key, row)))
    }

    /// The same with a store of its own.
    pub fn map_values_with_key_materialized<V2: 'static>(
        self,
        map: impl Fn(&K, &V) -> V2 + Send + Sync + 'static,
        materialized: Materialized<K, V2>,
    ) -> KTable<K, V2> {
        self.filter_map_values_materialized(move |key, row| Some(map(key, row)), materialized)
    }

    /// Maps each row, or deletes it: none.
    pub fn filter_map_values<V2: 'static>(
        self,
        map: impl Fn(&K, &V) -> Option<V2> + Send + Sync + 'static,
    ) -> KTable<K, V2> {
        self.map_with(Arc::new(map), None)
    }

    /// The same with a store of its own.
    pub fn filter_map_values_materialized<V2: 'static>(
        self,
        map: impl Fn(&K, &V) -> Option<V2> + Send + Sync + 'static,
        materialized: Materialized<K, V2>,
    ) -> KTable<K, V2> {
        self.map_with(Arc::new(map), Some(materialized))
    }

    /// The changes as a stream; none is a deleted row. A sink writes it as a null:
    ///
    /// ```
    /// # use kstreams::*;
    /// # let builder = StreamsBuilder::new();
    /// # let table = builder.table("in", Consumed::with(Utf8, I64), Materialized::default());
    /// table.to_stream().to("out", Produced::with(Utf8, I64));
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_stream(self) -> KStream<K, Option<V>> {
        self.to_stream_with(|row| row)
    }

    /// The changes as a stream; the function says what a deleted row becomes.
    pub fn to_stream_with<V2: 'static>(
        mut self,
        map: impl Fn(Option<V>) -> V2 + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        let map: Arc<dyn Fn(Option<V>) -> V2 + Send + Sync> = Arc::new(map);
        let mut graph = self.graph.borrow_mut();
        let given = claim(&mut graph, self.given.take());
        let name = graph.name_or(given, "KTABLE-TOSTREAM-");
        let node = NodeSpec::processor::<K, Change<V>, _>(&name, move |_| Ok(ToStream { map: Arc::clone(&map) }));
        let node = graph.append(node, &[self.node]);
        KStream::new(&self.graph, node)
    }

    /// The changes as a stream under new keys. They are taken for changed: grouping or joining repartitions.
    pub fn to_stream_by<K2: 'static>(
        self,
        select: impl Fn(&K, &Option<V>) -> K2 + Send + Sync + 'static,
    ) -> KStream<K2, Option<V>> {
        self.to_stream().select_key(select)
    }

    /// Groups the rows by something else than their key: `Fn(&key, &row) -> (group, part of the row)`, where none leaves
    /// the row out. So does a null key or part.
    ///
    /// Goes through a repartition topic in any case. Gives the table before a store, if it has none: a change has to say
    /// which group a row leaves.
    pub fn group_by<K2, V2, R>(
        mut self,
        select: impl Fn(&K, &V) -> R + Send + Sync + 'static,
        grouped: Grouped<K2, V2>,
    ) -> KGroupedTable<K2, V2>
    where
        K2: 'static,
        V2: 'static,
        R: Into<Option<(K2, V2)>>,
    {
        let select: KeySelector<K, V, Option<(K2, V2)>> = Arc::new(move |key, row| select(key, row).into());
        let (key, value) = (Arc::clone(&grouped.key), Arc::clone(&grouped.value));
        let is_versioned = self.table.is_versioned;
        let mut graph = self.graph.borrow_mut();
        let name = one_name(&mut graph, self.given.take(), grouped.name.clone());
        let name = graph.name_or(name, "KTABLE-SELECT-");
        let node = NodeSpec::processor::<K, Change<V>, _>(&name, move |init| {
            let (select, key, value) = (Arc::clone(&select), Arc::clone(&key), Arc::clone(&value));
            let combines = !init.task.environment.writes_as(3, 4);
            Ok(SelectGroup { select, key, value, is_versioned, combines, old_key: Vec::new(), new_key: Vec::new() })
        });
        let node = graph.append(node, &[self.node]);
        (self.table.send_old_values)(&mut graph, OldValues::Needed);
        KGroupedTable::new(&self.graph, node, grouped)
    }

    fn filter_with(self, keep: Predicate<K, V>, materialized: Option<Materialized<K, V>>) -> KTable<K, V> {
        let (parent, predicate) = (Arc::clone(&self.table.view), Arc::clone(&keep));
        let view: ViewMaker<K, V> = Arc::new(move |init| {
            let view: Box<dyn View<K, V>> =
                Box::new(FilteredView { parent: parent(init)?, keep: Arc::clone(&predicate) });
            Ok(view)
        });
        let (value, is_versioned) = (self.table.value.as_ref().map(Arc::clone), self.table.is_versioned);
        let before = Rc::clone(&self.table.send_old_values);
        let prefix = "KTABLE-FILTER-";
        let filtered = self.derive(prefix, materialized, value, Processed::default(), view, move |init, rows| {
            let sends_old_values = init.sends_old_values();
            Ok(TableFilter { keep: Arc::clone(&keep), rows, sends_old_values, is_versioned })
        });
        // Where the table before has rows anyway, the filter need not delete what never passed.
        let mut graph = filtered.graph.borrow_mut();
        if before(&mut graph, OldValues::IfStored) {
            graph.send_old_values(filtered.node);
        }
        drop(graph);
        filtered
    }

    fn map_with<V2: 'static>(
        self,
        map: RowMapper<K, V, V2>,
        materialized: Option<Materialized<K, V2>>,
    ) -> KTable<K, V2> {
        let (parent, mapper) = (Arc::clone(&self.table.view), Arc::clone(&map));
        let view: ViewMaker<K, V2> = Arc::new(move |init| {
            let view: Box<dyn View<K, V2>> = Box::new(MappedView { parent: parent(init)?, map: Arc::clone(&mapper) });
            Ok(view)
        });
        self.derive("KTABLE-MAPVALUES-", materialized, None, Processed::default(), view, move |init, rows| {
            Ok(TableMapValues { map: Arc::clone(&map), rows, sends_old_values: init.sends_old_values() })
        })
    }

    /// A table made of this one row by row: with a store if it is named, otherwise a view of this one.
    pub(super) fn derive<V2: 'static, P>(
        mut self,
        prefix: &str,
        materialized: Option<Materialized<K, V2>>,
        value: Option<DynSerde<V2>>,
        processed: Processed,
        view: ViewMaker<K, V2>,
        make: impl Fn(&mut ProcessorInit<'_>, Option<TableStore<K, V2>>) -> Result<P> + Send + Sync + 'static,
    ) -> KTable<K, V2>
    where
        P: Processor<K, Change<V>, KeyOut = K, ValueOut = Change<V2>>,
    {
        let mut graph = self.graph.borrow_mut();
        let (mut key, mut value) = (Arc::clone(&self.table.key), value);
        let mut is_versioned = self.table.is_versioned;
        let mut store: Option<TableStoreOption<K, V2>> = None;
        if let Some(materialized) = materialized {
            is_versioned = materialized.is_versioned();
            if materialized.name.is_some() {
                store = Some(materialized.store(&mut graph, prefix, Some(&key), value.as_ref()));
            } else {
                if prefix != TRANSFORM_VALUES {
                    graph.name(&format!("{prefix}STATE-STORE-")); // Java counts on, though there is no store
                }
                if materialized.ttl.is_some() {
                    graph.mistake(format!("a table behind {prefix} has no store of its own, so nothing of it can expire: name its store, or leave with_ttl out"));
                }
                (key, value) = materialized.serdes(key, value);
            }
        }
        let given = claim(&mut graph, self.given.take());
        let name = graph.name_or(given, prefix);
        let spec: Option<TableStoreSpec<K, V2>> = store.as_ref().map(|store| store.spec.clone());
        let make = move |init: &mut ProcessorInit<'_>| -> Result<P> {
            let rows = spec.as_ref().map(|spec| spec.open(init)).transpose()?;
            make(init, rows)
        };
        let Processed { connected, own } = processed;
        own.iter().for_each(|store| graph.add_store(Arc::clone(store)));
        graph.note_open_stores(&connected);
        let stores = connected.into_iter().chain(own.iter().map(|store| Arc::clone(&store.name)));
        let node = NodeSpec::processor::<K, Change<V>, _>(&name, make).with_stores(stores);
        let node = graph.append(node, &[self.node]);
        let table = match store {
            Some(store) => {
                connect_store(&mut graph, node, &store.spec, true);
                Table::stored(node, store)
            }
            None => {
                let before = self.table.send_old_values;
                let send_old_values = Rc::new(move |graph: &mut TopologyBuilder, old_values: OldValues| {
                    let sends = before(graph, old_values);
                    if sends {
                        graph.send_old_values(node);
                    }
                    sends
                });
                let materialize = self.table.materialize;
                Table { key, value, queryable: None, is_versioned, view, materialize, send_old_values }
            }
        };
        KTable::new(&self.graph, node, table)
    }
}

impl<K, V> fmt::Debug for KTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KTable").field("node", &self.node).field("store", &self.table.queryable).finish_non_exhaustive()
    }
}
