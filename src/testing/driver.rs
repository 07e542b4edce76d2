//! The driver: a task, a clock and topics that are lists.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::crash::Home;
use super::produced::{Produced, TestRecord};
use super::topics::{TestInputTopic, TestOutputTopic};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Headers, OffsetAndMetadata, TopicPartition};
use crate::runtime::CallsInTurn;
use crate::serdes::Serde;
use crate::state::{GlobalStores, RecordContext, StoreContext, TaskStores};
use crate::task::{CommitPoint, GlobalTask, MaxTaskIdle, Task, TaskSpec};
use crate::topology::{TaskEnvironment, TaskId, Topology, changelog_topic};

/// Records that one call may make a topology process. Beyond it the topology feeds itself without end.
const RECORDS_PER_CALL_MAX: usize = 1_000_000;

/// Runs a topology without a broker, one record at a time: each record is processed with everything that it causes, and
/// committed, before the call that wrote it returns.
///
/// It is the same task that the runtime runs, with all sub-topologies in one. Every topic has one partition. A record that
/// the topology writes to a topic that it reads comes back to it. The clock only moves by
/// [`advance_wall_clock`](TopologyTestDriver::advance_wall_clock). State lives in memory, and its changes are in the
/// [changelog topics](TopologyTestDriver::produced).
///
/// ```
/// use kstreams::*;
///
/// let builder = StreamsBuilder::new();
/// builder
///     .stream("lines", Consumed::with(Utf8, Utf8))
///     .flat_map_values(|line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
///     .group_by(|_, word| word.clone(), Grouped::with(Utf8, Utf8))
///     .count(Materialized::named("counts"))
///     .to_stream()
///     .to("counts", Produced::with(Utf8, I64));
///
/// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
/// let lines = driver.create_input_topic("lines", Utf8, Utf8);
/// let counts = driver.create_output_topic("counts", Utf8, I64);
///
/// lines.pipe(&mut driver, "", "to be or not to be")?;
/// assert_eq!(counts.read_key_values(&mut driver)?.last(), Some(&("be".to_owned(), 2)));
///
/// let mut stored = driver.timestamped_key_value_store("counts", Utf8, I64)?;
/// assert_eq!(stored.get(&mut driver, &"or".to_owned())?.map(|row| row.value), Some(1));
/// # Ok::<(), Error>(())
/// ```
///
/// Differs from Kafka Streams: the clock begins at zero, so that a test gives the same result every day.
pub struct TopologyTestDriver {
    pub(super) application_id: Arc<str>,
    pub(super) task: Task,
    /// Those that fill global stores.
    pub(super) globals: Vec<GlobalInput>,
    /// The input topics by full name; the place is the task's number of the input.
    pub(super) inputs: Vec<Arc<str>>,
    /// The next offset of each input.
    pub(super) ends: Vec<i64>,
    /// Inputs from here on are topics that have come to match a pattern. As in Java's driver, they count offsets together.
    named: usize,
    has_patterns: bool,
    /// The changelog of each store; none: the store has none.
    pub(super) changelogs: Vec<Option<Arc<str>>>,
    pub(super) home: Home,
    pub(super) produced: Produced,
    /// How much of it was written before the last commit.
    pub(super) produced_committed: usize,
    pub(super) committed: BTreeMap<TopicPartition, OffsetAndMetadata>,
    pub(super) wall_clock_ms: i64,
    /// What a test writes to a store is written with.
    context: RecordContext,
    /// Stands in where the task has failed for good.
    no_stores: TaskStores,
}

/// A topic that goes straight to a global store.
pub(super) struct GlobalInput {
    topic: Arc<str>,
    pub(super) task: GlobalTask,
    /// The next offset.
    end: i64,
}

impl TopologyTestDriver {
    /// Starts a topology as application `app` with default settings.
    ///
    /// # Errors
    /// What the maker of a processor returned.
    pub fn new(topology: &Topology) -> Result<TopologyTestDriver> {
        TopologyTestDriver::with_config(topology, &Config::new("app", "embedded://"))
    }

    /// Starts a topology with the settings that a task knows of: application id, cache, idle time, handlers, names.
    ///
    /// # Errors
    /// As [`new`](TopologyTestDriver::new), and `Invalid` for settings that cannot be.
    pub fn with_config(topology: &Topology, config: &Config) -> Result<TopologyTestDriver> {
        TopologyTestDriver::with_config_at(topology, config, 0)
    }

