//! Topics and watermarks.

use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys::RDKafkaErrorCode as Code;

use super::failure::Failure;
use super::sys::{Client, Conf, PartitionList};
use super::{REQUEST_TIMEOUT, connect, group::explain};
use crate::client::{Admin, NewTopic, TopicInfo, Watermarks};
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

/// Between two looks for a topic that was just created.
const CREATED_PAUSE: Duration = Duration::from_millis(20);

/// Looks for a topic that was just created.
const CREATED_LOOKS: usize = 250;

/// Special times of `ListOffsets`.
const START: i64 = -2;
const END: i64 = -1;

#[derive(Debug)]
pub(super) struct KafkaAdmin {
    client: Arc<Client>,
}

impl KafkaAdmin {
    /// # Errors
    /// `Unavailable` when no broker answers, `Invalid` when it refuses the credentials.
    pub(super) fn new(conf: Conf, client_id: &str, bootstrap: &str, timeout: Duration) -> Result<KafkaAdmin> {
        let client =
            Client::admin(conf, client_id).map_err(|failure| failure.while_doing("could not make the admin client"))?;
        connect(&client, bootstrap, timeout)?;
        Ok(KafkaAdmin { client })
    }

    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    fn failed(&self, failure: Failure, doing: impl std::fmt::Display) -> Error {
        explain(Some(&self.client), failure).while_doing(doing)
    }

    /// One offset per partition, in their order.
    fn offsets(&self, partitions: &[TopicPartition], time: i64, what: &str) -> Result<Vec<i64>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let doing = |partition: &TopicPartition| format!("could not look up {what} of {partition}");
        let list = PartitionList::of(partitions.iter().map(|partition| (partition, time)))
            .map_err(|failure| self.failed(failure, format!("could not look up {what}")))?;
        let mut answers = self
            .client
            .list_offsets(&list, REQUEST_TIMEOUT)
            .map_err(|failure| self.failed(failure, format!("could not look up {what}")))?;
        let mut found = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let place = answers
                .iter()
                .position(|(topic, number, _)| *number == partition.partition && topic.as_str() == &*partition.topic);
            let Some((_, _, offset)) = place.map(|place| answers.swap_remove(place)) else {
                return Err(Error::new(ErrorKind::Unavailable, doing(partition)));
            };
            let offset = offset.map_err(|failure| self.failed(failure, doing(partition)))?;
            // Only a time may have none.
            if offset < 0 && time < 0 {
                return Err(Error::new(ErrorKind::Unavailable, format!("{}: it is {offset}", doing(partition))));
            }
            found.push(offset);
        }
        Ok(found)
    }
}

impl Admin for KafkaAdmin {
    fn topics(&mut self, names: &[Arc<str>]) -> Result<Vec<Option<TopicInfo>>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let asked: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let described = self
            .client
            .describe_topics(&asked, REQUEST_TIMEOUT)
            .map_err(|failure| self.failed(failure, "could not describe topics"))?;
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let info = described.iter().find(|(described, _)| described.as_str() == &**name);
            found.push(match info {
                None => None,
                Some((_, Ok(info))) => Some(info.clone()),
                Some((_, Err(failure)))
                    if matches!(failure.code, Code::UnknownTopicOrPartition | Code::UnknownTopic) =>
                {
                    None
                }
                Some((_, Err(failure))) => {
                    return Err(self.failed(failure.clone(), format!("could not describe the topic {name}")));
                }
            });
        }
        Ok(found)
    }

    fn topic_names(&mut self) -> Result<Vec<Arc<str>>> {
        let names = self.client.topic_names(REQUEST_TIMEOUT);
        names.map_err(|failure| self.failed(failure, "could not list the topics"))
    }

    fn create_topics(&mut self, topics: &[NewTopic]) -> Result<()> {
        if topics.is_empty() {
            return Ok(());
        }
        let wanted: Vec<&NewTopic> = topics.iter().collect();
        let outcomes = self
            .client
            .create_topics(&wanted, REQUEST_TIMEOUT)
            .map_err(|failure| self.failed(failure, "could not create topics"))?;
        for (name, outcome) in outcomes {
            match outcome {
                Err(failure) if failure.code != Code::TopicAlreadyExists => {
                    return Err(self.failed(failure, format!("could not create the topic {name}")));
                }
                _ => {}
            }
        }
        // The controller has them; the brokers hear of it some milliseconds later.
        let names: Vec<Arc<str>> = topics.iter().map(|topic| Arc::clone(&topic.name)).collect();
        for _ in 0..CREATED_LOOKS {
            if self.topics(&names)?.iter().all(Option::is_some) {
                return Ok(());
            }
            self.client.poll(CREATED_PAUSE);
        }
        Err(Error::new(ErrorKind::Unavailable, format!("topics were created but do not appear: {}", names.join(", "))))
    }

    fn delete_topics(&mut self, names: &[Arc<str>]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let asked: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let outcomes = self
            .client
            .delete_topics(&asked, REQUEST_TIMEOUT)
            .map_err(|failure| self.failed(failure, "could not delete topics"))?;
        for (name, outcome) in outcomes {
            match outcome {
                Err(failure) if !matches!(failure.code, Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                    return Err(self.failed(failure, format!("could not delete the topic {name}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>> {
        let starts = self.offsets(partitions, START, "the log start")?;
        let ends = self.offsets(partitions, END, "the high watermark")?;
        Ok(starts.into_iter().zip(ends).map(|(start, end)| Watermarks { start, end }).collect())
    }

    fn offsets_for_time(&mut self, partitions: &[TopicPartition], timestamp: i64) -> Result<Vec<i64>> {
        let mut offsets = self.offsets(partitions, timestamp.max(0), "the offset for a time")?;
        if offsets.iter().any(|offset| *offset < 0) {
            let ends = self.offsets(partitions, END, "the high watermark")?;
            for (offset, end) in offsets.iter_mut().zip(ends) {
                if *offset < 0 {
                    *offset = end;
                }
            }
        }
        Ok(offsets)
    }

    fn delete_records(&mut self, before: &[(TopicPartition, i64)]) -> Result<()> {
        if before.is_empty() {
            return Ok(());
        }
        let doing = "could not delete records";
        let list = PartitionList::of(before.iter().map(|(partition, offset)| (partition, *offset)))
            .map_err(|failure| self.failed(failure, doing))?;
        let outcomes =
            self.client.delete_records(&list, REQUEST_TIMEOUT).map_err(|failure| self.failed(failure, doing))?;
        for (topic, partition, outcome) in outcomes {
            outcome
                .map_err(|failure| self.failed(failure, format!("could not delete records of {topic}[{partition}]")))?;
        }
        Ok(())
    }
}
