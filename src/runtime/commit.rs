//! The commit: the one place where a transaction begins and ends, and the only one where the two guarantees differ.

use std::sync::Arc;
use std::time::Duration;

use super::application::Application;
use super::clock::Now;
use super::crash::Step;
use super::running_task::RunningTask;
use crate::client::{Consumer, DeliveryFailure, Producer};
use crate::error::{Error, ErrorKind, Result};
use crate::membership::Membership;
use crate::metrics::dropped_records_total;
use crate::record::{Headers, OffsetAndMetadata, ProducerRecord, TopicPartition};
use crate::topology::{ErrorContext, HandlerResponse, NodeKind, SinkName, TaskId, dead_letter_headers};

/// How long one call of the transactional API may take; [`REPEATS`] of them decide a commit.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const REPEATS: usize = 3;

/// How long the thread waits at once for a new producer to be ready.
const INIT_TIMEOUT: Duration = Duration::from_secs(3);

/// A call that took longer may have been repeated by the client behind our back, and the first one may still arrive: the
/// producer is not used again (KAFKA-17754).
const SUSPICIOUS: Duration = Duration::from_secs(5);

/// Refused records that are remembered; more end the thread.
const REFUSED_MAX: usize = 1000;

/// The producer of a thread, with the transaction it has open.
pub(super) struct Committer {
    app: Arc<Application>,
    thread: usize,
    /// None: it has to be made, and the transaction before it to be decided.
    producer: Option<Box<dyn Producer>>,
    /// The next producer, on its way: nobody has answered it yet.
    starting: Option<Box<dyn Producer>>,
    is_open: bool,
    is_suspicious: bool,
    /// Records that the cluster has refused and the production handler let go: left out when they come again.
    refused: Vec<(DeliveryFailure, HandlerResponse)>,
}

/// Why a commit, or what leads up to it, did not happen.
#[derive(Debug)]
pub(super) enum Failure {
    /// The transaction is given up: the tasks read again from the last commit.
    Rewind(Error),
    /// Nobody here knows what is committed: the tasks are opened again from what the cluster says.
    Doubt(Error),
    /// Nothing is lost, and the same may be tried again.
    Later(Error),
    /// The thread ends.
    Fatal(Error),
}

#[derive(Clone, Copy)]
enum Transaction {
    Begin,
    Commit,
    Abort,
}

impl Committer {
    pub(super) fn new(app: Arc<Application>, thread: usize) -> Committer {
        Committer {
            app,
            thread,
            producer: None,
            starting: None,
            is_open: false,
            is_suspicious: false,
            refused: Vec::new(),
        }
    }

    /// Makes the producer, if there is none or one that has left something open. It fences the one before it and ends its
    /// transaction, so what the cluster says afterwards about committed offsets is final.
    ///
    /// # Errors
    /// `Unavailable`: to be called again.
    pub(super) fn make_ready(&mut self) -> Result<()> {
        if let Some(producer) = &mut self.producer {
            if self.is_open || !producer.has_left_open()? {
                return Ok(());
            }
            tracing::warn!("the producer is made anew, to end what a broker has forgotten");
            self.producer = None;
        }
        let mut producer = match self.starting.take() {
            Some(producer) => producer,
            None => self.app.cluster.producer(&self.app.producer_spec(self.thread))?,
        };
        if self.app.is_exactly_once()
            && let Err(error) = producer.init_transactions(INIT_TIMEOUT)
        {
            // It goes on in the background, while the thread hears of its group.
            self.starting = Some(producer).filter(|_| error.kind() == ErrorKind::Unavailable);
            return Err(error);
        }
        self.producer = Some(producer);
        self.is_suspicious = false;
        Ok(())
    }

    /// Hands what a task has to say to the producer: records of its sinks, and of its stores to their changelogs.
    pub(super) fn hand_over(&mut self, running: &mut RunningTask) -> Result<(), Failure> {
        let task = running.task.id();
        if !running.has_output().map_err(Failure::Fatal)? {
            return Ok(());
        }
        self.begin()?;
        self.send_all(running).map_err(|error| self.failed(with_task(error, task)))
    }

