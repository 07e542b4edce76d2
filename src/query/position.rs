//! How far a state is in its inputs.

use std::collections::BTreeMap;

use crate::record::TopicPartition;

/// The last offset of each input partition that a state knows of (KIP-796).
///
/// What a write returns is asked for in a read: `Position::at(topic, partition, offset)` of a record that was produced makes
/// a query wait until the state has that record in it.
///
/// ```
/// use kstreams::Position;
///
/// let written = Position::at("orders", 3, 41);
/// let seen = Position::at("orders", 3, 50).with("orders", 4, 7);
/// assert!(seen.covers(&written) && !written.covers(&seen));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    offsets: BTreeMap<TopicPartition, i64>,
}

impl Position {
    /// Nothing in particular: every state is there.
    pub fn new() -> Position {
        Position::default()
    }

    /// A record: its topic, partition and offset.
    pub fn at(topic: &str, partition: i32, offset: i64) -> Position {
        Position::new().with(topic, partition, offset)
    }

    /// The same and another record; of one partition the later one counts.
    #[must_use]
    pub fn with(mut self, topic: &str, partition: i32, offset: i64) -> Position {
        self.add(TopicPartition::new(topic, partition), offset);
        self
    }

    /// The same and what another position knows.
    #[must_use]
    pub fn merge(mut self, other: &Position) -> Position {
        for (partition, offset) in &other.offsets {
            self.add(partition.clone(), *offset);
        }
        self
    }

    /// Whether a state that is here has everything that is at another position.
    pub fn covers(&self, other: &Position) -> bool {
        other.offsets.iter().all(|(partition, offset)| self.offsets.get(partition) >= Some(offset))
    }

    /// The last offset of a partition; none: nothing of it.
    pub fn offset(&self, topic: &str, partition: i32) -> Option<i64> {
        self.offsets.get(&TopicPartition::new(topic, partition)).copied()
    }

    /// Every partition with its last offset.
    pub fn iter(&self) -> impl Iterator<Item = (&TopicPartition, i64)> {
        self.offsets.iter().map(|(partition, offset)| (partition, *offset))
    }

    pub(super) fn add(&mut self, partition: TopicPartition, offset: i64) {
        let known = self.offsets.entry(partition).or_insert(offset);
        *known = (*known).max(offset);
    }

    /// What of it is about one partition of its topics.
    pub(super) fn of_partition(&self, partition: i32) -> Position {
        let offsets = self.offsets.iter().filter(|(at, _)| at.partition == partition);
        Position { offsets: offsets.map(|(at, offset)| (at.clone(), *offset)).collect() }
    }
}
