//! What an application is told: where its cluster is, what it promises, what it may use.

mod instance;
mod names;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use instance::HostInfo;

use crate::client::Cluster;
use crate::client::embedded::EmbeddedCluster;
use crate::error::{Error, Result};
use crate::state::{EngineKind, StateMemoryLimits};
use crate::topology::{ErrorHandler, Handlers, Interceptor, OffsetReset, Optimization, ProcessorInterceptor};

/// The settings of an application. Defaults are Java's unless a method says otherwise.
///
/// ```
/// use std::time::Duration;
/// use kstreams::Config;
///
/// # fn main() -> kstreams::Result<()> {
/// let config = Config::new("word-count", "localhost:9092")
///     .exactly_once()
///     .threads(2)
///     .commit_interval(Duration::from_millis(200))
///     .state_dir("/var/lib/word-count")
///     .kafka("security.protocol", "plaintext")
///     .set("max.task.idle.ms", "500")?; // any setting by its Java name
/// assert_eq!(config.application_id(), "word-count");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Config {
    pub(crate) application_id: String,
    pub(crate) bootstrap: String,
    pub(crate) cluster: Option<GivenCluster>,
    pub(crate) guarantee: Guarantee,
    pub(crate) threads: usize,
    pub(crate) client_id: Option<String>,
    pub(crate) group_instance_id: Option<String>,
    pub(crate) application_server: Option<String>,
    pub(crate) client_tags: BTreeMap<String, String>,
    pub(crate) rack_tags: Vec<String>,
    pub(crate) offset_reset: OffsetReset,
    pub(crate) handlers: Handlers,
    pub(crate) global_processing_handler: bool,
    pub(crate) require_names: bool,
    pub(crate) optimization: Optimization,
    pub(crate) upgrade_from: Option<(u16, u16)>,
    pub(crate) store_format: StoreFormat,
    pub(crate) default_engine: EngineKind,
    pub(crate) topic_creation: TopicCreation,
    pub(crate) replication_factor: Option<i32>,
    /// Settings of every topic the library creates.
    pub(crate) topic_settings: BTreeMap<String, String>,
    /// Settings of the Kafka client, maybe with the prefix of one client.
    pub(crate) kafka_settings: BTreeMap<String, String>,
    /// What the program wants to tell its processors.
    pub(crate) app_settings: Arc<BTreeMap<String, String>>,
    /// None: below the folder for temporary files.
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) state_cleanup_delay: Duration,
    pub(crate) repartition_purge_interval: Duration,
    pub(crate) metadata_max_age: Duration,
    pub(crate) commit_interval: Option<Duration>,
    pub(crate) group_protocol: GroupProtocol,
    pub(crate) num_standby_replicas: usize,
    pub(crate) max_warmup_replicas: usize,
    pub(crate) acceptable_recovery_lag: u64,
    pub(crate) session_timeout: Duration,
    pub(crate) max_poll_interval: Duration,
    pub(crate) leave_on_close: bool,
    pub(crate) transaction_timeout: Duration,
    pub(crate) max_task_idle: Option<Duration>,
    pub(crate) buffered_records_per_partition: usize,
    pub(crate) outer_join_emit_interval: Duration,
    pub(crate) window_emit_interval: Duration,
    pub(crate) cache_bytes: usize,
    pub(crate) uncommitted_bytes: usize,
    pub(crate) memory: StateMemoryLimits,
    #[cfg(feature = "testing")]
    pub(crate) crash_at: Option<String>,
}

/// What a crash may do to results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guarantee {
    /// No record is lost; after a crash some are processed again, so that counts may be too high.
    AtLeastOnce,
    /// Input offsets, state and output commit as one transaction: results are those of a run without a crash. Readers of
    /// the output need `isolation.level=read_committed`.
    ExactlyOnce,
}

/// What the rows of tables and aggregations have room for (`dsl.store.format`, KIP-1285). It counts where the topology is
/// built: [`StreamsBuilder::build_with`](crate::StreamsBuilder::build_with).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreFormat {
    /// Value and timestamp.
    Default,
    /// Headers as well. The operators of the DSL write none with their rows, as in Java; what differs is that a deletion in
    /// a changelog carries the headers of the record that caused it.
    Headers,
}