    fn send_all(&mut self, running: &mut RunningTask) -> Result<()> {
        let producer = self.producer.as_mut().ok_or_else(no_producer)?;
        let dead_letter_topic = &self.app.config.handlers.dead_letter_topic;
        let output = running.task.output()?;
        for record in output.iter() {
            match self.refused.iter().find(|(refused, _)| is_same(refused, &record)) {
                None => producer.send(record, false)?,
                Some((_, HandlerResponse::Discard)) => {}
                Some((refused, _)) => {
                    let Some(topic) = dead_letter_topic else { continue };
                    let headers = dead_letter_headers(record.headers, &refused.error, None);
                    producer.send(ProducerRecord { topic, partition: None, headers: &headers, ..record }, false)?;
                }
            }
        }
        output.clear();
        let RunningTask { task, changelogs, written, .. } = running;
        let stores = task.stores()?;
        for record in stores.changelog() {
            let Some(Some(changelog)) = changelogs.get(record.store) else { continue };
            if let Some(written) = written.get_mut(record.store) {
                *written = true;
            }
            let record = ProducerRecord {
                topic: &changelog.topic,
                partition: Some(changelog.partition),
                key: Some(record.key),
                value: record.value,
                timestamp: record.timestamp,
                headers: record.headers,
            };
            producer.send(record, true)?;
        }
        stores.clear_changelog();
        Ok(())
    }

    /// Before the thread ends after an error: writes the dead letters of what has failed, and nothing else of it. Exactly
    /// once they belong to a transaction that is aborted, as in Java.
    pub(super) fn send_dead_letters(&mut self, tasks: &mut [RunningTask]) -> Result<()> {
        let (Some(topic), Some(producer)) = (&self.app.config.handlers.dead_letter_topic, &mut self.producer) else {
            return Ok(());
        };
        if self.app.is_exactly_once() {
            return Ok(());
        }
        let mut are_there = false;
        for running in tasks {
            let Ok(output) = running.task.output() else { continue };
            for letter in output.iter().filter(|record| *record.topic == *topic) {
                producer.send(letter, false)?;
                are_there = true;
            }
            output.clear();
        }
        if !are_there {
            return Ok(());
        }
        let refused = producer.confirm(CALL_TIMEOUT)?.into_iter().find(|refused| refused.partition.topic == *topic);
        refused.map_or(Ok(()), |refused| Err(refused.error))
    }

