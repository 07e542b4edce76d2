//! The seam to a cluster: everything the library asks of Kafka, in a few small traits.
//!
//! ```text
//!   stream thread ── Membership ── which tasks are mine, committed offsets, at-least-once commits
//!              \ ─── Consumer   ── records of the partitions I say, from the offsets I say
//!               \ ── Producer   ── records, transactions
//!   restore ──────── Consumer
//!   start ────────── Admin      ── topics: partition counts, creation, watermarks, purging
//!   reset ────────── GroupAdmin ── a group from outside: its members, its offsets while it has none
//! ```
//!
//! Two clusters stand behind it: [`kafka`] (librdkafka) and [`embedded`] (in this process). `tests/broker/client.rs` and
//! the embedded cluster's tests run the same suite of behaviour against both ([`conformance`]).
//!
//! Everything here is called by one thread at a time and may block only as long as its doc says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
pub(crate) use crate::membership::classic::protocol::{GroupCoordinator, GroupOffsets};
use crate::membership::streams::protocol::StreamsCoordinator;
use crate::membership::{Membership, TaskMap};
pub(crate) use crate::partition::partition_for_key;
use crate::record::{OffsetAndMetadata, ProducerRecord, RecordBatch, TopicPartition};

#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod embedded;
#[cfg(feature = "kafka")]
pub(crate) mod kafka;

/// Opens clients of one cluster. Shared by all threads of an application.
pub(crate) trait Cluster: Send + Sync + 'static {
    /// A member of the application's group, and the consumer that reads what the group gives it.
    fn join(&self, spec: &GroupSpec) -> Result<(Box<dyn Membership>, Box<dyn Consumer>)>;

    /// A consumer outside of any group: restoring, global tables.
    fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>>;

    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>>;

    fn admin(&self) -> Result<Box<dyn Admin>>;

    /// Speaks the classic group protocol with the coordinator of a group.
    ///
    /// # Errors
    /// `Invalid` where that cannot be done here (no such part, a security setting it does not speak): the caller falls
    /// back on [`join`](Cluster::join). `Unavailable` never: who answers connects by itself.
    fn coordinator(&self, group: &str, _client_id: &str) -> Result<Box<dyn GroupCoordinator>> {
        Err(Error::invalid(format!("this cluster has no coordinator to speak to for group {group}")))
    }

    /// Speaks the protocol of streams groups with the coordinator of a group.
    ///
    /// # Errors
    /// `Invalid` where that cannot be done here.
    fn streams_coordinator(&self, group: &str, _client_id: &str) -> Result<Box<StreamsCoordinator>> {
        Err(Error::invalid(format!(
            "this cluster has no streams groups, such as {group} was to be: use a Kafka cluster since 4.2, or set \
             GroupProtocol::Sticky"
        )))
    }

    /// Committed offsets and fencing for the stream threads of a group.
    ///
    /// # Errors
    /// As [`coordinator`](Cluster::coordinator).
    fn group_offsets(&self, group: &str, _client_id: &str) -> Result<Box<dyn GroupOffsets>> {
        Err(Error::invalid(format!("this cluster has no coordinator to speak to for group {group}")))
    }

    /// A group, looked at and changed by who is no member of it.
    ///
    /// # Errors
    /// As [`coordinator`](Cluster::coordinator).
    fn group_admin(&self, group: &str, _client_id: &str) -> Result<Box<dyn GroupAdmin>> {
        Err(Error::invalid(format!("this cluster has no coordinator to speak to for group {group}")))
    }
}

/// How a stream thread takes part in its group.
#[derive(Clone)]
pub(crate) struct GroupSpec {
    /// The application id.
    pub group: String,
    pub client_id: String,
    /// Static membership, when given.
    pub instance_id: Option<String>,
    /// The external and repartition source topics of all sub-topologies, full names.
    pub topics: Vec<Arc<str>>,
    pub isolation: Isolation,
    /// Tells which tasks the partitions of a plain group assignment make up.
    pub tasks: Arc<dyn TaskMap>,
}

#[derive(Debug, Clone)]
pub(crate) struct ConsumerSpec {
    /// What the cluster calls the client in its logs; the embedded one has none.
    #[cfg_attr(not(any(feature = "kafka", test)), expect(dead_code, reason = "the embedded cluster writes no log"))]
    pub client_id: String,
    pub isolation: Isolation,
    /// What a cluster may go by that reads one kind better than others.
    #[cfg_attr(not(feature = "kafka"), expect(dead_code, reason = "the embedded cluster reads all alike"))]
    pub topics: Topics,
}

