//! Grouped streams by window.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::builder::Graph;
use super::table_node::{Table, add_and_connect};
use super::windowed_store::{SessionStoreOption, WindowStoreOption};
use super::{KGroupedStream, KStream, KTable, Materialized};
use crate::operators::table::{View, ViewMaker};
use crate::operators::windowed::changes::EmitStrategy;
use crate::operators::windowed::late::ForwardLate;
use crate::operators::windowed::session::{Merger, SessionAggregate, SessionFunctions};
use crate::operators::windowed::sliding::{SlidingAggregate, SlidingFunctions};
use crate::operators::windowed::time::{Grid, TimeWindowAggregate};
use crate::operators::{Aggregator, Fold, Initializer};
use crate::serdes::{DynSerde, I64, SessionWindowedSerde, TimeWindowedSerde};
use crate::topology::{NodeId, NodeSpec, ProcessorInit, TopologyBuilder};
use crate::window::{SessionWindows, StoredWindows, Windowed};

/// A grouped stream by time, sliding or unlimited windows: [`KGroupedStream::windowed_by`]. `clone()` it to aggregate it
/// more than once.
///
/// A record with a null key is dropped; one with a null value, only by sliding windows. A record that is late is dropped
/// from each window that has closed, and counted for each: a window closes when the operator has seen a timestamp that is
/// its end and the grace period (for sliding windows, later than that).
pub struct TimeWindowedKStream<K, V> {
    grouped: KGroupedStream<K, V>,
    windows: StoredWindows,
    emit: EmitStrategy,
    on_late: Option<OnLate<K, V>>,
}

impl<K: Clone + 'static, V: Clone + 'static> Clone for TimeWindowedKStream<K, V> {
    fn clone(&self) -> Self {
        TimeWindowedKStream {
            grouped: self.grouped.clone(),
            windows: self.windows,
            emit: self.emit,
            on_late: self.on_late.clone(),
        }
    }
}

impl<K: Clone + 'static, V: Clone + 'static> TimeWindowedKStream<K, V> {
    pub(super) fn new(grouped: KGroupedStream<K, V>, windows: StoredWindows, check: Result<(), String>) -> Self {
        if let Err(mistake) = check {
            grouped.stream.graph.borrow_mut().mistake(mistake);
        }
        TimeWindowedKStream { grouped, windows, emit: EmitStrategy::default(), on_late: None }
    }

    /// Gives the aggregation a name, Java's `Named`.
    #[must_use = "a name that no operator takes is refused by build"]
    pub fn named(self, name: &str) -> Self {
        TimeWindowedKStream { grouped: self.grouped.named(name), ..self }
    }

    /// Says when results go downstream. A window without an end never closes: `build` refuses it with
    /// [`OnWindowClose`](EmitStrategy::OnWindowClose).
    #[must_use]
    pub fn emit_strategy(self, emit: EmitStrategy) -> Self {
        if matches!((self.windows, emit), (StoredWindows::Unlimited(_), EmitStrategy::OnWindowClose)) {
            let mistake = "unlimited windows never close: let them emit with EmitStrategy::OnWindowUpdate";
            self.grouped.stream.graph.borrow_mut().mistake(mistake.to_owned());
        }
        TimeWindowedKStream { emit, ..self }
    }

    /// Gives the records that come too late a way of their own: the function gets them as a stream, each with the window
    /// that it has missed, and says what becomes of them. They are dropped from the aggregation and counted all the same.
    ///
    /// ```
    /// # use kstreams::*;
    /// # use std::time::Duration;
    /// # let builder = StreamsBuilder::new();
    /// # let clicks = builder.stream("clicks", Consumed::with(Utf8, Utf8)).group_by_key(Grouped::with(Utf8, Utf8));
    /// let minute = Duration::from_secs(60);
    /// let counts = clicks
    ///     .windowed_by(TimeWindows::of_size_with_no_grace(minute))
    ///     .on_late(|late| late.select_key(|key, _| key.key.clone()).to("late-clicks", Produced::with(Utf8, Utf8)))
    ///     .count(Materialized::named("clicks"));
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn on_late(self, build: impl Fn(KStream<Windowed<K>, V>) + 'static) -> Self {
        TimeWindowedKStream { on_late: Some(Rc::new(build)), ..self }
    }

