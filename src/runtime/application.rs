//! What all threads of an application share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use uuid::Uuid;

use super::awaited_topics::AwaitedTopics;
use super::board::Board;
use super::crash::CrashPoint;
use super::lags::Lags;
use super::restore::changelog_of;
use super::restore_event::RestoreEvent;
use super::task_layout::TaskLayout;
use crate::client::{Admin, Cluster, ConsumerSpec, GroupSpec, Isolation, ProducerSpec, Topics};
use crate::config::{Config, GroupProtocol, Guarantee};
use crate::error::{ErrorKind, Result};
use crate::record::TopicPartition;
use crate::state::{CacheBudget, ChangelogIdentity, GlobalStores, StateDirectory, StateHome, StateMemory, StoreToOpen};
use crate::topology::{CallRunner, NodeKind, PartitionCounts, SinkName, TaskEnvironment, TaskId, Topology};

pub(super) type RestoreListener = Arc<dyn Fn(&RestoreEvent) + Send + Sync>;

/// Made at the start, once the cluster has been asked about topics; the same until the end, or until other topics match
/// the patterns of its sources.
pub(super) struct Application {
    pub topology: Topology,
    pub config: Config,
    pub layout: Arc<TaskLayout>,
    pub cluster: Arc<dyn Cluster>,
    pub admin: Arc<SharedAdmin>,
    pub partition_counts: PartitionCounts,
    pub restore_listener: Option<RestoreListener>,
    /// Part of transactional ids: a restarted process with the same one ends what it left open.
    pub process_id: String,
    pub board: Arc<Board>,
    pub lags: Arc<Lags>,
    /// Of this application and process; none: no store is on disk.
    pub directory: Option<StateDirectory>,
    pub memory: StateMemory,
    pub changelogs: HashMap<Arc<str>, Changelog>,
    /// Internal topics that the broker makes while the group is joined.
    pub awaited: AwaitedTopics,
    /// Of source topics, where the cluster has ids.
    pub input_ids: HashMap<Arc<str>, Uuid>,
    /// Records of repartition topics before these offsets are committed, and nobody needs them.
    pub purgeable: Mutex<BTreeMap<TopicPartition, i64>>,
    pub crash_point: Arc<CrashPoint>,
    /// Runs what asynchronous operators call.
    pub calls: Arc<dyn CallRunner>,
    /// There while stream threads run: see `GlobalThread`. Looked at once per task.
    pub globals: Arc<Mutex<Option<Arc<GlobalStores>>>>,
}

/// What is known of a changelog topic from the start on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changelog {
    pub id: Option<Uuid>,
    /// How long (ms) a deletion stays in it; none: it is not compacted.
    pub delete_retention_ms: Option<i64>,
}

impl Application {
    pub(super) fn id(&self) -> &str {
        &self.config.application_id
    }

    pub(super) fn is_exactly_once(&self) -> bool {
        self.config.guarantee == Guarantee::ExactlyOnce
    }

    pub(super) fn isolation(&self) -> Isolation {
        if self.is_exactly_once() { Isolation::ReadCommitted } else { Isolation::ReadUncommitted }
    }

    pub(super) fn thread_name(&self, thread: usize) -> String {
        format!("{}-stream-{thread}", self.id())
    }

    pub(super) fn restore_thread_name(&self, thread: usize) -> String {
        format!("{}-restore-{thread}", self.id())
    }

    /// Java's name of the whole client.
    pub(super) fn own_client_id(&self) -> String {
        self.config.client_id.clone().unwrap_or_else(|| format!("{}-{}", self.id(), self.process_id))
    }

    /// Java's name of a thread's client.
    pub(super) fn client_id(&self, thread: usize, kind: &str) -> String {
        format!("{}-StreamThread-{thread}-{kind}", self.own_client_id())
    }

    pub(super) fn group_spec(&self, thread: usize) -> GroupSpec {
        GroupSpec {
            group: self.id().to_owned(),
            client_id: self.client_id(thread, "consumer"),
            instance_id: self.config.group_instance_id.as_ref().map(|id| format!("{id}-{thread}")),
            topics: self.layout.topics(),
            isolation: self.isolation(),
            tasks: Arc::clone(&self.layout) as _,
        }
    }

    /// The name of this process in the group that outlives it: given, or that of its state directory.
    pub(super) fn instance_id(&self) -> Option<String> {
        let own = || self.directory.as_ref().map(|_| self.process_id.clone());
        // IMPORTANT: brokers do not fence the twin of a member of a streams group: such a name has to be that of what only
        // one process can have, and what its transactional ids are made of.
        let given = self.config.group_instance_id.clone();
        given.filter(|_| self.config.group_protocol != GroupProtocol::Streams).or_else(own)
    }

    pub(super) fn restore_consumer_spec(&self, thread: usize) -> ConsumerSpec {
        ConsumerSpec {
            client_id: self.client_id(thread, "restore-consumer"),
            isolation: self.isolation(),
            topics: Topics::Changelogs,
        }
    }

    pub(super) fn producer_spec(&self, thread: usize) -> ProducerSpec {
        let transactional_id = format!("{}-{}-{thread}", self.id(), self.process_id);
        ProducerSpec {
            client_id: self.client_id(thread, "producer"),
            transactional_id: self.is_exactly_once().then_some(transactional_id),
            transaction_timeout: self.config.transaction_timeout,
            outputs: self.outputs(),
        }
    }

