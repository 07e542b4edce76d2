//! What happens between `start` and the first thread: topics are looked at and made, and a person is told what will run.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;

use super::application::{self, Application, RestoreListener, SharedAdmin, remembered_counts};
use super::awaited_topics::AwaitedTopics;
use super::board::Board;
use super::calls::ConcurrentCalls;
use super::crash::CrashPoint;
use super::partition_counts::{Counts, partition_counts};
use super::task_layout::TaskLayout;
use crate::client::embedded::EmbeddedCluster;
use crate::client::{Admin, Cluster, NewTopic};
use crate::config::{Config, GivenCluster, GroupProtocol, Guarantee, TopicCreation};
use crate::error::{Error, Result};
use crate::state::{Changelog, StateDirectory, StateMemory, StoreSpec};
use crate::topology::{
    NodeKind, SinkName, Topology, changelog_topic, changelog_topic_config, repartition_topic_config,
};

/// # Errors
/// `Invalid` or `Unavailable`, as [`KafkaStreams::start`](crate::KafkaStreams::start) says.
pub(super) fn application(
    topology: &Topology,
    config: &Config,
    restore_listener: Option<RestoreListener>,
    board: Arc<Board>,
) -> Result<Arc<Application>> {
    let cluster = cluster(config)?;
    let mut admin = cluster.admin()?;
    let Plan { topology, layout, counts, changelogs, awaited, input_ids } = plan(topology, config, &mut *admin)?;
    let directory = state_directory(&topology, config)?;
    let process_id = directory.as_ref().map_or_else(Uuid::new_v4, StateDirectory::process_id).to_string();
    summarize(&topology, config, &layout, &process_id);
    let admin = Arc::new(SharedAdmin::new(Arc::clone(&cluster), admin));
    let layout = Arc::new(layout);
    board.whereabouts.set_program(&topology, &layout, config.own_host());
    board.set_workers(config.threads);
    Ok(Arc::new(Application {
        topology,
        crash_point: Arc::new(CrashPoint::new(config)),
        calls: Arc::new(ConcurrentCalls::default()),
        config: config.clone(),
        layout,
        cluster,
        partition_counts: remembered_counts(counts, Arc::clone(&admin)),
        admin,
        restore_listener,
        process_id,
        lags: Arc::clone(&board.lags),
        board,
        directory,
        memory: StateMemory::new(config.memory),
        changelogs,
        awaited,
        input_ids,
        purgeable: Mutex::new(BTreeMap::new()),
        globals: Arc::default(),
    }))
}

/// The same application with the topics that match its patterns now; none where they are the same.
///
/// # Errors
/// As [`application`]; the one that runs goes on.
pub(super) fn with_new_topics(app: &Application) -> Result<Option<Arc<Application>>> {
    let read = |topology: &Topology| topology.source_topics(&topology.nodes().collect::<Vec<_>>());
    let names = app.with_admin(|admin| admin.topic_names())?;
    let (before, now) = (read(&app.topology), read(&app.topology.resolved(app.id(), &names)));
    if before == now {
        return Ok(None);
    }
    let plan = app.with_admin(|admin| plan(&app.topology, &app.config, admin))?;
    let new: Vec<_> = now.iter().filter(|topic| !before.contains(topic)).map(|topic| &**topic).collect();
    let gone: Vec<_> = before.iter().filter(|topic| !now.contains(topic)).map(|topic| &**topic).collect();
    tracing::info!("topics of patterns have changed: new are [{}], gone are [{}]", new.join(", "), gone.join(", "));
    let admin = Arc::clone(&app.admin);
    let layout = Arc::new(plan.layout);
    app.board.whereabouts.set_program(&plan.topology, &layout, app.config.own_host());
    Ok(Some(Arc::new(Application {
        topology: plan.topology,
        crash_point: Arc::clone(&app.crash_point),
        calls: Arc::clone(&app.calls),
        config: app.config.clone(),
        layout,
        cluster: Arc::clone(&app.cluster),
        partition_counts: remembered_counts(plan.counts, Arc::clone(&admin)),
        admin,
        restore_listener: app.restore_listener.clone(),
        process_id: app.process_id.clone(),
        board: Arc::clone(&app.board),
        lags: Arc::clone(&app.lags),
        directory: app.directory.clone(),
        memory: app.memory.clone(),
        changelogs: plan.changelogs,
        awaited: plan.awaited,
        input_ids: plan.input_ids,
        purgeable: Mutex::new(BTreeMap::new()),
        globals: Arc::clone(&app.globals),
    })))
}

