//! Requests to classic groups: who sends them, and where their answers wait.
//!
//! ```text
//!   send ──> ClassicGroup ──> answers of the same moment, or of a later one ──> the mailbox of each connection ──> poll
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::client::GroupMetadata;
use crate::client::embedded::classic::{Asker, Connection, Join, Subscription};
use crate::client::embedded::clock::{Patience, ms};
use crate::client::embedded::state::{Shared, State};
use crate::error::Result;
use crate::membership::classic::protocol::{
    GroupAnswer, GroupCoordinator, GroupError, GroupOffsets, GroupRequest, RequestKind,
};
use crate::record::{OffsetAndMetadata, TopicPartition};

/// What a connection has to read. As many answers as requests are under way: two.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    answers: VecDeque<GroupAnswer>,
    is_woken: bool,
}

impl State {
    fn connect(&mut self) -> Connection {
        // From the numbers of members: neither is used for anything but being another one each time.
        self.members += 1;
        self.mailboxes.insert(self.members, Mailbox::default());
        self.members
    }

    fn ask(&mut self, name: &str, client_id: &str, connection: Connection, request: GroupRequest) {
        let now = self.clock.now();
        self.members += 1;
        let number = self.members;
        let group = self.groups.entry(name.to_owned()).or_default();
        if matches!(request, GroupRequest::Join { .. }) && !group.members.is_empty() {
            let error = GroupError::InconsistentProtocol;
            self.deliver(connection, GroupAnswer::Refused { request: RequestKind::Join, error });
            return;
        }
        let by = |member, instance| Asker { connection, member, instance };
        match request {
            GroupRequest::Join { member, instance, session_timeout, rebalance_timeout, topics, user_data } => {
                let prefix = instance.as_deref().unwrap_or(client_id);
                let join = Join {
                    connection,
                    new_id: format!("{prefix}-{number:08}"),
                    member,
                    instance,
                    session_ms: ms(session_timeout),
                    rebalance_ms: ms(rebalance_timeout),
                    subscription: Subscription { topics, user_data },
                };
                group.classic.join(join, now);
            }
            GroupRequest::Sync { generation, member, instance, assignments } => {
                group.classic.sync(&by(&member, instance.as_deref()), generation, assignments, now);
            }
            GroupRequest::Heartbeat { generation, member, instance } => {
                group.classic.heartbeat(&by(&member, instance.as_deref()), generation, now);
            }
            GroupRequest::Leave { member, instance } => {
                group.classic.leave(&by(&member, instance.as_deref()), now);
            }
        }
        self.deliver_answers(name);
    }

    /// Whether there was anything.
    pub(super) fn pass_time_of_classic_groups(&mut self, now: i64) -> bool {
        let mut changed = Vec::new();
        for (name, group) in &mut self.groups {
            if group.classic.pass_time(now) {
                changed.push(name.clone());
            }
        }
        changed.iter().for_each(|name| self.deliver_answers(name));
        !changed.is_empty()
    }

    pub(super) fn deliver_answers(&mut self, group: &str) {
        let Some(group) = self.groups.get_mut(group) else { return };
        for (connection, answer) in group.classic.take_answers() {
            self.deliver(connection, answer);
        }
    }

    fn deliver(&mut self, connection: Connection, answer: GroupAnswer) {
        // Nobody reads at a connection that was closed.
        if let Some(mailbox) = self.mailboxes.get_mut(&connection) {
            mailbox.answers.push_back(answer);
        }
    }
}

/// One client's connections to the coordinator of a group. When it is dropped its member stays, and its session runs.
pub(super) struct EmbeddedCoordinator {
    shared: Arc<Shared>,
    group: String,
    client_id: String,
    connection: Connection,
    /// Of requests that the cluster could not take.
    lost: VecDeque<RequestKind>,
}

impl EmbeddedCoordinator {
    pub(super) fn new(shared: Arc<Shared>, group: &str, client_id: &str) -> Result<EmbeddedCoordinator> {
        let connection = shared.state()?.connect();
        let (group, client_id) = (group.to_owned(), client_id.to_owned());
        Ok(EmbeddedCoordinator { shared, group, client_id, connection, lost: VecDeque::new() })
    }
}

impl GroupCoordinator for EmbeddedCoordinator {
    fn send(&mut self, request: GroupRequest) {
        match self.shared.state() {
            Ok(mut state) => {
                state.ask(&self.group, &self.client_id, self.connection, request);
                drop(state);
                self.shared.wake();
            }
            // The directory has failed: to the others that is a broker that is down.
            Err(_) => self.lost.push_back(request.kind()),
        }
    }

    fn poll(&mut self) -> Option<GroupAnswer> {
        if let Some(lost) = self.lost.pop_front() {
            return Some(GroupAnswer::Disconnected(lost));
        }
        let mut state = self.shared.state().ok()?;
        state.mailboxes.get_mut(&self.connection)?.answers.pop_front()
    }

    fn wait(&mut self, timeout: Duration) {
        let patience = Patience::new(timeout);
        let Ok(mut state) = self.shared.state() else { return std::thread::park_timeout(timeout) };
        while self.lost.is_empty() {
            let Some(mailbox) = state.mailboxes.get_mut(&self.connection) else { return };
            let is_woken = std::mem::take(&mut mailbox.is_woken);
            if is_woken || !mailbox.answers.is_empty() {
                return;
            }
            let Some(left) = patience.left() else { return };
            match self.shared.wait(state, left) {
                Ok(again) => state = again,
                Err(_) => return,
            }
        }
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let (shared, connection) = (Arc::clone(&self.shared), self.connection);
        Arc::new(move || {
            // A cluster whose directory has failed wakes nobody: the wait ends by its timeout.
            let Ok(mut state) = shared.state() else { return };
            if let Some(mailbox) = state.mailboxes.get_mut(&connection) {
                mailbox.is_woken = true;
            }
            drop(state);
            shared.wake();
        })
    }
}

impl Drop for EmbeddedCoordinator {
    fn drop(&mut self) {
        if let Ok(mut state) = self.shared.state() {
            state.mailboxes.remove(&self.connection);
        }
    }
}

/// What stream threads ask of a group.
pub(super) struct EmbeddedOffsets {
    shared: Arc<Shared>,
    group: String,
}

impl EmbeddedOffsets {
    pub(super) fn new(shared: Arc<Shared>, group: &str) -> EmbeddedOffsets {
        EmbeddedOffsets { shared, group: group.to_owned() }
    }
}

impl GroupOffsets for EmbeddedOffsets {
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        self.shared.committed(&self.group, partitions)
    }

    fn committed_so_far(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        Ok(self.shared.state()?.committed_so_far(&self.group, partitions))
    }

    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)], as_member: &GroupMetadata) -> Result<()> {
        self.shared.state()?.commit(as_member, offsets)
    }

    fn fence(&mut self, transactional_ids: &[String], _outputs: &[Arc<str>]) -> Result<()> {
        let mut state = self.shared.state()?;
        transactional_ids.iter().try_for_each(|id| state.init_producer(id).map(drop))?;
        drop(state);
        self.shared.wake();
        Ok(())
    }
}
