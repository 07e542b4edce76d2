//! The cluster as one process finds it: calls fail, or succeed and nobody hears of it, and what is under way gets lost or
//! arrives late. It is also where most flaws sit.

use std::sync::Arc;
use std::time::Duration;

use super::flaw::Flaw;
use super::shared::{LateRequest, Shared};
use crate::client::embedded::faults::ProducerName;
use crate::client::{
    Admin, Cluster, Consumer, ConsumerSpec, DeliveryFailure, Fetch, GroupCoordinator, GroupMetadata, GroupOffsets,
    GroupSpec, Isolation, Lag, NewTopic, Producer, ProducerSpec, TopicInfo, Watermarks,
};
use crate::membership::Membership;
use crate::record::{OffsetAndMetadata, ProducerRecord, RecordBatch, TopicPartition};
use crate::{Error, ErrorKind, Result};

type Offsets = [(TopicPartition, OffsetAndMetadata)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Init,
    Begin,
    Send,
    Confirm,
    SendOffsets,
    /// Of offsets, without a transaction.
    CommitOffsets,
    Commit,
    Abort,
    Committed,
    /// Calls the position out of range.
    Fetch,
    /// Calls the position in a changelog out of range.
    Restore,
    Ask,
}

/// Whether the cluster did what it was asked before it failed to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    No,
    Yes,
}

#[derive(Clone)]
pub(super) struct Network {
    shared: Arc<Shared>,
    number: usize,
    process: String,
}

impl Network {
    pub(super) fn new(shared: Arc<Shared>, number: usize, process: &str) -> Network {
        Network { shared, number, process: process.to_owned() }
    }

    fn call<T>(&self, call: Call, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some((done, kind)) = self.weather(call) else { return work() };
        tracing::debug!(?call, ?done, ?kind, "fails");
        self.shared.note(&format!("{call:?} fails with {kind:?}, done: {done:?}"));
        if done == Done::Yes {
            work()?;
        }
        Err(Error::new(kind, format!("injected at {call:?}")))
    }

    fn weather(&self, call: Call) -> Option<(Done, ErrorKind)> {
        use ErrorKind::{Aborted, Fenced, Unavailable};
        let shared = &self.shared;
        if !shared.is_stormy() {
            return None;
        }
        // Records are fetched and sent all the time, and what decides a commit is called seldom.
        let is_frequent = matches!(call, Call::Fetch | Call::Send | Call::Begin | Call::Restore);
        let rarity = if is_frequent { 200 } else { 25 };
        if shared.one_in(2 * rarity) {
            shared.sleep(self.number, &self.process);
        }
        if shared.one_in(2 * rarity) {
            shared.cut_off(&self.process, Duration::from_millis(shared.below(1_000)));
        }
        if shared.is_cut_off(&self.process) {
            // What it has asked for may be done all the same.
            let is_done = matches!(call, Call::SendOffsets | Call::CommitOffsets | Call::Commit | Call::Abort);
            let done = if is_done && shared.one_in(2) { Done::Yes } else { Done::No };
            return (!matches!(call, Call::Restore)).then_some((done, Unavailable));
        }
        if !shared.one_in(rarity) {
            return None;
        }
        let is_exactly_once = shared.scenario.is_exactly_once();
        let kinds: &[(Done, ErrorKind)] = match call {
            Call::Send if !is_exactly_once => &[(Done::No, Unavailable)],
            Call::Confirm if !is_exactly_once => &[(Done::No, Unavailable), (Done::Yes, Unavailable)],
            Call::CommitOffsets => &[(Done::No, Unavailable), (Done::Yes, Unavailable), (Done::No, Fenced)],
            Call::Init | Call::Committed | Call::Ask | Call::Fetch | Call::Restore => &[(Done::No, Unavailable)],
            Call::Begin | Call::Send | Call::Confirm => {
                &[(Done::No, Aborted), (Done::No, Fenced), (Done::No, Unavailable)]
            }
            Call::SendOffsets => {
                &[(Done::No, Aborted), (Done::No, Fenced), (Done::No, Unavailable), (Done::Yes, Unavailable)]
            }
            Call::Commit => {
                &[(Done::No, Aborted), (Done::No, Unavailable), (Done::Yes, Unavailable), (Done::Yes, Fenced)]
            }
            Call::Abort => &[(Done::No, Fenced), (Done::No, Unavailable), (Done::Yes, Unavailable)],
        };
        let which = shared.below(kinds.len() as u64);
        kinds.get(usize::try_from(which).unwrap()).copied()
    }
}

