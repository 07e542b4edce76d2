//! Joins of two streams over a window of time.

use std::any::TypeId;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::kstream::one_name;
use super::{KStream, StreamJoined};
use crate::operators::outer_join_store::{OuterJoinRows, OuterJoinStore};
use crate::operators::self_join::SelfJoin;
use crate::operators::stateless::PassThrough;
use crate::operators::stream_stream_join::{Bounds, JoinClock, JoinWindow, StreamJoin, StreamJoiner};
use crate::operators::windowed::{ObservedTime, last_time};
use crate::serdes::DynSerde;
use crate::state::{Side, StoreBuilder, WindowStore};
use crate::topology::{NodeId, NodeSpec, Role, StreamJoinNodes, TopologyBuilder};
use crate::window::{JoinWindows, millis};

/// Which records go on alone when nothing joins them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outer {
    None,
    Left,
    Both,
}

impl<K: Clone + 'static, V: 'static> KStream<K, V> {
    /// Joins each record with those of another stream that have its key and are not too far from its time. The result has
    /// the later time of the two, and the headers of the record that came last.
    ///
    /// Values come by reference: a record joins any number of others, and is not copied for each. A record with a null key
    /// or value is dropped and counted. A late record joins what is still kept, for window and grace period together. Both
    /// sides must have as many partitions; a stream whose key was changed is repartitioned.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use kstreams::*;
    /// let builder = StreamsBuilder::new();
    /// let orders = builder.stream("orders", Consumed::with(Utf8, Utf8));
    /// let payments = builder.stream("payments", Consumed::with(Utf8, I64));
    /// orders
    ///     .join_stream(
    ///         payments,
    ///         |order, cents| format!("{order} paid with {cents}"),
    ///         JoinWindows::of_time_difference_with_no_grace(Duration::from_secs(3600)),
    ///         StreamJoined::with(Utf8, Utf8, I64).named("paid").with_store_name("paid"),
    ///     )
    ///     .to("paid-orders", Produced::with(Utf8, Utf8));
    ///
    /// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// let orders = driver.create_input_topic("orders", Utf8, Utf8);
    /// let payments = driver.create_input_topic("payments", Utf8, I64);
    /// let paid = driver.create_output_topic("paid-orders", Utf8, Utf8);
    /// orders.pipe(&mut driver, "17", "a lamp")?;
    /// payments.pipe(&mut driver, "17", 4200)?;
    /// assert_eq!(paid.read_key_values(&mut driver)?, [("17".to_owned(), "a lamp paid with 4200".to_owned())]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn join_stream<VO: 'static, VR: 'static>(
        self,
        other: KStream<K, VO>,
        joiner: impl Fn(&V, &VO) -> VR + Send + Sync + 'static,
        windows: JoinWindows,
        joined: StreamJoined<K, V, VO>,
    ) -> KStream<K, VR> {
        self.join_stream_with_key(other, move |_, value, other| joiner(value, other), windows, joined)
    }

    /// The same with a look at the key.
    pub fn join_stream_with_key<VO: 'static, VR: 'static>(
        self,
        other: KStream<K, VO>,
        joiner: impl Fn(&K, &V, &VO) -> VR + Send + Sync + 'static,
        windows: JoinWindows,
        joined: StreamJoined<K, V, VO>,
    ) -> KStream<K, VR> {
        let joiner: StreamJoiner<K, V, VO, VR> = Arc::new(move |key, value, other| Some(joiner(key, value?, other?)));
        self.join_windowed(Outer::None, other, joiner, windows, joined)
    }

    /// Joins as [`join_stream`](KStream::join_stream) does, and sends each record of this stream that nothing has joined on
    /// alone: at its own time, once the time of both streams is past its window and the grace period, or at once when it
    /// comes later than that. Only records move that time: while none come, none is sent on.
    ///
    /// A record of this stream with a null key joins nothing and is sent on alone at once (KIP-962).
    pub fn left_join_stream<VO: 'static, VR: 'static>(
        self,
        other: KStream<K, VO>,
        joiner: impl Fn(&V, Option<&VO>) -> VR + Send + Sync + 'static,
        windows: JoinWindows,
        joined: StreamJoined<K, V, VO>,
    ) -> KStream<K, VR> {
        self.left_join_stream_with_key(other, move |_, value, other| joiner(value, other), windows, joined)
    }

    /// The same with a look at the key.
    pub fn left_join_stream_with_key<VO: 'static, VR: 'static>(
        self,
        other: KStream<K, VO>,
        joiner: impl Fn(&K, &V, Option<&VO>) -> VR + Send + Sync + 'static,
        windows: JoinWindows,
        joined: StreamJoined<K, V, VO>,
    ) -> KStream<K, VR> {
        let joiner: StreamJoiner<K, V, VO, VR> = Arc::new(move |key, value, other| Some(joiner(key, value?, other)));
        self.join_windowed(Outer::Left, other, joiner, windows, joined)
    }

    /// Joins as [`left_join_stream`](KStream::left_join_stream) does, and sends records of the other stream on alone, too.
    /// Of records that are given up at the same time, those of the other stream come first where their times are equal.
    pub fn outer_join_stream<VO: 'static, VR: 'static>(
        self,
        other: KStream<K, VO>,
        joiner: impl Fn(Option<&V>, Option<&VO>) -> VR + Send + Sync + 'static,
        windows: JoinWindows,
        joined: StreamJoined<K, V, VO>,
    ) -> KStream<K, VR> {
        self.outer_join_stream_with_key(other, move |_, value, other| joiner(value, other), windows, joined)
    }

    /// The same with a look at the key.
    pub fn outer_join_stream_with_key<VO: 'static, VR: 'static>(
        self,
        other: KStream<K, VO>,
        joiner: impl Fn(&K, Option<&V>, Option<&VO>) -> VR + Send + Sync + 'static,
        windows: JoinWindows,
        joined: StreamJoined<K, V, VO>,
    ) -> KStream<K, VR> {
        let joiner: StreamJoiner<K, V, VO, VR> = Arc::new(move |key, value, other| Some(joiner(key, value, other)));
        self.join_windowed(Outer::Both, other, joiner, windows, joined)
    }

    fn join_windowed<VO: 'static, VR: 'static>(
        mut self,
        outer: Outer,
        other: KStream<K, VO>,
        joiner: StreamJoiner<K, V, VO, VR>,
        windows: JoinWindows,
        mut joined: StreamJoined<K, V, VO>,
    ) -> KStream<K, VR> {
        let given = self.take_given();
        let name = one_name(&mut self.graph.borrow_mut(), given, joined.name.take());
        if !Rc::ptr_eq(&self.graph, &other.graph) {
            let mistake =
                format!("{} is joined with a stream of another builder: begin both with one", self.node_name());
            self.graph.borrow_mut().mistake(mistake);
            return KStream::new(&self.graph, self.node);
        }
        let left = self.co_partitioned(&joined.key, &joined.value, name.as_deref(), "left");
        let right = other.co_partitioned(&joined.key, &joined.other_value, name.as_deref(), "right");
        let mut graph = left.graph.borrow_mut();
        if let Err(mistake) = windows.check() {
            graph.mistake(mistake);
        }
        joined.check(&mut graph);
        let topics: BTreeSet<_> =
            [left.node, right.node].into_iter().flat_map(|node| graph.source_topics_of(node)).collect();
        graph.copartition(topics);
        let names = Names::new(&mut graph, outer, name.as_deref());
        let this_rows = joined.this_window(&mut graph, &windows, names.this_suffix, &names.this_generated);
        let other_rows = joined.other_window(&mut graph, &windows, names.other_suffix, &names.other_generated);
        let unmatched = (outer != Outer::None).then(|| {
            let store = joined.unmatched(&mut graph, names.shared_suffix, &names.shared_generated);
            graph.add_store(Arc::clone(&store.spec));
            store
        });
        graph.add_store(Arc::clone(&this_rows.spec));
        graph.add_store(Arc::clone(&other_rows.spec));

        let (before_ms, after_ms) = windows.bounds_ms();
        let bounds = Bounds { before_ms, after_ms, grace_ms: windows.grace_ms() };
        let (key, value, other_value) = (&joined.key, &joined.value, &joined.other_value);
        let this = StreamSide { key, value, rows: &this_rows };
        let other = StreamSide { key, value: other_value, rows: &other_rows };
        let reversed: StreamJoiner<K, VO, V, VR> = {
            let joiner = Arc::clone(&joiner);
            Arc::new(move |key, value, other| joiner(key, other, value))
        };
        let clock: Arc<str> = names.merge.as_str().into();
        let shape = |side, bounds, is_outer| Shape { side, bounds, is_outer, clock: Arc::clone(&clock) };
        let this_shape = shape(Side::Left, bounds, outer != Outer::None);
        let other_shape = shape(Side::Right, bounds.reversed(), outer == Outer::Both);

        let this_windowed = this.window(&mut graph, &names.this_windowed, left.node);
        let other_windowed = other.window(&mut graph, &names.other_windowed, right.node);
        let this_join = join(&this, &other, unmatched.as_ref(), &this_shape, Arc::clone(&joiner));
        let this_join = graph.append(this_join(&names.this_join), &[this_windowed]);
        let other_join = join(&other, &this, unmatched.as_ref(), &other_shape, reversed);
        let other_join = graph.append(other_join(&names.other_join), &[other_windowed]);
        let role = if outer == Outer::None { Role::Other } else { Role::WantsNullKeys };
        let pass = NodeSpec::processor::<K, VR, _>(&names.merge, |_| Ok(PassThrough)).with_role(role);
        let merge = graph.append(pass, &[this_join, other_join]);
        if TypeId::of::<V>() == TypeId::of::<VO>() {
            let self_join = self_join(&this, &names.merge, bounds, windows.retention_ms(), joiner).with_role(role);
            let nodes = StreamJoinNodes { this_windowed, other_windowed, this_join, other_join, merge, self_join };
            graph.note_stream_join(nodes);
        }
        drop(graph);
        KStream::new(&left.graph, merge)
    }

    /// The stream by its key: through a topic of the join if the key was changed.
    fn co_partitioned(self, key: &DynSerde<K>, value: &DynSerde<V>, name: Option<&str>, side: &str) -> KStream<K, V> {
        if !self.repartition_required {
            return self;
        }
        let name = name.map(|name| format!("{name}-{side}"));
        self.repartition_for_join(key, value, name.as_deref(), "StreamJoined::named")
    }
}

