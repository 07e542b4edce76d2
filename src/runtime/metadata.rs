//! Which instance has what, as the leader of the group has told it last: for whoever looks for a key or a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::kafka_streams::KafkaStreams;
use super::running_task::RunningTask;
use super::stream_thread::StreamThread;
use super::task_layout::TaskLayout;
use crate::client::partition_for_key;
use crate::config::HostInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::membership::classic::user_data::Host;
#[cfg(feature = "query-http")]
use crate::partition::KeyPartitioner;
use crate::record::TopicPartition;
use crate::serdes::Serde;
use crate::state::{StoreKind, StoreSpec};
use crate::topology::{TaskId, Topology};

/// What an instance of the application has: see [`KafkaStreams::all_metadata`](crate::KafkaStreams::all_metadata).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamsMetadata {
    /// Where it can be asked.
    pub host: HostInfo,
    /// The stores of its tasks, and the global ones.
    pub stores: BTreeSet<Arc<str>>,
    /// What its tasks read.
    pub topic_partitions: BTreeSet<TopicPartition>,
    /// The stores that it keeps copies of.
    pub standby_stores: BTreeSet<Arc<str>>,
    /// What the tasks read whose stores it keeps copies of.
    pub standby_topic_partitions: BTreeSet<TopicPartition>,
}

/// Who has the row of a key: see [`KafkaStreams::metadata_for_key`](crate::KafkaStreams::metadata_for_key).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyMetadata {
    /// The instance whose task writes it; of a global store this one, which has it as well.
    pub active: HostInfo,
    /// Those that keep a copy of it.
    pub standbys: Vec<HostInfo>,
    /// The partition of the store; none for a global store.
    pub partition: Option<i32>,
}

/// A stream thread of this instance: see
/// [`KafkaStreams::metadata_for_local_threads`](crate::KafkaStreams::metadata_for_local_threads).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadMetadata {
    /// Its name.
    pub name: Arc<str>,
    /// Whether all its tasks are restored and process records.
    pub is_running: bool,
    /// Tasks that process records, or are being restored.
    pub active_tasks: Vec<TaskMetadata>,
    /// Tasks whose stores it keeps copies of.
    pub standby_tasks: Vec<TaskId>,
}

/// A task of a stream thread.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskMetadata {
    /// The task.
    pub task: TaskId,
    /// What it reads, and what is committed of that, where it runs already.
    pub committed_offsets: BTreeMap<TopicPartition, i64>,
    /// The ends of its inputs, as far as they are known.
    pub end_offsets: BTreeMap<TopicPartition, i64>,
}

/// Who has the partitions of a store, as this instance knows it.
#[cfg(feature = "query-http")]
#[derive(Debug, Clone)]
pub(crate) struct Placement {
    /// Grows with each change that this instance hears of; says nothing to others.
    pub version: u64,
    /// Every instance has it whole.
    pub is_global: bool,
    /// What the program says of its keys.
    pub partitioner: Option<KeyPartitioner>,
    /// By their numbers.
    pub partitions: Vec<Owners>,
}

/// Who has a partition.
#[cfg(feature = "query-http")]
#[derive(Debug, Clone)]
pub(crate) struct Owners {
    /// None: nobody that has an address is known to.
    pub active: Option<HostInfo>,
    pub standbys: Vec<HostInfo>,
}

/// The whereabouts of everything, for all threads.
#[derive(Default)]
pub(super) struct Whereabouts(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// How often the rest has changed.
    version: u64,
    /// What there is, once the client has started.
    program: Option<Program>,
    hosts: Vec<Host>,
}

struct Program {
    topology: Topology,
    layout: Arc<TaskLayout>,
    own: Option<HostInfo>,
}

impl Whereabouts {
    /// What the application consists of now.
    pub(super) fn set_program(&self, topology: &Topology, layout: &Arc<TaskLayout>, own: Option<HostInfo>) {
        let mut known = self.known();
        known.version += 1;
        known.program = Some(Program { topology: topology.clone(), layout: Arc::clone(layout), own });
    }

