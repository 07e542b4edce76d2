//! Tests of a topology without a broker.
//!
//! [`TopologyTestDriver`] runs the very same task as the runtime does, on one partition of every topic, one record at a
//! time, with a clock that only moves when it is told to.

mod crash;
mod driver;
mod driver_stores;
mod produced;
mod single_task;
#[cfg(test)]
mod tests;
mod topic_client;
mod topics;
mod wire;
mod wire_group;
mod wire_stores;

pub use driver::TopologyTestDriver;
pub use produced::TestRecord;
pub use single_task::SingleTask;
pub use topic_client::TopicClient;
pub use topics::{TestInputTopic, TestOutputTopic};
pub use wire::{Wire, WireSubscription};
pub use wire_group::{WireAssignmentInfo, WireSubscriptionInfo};
