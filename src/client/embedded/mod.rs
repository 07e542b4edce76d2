//! A Kafka cluster inside the process: partitions, groups and transactions as a broker has them, without a broker.
//!
//! ```text
//!   clients   consumer · producer · membership · coordinator · admin          one lock: `Shared`
//!   state     topics (`topic`, `log`, `cleaning`) · `transactions` · `groups` (dealt here) · `classic` (dealt by a member)
//!   disk      `storage` (files) · `codec` (bytes) · `recovery` (open)          only when opened in a directory
//! ```
//!
//! It is the default of the examples and the model of a broker in simulations. It is not a server, it holds everything in
//! memory, and what it answers is no proof of what a real Kafka answers: the suite in [`conformance`] is run against
//! both, and what a broker was measured to do (R11) is what this does.
//!
//! [`conformance`]: crate::client::conformance

use std::fmt;
use std::sync::Arc;

use crate::client::embedded::admin::EmbeddedAdmin;
use crate::client::embedded::consumer::EmbeddedConsumer;
use crate::client::embedded::coordinator::{EmbeddedCoordinator, EmbeddedOffsets};
use crate::client::embedded::group_admin::EmbeddedGroupAdmin;
use crate::client::embedded::membership::EmbeddedMembership;
use crate::client::embedded::producer::EmbeddedProducer;
use crate::client::embedded::state::Shared;
use crate::client::{Admin, Cluster, Consumer, ConsumerSpec, GroupAdmin, GroupSpec, Producer, ProducerSpec};
use crate::error::Result;
use crate::membership::Membership;
use crate::membership::classic::protocol::{GroupCoordinator, GroupOffsets};

mod admin;
mod classic;
mod cleaning;
mod clock;
mod cluster;
mod codec;
mod consumer;
mod coordinator;
#[cfg(all(test, feature = "testing"))]
pub(crate) mod faults;
mod group_admin;
mod groups;
mod log;
mod membership;
mod producer;
mod recovery;
mod registry;
mod standing;
mod state;
mod storage;
#[cfg(test)]
mod tests;
mod topic;
mod transactions;

pub use cluster::EmbeddedRecord;

/// A Kafka cluster inside this process, for examples, demos and tests. A clone is another handle of the same cluster.
///
/// It has topics with partitions, consumer groups, transactions, compaction and retention, and holds everything in
/// memory. An application uses it when its bootstrap servers are `embedded://NAME`: see [`named`](EmbeddedCluster::named).
///
/// ```
/// use kstreams::EmbeddedCluster;
///
/// # fn main() -> kstreams::Result<()> {
/// let cluster = EmbeddedCluster::new();
/// cluster.create_topic("orders", 4)?;
/// let (partition, offset) = cluster.produce("orders", Some(b"alice"), Some(b"3 apples"), Some(1_700_000_000_000))?;
///
/// let orders = cluster.read_committed("orders")?;
/// assert_eq!(orders.len(), 1);
/// assert_eq!((orders[0].partition, orders[0].offset), (partition, offset));
/// assert_eq!(orders[0].value.as_deref(), Some(&b"3 apples"[..]));
/// assert_eq!(cluster.end_offset("orders", partition)?, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EmbeddedCluster {
    shared: Arc<Shared>,
}

impl fmt::Debug for EmbeddedCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedCluster").finish_non_exhaustive()
    }
}

impl Cluster for EmbeddedCluster {
    fn join(&self, spec: &GroupSpec) -> Result<(Box<dyn Membership>, Box<dyn Consumer>)> {
        let membership = EmbeddedMembership::join(Arc::clone(&self.shared), spec.clone())?;
        let consumer = EmbeddedConsumer::new(Arc::clone(&self.shared), spec.isolation, Some(membership.seat()));
        Ok((Box::new(membership), Box::new(consumer)))
    }

    fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        Ok(Box::new(EmbeddedConsumer::new(Arc::clone(&self.shared), spec.isolation, None)))
    }

    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>> {
        Ok(Box::new(EmbeddedProducer::new(Arc::clone(&self.shared), spec.clone())))
    }

    fn admin(&self) -> Result<Box<dyn Admin>> {
        Ok(Box::new(EmbeddedAdmin::new(Arc::clone(&self.shared))))
    }

    fn coordinator(&self, group: &str, client_id: &str) -> Result<Box<dyn GroupCoordinator>> {
        Ok(Box::new(EmbeddedCoordinator::new(Arc::clone(&self.shared), group, client_id)?))
    }

    fn group_offsets(&self, group: &str, _client_id: &str) -> Result<Box<dyn GroupOffsets>> {
        Ok(Box::new(EmbeddedOffsets::new(Arc::clone(&self.shared), group)))
    }

    fn group_admin(&self, group: &str, _client_id: &str) -> Result<Box<dyn GroupAdmin>> {
        Ok(Box::new(EmbeddedGroupAdmin::new(Arc::clone(&self.shared), group)))
    }
}
