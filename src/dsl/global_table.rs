//! Tables that every instance holds whole.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::builder::Graph;
use super::kstream::one_name;
use super::{Joined, KStream, Materialized, StreamsBuilder};
use crate::error::Result;
use crate::operators::global_join::GlobalJoin;
use crate::operators::stream_table_join::JoinKind;
use crate::operators::table::{TableSource, ViewMaker};
use crate::operators::{KeySelector, ValueJoiner};
use crate::serdes::DynSerde;
use crate::state::StoreBuilder;
use crate::topology::{Consumed, NodeSpec, Processor, ProcessorInit, Role};

/// A table that every instance holds whole: all partitions of its topic. A stream joins it by any key, and nothing is
/// repartitioned. Made by [`StreamsBuilder::global_table`]; has no changes to process, and many streams may join it.
///
/// It is read completely before the application runs, then kept up to date by a thread of its own. It is not synchronised
/// with the records of streams: a join finds what has been read so far, whatever the timestamps are.
pub struct GlobalKTable<K, V> {
    graph: Graph,
    key: DynSerde<K>,
    view: ViewMaker<K, V>,
    queryable: Option<String>,
}

impl<K, V> Clone for GlobalKTable<K, V> {
    fn clone(&self) -> Self {
        let (key, view) = (Arc::clone(&self.key), Arc::clone(&self.view));
        GlobalKTable { graph: Rc::clone(&self.graph), key, view, queryable: self.queryable.clone() }
    }
}

impl<K, V> GlobalKTable<K, V> {
    /// The name under which the rows can be queried, if it was given one with [`Materialized::named`].
    pub fn queryable_name(&self) -> Option<&str> {
        self.queryable.as_deref()
    }
}

impl StreamsBuilder {
    /// The last value of each key of a topic, in every instance whole. A null value deletes the row, a record with a null
    /// key is dropped and counted.
    ///
    /// The rows carry the timestamps of the records; an extractor of `consumed` is not asked. They are kept in the state
    /// directory with the offsets up to which the topic has been read, so a restart reads on from there. There is no
    /// changelog and no cache.
    ///
    /// ```
    /// # use kstreams::*;
    /// let builder = StreamsBuilder::new();
    /// let rates = builder.global_table("rates", Consumed::with(Utf8, F64), Materialized::named("rates"));
    /// builder
    ///     .stream("payments", Consumed::with(Utf8, Json::<(String, f64)>::new()))
    ///     .join_global(
    ///         &rates,
    ///         |_account, (currency, _amount)| currency.clone(),
    ///         |(_currency, amount), rate| amount * rate,
    ///         Joined::with(Utf8, Json::new()),
    ///     )
    ///     .to("payments-in-euro", Produced::with(Utf8, F64));
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn global_table<K: 'static, V: 'static>(
        &self,
        topic: &str,
        mut consumed: Consumed<K, V>,
        materialized: Materialized<K, V>,
    ) -> GlobalKTable<K, V> {
        let mut graph = self.graph.borrow_mut();
        let (key, value) = (Arc::clone(&consumed.key), Arc::clone(&consumed.value));
        let option = materialized.store(&mut graph, &format!("{topic}-"), Some(&key), Some(&value));
        let given = consumed.name.take();
        let source = graph.name_or(given.as_ref().map(|name| format!("{name}-source")), "KSTREAM-SOURCE-");
        let name = graph.name_or(given, "KTABLE-SOURCE-");
        if option.spec.is_versioned() {
            graph.mistake(format!("global table {name} cannot be versioned: leave Materialized::as_versioned out"));
        }
        let queryable = option.is_named.then(|| option.spec.name().to_owned());
        let (view, store) = (option.spec.view(), Arc::clone(option.spec.spec()));
        let spec = option.spec;
        let make = move |init: &mut ProcessorInit<'_>| {
            let rows = Some(spec.open(init)?);
            let (key, value) = (Arc::clone(&spec.key), Some(Arc::clone(&spec.value)));
            let name = init.node_name();
            Ok(TableSource::<K, Option<V>, V> {
                name,
                key,
                rows,
                value,
                out_of_order: 0,
                types: std::marker::PhantomData,
            })
        };
        let node = NodeSpec::processor::<K, Option<V>, _>(&name, make);
        graph.append_global(&store, &source, topic, consumed.nullable(), node);
        GlobalKTable { graph: Rc::clone(&self.graph), key, view, queryable }
    }

    /// Adds a store that every instance holds whole and every processor can read, and the processor that writes what a
    /// topic says: see [`TopologyBuilder::add_global_store`](crate::TopologyBuilder::add_global_store).
    ///
    /// ```
    /// # use kstreams::*;
    /// struct Fill(KeyValueStore<String, String>);
    ///
    /// impl Processor<String, String> for Fill {
    ///     type KeyOut = ();
    ///     type ValueOut = ();
    ///
    ///     fn process(&mut self, record: Record<String, String>, ctx: &mut ProcessorContext<'_, (), ()>) -> Result<()> {
    ///         self.0.put(ctx, &record.key, &record.value.to_uppercase())
    ///     }
    /// }
    ///
    /// let codes = Stores::key_value("codes", Utf8, Utf8);
    /// let builder = StreamsBuilder::new();
    /// let own = codes.clone();
    /// builder.add_global_store(&codes, "codes", Consumed::with(Utf8, Utf8), move |init| Ok(Fill(init.store(&own)?)));
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn add_global_store<S, K: 'static, V: 'static, P: Processor<K, V>>(
        &self,
        store: &StoreBuilder<S>,
        topic: &str,
        mut consumed: Consumed<K, V>,
        make: impl Fn(&mut ProcessorInit<'_>) -> Result<P> + Send + Sync + 'static,
    ) -> &Self {
        let mut graph = self.graph.borrow_mut();
        let given = consumed.name.take();
        let source = graph.name_or(given.as_ref().map(|name| format!("{name}-source")), "KSTREAM-SOURCE-");
        let name = graph.name_or(given, "KTABLE-SOURCE-");
        graph.append_global(&store.spec, &source, topic, consumed, NodeSpec::processor::<K, V, _>(&name, make));
        self
    }
}