/// Which topics the library creates at the start. One that exists is never changed, but its partitions are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicCreation {
    /// None: every topic must be there.
    Nothing,
    /// Changelog and repartition topics that are missing. The default, as in Java.
    Internal,
    /// Source and sink topics too, each with so many partitions: for demos and tests.
    Everything {
        /// Partitions of a source or sink topic that is missing.
        partitions: i32,
    },
}

/// How the instances of an application share its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// One member per process, with an assignor of the library's own: tasks stay where they are as far as a fair share
    /// lets them, go on while others move, and are found again by an instance that is restarted within its session
    /// timeout. Where the cluster cannot be spoken to in that way (the log says why), [`Range`](GroupProtocol::Range).
    Sticky,
    /// One member per process of a streams group (KIP-1071, `group.protocol=streams`): the broker, Kafka 4.2 or later, decides
    /// who has which task, makes the internal topics, and keeps the settings of the group (`streams.session.timeout.ms`,
    /// `streams.num.standby.replicas`). Instances of Kafka Streams with the same topology can be in the same group. The
    /// topology stays as long as the group does, and topics are read by their names only.
    Streams,
    /// One member of the Kafka client's per thread, with its `range` assignor: whenever an instance comes or goes, all
    /// tasks of all instances stop and are dealt anew. For ways to log in that only the client knows, such as Kerberos.
    Range,
}

/// A cluster that counts in place of the bootstrap servers.
#[derive(Clone)]
pub(crate) struct GivenCluster(pub Arc<dyn Cluster>);

impl fmt::Debug for GivenCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GivenCluster")
    }
}

const MIB: usize = 1024 * 1024;

impl Config {
    /// Settings for an application on a cluster.
    ///
    /// The application id is the name of the consumer group and the prefix of internal topics, of the state directory and
    /// of transactional ids. The bootstrap servers are `host:port,…`; `embedded://`, `embedded://NAME` or
    /// `embedded:///DIRECTORY` run the application on an [`EmbeddedCluster`] inside this process.
    pub fn new(application_id: impl Into<String>, bootstrap: impl Into<String>) -> Config {
        Config {
            application_id: application_id.into(),
            bootstrap: bootstrap.into(),
            cluster: None,
            guarantee: Guarantee::AtLeastOnce,
            threads: 1,
            client_id: None,
            group_instance_id: None,
            application_server: None,
            client_tags: BTreeMap::new(),
            rack_tags: Vec::new(),
            offset_reset: OffsetReset::Earliest,
            handlers: Handlers::default(),
            global_processing_handler: false,
            require_names: false,
            optimization: Optimization::none(),
            upgrade_from: None,
            store_format: StoreFormat::Default,
            default_engine: EngineKind::Persistent,
            topic_creation: TopicCreation::Internal,
            replication_factor: None,
            topic_settings: BTreeMap::new(),
            kafka_settings: BTreeMap::new(),
            app_settings: Arc::default(),
            state_dir: None,
            state_cleanup_delay: Duration::from_secs(600),
            repartition_purge_interval: Duration::from_secs(30),
            metadata_max_age: Duration::from_secs(300),
            commit_interval: None,
            group_protocol: GroupProtocol::Sticky,
            num_standby_replicas: 0,
            max_warmup_replicas: 2,
            acceptable_recovery_lag: 10_000,
            session_timeout: Duration::from_secs(6),
            max_poll_interval: Duration::from_secs(300),
            leave_on_close: false,
            transaction_timeout: Duration::from_secs(10),
            max_task_idle: Some(Duration::ZERO),
            buffered_records_per_partition: 1000,
            outer_join_emit_interval: Duration::ZERO,
            window_emit_interval: Duration::ZERO,
            cache_bytes: 10 * MIB,
            uncommitted_bytes: 64 * MIB,
            memory: StateMemoryLimits::default(),
            #[cfg(feature = "testing")]
            crash_at: None,
        }
    }

    /// The application id.
    pub fn application_id(&self) -> &str {
        &self.application_id
    }

    /// The guarantee: at least once unless told otherwise.
    pub fn guarantee(&self) -> Guarantee {
        self.guarantee
    }