    /// What the leader says.
    pub(super) fn set_hosts(&self, hosts: &[Host]) {
        let mut known = self.known();
        if known.hosts != hosts {
            known.version += 1;
            hosts.clone_into(&mut known.hosts);
        }
    }

    pub(super) fn all(&self) -> Vec<StreamsMetadata> {
        let known = self.known();
        let Some(program) = &known.program else { return Vec::new() };
        known.hosts.iter().filter_map(|host| program.metadata(host)).collect()
    }

    /// # Errors
    /// `Invalid` for a store that the application does not have.
    pub(super) fn of_store(&self, store: &str) -> Result<Vec<StreamsMetadata>> {
        let known = self.known();
        let program = known.started()?;
        program.place_of(store)?;
        let has_it = |host: &StreamsMetadata| host.stores.contains(store) || host.standby_stores.contains(store);
        Ok(known.hosts.iter().filter_map(|host| program.metadata(host)).filter(has_it).collect())
    }

    /// Where the partition of a store is that is chosen among so many.
    ///
    /// # Errors
    /// As [`KafkaStreams::metadata_for_key`](crate::KafkaStreams::metadata_for_key) says.
    pub(super) fn of_key(
        &self,
        store: &str,
        choose: impl FnOnce(&StoreSpec, i32) -> Result<i32>,
    ) -> Result<KeyMetadata> {
        let known = self.known();
        let program = known.started()?;
        let own = program.own.clone().ok_or_else(|| {
            Error::invalid(
                "instances cannot be asked for keys without an address: set application_server in all of them",
            )
        })?;
        let Some((sub_topology, spec)) = program.place_of(store)? else {
            return Ok(KeyMetadata { active: own, standbys: Vec::new(), partition: None });
        };
        let tasks = program.layout.sub_topologies().get(sub_topology).map_or(0, |known| known.tasks);
        let partition = choose(&spec, tasks)?;
        if !(0..tasks).contains(&partition) {
            return Err(Error::invalid(format!(
                "the partitioner says that the key is in partition {partition} of store {store}, which has {tasks}: it has \
                 to be the one that the records were written with"
            )));
        }
        let task = TaskId { sub_topology, partition };
        let address = |host: &Host| host.endpoint.as_ref()?.parse::<HostInfo>().ok();
        let active = known.hosts.iter().find(|host| host.active.binary_search(&task).is_ok()).and_then(address);
        let active = active.ok_or_else(|| {
            let context =
                format!("no instance is known to run task {task} of store {store} now: ask again, it may be moving");
            Error::new(ErrorKind::Unavailable, context)
        })?;
        let standbys = known.hosts.iter().filter(|host| host.standby.binary_search(&task).is_ok());
        Ok(KeyMetadata { active, standbys: standbys.filter_map(address).collect(), partition: Some(partition) })
    }

    /// # Errors
    /// `Invalid` for a store that the application does not have; `Unavailable` before the start.
    #[cfg(feature = "query-http")]
    pub(super) fn placement(&self, store: &str) -> Result<Placement> {
        let known = self.known();
        let program = known.started()?;
        let Some((sub_topology, spec)) = program.place_of(store)? else {
            let (version, partitions) = (known.version, Vec::new());
            return Ok(Placement { version, is_global: true, partitioner: None, partitions });
        };
        let tasks = program.layout.sub_topologies().get(sub_topology).map_or(0, |known| known.tasks);
        let address = |host: &Host| host.endpoint.as_ref()?.parse::<HostInfo>().ok();
        let with = |tasks: fn(&Host) -> &[TaskId], task: TaskId| -> Vec<HostInfo> {
            let hosts = known.hosts.iter().filter(|host| tasks(host).binary_search(&task).is_ok());
            hosts.filter_map(address).collect()
        };
        let owners = |partition| {
            let task = TaskId { sub_topology, partition };
            Owners {
                active: with(|host| &host.active, task).into_iter().next(),
                standbys: with(|host| &host.standby, task),
            }
        };
        let partitions = (0..tasks).map(owners).collect();
        let partitioner = spec.partitioner.clone();
        Ok(Placement { version: known.version, is_global: false, partitioner, partitions })
    }