    /// Commits all tasks of the thread together; how many there were.
    ///
    /// 1. **Drain**: each task emits what its operators hold back and hands its write buffers to its changelogs.
    /// 2. **Confirm**: wait until the producer has an acknowledgement for every record.
    /// 3. **Offsets**: add the input offsets to the transaction (at least once: keep them for step 4).
    /// 4. **Commit** the transaction (at least once: commit the offsets).
    /// 5. **Apply**: each task writes its buffers and changelog offsets to its stores.
    ///
    /// Before 4 everything can be given up: the stores are at the last commit. After 4 nothing can: a step that fails then
    /// poisons the task, never the log, and the changelog brings its stores up to date. A timeout in 4 is neither.
    pub(super) fn commit(
        &mut self,
        tasks: &mut [RunningTask],
        membership: &mut dyn Membership,
        consumer: &dyn Consumer,
    ) -> Result<usize, Failure> {
        let position = |partition: &TopicPartition| consumer.position(partition);
        let is_needed = |running: &&mut RunningTask| running.task.commit_needed();
        if !self.is_open && tasks.iter_mut().filter(is_needed).count() == 0 {
            return Ok(0);
        }
        // 1. Drain
        for running in tasks.iter_mut().filter(is_needed) {
            let task = running.task.id();
            running.task.flush().map_err(|error| Failure::Fatal(with_task(error, task)))?;
            if membership.has_lost_tasks() {
                // The program's own code, which runs here too, may have come back late.
                let context = format!("could not commit task {task}: it is another instance's by now");
                return Err(Failure::Later(Error::new(ErrorKind::Fenced, context)));
            }
            self.hand_over(running)?;
        }
        self.pass(Step::Drained)?;
        // 2. Confirm
        self.confirm()?;
        self.pass(Step::Confirmed)?;
        // 3. Offsets
        let offsets: Vec<_> = tasks.iter().flat_map(|running| running.task.offsets(position)).collect();
        if self.app.is_exactly_once() && !offsets.is_empty() {
            self.begin()?;
            self.send_offsets(&offsets, membership)?;
        }
        self.pass(Step::OffsetsSent)?;
        // 4. Commit
        if self.app.is_exactly_once() {
            if self.is_open {
                self.transact(Transaction::Commit).map_err(|error| self.undecided(error))?;
            }
        } else if !offsets.is_empty() {
            membership.commit(&offsets).map_err(not_committed)?;
        }
        self.pass(Step::Committed)?;
        // 5. Apply
        let mut committed = 0;
        for running in tasks.iter_mut().filter(is_needed) {
            let task = running.task.id();
            let ends = running.changelog_ends(|changelog| self.producer.as_ref()?.end_offset(changelog), position);
            running.task.committed(&ends, position).map_err(|error| Failure::Fatal(with_task(error, task)))?;
            committed += 1;
            self.pass(Step::AppliedOne)?;
        }
        if self.is_suspicious {
            tracing::info!("a transaction took long to commit: the producer is made anew");
            self.producer = None;
        }
        self.note_purgeable(&offsets);
        Ok(committed)
    }

    /// Gives up what was sent since the last commit. After an error there is no producer any more, and nobody knows.
    pub(super) fn abort(&mut self) -> Result<()> {
        if !self.is_open {
            return Ok(());
        }
        let aborted = self.transact(Transaction::Abort);
        if aborted.is_err() {
            self.give_up_producer();
        }
        aborted
    }

    pub(super) fn give_up_producer(&mut self) {
        (self.producer, self.is_open) = (None, false);
    }

    /// IMPORTANT: the only place that begins, commits or aborts a transaction.
    fn transact(&mut self, transaction: Transaction) -> Result<()> {
        let started = Now::read();
        let producer = self.producer.as_mut().ok_or_else(no_producer)?;
        let result = match transaction {
            Transaction::Begin => {
                producer.begin_transaction()?;
                self.is_open = true;
                return Ok(());
            }
            // Once: what a new producer does is an abort as well.
            Transaction::Abort => producer.abort_transaction(CALL_TIMEOUT),
            Transaction::Commit => repeat(&mut self.is_suspicious, || producer.commit_transaction(CALL_TIMEOUT)),
        };
        self.is_suspicious |= Now::read().since(started) > SUSPICIOUS;
        if result.is_ok() {
            self.is_open = false;
        }
        result
    }

    /// Before the first record of a transaction.
    fn begin(&mut self) -> Result<(), Failure> {
        if !self.app.is_exactly_once() || self.is_open {
            return if self.producer.is_some() { Ok(()) } else { Err(Failure::Doubt(no_producer())) };
        }
        self.transact(Transaction::Begin).map_err(|error| self.failed(error))
    }

    fn confirm(&mut self) -> Result<(), Failure> {
        let Some(producer) = &mut self.producer else { return Err(Failure::Doubt(no_producer())) };
        let failures = match producer.confirm(CALL_TIMEOUT) {
            Ok(failures) => failures,
            Err(error) if error.kind() == ErrorKind::Unavailable && !self.app.is_exactly_once() => {
                return Err(Failure::Later(error));
            }
            Err(error) => return Err(self.failed(error)),
        };
        let mut given_up = None;
        for failure in failures {
            if let Some(error) = self.not_delivered(failure)? {
                given_up.get_or_insert(error);
            }
        }
        match given_up {
            None => Ok(()),
            Some(error) if self.app.is_exactly_once() => Err(self.failed(error)),
            // What was sent since cannot be taken back: the stores take it from the changelogs, and the records come again.
            Some(error) => Err(Failure::Doubt(error)),
        }
    }

