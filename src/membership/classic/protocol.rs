//! What a member of a classic group says to its coordinator and hears from it, whatever is in between.
//!
//! ```text
//!   group thread ── GroupCoordinator ── join, sync, heartbeat, leave: sent, and answered some time later
//!   stream threads ── GroupOffsets ──── committed offsets, commits, fencing: each call waits for its answer
//! ```
//!
//! A cluster implements both; the wire format (or none, in the same process) is its business. An answer may come late,
//! twice, or never: the member is written for that.

use std::sync::Arc;
use std::time::Duration;

use crate::client::GroupMetadata;
use crate::error::Result;
use crate::record::{OffsetAndMetadata, TopicPartition};

/// The one assignment protocol that our members know, as `kafka-consumer-groups` shows it. Java's members of the same
/// group would be refused, as theirs differ.
pub(crate) const PROTOCOL_NAME: &str = "rs-streams-1";

/// Kafka's protocol type of groups whose blobs are those of consumers, so that tools can read them.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";

/// What a member asks its coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupRequest {
    Join {
        /// Empty before the group has given an id.
        member: String,
        /// Static membership, when given.
        instance: Option<String>,
        session_timeout: Duration,
        rebalance_timeout: Duration,
        /// The subscription: real topics, so that tools and the retention of offsets work.
        topics: Vec<Arc<str>>,
        /// Ours. What is around it (a `ConsumerProtocolSubscription` of version 3 with generation −1 and no owned
        /// partitions) is written by who sends it, the same bytes each time.
        user_data: Vec<u8>,
    },
    Sync {
        generation: i32,
        member: String,
        instance: Option<String>,
        /// Everybody's, from the leader; empty from a follower, and from a leader that was told to skip the assignment.
        assignments: Vec<MemberAssignment>,
    },
    Heartbeat {
        generation: i32,
        member: String,
        instance: Option<String>,
    },
    Leave {
        member: String,
        instance: Option<String>,
    },
}

impl GroupRequest {
    pub(crate) fn kind(&self) -> RequestKind {
        match self {
            GroupRequest::Join { .. } => RequestKind::Join,
            GroupRequest::Sync { .. } => RequestKind::Sync,
            GroupRequest::Heartbeat { .. } => RequestKind::Heartbeat,
            GroupRequest::Leave { .. } => RequestKind::Leave,
        }
    }
}

/// What the leader gives to one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberAssignment {
    pub member: String,
    /// For tools: the inputs of the active tasks.
    pub partitions: Vec<TopicPartition>,
    pub user_data: Vec<u8>,
}

/// A member, as the leader is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupMember {
    pub id: String,
    pub instance: Option<String>,
    pub topics: Vec<Arc<str>>,
    pub user_data: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupAnswer {
    Joined {
        generation: i32,
        member: String,
        leader: String,
        /// The leader gets the list of members and its assignment is not heeded: a static leader that came back.
        skip_assignment: bool,
        /// Everybody, for the leader only.
        members: Vec<GroupMember>,
    },
    /// What the leader has decided for this member.
    Synced {
        partitions: Vec<TopicPartition>,
        user_data: Vec<u8>,
    },
    /// To a heartbeat.
    Alive,
    Left,
    Refused {
        request: RequestKind,
        error: GroupError,
    },
    /// The connection broke, or nobody answered: the request may have arrived or not.
    Disconnected(RequestKind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Join,
    Sync,
    Heartbeat,
    Leave,
}

/// Why a coordinator refuses, as far as a member acts upon it. The coordinator being elsewhere or loading is no refusal:
/// who sends looks for it again and answers [`Disconnected`](GroupAnswer::Disconnected) when it gives up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupError {
    /// 79: join again with this id.
    MemberIdRequired(String),
    /// 25: removed from the group.
    UnknownMemberId,
    /// 22: the group went on without this member.
    IllegalGeneration,
    /// 82: another process joined with the same instance id.
    FencedInstance,
    /// 27: join again.
    RebalanceInProgress,
    /// 26: out of the broker's bounds.
    InvalidSessionTimeout,
    /// 23: other members speak another protocol (librdkafka's, Java's), or the group is of another kind.
    InconsistentProtocol,
    /// 81: `group.max.size`.
    MaxSizeReached,
    /// Authentication or authorization: what the broker denies, in words.
    Denied(String),
    /// Any other code.
    Other(i16, String),
}

/// A connection to the coordinator of one group: it finds it, connects, and reconnects with backoff inside.
///
/// One join or sync and one heartbeat or leave may be under way at a time, on connections of their own: a broker answers
/// a connection in order, and a join that waits for others holds back what is behind it. (In a streams group, one request
/// of the only kind that there is.)
pub(crate) trait GroupCoordinator<Request = GroupRequest, Answer = GroupAnswer>: Send {
    /// Never blocks. Every request gets one answer, or [`Disconnected`](GroupAnswer::Disconnected).
    fn send(&mut self, request: Request);

    /// The next answer, if there is one. Never blocks.
    fn poll(&mut self) -> Option<Answer>;

    /// Waits until there may be an answer, or until woken, at most `timeout`. Spurious returns are allowed.
    fn wait(&mut self, timeout: Duration);

    /// Ends a `wait` from another thread; the next one when none is under way.
    fn waker(&self) -> Arc<dyn Fn() + Send + Sync>;
}

/// Requests of stream threads, on a connection of their own. Each call blocks, up to the request timeout.
pub(crate) trait GroupOffsets: Send {
    /// The committed positions, waiting for pending transactional ones to be decided (`require_stable`).
    ///
    /// # Errors
    /// `Unavailable`: nobody answers, or a transaction is pending for longer than the request timeout. `Invalid`: denied.
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>>;

    /// The committed positions as they are: those of pending transactions are not among them, and are not waited for.
    ///
    /// # Errors
    /// `Unavailable`: nobody answers. `Invalid`: denied.
    fn committed_so_far(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        self.committed(partitions)
    }

    /// Commits positions without a transaction, as a member.
    ///
    /// # Errors
    /// `Fenced`: not a member of that generation any more. `Unavailable`: not answered, or a rebalance is going on.
    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)], as_member: &GroupMetadata) -> Result<()>;

    /// Ends what the producers of these transactional ids have left open (`InitProducerId`), and keeps them from going
    /// on: 10 ms instead of the transaction timeout. `outputs`: the topics that they write to.
    ///
    /// # Errors
    /// `Unavailable`: nobody answers; to be called again.
    fn fence(&mut self, transactional_ids: &[String], outputs: &[Arc<str>]) -> Result<()>;

    /// The same for all ids of processes that are in the streams group no more.
    ///
    /// # Errors
    /// `Unavailable`: a broker does not answer, and may know of more; to be called again. `Invalid`: denied.
    fn fence_the_gone(&mut self, _own_process: &str, _outputs: &[Arc<str>]) -> Result<()> {
        // Where there are no streams groups.
        Ok(())
    }
}