/// What follows from the topics that there are.
struct Plan {
    topology: Topology,
    layout: TaskLayout,
    /// Partitions of every topic that is known, by full names.
    counts: HashMap<String, i32>,
    changelogs: HashMap<Arc<str>, application::Changelog>,
    awaited: AwaitedTopics,
    input_ids: HashMap<Arc<str>, Uuid>,
}

/// Looks at the topics and makes the internal ones.
fn plan(topology: &Topology, config: &Config, admin: &mut dyn Admin) -> Result<Plan> {
    let is_made_by_broker = config.group_protocol == GroupProtocol::Streams;
    if is_made_by_broker && topology.has_patterns() {
        return Err(Error::invalid(
            "the topology reads topics by a pattern, which streams groups cannot: name the topics, or set \
             GroupProtocol::Sticky",
        ));
    }
    let topology = if topology.has_patterns() {
        topology.resolved(&config.application_id, &admin.topic_names()?)
    } else {
        topology.clone()
    };
    let known = external_topics(&topology, config, admin)?;
    let counts = partition_counts(&topology, &known)?;
    let layout = TaskLayout::new(&topology, &config.application_id, &counts);
    let internal = internal_topics(&topology, config, &counts, &layout);
    let ids = if is_made_by_broker { BTreeMap::new() } else { provide(admin, config, &internal)? };
    let global =
        topology.globals().into_iter().flat_map(|number| topology.source_topics(&topology.sub_topology(number)));
    let input_ids = input_ids(admin, &layout.topics().into_iter().chain(global).collect::<Vec<_>>())?;
    let known = known.iter().map(|(topic, count)| (topic.to_string(), *count));
    let counts = known.chain(internal.iter().map(|t| (t.name.to_string(), t.partitions))).collect();
    let changelogs = internal.iter().map(|topic| changelog(topic, &ids)).collect();
    let awaited = AwaitedTopics::new(if is_made_by_broker { internal } else { Vec::new() });
    Ok(Plan { topology, layout, counts, changelogs, awaited, input_ids })
}

pub(crate) fn cluster(config: &Config) -> Result<Arc<dyn Cluster>> {
    if let Some(GivenCluster(cluster)) = &config.cluster {
        return Ok(Arc::clone(cluster));
    }
    if config.bootstrap.starts_with("embedded:") {
        return Ok(Arc::new(EmbeddedCluster::named(&config.bootstrap)?));
    }
    kafka(config)
}

#[cfg(not(feature = "kafka"))]
fn kafka(config: &Config) -> Result<Arc<dyn Cluster>> {
    Err(Error::invalid(format!(
        "could not connect to {}: the crate was built without its feature kafka; build with it, or write embedded://",
        config.bootstrap
    )))
}

/// librdkafka's settings: ours where the user has given none.
#[cfg(feature = "kafka")]
fn kafka(config: &Config) -> Result<Arc<dyn Cluster>> {
    let mut settings = config.kafka_settings.clone();
    let session = config.session_timeout.as_millis().to_string();
    settings.entry("consumer.session.timeout.ms".to_owned()).or_insert(session);
    if config.group_protocol == crate::config::GroupProtocol::Range {
        let interval = config.max_poll_interval.max(config.session_timeout).as_millis().to_string();
        settings.entry("consumer.max.poll.interval.ms".to_owned()).or_insert(interval);
    }
    let cluster = crate::client::kafka::KafkaCluster::new(&config.bootstrap, &config.application_id, settings)?;
    Ok(Arc::new(cluster))
}

/// A topic that has just been made is not known to every broker at once.
const LOOKS_AT_TOPICS: usize = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Partition counts of the sources that are not our own. Sinks and the dead-letter topic have to exist as well.
fn external_topics(topology: &Topology, config: &Config, admin: &mut dyn Admin) -> Result<Counts> {
    let is_ours = |topic: &Arc<str>| topology.repartition_topics().contains_key(topic);
    let ids: Vec<_> = topology.nodes().collect();
    let mut sources = topology.source_topics(&ids);
    sources.retain(|topic| !is_ours(topic));
    let sinks = ids.iter().filter_map(|id| match &topology.node(*id).kind {
        NodeKind::Sink { topic: SinkName::Fixed(topic) } => Some(Arc::clone(topic)),
        NodeKind::Sink { .. } | NodeKind::Source { .. } | NodeKind::Processor => None,
    });
    let mut sinks: Vec<_> = sinks.filter(|topic| !is_ours(topic)).collect();
    sinks.extend(config.handlers.dead_letter_topic.clone());
    let mut names = [sources.clone(), sinks.clone()].concat();
    names.sort();
    names.dedup();
    if let TopicCreation::Everything { partitions } = config.topic_creation {
        let wanted = |(name, known): (&Arc<str>, Option<_>)| match known {
            Some(_) => None,
            None => Some(new_topic(config, Arc::clone(name), partitions, config.topic_settings.clone())),
        };
        let missing: Vec<_> = names.iter().zip(admin.topics(&names)?).filter_map(wanted).collect();
        create(admin, &missing)?;
    }
    let mut infos = admin.topics(&names)?;
    for _ in 0..LOOKS_AT_TOPICS {
        if infos.iter().all(Option::is_some) {
            break;
        }
        std::thread::park_timeout(BETWEEN_LOOKS);
        infos = admin.topics(&names)?;
    }
    let known: Counts =
        names.iter().zip(infos).filter_map(|(name, info)| Some((Arc::clone(name), info?.partitions))).collect();
    if let Some(topic) = sources.iter().find(|topic| !known.contains_key(*topic)) {
        return Err(super::partition_counts::missing_source(topic));
    }
    if let Some(topic) = sinks.iter().find(|topic| !known.contains_key(*topic)) {
        return Err(Error::invalid(format!("output topic {topic} does not exist: create it, or name the right one")));
    }
    Ok(known)
}