    /// What becomes of the commit when the cluster has not taken a record; none: it goes on.
    fn not_delivered(&mut self, failure: DeliveryFailure) -> Result<Option<Error>, Failure> {
        let DeliveryFailure { partition, error, .. } = &failure;
        let context = format!("a record for {partition} was not delivered");
        if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Aborted | ErrorKind::Fenced) {
            let kind = if error.kind() == ErrorKind::Unavailable { error.kind() } else { ErrorKind::Aborted };
            return Ok(Some(Error::new(kind, context).with_source(failure.error)));
        }
        let (task, node) = self.writer_of(partition);
        let place = ErrorContext { task, node: &node, topic: None, record: None };
        // NOTE: a store that has what its changelog has not is never restored as it was.
        let is_changelog = partition.topic.starts_with(self.app.id()) && partition.topic.ends_with("-changelog");
        let response = match is_changelog {
            true => HandlerResponse::Fail,
            false => self.app.config.handlers.production.decide(&place, error),
        };
        if response == HandlerResponse::Fail || self.refused.len() >= REFUSED_MAX {
            return Err(Failure::Fatal(Error::new(error.kind(), context).with_source(failure.error)));
        }
        tracing::warn!(
            node = &*node,
            topic = &*partition.topic,
            partition = partition.partition,
            "record dropped: {context}: {}",
            error.report()
        );
        dropped_records_total(&self.app.thread_name(self.thread), &task.to_string()).increment(1);
        if self.app.is_exactly_once() {
            // It belongs to a transaction that cannot commit: it is left out when its input is processed again.
            self.refused.push((failure, response));
            return Ok(Some(Error::new(ErrorKind::Aborted, context)));
        }
        if response != HandlerResponse::Discard {
            self.dead_letter(&failure).map_err(|error| self.failed(error))?;
        }
        Ok(None)
    }

    fn dead_letter(&mut self, failure: &DeliveryFailure) -> Result<()> {
        let Some(topic) = &self.app.config.handlers.dead_letter_topic else { return Ok(()) };
        let Some(producer) = &mut self.producer else { return Ok(()) };
        let headers = dead_letter_headers(&Headers::new(), &failure.error, None);
        let (key, value) = (failure.key.as_deref(), failure.value.as_deref());
        let timestamp = failure.timestamp;
        producer.send(ProducerRecord { topic, partition: None, key, value, timestamp, headers: &headers }, false)
    }

    /// The sink that writes to a topic, for the handler. A delivery does not say which task it was: the partition is that
    /// of the record.
    fn writer_of(&self, partition: &TopicPartition) -> (TaskId, Arc<str>) {
        let topology = &self.app.topology;
        for sub_topology in 0..topology.sub_topology_count() {
            for node in topology.sub_topology(sub_topology).into_iter().map(|id| topology.node(id)) {
                let NodeKind::Sink { topic: SinkName::Fixed(topic) } = &node.kind else { continue };
                if topology.full_name(self.app.id(), topic) == partition.topic {
                    return (TaskId { sub_topology, partition: partition.partition }, Arc::clone(&node.name));
                }
            }
        }
        (TaskId { sub_topology: 0, partition: partition.partition }, "".into())
    }

    fn send_offsets(
        &mut self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        membership: &mut dyn Membership,
    ) -> Result<(), Failure> {
        let group = match membership.group_metadata() {
            Ok(Some(group)) => group,
            Ok(None) => {
                return Err(self.give_up(Error::new(ErrorKind::Aborted, "this thread is no member of its group")));
            }
            Err(error) => return Err(self.failed(error)),
        };
        let producer = self.producer.as_mut().ok_or_else(|| Failure::Doubt(no_producer()))?;
        // Once: who sends has tried as long as it may.
        let sent = producer.send_offsets(offsets, &group);
        sent.map_err(|error| self.failed(error))
    }

    /// What follows from an error before the commit: nothing is committed, so everything can be given up.
    fn failed(&mut self, error: Error) -> Failure {
        match error.kind() {
            ErrorKind::Fenced => {
                self.give_up_producer();
                Failure::Doubt(error)
            }
            ErrorKind::Aborted if self.app.is_exactly_once() => self.give_up(error),
            // Nobody answers, and an abort would wait as long again: a new producer ends the transaction.
            ErrorKind::Unavailable if self.app.is_exactly_once() => {
                self.give_up_producer();
                Failure::Doubt(error)
            }
            ErrorKind::Aborted | ErrorKind::Unavailable => Failure::Doubt(error),
            ErrorKind::Invalid | ErrorKind::Corrupted | ErrorKind::User | ErrorKind::Closed | ErrorKind::Internal => {
                Failure::Fatal(error)
            }
        }
    }

    fn give_up(&mut self, error: Error) -> Failure {
        if self.is_suspicious {
            // A request that nobody has answered may be under way, and would meet the next transaction. What it was to commit
            // may be committed, too.
            self.give_up_producer();
            return Failure::Doubt(error);
        }
        match self.abort() {
            Ok(()) => Failure::Rewind(error),
            Err(aborting) => {
                tracing::warn!("could not abort the transaction: {}", aborting.report());
                Failure::Doubt(error)
            }
        }
    }

    /// What follows from an error of the commit itself.
    fn undecided(&mut self, error: Error) -> Failure {
        match error.kind() {
            ErrorKind::Aborted => self.give_up(error),
            // IMPORTANT: an abort may not follow a commit that may have happened. A new producer makes the cluster
            // decide, and the committed offsets tell.
            ErrorKind::Fenced | ErrorKind::Unavailable => {
                self.give_up_producer();
                Failure::Doubt(error)
            }
            ErrorKind::Invalid | ErrorKind::Corrupted | ErrorKind::User | ErrorKind::Closed | ErrorKind::Internal => {
                self.give_up_producer();
                Failure::Fatal(error)
            }
        }
    }

    fn note_purgeable(&self, offsets: &[(TopicPartition, OffsetAndMetadata)]) {
        let is_ours = |topic: &str| topic.starts_with(self.app.id()) && topic.ends_with("-repartition");
        let mut ours = offsets.iter().filter(|(partition, _)| is_ours(&partition.topic)).peekable();
        if ours.peek().is_some() {
            let mut purgeable = self.app.purgeable.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            purgeable.extend(ours.map(|(partition, committed)| (partition.clone(), committed.offset)));
        }
    }

    fn pass(&self, step: Step) -> Result<(), Failure> {
        self.app.crash_point.pass(step).map_err(Failure::Fatal)
    }
}

