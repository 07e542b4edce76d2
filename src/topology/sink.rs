//! Makes bytes of records.

use std::convert::Infallible;
use std::sync::Arc;

use super::io::{ChooseTopic, Destination, Outgoing, Produced, SinkTopic, TopicNameExtractor};
use super::processor::{Processor, ProcessorContext, ProcessorInit};
use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;

/// Forwards nothing, and its types say so.
pub(super) struct Sink<K, V> {
    topic: Target<K, V>,
    produced: Produced<K, V>,
    name: Arc<str>,
}

enum Target<K, V> {
    Fixed { number: usize, name: Arc<str> },
    Chosen(ChooseTopic<K, V>),
}

impl<K, V> Sink<K, V> {
    pub(super) fn new(topic: &SinkTopic<K, V>, produced: &Produced<K, V>, init: &mut ProcessorInit<'_>) -> Sink<K, V> {
        let target = match &topic.0 {
            Destination::Fixed(topic) => {
                let name = init.topology.full_name(init.task.application_id(), topic);
                Target::Fixed { number: init.task.output.topic(&name), name }
            }
            Destination::Chosen(TopicNameExtractor { choose, .. }) => Target::Chosen(Arc::clone(choose)),
        };
        Sink { topic: target, produced: produced.clone(), name: init.node_name() }
    }
}

impl<K: 'static, V: 'static> Processor<K, V> for Sink<K, V> {
    type KeyOut = Infallible;
    type ValueOut = Infallible;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, Infallible, Infallible>) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        let chosen;
        let (number, topic) = match &self.topic {
            Target::Fixed { number, name } => (*number, &**name),
            Target::Chosen(choose) => {
                let metadata = ctx.task.record_metadata();
                let outgoing = Outgoing { key: &key, value: &value, timestamp, headers: &headers, metadata };
                chosen = choose(&outgoing);
                (ctx.task.output.topic(&chosen), &*chosen)
            }
        };
        let known = self.produced.partition_of.and_then(|partition_of| partition_of(&value));
        let partitions = match &self.produced.partitioner {
            None => None,
            Some(_) if known.is_some() => None,
            Some(partitioner) => {
                let count = (ctx.task.environment.partition_counts)(topic)?;
                partitioner(topic, &key, &value, count)
            }
        };
        if partitions.as_ref().is_some_and(Vec::is_empty) {
            ctx.task.drop_record(&self.name, "the partitioner gave no partition");
            return Ok(());
        }
        let bytes = match ctx.task.output.encode((&*self.produced.key, &key), (&*self.produced.value, &value)) {
            Ok(bytes) => bytes,
            Err(error) => {
                let context = format!("could not encode a record for topic {topic}");
                let error = Error::new(ErrorKind::Corrupted, context).with_source(error);
                return ctx.task.production_failed(&self.name, &headers, error);
            }
        };
        match partitions {
            None => ctx.task.output.push(number, known, bytes, timestamp, headers),
            Some(partitions) => {
                for partition in partitions {
                    ctx.task.output.push(number, Some(partition), bytes, timestamp, headers.clone());
                }
            }
        }
        Ok(())
    }
}
