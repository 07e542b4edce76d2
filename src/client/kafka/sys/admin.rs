//! Administration: each request is sent to a queue of its own, which is waited for.

use std::ffi::{CString, c_char, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka_sys::{self as rd, RDKafkaErrorCode as Code, rd_kafka_admin_op_t as Request};

use super::partition_list::entries;
use super::{Client, Failure, PartitionList, Result, c_string, describe, millis, slice, string, text_of};
use crate::client::{NewTopic, TopicInfo};

/// How long the result may be late behind the request's own timeout.
const GRACE: Duration = Duration::from_secs(1);

type ResultEvent = *mut rd::rd_kafka_event_t;
type Options = *mut rd::rd_kafka_AdminOptions_t;
type Queue = *mut rd::rd_kafka_queue_t;

impl Client {
    /// What is known of each topic, in no order.
    pub(in crate::client::kafka) fn describe_topics(
        &self,
        names: &[&str],
        timeout: Duration,
    ) -> Result<Vec<(String, Result<TopicInfo>)>> {
        let names = c_strings(names)?;
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let ask = |options: Options, queue: Queue| {
            // SAFETY: live objects and C strings, which are copied.
            unsafe {
                let topics = rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
                rd::rd_kafka_DescribeTopics(self.rk, topics, options, queue);
                rd::rd_kafka_TopicCollection_destroy(topics);
            }
        };
        self.request(Request::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout, ask, |event| {
            // SAFETY: a live event of this request; everything borrowed from it is copied.
            unsafe {
                let mut count = 0;
                let result = rd::rd_kafka_event_DescribeTopics_result(event);
                let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
                pointees(topics.cast_const(), count).iter().map(|topic| described(*topic)).collect()
            }
        })
    }

    /// The outcome for each topic, in no order.
    pub(in crate::client::kafka) fn create_topics(
        &self,
        topics: &[&NewTopic],
        timeout: Duration,
    ) -> Result<Vec<(String, Result<()>)>> {
        let new = topics.iter().map(|topic| OwnedNewTopic::of(topic)).collect::<Result<Vec<_>>>()?;
        let mut pointers: Vec<_> = new.iter().map(|topic| topic.0).collect();
        let ask = |options: Options, queue: Queue| {
            // SAFETY: live objects, which are copied.
            unsafe { rd::rd_kafka_CreateTopics(self.rk, pointers.as_mut_ptr(), pointers.len(), options, queue) }
        };
        self.request(Request::RD_KAFKA_ADMIN_OP_CREATETOPICS, timeout, ask, |event| {
            // SAFETY: a live event of this request; everything borrowed from it is copied.
            unsafe {
                let mut count = 0;
                let result = rd::rd_kafka_event_CreateTopics_result(event);
                topic_results(rd::rd_kafka_CreateTopics_result_topics(result, &mut count), count)
            }
        })
    }

    /// The outcome for each topic, in no order.
    pub(in crate::client::kafka) fn delete_topics(
        &self,
        names: &[&str],
        timeout: Duration,
    ) -> Result<Vec<(String, Result<()>)>> {
        let names = c_strings(names)?;
        // SAFETY: C strings, which are copied; each object is destroyed once below.
        let mut topics: Vec<_> =
            names.iter().map(|name| unsafe { rd::rd_kafka_DeleteTopic_new(name.as_ptr()) }).collect();
        let ask = |options: Options, queue: Queue| {
            // SAFETY: live objects, which are copied and then destroyed.
            unsafe {
                rd::rd_kafka_DeleteTopics(self.rk, topics.as_mut_ptr(), topics.len(), options, queue);
                rd::rd_kafka_DeleteTopic_destroy_array(topics.as_mut_ptr(), topics.len());
            }
        };
        self.request(Request::RD_KAFKA_ADMIN_OP_DELETETOPICS, timeout, ask, |event| {
            // SAFETY: a live event of this request; everything borrowed from it is copied.
            unsafe {
                let mut count = 0;
                let result = rd::rd_kafka_event_DeleteTopics_result(event);
                topic_results(rd::rd_kafka_DeleteTopics_result_topics(result, &mut count), count)
            }
        })
    }

    /// The offsets for the times that stand in the list (-1: the end, -2: the start), in no order.
    pub(in crate::client::kafka) fn list_offsets(
        &self,
        times: &PartitionList,
        timeout: Duration,
    ) -> Result<Vec<(String, i32, Result<i64>)>> {
        // SAFETY: live objects; the list is copied.
        let ask =
            |options: Options, queue: Queue| unsafe { rd::rd_kafka_ListOffsets(self.rk, times.0, options, queue) };
        self.request(Request::RD_KAFKA_ADMIN_OP_LISTOFFSETS, timeout, ask, |event| {
            // SAFETY: a live event of this request; everything borrowed from it is copied.
            unsafe {
                let mut count = 0;
                let result = rd::rd_kafka_event_ListOffsets_result(event);
                let infos = rd::rd_kafka_ListOffsets_result_infos(result, &mut count);
                let found = pointees(infos.cast_const(), count).iter().filter_map(|info| {
                    let entry = rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*info).as_ref()?;
                    let offset = match Code::from(entry.err) {
                        // IMPORTANT: librdkafka leaves what a leader has not answered as it was, and calls it no error.
                        Code::NoError if entry.offset == i64::from(rd::RD_KAFKA_OFFSET_INVALID) => {
                            Err(Failure::new(Code::BrokerTransportFailure, "its leader has not answered"))
                        }
                        Code::NoError => Ok(entry.offset),
                        code => Err(Failure::new(code, describe(entry.err))),
                    };
                    Some((string(entry.topic), entry.partition, offset))
                });
                found.collect()
            }
        })
    }

    /// Deletes what is before the offsets of the list; the outcome for each partition.
    pub(in crate::client::kafka) fn delete_records(
        &self,
        before: &PartitionList,
        timeout: Duration,
    ) -> Result<Vec<(String, i32, Result<()>)>> {
        let ask = |options: Options, queue: Queue| {
            // SAFETY: live objects; the list is copied, and the request object destroyed.
            unsafe {
                let mut records = rd::rd_kafka_DeleteRecords_new(before.0);
                rd::rd_kafka_DeleteRecords(self.rk, &mut records, 1, options, queue);
                rd::rd_kafka_DeleteRecords_destroy(records);
            }
        };
        self.request(Request::RD_KAFKA_ADMIN_OP_DELETERECORDS, timeout, ask, |event| {
            // SAFETY: a live event of this request; everything borrowed from it is copied.
            unsafe {
                let result = rd::rd_kafka_event_DeleteRecords_result(event);
                let outcomes = entries(rd::rd_kafka_DeleteRecords_result_offsets(result)).map(|entry| {
                    let outcome = match entry.code {
                        Code::NoError => Ok(()),
                        code => Err(Failure::new(code, code.to_string())),
                    };
                    (entry.topic.to_string(), entry.partition, outcome)
                });
                outcomes.collect()
            }
        })
    }

    /// The names of all groups, those of every broker.
    pub(in crate::client::kafka) fn group_names(&self, timeout: Duration) -> Result<Vec<String>> {
        let mut list: *const rd::rd_kafka_group_list = ptr::null();
        // NOTE: `ListConsumerGroups`, the newer call, leaves out the groups of Kafka Streams' own protocol.
        // SAFETY: a live handle; the list is owned if it is given, and destroyed after the last use. Names are C strings.
        unsafe {
            // Not the whole list is an error: who asks wants to know of every group.
            let outcome = self.check(rd::rd_kafka_list_groups(self.rk, ptr::null(), &mut list, millis(timeout)));
            let Some(found) = list.as_ref() else { return outcome.map(|()| Vec::new()) };
            let names = slice(found.groups.cast_const(), found.group_cnt).iter().map(|group| string(group.group));
            let names = names.collect();
            rd::rd_kafka_group_list_destroy(list);
            outcome.map(|()| names)
        }
    }

    fn request<T>(
        &self,
        request: Request,
        timeout: Duration,
        ask: impl FnOnce(Options, Queue),
        read: impl FnOnce(ResultEvent) -> T,
    ) -> Result<T> {
        let mut text = [0 as c_char; 256];
        // SAFETY: a live handle; options, queue and event are owned and destroyed once, after the last use.
        unsafe {
            let queue = rd::rd_kafka_queue_new(self.rk);
            let options = rd::rd_kafka_AdminOptions_new(self.rk, request);
            rd::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout), text.as_mut_ptr(), text.len());
            ask(options, queue);
            let event = rd::rd_kafka_queue_poll(queue, millis(timeout + GRACE));
            let result = if event.is_null() {
                Err(Failure::new(Code::OperationTimedOut, "no answer"))
            } else {
                match Code::from(rd::rd_kafka_event_error(event)) {
                    Code::NoError => Ok(read(event)),
                    code => Err(Failure::new(code, string(rd::rd_kafka_event_error_string(event)))),
                }
            };
            if !event.is_null() {
                rd::rd_kafka_event_destroy(event);
            }
            rd::rd_kafka_AdminOptions_destroy(options);
            rd::rd_kafka_queue_destroy(queue);
            result
        }
    }
}