    /// The same with a clock that begins at a time (ms since the epoch).
    ///
    /// # Errors
    /// As [`with_config`](TopologyTestDriver::with_config).
    pub fn with_config_at(topology: &Topology, config: &Config, wall_clock_ms: i64) -> Result<TopologyTestDriver> {
        TopologyTestDriver::start(topology, config, Home::Memory { cache_bytes: config.cache_bytes }, wall_clock_ms)
    }

    pub(super) fn start(
        topology: &Topology,
        config: &Config,
        home: Home,
        wall_clock_ms: i64,
    ) -> Result<TopologyTestDriver> {
        config.check()?;
        let topology = &topology.clone().with_default_engine(config.default_engine);
        if config.require_names {
            topology.refuse_generated_names()?;
        }
        let application_id: Arc<str> = config.application_id().into();
        let nodes = topology.task_nodes();
        let topics = topology.source_topics(&nodes);
        let inputs: Vec<_> = topics.iter().map(|topic| topology.full_name(&application_id, topic)).collect();
        let specs = topology.stores(&nodes);
        let mut stores = home.open(&application_id, &specs)?;
        let changelog = |name: &Arc<str>| changelog_topic(&application_id, name);
        let changelogs = specs.iter().map(|spec| spec.is_logged().then(|| changelog(&spec.name))).collect();
        let environment = TaskEnvironment {
            application_id: Arc::clone(&application_id),
            task: TaskId { sub_topology: 0, partition: 0 },
            handlers: config.handlers.clone(),
            partition_counts: Arc::new(|_| Ok(1)),
            calls: Arc::new(CallsInTurn),
            outer_join_emit_interval: config.outer_join_emit_interval,
            upgrade_from: config.upgrade_from,
            window_emit_interval: config.window_emit_interval,
            app_settings: Arc::clone(&config.app_settings),
            state_dir: config.application_dir(),
        };
        let globals = global_inputs(topology, config, &environment, &mut stores, wall_clock_ms)?;
        let wait = |idle: Duration| MaxTaskIdle::WaitMs(i64::try_from(idle.as_millis()).unwrap_or(i64::MAX));
        let spec = TaskSpec {
            topology: topology.clone(),
            nodes,
            environment,
            topics,
            inputs: inputs.iter().map(|topic| TopicPartition::new(Arc::clone(topic), 0)).collect(),
            idle: config.max_task_idle.map_or(MaxTaskIdle::Never, wait),
            replay: config.guarantee.into(),
        };
        let start = vec![CommitPoint::starting_at(0); inputs.len()];
        let mut task = Task::new(spec, stores, start, wall_clock_ms)?;
        // All there is of a topic is in the task's queue at once.
        (0..inputs.len()).for_each(|input| task.set_caught_up(input, Some(true)));
        Ok(TopologyTestDriver {
            application_id,
            task,
            globals,
            ends: vec![0; inputs.len()],
            named: inputs.len(),
            has_patterns: topology.has_patterns(),
            inputs,
            changelogs,
            home,
            produced: Produced::default(),
            produced_committed: 0,
            committed: BTreeMap::new(),
            wall_clock_ms,
            context: RecordContext::default(),
            no_stores: TaskStores::default(),
        })
    }

