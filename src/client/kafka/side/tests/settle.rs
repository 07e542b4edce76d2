//! Transactions that a broker has ended without telling every partition.

use std::sync::atomic::{AtomicU16, Ordering};

use super::*;
use crate::client::kafka::side::settle::Claim;
use crate::membership::classic::protocol::GroupOffsets;

/// Of the transactional id `x` and of nobody else.
const PRODUCER: i64 = 7;

fn body(write: impl FnOnce(&mut Writer)) -> Option<Reply> {
    let mut out = Writer::default();
    out.i32(0);
    write(&mut out);
    out.no_tags();
    Some(Reply::Body(out.0))
}

/// All requests, those about transactions included.
fn newer() -> Option<Reply> {
    let mut out = Writer::default();
    out.i16(0);
    out.list([3, 10, 18, 22, 24, 25, 26, 61, 65].into_iter(), |out, key| {
        out.i16(key);
        out.i16(0);
        out.i16(9);
        out.no_tags();
    });
    out.i32(0);
    out.no_tags();
    Some(Reply::Body(out.0))
}

fn described(state: &str) -> Option<Reply> {
    body(|out| {
        out.list([state].into_iter(), |out, state| {
            out.i16(0);
            out.text("x");
            out.text(state);
            out.i32(1000);
            out.i64(-1);
            out.i64(PRODUCER);
            out.i16(3);
            out.list([(); 0].into_iter(), |_, ()| {});
            out.no_tags();
        });
    })
}

/// Partitions 0 and 1 of `t`, led by broker 1 on `port`; partition 1 may have no leader.
fn metadata(port: u16, leader_of_1: i32) -> Option<Reply> {
    body(|out| {
        out.list([port].into_iter(), |out, port| {
            out.i32(1);
            out.text("127.0.0.1");
            out.i32(port.into());
            out.optional_text(None);
            out.no_tags();
        });
        out.optional_text(None);
        out.i32(1);
        out.list(["t"].into_iter(), |out, topic| {
            out.i16(0);
            out.text(topic);
            out.bool(false);
            out.list([(0, 1), (1, leader_of_1)].into_iter(), |out, (partition, leader)| {
                out.i16(0);
                out.i32(partition);
                out.i32(leader);
                out.i32(0);
                for _ in 0..3 {
                    out.list([1].into_iter(), Writer::i32);
                }
                out.no_tags();
            });
            out.i32(0);
            out.no_tags();
        });
        out.i32(0);
    })
}

/// Of a partition of `t` each: the producer whose transaction is open there.
fn producers(open: &[(i32, Option<i64>)]) -> Option<Reply> {
    body(|out| {
        out.list(["t"].into_iter(), |out, topic| {
            out.text(topic);
            out.list(open.iter(), |out, (partition, producer)| {
                out.i32(*partition);
                out.i16(0);
                out.optional_text(None);
                // One that has nothing open comes first.
                let none = (3, -1);
                out.list([none, producer.map_or(none, |id| (id, 40))].into_iter(), |out, (id, begun_at)| {
                    out.i64(id);
                    out.i32(0);
                    out.i32(0);
                    out.i64(0);
                    out.i32(0);
                    out.i64(begun_at);
                    out.no_tags();
                });
                out.no_tags();
            });
            out.no_tags();
        });
    })
}

fn initialised(code: Code) -> Option<Reply> {
    body(|out| {
        out.i16(code.0);
        out.i64(PRODUCER);
        out.i16(4);
    })
}

fn added() -> Option<Reply> {
    body(|out| out.list([(); 0].into_iter(), |_, ()| {}))
}

/// What a leader and a coordinator hear when `t`[1] was not told; `states`: what the coordinator says, one by one.
fn play(states: &'static [&'static str], concurrent: usize, leaderless: usize) -> (Broker, Broker, Heard) {
    let heard: Heard = Arc::default();
    let (sink, ended) = (Arc::clone(&heard), Arc::clone(&heard));
    let coordinators_port = Arc::new(AtomicU16::new(0));
    let known = Arc::clone(&coordinators_port);
    let leader = Broker::play(move |asked| match asked.api {
        Api::ApiVersions => newer(),
        Api::FindCoordinator => Some(Reply::Body(found(known.load(Ordering::SeqCst)))),
        // Partition 0 alone, as 1 has no leader.
        Api::DescribeProducers if asked.body[3] == 2 => producers(&[(0, Some(8))]),
        Api::DescribeProducers if ended.lock().unwrap().is_empty() => producers(&[(0, Some(8)), (1, Some(PRODUCER))]),
        Api::DescribeProducers => producers(&[(0, Some(8)), (1, None)]),
        _ => None,
    });
    let (port, mut looks, mut inits, mut topics) = (leader.port, 0, 0, 0);
    let coordinator = Broker::play(move |asked| match asked.api {
        Api::ApiVersions => newer(),
        Api::DescribeTransactions => {
            looks += 1;
            described(states[(looks - 1).min(states.len() - 1)])
        }
        // That without topics is to learn which brokers there are.
        Api::Metadata if asked.body.first() != Some(&1) => {
            topics += 1;
            metadata(port, if topics > leaderless { 1 } else { -1 })
        }
        Api::InitProducerId => {
            inits += 1;
            initialised(if inits > concurrent { Code::NONE } else { Code::CONCURRENT_TRANSACTIONS })
        }
        Api::AddPartitionsToTxn => {
            assert_eq!(asked.body, b"\x02x\0\0\0\0\0\0\0\x07\0\x04\x02\x02t\x02\0\0\0\x01\0\0");
            added()
        }
        Api::EndTxn => {
            sink.lock().unwrap().push(asked.body[12] == 1);
            body(|out| out.i16(0))
        }
        _ => None,
    });
    coordinators_port.store(coordinator.port, Ordering::SeqCst);
    (coordinator, leader, heard)
}

