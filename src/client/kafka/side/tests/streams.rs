//! Members of streams groups: what they hear whatever happens to connections and coordinators.

use super::*;
use crate::membership::streams::protocol::{Heard, Heartbeat, HeartbeatAnswer, StreamsError};

fn member(ports: &[u16]) -> super::super::SideStreams {
    super::super::SideStreams::new(settings(ports, &[]), "group", "client").unwrap()
}

fn beat(number: u64) -> Heartbeat {
    let member = "m".to_owned();
    Heartbeat {
        number,
        member,
        epoch: 1,
        endpoint_epoch: -1,
        introduction: None,
        owned: None,
        progress: None,
        shuts_down: false,
    }
}

fn ask(member: &mut super::super::SideStreams, number: u64) -> Heard {
    member.send(beat(number));
    loop {
        if let Some(HeartbeatAnswer { number: answered, heard }) = member.poll() {
            assert_eq!(answered, number);
            return heard;
        }
        member.wait(LONG);
    }
}

#[test]
fn a_coordinator_that_has_moved_or_hung_up_is_found_again() {
    let mut beats = 0;
    let broker = Broker::play(move |asked| {
        beats += usize::from(asked.api == Api::StreamsGroupHeartbeat);
        match (asked.api, beats) {
            (Api::StreamsGroupHeartbeat, 1) => refusal(Code::NOT_COORDINATOR),
            (Api::StreamsGroupHeartbeat, 3) => Some(Reply::HangUp),
            _ => None,
        }
    });
    let mut member = member(&[broker.port]);
    assert!(matches!(ask(&mut member, 1), Heard::Taken(_)));
    assert_eq!(ask(&mut member, 2), Heard::Disconnected);
    assert!(matches!(ask(&mut member, 3), Heard::Taken(_)));
    assert_eq!(broker.asked(Api::FindCoordinator), 3);
}

#[test]
fn what_is_no_answer_counts_as_none() {
    let body = || Reply::Body(vec![0; 8]);
    let broker = Broker::play(move |asked| (asked.api == Api::StreamsGroupHeartbeat).then(body));
    assert_eq!(ask(&mut member(&[broker.port]), 1), Heard::Disconnected);
}

#[test]
fn a_refusal_is_told() {
    let broker = Broker::play(|asked| match asked.api {
        Api::StreamsGroupHeartbeat => refusal(Code::FENCED_MEMBER_EPOCH),
        _ => None,
    });
    assert_eq!(ask(&mut member(&[broker.port]), 1), Heard::Refused(StreamsError::FencedEpoch, String::new()));
}

#[test]
fn a_broker_without_streams_groups_is_named_with_the_remedy() {
    let broker = Broker::play(|asked| {
        let mut out = Writer::default();
        out.i16(0);
        out.list([3, 10, 18].into_iter(), |out, key| {
            out.i16(key);
            out.i16(0);
            out.i16(9);
            out.no_tags();
        });
        out.i32(0);
        out.no_tags();
        (asked.api == Api::ApiVersions).then_some(Reply::Body(out.0))
    });
    let Heard::Refused(StreamsError::Denied, words) = ask(&mut member(&[broker.port]), 1) else { panic!() };
    assert!(words.contains("4.2") && words.contains("GroupProtocol::Sticky"), "{words}");
}