    /// The topics that producers of the application write to, but for those that a record names.
    pub(super) fn outputs(&self) -> Arc<[Arc<str>]> {
        let sinks = self.topology.nodes().filter_map(|id| {
            let NodeKind::Sink { topic: SinkName::Fixed(topic) } = &self.topology.node(id).kind else { return None };
            Some(self.topology.full_name(self.id(), topic))
        });
        let letters = self.config.handlers.dead_letter_topic.clone();
        let all: BTreeSet<Arc<str>> = self.changelogs.keys().cloned().chain(sinks).chain(letters).collect();
        all.into_iter().collect()
    }

    /// What a task is told when it is made.
    pub(super) fn environment(&self, task: TaskId) -> TaskEnvironment {
        TaskEnvironment {
            application_id: self.id().into(),
            task,
            handlers: self.config.handlers.clone(),
            partition_counts: Arc::clone(&self.partition_counts),
            calls: Arc::clone(&self.calls),
            outer_join_emit_interval: self.config.outer_join_emit_interval,
            upgrade_from: self.config.upgrade_from,
            window_emit_interval: self.config.window_emit_interval,
            app_settings: Arc::clone(&self.config.app_settings),
            state_dir: self.config.application_dir(),
        }
    }

    /// What the stores of a thread share.
    pub(super) fn state_home(&self) -> StateHome {
        let cache = CacheBudget::new(self.config.cache_bytes / self.workers());
        StateHome { directory: self.directory.clone(), memory: self.memory.clone(), cache }
    }

    /// The stores of a task, each with what backs it.
    pub(super) fn stores_of(&self, task: TaskId) -> Vec<StoreToOpen> {
        let nodes = self.layout.inputs(task).map(|inputs| inputs.nodes).unwrap_or_default();
        let store = |spec: Arc<crate::state::StoreSpec>| {
            let changelog = changelog_of(self.id(), &spec).map(|topic| {
                let own = self.changelogs.get(&topic).and_then(|known| known.id);
                let own = own.or_else(|| self.awaited.id(&topic));
                let topic_id = own.or_else(|| self.input_ids.get(&topic).copied());
                ChangelogIdentity { topic, topic_id, partition: task.partition }
            });
            StoreToOpen { spec, changelog }
        };
        self.topology.stores(nodes).into_iter().map(store).collect()
    }

    pub(super) fn set_globals(&self, globals: Option<GlobalStores>) {
        *self.globals.lock().unwrap_or_else(PoisonError::into_inner) = globals.map(Arc::new);
    }

    pub(super) fn globals(&self) -> Option<Arc<GlobalStores>> {
        self.globals.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Arc::clone)
    }

    pub(super) fn with_admin<T>(&self, ask: impl FnOnce(&mut dyn Admin) -> Result<T>) -> Result<T> {
        self.admin.with(ask)
    }

    /// Stream threads, as many as share what is for all of them.
    pub(super) fn workers(&self) -> usize {
        usize::try_from(self.board.workers()).unwrap_or(1).max(1)
    }

    pub(super) fn add_processed(&self, records: usize) {
        self.board.add_processed(records);
    }

    pub(super) fn restored(&self, event: &RestoreEvent) {
        if let Some(listener) = &self.restore_listener {
            listener(event);
        }
    }
}

impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Asked at assignments and when topics are purged: seldom enough for one to serve all threads.
pub(super) struct SharedAdmin {
    cluster: Arc<dyn Cluster>,
    /// None: it has failed, and the next call makes another one.
    admin: Mutex<Option<Box<dyn Admin>>>,
}

impl SharedAdmin {
    pub(super) fn new(cluster: Arc<dyn Cluster>, admin: Box<dyn Admin>) -> SharedAdmin {
        SharedAdmin { cluster, admin: Mutex::new(Some(admin)) }
    }

    fn with<T>(&self, ask: impl FnOnce(&mut dyn Admin) -> Result<T>) -> Result<T> {
        // A panic inside the client leaves nothing half done that the next call would see.
        let mut slot = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        let mut admin = match slot.take() {
            Some(admin) => admin,
            None => self.cluster.admin()?,
        };
        let answer = ask(&mut *admin);
        // NOTE: after a restart of the broker a client may ask with an old leader epoch for minutes and be refused each
        // time. A new one knows the new leaders.
        let is_stale = answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable);
        *slot = (!is_stale).then_some(admin);
        answer
    }
}

/// Answers how many partitions a topic has; asks the cluster once for each topic that is not known at the start.
pub(super) fn remembered_counts(known: HashMap<String, i32>, admin: Arc<SharedAdmin>) -> PartitionCounts {
    let known = RwLock::new(known);
    Arc::new(move |topic| {
        if let Some(count) = known.read().unwrap_or_else(PoisonError::into_inner).get(topic) {
            return Ok(*count);
        }
        let answer = admin.with(|admin| admin.topics(&[topic.into()]))?;
        let Some(info) = answer.into_iter().next().flatten() else {
            return Err(crate::Error::invalid(format!("topic {topic} does not exist: create it")));
        };
        known.write().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned(), info.partitions);
        Ok(info.partitions)
    })
}
