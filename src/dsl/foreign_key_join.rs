//! Joins of tables on a foreign key.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::foreign_key_nodes::{Join, Names, Side, copartition};
use super::kstream::one_name;
use super::table_node::{OldValues, table_source};
use super::{KTable, Materialized};
use crate::operators::foreign_key_join::ForeignKey;
use crate::operators::stream_table_join::JoinKind;
use crate::operators::table_join::TableJoiner;

/// Chooses a partition by topic, key and number of partitions; none: by the hash of the key.
pub(super) type KeyPartitioner<K> = Arc<dyn Fn(&str, &K, i32) -> Option<i32> + Send + Sync>;

/// The name of a foreign-key join, and the partitions of its topics. `K` is the key of the left table, `KO` that of the
/// right one.
pub struct TableJoined<K, KO> {
    name: Option<String>,
    partitioner: Option<KeyPartitioner<K>>,
    other_partitioner: Option<KeyPartitioner<KO>>,
}

impl<K, KO> Default for TableJoined<K, KO> {
    fn default() -> Self {
        TableJoined { name: None, partitioner: None, other_partitioner: None }
    }
}

impl<K: 'static, KO: 'static> TableJoined<K, KO> {
    /// Names the join, its store and its topics, `<application>-<name>-subscription-registration-topic` and
    /// `<application>-<name>-subscription-response-topic`.
    pub fn named(name: &str) -> Self {
        TableJoined { name: Some(name.to_owned()), ..TableJoined::default() }
    }

    /// Chooses the partition of a left row as the topic of the left table does. Not needed for a topic that is partitioned
    /// by the hash of the key.
    #[must_use]
    pub fn with_partitioner(self, partitioner: impl Fn(&str, &K, i32) -> Option<i32> + Send + Sync + 'static) -> Self {
        TableJoined { partitioner: Some(Arc::new(partitioner)), ..self }
    }

    /// Chooses the partition of a foreign key as the topic of the right table does. Not needed for a topic that is
    /// partitioned by the hash of the key.
    #[must_use]
    pub fn with_other_partitioner(
        self,
        partitioner: impl Fn(&str, &KO, i32) -> Option<i32> + Send + Sync + 'static,
    ) -> Self {
        TableJoined { other_partitioner: Some(Arc::new(partitioner)), ..self }
    }
}