/// Repartition topics and changelogs, with Java's settings. What is behind a pattern that matches nothing yet has no tasks,
/// and gets its topics when it has some.
fn internal_topics(topology: &Topology, config: &Config, counts: &Counts, layout: &TaskLayout) -> Vec<NewTopic> {
    let mut topics = BTreeMap::new();
    for name in topology.repartition_topics().keys() {
        let full_name = topology.full_name(&config.application_id, name);
        let settings = repartition_settings(config);
        let Some(partitions) = counts.get(name).copied() else { continue };
        topics.insert(Arc::clone(&full_name), new_topic(config, full_name, partitions, settings));
    }
    for sub_topology in layout.sub_topologies().iter().filter(|sub_topology| sub_topology.tasks > 0) {
        for spec in topology.stores(&sub_topology.nodes) {
            let Some(settings) = changelog_settings(&spec, config) else { continue };
            let name = changelog_topic(&config.application_id, &spec.name);
            topics.insert(Arc::clone(&name), new_topic(config, name, sub_topology.tasks, settings));
        }
    }
    topics.into_values().collect()
}

pub(super) fn repartition_settings(config: &Config) -> BTreeMap<String, String> {
    let mut settings = repartition_topic_config();
    settings.extend(config.topic_settings.clone());
    settings
}

/// The settings of all topics stand above Java's defaults and below those of the store.
pub(super) fn changelog_settings(spec: &StoreSpec, config: &Config) -> Option<BTreeMap<String, String>> {
    let mut settings = changelog_topic_config(spec)?;
    for (name, value) in &config.topic_settings {
        let is_own = matches!(&spec.changelog, Changelog::Topic { config } if config.contains_key(name));
        if !is_own {
            settings.insert(name.clone(), value.clone());
        }
    }
    Some(settings)
}

fn new_topic(config: &Config, name: Arc<str>, partitions: i32, settings: BTreeMap<String, String>) -> NewTopic {
    NewTopic { name, partitions, replication: config.replication_factor, config: settings }
}

/// The state directory is needed by stores on disk only. Where the user has named one, the identity in it is good for
/// more: a restarted process ends at once what it had left open.
fn state_directory(topology: &Topology, config: &Config) -> Result<Option<StateDirectory>> {
    let stores = topology.stores(&topology.nodes().collect::<Vec<_>>());
    if stores.iter().any(|spec| spec.is_on_disk()) {
        return StateDirectory::open(&config.state_dir_or_default(), &config.application_id).map(Some);
    }
    let Some(named) = &config.state_dir else { return Ok(None) };
    match StateDirectory::open(named, &config.application_id) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) => {
            tracing::debug!("going on without the state directory, no store needs it: {}", error.report());
            Ok(None)
        }
    }
}

fn changelog(topic: &NewTopic, ids: &BTreeMap<Arc<str>, Option<Uuid>>) -> (Arc<str>, application::Changelog) {
    let setting = |name: &str| topic.config.get(name).map(String::as_str);
    let is_compacted = setting("cleanup.policy").is_some_and(|policy| policy.contains("compact"));
    let kept = setting("delete.retention.ms").and_then(|kept| kept.parse().ok()).unwrap_or(DELETE_RETENTION_MS);
    let id = ids.get(&topic.name).copied().flatten();
    (Arc::clone(&topic.name), application::Changelog { id, delete_retention_ms: is_compacted.then_some(kept) })
}

/// Kafka's default of `delete.retention.ms`.
const DELETE_RETENTION_MS: i64 = 86_400_000;

