//! Interactive queries: the state of an application, asked for by other threads than those that process.
//!
//! ```text
//!   stream threads ── open, role, position, close ──> LocalTasks <── QueryableStore ── user
//!         │                                               │
//!         └── TaskStores ── apply ── engine ── gate ── TaskReaders
//! ```
//!
//! A query sees what has been committed, and so nothing that an abort takes back. It never waits for a stream thread and no
//! stream thread for it, but to close a task: then for reads that are under way, of some hundred rows at most.

mod failure;
mod inbox;
mod iter;
mod position;
#[cfg(feature = "testing")]
mod position_bytes;
mod position_text;
mod raw;
mod raw_rows;
mod scope;
mod store;
mod store_type;
mod tasks;

pub use failure::{FailureReason, QueryFailure};
pub(crate) use inbox::Inbox;
pub use iter::QueryIter;
pub use position::Position;
pub use raw::{RawAnswer, RawKind, RawPartition, RawQuery, RawRole, RawRow, RawStore, RawStores};
pub use store::{QueryContext, QueryableStore};
pub use store_type::{QueryableStoreType, QueryableStoreTypes};
pub(crate) use tasks::{LocalTasks, Role};
