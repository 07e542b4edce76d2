//! Adds offsets to a transaction, in bounded time.
//!
//! librdkafka does not heed the timeout of this call. It waits for the group's coordinator, and where that broker is gone, for
//! a change of any connection, which may never come (confluentinc/librdkafka#5456, #5511): the coordinator is looked for only
//! when there is one. So one is made: a connection that is ended is made again at once, and who waits looks around.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rdkafka_sys::RDKafkaErrorCode as Code;

use super::REQUEST_TIMEOUT;
use super::failure::Failure;
use super::sys::{Client, PartitionList};
use crate::client::GroupMetadata;
use crate::record::{OffsetAndMetadata, TopicPartition};

/// How often offsets are sent again when the answer was to repeat it.
const TRIES: u32 = 10;

/// When an answer is late. A coordinator that was there all the time answers in milliseconds.
const LATE: Duration = Duration::from_secs(1);

/// Between two connections that are ended while the answer is late: librdkafka looks for a coordinator once in a second.
const PAUSE: Duration = Duration::from_millis(1_100);

/// How many are ended before the producer is given up: about ten seconds, in which a cluster has found another coordinator.
const ENDS: u32 = 9;

/// # Errors
/// `OperationTimedOut` after about ten seconds: the client is to be left behind. Its thread and handle go when any of its
/// connections changes, at the latest when they have been idle for long enough to be closed. The next one is not ready before
/// the cluster answers, so an outage leaves one behind for each stream thread. Those of librdkafka.
pub(super) fn send_offsets(
    client: &Arc<Client>,
    offsets: &[(TopicPartition, OffsetAndMetadata)],
    group: &GroupMetadata,
) -> Result<(), Failure> {
    let (sender, offsets, group) = (Arc::clone(client), offsets.to_vec(), group.clone());
    let (told, heard) = mpsc::sync_channel(1);
    let send = move || {
        let sent = send(&sender, &offsets, &group);
        drop(sender);
        // Nobody listens any more when it took too long.
        let _ = told.send(sent);
    };
    if let Err(error) = thread::Builder::new().name("send-offsets".to_owned()).spawn(send) {
        return Err(Failure::new(Code::OperationTimedOut, format!("no thread: {error}")));
    }
    if let Ok(sent) = heard.recv_timeout(LATE) {
        return sent;
    }
    for _ in 0..ENDS {
        #[cfg(unix)]
        client.end_a_connection();
        if let Ok(sent) = heard.recv_timeout(PAUSE) {
            return sent;
        }
    }
    let waited = LATE + PAUSE * ENDS;
    let text = format!("the coordinator of the group took longer than {} s", waited.as_secs());
    Err(Failure::new(Code::OperationTimedOut, text))
}

fn send(
    client: &Client,
    offsets: &[(TopicPartition, OffsetAndMetadata)],
    group: &GroupMetadata,
) -> Result<(), Failure> {
    let list = PartitionList::of_committed(offsets)?;
    let mut tries = 0;
    loop {
        match client.send_offsets(&list, group, REQUEST_TIMEOUT) {
            Ok(()) => return Ok(()),
            // Not resumable, but repeatable with the identical offsets.
            Err(failure) if failure.only_repeat() && tries < TRIES => tries += 1,
            Err(failure) => return Err(failure),
        }
    }
}