/// Creates internal topics that are missing and checks those that are there: the id of each.
fn provide(admin: &mut dyn Admin, config: &Config, internal: &[NewTopic]) -> Result<BTreeMap<Arc<str>, Option<Uuid>>> {
    if internal.is_empty() {
        return Ok(BTreeMap::new());
    }
    let missing = missing_topics(admin, internal)?;
    if !missing.is_empty() && config.topic_creation == TopicCreation::Nothing {
        let missing: Vec<_> = missing.iter().map(|t| format!("{} with {} partitions", t.name, t.partitions)).collect();
        return Err(Error::invalid(format!(
            "internal topics are missing and create_topics says not to make them: create {}",
            missing.join(", ")
        )));
    }
    create(admin, &missing)?;
    if !missing.is_empty() {
        // Another instance may have been faster, with another number of partitions.
        missing_topics(admin, internal)?;
    }
    let names: Vec<_> = internal.iter().map(|topic| Arc::clone(&topic.name)).collect();
    let infos = admin.topics(&names)?;
    Ok(names.into_iter().zip(infos.into_iter().map(|info| info.and_then(|info| info.id))).collect())
}

/// The ids of source topics: they tell a topic from another one of its name. Not every cluster has them.
fn input_ids(admin: &mut dyn Admin, topics: &[Arc<str>]) -> Result<HashMap<Arc<str>, Uuid>> {
    let infos = admin.topics(topics)?;
    Ok(topics.iter().zip(infos).filter_map(|(topic, info)| Some((Arc::clone(topic), info?.id?))).collect())
}

/// Those that are not there.
///
/// # Errors
/// `Invalid` for one with another number of partitions.
pub(super) fn missing_topics(admin: &mut dyn Admin, internal: &[NewTopic]) -> Result<Vec<NewTopic>> {
    let names: Vec<_> = internal.iter().map(|topic| Arc::clone(&topic.name)).collect();
    let infos = admin.topics(&names)?;
    let mut missing = Vec::new();
    for (topic, info) in internal.iter().zip(infos) {
        match info {
            None => missing.push(topic.clone()),
            Some(info) if info.partitions != topic.partitions => {
                return Err(Error::invalid(format!(
                    "internal topic {} has {} partitions and needs {}: the partitions of its input or the topology have \
                     changed; reset the application (delete its internal topics and committed offsets), or give it a \
                     new application id",
                    topic.name, info.partitions, topic.partitions
                )));
            }
            Some(_) => {}
        }
    }
    Ok(missing)
}

fn create(admin: &mut dyn Admin, topics: &[NewTopic]) -> Result<()> {
    if topics.is_empty() {
        return Ok(());
    }
    for NewTopic { name, partitions, config, .. } in topics {
        tracing::info!("creating topic {name} with {partitions} partitions, {config:?}");
    }
    admin.create_topics(topics)
}

/// One look at what is going to run.
fn summarize(topology: &Topology, config: &Config, layout: &TaskLayout, process_id: &str) {
    let directory = config.state_dir_or_default();
    let mib = |bytes: usize| bytes as f64 / (1024.0 * 1024.0);
    let guarantee = match config.guarantee {
        Guarantee::AtLeastOnce => "at least once",
        Guarantee::ExactlyOnce => "exactly once",
    };
    let tasks = layout.sub_topologies().iter().enumerate();
    let tasks: Vec<_> = tasks.filter(|(number, _)| !topology.is_global(*number)).collect();
    let tasks: Vec<_> = tasks.iter().map(|(number, s)| format!("{} of sub-topology {number}", s.tasks)).collect();
    tracing::info!(
        "application {} starts\n  cluster    {}\n  guarantee  {guarantee}, commit every {} ms\n  threads    {}\n  \
         tasks      {} in all instances ({}), each with {} standbys\n  state      {}\n  memory     {:.0} MiB record caches, {:.0} MiB block \
         cache, {:.0} MiB write buffers, {:.0} MiB read cache, commit at {:.0} MiB uncommitted\n  process    \
         {process_id}\n{}",
        config.application_id,
        if config.cluster.is_some() { "embedded" } else { &config.bootstrap },
        config.commit_interval_or_default().as_millis(),
        config.threads,
        layout.task_count(),
        tasks.join(", "),
        config.num_standby_replicas,
        directory.join(&config.application_id).display(),
        mib(config.cache_bytes),
        mib(config.memory.block_cache_bytes),
        mib(config.memory.memtable_bytes),
        mib(config.memory.read_cache_bytes),
        mib(config.uncommitted_bytes),
        topology.describe(),
    );
    if config.state_dir.is_none() && !topology.stores(&topology.nodes().collect::<Vec<_>>()).is_empty() {
        tracing::warn!(
            "the state lies below {}, which may be emptied at any time: set state_dir to a lasting place",
            std::env::temp_dir().display()
        );
    }
}
