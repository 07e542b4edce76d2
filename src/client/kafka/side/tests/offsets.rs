//! Offsets and fencing: what is asked again, and what a refusal becomes.

use super::*;
use crate::client::GroupMetadata;
use crate::error::ErrorKind;
use crate::membership::classic::protocol::GroupOffsets;
use crate::record::{OffsetAndMetadata, TopicPartition};

/// A response to OffsetFetch 9 about partitions 0 and 1 of `t`.
fn fetched(first: (i64, Code), second: (i64, Code)) -> Option<Reply> {
    let mut out = Writer::default();
    out.i32(0);
    out.list([()].into_iter(), |out, ()| {
        out.text("group");
        out.list([()].into_iter(), |out, ()| {
            out.text("t");
            out.list([(0, first), (1, second)].into_iter(), |out, (partition, (offset, code))| {
                out.i32(partition);
                out.i64(offset);
                out.i32(-1);
                out.text("told");
                out.i16(code.0);
                out.no_tags();
            });
            out.no_tags();
        });
        out.i16(0);
        out.no_tags();
    });
    out.no_tags();
    Some(Reply::Body(out.0))
}

fn committed(code: Code) -> Option<Reply> {
    let mut out = Writer::default();
    out.i32(0);
    out.list([()].into_iter(), |out, ()| {
        out.text("t");
        out.list([()].into_iter(), |out, ()| {
            out.i32(0);
            out.i16(code.0);
            out.no_tags();
        });
        out.no_tags();
    });
    out.no_tags();
    Some(Reply::Body(out.0))
}

fn partitions() -> [TopicPartition; 2] {
    [TopicPartition::new("t", 1), TopicPartition::new("t", 0)]
}

fn commit(ports: &[u16]) -> crate::error::Result<()> {
    let member = GroupMetadata { group: "group".into(), generation: 3, member: "m".into(), instance: None };
    let at = OffsetAndMetadata { offset: 5, metadata: "told".into() };
    offsets(ports).commit(&[(TopicPartition::new("t", 0), at)], &member)
}

#[test]
fn committed_positions_come_in_the_order_asked_for() {
    let broker = Broker::play(|asked| {
        assert!(asked.api != Api::OffsetFetch || asked.version == 9);
        (asked.api == Api::OffsetFetch).then(|| fetched((7, Code::NONE), (-1, Code::NONE))).flatten()
    });
    let at = OffsetAndMetadata { offset: 7, metadata: "told".into() };
    assert_eq!(offsets(&[broker.port]).committed(&partitions()).unwrap(), [None, Some(at)]);
}

#[test]
fn a_position_that_a_transaction_may_change_is_waited_for() {
    let mut looks = 0;
    let broker = Broker::play(move |asked| {
        (asked.api == Api::OffsetFetch).then(|| looks += 1).and_then(|()| match looks {
            ..4 => fetched((7, Code::NONE), (-1, Code::UNSTABLE_OFFSET_COMMIT)),
            _ => fetched((8, Code::NONE), (9, Code::NONE)),
        })
    });
    let found = offsets(&[broker.port]).committed(&partitions()).unwrap();
    assert_eq!(found.into_iter().map(|at| at.unwrap().offset).collect::<Vec<_>>(), [9, 8]);
    assert_eq!(broker.asked(Api::OffsetFetch), 4);
}

#[test]
fn a_position_that_stays_undecided_says_that_a_transaction_is_open() {
    let broker = Broker::play(|asked| {
        let undecided = || fetched((7, Code::NONE), (-1, Code::UNSTABLE_OFFSET_COMMIT));
        (asked.api == Api::OffsetFetch).then(undecided).flatten()
    });
    // A busy machine may not get as far as the first answer.
    let mut patience = Duration::from_millis(20);
    loop {
        patience *= 2;
        let settings = settings(&[broker.port], &[]);
        let mut offsets = SideOffsets::with_patience(settings, "group", "client", patience).unwrap();
        let error = offsets.committed(&partitions()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        if error.to_string().contains("a transaction that would change them is still open") {
            break;
        }
    }
}

#[test]
fn a_commit_between_two_assignments_is_sent_again() {
    let mut tries = 0;
    let broker = Broker::play(move |asked| {
        (asked.api == Api::OffsetCommit).then(|| tries += 1).and_then(|()| match tries {
            1 => Some(Reply::HangUp),
            2 => committed(Code::REBALANCE_IN_PROGRESS),
            3 => committed(Code::NOT_COORDINATOR),
            _ => committed(Code::NONE),
        })
    });
    commit(&[broker.port]).unwrap();
    assert_eq!(broker.asked(Api::OffsetCommit), 4);
}

#[test]
fn a_commit_of_a_member_that_has_lost_its_place_is_fenced() {
    for code in [Code::ILLEGAL_GENERATION, Code::UNKNOWN_MEMBER_ID, Code::FENCED_INSTANCE_ID] {
        let broker = Broker::play(move |asked| (asked.api == Api::OffsetCommit).then(|| committed(code)).flatten());
        let error = commit(&[broker.port]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert!(error.to_string().contains("t[0]"), "{error}");
    }
}

#[test]
fn a_lack_of_rights_is_told_with_the_remedy() {
    let denied = |asked: &Asked<'_>| {
        (asked.api == Api::OffsetCommit).then(|| committed(Code::GROUP_AUTHORIZATION_FAILED)).flatten()
    };
    let error = commit(&[Broker::play(denied).port]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("grant READ on the application id"), "{error}");
}

#[test]
fn every_transactional_id_is_fenced_at_its_own_coordinator() {
    let second = Broker::play(|_| None);
    let port = second.port;
    let mut tries = 0;
    let first = Broker::play(move |asked| match asked.api {
        Api::FindCoordinator if asked.body.starts_with(b"\x04t-2\x01") => Some(Reply::Body(found(port))),
        Api::InitProducerId => {
            tries += 1;
            (tries < 3).then(|| refusal(Code::CONCURRENT_TRANSACTIONS)).flatten()
        }
        _ => None,
    });
    let mut offsets = offsets(&[first.port]);
    offsets.fence(&["t-1".to_owned(), "t-2".to_owned()], &[]).unwrap();
    assert_eq!((first.asked(Api::InitProducerId), second.asked(Api::InitProducerId)), (3, 1));
    assert!(first.asked(Api::FindCoordinator) >= 2);
}

#[test]
fn nobody_to_ask_is_unavailable_with_the_reason() {
    let patience = Duration::from_millis(20);
    let settings = settings(&[nobody()], &[]);
    let mut offsets = SideOffsets::with_patience(settings, "group", "client", patience).unwrap();
    let error = offsets.committed(&partitions()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.report().contains("could not connect"), "{}", error.report());
}
