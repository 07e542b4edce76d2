//! The sockets of a handle, so that a connection can be ended from outside.

use std::ffi::{c_int, c_void};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rdkafka_sys as rd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{Client, Conf, Shared};

/// Those that are open, the oldest first.
///
/// IMPORTANT: the number of a socket is another file's once it is closed. It is closed and used behind one lock.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<Vec<c_int>>);

impl Connections {
    fn change<T>(&self, change: impl FnOnce(&mut Vec<c_int>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Conf {
    /// The opaque of the handle has to be its [`Shared`].
    pub(super) fn keep_connections(&self) {
        // SAFETY: the configuration is owned, and the callbacks have the right signatures.
        unsafe {
            rd::rd_kafka_conf_set_socket_cb(self.0, Some(open));
            rd::rd_kafka_conf_set_closesocket_cb(self.0, Some(close));
        }
    }
}

impl Client {
    /// Ends the oldest connection: whoever uses it sees that its broker has closed it, and connects again if need be. Nothing
    /// without one, and nothing unless the configuration keeps them.
    pub(in crate::client::kafka) fn end_a_connection(&self) {
        self.shared.connections.change(|sockets| {
            let Some(socket) = sockets.first() else { return };
            // SAFETY: it is open: whoever closes it waits for the lock.
            let socket = unsafe { BorrowedFd::borrow_raw(*socket) };
            // One that is not connected, or not any more, is about to be closed anyway.
            let ended = SockRef::from(&socket).shutdown(Shutdown::Both);
            tracing::debug!(client = self.shared.name, ?ended, "a connection is ended");
            sockets.rotate_left(1);
        });
    }
}

unsafe extern "C" fn open(domain: c_int, kind: c_int, protocol: c_int, opaque: *mut c_void) -> c_int {
    let made = Socket::new(Domain::from(domain), Type::from(kind), Some(Protocol::from(protocol)));
    // librdkafka reads errno after -1, as after `socket`.
    let Ok(made) = made else { return -1 };
    let socket = made.into_raw_fd();
    // SAFETY: the opaque is the `Shared` of the handle's client, which outlives the handle.
    if let Some(shared) = unsafe { opaque.cast::<Shared>().as_ref() } {
        shared.connections.change(|sockets| sockets.push(socket));
    }
    socket
}

unsafe extern "C" fn close(socket: c_int, opaque: *mut c_void) -> c_int {
    // SAFETY: librdkafka closes what it has got from `open`, once.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: as in `open`.
    match unsafe { opaque.cast::<Shared>().as_ref() } {
        Some(shared) => shared.connections.change(|sockets| {
            sockets.retain(|known| *known != socket.as_raw_fd());
            drop(socket);
        }),
        None => drop(socket),
    }
    0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::client::GroupMetadata;
    use crate::client::kafka::offsets::send_offsets;
    use crate::client::kafka::sys::{Outgoing, Topic};
    use crate::record::{Headers, OffsetAndMetadata, TopicPartition};

    const PATIENCE: Duration = Duration::from_secs(30);

    /// librdkafka has a cluster of its own for tests. It forgets a broker that the cluster does not name any more, and with
    /// it who waits for that one (confluentinc/librdkafka#5511).
    #[test]
    fn offsets_are_sent_though_the_coordinator_of_the_group_is_gone() {
        let mut conf = Conf::new();
        for (name, value) in [
            ("test.mock.num.brokers", "3"),
            ("transactional.id", "producer"),
            ("topic.metadata.refresh.interval.ms", "100"),
            // As long as a coordinator is remembered that nobody asks for.
            ("metadata.max.age.ms", "60000"),
            ("reconnect.backoff.max.ms", "1000"),
        ] {
            assert!(conf.set(name, value).is_ok(), "{name}");
        }
        let client = Client::producer(conf, "test").unwrap();
        // SAFETY: a live handle, whose cluster lives as long as it, and C strings, which are copied.
        let mock = unsafe {
            let mock = rd::rd_kafka_handle_mock_cluster(client.rk);
            rd::rd_kafka_mock_topic_create(mock, c"topic".as_ptr(), 1, 3);
            rd::rd_kafka_mock_partition_set_leader(mock, c"topic".as_ptr(), 0, 2);
            rd::rd_kafka_mock_coordinator_set(mock, c"transaction".as_ptr(), c"producer".as_ptr(), 3);
            rd::rd_kafka_mock_coordinator_set(mock, c"group".as_ptr(), c"group".as_ptr(), 1);
            mock
        };
        let mut topic = Topic::new(&client, "topic").unwrap();
        let group = GroupMetadata { group: "group".to_owned(), member: String::new(), generation: -1, instance: None };
        let mut commit = |offset: i64| {
            client.begin_transaction().unwrap();
            let headers = Headers::new();
            let record = Outgoing { partition: 0, key: None, value: Some(b"v"), timestamp: None, headers: &headers };
            topic.send(&record, false).unwrap();
            client.flush(PATIENCE).unwrap();
            let position = OffsetAndMetadata { offset, metadata: String::new() };
            send_offsets(&client, &[(TopicPartition::new("topic", 0), position)], &group).unwrap();
            client.commit_transaction(PATIENCE).unwrap();
        };
        client.init_transactions(PATIENCE).unwrap();
        commit(1);
        // SAFETY: as above.
        unsafe {
            rd::rd_kafka_mock_coordinator_set(mock, c"group".as_ptr(), c"group".as_ptr(), 2);
            rd::rd_kafka_mock_broker_decommission(mock, 1);
        }
        // Long enough for the client to hear of it.
        client.poll(Duration::from_secs(1));
        commit(2);
        assert_eq!(Arc::strong_count(&client), 2, "the thread that sends has ended");
    }
}