struct OwnedNewTopic(*mut rd::rd_kafka_NewTopic_t);

impl OwnedNewTopic {
    fn of(topic: &NewTopic) -> Result<OwnedNewTopic> {
        let name = c_string(&topic.name)?;
        let mut text = [0 as c_char; 256];
        let replication = topic.replication.unwrap_or(-1);
        // SAFETY: C strings, which are copied, and a buffer of the length that is passed.
        let new = unsafe {
            rd::rd_kafka_NewTopic_new(name.as_ptr(), topic.partitions, replication, text.as_mut_ptr(), text.len())
        };
        if new.is_null() {
            return Err(Failure::new(Code::InvalidArgument, text_of(&text)));
        }
        let new = OwnedNewTopic(new);
        for (key, value) in &topic.config {
            let (key, value) = (c_string(key)?, c_string(value)?);
            // SAFETY: a live object and C strings, which are copied.
            unsafe { rd::rd_kafka_NewTopic_set_config(new.0, key.as_ptr(), value.as_ptr()) };
        }
        Ok(new)
    }
}

impl Drop for OwnedNewTopic {
    fn drop(&mut self) {
        // SAFETY: owned.
        unsafe { rd::rd_kafka_NewTopic_destroy(self.0) }
    }
}

fn c_strings(names: &[&str]) -> Result<Vec<CString>> {
    names.iter().map(|name| c_string(name)).collect()
}

