//! Transactions that are still open though the process that began them is not in the streams group any more.
//!
//! ```text
//!   every broker:  ListTransactions ── open, with an id of the application ──┐
//!   coordinator:   StreamsGroupDescribe ── whose process is no member ───────┴──> they are fenced
//! ```
//!
//! The list is taken before the members: who is in it and is no member afterwards cannot commit what it has begun, for the
//! group refuses its offsets. Members of a classic group tell each other their ids; those of a streams group tell the
//! broker their process, which Java and this library alike make ids of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mio::Token;
use uuid::Uuid;

use super::code::Code;
use super::codec::{Malformed, Reader, Result, Writer};
use super::lane::{Lane, Outcome};
use super::offsets::{SideOffsets, Verdict, judged};
use super::outside::Inquiry;
use super::requests::Request;
use super::security::Address;
use super::sockets::Sockets;
use super::{Failure, responses};
use crate::error::{self, Error, ErrorKind};
use crate::membership::classic::protocol::GroupOffsets as _;

/// How many brokers are asked at the same time.
const AT_ONCE: usize = 16;

/// Who does not answer within it is asked another time.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is committed or aborted already ends by itself.
const OPEN: &str = "Ongoing";

/// The body of `ListTransactions` without its tags.
pub(super) fn encode_list(group: &str, version: i16, out: &mut Writer) {
    out.list([OPEN].into_iter(), Writer::text);
    // Of any producer, open for any time.
    out.list([(); 0].into_iter(), |_, ()| {});
    if version >= 1 {
        out.i64(-1);
    }
    if version >= 2 {
        // Before, all that the principal may see are told.
        out.optional_text(Some(&format!("\\Q{group}-\\E.*")));
    }
}

/// The transactional ids that a broker tells of.
fn listed(body: &[u8]) -> Result<(Code, Vec<String>)> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    let error = Code(reader.i16()?);
    // Filters that the broker does not know.
    reader.list(Reader::text)?;
    let ids = reader.list(|reader| {
        let id = reader.text()?;
        reader.i64()?;
        reader.text()?;
        reader.tags()?;
        Ok(id)
    })?;
    Ok((error, ids))
}

/// The processes that have members in the first group of a `StreamsGroupDescribe`.
fn processes(body: &[u8]) -> Result<(Code, BTreeSet<String>)> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    let groups = reader.list(|reader| {
        let error = Code(reader.i16()?);
        // Message, id, state, and the epochs of the group and its assignment.
        let _passed_over = (reader.text()?, reader.text()?, reader.text()?, reader.i32()?, reader.i32()?);
        if reader.i8()? > 0 {
            skip_topology(reader)?;
        }
        let members = reader.list(process)?;
        reader.i32()?;
        reader.tags()?;
        Ok((error, members.into_iter().collect()))
    })?;
    groups.into_iter().next().ok_or(Malformed("it describes no group"))
}

fn skip_topology(reader: &mut Reader<'_>) -> Result<()> {
    let topic = |reader: &mut Reader<'_>| {
        let _passed_over = (reader.text()?, reader.i32()?, reader.i16()?);
        reader.list(skip_pair)?;
        reader.tags()
    };
    reader.i32()?;
    reader.list(|reader| {
        let _passed_over = (reader.text()?, reader.list(Reader::text)?, reader.list(Reader::text)?);
        let _passed_over = (reader.list(topic)?, reader.list(topic)?);
        reader.tags()
    })?;
    reader.tags()
}

fn skip_pair(reader: &mut Reader<'_>) -> Result<()> {
    let _passed_over = (reader.text()?, reader.text()?);
    reader.tags()
}

/// A member's process; what else it is, is passed over.
fn process(reader: &mut Reader<'_>) -> Result<String> {
    // Member, epoch, instance, rack, client and host, and the topology's epoch.
    let _passed_over =
        (reader.text()?, reader.i32()?, reader.text()?, reader.text()?, reader.text()?, reader.text()?, reader.i32()?);
    let process = reader.text()?;
    if reader.i8()? > 0 {
        let _passed_over = (reader.text()?, reader.i16()?);
        reader.tags()?;
    }
    reader.list(skip_pair)?;
    let offset = |reader: &mut Reader<'_>| {
        let _passed_over = (reader.text()?, reader.i32()?, reader.i64()?);
        reader.tags()
    };
    let _passed_over = (reader.list(offset)?, reader.list(offset)?);
    let tasks = |reader: &mut Reader<'_>| {
        let _passed_over = (reader.text()?, reader.list(Reader::i32)?);
        reader.tags()
    };
    // The assignment and the one that is aimed at.
    for _ in 0..2 {
        let _passed_over = (reader.list(tasks)?, reader.list(tasks)?, reader.list(tasks)?);
        reader.tags()?;
    }
    // Whether it speaks the classic protocol.
    reader.bool()?;
    reader.tags()?;
    Ok(process)
}