    /// How many partitions a store has; none: it is a global one, or nobody knows yet.
    pub(super) fn partitions_of(&self, store: &str) -> Option<i32> {
        let known = self.known();
        let program = known.program.as_ref()?;
        let (sub_topology, _) = program.place_of(store).ok()??;
        program.layout.sub_topologies().get(sub_topology).map(|known| known.tasks)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is one assignment: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn started(&self) -> Result<&Program> {
        let not_yet = || Error::new(ErrorKind::Unavailable, "the client has not started: ask when it has");
        self.program.as_ref().ok_or_else(not_yet)
    }
}

impl Program {
    /// None: it cannot be asked.
    fn metadata(&self, host: &Host) -> Option<StreamsMetadata> {
        let address = host.endpoint.as_ref()?.parse().ok()?;
        let stores = |tasks: &[TaskId]| -> BTreeSet<Arc<str>> {
            let sub_topologies: BTreeSet<usize> = tasks.iter().map(|task| task.sub_topology).collect();
            sub_topologies.into_iter().flat_map(|number| self.stores_of(number)).collect()
        };
        let partitions = |tasks: &[TaskId]| -> BTreeSet<TopicPartition> {
            tasks.iter().filter_map(|task| self.layout.inputs(*task)).flat_map(|inputs| inputs.partitions).collect()
        };
        let global = self.topology.globals().into_iter().flat_map(|number| self.stores_of(number));
        Some(StreamsMetadata {
            host: address,
            stores: stores(&host.active).into_iter().chain(global).collect(),
            topic_partitions: partitions(&host.active),
            standby_stores: stores(&host.standby),
            standby_topic_partitions: partitions(&host.standby),
        })
    }

    fn stores_of(&self, sub_topology: usize) -> Vec<Arc<str>> {
        self.specs_of(sub_topology).map(|spec| Arc::clone(&spec.name)).collect()
    }

    fn specs_of(&self, sub_topology: usize) -> impl Iterator<Item = Arc<StoreSpec>> {
        self.topology.stores(&self.topology.sub_topology(sub_topology)).into_iter()
    }

    /// The sub-topology whose tasks have it; none: it is a global one.
    fn place_of(&self, store: &str) -> Result<Option<(usize, Arc<StoreSpec>)>> {
        if self.topology.is_global_store(store) {
            return Ok(None);
        }
        let mut numbers = 0..self.topology.sub_topology_count();
        let found = numbers.find_map(|number| {
            let spec = self.specs_of(number).find(|known| *known.name == *store)?;
            Some((number, spec))
        });
        let unknown =
            || Error::invalid(format!("the application has no store {store}: see Topology::describe for its names"));
        found.map(Some).ok_or_else(unknown)
    }
}

impl StreamThread {
    /// What the user is told of this thread. Made anew when its phase changes, and once a second.
    pub(super) fn tell_board(&self) {
        let offsets = |running: &RunningTask| -> BTreeMap<TopicPartition, i64> {
            running.task.committed_positions().map(|(input, offset)| (input.clone(), offset)).collect()
        };
        let running = self.tasks.iter().map(|running| TaskMetadata {
            task: running.task.id(),
            committed_offsets: offsets(running),
            end_offsets: running.inputs.iter().filter_map(|i| Some((i.clone(), self.consumer.end(i)?))).collect(),
        });
        let waiting = self.restoring.keys().chain(self.opening.keys()).copied();
        let nothing = |task| TaskMetadata { task, committed_offsets: BTreeMap::new(), end_offsets: BTreeMap::new() };
        let mut active_tasks: Vec<_> = running.chain(waiting.map(nothing)).collect();
        active_tasks.sort_unstable_by_key(|known| known.task);
        let metadata = ThreadMetadata {
            name: self.app.thread_name(self.index).into(),
            is_running: self.is_ready(),
            active_tasks,
            standby_tasks: self.standbys.iter().copied().collect(),
        };
        self.app.board.threads().insert(self.index, metadata);
    }
}

impl KafkaStreams {
    /// Every instance that can be asked, itself among them, and what it has (Java's `metadataForAllStreamsClients`): those
    /// with an [`application_server`](crate::Config::application_server), as the leader of the group has told it last.
    /// Nothing before the first assignment, and with [`GroupProtocol::Range`](crate::GroupProtocol::Range).
    ///
    /// In groups of hundreds of instances the leader leaves out what has no room in the assignments, standbys first.
    ///
    /// # Examples
    /// ```no_run
    /// # fn show(streams: &kstreams::KafkaStreams) {
    /// for instance in streams.all_metadata() {
    ///     println!("{} has {:?} of {:?}", instance.host, instance.topic_partitions, instance.stores);
    /// }
    /// # }
    /// ```
    pub fn all_metadata(&self) -> Vec<StreamsMetadata> {
        self.board.whereabouts.all()
    }