    /// Counts the records of each key and window.
    ///
    /// Emits the new count with each record, or once per commit where the store is cached, or as
    /// [`emit_strategy`](TimeWindowedKStream::emit_strategy) says; its time is the highest of its records.
    pub fn count(self, materialized: Materialized<K, i64>) -> KTable<Windowed<K>, i64> {
        let serde: DynSerde<i64> = Arc::new(I64);
        self.aggregate_with("KSTREAM-AGGREGATE-", Some(&serde), Fold::count(), materialized)
    }

    /// Combines the values of each key and window, beginning with the first one: `Fn(row, value) -> row`, where none
    /// deletes the row.
    pub fn reduce<R: Into<Option<V>>>(
        self,
        reducer: impl Fn(V, V) -> R + Send + Sync + 'static,
        materialized: Materialized<K, V>,
    ) -> KTable<Windowed<K>, V> {
        let serde = Arc::clone(&self.grouped.grouped.value);
        self.aggregate_with("KSTREAM-REDUCE-", Some(&serde), Fold::reduce(reducer), materialized)
    }

    /// Folds the values of each key and window into a row of another type: `Fn(&key, value, row) -> row`, where none
    /// deletes the row. Needs the serde of the row, from [`Materialized::with_value_serde`].
    pub fn aggregate<A: 'static, R: Into<Option<A>>>(
        self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        aggregator: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<Windowed<K>, A> {
        self.aggregate_with("KSTREAM-AGGREGATE-", None, Fold::aggregate(initializer, aggregator), materialized)
    }

    fn aggregate_with<A: 'static>(
        mut self,
        prefix: &str,
        serde: Option<&DynSerde<A>>,
        fold: Fold<K, V, A>,
        materialized: Materialized<K, A>,
    ) -> KTable<Windowed<K>, A> {
        let given = self.grouped.stream.take_given();
        let handle = Rc::clone(&self.grouped.stream.graph);
        let mut graph = handle.borrow_mut();
        let serdes = (&self.grouped.grouped.key, serde);
        let store = materialized.window_store(&mut graph, prefix, serdes, &self.windows, self.emit);
        let name = graph.name_or(given, prefix);
        let parent = self.grouped.partitioned(&mut graph, store.spec.store.name(), store.is_named);
        let value = Arc::clone(&self.grouped.grouped.value);
        let late = self.on_late.as_ref().map(|_| late_name(&name));
        let Fold { initializer, aggregator } = fold;
        let functions = WindowFunctions { value, initializer, aggregator, late: late.clone() };
        let node = append_windows(&mut graph, &name, parent, &self.windows, &store, functions);
        add_and_connect(&mut graph, node, &store.spec.store.spec, store.is_named);
        let late = late.map(|late| append_late::<K, V>(&mut graph, parent, late));
        drop(graph);
        if let (Some(late), Some(on_late)) = (late, self.on_late) {
            on_late(KStream::new(&handle, late));
        }
        window_table(&handle, node, vec![node], store)
    }
}

/// The user's functions, and what nulls are.
pub(super) struct WindowFunctions<K, V, A> {
    pub value: DynSerde<V>,
    pub initializer: Option<Initializer<A>>,
    pub aggregator: Aggregator<K, V, A>,
    /// Where late records are left, if anybody wants them.
    pub late: Option<Arc<str>>,
}

/// Says what becomes of late records.
type OnLate<K, V> = Rc<dyn Fn(KStream<Windowed<K>, V>)>;

/// What an aggregation and the node behind it know its late records by.
fn late_name(aggregation: &str) -> Arc<str> {
    format!("{aggregation}-late").into()
}

/// Adds the node that takes late records up: the next child of the aggregation's parent.
fn append_late<K: Clone + 'static, V: Clone + 'static>(
    graph: &mut TopologyBuilder,
    parent: NodeId,
    late: Arc<str>,
) -> NodeId {
    let name = graph.name("KSTREAM-LATE-");
    graph.duplicate::<K, V>(parent);
    graph.append(NodeSpec::processor::<K, V, _>(&name, move |init| ForwardLate::new(init, &late)), &[parent])
}

