//! The C calls of librdkafka, and of LZ4, behind safe functions: the only place of the crate with `unsafe`.
//!
//! ```text
//!   Conf ──> Client ──┬── PartitionQueue   records of one partition
//!                     ├── EventQueue       rebalances and errors of a consumer
//!                     └── Topic            records to one topic
//!   Lz4               unpacks what a changelog holds
//! ```
//!
//! A [`Client`] owns a handle. Queues and topics must be destroyed before it: each keeps an `Arc` of it. The callbacks get
//! the [`Shared`] part, which the client owns and drops after the handle is destroyed, when no callback runs any more.
#![expect(unsafe_code, reason = "calls into C; every other file of the crate is safe")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka_sys::{self as rd, RDKafkaErrorCode as Code, rd_kafka_resp_err_t as RespErr};

pub(super) use self::consume::{Event, EventQueue, Fetched, PartitionQueue};
pub(super) use self::lz4::Lz4;
pub(super) use self::partition_list::PartitionList;
pub(super) use self::produce::{Outgoing, Topic};
use super::failure::Failure;
use super::wake::Signal;
use crate::record::TopicPartition;

mod admin;
#[cfg(unix)]
mod connections;
mod consume;
mod lz4;
mod partition_list;
mod produce;

/// Failed records kept until somebody asks for them; more are only counted.
const FAILED_RECORDS_MAX: usize = 10_000;

type Result<T, E = Failure> = std::result::Result<T, E>;

pub(super) struct Conf(*mut rd::rd_kafka_conf_t);

pub(super) enum SetError {
    Unknown,
    Invalid(String),
}

impl Conf {
    pub(super) fn new() -> Conf {
        // SAFETY: no precondition; the object is owned by the new value.
        Conf(unsafe { rd::rd_kafka_conf_new() })
    }

    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), SetError> {
        let (Ok(name), Ok(value)) = (CString::new(name), CString::new(value)) else {
            return Err(SetError::Invalid("it holds a NUL byte".to_string()));
        };
        let mut text = [0 as c_char; 512];
        // SAFETY: the object is alive, the strings end with NUL, and the buffer has the length that is passed.
        let result =
            unsafe { rd::rd_kafka_conf_set(self.0, name.as_ptr(), value.as_ptr(), text.as_mut_ptr(), text.len()) };
        match result {
            rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => Ok(()),
            rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_UNKNOWN => Err(SetError::Unknown),
            rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_INVALID => Err(SetError::Invalid(text_of(&text))),
        }
    }

    /// The value of a setting, its default included; none for an unknown one, and one that has no value.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let name = CString::new(name).ok()?;
        let mut length = 0;
        // SAFETY: the object is alive and the string ends with NUL; without a buffer only the length is told.
        let result = unsafe { rd::rd_kafka_conf_get(self.0, name.as_ptr(), ptr::null_mut(), &mut length) };
        if result != rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
            return None;
        }
        let mut text: Vec<c_char> = vec![0; length.max(1)];
        // SAFETY: the object is alive, the string ends with NUL, and the buffer has the length that is passed.
        let result = unsafe { rd::rd_kafka_conf_get(self.0, name.as_ptr(), text.as_mut_ptr(), &mut length) };
        (result == rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK).then(|| text_of(&text))
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: still owned: a client that takes it over leaves null behind.
            unsafe { rd::rd_kafka_conf_destroy(self.0) }
        }
    }
}

/// What the callbacks of a handle write to.
#[derive(Debug, Default)]
struct Shared {
    name: String,
    last_error: Mutex<Option<Failure>>,
    /// A connection was lost or refused since this was last asked.
    disturbed: AtomicBool,
    failed: Mutex<Failed>,
    /// What is purged now belongs to a transaction that is given up.
    aborting: AtomicBool,
    /// The end offsets that messages in flight point to. Only ever appended to.
    ends: Mutex<Vec<Arc<AtomicI64>>>,
    #[cfg(unix)]
    connections: connections::Connections,
}

/// Records that the cluster did not take.
#[derive(Debug, Default)]
pub(super) struct Failed {
    pub(super) records: Vec<FailedRecord>,
    /// How many more there were.
    pub(super) dropped: usize,
}

#[derive(Debug)]
pub(super) struct FailedRecord {
    pub(super) partition: TopicPartition,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) timestamp: Option<i64>,
    pub(super) failure: Failure,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

