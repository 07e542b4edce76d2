//! What all operators of a task share.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::calls::{CallLevels, CallRunner};
use super::handlers::{ErrorContext, HandlerResponse, Handlers, dead_letter_headers};
use super::output::Output;
use super::schedules::{Punctuation, PunctuationType, Schedules};
use super::times::{CommittedTimes, RememberedTimes, time_hash};
use super::{NodeId, TaskId};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Headers, RecordMetadata};
use crate::state::{RecordContext, StoreContext, TaskStores};

/// Answers how many partitions a topic has; only asked by a sink with a partitioner of its own.
pub(crate) type PartitionCounts = Arc<dyn Fn(&str) -> Result<i32> + Send + Sync>;

/// What a task is told when it is made, and what stays the same through every re-make of its pipeline.
#[derive(Clone)]
pub(crate) struct TaskEnvironment {
    pub application_id: Arc<str>,
    pub task: TaskId,
    pub handlers: Handlers,
    pub partition_counts: PartitionCounts,
    /// Runs what asynchronous operators call.
    pub calls: Arc<dyn CallRunner>,
    /// How long a left or outer join of streams waits between two looks for records to give up.
    pub outer_join_emit_interval: Duration,
    /// The release (major, minor) whose formats repartition topics have; none: the newest.
    pub upgrade_from: Option<(u16, u16)>,
    /// How long an aggregation waits between two looks for windows that have closed.
    pub window_emit_interval: Duration,
    /// What the program has put into its configuration for itself.
    pub app_settings: Arc<BTreeMap<String, String>>,
    /// Where the application keeps its state.
    pub state_dir: Arc<Path>,
}

impl TaskEnvironment {
    /// Whether repartition topics are written as that release did, or as an earlier one.
    pub(crate) fn writes_as(&self, major: u16, minor: u16) -> bool {
        self.upgrade_from.is_some_and(|release| release <= (major, minor))
    }
}

/// What all operators of a task share: stores, time, the record in hand, the way out.
///
/// Passed by `&mut` with every record. There is one owner at a time, so nothing here needs a cell or a global.
pub struct TaskContext {
    pub(crate) stores: TaskStores,
    pub(crate) output: Output,
    pub(crate) schedules: Schedules,
    pub(crate) environment: TaskEnvironment,
    pub(crate) stream_time: Option<i64>,
    pub(crate) wall_clock_ms: i64,
    /// Full names of the input topics; a position names its own by index.
    pub(crate) topics: Vec<Arc<str>>,
    /// Timestamp of the record at the node that works now; headers only where a node holds updates back.
    pub(crate) record: RecordContext,
    /// Headers of the record at the node that works now, for dead letters; only kept while there is a dead-letter topic.
    pub(crate) headers_in_hand: Headers,
    pub(crate) dropped: u64,
    pub(crate) commit_requested: bool,
    pub(crate) calls: CallLevels,
    /// What nodes of the pipeline have in common, by name.
    shared: Vec<(Arc<str>, Rc<dyn Any>)>,
    /// What operators have committed with the offsets of every input, by store (Java's processor metadata).
    pub(crate) processor_metadata: ProcessorMetadata,
    pub(crate) processor_metadata_changed: bool,
    /// What operators remember of time.
    pub(crate) times: RememberedTimes,
}

/// The record in hand, while one that has waited is in its place.
#[derive(Debug)]
#[must_use = "is to be put back"]
pub(crate) struct Outer {
    record: RecordContext,
    /// What had been said before.
    output_len: usize,
}

/// Times (ms) by the names of stores.
pub(crate) type ProcessorMetadata = BTreeMap<Arc<str>, i64>;

impl TaskContext {
    pub(crate) fn new(environment: TaskEnvironment, stores: TaskStores, topics: Vec<Arc<str>>) -> TaskContext {
        TaskContext {
            processor_metadata: ProcessorMetadata::new(),
            processor_metadata_changed: false,
            times: RememberedTimes::default(),
            stores,
            output: Output::default(),
            schedules: Schedules::default(),
            environment,
            stream_time: None,
            wall_clock_ms: 0,
            topics,
            record: RecordContext::default(),
            headers_in_hand: Headers::default(),
            dropped: 0,
            commit_requested: false,
            calls: CallLevels::default(),
            shared: Vec::new(),
        }
    }

    /// The highest timestamp (ms) this task has processed; none before its first record.
    pub fn stream_time(&self) -> Option<i64> {
        self.stream_time
    }

    /// Time (ms) as the task was told it: a task never reads a clock.
    pub fn wall_clock_ms(&self) -> i64 {
        self.wall_clock_ms
    }

