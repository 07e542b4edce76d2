//! Writing: records, deliveries, transactions.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rdkafka_sys::{self as rd, RDKafkaErrorCode as Code};

use super::{Client, Failed, Failure, Note, PartitionList, Result, c_string, lock, millis, outcome};
use crate::client::GroupMetadata;
use crate::record::Headers;

/// One topic of a producer.
#[derive(Debug)]
pub(in crate::client::kafka) struct Topic {
    pub(super) rkt: *mut rd::rd_kafka_topic_t,
    /// By partition; made when first tracked. The same cells are in `Shared::ends`.
    ends: Vec<Option<Arc<AtomicI64>>>,
    client: Arc<Client>,
}

// SAFETY: librdkafka's topics may be used from any thread.
unsafe impl Send for Topic {}

/// A record for [`Topic::send`].
pub(in crate::client::kafka) struct Outgoing<'a> {
    pub(in crate::client::kafka) partition: i32,
    pub(in crate::client::kafka) key: Option<&'a [u8]>,
    pub(in crate::client::kafka) value: Option<&'a [u8]>,
    pub(in crate::client::kafka) timestamp: Option<i64>,
    pub(in crate::client::kafka) headers: &'a Headers,
}

impl Topic {
    pub(in crate::client::kafka) fn new(client: &Arc<Client>, name: &str) -> Result<Topic> {
        let name = c_string(name)?;
        // SAFETY: a live handle and a C string, which is copied; null means the default configuration.
        let rkt = unsafe { rd::rd_kafka_topic_new(client.rk, name.as_ptr(), ptr::null_mut()) };
        if rkt.is_null() {
            return Err(Failure::new(Code::InvalidTopic, "the name cannot be a topic's"));
        }
        Ok(Topic { rkt, ends: Vec::new(), client: Arc::clone(client) })
    }

    /// The offset after the last acknowledged tracked record of a partition.
    pub(in crate::client::kafka) fn end(&self, partition: i32) -> Option<i64> {
        let cell = self.ends.get(usize::try_from(partition).ok()?)?.as_ref()?;
        // Relaxed: written by the thread that serves the producer, which is the caller's.
        Some(cell.load(Ordering::Relaxed)).filter(|end| *end > 0)
    }

    fn end_cell(&mut self, partition: i32) -> Note {
        let Ok(index) = usize::try_from(partition) else { return Note::None };
        if self.ends.len() <= index {
            self.ends.resize(index + 1, None);
        }
        let Some(slot) = self.ends.get_mut(index) else { return Note::None };
        let cell = slot.get_or_insert_with(|| {
            let cell = Arc::new(AtomicI64::new(0));
            lock(&self.client.shared.ends).push(Arc::clone(&cell));
            cell
        });
        Note::End(Arc::as_ptr(cell))
    }

    /// Queues a copy of a record.
    pub(in crate::client::kafka) fn send(&mut self, record: &Outgoing<'_>, track: bool) -> Result<()> {
        use rd::rd_kafka_vtype_t as Kind;
        let note = match record.timestamp {
            _ if track => self.end_cell(record.partition),
            Some(timestamp) => Note::Timestamp(timestamp),
            None => Note::None,
        };
        let headers = OwnedHeaders::of(record.headers);
        // NOTE: librdkafka takes zero for "now". One millisecond off is nearer than half a century.
        let timestamp = record.timestamp.map_or(0, |timestamp| if timestamp == 0 { 1 } else { timestamp });
        let memory = |bytes: Option<&[u8]>| rd::rd_kafka_vu_s__bindgen_ty_1 {
            mem: rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                ptr: bytes.map_or(ptr::null_mut(), |bytes| bytes.as_ptr().cast_mut().cast()),
                size: bytes.map_or(0, <[u8]>::len),
            },
        };
        let arguments = [
            rd::rd_kafka_vu_t { vtype: Kind::RD_KAFKA_VTYPE_RKT, u: rd::rd_kafka_vu_s__bindgen_ty_1 { rkt: self.rkt } },
            rd::rd_kafka_vu_t {
                vtype: Kind::RD_KAFKA_VTYPE_PARTITION,
                u: rd::rd_kafka_vu_s__bindgen_ty_1 { i32_: record.partition },
            },
            rd::rd_kafka_vu_t {
                vtype: Kind::RD_KAFKA_VTYPE_MSGFLAGS,
                u: rd::rd_kafka_vu_s__bindgen_ty_1 { i: rd::RD_KAFKA_MSG_F_COPY },
            },
            rd::rd_kafka_vu_t { vtype: Kind::RD_KAFKA_VTYPE_KEY, u: memory(record.key) },
            rd::rd_kafka_vu_t { vtype: Kind::RD_KAFKA_VTYPE_VALUE, u: memory(record.value) },
            rd::rd_kafka_vu_t {
                vtype: Kind::RD_KAFKA_VTYPE_TIMESTAMP,
                u: rd::rd_kafka_vu_s__bindgen_ty_1 { i64_: timestamp },
            },
            rd::rd_kafka_vu_t {
                vtype: Kind::RD_KAFKA_VTYPE_OPAQUE,
                u: rd::rd_kafka_vu_s__bindgen_ty_1 { ptr: note.pointer() },
            },
            rd::rd_kafka_vu_t {
                vtype: Kind::RD_KAFKA_VTYPE_HEADERS,
                u: rd::rd_kafka_vu_s__bindgen_ty_1 { headers: headers.0 },
            },
        ];
        let count = if headers.0.is_null() { arguments.len() - 1 } else { arguments.len() };
        // SAFETY: live handles; each argument's union holds what its type says. Key and value are copied (F_COPY). The
        // note is a number or points to a cell that lives as long as the handle.
        let error = unsafe { rd::rd_kafka_produceva(self.client.rk, arguments.as_ptr(), count) };
        outcome(error)?;
        // They belong to the message now.
        std::mem::forget(headers);
        Ok(())
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: owned; the client is destroyed later.
        unsafe { rd::rd_kafka_topic_destroy(self.rkt) }
    }
}

