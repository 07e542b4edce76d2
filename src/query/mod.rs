//! Interactive queries: the state of an application, asked for by other threads than those that process.
//!
//! ```text
//!   stream threads ── open, role, position, close ──> LocalTasks <── Scope <── QueryableStore, RawStore ── user
//!         │                                               │
//!         └── TaskStores ── apply ── engine ── gate ── TaskReaders
//! ```
//!
//! A query sees what has been committed, and so nothing that an abort takes back. It never waits for a stream thread and no
//! stream thread for it, but to close a task: then for reads that are under way, of some hundred rows at most.

mod failure;
pub(crate) mod gateway;
#[cfg(feature = "query-http")]
pub(crate) mod http;
mod inbox;
mod iter;
mod position;
#[cfg(feature = "testing")]
mod position_bytes;
mod position_text;
mod query_types;
mod raw;
mod raw_rows;
mod request;
mod result;
mod scope;
mod snapshot;
mod staleness;
mod store;
mod store_type;
mod tasks;

pub use failure::{FailureReason, QueryFailure};
pub(crate) use inbox::Inbox;
pub use iter::QueryIter;
pub use position::Position;
pub use query_types::{
    KeyQuery, MultiVersionedKeyQuery, RangeQuery, TimestampedKeyQuery, TimestampedRangeQuery, VersionedKeyQuery,
    WindowKeyQuery, WindowRangeQuery,
};
pub use raw::{RawAnswer, RawKind, RawPartition, RawQuery, RawRole, RawRow, RawStore, RawStores};
pub use request::{Query, QueryIn, StateQueryRequest};
pub use result::{QueryResult, StateQueryResult};
pub use snapshot::StoreSnapshot;
pub use staleness::Staleness;
pub use store::{QueryContext, QueryableStore};
pub use store_type::{QueryableStoreType, QueryableStoreTypes};
pub(crate) use tasks::{LocalTasks, Role};
