//! Reading: partition queues, the events of a consumer, its group.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys::{self as rd, RDKafkaErrorCode as Code};

use super::partition_list::entries;
use super::{
    Client, Failure, PartitionList, Result, Signal, bytes, c_string, millis, not_empty, outcome, remember, string,
};
use crate::record::{Headers, TopicPartition};

/// Messages taken from a queue in one call.
const BATCH: usize = 512;

/// What a partition's queue holds.
pub(in crate::client::kafka) enum Fetched<'a> {
    Record {
        offset: i64,
        timestamp: i64,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        headers: Headers,
    },
    /// Nothing more for now, up to this offset.
    End {
        offset: i64,
    },
    Failed {
        failure: Failure,
        /// Where it happened; negative: not at an offset.
        offset: i64,
    },
}

/// The queue of one partition, apart from the client's own.
#[derive(Debug)]
pub(in crate::client::kafka) struct PartitionQueue {
    queue: *mut rd::rd_kafka_queue_t,
    signal: Box<Signal>,
    topic: CString,
    partition: i32,
    client: Arc<Client>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// To be made before the partition is assigned: so no record takes the way through the client's own queue.
    pub(in crate::client::kafka) fn new(
        client: &Arc<Client>,
        partition: &TopicPartition,
        signal: Signal,
    ) -> Result<PartitionQueue> {
        let (topic, signal) = (c_string(&partition.topic)?, Box::new(signal));
        let opaque = ptr::from_ref(signal.as_ref()).cast_mut().cast();
        // SAFETY: a live handle and a C string. The signal outlives the callback, which is taken away in `drop`.
        let queue = unsafe {
            let queue = rd::rd_kafka_queue_get_partition(client.rk, topic.as_ptr(), partition.partition);
            if queue.is_null() {
                return Err(Failure::new(Code::UnknownPartition, "the partition has no queue"));
            }
            rd::rd_kafka_queue_forward(queue, ptr::null_mut());
            rd::rd_kafka_queue_cb_event_enable(queue, Some(not_empty), opaque);
            queue
        };
        Ok(PartitionQueue { queue, signal, topic, partition: partition.partition, client: Arc::clone(client) })
    }

    /// Whether the queue may hold something.
    pub(in crate::client::kafka) fn take_signal(&self) -> bool {
        self.signal.take()
    }

    pub(in crate::client::kafka) fn raise_signal(&self) {
        self.signal.raise();
    }

    /// Hands over what the queue holds, at most `max` events, without waiting; how many there were.
    pub(in crate::client::kafka) fn drain(&mut self, max: usize, mut each: impl FnMut(Fetched<'_>)) -> usize {
        let mut count = 0;
        while count < max {
            let mut messages = [MaybeUninit::<*mut rd::rd_kafka_message_t>::uninit(); BATCH];
            let wanted = BATCH.min(max - count);
            // SAFETY: a live queue, and room for `wanted` pointers.
            let given =
                unsafe { rd::rd_kafka_consume_batch_queue(self.queue, 0, messages.as_mut_ptr().cast(), wanted) };
            let given = usize::try_from(given).unwrap_or(0).min(wanted);
            for message in messages.iter().take(given) {
                // SAFETY: the first `given` pointers are filled with live messages, each owned by us; it is destroyed
                // when `_owned` goes, after the last use of what borrows from it.
                let message = unsafe { message.assume_init() };
                let _owned = Message(message);
                // SAFETY: as above.
                each(unsafe { fetched(message) });
            }
            count += given;
            if given < wanted {
                break;
            }
        }
        count
    }

    /// The offset after the last thing taken from the queue, control records included.
    ///
    /// NOTE: after an end-of-partition event or an error it is one too high (librdkafka #4844), and stale until the first
    /// event of an assignment.
    pub(in crate::client::kafka) fn raw_position(&self) -> Option<i64> {
        let list = PartitionList::new();
        // SAFETY: live objects; the entry is alive until the list is grown or dropped.
        let offset = unsafe {
            let entry = rd::rd_kafka_topic_partition_list_add(list.0, self.topic.as_ptr(), self.partition);
            rd::rd_kafka_position(self.client.rk, list.0);
            (*entry).offset
        };
        (offset >= 0).then_some(offset)
    }

    /// The high watermark, as the last answer to a fetch told it.
    pub(in crate::client::kafka) fn high_watermark(&self) -> Option<i64> {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: a live handle, a C string, and places for the answers.
        let result = unsafe {
            rd::rd_kafka_get_watermark_offsets(self.client.rk, self.topic.as_ptr(), self.partition, &mut low, &mut high)
        };
        (Code::from(result) == Code::NoError && high >= 0).then_some(high)
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: owned. Callbacks run under the queue's lock, so none is running once it is taken away.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            rd::rd_kafka_queue_destroy(self.queue);
        }
    }
}