/// Which topics a consumer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topics {
    Any,
    /// Those that this library or Kafka Streams have written, as a rule: a table may have its input as changelog.
    Changelogs,
}

#[derive(Debug, Clone)]
pub(crate) struct ProducerSpec {
    pub client_id: String,
    /// Given: the producer is transactional (exactly once). None: idempotent.
    pub transactional_id: Option<String>,
    pub transaction_timeout: Duration,
    /// The topics that are written to, as far as known: what an earlier producer of the id has left open is ended there.
    #[cfg_attr(not(feature = "kafka"), expect(dead_code, reason = "the embedded cluster leaves nothing open"))]
    pub outputs: Arc<[Arc<str>]>,
}

/// Which records a consumer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    ReadUncommitted,
    /// Neither the records of aborted transactions nor what stands behind an open one.
    ReadCommitted,
}

/// What a look at a partition's queue gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// Records were appended, maybe none.
    Records,
    /// The position is not in the log (any more): the caller assigns another one.
    OutOfRange,
}

/// What is known about the records of a partition that have not been fetched (KIP-695).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lag {
    /// No answer of the cluster yet since the partition was assigned.
    Unknown,
    /// The cluster holds records that have not been fetched.
    Behind,
    /// Everything that may be seen has been fetched, up to the consumer's position.
    CaughtUp,
}

/// Reads partitions from explicit offsets. Never commits, never resets an offset by itself.
pub(crate) trait Consumer: Send {
    /// Adds partitions, each from an offset. A partition that is being read already is moved to the offset, and what was
    /// fetched of it before is never seen again.
    fn assign(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<()>;

    /// Stops reading partitions; unknown ones are ignored.
    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<()>;

    /// Appends up to `records_max` records of one partition, in offset order. Never blocks. A partition that is not
    /// fetched from is not read ahead without bound: the client stops at its own limit.
    fn fetch(&mut self, partition: &TopicPartition, records_max: usize, batch: &mut RecordBatch) -> Result<Fetch>;

    /// The offset after everything that `fetch` has given or skipped (control records, aborted records), as far as
    /// known. None for a partition that is not assigned.
    fn position(&self, partition: &TopicPartition) -> Option<i64>;

    fn lag(&self, partition: &TopicPartition) -> Lag;

    /// The offset after what may be seen of a partition, as far as the client knows without asking the cluster.
    fn end(&self, partition: &TopicPartition) -> Option<i64>;

    /// Waits until there may be something to fetch or a membership event, at most `timeout`. Spurious returns are allowed.
    fn wait(&mut self, timeout: Duration) -> Result<()>;

    /// Ends a `wait` from another thread; the next one when none is under way.
    fn waker(&self) -> Arc<dyn Fn() + Send + Sync>;
}

/// Writes records. A transactional producer has one transaction open at most.
pub(crate) trait Producer: Send {
    /// Fences older producers of the same transactional id and ends their transaction. Blocks up to `timeout`.
    fn init_transactions(&mut self, timeout: Duration) -> Result<()>;

    fn begin_transaction(&mut self) -> Result<()>;

    /// Hands over a record; bytes are copied. Blocks while the client's buffer is full, up to its delivery timeout.
    ///
    /// With `track`, the offset the record gets is remembered: see [`end_offset`](Producer::end_offset).
    fn send(&mut self, record: ProducerRecord<'_>, track: bool) -> Result<()>;

    /// Blocks until every record sent is acknowledged or has failed; the failures since the last call.
    fn confirm(&mut self, timeout: Duration) -> Result<Vec<DeliveryFailure>>;

    /// The offset after the last acknowledged tracked record of a partition.
    fn end_offset(&self, partition: &TopicPartition) -> Option<i64>;

    /// Adds the offsets to the open transaction under the member's generation.
    fn send_offsets(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)], group: &GroupMetadata) -> Result<()>;

    /// Ends the transaction. `Aborted`: it must be aborted. `Fenced`: this producer is dead. `Unavailable`: the outcome
    /// is not known, and the same call may be repeated.
    fn commit_transaction(&mut self, timeout: Duration) -> Result<()>;

    /// Gives the transaction up; what was sent and not delivered is purged.
    fn abort_transaction(&mut self, timeout: Duration) -> Result<()>;