    /// Input offsets, state and output commit as one transaction (`processing.guarantee=exactly_once_v2`).
    pub fn exactly_once(self) -> Config {
        Config { guarantee: Guarantee::ExactlyOnce, ..self }
    }

    /// No record is lost, some may be processed twice after a crash. The default.
    pub fn at_least_once(self) -> Config {
        Config { guarantee: Guarantee::AtLeastOnce, ..self }
    }

    /// Runs on a given cluster inside this process, whatever the bootstrap servers say.
    pub fn cluster(self, cluster: &EmbeddedCluster) -> Config {
        Config { cluster: Some(GivenCluster(Arc::new(cluster.clone()))), ..self }
    }

    /// Threads that process records, 1 or more (`num.stream.threads`, default 1). A task runs on one of them.
    pub fn threads(self, threads: usize) -> Config {
        Config { threads, ..self }
    }

    /// Time between two commits (`commit.interval.ms`): 30 s by default, 100 ms with exactly once, where readers of the
    /// output wait for the commit.
    pub fn commit_interval(self, interval: Duration) -> Config {
        Config { commit_interval: Some(interval), ..self }
    }

    /// Where the state lives (`state.dir`); one folder per application id is made in it. By default `kafka-streams` in
    /// the folder for temporary files, which a restart of the machine may empty.
    pub fn state_dir(self, directory: impl Into<PathBuf>) -> Config {
        Config { state_dir: Some(directory.into()), ..self }
    }

    /// How long the state of a task that has moved elsewhere is kept (`state.cleanup.delay.ms`, 10 min).
    pub fn state_cleanup_delay(self, delay: Duration) -> Config {
        Config { state_cleanup_delay: delay, ..self }
    }

    /// How often what is committed of repartition topics is deleted from them (`repartition.purge.interval.ms`, 30 s). It
    /// is looked at once a second.
    pub fn repartition_purge_interval(self, interval: Duration) -> Config {
        Config { repartition_purge_interval: interval, ..self }
    }

    /// How often it is looked for topics that have come to match the pattern of a source, and whether the others are still
    /// what they were (`metadata.max.age.ms`, 5 min). It is looked at once a second.
    pub fn metadata_max_age(self, age: Duration) -> Config {
        Config { metadata_max_age: age, ..self }
    }

    /// Bytes of updates that all record caches together may hold back (`statestore.cache.max.bytes`, 10 MiB). With 0 every
    /// update is written and forwarded at once.
    pub fn cache_bytes(self, bytes: usize) -> Config {
        Config { cache_bytes: bytes, ..self }
    }

    /// Bytes of uncommitted state at which a thread commits early (`statestore.uncommitted.max.bytes`, 64 MiB).
    pub fn uncommitted_bytes(self, bytes: usize) -> Config {
        Config { uncommitted_bytes: bytes, ..self }
    }

    /// Bytes of the block cache that all RocksDB stores of the process share (64 MiB).
    pub fn block_cache_bytes(self, bytes: usize) -> Config {
        Config { memory: StateMemoryLimits { block_cache_bytes: bytes, ..self.memory }, ..self }
    }

    /// Bytes of the memtables that all RocksDB stores of the process share (48 MiB).
    pub fn write_buffer_bytes(self, bytes: usize) -> Config {
        Config { memory: StateMemoryLimits { memtable_bytes: bytes, ..self.memory }, ..self }
    }

    /// Bytes of rows that stores keep at hand after reading them (96 MiB for the process).
    pub fn read_cache_bytes(self, bytes: usize) -> Config {
        Config { memory: StateMemoryLimits { read_cache_bytes: bytes, ..self.memory }, ..self }
    }

    /// How long a task with several inputs waits for producers to fill an empty one, for records to be taken in the order
    /// of their timestamps (`max.task.idle.ms`, 0). Data that the cluster already holds is waited for in any case; none
    /// (-1 in Java) does not even wait for that.
    pub fn max_task_idle(self, idle: Option<Duration>) -> Config {
        Config { max_task_idle: idle, ..self }
    }