struct Message(*mut rd::rd_kafka_message_t);

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: owned.
        unsafe { rd::rd_kafka_message_destroy(self.0) }
    }
}

/// # Safety
/// The message is alive for `'a`.
unsafe fn fetched<'a>(message: *const rd::rd_kafka_message_t) -> Fetched<'a> {
    // SAFETY: by the function's contract.
    let m = unsafe { &*message };
    match Code::from(m.err) {
        Code::NoError => {
            // SAFETY: key and payload are null or have the lengths beside them.
            unsafe {
                Fetched::Record {
                    offset: m.offset,
                    timestamp: rd::rd_kafka_message_timestamp(message, ptr::null_mut()),
                    key: bytes(m.key, m.key_len),
                    value: bytes(m.payload, m.len),
                    headers: headers(message),
                }
            }
        }
        Code::PartitionEOF => Fetched::End { offset: m.offset },
        // SAFETY: of an error, the payload is its text.
        code => Fetched::Failed {
            failure: Failure::new(code, unsafe { string(rd::rd_kafka_message_errstr(message)) }),
            offset: m.offset,
        },
    }
}

/// # Safety
/// The message is alive.
unsafe fn headers(message: *const rd::rd_kafka_message_t) -> Headers {
    let mut headers = Headers::default();
    let mut found = ptr::null_mut();
    // SAFETY: a live message. The headers belong to it; names are C strings, values null or of their length.
    unsafe {
        if Code::from(rd::rd_kafka_message_headers(message, &mut found)) != Code::NoError {
            return headers;
        }
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        let mut index = 0;
        while Code::from(rd::rd_kafka_header_get_all(found, index, &mut name, &mut value, &mut size)) == Code::NoError {
            headers.push(string(name), bytes(value, size).map(<[u8]>::to_vec));
            index += 1;
        }
    }
    headers
}

/// What happens to a consumer as a whole.
#[derive(Debug)]
pub(in crate::client::kafka) enum Event {
    Assigned(Vec<TopicPartition>),
    Revoked,
    Failed(Failure),
    Other,
}

/// A consumer's own queue: rebalances and errors.
#[derive(Debug)]
pub(in crate::client::kafka) struct EventQueue {
    queue: *mut rd::rd_kafka_queue_t,
    signal: Box<Signal>,
    client: Arc<Client>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for EventQueue {}

impl EventQueue {
    pub(in crate::client::kafka) fn new(client: &Arc<Client>, signal: Signal) -> Result<EventQueue> {
        let signal = Box::new(signal);
        let opaque = ptr::from_ref(signal.as_ref()).cast_mut().cast();
        // SAFETY: a live handle. The signal outlives the callback, which is taken away in `drop`.
        let queue = unsafe {
            let queue = rd::rd_kafka_queue_get_consumer(client.rk);
            if queue.is_null() {
                return Err(Failure::new(Code::UnknownGroup, "the consumer has no queue"));
            }
            rd::rd_kafka_queue_cb_event_enable(queue, Some(not_empty), opaque);
            queue
        };
        Ok(EventQueue { queue, signal, client: Arc::clone(client) })
    }

    /// The next event; counts as a sign of life for `max.poll.interval.ms`.
    pub(in crate::client::kafka) fn poll(&mut self, timeout: Duration) -> Option<Event> {
        // SAFETY: a live queue; the event is owned and destroyed after the last use.
        unsafe {
            let event = rd::rd_kafka_queue_poll(self.queue, millis(timeout));
            if event.is_null() {
                return None;
            }
            let failure = || {
                let fatal = rd::rd_kafka_event_error_is_fatal(event) != 0;
                let text = string(rd::rd_kafka_event_error_string(event));
                Failure { fatal, ..Failure::new(Code::from(rd::rd_kafka_event_error(event)), text) }
            };
            let seen = match rd::rd_kafka_event_type(event) {
                rd::RD_KAFKA_EVENT_REBALANCE => match Code::from(rd::rd_kafka_event_error(event)) {
                    Code::AssignPartitions => Event::Assigned(
                        entries(rd::rd_kafka_event_topic_partition_list(event))
                            .map(|entry| TopicPartition::new(entry.topic, entry.partition))
                            .collect(),
                    ),
                    _ => Event::Revoked,
                },
                rd::RD_KAFKA_EVENT_ERROR => match failure() {
                    failure if failure.code == Code::Fatal => Event::Failed(self.client.fatal().unwrap_or(failure)),
                    failure => {
                        remember(&self.client.shared, failure.clone());
                        Event::Failed(failure)
                    }
                },
                _ => Event::Other,
            };
            rd::rd_kafka_event_destroy(event);
            Some(seen)
        }
    }

