//! The shared suite, in memory and in a directory, and what only this cluster can show.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::client::conformance::{conformance_tests, coordinator_tests};
use crate::client::embedded::EmbeddedCluster;
use crate::client::{Admin, Cluster, Consumer, ConsumerSpec, GroupSpec, Isolation, Producer, ProducerSpec};
use crate::error::{Error, Result};
use crate::membership::{Membership, TaskMap};
use crate::record::{Headers, OffsetAndMetadata, ProducerRecord, TopicPartition};
use crate::topology::TaskId;

mod coordinator;
mod groups;
mod recovery;
mod transactions;

mod in_memory {
    use super::*;

    conformance_tests!(Some(EmbeddedCluster::new()));
    coordinator_tests!(Some(EmbeddedCluster::new()));
}

mod in_a_directory {
    use super::*;

    conformance_tests!(Some(InDirectory::new()));
}

/// A cluster in a directory that goes with it.
struct InDirectory(EmbeddedCluster, #[expect(dead_code, reason = "removed when dropped")] tempfile::TempDir);

impl InDirectory {
    fn new() -> InDirectory {
        let directory = tempfile::tempdir().unwrap();
        InDirectory(EmbeddedCluster::open(directory.path()).unwrap(), directory)
    }
}

impl Cluster for InDirectory {
    fn join(&self, spec: &GroupSpec) -> Result<(Box<dyn Membership>, Box<dyn Consumer>)> {
        self.0.join(spec)
    }

    fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        self.0.consumer(spec)
    }

    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>> {
        self.0.producer(spec)
    }

    fn admin(&self) -> Result<Box<dyn Admin>> {
        self.0.admin()
    }
}

/// A task per partition of topics that are read together.
struct Together(Vec<&'static str>);

impl TaskMap for Together {
    fn tasks(&self, partitions: &BTreeSet<TopicPartition>) -> Result<BTreeSet<TaskId>> {
        let numbers: BTreeSet<i32> = partitions.iter().map(|one| one.partition).collect();
        for (number, topic) in numbers.iter().flat_map(|number| self.0.iter().map(move |topic| (number, topic))) {
            if !partitions.contains(&TopicPartition::new(*topic, *number)) {
                return Err(Error::invalid(format!("{topic}[{number}] is elsewhere")));
            }
        }
        Ok(numbers.iter().map(|number| TaskId { sub_topology: 0, partition: *number }).collect())
    }
}

fn spec(client: &str, topics: &[&'static str]) -> GroupSpec {
    GroupSpec {
        group: "app".into(),
        client_id: client.into(),
        instance_id: None,
        topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
        isolation: Isolation::ReadCommitted,
        tasks: Arc::new(Together(topics.to_vec())),
    }
}

fn task(partition: i32) -> TaskId {
    TaskId { sub_topology: 0, partition }
}

fn at(offset: i64) -> OffsetAndMetadata {
    OffsetAndMetadata { offset, metadata: String::new() }
}

fn transactional(cluster: &EmbeddedCluster, id: &str, timeout: Duration) -> Box<dyn Producer> {
    let (client_id, transactional_id) = (id.to_owned(), Some(id.to_owned()));
    let mut producer = cluster
        .producer(&ProducerSpec { client_id, transactional_id, transaction_timeout: timeout, outputs: Arc::default() })
        .unwrap();
    producer.init_transactions(timeout).unwrap();
    producer
}

fn send(producer: &mut dyn Producer, topic: &str, partition: i32, key: Option<&str>, value: &str) {
    let (topic, headers) = (Arc::from(topic), Headers::new());
    let record = ProducerRecord {
        topic: &topic,
        partition: Some(partition),
        key: key.map(str::as_bytes),
        value: Some(value.as_bytes()),
        timestamp: None,
        headers: &headers,
    };
    producer.send(record, false).unwrap();
}

fn values(cluster: &EmbeddedCluster, topic: &str) -> Vec<String> {
    let records = cluster.read_committed(topic).unwrap();
    records.into_iter().map(|record| String::from_utf8(record.value.unwrap_or_default()).unwrap()).collect()
}
