//! State over HTTP: any instance answers for any key.
//!
//! ```text
//!   request ── QueryServer ── auth, limits ── routes ──┬── Forwarder ── here ── ServedStore ── QueryableStore
//!                                                      │        └────── one hop to the owner, or a copy of it
//!                                                      └── scatter: every owner of a partition of the store
//! ```
//!
//! Nothing listens unless it is asked to. What a request may take and hold is bounded by `HttpLimits`.

mod ask;
mod client;
mod forwarder;
mod guarded;
mod headers;
mod health;
mod keys;
mod limits;
mod listen;
mod metadata;
mod openapi;
mod peer;
mod problem;
mod routes;
mod rows;
mod scatter;
mod served;
mod server;
mod site;
#[cfg(feature = "query-https")]
mod tls;

pub use client::{Answer, QueryClient, RemoteRows, RemoteStore};
pub use forwarder::{Forwarder, Owner};
pub use limits::HttpLimits;
pub use problem::{Problem, ProblemCode};
pub use served::ServedStore;
pub use server::QueryServer;
