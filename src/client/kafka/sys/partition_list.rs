//! Partitions with offsets, as librdkafka takes and gives them.

use std::ffi::CStr;
use std::ptr;

use rdkafka_sys::{self as rd, RDKafkaErrorCode as Code};

use super::{Result, bytes, c_string, slice};
use crate::record::{OffsetAndMetadata, TopicPartition};

/// Partitions with offsets, as librdkafka takes and gives them.
#[derive(Debug)]
pub(in crate::client::kafka) struct PartitionList(pub(super) *mut rd::rd_kafka_topic_partition_list_t);

// SAFETY: a plain object without a tie to a thread.
unsafe impl Send for PartitionList {}

/// One entry of a [`PartitionList`].
#[derive(Debug)]
pub(in crate::client::kafka) struct Entry<'a> {
    pub(in crate::client::kafka) topic: &'a str,
    pub(in crate::client::kafka) partition: i32,
    pub(in crate::client::kafka) offset: i64,
    pub(in crate::client::kafka) metadata: &'a [u8],
    pub(in crate::client::kafka) code: Code,
}

impl PartitionList {
    pub(in crate::client::kafka) fn new() -> PartitionList {
        // SAFETY: no precondition; the object is owned by the new value.
        PartitionList(unsafe { rd::rd_kafka_topic_partition_list_new(8) })
    }

    pub(in crate::client::kafka) fn of<'a>(
        partitions: impl IntoIterator<Item = (&'a TopicPartition, i64)>,
    ) -> Result<PartitionList> {
        let mut list = PartitionList::new();
        for (partition, offset) in partitions {
            list.add(&partition.topic, partition.partition, offset)?;
        }
        Ok(list)
    }

    pub(in crate::client::kafka) fn of_committed<'a>(
        offsets: impl IntoIterator<Item = &'a (TopicPartition, OffsetAndMetadata)>,
    ) -> Result<PartitionList> {
        let mut list = PartitionList::new();
        for (partition, position) in offsets {
            let entry = list.add(&partition.topic, partition.partition, position.offset)?;
            let text = position.metadata.as_bytes();
            if text.is_empty() {
                continue;
            }
            // SAFETY: the entry is alive until the list is grown; librdkafka frees metadata with its own `free`, so it is
            // allocated with its own `malloc`; null is not written to.
            unsafe {
                let copy = rd::rd_kafka_mem_malloc(ptr::null_mut(), text.len());
                if !copy.is_null() {
                    ptr::copy_nonoverlapping(text.as_ptr(), copy.cast(), text.len());
                    (*entry).metadata = copy;
                    (*entry).metadata_size = text.len();
                }
            }
        }
        Ok(list)
    }

    pub(super) fn add(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<*mut rd::rd_kafka_topic_partition_t> {
        let topic = c_string(topic)?;
        // SAFETY: a live list and a C string, which is copied; the new entry is alive.
        unsafe {
            let entry = rd::rd_kafka_topic_partition_list_add(self.0, topic.as_ptr(), partition);
            (*entry).offset = offset;
            Ok(entry)
        }
    }

    pub(in crate::client::kafka) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        // SAFETY: a live list; the borrow of `self` keeps it from being changed while the entries are looked at.
        unsafe { entries(self.0) }
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: owned.
        unsafe { rd::rd_kafka_topic_partition_list_destroy(self.0) }
    }
}

/// # Safety
/// The list is null or alive and unchanged for `'a`.
pub(super) unsafe fn entries<'a>(list: *const rd::rd_kafka_topic_partition_list_t) -> impl Iterator<Item = Entry<'a>> {
    // SAFETY: by the function's contract; `elems` has `cnt` entries, each with a C string as its topic.
    let elements = unsafe { list.as_ref().map_or(&[][..], |list| slice(list.elems.cast_const(), list.cnt)) };
    elements.iter().map(|entry| Entry {
        // SAFETY: as above. Topic names are ASCII.
        topic: unsafe { CStr::from_ptr(entry.topic) }.to_str().unwrap_or_default(),
        partition: entry.partition,
        offset: entry.offset,
        // SAFETY: null or of the length beside it.
        metadata: unsafe { bytes(entry.metadata, entry.metadata_size) }.unwrap_or_default(),
        code: Code::from(entry.err),
    })
}
