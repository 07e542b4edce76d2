//! A group from outside: what a description and a list together say of it.

use super::*;
use crate::client::{GroupMembers, ListedMember};

/// A response to DescribeGroups 5.
fn described(code: Code, state: &str, members: &[&str]) -> Option<Reply> {
    let mut out = Writer::default();
    out.i32(0);
    out.list([()].into_iter(), |out, ()| {
        out.i16(code.0);
        for text in ["group", state, "consumer", "rs-streams-1"] {
            out.text(text);
        }
        out.list(members.iter(), |out, id| {
            out.text(id);
            out.optional_text(None);
            out.text("client");
            out.text("/10.0.0.1");
            out.bytes(b"subscription");
            out.bytes(b"");
            out.no_tags();
        });
        out.i32(0);
        out.no_tags();
    });
    out.no_tags();
    Some(Reply::Body(out.0))
}

/// A response to ListGroups 5.
fn listed(groups: &[[&str; 3]]) -> Option<Reply> {
    let mut out = Writer::default();
    out.i32(0);
    out.i16(0);
    out.list(groups.iter(), |out, [name, state, kind]| {
        for text in [name, "consumer", state, kind] {
            out.text(text);
        }
        out.no_tags();
    });
    out.no_tags();
    Some(Reply::Body(out.0))
}

#[test]
fn members_of_a_classic_group_are_listed_without_another_question() {
    let broker = Broker::play(|asked| match asked.api {
        Api::DescribeGroups => described(Code::NONE, "Stable", &["m"]),
        _ => None,
    });
    let member = ListedMember { id: "m".to_owned(), host: "10.0.0.1".to_owned() };
    assert_eq!(offsets(&[broker.port]).members().unwrap(), GroupMembers::Listed(vec![member]));
    assert_eq!(broker.asked(Api::ListGroups), 0);
}

#[test]
fn a_group_that_seems_dead_may_have_members_of_a_newer_protocol() {
    let members = |groups: &'static [[&'static str; 3]]| {
        let broker = Broker::play(move |asked| match asked.api {
            Api::DescribeGroups => described(Code::NONE, "Dead", &[]),
            Api::ListGroups => listed(groups),
            _ => None,
        });
        offsets(&[broker.port]).members().unwrap()
    };
    assert_eq!(members(&[]), GroupMembers::Listed(vec![]));
    let empty = members(&[["other", "Stable", "Classic"], ["group", "Empty", "Streams"]]);
    assert_eq!(empty, GroupMembers::Listed(vec![]));
    let streams = members(&[["other", "Stable", "Classic"], ["group", "Stable", "Streams"]]);
    assert_eq!(streams, GroupMembers::OfProtocol("streams".to_owned()));
}

#[test]
fn a_description_that_cannot_be_given_yet_is_asked_for_again() {
    let mut tries = 0;
    let broker = Broker::play(move |asked| {
        (asked.api == Api::DescribeGroups).then(|| tries += 1).and_then(|()| match tries {
            1 => Some(Reply::HangUp),
            2 => described(Code::COORDINATOR_LOAD_IN_PROGRESS, "", &[]),
            3 => described(Code::NOT_COORDINATOR, "", &[]),
            _ => described(Code::NONE, "Empty", &[]),
        })
    });
    assert_eq!(offsets(&[broker.port]).members().unwrap(), GroupMembers::Listed(vec![]));
    assert_eq!(broker.asked(Api::DescribeGroups), 4);
}
