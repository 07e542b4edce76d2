//! Members: what they hear whatever happens to connections and coordinators.

use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Token};

use super::super::Failure;
use super::super::lane::{Lane, Outcome};
use super::super::requests::Request;
use super::*;
use crate::membership::classic::protocol::{GroupError, RequestKind};

#[test]
fn a_member_is_answered_by_the_coordinator_that_any_broker_names() {
    let second = Broker::play(|_| None);
    let port = second.port;
    let first = Broker::play(move |asked| (asked.api == Api::FindCoordinator).then(|| Reply::Body(found(port))));
    let mut member = coordinator(settings(&[first.port], &[]));
    for _ in 0..3 {
        assert_eq!(ask(&mut member, heartbeat()), GroupAnswer::Alive);
    }
    assert_eq!((first.asked(Api::Heartbeat), second.asked(Api::Heartbeat)), (0, 3));
    assert_eq!((first.asked(Api::FindCoordinator), second.asked(Api::ApiVersions)), (1, 1));
}

#[test]
fn a_coordinator_that_has_moved_is_found_again() {
    let mut moved = false;
    let broker = Broker::play(move |asked| {
        let refused = asked.api == Api::Heartbeat && !std::mem::replace(&mut moved, true);
        refused.then(|| refusal(Code::NOT_COORDINATOR)).flatten()
    });
    let mut member = coordinator(settings(&[broker.port], &[]));
    assert_eq!(ask(&mut member, heartbeat()), GroupAnswer::Alive);
    assert_eq!((broker.asked(Api::FindCoordinator), broker.asked(Api::ApiVersions)), (2, 1));
}

#[test]
fn a_coordinator_that_is_loading_or_being_made_is_asked_again() {
    let (mut finds, mut beats) = (0, 0);
    let broker = Broker::play(move |asked| match asked.api {
        Api::FindCoordinator => {
            finds += 1;
            (finds < 4).then(|| refusal(Code::COORDINATOR_NOT_AVAILABLE)).flatten()
        }
        Api::Heartbeat => {
            beats += 1;
            (beats < 3).then(|| refusal(Code::COORDINATOR_LOAD_IN_PROGRESS)).flatten()
        }
        _ => None,
    });
    let mut member = coordinator(settings(&[broker.port], &[]));
    assert_eq!(ask(&mut member, heartbeat()), GroupAnswer::Alive);
    assert_eq!((broker.asked(Api::FindCoordinator), broker.asked(Api::Heartbeat)), (4, 3));
}

#[test]
fn a_join_that_waits_holds_back_no_heartbeat() {
    let broker = Broker::play(|asked| (asked.api == Api::JoinGroup).then_some(Reply::Silence));
    let mut member = coordinator(settings(&[broker.port], &[]));
    member.send(join());
    assert_eq!(ask(&mut member, heartbeat()), GroupAnswer::Alive);
    assert_eq!(ask(&mut member, heartbeat()), GroupAnswer::Alive);
}

#[test]
fn what_a_member_acts_upon_is_told_as_a_refusal() {
    let broker = Broker::play(|asked| match asked.api {
        Api::Heartbeat => refusal(Code::REBALANCE_IN_PROGRESS),
        Api::JoinGroup => {
            let mut out = Writer::default();
            out.i32(0);
            out.i16(Code::MEMBER_ID_REQUIRED.0);
            out.i32(-1);
            out.optional_text(None);
            out.optional_text(None);
            out.text("");
            out.bool(false);
            out.text("the-id");
            Some(Reply::Body(out.0))
        }
        _ => None,
    });
    let mut member = coordinator(settings(&[broker.port], &[]));
    let refused = |request, error| GroupAnswer::Refused { request, error };
    let rebalance = refused(RequestKind::Heartbeat, GroupError::RebalanceInProgress);
    assert_eq!(ask(&mut member, heartbeat()), rebalance);
    let id = refused(RequestKind::Join, GroupError::MemberIdRequired("the-id".to_owned()));
    assert_eq!(ask(&mut member, join()), id);
}