/// The process in a transactional id: `{application}-{process}-{thread}`.
fn process_of<'a>(id: &'a str, group: &str) -> Option<&'a str> {
    let (process, thread) = id.strip_prefix(group)?.strip_prefix('-')?.rsplit_once('-')?;
    let is_thread = !thread.is_empty() && thread.bytes().all(|byte| byte.is_ascii_digit());
    (is_thread && Uuid::try_parse(process).is_ok()).then_some(process)
}

impl SideOffsets {
    pub(super) fn end_what_is_left_open(&mut self, own: &str, outputs: &[Arc<str>]) -> error::Result<()> {
        let patience = self.patience;
        self.patience = patience.min(PATIENCE);
        let ended = self.look_for_the_gone(own, outputs);
        self.patience = patience;
        ended
    }

    fn look_for_the_gone(&mut self, own: &str, outputs: &[Arc<str>]) -> error::Result<()> {
        let judge = |_, body: &[u8]| responses::metadata(body).map(Verdict::Is);
        let brokers = self.call(Request::Outside(Inquiry::Brokers), "ask which brokers there are", judge)?;
        let brokers: Vec<_> = brokers.into_iter().map(|(host, port)| Address { host, port }).collect();
        let (open, unheard) = self.open_transactions(brokers)?;
        if open.iter().any(|id| process_of(id, &self.group).is_some_and(|process| process != own)) {
            let judge = |_, body: &[u8]| {
                let (code, members) = processes(body)?;
                Ok(if code == Code::NONE { Verdict::Is(members) } else { judged(code, String::new()) })
            };
            let members = self.call(Request::Outside(Inquiry::StreamsMembers), "ask who is in the group", judge)?;
            let group = Arc::clone(&self.group);
            let is_gone = |id: &String| {
                process_of(id, &group).is_some_and(|process| process != own && !members.contains(process))
            };
            let gone: Vec<_> = open.into_iter().filter(is_gone).collect();
            if !gone.is_empty() {
                tracing::info!(group = %self.group, ids = ?gone, "ending what processes that are gone have left open");
                self.fence(&gone, outputs)?;
            }
        }
        match unheard {
            None => Ok(()),
            Some(failure) => {
                let context = format!("could not ask every broker for open transactions of {}", self.group);
                Err(Error::new(ErrorKind::Unavailable, context).with_source(failure))
            }
        }
    }

    /// Of this application, and why it may be that some are missing.
    fn open_transactions(&self, brokers: Vec<Address>) -> error::Result<(Vec<String>, Option<Failure>)> {
        let (mut open, mut unheard) = (Vec::new(), None);
        for outcome in self.ask_each(brokers)? {
            match outcome {
                Outcome::Answer { body, .. } => match listed(&body) {
                    Ok((Code::NONE, ids)) => open.extend(ids),
                    Ok((code, _)) => unheard = Some(Failure::Lost(format!("a broker cannot tell yet: {code}"))),
                    Err(malformed) => unheard = Some(Failure::malformed(malformed)),
                },
                Outcome::Failed { failure, .. } => unheard = Some(failure),
            }
        }
        Ok((open, unheard))
    }

