//! Topics and watermarks of the in-process cluster.

use std::sync::Arc;

use crate::client::embedded::state::Shared;
use crate::client::{Admin, NewTopic, TopicInfo, Watermarks};
use crate::error::Result;
use crate::record::TopicPartition;

pub(super) struct EmbeddedAdmin {
    shared: Arc<Shared>,
}

impl EmbeddedAdmin {
    pub(super) fn new(shared: Arc<Shared>) -> EmbeddedAdmin {
        EmbeddedAdmin { shared }
    }
}

impl Admin for EmbeddedAdmin {
    fn topics(&mut self, names: &[Arc<str>]) -> Result<Vec<Option<TopicInfo>>> {
        let state = self.shared.state()?;
        let info = |name| {
            let topic = state.topics.get(name)?;
            Some(TopicInfo { partitions: topic.partition_count(), id: Some(topic.id) })
        };
        Ok(names.iter().map(info).collect())
    }

    fn topic_names(&mut self) -> Result<Vec<Arc<str>>> {
        Ok(self.shared.state()?.topics.keys().map(Arc::clone).collect())
    }

    fn create_topics(&mut self, topics: &[NewTopic]) -> Result<()> {
        let mut state = self.shared.state()?;
        for topic in topics {
            state.create_topic(&topic.name, topic.partitions, &topic.config)?;
        }
        self.shared.wake();
        Ok(())
    }

    fn delete_topics(&mut self, names: &[Arc<str>]) -> Result<()> {
        let mut state = self.shared.state()?;
        for name in names {
            state.delete_topic(name)?;
        }
        self.shared.wake();
        Ok(())
    }

    fn watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>> {
        let state = self.shared.state()?;
        let marks = |partition| state.log(partition).map(|log| Watermarks { start: log.start, end: log.end });
        partitions.iter().map(marks).collect()
    }

    fn offsets_for_time(&mut self, partitions: &[TopicPartition], timestamp: i64) -> Result<Vec<i64>> {
        let state = self.shared.state()?;
        partitions.iter().map(|partition| Ok(state.log(partition)?.offset_for_time(timestamp))).collect()
    }

    fn delete_records(&mut self, before: &[(TopicPartition, i64)]) -> Result<()> {
        let mut state = self.shared.state()?;
        before.iter().try_for_each(|(partition, offset)| state.delete_records(partition, *offset))?;
        self.shared.wake();
        Ok(())
    }
}