#[test]
fn a_connection_that_breaks_under_a_request_is_told_and_made_again() {
    let mut broken = false;
    let broker = Broker::play(move |asked| {
        (asked.api == Api::Heartbeat && !std::mem::replace(&mut broken, true)).then_some(Reply::HangUp)
    });
    let mut member = coordinator(settings(&[broker.port], &[]));
    assert_eq!(ask(&mut member, heartbeat()), GroupAnswer::Disconnected(RequestKind::Heartbeat));
    assert_eq!(ask(&mut member, heartbeat()), GroupAnswer::Alive);
}

#[test]
fn an_idle_connection_that_the_broker_closes_is_made_again_unseen() {
    // The lane of joins is idle between rebalances: the broker hangs up after its first answer.
    let broker = Broker::play(|asked| {
        let joined = asked.api == Api::JoinGroup && asked.connection == 1;
        joined.then(|| {
            let mut frame = b"\0\0\0\x26\0\0\0\x04\0".to_vec();
            frame.extend(error(Code::UNKNOWN_MEMBER_ID).iter().take(33));
            Reply::Raw(frame)
        })
    });
    let mut member = coordinator(settings(&[broker.port], &[]));
    let refused = GroupAnswer::Refused { request: RequestKind::Join, error: GroupError::UnknownMemberId };
    assert_eq!(ask(&mut member, join()), refused);
    // The end of the connection is seen while the other lane is at work.
    while broker.asked(Api::Heartbeat) < 3 {
        assert_eq!(ask(&mut member, heartbeat()), GroupAnswer::Alive);
    }
    assert!(!matches!(ask(&mut member, join()), GroupAnswer::Refused { .. }));
}

#[test]
fn the_other_bootstrap_servers_are_tried_when_one_is_down() {
    let broker = Broker::play(|_| None);
    // Enough of them that one which is down comes first in some.
    for _ in 0..4 {
        let mut member = coordinator(settings(&[nobody(), broker.port, nobody()], &[]));
        assert_eq!(ask(&mut member, heartbeat()), GroupAnswer::Alive);
    }
}

#[test]
fn brokers_that_were_learned_are_asked_when_the_bootstrap_servers_are_gone() {
    let second = Broker::play(|_| None);
    let port = second.port;
    let first = Broker::play(move |asked| match asked.api {
        Api::Metadata => {
            let mut out = Writer::default();
            out.i32(0);
            out.list([()].into_iter(), |out, ()| {
                out.i32(2);
                out.text("127.0.0.1");
                out.i32(port.into());
                out.optional_text(None);
                out.no_tags();
            });
            Some(Reply::Body(out.0))
        }
        Api::Heartbeat => Some(Reply::HangUp),
        _ => (asked.connection > 1).then_some(Reply::HangUp),
    });
    let mut member = coordinator(settings(&[first.port], &[]));
    assert_eq!(ask(&mut member, heartbeat()), GroupAnswer::Disconnected(RequestKind::Heartbeat));
    for _ in 0..3 {
        assert_eq!(ask(&mut member, heartbeat()), GroupAnswer::Alive);
    }
    assert_eq!((first.asked(Api::Metadata), second.asked(Api::Metadata)), (1, 0));
}

#[test]
fn nonsense_on_a_new_connection_is_survived() {
    let bad: [&[u8]; 5] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x03\0\x02\x02\x50",
        b"\0\0\0\x01\0",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
    ];
    let mut bad: Vec<Vec<u8>> = bad.iter().map(|bytes| bytes.to_vec()).collect();
    // Frames of the right length with any bytes, always the same ones.
    let mut state = 7u64;
    bad.extend((0..40).map(|length| {
        let mut frame = vec![0, 0, 0, length];
        frame.extend((0..length).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        }));
        frame
    }));
    let attempts = bad.len() + 1;
    let broker = Broker::play(move |asked| bad.get(asked.connection - 1).cloned().map(Reply::Raw));
    let mut member = coordinator(settings(&[broker.port], &[]));
    assert_eq!(ask(&mut member, heartbeat()), GroupAnswer::Alive);
    assert_eq!(broker.asked(Api::ApiVersions), attempts);
}

#[test]
fn a_long_answer_is_read_whole() {
    let broker = Broker::play(|asked| (asked.api == Api::SyncGroup).then(long_assignment));
    let mut member = coordinator(settings(&[broker.port], &[]));
    assert_eq!(ask(&mut member, sync()), long_answer());
}

