//! The one trait behind every node between a source and a sink, the library's own and the user's.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::context::TaskContext;
use super::node::{Made, Node, Port};
use super::schedules::{Punctuation, PunctuationType};
use super::{NodeId, TaskId, Topology};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::state::{RecordContext, StoreBuilder, StoreContext, StoreSpec, TaskStores};

/// Takes records of one type and forwards records of another.
///
/// A processor may keep state of its own, but only until the next failure: after an abort it is made anew. What must
/// last belongs in a store.
///
/// ```
/// use kstreams::*;
///
/// /// Forwards every tenth record of a key.
/// struct EveryTenth {
///     seen: KeyValueStore<String, i64>,
/// }
///
/// impl Processor<String, String> for EveryTenth {
///     type KeyOut = String;
///     type ValueOut = String;
///
///     fn process(&mut self, record: Record<String, String>, ctx: &mut ProcessorContext<'_, String, String>) -> Result<()> {
///         let seen = self.seen.get(ctx, &record.key)?.unwrap_or(0) + 1;
///         self.seen.put(ctx, &record.key, &seen)?;
///         if seen % 10 == 0 { ctx.forward(record) } else { Ok(()) }
///     }
/// }
///
/// let seen = Stores::key_value("seen", Utf8, I64);
/// let builder = StreamsBuilder::new();
/// builder.add_state_store(&seen);
/// builder
///     .stream("in", Consumed::with(Utf8, Utf8))
///     .process(move |init| Ok(EveryTenth { seen: init.store(&seen)? }), Processed::stores(["seen"]))
///     .to("out", Produced::with(Utf8, Utf8));
/// builder.build()?;
/// # Ok::<(), Error>(())
/// ```
pub trait Processor<K, V>: 'static {
    /// The key of what it forwards.
    type KeyOut: 'static;
    /// The value of what it forwards.
    type ValueOut: 'static;

    /// Takes one record.
    ///
    /// # Errors
    /// Any; make it with [`Error::user`]. The processing handler decides what happens to the record.
    fn process(
        &mut self,
        record: Record<K, V>,
        ctx: &mut ProcessorContext<'_, Self::KeyOut, Self::ValueOut>,
    ) -> Result<()>;

    /// Called when a schedule made by this processor is due, with the time (ms) it is called at.
    ///
    /// # Errors
    /// As [`process`](Processor::process).
    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        _timestamp: i64,
        _ctx: &mut ProcessorContext<'_, Self::KeyOut, Self::ValueOut>,
    ) -> Result<()> {
        Ok(())
    }

    /// Called once when the task is closed cleanly. After a failure it is not called.
    fn close(&mut self) {}

    /// Forwards what the operator has held back; called before a commit.
    #[doc(hidden)]
    fn flush(&mut self, _ctx: &mut ProcessorContext<'_, Self::KeyOut, Self::ValueOut>) -> Result<()> {
        Ok(())
    }

    /// Deletes the rows that have expired, and forwards that; called before the record that has moved the time.
    #[doc(hidden)]
    fn expire(&mut self, _ctx: &mut ProcessorContext<'_, Self::KeyOut, Self::ValueOut>) -> Result<()> {
        Ok(())
    }

    /// Forwards what has become ready since; called now and then, and never waits.
    #[doc(hidden)]
    fn finish(&mut self, _ctx: &mut ProcessorContext<'_, Self::KeyOut, Self::ValueOut>) -> Result<()> {
        Ok(())
    }
}

/// The task, seen from one node: everything of [`TaskContext`] and the way to its children.
pub struct ProcessorContext<'a, K, V> {
    pub(crate) task: &'a mut TaskContext,
    pub(crate) out: &'a Port<K, V>,
    pub(crate) node: NodeId,
}