/// A thread, by the name of one of its clients.
fn thread_of(client_id: &str) -> String {
    client_id.rsplit_once('-').map_or(client_id, |(thread, _)| thread).to_owned()
}

impl Cluster for Network {
    fn join(&self, spec: &GroupSpec) -> Result<(Box<dyn Membership>, Box<dyn Consumer>)> {
        self.shared.cluster.join(spec)
    }

    fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        let is_restoring = spec.client_id.contains("restore");
        let mut spec = spec.clone();
        if is_restoring && self.shared.is_flawed(Flaw::RestoresUncommitted) {
            spec.isolation = Isolation::ReadUncommitted;
        }
        let (inner, thread) = (self.shared.cluster.consumer(&spec)?, thread_of(&spec.client_id));
        if !is_restoring {
            self.shared.ranges.lock().unwrap().begins(&thread);
        }
        Ok(Box::new(Reader { inner, network: self.clone(), thread, is_restoring }))
    }

    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>> {
        Ok(Box::new(Writer {
            inner: self.shared.cluster.producer(spec)?,
            network: self.clone(),
            thread: thread_of(&spec.client_id),
            transactional_id: spec.transactional_id.clone().unwrap_or_default(),
            name: None,
            offsets: Vec::new(),
            has_ended: false,
            is_committed_later: false,
            undelivered: Vec::new(),
        }))
    }

    fn admin(&self) -> Result<Box<dyn Admin>> {
        Ok(Box::new(Asker { inner: self.shared.cluster.admin()?, network: self.clone() }))
    }

    fn coordinator(&self, group: &str, client_id: &str) -> Result<Box<dyn GroupCoordinator>> {
        self.shared.cluster.coordinator(group, client_id)
    }

    fn group_offsets(&self, group: &str, client_id: &str) -> Result<Box<dyn GroupOffsets>> {
        let inner = self.shared.cluster.group_offsets(group, client_id)?;
        Ok(Box::new(Committed { inner, network: self.clone() }))
    }
}

struct Reader {
    inner: Box<dyn Consumer>,
    network: Network,
    thread: String,
    is_restoring: bool,
}

impl Consumer for Reader {
    fn assign(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<()> {
        let shared = &self.network.shared;
        if self.is_restoring {
            return self.inner.assign(partitions);
        }
        for (partition, offset) in partitions {
            shared.ranges.lock().unwrap().reads(&self.thread, partition, *offset);
        }
        if shared.is_flawed(Flaw::RewindsNothing) {
            let is_new = |(partition, _): &&(TopicPartition, i64)| self.inner.position(partition).is_none();
            return self.inner.assign(&partitions.iter().filter(is_new).cloned().collect::<Vec<_>>());
        }
        self.inner.assign(partitions)
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        if !self.is_restoring {
            let mut ranges = self.network.shared.ranges.lock().unwrap();
            partitions.iter().for_each(|partition| ranges.ends(&self.thread, partition));
        }
        self.inner.unassign(partitions)
    }

    fn fetch(&mut self, partition: &TopicPartition, records_max: usize, batch: &mut RecordBatch) -> Result<Fetch> {
        let call = if self.is_restoring { Call::Restore } else { Call::Fetch };
        if self.network.call(call, || Ok(())).is_err() {
            return Ok(Fetch::OutOfRange);
        }
        let shared = &self.network.shared;
        if self.is_restoring && shared.is_flawed(Flaw::TrustsStaleCopies) {
            // Whatever is there already is taken for all.
            let is_begun = self.inner.position(partition).is_some_and(|position| position > 0);
            if let (true, Some(end)) = (is_begun, self.inner.end(partition)) {
                self.inner.assign(&[(partition.clone(), end)])?;
            }
        }
        self.inner.fetch(partition, records_max, batch)
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.position(partition)
    }

    fn lag(&self, partition: &TopicPartition) -> Lag {
        self.inner.lag(partition)
    }

    fn end(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.end(partition)
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        self.inner.wait(timeout)
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        self.inner.waker()
    }
}

struct Writer {
    inner: Box<dyn Producer>,
    network: Network,
    thread: String,
    transactional_id: String,
    /// After its initialization.
    name: Option<ProducerName>,
    /// Of the transaction that is open.
    offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
    /// The transaction has ended, and nobody has heard of it: the same call is answered well when it is repeated.
    has_ended: bool,
    /// Of [`Flaw::AppliesBeforeCommit`].
    is_committed_later: bool,
    /// What was lost without a transaction, since it was last asked for.
    undelivered: Vec<DeliveryFailure>,
}

impl Writer {
    fn commit_now(&mut self, timeout: Duration) -> Result<()> {
        if !self.has_ended {
            self.inner.commit_transaction(timeout)?;
            self.has_ended = true;
            self.network.shared.ranges.lock().unwrap().committed(&self.thread, &self.offsets);
        }
        Ok(())
    }

