//! Joins of streams.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::kstream::one_name;
use super::repartition::Repartition;
use super::{Joined, KStream, KTable};
use crate::operators::ValueJoiner;
use crate::operators::grace_join::{BufferRows, GraceBuffer, GraceJoin};
use crate::operators::stream_table_join::{JoinKind, StreamTableJoin};
use crate::serdes::{Bytes, DynSerde};
use crate::state::{EngineKind, StoreKind};
use crate::topology::{NodeSpec, ProcessorInit, Role, TopologyBuilder};
use crate::window::millis;

impl<K: 'static, V: 'static> KStream<K, V> {
    /// Looks up the row of the table for each record of the stream, and drops the record when there is none. Changes of
    /// the table join nothing.
    ///
    /// A record with a null key or value is dropped and counted. The topics of both must have as many partitions; the
    /// stream is repartitioned when its key was changed.
    ///
    /// ```
    /// # use kstreams::*;
    /// let builder = StreamsBuilder::new();
    /// let customers = builder.table("customers", Consumed::with(Utf8, Utf8), Materialized::default());
    /// builder
    ///     .stream("orders", Consumed::with(Utf8, Utf8))
    ///     .join(&customers, |order, customer| format!("{order} by {customer}"), Joined::with(Utf8, Utf8))
    ///     .to("enriched", Produced::with(Utf8, Utf8));
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn join<VT: 'static, VR: 'static>(
        self,
        table: &KTable<K, VT>,
        joiner: impl Fn(V, VT) -> VR + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, VR> {
        self.join_with_key(table, move |_, value, row| joiner(value, row), joined)
    }

    /// The same with a look at the key.
    pub fn join_with_key<VT: 'static, VR: 'static>(
        self,
        table: &KTable<K, VT>,
        joiner: impl Fn(&K, V, VT) -> VR + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, VR> {
        let joiner: ValueJoiner<K, V, VT, VR> = Arc::new(move |key, value, row| Some(joiner(key, value, row?)));
        self.join_table(JoinKind::Inner, table, joiner, joined)
    }

    /// Joins each record of the stream with the row of the table, or with none. A record with a null key finds no row but
    /// is kept; one with a null value is dropped and counted.
    pub fn left_join<VT: 'static, VR: 'static>(
        self,
        table: &KTable<K, VT>,
        joiner: impl Fn(V, Option<VT>) -> VR + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, VR> {
        self.left_join_with_key(table, move |_, value, row| joiner(value, row), joined)
    }

    /// The same with a look at the key.
    pub fn left_join_with_key<VT: 'static, VR: 'static>(
        self,
        table: &KTable<K, VT>,
        joiner: impl Fn(&K, V, Option<VT>) -> VR + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, VR> {
        let joiner: ValueJoiner<K, V, VT, VR> = Arc::new(move |key, value, row| Some(joiner(key, value, row)));
        self.join_table(JoinKind::Left, table, joiner, joined)
    }

    fn join_table<VT: 'static, VR: 'static>(
        mut self,
        kind: JoinKind,
        table: &KTable<K, VT>,
        joiner: ValueJoiner<K, V, VT, VR>,
        joined: Joined<K, V>,
    ) -> KStream<K, VR> {
        let given = self.take_given();
        let Joined { key, value, name, grace, as_of } = joined;
        let name = one_name(&mut self.graph.borrow_mut(), given, name);
        let stream = match self.repartition_required {
            true => self.repartition_for_join(&key, &value, name.as_deref(), "Joined::named"),
            false => self,
        };
        let mut graph = stream.graph.borrow_mut();
        let prefix = match kind {
            JoinKind::Inner => "KSTREAM-JOIN-",
            JoinKind::Left => "KSTREAM-LEFTJOIN-",
        };
        let is_named = name.is_some();
        let name = graph.name_or(name, prefix);
        let mut stores = if Rc::ptr_eq(&stream.graph, &table.graph) {
            (table.table.materialize)(&mut graph)
        } else {
            graph.mistake(format!("{name} joins a stream and a table of two builders: begin both with the same one"));
            Vec::new()
        };
        let topics: BTreeSet<_> =
            [stream.node, table.node].into_iter().flat_map(|node| graph.source_topics_of(node)).collect();
        graph.copartition(topics);
        if as_of.is_some() && !table.table.is_versioned {
            graph.mistake(format!(
                "{name} looks into the past of a table that does not remember what its rows were: make it with \
                 Materialized::as_versioned, or leave out Joined::as_of"
            ));
        }
        let buffer = grace.map(|grace| {
            check_grace(&mut graph, &name, grace, table.table.is_versioned, &stores);
            let buffer = buffer(&mut graph, &name, is_named);
            stores.push(Arc::clone(&buffer.spec.name));
            (buffer, millis(grace))
        });
        drop(graph);
        let view = Arc::clone(&table.table.view);
        let join = {
            let (key, value) = (Arc::clone(&key), Arc::clone(&value));
            move |init: &mut ProcessorInit<'_>| {
                let (key, value, joiner) = (Arc::clone(&key), Arc::clone(&value), Arc::clone(&joiner));
                let as_of = as_of.as_ref().map(Arc::clone);
                Ok(StreamTableJoin { name: init.node_name(), kind, key, value, table: view(init)?, joiner, as_of })
            }
        };
        let node = match buffer {
            None => NodeSpec::processor::<K, V, _>(&name, join),
            Some((rows, grace_ms)) => NodeSpec::processor::<K, V, _>(&name, move |init| {
                let buffer = GraceBuffer::new(&init.store(&rows)?, Arc::clone(&key), Arc::clone(&value), grace_ms);
                Ok(GraceJoin { join: join(init)?, buffer })
            }),
        };
        let role = match kind {
            JoinKind::Inner => Role::Other,
            JoinKind::Left => Role::WantsNullKeys,
        };
        stream.attach(node.with_stores(stores).with_role(role))
    }

    /// Sends the records through a topic, under the name of the join or else of the stream.
    pub(super) fn repartition_for_join(
        self,
        key: &DynSerde<K>,
        value: &DynSerde<V>,
        name: Option<&str>,
        remedy: &'static str,
    ) -> KStream<K, V> {
        let remedy = name.is_none().then_some(remedy);
        let own = self.node_name();
        let (partitions, partitioner) = (None, None);
        let prefix = name.unwrap_or(&own);
        let repartition = Repartition { prefix, remedy, key, value, partitions, partitioner };
        let node = repartition.append_for_join(&mut self.graph.borrow_mut(), self.node);
        KStream::new(&self.graph, node)
    }
}

/// A table has to remember what its rows were for as long as records wait for it.
fn check_grace(graph: &mut TopologyBuilder, join: &str, grace: Duration, is_versioned: bool, stores: &[Arc<str>]) {
    if !is_versioned {
        graph.mistake(format!(
            "{join} waits {grace:?} for a table that does not remember what its rows were: make it with \
             Materialized::as_versioned, or leave out Joined::with_grace_period"
        ));
    }
    for store in stores {
        if let Some(history_ms) = graph.history_ms(store).filter(|history_ms| *history_ms < millis(grace)) {
            graph.mistake(format!(
                "{join} waits {grace:?} for the table of store {store}, which remembers only {history_ms} ms: let it keep \
                 at least as much"
            ));
        }
    }
}

/// The store of the records that wait.
fn buffer(graph: &mut TopologyBuilder, join: &str, is_named: bool) -> BufferRows {
    let name = format!("{join}-Buffer");
    if !is_named {
        graph.generated(format!("store {name} (name it with Joined::named)"));
    }
    let bytes = || Arc::new(Bytes);
    let buffer = BufferRows::key_value(&name, StoreKind::KeyValue, EngineKind::Persistent, bytes(), bytes());
    graph.add_store(Arc::clone(&buffer.spec));
    buffer
}
