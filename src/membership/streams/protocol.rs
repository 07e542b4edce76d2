//! What a member of a streams group says to its coordinator and hears from it, whatever is in between.
//!
//! There is one request. It joins, tells what has changed here, learns what has changed there, and leaves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::declaration::TopologyDeclaration;
use crate::membership::classic::protocol::GroupCoordinator;
use crate::record::TopicPartition;
use crate::topology::TaskId;

/// The member's epoch in the heartbeat that joins, and in the one that leaves.
pub(crate) const JOINING: i32 = 0;
pub(crate) const LEAVING: i32 = -1;

/// Speaks the protocol of streams groups.
pub(crate) type StreamsCoordinator = dyn GroupCoordinator<Heartbeat, HeartbeatAnswer>;

/// What is none has not changed since the last heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    /// Comes back with the answer, so that none is taken for another one's.
    pub number: u64,
    /// Chosen by the member.
    pub member: String,
    pub epoch: i32,
    /// Of the addresses of instances that the member has heard of last; −1: of none.
    pub endpoint_epoch: i32,
    /// With a join only.
    pub introduction: Option<Arc<Introduction>>,
    /// What the member has. Nothing in a join.
    pub owned: Option<Tasks>,
    /// How far the stores of tasks are that the member does not run.
    pub progress: Option<Vec<Progress>>,
    /// Every instance of the application is to end.
    pub shuts_down: bool,
}

/// What stays the same as long as a process lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Introduction {
    pub topology: TopologyDeclaration,
    /// How long a member may take to give tasks back before it is removed.
    pub rebalance_timeout: Duration,
    /// Members of one process have the same one: they are not given the active task and the standby of it.
    pub process: String,
    /// Where the instance can be asked: host and port.
    pub endpoint: Option<(String, u16)>,
    pub tags: Vec<(String, String)>,
}

/// What a member has, or shall have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tasks {
    pub active: BTreeSet<TaskId>,
    pub standby: BTreeSet<TaskId>,
    /// Standbys that become active as soon as they have caught up.
    pub warmup: BTreeSet<TaskId>,
}

impl Tasks {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TaskId> {
        self.active.iter().chain(&self.standby).chain(&self.warmup)
    }
}

/// Sums over the changelogs of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub task: TaskId,
    pub offset: i64,
    pub end: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeartbeatAnswer {
    /// Of the heartbeat.
    pub number: u64,
    pub heard: Heard,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Taken(Taken),
    /// With the broker's own words, which may be none.
    Refused(StreamsError, String),
    /// The connection broke, or nobody answered: the heartbeat may have arrived or not.
    Disconnected,
}

/// The answer to a heartbeat that the coordinator has heeded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub epoch: i32,
    pub endpoint_epoch: i32,
    /// The longest time to the next heartbeat.
    pub interval_ms: i32,
    /// How often to tell the progress of tasks; 0 or less: the broker has no use for it.
    pub progress_interval_ms: i32,
    pub statuses: Vec<(Status, String)>,
    /// What the member shall have; none: the same as before.
    pub tasks: Option<Tasks>,
    /// Who of the group has what; none: the same as before.
    pub addresses: Option<Vec<Address>>,
}

/// What is to be had at an address. Members of one process have the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub host: String,
    pub port: u16,
    /// What its active tasks read.
    pub active: Vec<TopicPartition>,
    /// What the tasks read that it keeps copies of.
    pub standby: Vec<TopicPartition>,
}

/// How the group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Another member has declared a newer topology.
    StaleTopology,
    MissingSourceTopics,
    /// Topics that are read together have different numbers of partitions.
    IncorrectlyPartitionedTopics,
    /// The broker makes them.
    MissingInternalTopics,
    /// A member asks all others to end.
    ShutdownApplication,
    /// The broker waits for other members, or between two assignments.
    AssignmentDelayed,
    Other(i8),
}

impl Status {
    pub(crate) fn of(code: i8) -> Status {
        match code {
            0 => Status::StaleTopology,
            1 => Status::MissingSourceTopics,
            2 => Status::IncorrectlyPartitionedTopics,
            3 => Status::MissingInternalTopics,
            4 => Status::ShutdownApplication,
            5 => Status::AssignmentDelayed,
            other => Status::Other(other),
        }
    }

    /// Whether no tasks are given out while it lasts.
    pub(crate) fn is_waiting(self) -> bool {
        match self {
            Status::MissingSourceTopics
            | Status::IncorrectlyPartitionedTopics
            | Status::MissingInternalTopics
            | Status::AssignmentDelayed => true,
            Status::StaleTopology | Status::ShutdownApplication | Status::Other(_) => false,
        }
    }
}

/// Why a coordinator refuses, as far as a member acts upon it. The coordinator being elsewhere or loading is no refusal:
/// who sends looks for it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamsError {
    /// 25: removed from the group.
    UnknownMember,
    /// 110: the member's epoch is not the group's idea of it.
    FencedEpoch,
    /// 69: members of another protocol are in the group.
    OtherGroup,
    /// 42: among others, another topology than that of the group.
    InvalidRequest,
    /// 130 to 132.
    InvalidTopology,
    /// 81: `group.streams.max.size`.
    MaxSizeReached,
    /// 29 and 31: rights on topics, which somebody may grant.
    TopicsDenied,
    /// 30, and whatever keeps the connection from being made.
    Denied,
    /// 35: the broker does not speak the protocol, or its feature `streams.version` is off.
    Unsupported,
    /// Any other code.
    Other(i16),
}
