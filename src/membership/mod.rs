//! Who owns which task. A member hears of it as events between two steps, never in a callback.

#[cfg_attr(not(feature = "testing"), allow(dead_code, unused_imports, reason = "for the group protocol of our own"))]
pub(crate) mod classic;
#[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "only real brokers coordinate streams groups"))]
pub(crate) mod streams;

use std::collections::BTreeSet;

#[cfg(feature = "testing")]
pub use classic::{BenchGroup, Settling};

use crate::client::GroupMetadata;
use crate::error::Result;
use crate::record::{OffsetAndMetadata, TopicPartition};
use crate::topology::TaskId;

/// One thread's place in the group.
///
/// ```text
///   poll -> Revoked{tasks}:  commit, close them  -> acknowledge
///        -> Lost{tasks}:     close without a commit -> acknowledge
///        -> Assigned{tasks}: committed(..), restore, run
///        -> Standby{tasks}:  keep the stores of these, and of no others, up to date -> warmed_up(..)
/// ```
pub(crate) trait Membership: Send {
    /// The next event; none when there is nothing new. Never blocks.
    ///
    /// # Errors
    /// `Fenced`: another process has this member's identity. `Invalid`: the group or the assignment cannot work, with the
    /// remedy. `Unavailable`: not connected; call again.
    fn poll(&mut self) -> Result<Option<MembershipEvent>>;

    /// The tasks of the last `Revoked` or `Lost` are closed: the group may give them to somebody else.
    fn acknowledge(&mut self) -> Result<()>;

    /// The stores of standbys have caught up: the group may have waited for them.
    fn warmed_up(&mut self, _tasks: &BTreeSet<TaskId>) {}

    /// Whether the thread still works at what is somebody else's by now: it will hear of it by the next `Lost`.
    fn has_lost_tasks(&mut self) -> bool {
        false
    }

    /// The committed positions, waiting for pending transactional ones to be decided (`require_stable`).
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>>;

    /// The committed offsets as they are, without waiting for pending transactions; none where nobody can say, as in a
    /// membership without standbys.
    fn committed_so_far(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>> {
        Ok(vec![None; partitions.len()])
    }

    /// Commits positions without a transaction, as this member.
    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()>;

    /// Who commits, for a transaction. None before the first assignment.
    fn group_metadata(&mut self) -> Result<Option<GroupMetadata>>;

    /// Ends the membership: the others get the tasks at once (`Leave`) or after the session timeout (`Stay`).
    fn close(&mut self, mode: LeaveMode) -> Result<()>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MembershipEvent {
    /// Tasks in addition to those owned.
    Assigned { active: BTreeSet<TaskId> },
    /// All standbys of the thread. One that becomes active is among them until it is assigned.
    Standby { tasks: BTreeSet<TaskId> },
    /// Asked back: commit first.
    Revoked { tasks: BTreeSet<TaskId> },
    /// Gone already: a commit would be refused.
    Lost { tasks: BTreeSet<TaskId> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaveMode {
    Leave,
    Stay,
}

/// Which tasks a set of partitions makes up. A group protocol that only knows partitions asks it.
pub(crate) trait TaskMap: Send + Sync {
    /// The tasks of which every input partition is in the set.
    ///
    /// # Errors
    /// `Invalid` when some input partitions of a task are in the set and others are not: the partitions of topics read
    /// together were given to different members.
    fn tasks(&self, partitions: &BTreeSet<TopicPartition>) -> Result<BTreeSet<TaskId>>;
}
