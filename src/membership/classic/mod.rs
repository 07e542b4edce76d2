//! What members of a classic group tell each other in Java's assignor (user data of the protocol `stream`).
//!
//! Everything here is read from the network: a decoder answers any bytes with a value or an error, and makes room for no
//! more than the bytes hold.

mod assignment_info;
mod bytes;
mod subscription_info;

pub(crate) use assignment_info::{AssignmentInfo, HostPartitions};
pub(crate) use subscription_info::SubscriptionInfo;

/// The versions that are read and written: 6 is Kafka 2.4's, 11 that of 3.0 and all later ones.
const VERSIONS: std::ops::RangeInclusive<i32> = 6..=11;