    /// The instances that have some of a store, or copies of it (Java's `streamsMetadataForStore`); all of them have a
    /// global one.
    ///
    /// # Errors
    /// `Invalid`: the application has no such store. `Unavailable`: the client has not started.
    pub fn all_metadata_for_store(&self, store: &str) -> Result<Vec<StreamsMetadata>> {
        self.board.whereabouts.of_store(store)
    }

    /// Who has the row of a key (Java's `queryMetadataForKey`): in the partition that the store's
    /// [partitioner](crate::Materialized::with_partitioner) says, or else where Kafka's clients write such a key. The serde is
    /// that of the store's keys; a windowed key is looked for by what is in the window.
    ///
    /// # Examples
    /// ```no_run
    /// # fn whom(streams: &kstreams::KafkaStreams) -> kstreams::Result<()> {
    /// let found = streams.metadata_for_key("word-counts", &"kafka".to_owned(), &kstreams::Utf8)?;
    /// println!("ask {}, or else one of {:?}", found.active, found.standbys);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Invalid`: the application has no such store, or this instance no `application_server`. `Unavailable`: nobody is
    /// known to have it now, because it moves or its owner has no address; ask again. What the serde fails with.
    pub fn metadata_for_key<S: Serde + ?Sized>(&self, store: &str, key: &S::Item, serde: &S) -> Result<KeyMetadata> {
        self.board.whereabouts.of_key(store, |spec, partitions| {
            let mut bytes = Vec::new();
            serde.serialize(key, &mut bytes)?;
            // The windows of a key are where the key is.
            let inner = bytes.len().saturating_sub(serde.window_bytes());
            if spec.partitioner.is_none() || matches!(spec.kind, StoreKind::Window(_) | StoreKind::Session(_)) {
                bytes.truncate(inner);
            }
            match &spec.partitioner {
                Some(partitioner) => partitioner.partition(&bytes, partitions),
                None => Ok(partition_for_key(&bytes, partitions)),
            }
        })
    }

    /// Who has the row of a key whose records were partitioned by something else that the store was not
    /// [told of](crate::Materialized::with_partitioner), such as
    /// [`Produced::with_partitioner`](crate::Produced::with_partitioner): the partitioner gives the partition of the key among
    /// so many. Of a windowed row it is asked for the key in the window.
    ///
    /// # Examples
    /// ```no_run
    /// # fn whom(streams: &kstreams::KafkaStreams) -> kstreams::Result<()> {
    /// let found = streams.metadata_for_key_by("orders-by-number", &41_i64, |number, partitions| {
    ///     (number % i64::from(partitions)) as i32
    /// })?;
    /// println!("ask {}", found.active);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`metadata_for_key`](KafkaStreams::metadata_for_key). `Invalid`: the store has no such partition.
    pub fn metadata_for_key_by<K: ?Sized>(
        &self,
        store: &str,
        key: &K,
        partitioner: impl FnOnce(&K, i32) -> i32,
    ) -> Result<KeyMetadata> {
        self.board.whereabouts.of_key(store, |_, partitions| Ok(partitioner(key, partitions)))
    }

    /// The stream threads of this instance and their tasks (Java's `metadataForLocalThreads`), at most a second old.
    pub fn metadata_for_local_threads(&self) -> Vec<ThreadMetadata> {
        self.board.threads().values().cloned().collect()
    }
}