    fn abort_now(&mut self, timeout: Duration) -> Result<()> {
        if !self.has_ended {
            self.inner.abort_transaction(timeout)?;
            self.has_ended = true;
            self.network.shared.begins_anew(&self.transactional_id);
        }
        Ok(())
    }

    /// Nobody has answered: what was asked may still be under way.
    fn may_end_later(&self, ended: &Result<()>, is_commit: bool) {
        let is_unknown = ended.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable);
        if let (true, Some(producer)) = (is_unknown, self.name.clone()) {
            let (client, offsets) = (self.thread.clone(), self.offsets.clone());
            self.network.shared.may_arrive(LateRequest::End { producer, is_commit, client, offsets });
        }
    }

    fn check_delivered(&self) -> Result<()> {
        if self.network.shared.has_lost(&self.transactional_id) && !self.has_ended {
            return Err(Error::new(ErrorKind::Aborted, "a leader has lost records of the transaction"));
        }
        Ok(())
    }

    fn begin(&mut self) {
        (self.has_ended, self.is_committed_later) = (false, false);
        self.offsets.clear();
    }
}

impl Producer for Writer {
    fn init_transactions(&mut self, timeout: Duration) -> Result<()> {
        let network = self.network.clone();
        network.call(Call::Init, || self.inner.init_transactions(timeout))?;
        self.name = Some(network.shared.cluster.producer_name(&self.transactional_id)?);
        network.shared.begins_anew(&self.transactional_id);
        Ok(())
    }

    fn begin_transaction(&mut self) -> Result<()> {
        let network = self.network.clone();
        if self.is_committed_later {
            self.is_committed_later = false;
            self.commit_now(Duration::ZERO)?;
        }
        network.call(Call::Begin, || self.inner.begin_transaction())?;
        self.begin();
        Ok(())
    }

    fn send(&mut self, record: ProducerRecord<'_>, track: bool) -> Result<()> {
        let network = self.network.clone();
        let shared = &network.shared;
        if !shared.scenario.is_exactly_once() {
            // What comes after a record that was not delivered is not delivered either.
            let partition = |failure: &DeliveryFailure| failure.partition.topic == *record.topic;
            if self.undelivered.iter().any(partition) || (shared.is_stormy() && shared.one_in(300)) {
                shared.note("a record is not delivered");
                self.undelivered.push(not_delivered(&record));
                return Ok(());
            }
        }
        network.call(Call::Send, || self.inner.send(record, track))
    }

    fn confirm(&mut self, timeout: Duration) -> Result<Vec<DeliveryFailure>> {
        let network = self.network.clone();
        let confirmed =
            self.check_delivered().and_then(|()| network.call(Call::Confirm, || self.inner.confirm(timeout)));
        let undelivered = if confirmed.is_ok() { std::mem::take(&mut self.undelivered) } else { Vec::new() };
        if network.shared.is_flawed(Flaw::IgnoresFailures) && (confirmed.is_err() || !undelivered.is_empty()) {
            return Ok(Vec::new());
        }
        if confirmed.is_ok() {
            network.shared.tell_all();
        }
        confirmed.map(|failures| failures.into_iter().chain(undelivered).collect())
    }

    fn end_offset(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.end_offset(partition)
    }