impl<K, KO> fmt::Debug for TableJoined<K, KO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableJoined").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Joins of two tables whose keys differ: the rows of this one name a row of the other (KIP-213).
///
/// A left row asks for its right row through one topic and is answered through another; subscriptions are kept in a store.
/// So a result comes a little later than the change, several changes of one row may have fewer results, and results of one
/// key need not come in the order of their times. The last one is right. An answer that a later change of the left row has
/// overtaken is dropped and counted, and so is an update of a versioned table that came out of order (KIP-914).
///
/// As in Kafka Streams, an inner join keeps the last result of a left row that changes, but names the same right row, at the
/// very time at which that one is deleted: the answer belongs to the earlier left row, and the new one asks for nothing that
/// is there. A left join has no such gap.
///
/// The time of a result is that of the later of the two rows when the left one has changed, and that of the right one when
/// it has. Both tables get a store if they have none, and need the serdes of their rows. There is no need for equal numbers
/// of partitions.
impl<K: 'static, V: 'static> KTable<K, V> {
    /// A row for each row of this table whose foreign key is that of a row of the other. A left row without a foreign key
    /// is dropped and counted.
    ///
    /// ```
    /// # use kstreams::*;
    /// let builder = StreamsBuilder::new();
    /// let orders = builder.table("orders", Consumed::with(I64, Utf8), Materialized::default());
    /// let customers = builder.table("customers", Consumed::with(Utf8, Utf8), Materialized::default());
    /// orders
    ///     .join_foreign_key(
    ///         &customers,
    ///         |_order, customer| customer.clone(),
    ///         |customer, city| format!("{customer} in {city}"),
    ///         TableJoined::named("customer-of-order"),
    ///     )
    ///     .to_stream()
    ///     .to("enriched", Produced::with(I64, Utf8));
    ///
    /// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// driver.create_input_topic("orders", I64, Utf8).pipe(&mut driver, 7, "ann")?;
    /// driver.create_input_topic("customers", Utf8, Utf8).pipe(&mut driver, "ann", "oslo")?;
    /// let enriched = driver.create_output_topic("enriched", I64, Utf8).read_key_values(&mut driver)?;
    /// assert_eq!(enriched, [(7, "ann in oslo".to_owned())]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn join_foreign_key<KO, VO, VR, F>(
        self,
        other: &KTable<KO, VO>,
        foreign_key: impl Fn(&K, &V) -> F + Send + Sync + 'static,
        joiner: impl Fn(V, VO) -> VR + Send + Sync + 'static,
        joined: TableJoined<K, KO>,
    ) -> KTable<K, VR>
    where
        KO: Clone + 'static,
        VO: Clone + 'static,
        VR: 'static,
        F: Into<Option<KO>>,
    {
        let joiner: TableJoiner<V, VO, VR> = Arc::new(move |row, other| Some(joiner(row?, other?)));
        self.join_on(JoinKind::Inner, other, key_of(foreign_key), joiner, joined, Materialized::default())
    }

    /// The same with a store. The joiner gives a row, or an `Option` where none is no row. Needs the serde of the result,
    /// from [`Materialized::with_value_serde`].
    pub fn join_foreign_key_materialized<KO, VO, VR, F, R>(
        self,
        other: &KTable<KO, VO>,
        foreign_key: impl Fn(&K, &V) -> F + Send + Sync + 'static,
        joiner: impl Fn(V, VO) -> R + Send + Sync + 'static,
        joined: TableJoined<K, KO>,
        materialized: Materialized<K, VR>,
    ) -> KTable<K, VR>
    where
        KO: Clone + 'static,
        VO: Clone + 'static,
        VR: 'static,
        F: Into<Option<KO>>,
        R: Into<Option<VR>>,
    {
        let joiner: TableJoiner<V, VO, VR> = Arc::new(move |row, other| joiner(row?, other?).into());
        self.join_on(JoinKind::Inner, other, key_of(foreign_key), joiner, joined, materialized)
    }

    /// A row for each row of this table, with the row of the other that it names, or with none. A left row without a foreign
    /// key is joined with none. See [`join_foreign_key`](KTable::join_foreign_key).
    pub fn left_join_foreign_key<KO, VO, VR, F>(
        self,
        other: &KTable<KO, VO>,
        foreign_key: impl Fn(&K, &V) -> F + Send + Sync + 'static,
        joiner: impl Fn(V, Option<VO>) -> VR + Send + Sync + 'static,
        joined: TableJoined<K, KO>,
    ) -> KTable<K, VR>
    where
        KO: Clone + 'static,
        VO: Clone + 'static,
        VR: 'static,
        F: Into<Option<KO>>,
    {
        let joiner: TableJoiner<V, VO, VR> = Arc::new(move |row, other| Some(joiner(row?, other)));
        self.join_on(JoinKind::Left, other, key_of(foreign_key), joiner, joined, Materialized::default())
    }

    /// The same with a store. See [`join_foreign_key_materialized`](KTable::join_foreign_key_materialized).
    pub fn left_join_foreign_key_materialized<KO, VO, VR, F, R>(
        self,
        other: &KTable<KO, VO>,
        foreign_key: impl Fn(&K, &V) -> F + Send + Sync + 'static,
        joiner: impl Fn(V, Option<VO>) -> R + Send + Sync + 'static,
        joined: TableJoined<K, KO>,
        materialized: Materialized<K, VR>,
    ) -> KTable<K, VR>
    where
        KO: Clone + 'static,
        VO: Clone + 'static,
        VR: 'static,
        F: Into<Option<KO>>,
        R: Into<Option<VR>>,
    {
        let joiner: TableJoiner<V, VO, VR> = Arc::new(move |row, other| joiner(row?, other).into());
        self.join_on(JoinKind::Left, other, key_of(foreign_key), joiner, joined, materialized)
    }

    fn join_on<KO: Clone + 'static, VO: Clone + 'static, VR: 'static>(
        mut self,
        kind: JoinKind,
        other: &KTable<KO, VO>,
        foreign_key: ForeignKey<K, V, KO>,
        joiner: TableJoiner<V, VO, VR>,
        joined: TableJoined<K, KO>,
        materialized: Materialized<K, VR>,
    ) -> KTable<K, VR> {
        let other = other.clone();
        let handle = Rc::clone(&self.graph);
        let mut graph = handle.borrow_mut();
        let given = one_name(&mut graph, self.given.take(), joined.name);
        let names = Names::next(&mut graph, given.as_deref());
        let mut other_node = vec![other.node];
        if !Rc::ptr_eq(&handle, &other.graph) {
            graph.mistake(format!("{} joins tables of two builders: begin both with the same one", names.result));
            other_node.clear();
        }
        (other.table.send_old_values)(&mut graph, OldValues::Needed);
        (self.table.send_old_values)(&mut graph, OldValues::Needed);
        let this_side = Side::new(&mut graph, &self.table, "left", &names.result);
        let other_side = Side::new(&mut graph, &other.table, "right", &names.result);
        let join = Join { kind, names, this: this_side, other: other_side };

        let request = join.append_request(&mut graph, self.node, foreign_key, joined.other_partitioner);
        copartition(&mut graph, &other_node, request);
        let answers = join.append_answers(&mut graph, &other_node, request);
        let response = join.append_response(&mut graph, answers, joined.partitioner);
        copartition(&mut graph, &[self.node], response);
        let resolver = join.append_resolver(&mut graph, response, joiner);

        let store = materialized.store_if_needed(&mut graph, "KTABLE-FK-JOIN-OUTPUT-", Some(&self.table.key), None);
        // Java tells the generated name, too.
        let queryable = Some(store.spec.name().to_owned());
        let mut result = table_source::<K, Option<VR>, VR>(&handle, &mut graph, &join.names.result, resolver, store);
        result.table.queryable = queryable;
        result
    }
}

fn key_of<K: 'static, V: 'static, KO: 'static, F: Into<Option<KO>>>(
    foreign_key: impl Fn(&K, &V) -> F + Send + Sync + 'static,
) -> ForeignKey<K, V, KO> {
    Arc::new(move |key, row| foreign_key(key, row).into())
}