/// # Safety
/// The pointer is null or has so many pointers behind it, alive for `'a`.
unsafe fn pointees<'a, T>(pointers: *const *const T, count: usize) -> &'a [*const T] {
    // SAFETY: by the function's contract.
    if pointers.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(pointers, count) } }
}

/// # Safety
/// A live description.
unsafe fn described(topic: *const rd::rd_kafka_TopicDescription_t) -> (String, Result<TopicInfo>) {
    // SAFETY: by the function's contract; what is borrowed is copied.
    unsafe {
        let name = string(rd::rd_kafka_TopicDescription_name(topic));
        let error = rd::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() && Code::from(rd::rd_kafka_error_code(error)) != Code::NoError {
            let text = string(rd::rd_kafka_error_string(error));
            return (name, Err(Failure::new(Code::from(rd::rd_kafka_error_code(error)), text)));
        }
        let mut count = 0;
        rd::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let id = rd::rd_kafka_TopicDescription_topic_id(topic);
        let id = (!id.is_null()).then(|| {
            let high = rd::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
            let low = rd::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
            uuid::Uuid::from_u64_pair(high, low)
        });
        let partitions = c_int::try_from(count).unwrap_or(c_int::MAX);
        (name, Ok(TopicInfo { partitions, id: id.filter(|id| !id.is_nil()) }))
    }
}

/// # Safety
/// The pointer is null or has so many live results behind it.
unsafe fn topic_results(results: *mut *const rd::rd_kafka_topic_result_t, count: usize) -> Vec<(String, Result<()>)> {
    // SAFETY: by the function's contract; what is borrowed is copied.
    unsafe {
        let outcome = |result: &*const rd::rd_kafka_topic_result_t| {
            let code = Code::from(rd::rd_kafka_topic_result_error(*result));
            let outcome = match code {
                Code::NoError => Ok(()),
                code => {
                    let text = rd::rd_kafka_topic_result_error_string(*result);
                    let text = if text.is_null() { code.to_string() } else { string(text) };
                    Err(Failure::new(code, text))
                }
            };
            (string(rd::rd_kafka_topic_result_name(*result)), outcome)
        };
        pointees(results.cast_const(), count).iter().map(outcome).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::kafka::sys::Conf;
    use crate::record::TopicPartition;

    const LIST_OFFSETS: i16 = 2;

    /// librdkafka has a broker of its own for tests.
    #[test]
    fn what_a_leader_does_not_answer_is_no_offset() {
        let mut conf = Conf::new();
        assert!(conf.set("test.mock.num.brokers", "1").is_ok());
        let client = Client::admin(conf, "test").unwrap();
        let partition = TopicPartition::new("topic", 0);
        let ends = PartitionList::of([(&partition, -1)]).unwrap();
        // SAFETY: a live handle, whose cluster lives as long as it, and C strings and an array of the length that is passed,
        // which are copied.
        let mock = unsafe {
            let mock = rd::rd_kafka_handle_mock_cluster(client.rk);
            rd::rd_kafka_mock_topic_create(mock, c"topic".as_ptr(), 1, 1);
            mock
        };
        let found = client.list_offsets(&ends, Duration::from_secs(20)).unwrap();
        assert!(matches!(&found[..], [(_, 0, Ok(0))]), "{found:?}");

        let errors = [rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TRANSPORT; 20];
        // SAFETY: as above.
        unsafe {
            rd::rd_kafka_mock_push_request_errors_array(mock, LIST_OFFSETS, errors.len(), errors.as_ptr());
        }
        let found = client.list_offsets(&ends, Duration::from_secs(2));
        assert!(found.is_err() || matches!(found.as_deref(), Ok([(_, 0, Err(_))])), "{found:?}");
    }
}