    fn send_offsets(&mut self, offsets: &Offsets, group: &GroupMetadata) -> Result<()> {
        let network = self.network.clone();
        let shared = &network.shared;
        let nobody = GroupMetadata { generation: -1, member: String::new(), instance: None, ..group.clone() };
        let group = if shared.is_flawed(Flaw::NamesNoMember) { &nobody } else { group };
        self.offsets = offsets.to_vec();
        tracing::debug!(?offsets, member = group.member, group.generation, "sends offsets");
        if shared.is_flawed(Flaw::CommitsTooFar) {
            shared.commit_too_far(&mut self.offsets)?;
        }
        let offsets = self.offsets.clone();
        let sent = network.call(Call::SendOffsets, || self.inner.send_offsets(&offsets, group));
        let is_unknown = sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable);
        if let (true, Some(producer)) = (is_unknown, self.name.clone()) {
            shared.may_arrive(LateRequest::Offsets { producer, offsets, group: group.clone() });
        }
        sent
    }

    fn commit_transaction(&mut self, timeout: Duration) -> Result<()> {
        let network = self.network.clone();
        if network.shared.is_flawed(Flaw::AppliesBeforeCommit) {
            self.is_committed_later = true;
            return Ok(());
        }
        let committed = network.call(Call::Commit, || self.commit_now(timeout));
        self.may_end_later(&committed, true);
        let kind = committed.as_ref().err().map(Error::kind);
        match kind {
            Some(_) if network.shared.is_flawed(Flaw::BelievesCommits) => self.abort_now(timeout),
            Some(ErrorKind::Unavailable) if network.shared.is_flawed(Flaw::TakesSilenceForNo) => {
                Err(Error::new(ErrorKind::Aborted, "nobody has answered"))
            }
            _ => committed,
        }
    }

    fn abort_transaction(&mut self, timeout: Duration) -> Result<()> {
        let network = self.network.clone();
        let aborted = network.call(Call::Abort, || self.abort_now(timeout));
        self.may_end_later(&aborted, false);
        aborted
    }

    fn partitions(&mut self, topic: &Arc<str>) -> Result<i32> {
        self.inner.partitions(topic)
    }
}

fn not_delivered(record: &ProducerRecord<'_>) -> DeliveryFailure {
    DeliveryFailure {
        partition: TopicPartition::new(Arc::clone(record.topic), record.partition.unwrap_or(-1)),
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        timestamp: record.timestamp,
        error: Error::new(ErrorKind::Unavailable, "injected: not delivered"),
    }
}

struct Committed {
    inner: Box<dyn GroupOffsets>,
    network: Network,
}

impl GroupOffsets for Committed {
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        let network = self.network.clone();
        let shared = &network.shared;
        if shared.is_flawed(Flaw::SkipsFencing) {
            let decided = |partition: &TopicPartition| {
                let offset = shared.cluster.committed_offset("app", &partition.topic, partition.partition)?;
                Ok(offset.map(|offset| OffsetAndMetadata { offset, metadata: String::new() }))
            };
            return partitions.iter().map(decided).collect();
        }
        let mut committed = network.call(Call::Committed, || self.inner.committed(partitions))?;
        if shared.is_flawed(Flaw::ForgetsTimes) {
            committed.iter_mut().flatten().for_each(|committed| committed.metadata.clear());
        }
        Ok(committed)
    }

    fn committed_so_far(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        let network = self.network.clone();
        network.call(Call::Ask, || self.inner.committed_so_far(partitions))
    }

    fn commit(&mut self, offsets: &Offsets, as_member: &GroupMetadata) -> Result<()> {
        let network = self.network.clone();
        let shared = &network.shared;
        let mut offsets = offsets.to_vec();
        if shared.is_flawed(Flaw::CommitsTooFar) {
            shared.commit_too_far(&mut offsets)?;
        }
        let committed = network.call(Call::CommitOffsets, || self.inner.commit(&offsets, as_member));
        if committed.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
            shared.may_arrive(LateRequest::Commit { offsets, group: as_member.clone() });
        }
        committed
    }

    fn fence(&mut self, transactional_ids: &[String], outputs: &[Arc<str>]) -> Result<()> {
        if self.network.shared.is_flawed(Flaw::SkipsFencing) {
            return Ok(());
        }
        self.network.shared.note("a dead process is fenced");
        self.inner.fence(transactional_ids, outputs)
    }
}

struct Asker {
    inner: Box<dyn Admin>,
    network: Network,
}

impl Admin for Asker {
    fn topics(&mut self, names: &[Arc<str>]) -> Result<Vec<Option<TopicInfo>>> {
        self.inner.topics(names)
    }

    fn topic_names(&mut self) -> Result<Vec<Arc<str>>> {
        self.inner.topic_names()
    }

    fn create_topics(&mut self, topics: &[NewTopic]) -> Result<()> {
        self.inner.create_topics(topics)
    }

    fn delete_topics(&mut self, names: &[Arc<str>]) -> Result<()> {
        self.inner.delete_topics(names)
    }

    fn watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>> {
        let network = self.network.clone();
        let marks = network.call(Call::Ask, || self.inner.watermarks(partitions))?;
        network.shared.tell(partitions);
        Ok(marks)
    }

    fn offsets_for_time(&mut self, partitions: &[TopicPartition], timestamp: i64) -> Result<Vec<i64>> {
        self.inner.offsets_for_time(partitions, timestamp)
    }

    fn delete_records(&mut self, before: &[(TopicPartition, i64)]) -> Result<()> {
        let network = self.network.clone();
        network.call(Call::Ask, || self.inner.delete_records(before))
    }
}