    /// How long by the wall clock an aggregation that emits on close waits between two looks for windows that have closed
    /// (`__emit.interval.ms.kstreams.windowed.aggregation__`). Zero, the default, lets each record look.
    ///
    /// Differs from Kafka Streams, which looks once a second: with zero, the same input gives the same output each time.
    pub fn window_emit_interval(self, interval: Duration) -> Config {
        Config { window_emit_interval: interval, ..self }
    }

    /// Records that a task buffers for each input partition (`buffered.records.per.partition`, 1000).
    pub fn buffered_records_per_partition(self, records: usize) -> Config {
        Config { buffered_records_per_partition: records, ..self }
    }

    /// How long a left or outer join of streams waits, by the clock of the machine, between two looks for records that
    /// nothing has joined
    /// (`__emit.interval.ms.kstreams.outer.join.spurious.results.fix__`). Zero, the default, lets each record look.
    ///
    /// Differs from Kafka Streams, which waits a second: without a wait the same input gives the same output each time.
    pub fn outer_join_emit_interval(self, interval: Duration) -> Config {
        Config { outer_join_emit_interval: interval, ..self }
    }

    /// Where reading begins when nothing is committed (`auto.offset.reset`, earliest); a source may say otherwise with
    /// [`Consumed::with_offset_reset`](crate::Consumed::with_offset_reset).
    pub fn offset_reset(self, reset: OffsetReset) -> Config {
        Config { offset_reset: reset, ..self }
    }

    /// Decides about records that cannot be read; the default fails.
    pub fn deserialization_handler(mut self, handler: ErrorHandler) -> Config {
        self.handlers.deserialization = handler;
        self
    }

    /// Decides about records on which a function or processor of the user failed; the default fails.
    pub fn processing_handler(mut self, handler: ErrorHandler) -> Config {
        self.handlers.processing = handler;
        self
    }

    /// Stands around every call of a processor (KIP-1112): see [`ProcessorInterceptor`].
    pub fn processor_interceptor(mut self, interceptor: impl ProcessorInterceptor) -> Config {
        self.handlers.interceptor = Interceptor(Some(Arc::new(interceptor)));
        self
    }

    /// Decides about records that cannot be written; the default fails.
    pub fn production_handler(mut self, handler: ErrorHandler) -> Config {
        self.handlers.production = handler;
        self
    }

    /// Whether the processing handler is asked about the processors of global stores, too
    /// (`processing.exception.handler.global.enabled`, KIP-1270): by default their failures end the client.
    pub fn global_processing_handler(self, enabled: bool) -> Config {
        Config { global_processing_handler: enabled, ..self }
    }

    /// The handlers of the processors that fill global stores. They write nothing, so they send no dead letters.
    pub(crate) fn global_handlers(&self) -> Handlers {
        let mut handlers = Handlers { dead_letter_topic: None, ..self.handlers.clone() };
        if !self.global_processing_handler {
            handlers.processing = ErrorHandler::log_and_fail();
        }
        handlers
    }

    /// Gets a copy of every record that a handler was asked about, unless that
    /// [discards](crate::HandlerResponse::Discard) it, with the reason in its headers
    /// (`errors.dead.letter.queue.topic.name`, KIP-1034). The topic must exist.
    pub fn dead_letter_topic(mut self, topic: &str) -> Config {
        self.handlers.dead_letter_topic = Some(topic.into());
        self
    }

    /// Refuses a topology whose stores or internal topics have generated names, which change when the program does
    /// (`ensure.explicit.internal.resource.naming`, KIP-1111).
    pub fn require_names(self, require: bool) -> Config {
        Config { require_names: require, ..self }
    }

    /// Which rewrites [`StreamsBuilder::build_with`](crate::StreamsBuilder::build_with) makes of a topology
    /// (`topology.optimization`): none by default.
    pub fn optimization(self, optimization: Optimization) -> Config {
        Config { optimization, ..self }
    }

    /// Writes repartition topics as this release of Kafka Streams does (`upgrade.from`), so that an application of that
    /// release can take over again: before 3.4 foreign-key joins wrote no partition, and before 3.5 a change of a row that
    /// stays in its group was two records (KIP-904). Unset by default.
    pub fn upgrade_from(self, major: u16, minor: u16) -> Config {
        Config { upgrade_from: Some((major, minor)), ..self }
    }

