//! Makes records of bytes.

use std::sync::Arc;

use super::context::TaskContext;
use super::handlers::ErrorContext;
use super::io::{Consumed, Extracted, Incoming, OnInvalid};
use super::node::{Made, Port, Source};
use super::processor::ProcessorInit;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{ConsumerRecord, Headers, Record, RecordMetadata};
use crate::serdes::decode;

struct Decode<K, V> {
    consumed: Consumed<K, V>,
    out: Port<K, V>,
    name: Arc<str>,
    /// The record at the head of each input, decoded.
    heads: Vec<Option<(K, V)>>,
}

pub(super) fn make<K: 'static, V: 'static>(consumed: &Consumed<K, V>, init: &ProcessorInit<'_>) -> Result<Made> {
    let (name, out) = (init.node_name(), init.port()?);
    let heads = init.task.topics.iter().map(|_| None).collect();
    Ok(Made::Source(Box::new(Decode { consumed: consumed.clone(), out, name, heads })))
}

impl<K: 'static, V: 'static> Source for Decode<K, V> {
    fn prepare(
        &mut self,
        input: usize,
        record: &ConsumerRecord<'_>,
        partition_time: i64,
        task: &mut TaskContext,
    ) -> Result<Option<i64>> {
        let decoded = decode(&*self.consumed.key, record.key, "key")
            .and_then(|key| Ok((key, decode(&*self.consumed.value, record.value, "value")?)));
        let (key, value) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => return self.undecodable(record, error, task).map(|()| None),
        };
        let Some(timestamp) = self.timestamp(input, (&key, &value), record, partition_time, task)? else {
            return Ok(None);
        };
        if self.heads.len() <= input {
            // A topic that has come to match the source's pattern.
            self.heads.resize_with(input + 1, || None);
        }
        if let Some(head) = self.heads.get_mut(input) {
            *head = Some((key, value));
        }
        Ok(Some(timestamp))
    }

    fn release(&mut self, input: usize, timestamp: i64, headers: &Headers, task: &mut TaskContext) -> Result<()> {
        let Some((key, value)) = self.heads.get_mut(input).and_then(Option::take) else { return Ok(()) };
        self.out.forward(Record { key, value, timestamp, headers: headers.clone() }, task)
    }
}

impl<K: 'static, V: 'static> Decode<K, V> {
    fn timestamp(
        &self,
        input: usize,
        (key, value): (&K, &V),
        record: &ConsumerRecord<'_>,
        partition_time: i64,
        task: &mut TaskContext,
    ) -> Result<Option<i64>> {
        let own = record.timestamp;
        match &self.consumed.extractor.0 {
            Extracted::Record(_) if own >= 0 => Ok(Some(own)),
            Extracted::Record(OnInvalid::Fail) => Err(self.invalid_timestamp(record, task)),
            Extracted::Record(OnInvalid::UsePartitionTime) if partition_time >= 0 => Ok(Some(partition_time)),
            Extracted::Record(OnInvalid::UsePartitionTime) => Err(self.invalid_timestamp(record, task)),
            Extracted::WallClock => Ok(Some(task.wall_clock_ms)),
            Extracted::Record(OnInvalid::Skip) => {
                task.drop_record(&self.name, "its timestamp is negative");
                Ok(None)
            }
            Extracted::Custom(extract) => {
                let topic = task.topics.get(input).map_or("", |topic| topic);
                let metadata = RecordMetadata { topic, partition: record.partition, offset: record.offset };
                let headers = record.headers;
                let timestamp = extract(&Incoming { key, value, timestamp: own, metadata, headers, partition_time });
                if timestamp < 0 {
                    task.drop_record(&self.name, "the timestamp extractor gave a negative time");
                    return Ok(None);
                }
                Ok(Some(timestamp))
            }
        }
    }

    #[cold]
    fn invalid_timestamp(&self, record: &ConsumerRecord<'_>, task: &TaskContext) -> Error {
        let place = task
            .record_metadata()
            .map_or_else(String::new, |at| format!(" at {}[{}]@{}", at.topic, at.partition, at.offset));
        let context = format!(
            "record{place} has the timestamp {}: choose another timestamp extractor with \
             Consumed::with_timestamp_extractor",
            record.timestamp
        );
        Error::new(ErrorKind::Corrupted, context).at(&self.name)
    }

    #[cold]
    fn undecodable(&self, record: &ConsumerRecord<'_>, error: Error, task: &mut TaskContext) -> Result<()> {
        let place = task.record_metadata().map(|at| (at.topic.to_owned(), at.partition, at.offset));
        let at = place
            .as_ref()
            .map_or_else(String::new, |(topic, partition, offset)| format!("{topic}[{partition}]@{offset}"));
        let context = format!(
            "could not read record {at}: skip such records with Config::deserialization_handler, or mend their producer"
        );
        let error = Error::new(ErrorKind::Corrupted, context).with_source(error).at(&self.name);
        let topic = place.as_ref().map(|(topic, ..)| topic.as_str());
        let context = ErrorContext { task: task.task_id(), node: &self.name, topic, record: Some(record) };
        let response = task.environment.handlers.deserialization.clone().decide(&context, &error);
        // The record never got into the topology, so nothing has set its time yet.
        let outer = std::mem::replace(&mut task.record.timestamp, record.timestamp);
        task.dead_letter(response, record.headers, &error);
        task.output.complete_dead_letters(record);
        task.record.timestamp = outer;
        task.settle(response, &self.name, error)
    }
}
