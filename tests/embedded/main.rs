//! Whole applications on the embedded cluster, by the public API only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic in its helpers too"
)]

mod application;
mod async_calls;
mod bad_input;
mod bad_records;
mod control;
mod count_windows;
mod crash;
mod gateway;
mod globals;
mod housekeeping;
#[cfg(feature = "query-http")]
mod http;
#[cfg(all(feature = "query-http", target_os = "linux"))]
mod http_crowd;
#[cfg(feature = "query-http")]
mod http_failures;
#[cfg(feature = "query-http")]
mod http_site;
#[cfg(feature = "query-https")]
mod http_tls;
mod joins;
mod lifecycle;
mod metadata;
mod offset_resets;
#[cfg(feature = "query-http")]
mod orders;
#[cfg(feature = "query-http")]
mod partitioners;
mod patterns;
mod queries;
mod queries_moments;
mod queries_raw;
mod queries_typed;
mod recorder;
mod reset;
mod restoring;
mod sharing;
mod sight;
mod standbys;
#[cfg(all(feature = "rocksdb", target_os = "linux"))]
mod state_directory;
mod table_joins;
mod time_to_live;
mod topic_changes;
mod windows;