/// Null without headers.
struct OwnedHeaders(*mut rd::rd_kafka_headers_t);

impl OwnedHeaders {
    fn of(headers: &Headers) -> OwnedHeaders {
        if headers.is_empty() {
            return OwnedHeaders(ptr::null_mut());
        }
        // SAFETY: no precondition; the new object is owned. Names and values are copied with the lengths given.
        unsafe {
            let list = rd::rd_kafka_headers_new(headers.len());
            for (name, value) in headers.iter() {
                let (pointer, size) =
                    value.map_or((ptr::null(), 0), |value| (value.as_ptr(), value.len().cast_signed()));
                rd::rd_kafka_header_add(list, name.as_ptr().cast(), name.len().cast_signed(), pointer.cast(), size);
            }
            OwnedHeaders(list)
        }
    }
}

impl Drop for OwnedHeaders {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: still owned: a message that takes them over forgets this value.
            unsafe { rd::rd_kafka_headers_destroy(self.0) }
        }
    }
}

impl Client {
    /// Sends what is queued and serves the delivery reports until nothing is left.
    pub(in crate::client::kafka) fn flush(&self, timeout: Duration) -> Result<()> {
        // SAFETY: a live handle; the callbacks only touch `Shared`.
        self.check(unsafe { rd::rd_kafka_flush(self.rk, millis(timeout)) })
    }

    pub(in crate::client::kafka) fn take_failed(&self) -> Failed {
        std::mem::take(&mut *lock(&self.shared.failed))
    }

    pub(in crate::client::kafka) fn init_transactions(&self, timeout: Duration) -> Result<()> {
        // SAFETY: a live handle.
        outcome(unsafe { rd::rd_kafka_init_transactions(self.rk, millis(timeout)) })
    }

    pub(in crate::client::kafka) fn begin_transaction(&self) -> Result<()> {
        // SAFETY: a live handle.
        outcome(unsafe { rd::rd_kafka_begin_transaction(self.rk) })
    }

    pub(in crate::client::kafka) fn send_offsets(
        &self,
        offsets: &PartitionList,
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<()> {
        let (id, member) = (c_string(&group.group)?, c_string(&group.member)?);
        let instance = group.instance.as_deref().map(c_string).transpose()?;
        // SAFETY: live objects and C strings, which are copied; the metadata is destroyed after the last use.
        outcome(unsafe {
            let metadata = rd::rd_kafka_consumer_group_metadata_new_with_genid(
                id.as_ptr(),
                group.generation,
                member.as_ptr(),
                instance.as_ref().map_or(ptr::null(), |instance| instance.as_ptr()),
            );
            let error = rd::rd_kafka_send_offsets_to_transaction(self.rk, offsets.0, metadata, millis(timeout));
            rd::rd_kafka_consumer_group_metadata_destroy(metadata);
            error
        })
    }

    /// Flushes, serving the delivery reports on this thread, and commits.
    pub(in crate::client::kafka) fn commit_transaction(&self, timeout: Duration) -> Result<()> {
        // SAFETY: a live handle; the callbacks only touch `Shared`.
        outcome(unsafe { rd::rd_kafka_commit_transaction(self.rk, millis(timeout)) })
    }

    /// Purges what is not delivered and aborts.
    pub(in crate::client::kafka) fn abort_transaction(&self, timeout: Duration) -> Result<()> {
        // Relaxed: read by the delivery callback on this thread.
        self.shared.aborting.store(true, Ordering::Relaxed);
        // SAFETY: a live handle; the callbacks only touch `Shared`.
        let aborted = outcome(unsafe { rd::rd_kafka_abort_transaction(self.rk, millis(timeout)) });
        self.shared.aborting.store(false, Ordering::Relaxed);
        aborted
    }
}
