//! Membership in a classic group, by a protocol of our own, and what Java's members tell each other.
//!
//! `protocol` is the seam to a cluster, `member` takes part in a group, `user_data` is what our members tell each other,
//! `plan` what their leader answers by way of the `assignor`, and `task_assignor` says both for this process.
//! [`AssignmentInfo`] and [`SubscriptionInfo`] are the user data of Java's assignor (protocol `stream`).
//!
//! Everything here is read from the network: a decoder answers any bytes with a value or an error, and makes room for no
//! more than the bytes hold.

mod assignment_info;
#[allow(dead_code, reason = "for members of our own")]
pub(crate) mod assignor;
#[cfg(feature = "testing")]
mod bench;
mod bytes;
pub(crate) mod member;
#[allow(dead_code, reason = "for members of our own")]
pub(crate) mod plan;
#[allow(dead_code, reason = "a cluster without a coordinator of its own speaks none of it")]
pub(crate) mod protocol;
mod subscription_info;
pub(crate) mod task_assignor;
#[allow(dead_code, reason = "for members of our own")]
mod task_set;
#[allow(dead_code, reason = "for members of our own")]
pub(crate) mod user_data;

pub(crate) use assignment_info::{AssignmentInfo, HostPartitions};
#[cfg(feature = "testing")]
pub use bench::{BenchGroup, Settling};
pub(crate) use subscription_info::SubscriptionInfo;

/// The versions that are read and written: 6 is Kafka 2.4's, 11 that of 3.0 and all later ones.
const VERSIONS: std::ops::RangeInclusive<i32> = 6..=11;