/// Adds the operator of a window store.
pub(super) fn append_windows<K: Clone + 'static, V: Clone + 'static, A: 'static>(
    graph: &mut TopologyBuilder,
    name: &str,
    parent: NodeId,
    windows: &StoredWindows,
    store: &WindowStoreOption<K, A>,
    functions: WindowFunctions<K, V, A>,
) -> NodeId {
    let (spec, kind) = (store.spec.clone(), store.kind);
    let WindowFunctions { value, initializer, aggregator, late } = functions;
    let node = match *windows {
        StoredWindows::Time(windows) => time_node(name, Grid::Time(windows), spec, initializer, aggregator, late),
        StoredWindows::Unlimited(windows) => {
            time_node(name, Grid::Unlimited(windows), spec, initializer, aggregator, late)
        }
        StoredWindows::Sliding(windows) => {
            let functions = SlidingFunctions { value, initializer, aggregator, late };
            NodeSpec::processor::<K, V, _>(name, move |init| {
                SlidingAggregate::new(init, &spec, kind, windows, functions.clone())
            })
        }
    };
    graph.append(node.closing_after(windows.grace_ms()), &[parent])
}

fn time_node<K: Clone + 'static, V: Clone + 'static, A: 'static>(
    name: &str,
    grid: Grid,
    spec: crate::operators::windowed::time::WindowStoreSpec<K, A>,
    initializer: Option<Initializer<A>>,
    aggregator: Aggregator<K, V, A>,
    late: Option<Arc<str>>,
) -> NodeSpec {
    NodeSpec::processor::<K, V, _>(name, move |init: &mut ProcessorInit<'_>| {
        let initializer = initializer.as_ref().map(Arc::clone);
        TimeWindowAggregate::new(init, &spec, grid, initializer, Arc::clone(&aggregator), late.as_ref())
    })
}

/// The table behind operators of a window store; `writers` write it.
pub(super) fn window_table<K: Clone + 'static, A: 'static>(
    handle: &Graph,
    node: NodeId,
    writers: Vec<NodeId>,
    store: WindowStoreOption<K, A>,
) -> KTable<Windowed<K>, A> {
    let WindowStoreOption { spec, kind, is_named } = store;
    let key: DynSerde<Windowed<K>> = Arc::new(TimeWindowedSerde::with_size_ms(Arc::clone(&spec.key), kind.window_ms));
    let (store, value) = (spec.store, spec.value);
    let stored = Arc::clone(&store.spec);
    let view: ViewMaker<Windowed<K>, A> = Arc::new(move |init| {
        let view: Box<dyn View<Windowed<K>, A>> = Box::new(init.store(&store)?);
        Ok(view)
    });
    KTable::new(handle, node, Table::aggregated(writers, &stored, is_named, (key, value), view))
}

impl<K, V> fmt::Debug for TimeWindowedKStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeWindowedKStream").field("windows", &self.windows).finish_non_exhaustive()
    }
}

/// A grouped stream by sessions: [`KGroupedStream::windowed_by`]. `clone()` it to aggregate it more than once.
///
/// A session that grows is deleted and written anew, and so are sessions that a record joins: a deletion of each goes
/// downstream before the new row. A record with a null key is dropped. So is one that is late: whose session, with those it
/// would join, ends before the highest timestamp that the operator has seen less gap and grace period.
pub struct SessionWindowedKStream<K, V> {
    grouped: KGroupedStream<K, V>,
    windows: SessionWindows,
    emit: EmitStrategy,
    on_late: Option<OnLate<K, V>>,
}

impl<K: Clone + 'static, V: Clone + 'static> Clone for SessionWindowedKStream<K, V> {
    fn clone(&self) -> Self {
        SessionWindowedKStream {
            grouped: self.grouped.clone(),
            windows: self.windows,
            emit: self.emit,
            on_late: self.on_late.clone(),
        }
    }
}

impl<K: Clone + 'static, V: Clone + 'static> SessionWindowedKStream<K, V> {
    pub(super) fn new(grouped: KGroupedStream<K, V>, windows: SessionWindows) -> Self {
        if let Err(mistake) = windows.check() {
            grouped.stream.graph.borrow_mut().mistake(mistake);
        }
        SessionWindowedKStream { grouped, windows, emit: EmitStrategy::default(), on_late: None }
    }