    /// How the stores of tables and aggregations are kept (`dsl.store.format`): see [`StoreFormat`].
    pub fn store_format(self, format: StoreFormat) -> Config {
        Config { store_format: format, ..self }
    }

    /// Whether stores of the DSL that say nothing of it are kept in memory (`default.dsl.store`,
    /// `dsl.store.suppliers.class`): on disk by default. It counts wherever it is given: to
    /// [`StreamsBuilder::with_config`](crate::StreamsBuilder::with_config), to `build_with`, or to the application that runs
    /// the topology.
    pub fn stores_in_memory(self, in_memory: bool) -> Config {
        Config { default_engine: if in_memory { EngineKind::Memory } else { EngineKind::Persistent }, ..self }
    }

    /// Which topics are created at the start: by default the internal ones.
    pub fn create_topics(self, creation: TopicCreation) -> Config {
        Config { topic_creation: creation, ..self }
    }

    /// Replicas of topics that are created (`replication.factor`); by default as many as the brokers say.
    pub fn replication_factor(self, replicas: i32) -> Config {
        Config { replication_factor: Some(replicas), ..self }
    }

    /// A setting of every topic that is created, by Kafka's name (`topic.` in Java): `.topic("retention.ms", "60000")`.
    pub fn topic(mut self, name: &str, value: impl Into<String>) -> Config {
        self.topic_settings.insert(name.to_owned(), value.into());
        self
    }

    /// A setting of the Kafka client, by librdkafka's name: `.kafka("security.protocol", "sasl_ssl")`. With the prefix
    /// `consumer.`, `restore.consumer.`, `producer.` or `admin.` it is for that client only. Checked at the start.
    pub fn kafka(mut self, name: &str, value: impl Into<String>) -> Config {
        self.kafka_settings.insert(name.to_owned(), value.into());
        self
    }

    /// How the clients call themselves (`client.id`); by default the application id and the process's id.
    pub fn client_id(self, id: &str) -> Config {
        Config { client_id: Some(id.to_owned()), ..self }
    }

    /// A name of this instance that outlives it (`group.instance.id`): when it comes back within the session timeout, no
    /// task has moved. Each instance needs its own.
    pub fn group_instance_id(self, id: &str) -> Config {
        Config { group_instance_id: Some(id.to_owned()), ..self }
    }

    /// How instances share the tasks: [`GroupProtocol::Sticky`] by default. All of an application alike, for members of
    /// both kinds cannot be in one group.
    pub fn group_protocol(self, protocol: GroupProtocol) -> Config {
        Config { group_protocol: protocol, ..self }
    }

    /// How many other instances keep a copy of each task's stores up to date (`num.standby.replicas`, 0), from which it
    /// goes on where its owner dies. As many as there are other instances, and with [`GroupProtocol::Sticky`] only; the
    /// same in all instances.
    ///
    /// # Examples
    /// ```
    /// let config = kstreams::Config::new("counting", "broker:9092").num_standby_replicas(1);
    /// ```
    pub fn num_standby_replicas(self, replicas: usize) -> Config {
        Config { num_standby_replicas: replicas, ..self }
    }

    /// How many tasks at a time may warm up on an instance that is to run them, while their owners go on
    /// (`max.warmup.replicas`, 2; Java counts those of the whole group). At least one.
    pub fn max_warmup_replicas(self, replicas: usize) -> Config {
        Config { max_warmup_replicas: replicas, ..self }
    }

    /// How many changelog records the stores of a task may lack on an instance that is to run it
    /// (`acceptable.recovery.lag`, 10,000): until then its owner goes on.
    pub fn acceptable_recovery_lag(self, records: u64) -> Config {
        Config { acceptable_recovery_lag: records, ..self }
    }

    /// How long the group waits for a word of an instance before others get its tasks (`session.timeout.ms`). 6 s, where
    /// Java waits 45. Brokers take what is between their `group.min.session.timeout.ms` and `group.max.session.timeout.ms`,
    /// by default 6 s and 30 min; what they refuse ends the client with an error that says so.
    pub fn session_timeout(self, timeout: Duration) -> Config {
        Config { session_timeout: timeout, ..self }
    }

