//! Membership by librdkafka's own group protocol, with its `range` assignor: the same partition of every topic goes to the
//! same member, and every rebalance takes everything away first (eager).
//!
//! The member has a handle of its own that reads nothing: it answers an assignment with an empty one, so that the group goes
//! on while stores are restored, and the consumer beside it reads what the stream thread tells it to. A revocation is
//! answered by [`acknowledge`](Membership::acknowledge): until then librdkafka keeps the member's place with heartbeats.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys::RDKafkaErrorCode as Code;

use super::failure::Failure;
use super::settings::fix;
use super::sys::{Client, Conf, Event, EventQueue, PartitionList, Topic};
use super::wake::{Signal, Waker};
use super::{REQUEST_TIMEOUT, consumer::closed};
use crate::client::{GroupMetadata, GroupSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::membership::{LeaveMode, Membership, MembershipEvent, TaskMap};
use crate::record::{OffsetAndMetadata, TopicPartition};
use crate::topology::TaskId;

/// Between two looks at offsets that a transaction has not decided yet; they take 5 to 10 ms.
const UNSTABLE_PAUSE: Duration = Duration::from_millis(5);

/// How often a topic that was missed is looked for.
const MISSING_LOOKS: u32 = 10;
const MISSING_PAUSE: Duration = Duration::from_millis(200);

/// Leaving waits for the broker's answer at most so long.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct KafkaMembership {
    group: String,
    instance: Option<String>,
    topics: Vec<Arc<str>>,
    tasks: Arc<dyn TaskMap>,
    owned: BTreeSet<TaskId>,
    pending: VecDeque<MembershipEvent>,
    /// The group went on without us, because `poll` was not called for max.poll.interval.ms.
    silent_too_long: bool,
    /// A revocation that has not been answered.
    unanswered: bool,
    /// None once closed.
    handle: Option<Handle>,
}

struct Handle {
    events: EventQueue,
    client: Arc<Client>,
}

impl KafkaMembership {
    pub(super) fn join(mut conf: Conf, spec: &GroupSpec, waker: Arc<Waker>) -> Result<KafkaMembership> {
        fix(&mut conf, "group.id", &spec.group)?;
        fix(&mut conf, "partition.assignment.strategy", "range")?;
        // Committed offsets are asked for with require_stable.
        fix(&mut conf, "isolation.level", "read_committed")?;
        if let Some(instance) = &spec.instance_id {
            fix(&mut conf, "group.instance.id", instance)?;
        }
        let failed = |failure: Failure| failure.while_doing(format_args!("could not join the group {}", spec.group));
        let client = Client::consumer(conf, &spec.client_id).map_err(failed)?;
        let events = EventQueue::new(&client, Signal::new(waker)).map_err(failed)?;
        client.subscribe(spec.topics.iter().map(AsRef::as_ref)).map_err(failed)?;
        Ok(KafkaMembership {
            group: spec.group.clone(),
            instance: spec.instance_id.clone(),
            topics: spec.topics.clone(),
            tasks: Arc::clone(&spec.tasks),
            owned: BTreeSet::new(),
            pending: VecDeque::new(),
            silent_too_long: false,
            unanswered: false,
            handle: Some(Handle { events, client }),
        })
    }

    fn handle(&self) -> Result<&Handle> {
        self.handle.as_ref().ok_or_else(|| closed(&format!("the membership in group {}", self.group)))
    }

    fn assigned(&mut self, partitions: Vec<TopicPartition>) -> Result<()> {
        let answered = self.handle()?.client.accept_assignment();
        answered.map_err(|failure| self.failed(failure, "answer an assignment"))?;
        let active = self.tasks.tasks(&partitions.into_iter().collect())?;
        self.silent_too_long = false;
        self.owned.extend(active.iter().copied());
        self.pending.push_back(MembershipEvent::Assigned { active });
        Ok(())
    }

    fn revoked(&mut self) -> Result<()> {
        let tasks = std::mem::take(&mut self.owned);
        self.unanswered = true;
        if tasks.is_empty() && self.pending.is_empty() {
            // Nothing to close: nobody needs to hear of it.
            return self.acknowledge();
        }
        self.pending.push_back(MembershipEvent::Revoked { tasks });
        Ok(())
    }

    /// Whether a commit would be refused is known best at the last moment.
    fn next_event(&mut self) -> Result<Option<MembershipEvent>> {
        let lost = self.silent_too_long || self.handle()?.client.assignment_lost();
        Ok(self.pending.pop_front().map(|event| match event {
            MembershipEvent::Revoked { tasks } if lost => MembershipEvent::Lost { tasks },
            event => event,
        }))
    }

    fn failed(&self, failure: Failure, doing: &str) -> Error {
        explain(self.handle.as_ref().map(|handle| &handle.client), failure)
            .while_doing(format_args!("could not {doing} as a member of group {}", self.group))
    }

    /// Errors that librdkafka mends by itself are only told in the log.
    fn reported(&self, failure: Failure) -> Result<()> {
        let doing = || format!("could not be a member of group {}", self.group);
        match failure.code {
            Code::UnknownTopicOrPartition | Code::UnknownTopic => return self.look_for_topics(),
            Code::InvalidTopic
            | Code::InvalidSessionTimeout
            | Code::InvalidGroupId
            | Code::InconsistentGroupProtocol
            | Code::GroupMaxSizeReached
            | Code::FencedInstanceId => return Err(failure.while_doing(doing())),
            _ if failure.fatal || failure.is_denied_access() => return Err(failure.while_doing(doing())),
            _ => {}
        }
        tracing::debug!(group = %self.group, %failure, "the group member reports");
        Ok(())
    }