/// Java's names. Numbers are used up whether names are given or not.
struct Names {
    this_windowed: String,
    other_windowed: String,
    this_generated: String,
    other_generated: String,
    shared_generated: String,
    this_join: String,
    other_join: String,
    merge: String,
    this_suffix: &'static str,
    other_suffix: &'static str,
    shared_suffix: &'static str,
}

impl Names {
    fn new(graph: &mut TopologyBuilder, outer: Outer, name: Option<&str>) -> Names {
        let (this_suffix, this_prefix) = match outer {
            Outer::Both => ("-outer-this-join", "KSTREAM-OUTERTHIS-"),
            Outer::None | Outer::Left => ("-this-join", "KSTREAM-JOINTHIS-"),
        };
        let (other_suffix, other_prefix) = match outer {
            Outer::None => ("-other-join", "KSTREAM-JOINOTHER-"),
            Outer::Left | Outer::Both => ("-outer-other-join", "KSTREAM-OUTEROTHER-"),
        };
        let shared_suffix = if outer == Outer::Both { "-outer-shared-join" } else { "-left-shared-join" };
        let suffixed = |suffix: &str| name.map(|name| format!("{name}{suffix}"));
        let this_windowed = graph.name_or(suffixed("-this-windowed"), "KSTREAM-WINDOWED-");
        let other_windowed = graph.name_or(suffixed("-other-windowed"), "KSTREAM-WINDOWED-");
        let (this_generated, other_generated) = (graph.name(this_prefix), graph.name(other_prefix));
        let merge = graph.name_or(suffixed("-merge"), "KSTREAM-MERGE-");
        let number = this_generated.strip_prefix(this_prefix).unwrap_or_default();
        Names {
            this_windowed,
            other_windowed,
            shared_generated: format!("KSTREAM-OUTERSHARED-{number}"),
            this_join: suffixed(this_suffix).unwrap_or_else(|| this_generated.clone()),
            other_join: suffixed(other_suffix).unwrap_or_else(|| other_generated.clone()),
            this_generated,
            other_generated,
            merge,
            this_suffix,
            other_suffix,
            shared_suffix,
        }
    }
}

