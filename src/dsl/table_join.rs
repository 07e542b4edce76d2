//! Joins of tables on their key.

use std::rc::Rc;
use std::sync::Arc;

use super::kstream::claim;
use super::table_node::{OldValues, Table, TableStoreOption, connect_store};
use super::{KTable, Materialized};
use crate::operators::table::{View, ViewMaker};
use crate::operators::table_join::{JoinedView, MergeJoined, TableJoinKind, TableJoiner, TableTableJoin};
use crate::record::Change;
use crate::topology::{NodeId, NodeSpec, ProcessorInit, TopologyBuilder};

/// Joins of two tables of the same keys (KIP-914 for versioned ones).
///
/// A change of either table makes a change of the result, whose time is that of the later of the two rows. Both tables get
/// a store if they have none. Their topics must have as many partitions. An update of a versioned table that came out of
/// order joins nothing; it is dropped and counted.
///
/// Differs from what one might expect, but not from Kafka Streams: where both tables are cached, an inner join hears nothing
/// when both rows of a key are deleted before the same commit, and keeps its result. Where that matters, make one of them
/// [without caching](Materialized::without_caching).
///
/// A joiner may be called for the row before as well, and again for each reader of a result without a store: the same rows
/// have to give the same result.
impl<K: Clone + 'static, V: 'static> KTable<K, V> {
    /// A row for each key that both tables have. A key that one of the tables loses is deleted.
    ///
    /// ```
    /// # use kstreams::*;
    /// let builder = StreamsBuilder::new();
    /// let prices = builder.table("prices", Consumed::with(Utf8, F64), Materialized::default());
    /// let stock = builder.table("stock", Consumed::with(Utf8, I64), Materialized::default());
    /// prices
    ///     .join(&stock, |price, pieces| price * pieces as f64)
    ///     .to_stream()
    ///     .to("worth", Produced::with(Utf8, F64));
    ///
    /// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// driver.create_input_topic("prices", Utf8, F64).pipe(&mut driver, "nail", 0.5)?;
    /// driver.create_input_topic("stock", Utf8, I64).pipe(&mut driver, "nail", 100)?;
    /// let worth = driver.create_output_topic("worth", Utf8, F64).read_key_values(&mut driver)?;
    /// assert_eq!(worth, [("nail".to_owned(), 50.0)]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn join<VO: Clone + 'static, VR: 'static>(
        self,
        other: &KTable<K, VO>,
        joiner: impl Fn(V, VO) -> VR + Send + Sync + 'static,
    ) -> KTable<K, VR> {
        self.join_filter_map(other, move |this, other| Some(joiner(this, other)))
    }

    /// The same with a joiner that may give no row.
    pub fn join_filter_map<VO: Clone + 'static, VR: 'static>(
        self,
        other: &KTable<K, VO>,
        joiner: impl Fn(V, VO) -> Option<VR> + Send + Sync + 'static,
    ) -> KTable<K, VR> {
        self.join_rows(TableJoinKind::Inner, other, inner(joiner), None)
    }

    /// The same with a store. The joiner gives a row, or an `Option` where none is no row. Needs the serde of the result,
    /// from [`Materialized::with_value_serde`].
    pub fn join_materialized<VO: Clone + 'static, VR: 'static, R: Into<Option<VR>>>(
        self,
        other: &KTable<K, VO>,
        joiner: impl Fn(V, VO) -> R + Send + Sync + 'static,
        materialized: Materialized<K, VR>,
    ) -> KTable<K, VR> {
        let joiner = inner(move |this, other| joiner(this, other).into());
        self.join_rows(TableJoinKind::Inner, other, joiner, Some(materialized))
    }

    /// A row for each key of this table, with the row of the other, or with none. See [`join`](KTable::join).
    pub fn left_join<VO: Clone + 'static, VR: 'static>(
        self,
        other: &KTable<K, VO>,
        joiner: impl Fn(V, Option<VO>) -> VR + Send + Sync + 'static,
    ) -> KTable<K, VR> {
        self.left_join_filter_map(other, move |this, other| Some(joiner(this, other)))
    }

    /// The same with a joiner that may give no row.
    pub fn left_join_filter_map<VO: Clone + 'static, VR: 'static>(
        self,
        other: &KTable<K, VO>,
        joiner: impl Fn(V, Option<VO>) -> Option<VR> + Send + Sync + 'static,
    ) -> KTable<K, VR> {
        self.join_rows(TableJoinKind::Left, other, left(joiner), None)
    }

    /// The same with a store. See [`join_materialized`](KTable::join_materialized).
    pub fn left_join_materialized<VO: Clone + 'static, VR: 'static, R: Into<Option<VR>>>(
        self,
        other: &KTable<K, VO>,
        joiner: impl Fn(V, Option<VO>) -> R + Send + Sync + 'static,
        materialized: Materialized<K, VR>,
    ) -> KTable<K, VR> {
        let joiner = left(move |this, other| joiner(this, other).into());
        self.join_rows(TableJoinKind::Left, other, joiner, Some(materialized))
    }

    /// A row for each key that one of the tables has; the joiner gets one row at least. See [`join`](KTable::join).
    pub fn outer_join<VO: Clone + 'static, VR: 'static>(
        self,
        other: &KTable<K, VO>,
        joiner: impl Fn(Option<V>, Option<VO>) -> VR + Send + Sync + 'static,
    ) -> KTable<K, VR> {
        self.outer_join_filter_map(other, move |this, other| Some(joiner(this, other)))
    }

    /// The same with a joiner that may give no row.
    pub fn outer_join_filter_map<VO: Clone + 'static, VR: 'static>(
        self,
        other: &KTable<K, VO>,
        joiner: impl Fn(Option<V>, Option<VO>) -> Option<VR> + Send + Sync + 'static,
    ) -> KTable<K, VR> {
        self.join_rows(TableJoinKind::Outer, other, Arc::new(joiner), None)
    }

    /// The same with a store. See [`join_materialized`](KTable::join_materialized).
    pub fn outer_join_materialized<VO: Clone + 'static, VR: 'static, R: Into<Option<VR>>>(
        self,
        other: &KTable<K, VO>,
        joiner: impl Fn(Option<V>, Option<VO>) -> R + Send + Sync + 'static,
        materialized: Materialized<K, VR>,
    ) -> KTable<K, VR> {
        let joiner: TableJoiner<V, VO, VR> = Arc::new(move |this, other| joiner(this, other).into());
        self.join_rows(TableJoinKind::Outer, other, joiner, Some(materialized))
    }

    fn join_rows<VO: Clone + 'static, VR: 'static>(
        mut self,
        kind: TableJoinKind,
        other: &KTable<K, VO>,
        joiner: TableJoiner<V, VO, VR>,
        materialized: Option<Materialized<K, VR>>,
    ) -> KTable<K, VR> {
        let other = other.clone();
        let handle = Rc::clone(&self.graph);
        let mut graph = handle.borrow_mut();
        let store = materialized.map(|store| store.store(&mut graph, "KTABLE-MERGE-", Some(&self.table.key), None));
        let given = claim(&mut graph, self.given.take());
        let side = |side: &str| given.as_ref().map(|given| format!("{given}-join-{side}"));
        let (this_side, other_side) = (side("this"), side("other"));
        let merge = graph.name_or(given, "KTABLE-MERGE-");
        let this_side = graph.name_or(this_side, "KTABLE-JOINTHIS-");
        let other_side = graph.name_or(other_side, "KTABLE-JOINOTHER-");
        let sides = if Rc::ptr_eq(&handle, &other.graph) {
            let topics = [self.node, other.node].into_iter().flat_map(|node| graph.source_topics_of(node)).collect();
            graph.copartition(topics);
            append_sides(&mut graph, kind, (&this_side, &self), (&other_side, &other), &joiner)
        } else {
            graph.mistake(format!("{merge} joins tables of two builders: begin both with the same one"));
            Vec::new()
        };
        let spec = store.as_ref().map(|store| store.spec.clone());
        let make = move |init: &mut ProcessorInit<'_>| {
            let rows = spec.as_ref().map(|spec| spec.open(init)).transpose()?;
            Ok(MergeJoined { rows })
        };
        let node = graph.append(NodeSpec::processor::<K, Change<VR>, _>(&merge, make), &sides);
        if let Some(store) = &store {
            connect_store(&mut graph, node, &store.spec, store.is_named);
        }
        let table = joined_table(node, sides, kind, &self.table, &other.table, store, joiner);
        KTable::new(&handle, node, table)
    }
}

