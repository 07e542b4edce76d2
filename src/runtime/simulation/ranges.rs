//! Which offsets of the inputs were committed by whom: each once, without a gap.

use std::collections::BTreeMap;

use crate::record::{OffsetAndMetadata, TopicPartition};

#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// From where on the next commit of a client covers a partition.
    starts: BTreeMap<(String, TopicPartition), i64>,
    /// Up to where commits cover the partition.
    ends: BTreeMap<TopicPartition, i64>,
}

impl Ranges {
    /// A client reads a partition from an offset on; if it did so before, what it has not committed is read again.
    pub(super) fn reads(&mut self, client: &str, partition: &TopicPartition, offset: i64) {
        tracing::debug!(client, %partition, offset, "reads");
        let start = self.starts.entry((client.to_owned(), partition.clone())).or_insert(offset);
        *start = offset.min(*start);
    }

    /// A thread begins, under the name of one before it.
    pub(super) fn begins(&mut self, client: &str) {
        self.starts.retain(|(of, _), _| of != client);
    }

    pub(super) fn ends(&mut self, client: &str, partition: &TopicPartition) {
        self.starts.remove(&(client.to_owned(), partition.clone()));
    }

    /// The cluster has committed these offsets for a client.
    pub(super) fn committed(&mut self, client: &str, offsets: &[(TopicPartition, OffsetAndMetadata)]) {
        for (partition, committed) in offsets {
            tracing::debug!(client, %partition, offset = committed.offset, "committed");
            let Some(start) = self.starts.get_mut(&(client.to_owned(), partition.clone())) else {
                // Its task was closed before the outcome was known.
                self.ends.insert(partition.clone(), committed.offset);
                continue;
            };
            let end = self.ends.entry(partition.clone()).or_insert(0);
            assert_eq!(
                *start, *end,
                "{client} has processed {partition} from {start} to {}, and it was committed up to {end}",
                committed.offset
            );
            assert!(committed.offset >= *end, "{client} commits {partition}@{}, back from {end}", committed.offset);
            (*start, *end) = (committed.offset, committed.offset);
        }
    }
}