/// The same call again while nobody knows what became of it.
fn repeat(is_suspicious: &mut bool, mut call: impl FnMut() -> Result<()>) -> Result<()> {
    let mut result = call();
    for _ in 1..REPEATS {
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
            *is_suspicious = true;
            result = call();
        }
    }
    result
}

/// At least once: the records are out and the offsets are not. If this member has lost its tasks, it hears of it soon.
fn not_committed(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Fenced | ErrorKind::Unavailable | ErrorKind::Aborted => Failure::Later(error),
        ErrorKind::Invalid | ErrorKind::Corrupted | ErrorKind::User | ErrorKind::Closed | ErrorKind::Internal => {
            Failure::Fatal(error)
        }
    }
}

fn is_same(refused: &DeliveryFailure, record: &ProducerRecord<'_>) -> bool {
    refused.partition.topic == *record.topic
        && refused.key.as_deref() == record.key
        && refused.value.as_deref() == record.value
        && refused.timestamp == record.timestamp
}

/// Says which task it was, where nothing else does.
#[cold]
fn with_task(error: Error, task: TaskId) -> Error {
    Error::new(error.kind(), format!("task {task} failed")).with_source(error)
}

#[cold]
fn no_producer() -> Error {
    Error::new(ErrorKind::Unavailable, "the producer has to be made anew")
}