unsafe extern "C" fn log(rk: *const rd::rd_kafka_t, level: c_int, facility: *const c_char, text: *const c_char) {
    // SAFETY: librdkafka calls with a live handle whose opaque is the `Shared` of its client, and with C strings.
    let (shared, facility, text) = unsafe {
        let opaque = if rk.is_null() { ptr::null_mut() } else { rd::rd_kafka_opaque(rk) };
        (opaque.cast::<Shared>().as_ref(), string(facility), string(text))
    };
    let client = shared.map_or("", |shared| shared.name.as_str());
    if let (Some(shared), "FAIL") = (shared, facility.as_str()) {
        shared.disturbed.store(true, Ordering::Relaxed);
        let mut last = lock(&shared.last_error);
        // What the broker refused outweighs the closed connection that follows.
        if !last.as_ref().is_some_and(Failure::is_denied_access) {
            *last = Some(Failure::new(Code::BrokerTransportFailure, text.clone()));
        }
    }
    match (level, facility.as_str()) {
        // A setting for consumers given to all clients is no mistake.
        (_, "CONFWARN") => tracing::debug!(client, "{facility}: {text}"),
        (0..=2, _) => tracing::error!(client, "{facility}: {text}"),
        (3..=4, _) => tracing::warn!(client, "{facility}: {text}"),
        (5..=6, _) => tracing::debug!(client, "{facility}: {text}"),
        _ => tracing::trace!(client, "{facility}: {text}"),
    }
}

unsafe extern "C" fn error(_rk: *mut rd::rd_kafka_t, code: c_int, reason: *const c_char, opaque: *mut c_void) {
    // SAFETY: the opaque is the `Shared` of the handle's client; the reason is a C string.
    let (shared, text) = unsafe { (opaque.cast::<Shared>().as_ref(), string(reason)) };
    if let Some(shared) = shared {
        remember(shared, Failure::new(code_of(code), text));
    }
}

fn remember(shared: &Shared, failure: Failure) {
    let mut last = lock(&shared.last_error);
    let outweighed = failure.is_silence() && last.is_some();
    if !outweighed && !last.as_ref().is_some_and(Failure::is_denied_access) {
        *last = Some(failure);
    }
}

/// The way of nearly every record: no lock, no look-up.
unsafe extern "C" fn delivered(_rk: *mut rd::rd_kafka_t, message: *const rd::rd_kafka_message_t, opaque: *mut c_void) {
    // SAFETY: librdkafka passes a live message, and the opaque is alive as long as the handle.
    let (message, shared) = unsafe {
        let Some(message) = message.as_ref() else { return };
        (message, opaque.cast::<Shared>().as_ref())
    };
    let note = Note::of(message._private);
    let code = Code::from(message.err);
    if code == Code::NoError {
        if let Note::End(end) = note {
            // SAFETY: a cell of `Shared::ends`, which is alive as long as the handle. Relaxed: written and read by the
            // thread that serves the producer.
            unsafe { &*end }.fetch_max(message.offset + 1, Ordering::Relaxed);
        }
        return;
    }
    let Some(shared) = shared else { return };
    // Relaxed: written by the thread that serves the producer, which is this one.
    if shared.aborting.load(Ordering::Relaxed) {
        return;
    }
    let mut failed = lock(&shared.failed);
    if failed.records.len() >= FAILED_RECORDS_MAX {
        failed.dropped += 1;
        return;
    }
    // SAFETY: the message's key and payload are null or have the lengths beside them, and its topic has a name.
    let (topic, key, value) = unsafe {
        (
            string(rd::rd_kafka_topic_name(message.rkt)),
            bytes(message.key, message.key_len).map(<[u8]>::to_vec),
            bytes(message.payload, message.len).map(<[u8]>::to_vec),
        )
    };
    failed.records.push(FailedRecord {
        partition: TopicPartition::new(topic, message.partition),
        key,
        value,
        timestamp: match note {
            Note::Timestamp(timestamp) => Some(timestamp),
            Note::End(_) | Note::None => None,
        },
        failure: Failure::new(code, describe(message.err)),
    });
}

/// What is sent along with a message, in the place of one pointer.
///
/// ```text
///   0                      nothing
///   address of a cell      tracked: where the end offset goes (even, as cells are aligned)
///   timestamp * 2 + 1      not tracked: librdkafka does not tell the timestamp of a message that failed
/// ```
enum Note {
    None,
    End(*const AtomicI64),
    Timestamp(i64),
}