    /// How long a transaction may stay open (`transaction.timeout.ms`, 10 s): more than the commit interval and the
    /// longest call of user code. What a killed instance has left open keeps its successor waiting that long.
    pub fn transaction_timeout(self, timeout: Duration) -> Config {
        Config { transaction_timeout: timeout, ..self }
    }

    /// Ends every thread at a named step without closing anything, as a crash would. For tests of what a restart finds.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn crash_at(self, step: &str) -> Config {
        Config { crash_at: Some(step.to_owned()), ..self }
    }

    /// A setting by its Java name and with its Java value: `.set("commit.interval.ms", "100")`. Times are milliseconds.
    ///
    /// Names with the prefix `topic.`, `consumer.`, `main.consumer.`, `restore.consumer.`, `producer.` or `admin.` go to
    /// the topics and clients, as do the security settings `security.*`, `sasl.*` and `ssl.*`.
    ///
    /// # Errors
    /// `Invalid`, naming the setting, when it is not known or cannot have that value.
    pub fn set(self, name: &str, value: &str) -> Result<Config> {
        names::set(self, name, value)
    }

    pub(crate) fn state_dir_or_default(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| std::env::temp_dir().join("kafka-streams"))
    }

    pub(crate) fn commit_interval_or_default(&self) -> Duration {
        self.commit_interval.unwrap_or(match self.guarantee {
            Guarantee::AtLeastOnce => Duration::from_secs(30),
            Guarantee::ExactlyOnce => Duration::from_millis(100),
        })
    }

    /// # Errors
    /// `Invalid` for settings that cannot be, or not together.
    pub(crate) fn check(&self) -> Result<()> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let id = &self.application_id;
        let refuse = |why: String| Err(Error::invalid(why));
        if id.is_empty() || id.len() > 200 || !id.chars().all(legal) {
            return refuse(format!(
                "the application id \"{id}\" is no legal name: take at most 200 ASCII letters, digits, '.', '_' and '-'"
            ));
        }
        if self.bootstrap.is_empty() && self.cluster.is_none() {
            return refuse("no bootstrap servers are given: name them as host:port, or write embedded://".to_owned());
        }
        self.check_instance()?;
        if self.threads == 0 {
            return refuse("no threads are given: set threads to 1 or more".to_owned());
        }
        if self.buffered_records_per_partition == 0 {
            return refuse("buffered.records.per.partition is 0: set it to 1 or more".to_owned());
        }
        if self.replication_factor.is_some_and(|replicas| replicas < 1) {
            return refuse("replication.factor is below 1: leave it out to take the brokers' default".to_owned());
        }
        if let TopicCreation::Everything { partitions: ..1 } = self.topic_creation {
            return refuse("topics cannot be created with less than 1 partition".to_owned());
        }
        let (interval, timeout) = (self.commit_interval_or_default(), self.transaction_timeout);
        if self.guarantee == Guarantee::ExactlyOnce && timeout < interval {
            return refuse(format!(
                "transaction.timeout.ms is {} and commit.interval.ms {}: every transaction would time out; raise the \
                 first or lower the second",
                timeout.as_millis(),
                interval.as_millis()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_interval_follows_the_guarantee_until_it_is_set() {
        let config = Config::new("app", "embedded://");
        assert_eq!(config.commit_interval_or_default(), Duration::from_secs(30));
        let config = config.exactly_once();
        assert_eq!(config.commit_interval_or_default(), Duration::from_millis(100));
        let config = config.commit_interval(Duration::from_millis(7));
        assert_eq!(config.commit_interval_or_default(), Duration::from_millis(7));
    }

    #[test]
    fn settings_that_cannot_be_are_refused_by_name() {
        let config = || Config::new("app", "embedded://");
        let broken = [
            (Config::new("my app", "embedded://"), "my app"),
            (Config::new("app", ""), "bootstrap"),
            (config().threads(0), "threads"),
            (config().buffered_records_per_partition(0), "buffered.records.per.partition"),
            (config().replication_factor(0), "replication.factor"),
            (config().create_topics(TopicCreation::Everything { partitions: 0 }), "partition"),
            (config().exactly_once().commit_interval(Duration::from_secs(60)), "transaction.timeout.ms"),
        ];
        for (config, named) in broken {
            let error = config.check().unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
        config().exactly_once().check().unwrap();
    }
}