    /// A topic that was just created is not known to every broker at once, and librdkafka, having missed it, would not look
    /// again for minutes: subscribing again makes it.
    fn look_for_topics(&self) -> Result<()> {
        let client = &self.handle()?.client;
        let doing = |name: &str| format!("could not subscribe to the topic {name}");
        for name in &self.topics {
            let topic = Topic::new(client, name).map_err(|failure| failure.while_doing(doing(name)))?;
            let mut looks = 0;
            while let Err(failure) = client.metadata(Some(&topic), REQUEST_TIMEOUT) {
                looks += 1;
                if looks == MISSING_LOOKS {
                    return Err(failure.while_doing(doing(name)));
                }
                #[expect(clippy::disallowed_methods, reason = "the broker does not tell when it hears of a topic")]
                std::thread::sleep(MISSING_PAUSE);
            }
        }
        let subscribed = client.subscribe(self.topics.iter().map(AsRef::as_ref));
        subscribed.map_err(|failure| self.failed(failure, "subscribe"))
    }
}

impl Membership for KafkaMembership {
    fn poll(&mut self) -> Result<Option<MembershipEvent>> {
        // Taking every event before giving one out keeps the sign of life even while a revocation waits for its answer.
        loop {
            let Some(handle) = &mut self.handle else { return Ok(None) };
            match handle.events.poll(Duration::ZERO) {
                None => break,
                Some(Event::Assigned(partitions)) => self.assigned(partitions)?,
                Some(Event::Revoked) => self.revoked()?,
                Some(Event::Failed(failure)) => {
                    self.silent_too_long |= failure.code == Code::PollExceeded;
                    self.reported(failure)?;
                }
                Some(Event::Other) => {}
            }
        }
        self.next_event()
    }

    fn acknowledge(&mut self) -> Result<()> {
        if !self.unanswered {
            return Ok(());
        }
        let given_up = self.handle()?.client.give_up_assignment();
        given_up.map_err(|failure| self.failed(failure, "give partitions back"))?;
        self.unanswered = false;
        Ok(())
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let client = Arc::clone(&self.handle()?.client);
        let mut waited = Duration::ZERO;
        loop {
            let asked = PartitionList::of(partitions.iter().map(|partition| (partition, -1001)));
            let mut list = asked.map_err(|failure| self.failed(failure, "ask for committed offsets"))?;
            let answer = client.committed(&mut list, REQUEST_TIMEOUT);
            let unstable = matches!(&answer, Err(failure) if failure.code == Code::UnstableOffsetCommit)
                || list.iter().any(|entry| entry.code == Code::UnstableOffsetCommit);
            if unstable && waited < REQUEST_TIMEOUT {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the broker tells of no end of a transaction; it takes 5 ms"
                )]
                std::thread::sleep(UNSTABLE_PAUSE);
                waited += UNSTABLE_PAUSE;
                continue;
            }
            answer.map_err(|failure| self.failed(failure, "ask for committed offsets"))?;
            return committed_of(partitions, &list);
        }
    }

    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let list = PartitionList::of_committed(offsets).map_err(|failure| self.failed(failure, "commit offsets"))?;
        self.handle()?.client.commit(&list).map_err(|failure| self.failed(failure, "commit offsets"))
    }

    fn group_metadata(&mut self) -> Result<Option<GroupMetadata>> {
        let member = self.handle()?.client.member();
        Ok(member.map(|(generation, member)| GroupMetadata {
            group: self.group.clone(),
            generation,
            member,
            instance: self.instance.clone(),
        }))
    }

    /// NOTE: librdkafka never lets a static member leave: its tasks stay until the session times out.
    fn close(&mut self, mode: LeaveMode) -> Result<()> {
        let Some(mut handle) = self.handle.take() else { return Ok(()) };
        if mode == LeaveMode::Stay {
            return Ok(());
        }
        if self.unanswered {
            handle.client.give_up_assignment().map_err(|failure| self.failed(failure, "leave"))?;
        }
        handle.events.close().map_err(|failure| self.failed(failure, "leave"))?;
        let mut waited = Duration::ZERO;
        let slice = Duration::from_millis(10);
        while !handle.client.closed() && waited < LEAVE_TIMEOUT {
            match handle.events.poll(slice) {
                Some(Event::Revoked | Event::Assigned(_)) => {
                    handle.client.give_up_assignment().map_err(|failure| self.failed(failure, "leave"))?;
                }
                Some(_) => {}
                None => waited += slice,
            }
        }
        Ok(())
    }
}

fn committed_of(partitions: &[TopicPartition], list: &PartitionList) -> Result<Vec<Option<OffsetAndMetadata>>> {
    let mut found = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let entry = list.iter().find(|e| e.partition == partition.partition && e.topic == &*partition.topic);
        let Some(entry) = entry else {
            return Err(Error::new(ErrorKind::Unavailable, format!("no committed offset was told for {partition}")));
        };
        if entry.code != Code::NoError {
            let failure = Failure::new(entry.code, entry.code.to_string());
            return Err(failure.while_doing(format_args!("could not read the committed offset of {partition}")));
        }
        found.push((entry.offset >= 0).then(|| OffsetAndMetadata {
            offset: entry.offset,
            metadata: String::from_utf8_lossy(entry.metadata).into_owned(),
        }));
    }
    Ok(found)
}

/// What the connections said last tells why nobody answered.
pub(super) fn explain(client: Option<&Arc<Client>>, failure: Failure) -> Failure {
    let Some(last) = client.filter(|_| failure.is_silence()).and_then(|client| client.last_error()) else {
        return failure;
    };
    // Refused credentials look like silence from outside.
    let code = if last.is_denied_access() { last.code } else { failure.code };
    Failure { code, text: format!("{}; last seen: {}", failure.text, last.text), ..failure }
}