#[test]
fn an_answer_that_cannot_be_read_is_no_answer() {
    let mut first = true;
    let broker = Broker::play(move |asked| {
        let bad = asked.api == Api::SyncGroup && std::mem::replace(&mut first, false);
        bad.then(|| Reply::Body(b"\0\0\0\0\0\0\0\0\x7f".to_vec()))
    });
    let mut member = coordinator(settings(&[broker.port], &[]));
    let sync = || GroupRequest::Sync { generation: 1, member: "m".to_owned(), instance: None, assignments: Vec::new() };
    assert_eq!(ask(&mut member, sync()), GroupAnswer::Disconnected(RequestKind::Sync));
    let nothing = GroupAnswer::Synced { partitions: Vec::new(), user_data: Vec::new() };
    assert_eq!(ask(&mut member, sync()), nothing);
}

#[test]
fn a_broker_before_2_5_is_told() {
    let broker = Broker::play(|asked| (asked.api == Api::ApiVersions).then(|| Reply::Body(versions(5))));
    let mut member = coordinator(settings(&[broker.port], &[]));
    let GroupAnswer::Refused { error: GroupError::Denied(text), .. } = ask(&mut member, join()) else {
        panic!("not refused")
    };
    assert!(text.contains("JoinGroup 7") && text.contains("2.5"), "{text}");
}

#[test]
fn a_wake_up_ends_a_wait() {
    let mut member = coordinator(settings(&[nobody()], &[]));
    let wake = member.waker();
    wake();
    member.wait(LONG);
    let other = std::thread::spawn(move || wake());
    member.wait(LONG);
    other.join().unwrap();
}

#[test]
fn more_requests_than_fit_are_told_as_not_sent() {
    let broker = Broker::play(|asked| (asked.api == Api::Heartbeat).then_some(Reply::Silence));
    let mut member = coordinator(settings(&[broker.port], &[]));
    for _ in 0..100 {
        member.send(heartbeat());
    }
    assert_eq!(next(&mut member), GroupAnswer::Disconnected(RequestKind::Heartbeat));
}

/// A lane whose time the test sets.
struct Timed {
    lane: Lane,
    poll: Poll,
    now: std::time::Instant,
}

impl Timed {
    #[expect(clippy::disallowed_methods, reason = "time begins somewhere; the test moves it")]
    fn new(settings: SideSettings) -> Timed {
        let lane = Lane::new(Arc::new(settings), &"group".into(), &"client".into(), Token(0));
        Timed { lane, poll: Poll::new().unwrap(), now: std::time::Instant::now() }
    }

    fn start(&mut self, timeout: Duration) {
        self.lane.start(Request::Group(heartbeat()), self.now + timeout);
    }

    /// Drives until there is an outcome or `enough`; time stands still.
    fn until(&mut self, mut enough: impl FnMut() -> bool) -> Option<Outcome> {
        let mut events = Events::with_capacity(4);
        loop {
            let outcome = self.lane.step(self.now, self.poll.registry());
            if outcome.is_some() || enough() {
                return outcome;
            }
            self.poll.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
        }
    }
}

#[test]
fn a_silent_coordinator_costs_the_time_of_the_request_and_the_connection() {
    let broker = Broker::play(|asked| (asked.api == Api::Heartbeat && asked.connection == 1).then_some(Reply::Silence));
    let mut timed = Timed::new(settings(&[broker.port], &[]));
    timed.start(Duration::from_secs(3));
    assert!(timed.until(|| broker.asked(Api::Heartbeat) == 1).is_none());
    assert_eq!(timed.lane.next_time(), Some(timed.now + Duration::from_secs(3)));
    timed.now += Duration::from_secs(3);
    assert!(matches!(timed.until(|| false), Some(Outcome::Failed { failure: Failure::Lost(_), .. })));

    // The late answer of the first cannot be taken for the second's.
    timed.start(Duration::from_secs(3));
    assert!(matches!(timed.until(|| false), Some(Outcome::Answer { .. })));
    assert_eq!(broker.asked(Api::ApiVersions), 2);
}

