//! A task: one sub-topology on one partition. Takes records and the time, gives records, changelog updates and offsets.
//!
//! ```text
//!   RecordBatch --add--> [ PartitionGroup ] --lowest timestamp--> [ Pipeline ] --> Output, changelog of TaskStores
//!                         a queue per input                        sources, nodes       | drained by the thread
//!   commit: flush -> output and changelog -> offsets -> (transaction) -> committed: TaskStores::apply
//!   abort:  rewind: stores discard, queues are emptied, the pipeline is made anew
//! ```
//!
//! It does no I/O, reads no clock and holds no lock: the same task runs under a stream thread, the test driver and the
//! simulation.

mod commit_point;
mod global_task;
mod partition_group;
mod pipeline;
#[expect(clippy::module_inception, reason = "the module is named for the one thing in it")]
mod task;
mod times_entry;

pub(crate) use commit_point::CommitPoint;
pub(crate) use global_task::GlobalTask;
pub(crate) use partition_group::MaxTaskIdle;
pub(crate) use pipeline::try_makers;
#[cfg(feature = "testing")]
pub(crate) use task::Replay;
pub(crate) use task::{Task, TaskSpec};