/// The two nodes in which the changes of one table meet the rows of the other.
fn append_sides<K: 'static, V: 'static, VO: 'static, VR: 'static>(
    graph: &mut TopologyBuilder,
    kind: TableJoinKind,
    (this_side, this): (&str, &KTable<K, V>),
    (other_side, other): (&str, &KTable<K, VO>),
    joiner: &TableJoiner<V, VO, VR>,
) -> Vec<NodeId> {
    if matches!(kind, TableJoinKind::Left | TableJoinKind::Outer) {
        (this.table.send_old_values)(graph, OldValues::Needed);
    }
    if kind == TableJoinKind::Outer {
        (other.table.send_old_values)(graph, OldValues::Needed);
    }
    let (this_stores, other_stores) = ((this.table.materialize)(graph), (other.table.materialize)(graph));
    let reversed: TableJoiner<VO, V, VR> = {
        let joiner = Arc::clone(joiner);
        Arc::new(move |other, this| joiner(this, other))
    };
    let from_this = join_node(this_side, kind, &this.table, &other.table, Arc::clone(joiner)).with_stores(other_stores);
    let from_this = graph.append(from_this, &[this.node]);
    let from_other = join_node(other_side, kind.reversed(), &other.table, &this.table, reversed);
    let from_other = graph.append(from_other.with_stores(this_stores), &[other.node]);
    vec![from_this, from_other]
}

