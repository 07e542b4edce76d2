//! The side connection: what the library says to brokers itself, beside librdkafka.
//!
//! ```text
//!   SideCoordinator ──┬── Lane: join, sync          each lane one request at a time, on a connection of its own:
//!                     └── Lane: heartbeat, leave    it finds the coordinator, connects, proves who it is, asks again
//!   SideStreams ───────── Lane: heartbeat of a streams group
//!   SideOffsets ───────── Lane: offsets, fencing, ends of transactions, a group from outside; at times one to each broker
//!                           └── Link: one socket ── Handshake (ApiVersions, SASL) ── Tls
//!   ChangelogReader ───── a Link to each broker that leads a changelog
//! ```
//!
//! librdkafka keeps a member's place only together with its own assignors and answers for its own transactional ids. Here
//! the group is joined by hand, and other processes' transactions are ended ([`GroupOffsets::fence`]).
//!
//! No thread of its own: sockets do not block, and whoever waits drives them. The one call that blocks is the system's look-up
//! of a host name.
//!
//! [`GroupOffsets::fence`]: crate::membership::classic::protocol::GroupOffsets::fence

use std::fmt;
use std::time::Instant;

pub(super) use self::coordinator::SideCoordinator;
pub(super) use self::fetch::{ChangelogReader, MakeFallback};
pub(super) use self::offsets::SideOffsets;
pub(super) use self::security::SideSettings;
pub(super) use self::settle::{Claim, LEADERS_PATIENCE};
pub(super) use self::streams::SideStreams;

mod code;
mod codec;
mod coordinator;
mod fetch;
mod gone;
mod handshake;
mod heartbeat;
mod lane;
mod link;
mod offsets;
mod outside;
mod requests;
mod responses;
mod sasl;
#[cfg(feature = "tls")]
mod scram;
mod security;
mod settle;
mod sockets;
mod streams;
#[cfg(test)]
mod tests;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;

/// Why a conversation with a broker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// Another broker, or the same one later, may do: refused, reset, silent, nonsense.
    Lost(String),
    /// It stays so until somebody changes a setting: credentials, certificates, versions.
    Denied(String),
}

impl Failure {
    fn lost(doing: &str, error: &std::io::Error) -> Failure {
        Failure::Lost(format!("{doing}: {error}"))
    }

    fn malformed(malformed: codec::Malformed) -> Failure {
        Failure::Lost(format!("it sent what is no answer: {malformed}"))
    }

    /// Says at whom it happened.
    fn at(self, peer: &impl fmt::Display) -> Failure {
        match self {
            Failure::Lost(text) => Failure::Lost(format!("{peer}: {text}")),
            Failure::Denied(text) => Failure::Denied(format!("{peer}: {text}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Lost(text) | Failure::Denied(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

#[expect(clippy::disallowed_methods, reason = "bounds waits of the outer rim, no result depends on it")]
fn now() -> Instant {
    Instant::now()
}