/// What the nodes of one side know.
struct StreamSide<'a, K, V> {
    key: &'a DynSerde<K>,
    value: &'a DynSerde<V>,
    rows: &'a StoreBuilder<WindowStore<K, V>>,
}

impl<K: 'static, V: 'static> StreamSide<'_, K, V> {
    fn window(&self, graph: &mut TopologyBuilder, name: &str, parent: NodeId) -> NodeId {
        let (key, rows) = (Arc::clone(self.key), self.rows.clone());
        let node = NodeSpec::processor::<K, V, _>(name, move |init| {
            Ok(JoinWindow { key: Arc::clone(&key), rows: init.store(&rows)? })
        });
        graph.append(node.with_stores([Arc::clone(&self.rows.spec.name)]), &[parent])
    }
}

/// What differs between the two sides.
struct Shape {
    side: Side,
    bounds: Bounds,
    is_outer: bool,
    /// What the clock that they share is found by.
    clock: Arc<str>,
}

/// The node that joins the records of one side with those that the other has kept, by its name.
fn join<K: Clone + 'static, V: 'static, VO: 'static, VR: 'static>(
    this: &StreamSide<'_, K, V>,
    other: &StreamSide<'_, K, VO>,
    unmatched: Option<&OuterJoinRows>,
    shape: &Shape,
    joiner: StreamJoiner<K, V, VO, VR>,
) -> impl FnOnce(&str) -> NodeSpec + use<K, V, VO, VR> {
    let Shape { side, bounds, is_outer, .. } = *shape;
    let clock = Arc::clone(&shape.clock);
    let (key, value, other_value) = (Arc::clone(this.key), Arc::clone(this.value), Arc::clone(other.value));
    let (rows, unmatched) = (other.rows.clone(), unmatched.cloned());
    let stores = [Some(&rows.spec), unmatched.as_ref().map(|store| &store.spec)];
    let stores: Vec<_> = stores.into_iter().flatten().map(|spec| Arc::clone(&spec.name)).collect();
    move |name| {
        let node = NodeSpec::processor::<K, V, _>(name, move |init| {
            let unmatched = unmatched.as_ref().map(|store| init.store(store)).transpose()?;
            let other = init.store(&rows)?;
            let guess = last_time(init.task, other.index(), 0);
            let clock = unmatched.as_ref().map(|_| JoinClock::open(init, &clock, guess)).transpose()?;
            Ok(StreamJoin {
                name: init.node_name(),
                side,
                key: Arc::clone(&key),
                value: Arc::clone(&value),
                other_value: Arc::clone(&other_value),
                bounds,
                is_outer,
                other,
                unmatched: unmatched.as_ref().map(OuterJoinStore::new),
                emit_interval_ms: millis(init.task.environment.outer_join_emit_interval),
                clock: clock.unwrap_or_default(),
                joiner: Arc::clone(&joiner),
                key_bytes: Vec::new(),
            })
        });
        node.with_stores(stores)
    }
}

/// What stands in the place of the nodes when the join of a stream with itself is optimised.
fn self_join<K: Clone + 'static, V: 'static, VO: 'static, VR: 'static>(
    this: &StreamSide<'_, K, V>,
    name: &str,
    bounds: Bounds,
    retention_ms: i64,
    joiner: StreamJoiner<K, V, VO, VR>,
) -> NodeSpec {
    let (key, value, rows) = (Arc::clone(this.key), Arc::clone(this.value), this.rows.clone());
    let store = Arc::clone(&rows.spec.name);
    let node = NodeSpec::processor::<K, V, _>(name, move |init| {
        let rows = init.store(&rows)?;
        let guess = last_time(init.task, rows.index(), 0);
        let time = ObservedTime::resume_or(init, guess);
        Ok(SelfJoin {
            name: init.node_name(),
            key: Arc::clone(&key),
            value: Arc::clone(&value),
            bounds,
            retention_ms,
            rows,
            time,
            joiner: Arc::clone(&joiner),
        })
    });
    node.with_stores([store])
}