    /// Whether what the last transaction wrote is open somewhere though the transaction has ended: a new producer has to put
    /// it right before the next transaction. Asks the cluster when there is reason to.
    ///
    /// # Errors
    /// `Unavailable`: not known; to be called again.
    fn has_left_open(&mut self) -> Result<bool> {
        Ok(false)
    }

    /// The partitions of a topic. Asks the cluster the first time, blocking up to the request timeout.
    ///
    /// # Errors
    /// `Invalid` for a topic that does not exist, `Unavailable` when the cluster does not answer.
    #[cfg_attr(not(test), expect(dead_code, reason = "sinks ask through the application's cache of counts"))]
    fn partitions(&mut self, topic: &Arc<str>) -> Result<i32>;
}

/// A record that the cluster did not take.
#[derive(Debug)]
pub(crate) struct DeliveryFailure {
    pub partition: TopicPartition,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub timestamp: Option<i64>,
    pub error: Error,
}

/// Who commits: the broker refuses a commit of a member that has lost its place (KIP-447).
///
/// Never built without a member but by [`from_outside`](GroupMetadata::from_outside): in a transaction, a commit that names
/// only the group is fenced by nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupMetadata {
    pub group: String,
    pub generation: i32,
    pub member: String,
    pub instance: Option<String>,
}

impl GroupMetadata {
    /// Nobody: without a transaction, the broker takes that while the group has no members, and only then.
    pub(crate) fn from_outside(group: &str) -> GroupMetadata {
        GroupMetadata { group: group.to_owned(), generation: -1, member: String::new(), instance: None }
    }
}

/// What a tool does to a group. Every call blocks up to the request timeout.
pub(crate) trait GroupAdmin: Send {
    fn members(&mut self) -> Result<GroupMembers>;

    /// Takes a member out; one that is gone already is no error. A client that still runs joins again.
    fn remove_member(&mut self, id: &str) -> Result<()>;

    /// Everything that the group has committed, once no transaction may change it any more.
    ///
    /// # Errors
    /// `Unavailable`: nobody answers, or a transaction stays open for longer than the request timeout.
    fn committed(&mut self) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>>;

    /// Sets positions of the group, all or none of them.
    ///
    /// # Errors
    /// `Fenced`: the group has members, who alone commit.
    fn set_committed(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()>;

    /// The names of all groups of the cluster, as far as this client may see them.
    fn groups(&mut self) -> Result<Vec<String>>;
}

/// Who is in a group, as its coordinator tells somebody outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupMembers {
    Listed(Vec<ListedMember>),
    /// It has some, and speaks a newer protocol, of this name, in which they are not taken out from outside.
    #[cfg_attr(not(feature = "kafka"), expect(dead_code, reason = "the embedded cluster has none"))]
    OfProtocol(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedMember {
    pub id: String,
    /// Where it runs, in the coordinator's words.
    pub host: String,
}

/// Topics and watermarks. Every call blocks up to the request timeout.
pub(crate) trait Admin: Send {
    /// What is known of each topic; none for one that does not exist.
    fn topics(&mut self, names: &[Arc<str>]) -> Result<Vec<Option<TopicInfo>>>;

    /// The names of all topics that this client may see.
    fn topic_names(&mut self) -> Result<Vec<Arc<str>>>;

    /// Creates topics; one that exists already is left alone.
    fn create_topics(&mut self, topics: &[NewTopic]) -> Result<()>;

    /// Deletes topics; one that does not exist is no error. They may be listed a little longer.
    fn delete_topics(&mut self, names: &[Arc<str>]) -> Result<()>;

    /// Log start and high watermark (read uncommitted) of each partition.
    fn watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>>;

    /// The first offset at or after a time (ms), the end where there is none.
    fn offsets_for_time(&mut self, partitions: &[TopicPartition], timestamp: i64) -> Result<Vec<i64>>;

    /// Deletes everything before the offsets.
    fn delete_records(&mut self, before: &[(TopicPartition, i64)]) -> Result<()>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicInfo {
    pub partitions: i32,
    /// Changes when a topic is deleted and created again; none where the cluster cannot say.
    pub id: Option<uuid::Uuid>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewTopic {
    pub name: Arc<str>,
    pub partitions: i32,
    /// None: the cluster's default.
    pub replication: Option<i32>,
    pub config: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watermarks {
    pub start: i64,
    pub end: i64,
}