    /// A typed end to write to a topic that the topology reads.
    pub fn create_input_topic<K: 'static, V: 'static>(
        &self,
        topic: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> TestInputTopic<K, V> {
        TestInputTopic::new(topic, key, value)
    }

    /// A typed end to read a topic that the topology writes; internal ones by their full names.
    pub fn create_output_topic<K: 'static, V: 'static>(
        &self,
        topic: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> TestOutputTopic<K, V> {
        TestOutputTopic::new(topic, key, value)
    }

    /// Moves the clock, runs the punctuations that it makes due, commits, and processes records whose idle time is over.
    ///
    /// # Errors
    /// What the application would fail with. The driver is of no further use then.
    pub fn advance_wall_clock(&mut self, duration: Duration) -> Result<()> {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.wall_clock_ms = self.wall_clock_ms.saturating_add(millis);
        self.task.punctuate(self.wall_clock_ms)?;
        self.commit()
    }

    /// The driver's clock, in milliseconds from zero.
    pub fn wall_clock_ms(&self) -> i64 {
        self.wall_clock_ms
    }

    pub(super) fn task_stores(&mut self) -> Result<&mut TaskStores> {
        self.task.stores()
    }

    /// The names of all stores.
    ///
    /// # Errors
    /// `Closed` after a failure that the task did not survive.
    pub fn store_names(&mut self) -> Result<Vec<String>> {
        let mut names: Vec<_> = self.task.stores()?.specs().map(|spec| spec.name.to_string()).collect();
        for global in &mut self.globals {
            names.extend(global.task.stores()?.specs().map(|spec| spec.name.to_string()));
        }
        Ok(names)
    }

    /// Every record that was written, in order over all topics, internal ones included, as bytes.
    pub fn produced(&self) -> &[TestRecord] {
        self.produced.all()
    }

    /// The full names of all topics that were written to.
    pub fn produced_topics(&self) -> impl Iterator<Item = &str> {
        self.produced.topics()
    }

    /// What is committed for each input of which something was taken.
    pub fn committed(&self) -> &BTreeMap<TopicPartition, OffsetAndMetadata> {
        &self.committed
    }

    /// How many records were dropped on purpose: Java's metric `dropped-records-total`.
    pub fn dropped_records(&mut self) -> u64 {
        self.task.dropped() + self.globals.iter_mut().map(|global| global.task.dropped()).sum::<u64>()
    }

    /// The application's id, with which the names of internal topics begin.
    pub fn application_id(&self) -> &str {
        &self.application_id
    }

    /// Writes bytes to an input topic and processes all that can be.
    ///
    /// # Errors
    /// `Invalid` when the topology does not read the topic; otherwise what the application would fail with.
    pub fn pipe_raw(
        &mut self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: i64,
        headers: Headers,
    ) -> Result<()> {
        self.enqueue(topic, key, value, timestamp, headers)?;
        self.process()
    }

    /// Writes bytes to an input topic and leaves them there until the next call that processes.
    ///
    /// # Errors
    /// `Invalid` when the topology does not read the topic.
    pub fn enqueue(
        &mut self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: i64,
        headers: Headers,
    ) -> Result<()> {
        if let Some(global) = self.globals.iter_mut().find(|global| *global.topic == *topic) {
            return global.pipe(key, value, timestamp, headers, self.wall_clock_ms);
        }
        let input = match self.inputs.iter().position(|input| **input == *topic) {
            Some(input) => input,
            None => self.add_input(topic)?,
        };
        let Some(end) = self.ends.get_mut(input) else { return Ok(()) };
        let mut batch = self.task.empty_batch();
        batch.push(*end, timestamp, key, value, headers)?;
        *end += 1;
        let end = *end;
        if input >= self.named {
            self.ends.iter_mut().skip(self.named).for_each(|shared| *shared = end);
        }
        self.task.add(input, batch);
        Ok(())
    }

    /// Processes all that can be, with a commit after every record.
    ///
    /// # Errors
    /// What the application would fail with.
    pub fn process(&mut self) -> Result<()> {
        self.process_each(TopologyTestDriver::commit_once)
    }

    /// Processes all that can be without a commit, as an application does between two: caches hold back what they can.
    ///
    /// # Errors
    /// What the application would fail with.
    pub fn process_without_commit(&mut self) -> Result<()> {
        self.process_each(TopologyTestDriver::deliver)
    }

    /// A topic that matches the pattern of a source.
    fn add_input(&mut self, topic: &str) -> Result<usize> {
        let topic: Arc<str> = topic.into();
        let input = self.task.add_input(TopicPartition::new(Arc::clone(&topic), 0)).ok_or_else(|| {
            let known = self.inputs.join(", ");
            Error::invalid(format!("the topology does not read topic {topic}: it reads {known}"))
        })?;
        self.task.set_caught_up(input, Some(true));
        self.inputs.push(topic);
        self.ends.push(self.ends.get(self.named).copied().unwrap_or(0));
        Ok(input)
    }

    fn process_each(&mut self, then: impl Fn(&mut TopologyTestDriver) -> Result<()>) -> Result<()> {
        for _ in 0..RECORDS_PER_CALL_MAX {
            if self.task.process(1, self.wall_clock_ms)? == 0 {
                return Ok(());
            }
            then(self)?;
        }
        Err(endless())
    }

    /// Commits, then processes what that has written to topics that the topology reads.
    ///
    /// # Errors
    /// What the application would fail with.
    pub fn commit(&mut self) -> Result<()> {
        self.commit_once()?;
        self.process()
    }

    /// Ends the task: its processors are told. What is left in queues is dropped.
    pub fn close(self) {
        self.task.close();
    }

    /// The steps of the runtime's commit, with lists in place of a transaction.
    fn commit_once(&mut self) -> Result<()> {
        self.task.flush()?;
        self.deliver()?;
        let inputs = &self.inputs;
        let ends = &self.ends;
        let position = |at: &TopicPartition| {
            let input = inputs.iter().position(|topic| *topic == at.topic)?;
            ends.get(input).copied()
        };
        self.committed.extend(self.task.offsets(position));
        let produced = &self.produced;
        let end_of = |topic: &Arc<str>| produced.end(topic);
        let changelogs: Vec<_> = self.changelogs.iter().map(|topic| topic.as_ref().and_then(end_of)).collect();
        self.produced_committed = produced.all().len();
        self.task.committed(&changelogs, position)
    }

    /// Hands output and changelog to their topics, and to the queues of those that the topology reads.
    fn deliver(&mut self) -> Result<()> {
        let mut records = Vec::new();
        let output = self.task.output()?;
        records.extend(output.iter().map(|record| TestRecord {
            topic: Arc::clone(record.topic),
            partition: record.partition,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            timestamp: record.timestamp.unwrap_or(self.wall_clock_ms),
            headers: record.headers.clone(),
        }));
        output.clear();
        let stores = self.task.stores()?;
        for update in stores.changelog() {
            let Some(topic) = self.changelogs.get(update.store).and_then(Option::as_ref) else { continue };
            records.push(TestRecord {
                topic: Arc::clone(topic),
                partition: Some(0),
                key: Some(update.key.to_vec()),
                value: update.value.map(<[u8]>::to_vec),
                timestamp: update.timestamp.unwrap_or(self.wall_clock_ms),
                headers: update.headers.clone(),
            });
        }
        stores.clear_changelog();
        for record in records {
            let is_read = self.globals.iter().any(|global| global.topic == record.topic);
            let is_read = is_read || self.inputs.contains(&record.topic);
            if is_read || self.has_patterns && self.add_input(&record.topic).is_ok() {
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                self.enqueue(&record.topic, key, value, record.timestamp, record.headers.clone())?;
            }
            self.produced.push(record);
        }
        Ok(())
    }
}

/// Makes the tasks of the global stores, and lets the others read these.
fn global_inputs(
    topology: &Topology,
    config: &Config,
    environment: &TaskEnvironment,
    readers: &mut TaskStores,
    now: i64,
) -> Result<Vec<GlobalInput>> {
    let environment = TaskEnvironment { handlers: config.global_handlers(), ..environment.clone() };
    let mut shared = GlobalStores::default();
    let mut inputs = Vec::new();
    for number in topology.globals() {
        let nodes = topology.sub_topology(number);
        let stores = TaskStores::shared_in_memory(&topology.stores(&nodes));
        shared.add(&stores);
        let Some(topic) = topology.source_topics(&nodes).into_iter().next() else { continue };
        let partition = vec![(TopicPartition::new(Arc::clone(&topic), 0), 0)];
        let task = GlobalTask::new(topology, number, environment.clone(), stores, partition, now)?;
        inputs.push(GlobalInput { topic, task, end: 0 });
    }
    shared.attach(readers);
    Ok(inputs)
}

impl GlobalInput {
    fn pipe(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: i64,
        headers: Headers,
        now: i64,
    ) -> Result<()> {
        let mut batch = self.task.empty_batch();
        batch.push(self.end, timestamp, key, value, headers)?;
        self.end += 1;
        self.task.add(0, batch, self.end);
        self.task.process(now).map(|_| ())
    }
}

impl std::fmt::Debug for TopologyTestDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopologyTestDriver").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

impl StoreContext for TopologyTestDriver {
    fn stores(&mut self) -> (&mut TaskStores, &RecordContext) {
        self.context.timestamp = self.wall_clock_ms;
        (self.task.stores().unwrap_or(&mut self.no_stores), &self.context)
    }
}

#[cold]
fn endless() -> Error {
    let context =
        format!("the topology has caused more than {RECORDS_PER_CALL_MAX} records: does it read what it writes?");
    Error::new(ErrorKind::User, context)
}