    pub(in crate::client::kafka) fn take_signal(&self) -> bool {
        self.signal.take()
    }

    /// Begins to leave the group; its last rebalance comes as an event, until [`closed`](Client::closed).
    pub(in crate::client::kafka) fn close(&mut self) -> Result<()> {
        // SAFETY: a live handle and its own queue.
        outcome(unsafe { rd::rd_kafka_consumer_close_queue(self.client.rk, self.queue) })
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        // SAFETY: owned. Callbacks run under the queue's lock, so none is running once it is taken away.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            rd::rd_kafka_queue_destroy(self.queue);
        }
    }
}

impl Client {
    pub(in crate::client::kafka) fn closed(&self) -> bool {
        // SAFETY: a live handle.
        unsafe { rd::rd_kafka_consumer_closed(self.rk) != 0 }
    }

    pub(in crate::client::kafka) fn subscribe<'a>(&self, topics: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let mut list = PartitionList::new();
        for topic in topics {
            list.add(topic, -1, -1001)?;
        }
        // SAFETY: live objects; the list is copied.
        self.check(unsafe { rd::rd_kafka_subscribe(self.rk, list.0) })
    }

    /// Answers an assignment without reading anything.
    pub(in crate::client::kafka) fn accept_assignment(&self) -> Result<()> {
        let none = PartitionList::new();
        // SAFETY: live objects; the list is copied.
        self.check(unsafe { rd::rd_kafka_assign(self.rk, none.0) })
    }

    /// Answers a revocation.
    pub(in crate::client::kafka) fn give_up_assignment(&self) -> Result<()> {
        // SAFETY: a live handle; null means none.
        self.check(unsafe { rd::rd_kafka_assign(self.rk, ptr::null()) })
    }

    pub(in crate::client::kafka) fn assignment_lost(&self) -> bool {
        // SAFETY: a live handle.
        unsafe { rd::rd_kafka_assignment_lost(self.rk) != 0 }
    }

    pub(in crate::client::kafka) fn incremental_assign(&self, partitions: &PartitionList) -> Result<()> {
        // SAFETY: live objects; the list is copied.
        outcome(unsafe { rd::rd_kafka_incremental_assign(self.rk, partitions.0) })
    }

    pub(in crate::client::kafka) fn incremental_unassign(&self, partitions: &PartitionList) -> Result<()> {
        // SAFETY: live objects; the list is copied.
        outcome(unsafe { rd::rd_kafka_incremental_unassign(self.rk, partitions.0) })
    }

    /// Fills in the committed offsets, metadata and per-partition errors.
    pub(in crate::client::kafka) fn committed(&self, partitions: &mut PartitionList, timeout: Duration) -> Result<()> {
        // SAFETY: live objects, the list not shared.
        self.check(unsafe { rd::rd_kafka_committed(self.rk, partitions.0, millis(timeout)) })
    }

    /// Commits and waits for the answer.
    pub(in crate::client::kafka) fn commit(&self, offsets: &PartitionList) -> Result<()> {
        // SAFETY: live objects; the list is copied.
        self.check(unsafe { rd::rd_kafka_commit(self.rk, offsets.0, 0) })
    }

    /// The generation and member id; none before the first join.
    pub(in crate::client::kafka) fn member(&self) -> Option<(i32, String)> {
        // SAFETY: a live handle; the metadata is owned and destroyed after the last use.
        unsafe {
            let metadata = rd::rd_kafka_consumer_group_metadata(self.rk);
            if metadata.is_null() {
                return None;
            }
            let generation = rd::rd_kafka_consumer_group_metadata_generation_id(metadata);
            let member = string(rd::rd_kafka_consumer_group_metadata_member_id(metadata));
            rd::rd_kafka_consumer_group_metadata_destroy(metadata);
            (generation >= 0 && !member.is_empty()).then_some((generation, member))
        }
    }
}
