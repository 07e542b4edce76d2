//! Runs a topology on a cluster: threads, commits, rebalances, restoring. The only part with threads, clocks and tokio.
//!
//! ```text
//!   KafkaStreams ── start: topics, layout of tasks ── Application, shared by all
//!        |
//!   Supervisor thread ── state of the client, uncaught errors, purging
//!        |  starts, orders, hears
//!   StreamThread ─┬─ rebalance   tasks come and go
//!                 ├─ commit      the one place where a transaction begins and ends
//!                 └─ Restorer    on a thread of its own: stores catch up, standbys are kept
//!   GlobalThread ── global stores, read before the stream threads begin
//!   GroupThread ── the process's member of the group, and who of the stream threads has which task
//! ```

mod application;
mod awaited_topics;
mod board;
mod calls;
mod clock;
mod commit;
mod control;
mod crash;
mod declaration;
mod fencing;
mod global_thread;
mod group;
mod group_thread;
mod kafka_streams;
mod lags;
mod live_rows;
mod metadata;
mod own_member;
mod partition_counts;
mod positions;
mod queries;
mod rebalance;
mod restore;
mod restore_event;
mod restore_link;
mod restorer;
mod run_thread;
mod running_task;
mod seats;
#[cfg(feature = "testing")]
#[cfg(test)]
mod simulation;
mod standby;
mod start;
mod state;
mod status;
mod stream_thread;
mod supervisor;
mod task_layout;
#[cfg(test)]
mod tests;
mod topic_watch;
#[cfg(feature = "query-http")]
mod view;

#[cfg(feature = "testing")]
pub(crate) use calls::CallsInTurn;
pub use kafka_streams::{CloseOptions, KafkaStreams};
pub use lags::StoreLag;
pub use metadata::{KeyMetadata, StreamsMetadata, TaskMetadata, ThreadMetadata};
#[cfg(feature = "query-http")]
pub(crate) use metadata::{Owners, Placement};
#[cfg(feature = "testing")]
pub(crate) use partition_counts::copartition_of;
pub use restore_event::{RestoreEvent, RestoreProgress, StandbyEnd};
pub(crate) use start::cluster;
pub use state::State;
pub use supervisor::UncaughtErrorResponse;
#[cfg(feature = "query-http")]
pub(crate) use view::StreamsView;