/// Whether each transaction was ended by a commit.
type Heard = Arc<Mutex<Vec<bool>>>;

fn own() -> Claim {
    Claim::Own { since: crate::client::kafka::side::now() }
}

#[test]
fn what_is_open_after_an_abort_is_aborted() {
    let (coordinator, leader, heard) = play(&["CompleteAbort"], 0, 0);
    offsets(&[coordinator.port]).settle("x", &["t".into()], own()).unwrap();
    assert_eq!(*heard.lock().unwrap(), [false]);
    assert_eq!((coordinator.asked(Api::InitProducerId), leader.asked(Api::DescribeProducers)), (1, 2));
}

#[test]
fn what_a_producer_has_left_open_is_seen_before_its_next_transaction() {
    let (coordinator, _leader, heard) = play(&["CompleteCommit"], 0, 1);
    let mut side = offsets(&[coordinator.port]);
    let now = crate::client::kafka::side::now();
    // The only leader is not there yet, and is not waited for.
    assert!(!side.has_left_open("x", &["t".into()], now).unwrap());
    assert!(side.has_left_open("x", &["t".into()], now + LONG).unwrap());
    side.settle("x", &["t".into()], own()).unwrap();
    assert!(!side.has_left_open("x", &["t".into()], now + LONG).unwrap());
    assert_eq!(*heard.lock().unwrap(), [true]);
}

#[test]
fn what_is_open_after_a_commit_is_committed() {
    let (coordinator, _leader, heard) = play(&["CompleteCommit"], 0, 0);
    offsets(&[coordinator.port]).settle("x", &["t".into()], own()).unwrap();
    assert_eq!(*heard.lock().unwrap(), [true]);
}

#[test]
fn a_transaction_that_is_under_way_is_seen_to_its_end_first() {
    // Ongoing when first looked at: its commit was on the way.
    let (coordinator, _leader, heard) = play(&["Ongoing", "PrepareCommit", "CompleteCommit"], 2, 0);
    offsets(&[coordinator.port]).settle("x", &["t".into()], own()).unwrap();
    assert_eq!(*heard.lock().unwrap(), [true]);
    let (coordinator, _leader, heard) = play(&["Ongoing", "PrepareAbort", "CompleteAbort"], 2, 0);
    offsets(&[coordinator.port]).settle("x", &["t".into()], own()).unwrap();
    assert_eq!(*heard.lock().unwrap(), [false]);
}

#[test]
fn a_partition_without_a_leader_is_waited_for() {
    let (coordinator, _leader, heard) = play(&["CompleteAbort"], 0, 3);
    offsets(&[coordinator.port]).settle("x", &["t".into()], own()).unwrap();
    assert_eq!(*heard.lock().unwrap(), [false]);
}

#[test]
fn an_id_that_nobody_has_used_is_left_alone() {
    let coordinator = Broker::play(|asked| match asked.api {
        Api::ApiVersions => newer(),
        Api::DescribeTransactions => body(|out| {
            out.list([()].into_iter(), |out, ()| {
                out.i16(Code::TRANSACTIONAL_ID_NOT_FOUND.0);
                out.0.extend([1; 2]);
                out.0.extend([0; 22]);
                out.0.extend([1, 0]);
            });
        }),
        _ => None,
    });
    offsets(&[coordinator.port]).fence(&["x".to_owned()], &["t".into()]).unwrap();
    assert_eq!(coordinator.asked(Api::InitProducerId), 0);
}

#[test]
fn fencing_takes_the_id_even_when_nothing_is_open() {
    let leader = Broker::play(|asked| match asked.api {
        Api::ApiVersions => newer(),
        Api::DescribeProducers => producers(&[(0, None), (1, None)]),
        _ => None,
    });
    let port = leader.port;
    let coordinator = Broker::play(move |asked| match asked.api {
        Api::ApiVersions => newer(),
        Api::DescribeTransactions => described("CompleteCommit"),
        Api::Metadata if asked.body.first() != Some(&1) => metadata(port, 1),
        Api::InitProducerId => initialised(Code::NONE),
        _ => None,
    });
    offsets(&[coordinator.port]).fence(&["x".to_owned()], &["t".into()]).unwrap();
    assert_eq!((coordinator.asked(Api::InitProducerId), coordinator.asked(Api::EndTxn)), (1, 0));
    offsets(&[coordinator.port]).settle("x", &["t".into()], own()).unwrap();
    assert_eq!(coordinator.asked(Api::InitProducerId), 1);
}