impl<K: 'static, V: 'static> KStream<K, V> {
    /// Looks up a row of the global table for each record of the stream, under the key that a function makes of the
    /// record, and drops the record when there is none. The record keeps its own key. Changes of the table join nothing.
    ///
    /// A record with a null value, or for which the function gives no key, is dropped and counted. Nothing is
    /// repartitioned, and the topics need not have as many partitions.
    pub fn join_global<KG: 'static, VG: 'static, VR: 'static, R: Into<Option<KG>>>(
        self,
        table: &GlobalKTable<KG, VG>,
        select: impl Fn(&K, &V) -> R + Send + Sync + 'static,
        joiner: impl Fn(V, VG) -> VR + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, VR> {
        self.join_global_with_key(table, select, move |_, value, row| joiner(value, row), joined)
    }

    /// The same with a look at the key of the stream.
    pub fn join_global_with_key<KG: 'static, VG: 'static, VR: 'static, R: Into<Option<KG>>>(
        self,
        table: &GlobalKTable<KG, VG>,
        select: impl Fn(&K, &V) -> R + Send + Sync + 'static,
        joiner: impl Fn(&K, V, VG) -> VR + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, VR> {
        let joiner: ValueJoiner<K, V, VG, VR> = Arc::new(move |key, value, row| Some(joiner(key, value, row?)));
        let select: KeySelector<K, V, Option<KG>> = Arc::new(move |key, value| select(key, value).into());
        self.join_global_table(JoinKind::Inner, table, select, joiner, joined)
    }

    /// Joins each record of the stream with a row of the global table, or with none. A record with a null key finds no row
    /// but is kept (KIP-962); one with a null value, or for which the function gives no key, is dropped and counted.
    pub fn left_join_global<KG: 'static, VG: 'static, VR: 'static, R: Into<Option<KG>>>(
        self,
        table: &GlobalKTable<KG, VG>,
        select: impl Fn(&K, &V) -> R + Send + Sync + 'static,
        joiner: impl Fn(V, Option<VG>) -> VR + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, VR> {
        self.left_join_global_with_key(table, select, move |_, value, row| joiner(value, row), joined)
    }

    /// The same with a look at the key of the stream.
    pub fn left_join_global_with_key<KG: 'static, VG: 'static, VR: 'static, R: Into<Option<KG>>>(
        self,
        table: &GlobalKTable<KG, VG>,
        select: impl Fn(&K, &V) -> R + Send + Sync + 'static,
        joiner: impl Fn(&K, V, Option<VG>) -> VR + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, VR> {
        let joiner: ValueJoiner<K, V, VG, VR> = Arc::new(move |key, value, row| Some(joiner(key, value, row)));
        let select: KeySelector<K, V, Option<KG>> = Arc::new(move |key, value| select(key, value).into());
        self.join_global_table(JoinKind::Left, table, select, joiner, joined)
    }

    fn join_global_table<KG: 'static, VG: 'static, VR: 'static>(
        mut self,
        kind: JoinKind,
        table: &GlobalKTable<KG, VG>,
        select: KeySelector<K, V, Option<KG>>,
        joiner: ValueJoiner<K, V, VG, VR>,
        joined: Joined<K, V>,
    ) -> KStream<K, VR> {
        let given = self.take_given();
        let Joined { key, value, name, grace, as_of } = joined;
        if grace.is_some() || as_of.is_some() {
            let remedy = "leave out Joined::with_grace_period and Joined::as_of";
            let mistake = format!("a join with a global table knows its rows of now only: {remedy}");
            self.graph.borrow_mut().mistake(mistake);
        }
        let mut graph = self.graph.borrow_mut();
        let name = one_name(&mut graph, given, name);
        // Java's name for both kinds.
        let name = graph.name_or(name, "KSTREAM-LEFTJOIN-");
        if !Rc::ptr_eq(&self.graph, &table.graph) {
            graph.mistake(format!(
                "{name} joins a stream and a global table of two builders: begin both with the same one"
            ));
        }
        drop(graph);
        let (table_key, view) = (Arc::clone(&table.key), Arc::clone(&table.view));
        let node = NodeSpec::processor::<K, V, _>(&name, move |init| {
            let (key, value, table_key) = (Arc::clone(&key), Arc::clone(&value), Arc::clone(&table_key));
            let (select, joiner) = (Arc::clone(&select), Arc::clone(&joiner));
            Ok(GlobalJoin { name: init.node_name(), kind, key, value, table_key, select, table: view(init)?, joiner })
        });
        let role = match kind {
            JoinKind::Inner => Role::Other,
            JoinKind::Left => Role::WantsNullKeys,
        };
        self.attach(node.with_role(role))
    }
}

impl<K, V> fmt::Debug for GlobalKTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlobalKTable").field("queryable", &self.queryable).finish_non_exhaustive()
    }
}
