//! The inputs of a task, and which record is next.
//!
//! Within a partition records keep their order, whatever their timestamps say. Between partitions the head with the
//! lowest timestamp is next, and a task waits for an empty input while the cluster is known to hold data for it
//! (KIP-695).

use std::collections::VecDeque;

use crate::error::Result;
use crate::record::{ConsumerRecord, RecordBatch};

/// One queue per input partition. Bounded by whoever adds batches: it stops at a number of buffered records.
#[derive(Debug)]
pub(crate) struct PartitionGroup {
    queues: Vec<Queue>,
    idle: MaxTaskIdle,
    /// Batches that have been read, for the next fetch.
    empty: Vec<RecordBatch>,
}

/// How long a task waits for an input that has no record while others have (`max.task.idle.ms`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MaxTaskIdle {
    /// Not even for data that the cluster holds (-1).
    Never,
    /// For data that the cluster holds; and this long (ms) for data that producers have yet to write (0 or more).
    WaitMs(i64),
}

#[derive(Debug)]
struct Queue {
    partition: i32,
    batches: VecDeque<RecordBatch>,
    /// The head's place in the first batch.
    next: usize,
    buffered: usize,
    bytes: usize,
    /// The timestamp of the head, once its source has read it.
    head: Option<i64>,
    partition_time: i64,
    /// Whether everything the cluster holds has been fetched; none: not known yet.
    caught_up: Option<bool>,
    /// Until when an empty queue that has caught up is waited for.
    deadline: Option<i64>,
}

/// Reads the record at the head of an input: its timestamp, or none when it is to be skipped.
pub(crate) type Prepare<'a> = &'a mut dyn FnMut(usize, &ConsumerRecord<'_>, i64) -> Result<Option<i64>>;

/// Read batches that are kept; more are freed.
const EMPTY_MAX: usize = 4;

impl PartitionGroup {
    pub(super) fn new(partitions: impl IntoIterator<Item = (i32, i64)>, idle: MaxTaskIdle) -> PartitionGroup {
        let queue = |(partition, partition_time)| Queue::new(partition, partition_time);
        PartitionGroup { queues: partitions.into_iter().map(queue).collect(), idle, empty: Vec::new() }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn add_queue(&mut self, partition: i32) {
        self.queues.push(Queue::new(partition, -1));
    }

    pub(super) fn add(&mut self, input: usize, batch: RecordBatch) {
        if batch.is_empty() {
            self.recycle(batch);
        } else if let Some(queue) = self.queues.get_mut(input) {
            queue.buffered += batch.len();
            queue.bytes += batch.bytes();
            queue.deadline = None;
            queue.batches.push_back(batch);
        }
    }

    /// A batch to fill; its memory has been used before.
    pub(super) fn empty_batch(&mut self) -> RecordBatch {
        self.empty.pop().unwrap_or_default()
    }

    pub(super) fn recycle(&mut self, mut batch: RecordBatch) {
        if self.empty.len() < EMPTY_MAX {
            batch.clear();
            self.empty.push(batch);
        }
    }

    pub(super) fn buffered(&self, input: usize) -> usize {
        self.queues.get(input).map_or(0, |queue| queue.buffered)
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.queues.iter().map(|queue| queue.bytes).sum()
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.buffered == 0)
    }

    pub(super) fn set_caught_up(&mut self, input: usize, caught_up: Option<bool>) {
        if let Some(queue) = self.queues.get_mut(input) {
            queue.caught_up = caught_up;
        }
    }

    pub(super) fn partition_time(&self, input: usize) -> i64 {
        self.queues.get(input).map_or(-1, |queue| queue.partition_time)
    }

    /// The offset of the first record that has not been processed.
    pub(super) fn head_offset(&self, input: usize) -> Option<i64> {
        let queue = self.queues.get(input)?;
        queue.front().map(|record| record.offset)
    }

    /// The input whose record is next, and that record's timestamp; none: nothing is ready. `skipped` counts records
    /// that their sources did not want.
    pub(super) fn choose(
        &mut self,
        now: i64,
        skipped: &mut usize,
        prepare: Prepare<'_>,
    ) -> Result<Option<(usize, i64)>> {
        let mut lowest: Option<(i64, usize)> = None;
        for input in 0..self.queues.len() {
            self.prepare_head(input, skipped, prepare)?;
            if let Some(head) = self.queues.get(input).and_then(|queue| queue.head) {
                lowest = Some(lowest.map_or((head, input), |lowest| lowest.min((head, input))));
            }
        }
        let Some((timestamp, input)) = lowest else { return Ok(None) };
        Ok(self.is_ready(now).then_some((input, timestamp)))
    }

    /// The record at the head of an input.
    pub(super) fn head(&self, input: usize) -> Option<ConsumerRecord<'_>> {
        self.queues.get(input)?.front()
    }

    /// The head has been processed: its partition's time moves, and the next record is the head.
    pub(super) fn advance(&mut self, input: usize, timestamp: i64) {
        if let Some(queue) = self.queues.get_mut(input) {
            queue.partition_time = queue.partition_time.max(timestamp);
        }
        self.pop(input);
    }

    fn prepare_head(&mut self, input: usize, skipped: &mut usize, prepare: Prepare<'_>) -> Result<()> {
        loop {
            let Some(queue) = self.queues.get_mut(input) else { return Ok(()) };
            if queue.head.is_some() {
                return Ok(());
            }
            let Some(record) = queue.front() else { return Ok(()) };
            match prepare(input, &record, queue.partition_time)? {
                Some(timestamp) => queue.head = Some(timestamp),
                None => {
                    *skipped += 1;
                    self.pop(input);
                }
            }
        }
    }

    fn pop(&mut self, input: usize) {
        let Some(queue) = self.queues.get_mut(input) else { return };
        queue.head = None;
        queue.next += 1;
        queue.buffered = queue.buffered.saturating_sub(1);
        if queue.batches.front().is_some_and(|batch| queue.next >= batch.len()) {
            queue.next = 0;
            if let Some(batch) = queue.batches.pop_front() {
                queue.bytes -= batch.bytes();
                self.recycle(batch);
            }
        }
    }

    fn is_ready(&mut self, now: i64) -> bool {
        let MaxTaskIdle::WaitMs(wait) = self.idle else { return true };
        let mut ready = true;
        for queue in self.queues.iter_mut().filter(|queue| queue.head.is_none()) {
            ready &= match queue.caught_up {
                Some(true) => *queue.deadline.get_or_insert(now.saturating_add(wait)) <= now,
                Some(false) | None => false,
            };
        }
        ready
    }
}