impl Note {
    fn of(pointer: *mut c_void) -> Note {
        match pointer.addr() {
            0 => Note::None,
            odd if odd % 2 == 1 => i64::try_from(odd / 2).map_or(Note::None, Note::Timestamp),
            _ => Note::End(pointer.cast_const().cast()),
        }
    }

    fn pointer(&self) -> *mut c_void {
        match self {
            Note::None => ptr::null_mut(),
            Note::End(cell) => cell.cast_mut().cast(),
            Note::Timestamp(timestamp) => usize::try_from(*timestamp)
                .ok()
                .and_then(|timestamp| timestamp.checked_mul(2))
                .map_or(ptr::null_mut(), |doubled| ptr::without_provenance_mut(doubled + 1)),
        }
    }
}

unsafe extern "C" fn not_empty(_rk: *mut rd::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: the opaque is the signal of a queue, which takes the callback away before it drops the signal.
    if let Some(signal) = unsafe { opaque.cast::<Signal>().as_ref() } {
        signal.raise();
    }
}

#[derive(Debug)]
pub(super) struct Client {
    rk: *mut rd::rd_kafka_t,
    /// Dropped after the handle: see `Drop`.
    shared: Arc<Shared>,
}

// SAFETY: librdkafka's handles may be used by several threads at once; `Shared` is behind locks and atomics.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    pub(super) fn consumer(conf: Conf, name: &str) -> Result<Arc<Client>> {
        // SAFETY: the configuration is owned. Rebalances become events, which `EventQueue` reads.
        unsafe { rd::rd_kafka_conf_set_events(conf.0, rd::RD_KAFKA_EVENT_REBALANCE) };
        let client = Client::new(rd::rd_kafka_type_t::RD_KAFKA_CONSUMER, conf, name)?;
        // SAFETY: a live handle of a consumer.
        client.check(unsafe { rd::rd_kafka_poll_set_consumer(client.rk) })?;
        Ok(client)
    }

    pub(super) fn producer(conf: Conf, name: &str) -> Result<Arc<Client>> {
        #[cfg(unix)]
        conf.keep_connections();
        // SAFETY: the configuration is owned, and the callback has the right signature.
        unsafe { rd::rd_kafka_conf_set_dr_msg_cb(conf.0, Some(delivered)) };
        Client::new(rd::rd_kafka_type_t::RD_KAFKA_PRODUCER, conf, name)
    }

    /// A handle that only administers.
    pub(super) fn admin(conf: Conf, name: &str) -> Result<Arc<Client>> {
        Client::new(rd::rd_kafka_type_t::RD_KAFKA_PRODUCER, conf, name)
    }

    fn new(kind: rd::rd_kafka_type_t, mut conf: Conf, name: &str) -> Result<Arc<Client>> {
        let shared = Arc::new(Shared { name: name.to_string(), ..Shared::default() });
        let mut text = [0 as c_char; 512];
        // SAFETY: the configuration is owned, the callbacks have the right signatures, and the opaque outlives the handle.
        let rk = unsafe {
            rd::rd_kafka_conf_set_opaque(conf.0, Arc::as_ptr(&shared).cast_mut().cast());
            rd::rd_kafka_conf_set_log_cb(conf.0, Some(log));
            rd::rd_kafka_conf_set_error_cb(conf.0, Some(error));
            rd::rd_kafka_new(kind, conf.0, text.as_mut_ptr(), text.len())
        };
        if rk.is_null() {
            return Err(Failure::new(Code::InvalidArgument, text_of(&text)));
        }
        // The handle owns the configuration now.
        conf.0 = ptr::null_mut();
        Ok(Arc::new(Client { rk, shared }))
    }

    /// The last thing that went wrong on a connection or in the background.
    pub(super) fn last_error(&self) -> Option<Failure> {
        lock(&self.shared.last_error).clone()
    }

    /// Whether a connection was lost or refused since the last time.
    pub(super) fn take_disturbed(&self) -> bool {
        self.shared.disturbed.swap(false, Ordering::Relaxed)
    }

    pub(super) fn forget_errors(&self) {
        lock(&self.shared.last_error).take();
    }

    /// A fatal error: the handle is dead.
    pub(super) fn fatal(&self) -> Option<Failure> {
        let mut text = [0 as c_char; 512];
        // SAFETY: a live handle, and a buffer of the length that is passed.
        let code = unsafe { rd::rd_kafka_fatal_error(self.rk, text.as_mut_ptr(), text.len()) };
        let code = Code::from(code);
        (code != Code::NoError).then(|| Failure { fatal: true, ..Failure::new(code, text_of(&text)) })
    }

    fn check(&self, err: RespErr) -> Result<()> {
        match Code::from(err) {
            Code::NoError => Ok(()),
            Code::Fatal => Err(self.fatal().unwrap_or_else(|| Failure::new(Code::Fatal, describe(err)))),
            code => Err(Failure::new(code, describe(err))),
        }
    }

    /// Serves delivery reports and errors of a producer.
    pub(super) fn poll(&self, timeout: Duration) {
        // SAFETY: a live handle; the callbacks only touch `Shared`.
        unsafe { rd::rd_kafka_poll(self.rk, millis(timeout)) };
    }

    /// The names of all topics.
    pub(super) fn topic_names(&self, timeout: Duration) -> Result<Vec<Arc<str>>> {
        let mut metadata: *const rd::rd_kafka_metadata = ptr::null();
        // SAFETY: as in `metadata`; names are C strings that live as long as the object, and are copied.
        unsafe {
            self.check(rd::rd_kafka_metadata(self.rk, 1, ptr::null_mut(), &mut metadata, millis(timeout)))?;
            let found = &*metadata;
            let topics = slice(found.topics.cast_const(), found.topic_cnt).iter();
            let names = topics.map(|topic| string(topic.topic).into()).collect();
            rd::rd_kafka_metadata_destroy(metadata);
            Ok(names)
        }
    }

    /// The brokers and the partition count of a topic, or of none.
    pub(super) fn metadata(&self, topic: Option<&Topic>, timeout: Duration) -> Result<i32> {
        let mut metadata: *const rd::rd_kafka_metadata = ptr::null();
        let rkt = topic.map_or(ptr::null_mut(), |topic| topic.rkt);
        // SAFETY: live handles; on success librdkafka hands over an object that is destroyed below, after the last use.
        unsafe {
            self.check(rd::rd_kafka_metadata(self.rk, 0, rkt, &mut metadata, millis(timeout)))?;
            let found = &*metadata;
            let count = match slice(found.topics.cast_const(), found.topic_cnt).first() {
                Some(topic) => self.check(topic.err).map(|()| topic.partition_cnt),
                None => Ok(0),
            };
            rd::rd_kafka_metadata_destroy(metadata);
            count
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: the only destruction of the handle; queues and topics hold an `Arc` of the client, so none is left. A
        // consumer that should leave its group has done so before. `shared` is dropped after this.
        unsafe { rd::rd_kafka_destroy_flags(self.rk, rd::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) }
    }
}