    /// Gives the aggregation a name, Java's `Named`.
    #[must_use = "a name that no operator takes is refused by build"]
    pub fn named(self, name: &str) -> Self {
        SessionWindowedKStream { grouped: self.grouped.named(name), ..self }
    }

    /// Says when results go downstream.
    #[must_use]
    pub fn emit_strategy(self, emit: EmitStrategy) -> Self {
        SessionWindowedKStream { emit, ..self }
    }

    /// Gives the records that come too late a way of their own: the function gets them as a stream, each with the window
    /// that it has missed, and says what becomes of them. They are dropped from the aggregation and counted all the same.
    ///
    /// ```
    /// # use kstreams::*;
    /// # use std::time::Duration;
    /// # let builder = StreamsBuilder::new();
    /// # let clicks = builder.stream("clicks", Consumed::with(Utf8, Utf8)).group_by_key(Grouped::with(Utf8, Utf8));
    /// let minute = Duration::from_secs(60);
    /// let counts = clicks
    ///     .windowed_by(SessionWindows::of_inactivity_gap_with_no_grace(minute))
    ///     .on_late(|late| late.select_key(|key, _| key.key.clone()).to("late-clicks", Produced::with(Utf8, Utf8)))
    ///     .count(Materialized::named("clicks"));
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn on_late(self, build: impl Fn(KStream<Windowed<K>, V>) + 'static) -> Self {
        SessionWindowedKStream { on_late: Some(Rc::new(build)), ..self }
    }

    /// Counts the records of each key and session. The time of a result is the end of its session.
    pub fn count(self, materialized: Materialized<K, i64>) -> KTable<Windowed<K>, i64> {
        let serde: DynSerde<i64> = Arc::new(I64);
        let Fold { initializer, aggregator } = Fold::count();
        let functions = SessionFunctions {
            initializer,
            aggregator,
            merger: Arc::new(|_, one, other| Some(one? + other)),
            late: None,
        };
        self.aggregate_with("KSTREAM-AGGREGATE-", Some(&serde), functions, materialized)
    }

    /// Combines the values of each key and session, also those of sessions that are joined: `Fn(row, value) -> row`, where
    /// none deletes the row.
    pub fn reduce<R: Into<Option<V>>>(
        self,
        reducer: impl Fn(V, V) -> R + Send + Sync + 'static,
        materialized: Materialized<K, V>,
    ) -> KTable<Windowed<K>, V> {
        let reduce = Arc::new(move |row: Option<V>, value: V| match row {
            Some(row) => reducer(row, value).into(),
            None => Some(value),
        });
        let merge = Arc::clone(&reduce);
        let functions = SessionFunctions {
            initializer: None,
            aggregator: Arc::new(move |_, value, row| reduce(row, value)),
            merger: Arc::new(move |_, one, other| merge(one, other)),
            late: None,
        };
        let serde = Arc::clone(&self.grouped.grouped.value);
        self.aggregate_with("KSTREAM-REDUCE-", Some(&serde), functions, materialized)
    }

    /// Folds the values of each key and session into a row of another type: `Fn(&key, value, row) -> row`, where none
    /// deletes the row. The merger makes one row of those of two sessions: `Fn(&key, one, other) -> row`. Needs the serde
    /// of the row, from [`Materialized::with_value_serde`].
    ///
    /// ```
    /// # use kstreams::*;
    /// # use std::time::Duration;
    /// # let builder = StreamsBuilder::new();
    /// # let payments = builder.stream("payments", Consumed::with(Utf8, I64)).group_by_key(Grouped::with(Utf8, I64));
    /// let spent = payments
    ///     .windowed_by(SessionWindows::of_inactivity_gap_with_no_grace(Duration::from_secs(1800)))
    ///     .aggregate(
    ///         || 0,
    ///         |_customer, amount, sum: i64| sum + amount,
    ///         |_customer, one, other| one + other,
    ///         Materialized::named("spent-per-visit").with_value_serde(I64),
    ///     );
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn aggregate<A: 'static, R: Into<Option<A>>, M: Into<Option<A>>>(
        self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        aggregator: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
        merger: impl Fn(&K, A, A) -> M + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<Windowed<K>, A> {
        let aggregator: Aggregator<K, V, A> = Arc::new(move |key, value, row| aggregator(key, value, row?).into());
        let functions = session_functions(Arc::new(initializer), aggregator, merger_of(merger));
        self.aggregate_with("KSTREAM-AGGREGATE-", None, functions, materialized)
    }