impl Queue {
    fn new(partition: i32, partition_time: i64) -> Queue {
        Queue {
            partition,
            batches: VecDeque::new(),
            next: 0,
            buffered: 0,
            bytes: 0,
            head: None,
            partition_time,
            caught_up: None,
            deadline: None,
        }
    }

    fn front(&self) -> Option<ConsumerRecord<'_>> {
        self.batches.front()?.get(self.next, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Headers;

    fn batch(records: &[(i64, i64)]) -> RecordBatch {
        let mut batch = RecordBatch::default();
        records.iter().for_each(|(offset, time)| batch.push(*offset, *time, None, None, Headers::new()).unwrap());
        batch
    }

    /// The order in which the offsets come out; negative timestamps are skipped.
    fn order(group: &mut PartitionGroup, now: i64) -> Vec<i64> {
        let mut offsets = Vec::new();
        let mut prepare = |_: usize, record: &ConsumerRecord<'_>, _: i64| {
            Ok(Some(record.timestamp).filter(|timestamp| *timestamp >= 0))
        };
        while let Some((input, timestamp)) = group.choose(now, &mut 0, &mut prepare).unwrap() {
            offsets.push(group.head(input).unwrap().offset);
            group.advance(input, timestamp);
        }
        offsets
    }

    fn group(idle: MaxTaskIdle) -> PartitionGroup {
        PartitionGroup::new([(0, -1), (0, -1)], idle)
    }

    #[test]
    fn the_lowest_head_is_next_and_a_partition_keeps_its_order() {
        let mut group = group(MaxTaskIdle::Never);
        group.add(0, batch(&[(0, 5), (1, 1), (2, 9)]));
        group.add(1, batch(&[(10, 4), (11, 6)]));
        assert_eq!(order(&mut group, 0), [10, 0, 1, 11, 2]);
        assert_eq!(group.partition_time(0), 9);
        assert!(group.is_empty() && group.buffered_bytes() == 0);
    }

    #[test]
    fn an_unknown_or_lagging_input_is_waited_for() {
        let mut group = group(MaxTaskIdle::WaitMs(0));
        group.add(0, batch(&[(0, 5)]));
        assert!(order(&mut group, 0).is_empty(), "nothing is known of input 1");
        group.set_caught_up(1, Some(false));
        assert!(order(&mut group, 0).is_empty(), "the cluster holds data for input 1");
        group.set_caught_up(1, Some(true));
        assert_eq!(order(&mut group, 0), [0]);
    }

    #[test]
    fn a_caught_up_input_is_waited_for_until_the_idle_time_is_over() {
        let mut group = group(MaxTaskIdle::WaitMs(100));
        group.add(0, batch(&[(0, 5)]));
        group.set_caught_up(1, Some(true));
        assert!(order(&mut group, 1_000).is_empty());
        assert!(order(&mut group, 1_099).is_empty());
        assert_eq!(order(&mut group, 1_100), [0]);
    }

    #[test]
    fn a_skipped_record_moves_the_offset_but_not_the_time() {
        let mut group = group(MaxTaskIdle::Never);
        group.add(0, batch(&[(0, -1), (1, 3), (2, -1)]));
        assert_eq!(order(&mut group, 0), [1]);
        assert_eq!((group.head_offset(0), group.partition_time(0)), (None, 3));
    }
}