    /// Where the record in hand was read from; none inside a punctuation.
    pub fn record_metadata(&self) -> Option<RecordMetadata<'_>> {
        let position = self.record.position?;
        let topic = self.topics.get(position.topic)?;
        Some(RecordMetadata { topic, partition: position.partition, offset: position.offset })
    }

    /// This task.
    pub fn task_id(&self) -> TaskId {
        self.environment.task
    }

    /// The application this task belongs to.
    pub fn application_id(&self) -> &str {
        &self.environment.application_id
    }

    /// A setting of the program's own: see [`Config::app_setting`](crate::Config::app_setting).
    pub fn app_setting(&self, name: &str) -> Option<&str> {
        self.environment.app_settings.get(name).map(String::as_str)
    }

    /// The settings of the program's own whose names begin with a prefix, by the rest of their names: Java's
    /// `appConfigsWithPrefix`; with an empty prefix all of them.
    pub fn app_settings(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        let settings = self.environment.app_settings.iter();
        settings.filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
    }

    /// The folder of this task, `<state dir>/<application>/<task>`, for files of a processor's own. It may not be there yet;
    /// it goes with the task's state, when that is cleaned up or reset. A file in it is no store: nothing restores it.
    pub fn state_dir(&self) -> PathBuf {
        self.environment.state_dir.join(self.task_id().to_string())
    }

    /// Asks for a commit once the record in hand is done. It is a request: the thread commits all its tasks together.
    pub fn request_commit(&mut self) {
        self.commit_requested = true;
    }

    /// What nodes of the pipeline have in common under a name; the first to ask makes it.
    pub(crate) fn shared<T: Default + 'static>(&mut self, name: &Arc<str>) -> Result<Rc<T>> {
        let known = self.shared.iter().find(|(known, _)| known == name).map(|(_, shared)| Rc::clone(shared));
        let shared = known.unwrap_or_else(|| {
            let made: Rc<dyn Any> = Rc::new(T::default());
            self.shared.push((Arc::clone(name), Rc::clone(&made)));
            made
        });
        shared.downcast().map_err(|_| Error::new(ErrorKind::Internal, format!("two things are shared as {name}")))
    }

    /// Deletes rows of a store that have expired; nobody is told.
    pub(crate) fn expire(&mut self, store: usize) -> Result<()> {
        while let Some(key) = self.stores.next_expired(store)? {
            self.stores.put(store, &key, None, &self.record)?;
        }
        Ok(())
    }

    /// Has a time committed with the offsets of every input.
    pub(crate) fn set_processor_metadata(&mut self, store: &Arc<str>, time: i64) {
        self.processor_metadata.insert(Arc::clone(store), time);
        self.processor_metadata_changed = true;
    }

    /// Takes up what was remembered at the last commit, before any operator is made.
    pub(crate) fn resume_times(&mut self, committed: &CommittedTimes) {
        self.times = RememberedTimes::new(committed);
        let times = self.stores.specs().map(|spec| committed.get(&store_time(&spec.name)).copied());
        for (store, time) in times.collect::<Vec<_>>().into_iter().enumerate() {
            if let Some(time) = time {
                self.stores.resume_time(store, time);
            }
        }
    }

    /// What is to be remembered: the times of operators and of stores whose rows expire.
    pub(crate) fn times(&self) -> CommittedTimes {
        let stores = self.stores.times().map(|(spec, time)| (store_time(&spec.name), time));
        self.times.iter().chain(stores).collect()
    }

    pub(crate) fn schedule(&mut self, node: NodeId, kind: PunctuationType, interval_ms: i64) -> Punctuation {
        let first = match kind {
            PunctuationType::StreamTime => 0,
            PunctuationType::WallClockTime => self.wall_clock_ms.saturating_add(interval_ms),
        };
        self.schedules.add(node, kind, interval_ms, first)
    }

    /// At `start + n * interval`: the first of these times that has not passed.
    pub(crate) fn schedule_from(
        &mut self,
        node: NodeId,
        start: i64,
        interval_ms: i64,
        kind: PunctuationType,
    ) -> Punctuation {
        let now = self.wall_clock_ms;
        let passed = match kind {
            PunctuationType::WallClockTime => now.saturating_sub(start).max(0),
            PunctuationType::StreamTime => 0,
        };
        let first = start.saturating_add(passed.div_euclid(interval_ms) * interval_ms);
        let first = if first < start.saturating_add(passed) { first + interval_ms } else { first };
        self.schedules.add(node, kind, interval_ms, first)
    }

    /// Counts and logs a record that is dropped on purpose, as Java's `dropped-records`.
    #[cold]
    pub(crate) fn drop_record(&mut self, node: &str, reason: &str) {
        self.dropped += 1;
        let place = self.record_metadata().map(|at| (at.topic.to_owned(), at.partition, at.offset));
        let (topic, partition, offset) = place.unwrap_or_default();
        tracing::warn!(task = %self.environment.task, node, topic, partition, offset, "record dropped: {reason}");
    }

    /// Counts a record that is dropped in the normal course of things: nothing to write about.
    pub(crate) fn drop_silently(&mut self) {
        self.dropped += 1;
    }

    /// Decides about a failure of user code at a node. `Ok`: the record is dropped there and the parents go on.
    #[cold]
    pub(crate) fn processing_failed(&mut self, node: &Arc<str>, headers: &Headers, error: Error) -> Result<()> {
        if error.node().is_some() {
            return Err(error); // decided by an inner node
        }
        let error = error.at(node);
        if !matches!(error.kind(), ErrorKind::User | ErrorKind::Corrupted) {
            return Err(error);
        }
        let handler = self.environment.handlers.processing.clone();
        let response = handler.decide(&self.error_context(node), &error);
        self.dead_letter(response, headers, &error);
        if response != HandlerResponse::Fail {
            return self.settle(response, node, error);
        }
        // A punctuation has no record.
        let Some(at) = self.record_metadata() else { return Err(error) };
        let place = format!("{}[{}]@{}", at.topic, at.partition, at.offset);
        Err(error.and(&format!(", on record {place}: mend it, or skip such records with Config::processing_handler")))
    }

    /// Takes a record that has waited in hand, with its bytes if they were kept: what it leads to is told with its place.
    pub(crate) fn take_up(&mut self, record: RecordContext) -> Outer {
        Outer { record: std::mem::replace(&mut self.record, record), output_len: self.output.len() }
    }

    /// Takes the record in hand again that was there before.
    pub(crate) fn put_back(&mut self, outer: Outer) {
        let Outer { record, output_len } = outer;
        let waited = std::mem::replace(&mut self.record, record).source;
        let bytes = waited.as_ref().map_or((None, None), |waited| (waited.key.as_deref(), waited.value.as_deref()));
        self.output.complete_dead_letters_from(output_len, bytes);
    }

    /// Keeps the headers of a record that comes to a node, for a dead letter. What was there before, if it was something else:
    /// to be put back behind the node.
    #[inline]
    pub(crate) fn take_headers(&mut self, headers: &Headers) -> Option<Headers> {
        if self.environment.handlers.dead_letter_topic.is_none() || self.headers_in_hand == *headers {
            return None;
        }
        Some(std::mem::replace(&mut self.headers_in_hand, headers.clone()))
    }

    /// The same for a record that a sink cannot encode.
    #[cold]
    pub(crate) fn production_failed(&mut self, node: &Arc<str>, headers: &Headers, error: Error) -> Result<()> {
        let error = error.at(node);
        let handler = self.environment.handlers.production.clone();
        let response = handler.decide(&self.error_context(node), &error);
        self.dead_letter(response, headers, &error);
        self.settle(response, node, error)
    }

    pub(crate) fn settle(&mut self, response: HandlerResponse, node: &str, error: Error) -> Result<()> {
        match response {
            HandlerResponse::Fail => Err(error),
            HandlerResponse::Continue | HandlerResponse::Discard => {
                self.drop_record(node, &error.report());
                Ok(())
            }
        }
    }

    /// Puts a dead letter in its place; the pipeline fills in the bytes of the source record.
    pub(crate) fn dead_letter(&mut self, response: HandlerResponse, headers: &Headers, error: &Error) {
        let topic = self.environment.handlers.dead_letter_topic.clone();
        let Some(topic) = topic.filter(|_| response != HandlerResponse::Discard) else { return };
        let place = self.record_metadata().map(|at| (at.topic, at.partition, at.offset));
        let headers = dead_letter_headers(headers, error, place);
        self.output.push_dead_letter(&topic, self.record.timestamp, headers);
    }

    fn error_context<'a>(&'a self, node: &'a str) -> ErrorContext<'a> {
        let topic = self.record_metadata().map(|at| at.topic);
        ErrorContext { task: self.environment.task, node, topic, record: None }
    }
}

/// What the time of a store is remembered by. A node may have the same name.
fn store_time(store: &str) -> u32 {
    time_hash(&format!("store/{store}"))
}

impl StoreContext for TaskContext {
    fn stores(&mut self) -> (&mut TaskStores, &RecordContext) {
        (&mut self.stores, &self.record)
    }
}

impl std::fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskContext").field("task", &self.environment.task).finish_non_exhaustive()
    }
}