impl<K, V> ProcessorContext<'_, K, V> {
    /// Passes the record to every child in the order they were attached, each with all that is behind it.
    ///
    /// # Errors
    /// [`User`](crate::ErrorKind::User) when its timestamp is negative; else what a child could not handle. Return it.
    #[inline]
    pub fn forward(&mut self, record: Record<K, V>) -> Result<()> {
        check_timestamp(record.timestamp)?;
        self.out.forward(record, self.task)
    }

    /// Passes the record to one child, by the child's name.
    ///
    /// # Errors
    /// [`User`](crate::ErrorKind::User) when there is no child of that name; else as [`forward`](ProcessorContext::forward).
    pub fn forward_to(&mut self, child: &str, record: Record<K, V>) -> Result<()> {
        let child = self.out.child(child)?;
        self.forward_to_nth(child, record)
    }

    pub(crate) fn forward_to_nth(&mut self, child: usize, record: Record<K, V>) -> Result<()> {
        check_timestamp(record.timestamp)?;
        self.out.forward_to(child, record, self.task)
    }

    /// Calls [`punctuate`](Processor::punctuate) each interval (at least 1 ms) from now on.
    pub fn schedule(&mut self, interval: Duration, kind: PunctuationType) -> Punctuation {
        self.task.schedule(self.node, kind, millis(interval))
    }

    /// The same at `start + n * interval`, `start` in milliseconds since the epoch (KIP-1146).
    pub fn schedule_from(&mut self, start: i64, interval: Duration, kind: PunctuationType) -> Punctuation {
        self.task.schedule_from(self.node, start, millis(interval), kind)
    }

    /// Ends a schedule. May be called from its own punctuation.
    pub fn cancel(&mut self, punctuation: Punctuation) {
        self.task.schedules.cancel(punctuation);
    }
}

impl<K, V> Deref for ProcessorContext<'_, K, V> {
    type Target = TaskContext;

    fn deref(&self) -> &TaskContext {
        self.task
    }
}

impl<K, V> DerefMut for ProcessorContext<'_, K, V> {
    fn deref_mut(&mut self) -> &mut TaskContext {
        self.task
    }
}

impl<K, V> StoreContext for ProcessorContext<'_, K, V> {
    fn stores(&mut self) -> (&mut TaskStores, &RecordContext) {
        self.task.stores()
    }
}

impl<K, V> fmt::Debug for ProcessorContext<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessorContext").field("task", &self.task).finish_non_exhaustive()
    }
}

/// What a maker is given: the stores its node is connected to, its schedules and, for the library, its children.
///
/// Takes the place of Java's `Processor.init`: a processor that needs a store cannot exist without it.
pub struct ProcessorInit<'a> {
    pub(crate) id: NodeId,
    pub(crate) topology: &'a Topology,
    /// The inputs of the children, each an `Input<K, V>` of the type that this node forwards.
    pub(crate) children: Vec<(Arc<str>, &'a dyn Any)>,
    pub(crate) task: &'a mut TaskContext,
}