    fn aggregate_with<A: 'static>(
        mut self,
        prefix: &str,
        serde: Option<&DynSerde<A>>,
        functions: SessionFunctions<K, V, A>,
        materialized: Materialized<K, A>,
    ) -> KTable<Windowed<K>, A> {
        let given = self.grouped.stream.take_given();
        let handle = Rc::clone(&self.grouped.stream.graph);
        let mut graph = handle.borrow_mut();
        let serdes = (&self.grouped.grouped.key, serde);
        let store = materialized.session_store(&mut graph, prefix, serdes, &self.windows, self.emit);
        let name = graph.name_or(given, prefix);
        let parent = self.grouped.partitioned(&mut graph, store.spec.store.name(), store.is_named);
        let late = self.on_late.as_ref().map(|_| late_name(&name));
        let functions = SessionFunctions { late: late.clone(), ..functions };
        let node = append_sessions(&mut graph, &name, parent, self.windows, &store, functions);
        add_and_connect(&mut graph, node, &store.spec.store.spec, store.is_named);
        let late = late.map(|late| append_late::<K, V>(&mut graph, parent, late));
        drop(graph);
        if let (Some(late), Some(on_late)) = (late, self.on_late) {
            on_late(KStream::new(&handle, late));
        }
        session_table(&handle, node, vec![node], store)
    }
}

/// What is merged into nothing is what it was: a merger that deletes begins anew with the next session.
pub(super) fn merger_of<K: 'static, A: 'static, M: Into<Option<A>>>(
    merger: impl Fn(&K, A, A) -> M + Send + Sync + 'static,
) -> Merger<K, A> {
    Arc::new(move |key, one, other| match one {
        Some(one) => merger(key, one, other).into(),
        None => Some(other),
    })
}

/// The aggregator always gets a row: after a merger that has deleted it, what a row begins with.
pub(super) fn session_functions<K: 'static, V: 'static, A: 'static>(
    initializer: Initializer<A>,
    aggregator: Aggregator<K, V, A>,
    merger: Merger<K, A>,
) -> SessionFunctions<K, V, A> {
    let initial = Arc::clone(&initializer);
    let aggregator: Aggregator<K, V, A> =
        Arc::new(move |key, value, row| aggregator(key, value, row.or_else(|| Some(initial()))));
    SessionFunctions { initializer: Some(initializer), aggregator, merger, late: None }
}

/// Adds the operator of a session store.
pub(super) fn append_sessions<K: Clone + 'static, V: Clone + 'static, A: 'static>(
    graph: &mut TopologyBuilder,
    name: &str,
    parent: NodeId,
    windows: SessionWindows,
    store: &SessionStoreOption<K, A>,
    functions: SessionFunctions<K, V, A>,
) -> NodeId {
    let spec = store.spec.clone();
    let node = NodeSpec::processor::<K, V, _>(name, move |init| {
        SessionAggregate::new(init, &spec, windows, functions.clone())
    });
    graph.append(node.closing_after(windows.grace_ms().saturating_add(windows.gap_ms())), &[parent])
}

/// The table behind operators of a session store; `writers` write it.
pub(super) fn session_table<K: Clone + 'static, A: 'static>(
    handle: &Graph,
    node: NodeId,
    writers: Vec<NodeId>,
    store: SessionStoreOption<K, A>,
) -> KTable<Windowed<K>, A> {
    let SessionStoreOption { spec, is_named } = store;
    let key: DynSerde<Windowed<K>> = Arc::new(SessionWindowedSerde::new(Arc::clone(&spec.key)));
    let (store, value) = (spec.store, spec.value);
    let stored = Arc::clone(&store.spec);
    let view: ViewMaker<Windowed<K>, A> = Arc::new(move |init| {
        let view: Box<dyn View<Windowed<K>, A>> = Box::new(init.store(&store)?);
        Ok(view)
    });
    KTable::new(handle, node, Table::aggregated(writers, &stored, is_named, (key, value), view))
}

impl<K, V> fmt::Debug for SessionWindowedKStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionWindowedKStream").field("windows", &self.windows).finish_non_exhaustive()
    }
}
