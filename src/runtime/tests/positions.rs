//! Positions that are called out of range, rightly and wrongly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Call, Fault, Faulty, assert_exactly_once, counting, counts, fault};
use crate::client::embedded::EmbeddedCluster;
use crate::client::{Admin, Cluster, Consumer, Fetch, Lag, NewTopic, TopicInfo, Watermarks};
use crate::config::GivenCluster;
use crate::record::{RecordBatch, TopicPartition};
use crate::topology::OffsetReset;
use crate::{CloseOptions, Config, ErrorKind, KafkaStreams, Result};

pub(super) struct FaultyConsumer {
    pub(super) inner: Box<dyn Consumer>,
    pub(super) cluster: Faulty,
}

impl Consumer for FaultyConsumer {
    fn assign(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<()> {
        self.inner.assign(partitions)
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.unassign(partitions)
    }

    fn fetch(&mut self, partition: &TopicPartition, records_max: usize, batch: &mut RecordBatch) -> Result<Fetch> {
        if self.cluster.call(Call::Fetch, || Ok(())).is_err() {
            return Ok(Fetch::OutOfRange);
        }
        self.inner.fetch(partition, records_max, batch)
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.position(partition)
    }

    fn lag(&self, partition: &TopicPartition) -> Lag {
        self.inner.lag(partition)
    }

    fn end(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.end(partition)
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        self.inner.wait(timeout)
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        self.inner.waker()
    }
}

pub(super) struct FaultyAdmin {
    pub(super) inner: Box<dyn Admin>,
    pub(super) cluster: Faulty,
}

impl Admin for FaultyAdmin {
    fn topics(&mut self, names: &[Arc<str>]) -> Result<Vec<Option<TopicInfo>>> {
        self.inner.topics(names)
    }

    fn topic_names(&mut self) -> Result<Vec<Arc<str>>> {
        self.inner.topic_names()
    }

    fn create_topics(&mut self, topics: &[NewTopic]) -> Result<()> {
        self.inner.create_topics(topics)
    }

    fn delete_topics(&mut self, names: &[Arc<str>]) -> Result<()> {
        self.inner.delete_topics(names)
    }

    fn watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>> {
        let mut marks = self.inner.watermarks(partitions)?;
        let is_input = partitions.first().is_some_and(|partition| &*partition.topic == "in");
        if is_input && self.cluster.call(Call::Watermarks, || Ok(())).is_err() {
            marks.iter_mut().for_each(|marks| marks.end = marks.start);
        }
        Ok(marks)
    }

    fn offsets_for_time(&mut self, partitions: &[TopicPartition], timestamp: i64) -> Result<Vec<i64>> {
        self.inner.offsets_for_time(partitions, timestamp)
    }

    fn delete_records(&mut self, before: &[(TopicPartition, i64)]) -> Result<()> {
        self.inner.delete_records(before)
    }
}

#[test]
fn a_position_that_is_wrongly_called_out_of_range_is_kept() {
    let called = Fault { after: 50, ..fault(Call::Fetch, ErrorKind::Unavailable) };
    assert_exactly_once(&[called.times(1)]);
    assert_exactly_once(&[called.times(7)]);
}

#[test]
fn a_log_that_seems_to_be_cut_off_for_a_while_is_waited_for() {
    let called = Fault { after: 50, ..fault(Call::Fetch, ErrorKind::Unavailable) }.times(500);
    assert_exactly_once(&[called, fault(Call::Watermarks, ErrorKind::Unavailable).times(20)]);
}

/// What happens to the application while something is done to its input.
#[derive(Clone, Copy)]
enum Meanwhile {
    ItRuns,
    /// It is stopped, and started again with this policy.
    ItIsStopped(OffsetReset),
}

/// A word count that has counted ten records of a partition, and goes on after something was done to its input.
fn go_on_after(
    meanwhile: Meanwhile,
    what: impl FnOnce(&EmbeddedCluster),
    expected: usize,
) -> (Vec<i64>, std::result::Result<(), String>) {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("in", 1).unwrap();
    cluster.create_topic("out", 1).unwrap();
    produce(&cluster, 10);
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::new("app", "embedded://")
        .exactly_once()
        .commit_interval(Duration::from_millis(5))
        .state_dir(folder.path())
        .cache_bytes(0);
    config.offset_reset = OffsetReset::Earliest;
    config.cluster = Some(GivenCluster(Arc::new(cluster.clone()) as Arc<dyn Cluster>));
    let streams = KafkaStreams::new(counting(), config.clone()).unwrap();
    streams.start().unwrap();
    wait_until(|| count(&cluster) == 10);
    if let Meanwhile::ItIsStopped(reset) = meanwhile {
        streams.close(CloseOptions::default()).unwrap();
        config.offset_reset = reset;
        what(&cluster);
        let streams = KafkaStreams::new(counting(), config).unwrap();
        streams.start().unwrap();
        wait_until(|| count(&cluster) >= expected || streams.state().is_terminal());
        return end(&cluster, &streams);
    }
    what(&cluster);
    wait_until(|| count(&cluster) >= expected || streams.state().is_terminal());
    end(&cluster, &streams)
}

fn end(cluster: &EmbeddedCluster, streams: &KafkaStreams) -> (Vec<i64>, std::result::Result<(), String>) {
    let error = streams.take_error().map_or(Ok(()), |error| Err(error.report()));
    let _ = streams.close(CloseOptions::default());
    (counts(cluster).remove("a").unwrap_or_default(), error)
}

fn produce(cluster: &EmbeddedCluster, records: usize) {
    for n in 0..records {
        cluster.produce("in", Some(b"a"), Some(b"x"), Some(n as i64)).unwrap();
    }
}

fn count(cluster: &EmbeddedCluster) -> usize {
    counts(cluster).remove("a").map_or(0, |counts| counts.len())
}

#[expect(clippy::disallowed_methods, reason = "a test waits for threads")]
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn steps(to: i64) -> Vec<i64> {
    (1..=to).collect()
}

#[test]
fn a_log_that_has_lost_its_end_is_read_on_there_and_nothing_is_counted_twice() {
    let lose = |cluster: &EmbeddedCluster| {
        cluster.lose_records("in", 0, 4).unwrap();
        wait_until(|| cluster.committed_offset("app", "in", 0).unwrap() == Some(4));
        produce(cluster, 3);
    };
    assert_eq!(go_on_after(Meanwhile::ItRuns, lose, 13), (steps(13), Ok(())));
}

#[test]
fn a_topic_that_was_made_anew_is_read_from_its_start() {
    let replace = |cluster: &EmbeddedCluster| {
        cluster.delete_topic("in").unwrap();
        cluster.create_topic("in", 1).unwrap();
        produce(cluster, 3);
    };
    assert_eq!(go_on_after(Meanwhile::ItRuns, replace, 13), (steps(13), Ok(())));
}

#[test]
fn records_that_were_deleted_before_they_were_read_are_left_to_the_reset_policy() {
    let delete = |cluster: &EmbeddedCluster| {
        produce(cluster, 5);
        Cluster::admin(cluster).unwrap().delete_records(&[(TopicPartition::new("in", 0), 13)]).unwrap();
    };
    let (counted, error) = go_on_after(Meanwhile::ItIsStopped(OffsetReset::Earliest), delete, 12);
    assert_eq!((counted, error), (steps(12), Ok(())));
    let (counted, error) = go_on_after(Meanwhile::ItIsStopped(OffsetReset::None), delete, 12);
    let error = error.unwrap_err();
    assert!(error.contains("offset 10 of in[0]") && error.contains("13 to 15"), "{error}");
    assert_eq!(counted, steps(10));
}