/// Takes an error object over.
fn outcome(error: *mut rd::rd_kafka_error_t) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a live error object, owned, destroyed after the last use.
    unsafe {
        let failure = Failure {
            code: Code::from(rd::rd_kafka_error_code(error)),
            text: string(rd::rd_kafka_error_string(error)),
            fatal: rd::rd_kafka_error_is_fatal(error) != 0,
            requires_abort: rd::rd_kafka_error_txn_requires_abort(error) != 0,
            retriable: rd::rd_kafka_error_is_retriable(error) != 0,
        };
        rd::rd_kafka_error_destroy(error);
        Err(failure)
    }
}

fn describe(err: RespErr) -> String {
    // SAFETY: gives a static C string for every code.
    unsafe { string(rd::rd_kafka_err2str(err)) }
}

fn code_of(code: c_int) -> Code {
    RespErr::try_from(code).map_or(Code::Unknown, Code::from)
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Failure::new(Code::InvalidArgument, "a name holds a NUL byte"))
}

fn millis(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
}

fn text_of(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().take_while(|c| **c != 0).map(|c| c.to_ne_bytes()[0]).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// # Safety
/// The text is null or a C string.
unsafe fn string(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by the function's contract.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// # Safety
/// The pointer is null or has so many bytes behind it, alive for `'a`.
unsafe fn bytes<'a>(pointer: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: by the function's contract.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer.cast(), length) })
}

/// # Safety
/// The pointer is null or has so many elements behind it, alive for `'a`.
unsafe fn slice<'a, T>(pointer: *const T, length: c_int) -> &'a [T] {
    match usize::try_from(length) {
        // SAFETY: by the function's contract.
        Ok(length) if !pointer.is_null() => unsafe { std::slice::from_raw_parts(pointer, length) },
        _ => &[],
    }
}