fn inner<V: 'static, VO: 'static, VR: 'static>(
    joiner: impl Fn(V, VO) -> Option<VR> + Send + Sync + 'static,
) -> TableJoiner<V, VO, VR> {
    Arc::new(move |this, other| joiner(this?, other?))
}

fn left<V: 'static, VO: 'static, VR: 'static>(
    joiner: impl Fn(V, Option<VO>) -> Option<VR> + Send + Sync + 'static,
) -> TableJoiner<V, VO, VR> {
    Arc::new(move |this, other| joiner(this?, other))
}

/// The side of a join that takes the changes of one table and reads the rows of the other.
fn join_node<K: 'static, V: 'static, VO: 'static, VR: 'static>(
    name: &str,
    kind: TableJoinKind,
    this: &Table<K, V>,
    other: &Table<K, VO>,
    joiner: TableJoiner<V, VO, VR>,
) -> NodeSpec {
    let (view, is_versioned) = (Arc::clone(&other.view), this.is_versioned);
    NodeSpec::processor::<K, Change<V>, _>(name, move |init| {
        Ok(TableTableJoin {
            name: init.node_name(),
            kind,
            other: view(init)?,
            joiner: Arc::clone(&joiner),
            is_versioned,
            sends_old_values: init.sends_old_values(),
        })
    })
}

/// What others can do with the result.
fn joined_table<K: 'static, V: 'static, VO: 'static, VR: 'static>(
    node: NodeId,
    sides: Vec<NodeId>,
    kind: TableJoinKind,
    this: &Table<K, V>,
    other: &Table<K, VO>,
    store: Option<TableStoreOption<K, VR>>,
    joiner: TableJoiner<V, VO, VR>,
) -> Table<K, VR> {
    // Old results are made of old rows, whether there is a store or not.
    let (this_old, other_old) = (Rc::clone(&this.send_old_values), Rc::clone(&other.send_old_values));
    let send_old_values = Rc::new(move |graph: &mut TopologyBuilder, _: OldValues| {
        this_old(graph, OldValues::Needed);
        other_old(graph, OldValues::Needed);
        sides.iter().chain([&node]).for_each(|node| graph.send_old_values(*node));
        true
    });
    if let Some(store) = store {
        // Java can query it under a generated name as well.
        let queryable = Some(store.spec.name().to_owned());
        return Table { queryable, send_old_values, ..Table::stored(node, store) };
    }
    let (this_view, other_view) = (Arc::clone(&this.view), Arc::clone(&other.view));
    let view: ViewMaker<K, VR> = Arc::new(move |init| {
        let (this, other) = (this_view(init)?, other_view(init)?);
        let view: Box<dyn View<K, VR>> = Box::new(JoinedView { kind, this, other, joiner: Arc::clone(&joiner) });
        Ok(view)
    });
    let (this_stores, other_stores) = (Rc::clone(&this.materialize), Rc::clone(&other.materialize));
    let materialize = Rc::new(move |graph: &mut TopologyBuilder| {
        let mut stores = this_stores(graph);
        stores.extend(other_stores(graph));
        stores
    });
    let key = Arc::clone(&this.key);
    Table { key, value: None, queryable: None, is_versioned: false, view, materialize, send_old_values }
}