#[test]
fn a_broker_that_does_not_answer_a_new_connection_is_left() {
    let broker =
        Broker::play(|asked| (asked.api == Api::ApiVersions && asked.connection == 1).then_some(Reply::Silence));
    let timeout = [("socket.connection.setup.timeout.ms", "1000")];
    let mut timed = Timed::new(settings(&[broker.port], &timeout));
    timed.start(LONG);
    assert!(timed.until(|| broker.asked(Api::ApiVersions) == 1).is_none());
    timed.now += Duration::from_secs(1);
    assert!(timed.until(|| true).is_none());
    // The pause before the next attempt.
    timed.now += Duration::from_secs(1);
    assert!(matches!(timed.until(|| false), Some(Outcome::Answer { .. })));
}

#[test]
fn a_broker_that_takes_connections_and_no_requests_is_not_asked_without_a_pause() {
    let broker = Broker::play(|asked| (asked.api == Api::FindCoordinator).then_some(Reply::HangUp));
    let mut timed = Timed::new(settings(&[broker.port], &[]));
    timed.start(LONG);
    for attempts in 1..4 {
        let pauses =
            |timed: &Timed| timed.lane.next_time().is_some_and(|time| time < timed.now + Duration::from_secs(1));
        while !pauses(&timed) {
            assert!(timed.until(|| true).is_none());
        }
        assert_eq!(broker.asked(Api::FindCoordinator), attempts);
        timed.now += Duration::from_secs(1);
        assert!(timed.until(|| true).is_none());
    }
}

#[test]
fn a_coordinator_that_is_down_is_looked_for_again() {
    let (gone, mut finds) = (nobody(), 0);
    let broker = Broker::play(move |asked| {
        finds += usize::from(asked.api == Api::FindCoordinator);
        (asked.api == Api::FindCoordinator && finds < 3).then(|| Reply::Body(found(gone)))
    });
    let mut member = coordinator(settings(&[broker.port], &[]));
    assert_eq!(ask(&mut member, heartbeat()), GroupAnswer::Alive);
    assert_eq!(broker.asked(Api::FindCoordinator), 3);
}

#[test]
fn nobody_is_told_with_what_the_connection_said() {
    let mut timed = Timed::new(settings(&[nobody()], &[]));
    timed.start(Duration::from_secs(3));
    assert!(timed.until(|| true).is_none());
    let mut tries = 0;
    while timed.lane.next_time() == Some(timed.now + Duration::from_secs(3)) && tries < 10_000 {
        assert!(timed.until(|| true).is_none());
        tries += 1;
    }
    timed.now += Duration::from_secs(3);
    let Some(Outcome::Failed { failure: Failure::Lost(text), .. }) = timed.until(|| false) else { panic!("answered") };
    assert!(text.contains("127.0.0.1") && text.contains("could not connect"), "{text}");
}

#[test]
fn a_connection_that_was_silent_for_long_is_not_trusted_with_a_request() {
    let broker = Broker::play(|_| None);
    let mut timed = Timed::new(settings(&[broker.port], &[]));
    for (after_s, connections) in [(0, 1), (60, 1), (61, 2)] {
        timed.now += Duration::from_secs(after_s);
        timed.start(LONG);
        assert!(matches!(timed.until(|| false), Some(Outcome::Answer { .. })));
        assert_eq!(broker.asked(Api::ApiVersions), connections);
    }
}

#[test]
fn credentials_are_shown_again_before_the_broker_stops_heeding_them() {
    let broker = Broker::play(|asked| match asked.api {
        Api::SaslHandshake => Some(Reply::Body(b"\0\0\0\0\0\0".to_vec())),
        Api::SaslAuthenticate => Some(Reply::Body(b"\0\0\0\x01\0\0\0\0\0\0\x03\xe8\0".to_vec())),
        _ => None,
    });
    let sasl = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanisms", "PLAIN"),
        ("sasl.username", "u"),
        ("sasl.password", "p"),
    ];
    let mut timed = Timed::new(settings(&[broker.port], &sasl));
    for (after_ms, connections) in [(0, 1), (800, 1), (100, 2)] {
        timed.now += Duration::from_millis(after_ms);
        timed.start(LONG);
        assert!(matches!(timed.until(|| false), Some(Outcome::Answer { .. })));
        assert_eq!(broker.asked(Api::SaslAuthenticate), connections);
    }
}