    /// On connections that are closed afterwards.
    fn ask_each(&self, brokers: Vec<Address>) -> error::Result<Vec<Outcome>> {
        let (mut outcomes, mut brokers) = (Vec::new(), brokers.into_iter().peekable());
        while brokers.peek().is_some() {
            let mut sockets = Sockets::new(&self.group)?;
            let end = super::now() + self.patience;
            let lane = |(number, broker)| {
                let mut lane = self.lane.beside(Token(number));
                lane.start(Request::Outside(Inquiry::OpenTransactions(broker)), end);
                lane
            };
            let mut lanes: Vec<Lane> = brokers.by_ref().take(AT_ONCE).enumerate().map(lane).collect();
            while lanes.iter().any(Lane::is_busy) {
                let now = super::now();
                outcomes.extend(lanes.iter_mut().filter_map(|lane| lane.step(now, sockets.registry())));
                if lanes.iter().any(Lane::is_busy) {
                    sockets.wait(&lanes, self.patience, now);
                }
            }
        }
        Ok(outcomes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROCESS: &str = "0d2a8f3e-3c5b-4b61-9f0e-2f6a1b7c8d9e";

    fn encoded(version: i16) -> Vec<u8> {
        let broker = Address { host: "h".to_owned(), port: 1 };
        Request::Outside(Inquiry::OpenTransactions(broker)).encode("a.b", version)
    }

    #[test]
    fn open_transactions_are_asked_for_as_narrowly_as_the_broker_can() {
        assert_eq!(encoded(0), b"\x02\x08Ongoing\x01\0");
        assert_eq!(encoded(1), b"\x02\x08Ongoing\x01\xff\xff\xff\xff\xff\xff\xff\xff\0");
        assert_eq!(encoded(2), b"\x02\x08Ongoing\x01\xff\xff\xff\xff\xff\xff\xff\xff\x0b\\Qa.b-\\E.*\0");
    }

    #[test]
    fn an_id_of_the_application_tells_its_process_and_another_one_does_not() {
        assert_eq!(process_of(&format!("app-{PROCESS}-12"), "app"), Some(PROCESS));
        for other in [
            format!("app-{PROCESS}"),
            format!("app-{PROCESS}-"),
            format!("app-{PROCESS}-one"),
            format!("app-two-{PROCESS}-1"),
            format!("apps-{PROCESS}-1"),
            "app-1".to_owned(),
        ] {
            assert_eq!(process_of(&other, "app"), None, "{other}");
        }
    }

    /// A stable group: one sub-topology, a member with an address and a task, and one with neither.
    fn description() -> Vec<u8> {
        let mut out = Writer::default();
        let tasks = |out: &mut Writer, partitions: &[i32]| {
            out.list([partitions; 1].into_iter(), |out, partitions| {
                out.text("0");
                out.list(partitions.iter(), |out, partition| out.i32(*partition));
                out.no_tags();
            });
        };
        let topic = |out: &mut Writer, name: &str| {
            out.text(name);
            out.i32(2);
            out.i16(1);
            out.list([("cleanup.policy", "compact")].into_iter(), |out, (key, value)| {
                out.text(key);
                out.text(value);
                out.no_tags();
            });
            out.no_tags();
        };
        out.i32(0);
        out.list([()].into_iter(), |out, ()| {
            out.i16(0);
            out.optional_text(None);
            out.text("app");
            out.text("Stable");
            out.i32(3);
            out.i32(3);
            out.i8(1);
            out.i32(0);
            out.list([()].into_iter(), |out, ()| {
                out.text("0");
                out.list(["in"].into_iter(), Writer::text);
                out.list(["app-r-repartition"].into_iter(), Writer::text);
                out.list(["app-s-changelog"].into_iter(), topic);
                out.list(["app-q-repartition"].into_iter(), topic);
                out.no_tags();
            });
            out.no_tags();
            out.list([("p-1", true), ("p-2", false)].into_iter(), |out, (process, has_all)| {
                out.text("m");
                out.i32(3);
                out.optional_text(None);
                out.optional_text(None);
                out.text("client");
                out.text("/10.0.0.1");
                out.i32(0);
                out.text(process);
                if has_all {
                    out.i8(1);
                    out.text("h");
                    out.u16(65_000);
                    out.no_tags();
                } else {
                    out.i8(-1);
                }
                out.list([("zone", "a")].into_iter().take(usize::from(has_all)), |out, (key, value)| {
                    out.text(key);
                    out.text(value);
                    out.no_tags();
                });
                for _ in 0..2 {
                    out.list([()].into_iter(), |out, ()| {
                        out.text("0");
                        out.i32(1);
                        out.i64(7);
                        out.no_tags();
                    });
                }
                for _ in 0..2 {
                    [&[0, 1][..], &[], &[2]].into_iter().for_each(|partitions| tasks(out, partitions));
                    out.no_tags();
                }
                out.bool(false);
                out.no_tags();
            });
            out.i32(i32::MIN);
            out.no_tags();
        });
        out.no_tags();
        out.0
    }

    const LISTED: &[u8] =
        b"\0\0\0\0\0\0\x01\x03\x02a\0\0\0\0\0\0\0\x01\x08Ongoing\0\x02b\0\0\0\0\0\0\0\x02\x08Ongoing\0\0";

    #[test]
    fn ids_and_processes_are_read() {
        assert_eq!(listed(LISTED), Ok((Code::NONE, vec!["a".to_owned(), "b".to_owned()])));
        let processes = processes(&description()).unwrap();
        assert_eq!(processes, (Code::NONE, ["p-1".to_owned(), "p-2".to_owned()].into()));
    }

    proptest! {
        #[test]
        fn no_damaged_response_ends_the_process(
            place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            for mut whole in [description(), LISTED.to_vec()] {
                let place = place.index(whole.len());
                whole[place] = byte;
                whole.truncate(cut.index(whole.len()) + 1);
                let _ = processes(&whole);
                let _ = listed(&whole);
            }
        }
    }
}