impl ProcessorInit<'_> {
    /// A store that the node is connected to.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when it is not connected, with the way to connect it.
    pub fn store<S>(&self, store: &StoreBuilder<S>) -> Result<S> {
        let node = self.topology.node(self.id);
        let connected = node.stores.contains(&store.spec.name) || self.topology.is_global_store(store.name());
        let index = connected.then(|| self.task.stores.index(store.name())).flatten().ok_or_else(|| {
            let context = format!("no access to store {}: connect it where the processor is added", store.name());
            Error::invalid(context).at(&node.name)
        })?;
        let kind = self.task.stores.kind(index).unwrap_or(store.spec.kind);
        Ok(store.open_as(index, kind))
    }

    /// A store as it is in this topology, which may say more than the program did.
    pub(crate) fn declared(&self, spec: &Arc<StoreSpec>) -> Arc<StoreSpec> {
        Arc::clone(self.topology.store(&spec.name).unwrap_or(spec))
    }

    /// Calls [`punctuate`](Processor::punctuate) each interval (at least 1 ms).
    pub fn schedule(&mut self, interval: Duration, kind: PunctuationType) -> Punctuation {
        self.task.schedule(self.id, kind, millis(interval))
    }

    /// The same at `start + n * interval`, `start` in milliseconds since the epoch (KIP-1146).
    pub fn schedule_from(&mut self, start: i64, interval: Duration, kind: PunctuationType) -> Punctuation {
        self.task.schedule_from(self.id, start, millis(interval), kind)
    }

    /// The task that the processor is made for.
    pub fn task_id(&self) -> TaskId {
        self.task.task_id()
    }

    /// The application.
    pub fn application_id(&self) -> &str {
        self.task.application_id()
    }

    /// A setting of the program's own: see [`Config::app_setting`](crate::Config::app_setting).
    pub fn app_setting(&self, name: &str) -> Option<&str> {
        self.task.app_setting(name)
    }

    /// The folder of the task: see [`TaskContext::state_dir`].
    pub fn state_dir(&self) -> PathBuf {
        self.task.state_dir()
    }

    pub(crate) fn node_name(&self) -> Arc<str> {
        Arc::clone(&self.topology.node(self.id).name)
    }

    /// Whether a child, or one behind it, wants to know what a row was before.
    pub(crate) fn sends_old_values(&self) -> bool {
        self.topology.node(self.id).sends_old_values
    }

    /// What this node and others of its pipeline have in common under a name.
    pub(crate) fn shared<T: Default + 'static>(&mut self, name: &Arc<str>) -> Result<Rc<T>> {
        self.task.shared(name)
    }

    /// The time of the operator: as of the last commit, or else a guess.
    pub(crate) fn remembered_time(&mut self, guess: i64) -> Rc<Cell<i64>> {
        self.task.times.named(&self.topology.node(self.id).name, guess)
    }

    /// The node has calls in flight, and wants to be asked for results.
    pub(crate) fn expect_calls(&mut self) {
        self.task.calls.nodes.push(self.id);
    }

    /// Whether other nodes are connected to a store, too.
    pub(crate) fn is_shared(&self, store: &str) -> bool {
        let topology = self.topology;
        let has_it = |id: &NodeId| topology.node(*id).stores.iter().any(|own| **own == *store);
        topology.nodes().filter(has_it).nth(1).is_some()
    }

    pub(crate) fn port<K: 'static, V: 'static>(&self) -> Result<Port<K, V>> {
        let node = self.topology.node(self.id);
        Port::connect(&self.children, &node.fan_out).map_err(|error| error.at(&node.name))
    }

    /// Brings the node to life around its processor.
    pub(crate) fn node<K: 'static, V: 'static, P: Processor<K, V>>(&self, processor: P) -> Result<Made> {
        let stores = &self.topology.node(self.id).stores;
        let stores = stores.iter().filter_map(|store| self.task.stores.index(store));
        let needs_headers = stores.into_iter().any(|store| self.task.stores.needs_headers(store));
        let (id, name, out) = (self.id, self.node_name(), self.port()?);
        Ok(Made::node(Rc::new(RefCell::new(Node { processor, out, id, name, needs_headers, types: PhantomData }))))
    }
}

impl fmt::Debug for ProcessorInit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessorInit").field("node", &self.node_name()).finish_non_exhaustive()
    }
}

/// Nothing negative goes on: Java's `Record` cannot even be made.
#[inline]
fn check_timestamp(timestamp: i64) -> Result<()> {
    if timestamp < 0 { Err(negative_timestamp(timestamp)) } else { Ok(()) }
}

#[cold]
fn negative_timestamp(timestamp: i64) -> Error {
    Error::user(format!(
        "forwards a record with the negative timestamp {timestamp}: times are milliseconds since the epoch"
    ))
}

pub(crate) fn millis(interval: Duration) -> i64 {
    i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1)
}
