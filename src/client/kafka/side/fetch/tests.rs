//! The reader against brokers that are played on 127.0.0.1.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::codec::{Reader, Writer};
use super::super::tests::{Broker, Reply};
use super::records::tests::batch;
use super::*;

/// So long that no test comes to its end, if it does not fail.
const LONG: Duration = Duration::from_secs(3600);

/// Topic `t` of one partition, with its leader.
fn whereabouts(port: u16, (leader, epoch): (i32, i32)) -> Reply {
    let mut out = Writer::default();
    out.i32(0);
    out.list([()].into_iter(), |out, ()| {
        out.i32(leader);
        out.text("127.0.0.1");
        out.i32(port.into());
        out.optional_text(None);
        out.no_tags();
    });
    out.optional_text(None);
    out.i32(leader);
    out.list([()].into_iter(), |out, ()| {
        out.i16(0);
        out.text("t");
        out.bool(false);
        out.list([()].into_iter(), |out, ()| {
            out.i16(0);
            out.i32(0);
            out.i32(leader);
            out.i32(epoch);
            (0..3).for_each(|_| out.list([(); 0].into_iter(), |_, ()| {}));
            out.no_tags();
        });
        out.i32(0);
        out.no_tags();
    });
    out.no_tags();
    Reply::Body(out.0)
}

/// What the leader has of the partition, whose end is 100.
fn fetched(code: Code, records: &[u8], tags: &[u8]) -> Reply {
    let mut out = Writer::default();
    out.i32(0);
    out.i16(0);
    out.i32(0);
    out.list([()].into_iter(), |out, ()| {
        out.text("t");
        out.list([()].into_iter(), |out, ()| {
            out.i32(0);
            out.i16(code.0);
            (0..3).for_each(|_| out.i64(100));
            out.list([(); 0].into_iter(), |_, ()| {});
            out.i32(-1);
            out.bytes(records);
            out.0.extend_from_slice(tags);
        });
        out.no_tags();
    });
    out.no_tags();
    Reply::Body(out.0)
}

/// Leader epoch, offset and epoch of what was fetched before.
fn asked_for(body: &[u8]) -> (i32, i64, i32) {
    let mut reader = Reader::new(body);
    reader.slice(4 * 4 + 1 + 2 * 4).unwrap();
    let topics = reader.list(|reader| {
        assert_eq!(reader.str().unwrap(), "t");
        let partitions = reader.list(|reader| {
            assert_eq!(reader.i32().unwrap(), 0);
            let asked = (reader.i32()?, reader.i64()?, reader.i32()?);
            reader.slice(8 + 4)?;
            reader.tags()?;
            Ok(asked)
        })?;
        reader.tags()?;
        Ok(partitions)
    });
    topics.unwrap().concat()[0]
}

/// A broker that leads the partition in epoch 7, with an answer to each fetch.
fn leader(mut script: impl FnMut((i32, i64, i32)) -> Reply + Send + 'static) -> Broker {
    let port = Arc::new(AtomicUsize::new(0));
    let own = Arc::clone(&port);
    let broker = Broker::play(move |asked| match asked.api {
        Api::Metadata => Some(whereabouts(u16::try_from(own.load(Ordering::Relaxed)).unwrap(), (1, 7))),
        Api::Fetch => Some(script(asked_for(asked.body))),
        _ => None,
    });
    port.store(broker.port.into(), Ordering::Relaxed);
    broker
}

fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn reader(port: u16, make_fallback: MakeFallback) -> ChangelogReader {
    let setting = |name: &str| match name {
        "socket.timeout.ms" => Some("3600000".to_owned()),
        "reconnect.backoff.ms" | "reconnect.backoff.max.ms" => Some("1".to_owned()),
        _ => None,
    };
    let who = ("client", Isolation::ReadCommitted);
    let mut reader = ChangelogReader::new(&format!("127.0.0.1:{port}"), &setting, who, make_fallback).unwrap();
    reader.assign(&[(partition(), 10)]).unwrap();
    reader
}

fn no_other() -> MakeFallback {
    Box::new(|_| panic!("nothing is to be read by librdkafka"))
}

/// The values of so many records, or what else a fetch came to.
fn read(reader: &mut ChangelogReader, count: usize) -> Result<(Fetch, Vec<String>)> {
    let mut batch = RecordBatch::default();
    loop {
        let found = reader.fetch(&partition(), count - batch.len(), &mut batch)?;
        if batch.len() == count || found == Fetch::OutOfRange {
            let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
            return Ok((found, batch.iter(0).map(|record| text(record.value)).collect()));
        }
        reader.wait(LONG)?;
    }
}

#[test]
fn the_next_leader_is_asked_for_what_the_last_one_did_not_give() {
    let new = Broker::play(|asked| match asked.api {
        Api::Fetch if asked_for(asked.body) == (8, 12, 3) => Some(fetched(Code::NONE, &batch(12, &["c"]), b"\0")),
        Api::Fetch => Some(Reply::Silence),
        _ => None,
    });
    let (ports, mut fetches) = (Arc::new(Mutex::new([0, new.port])), 0);
    let known = Arc::clone(&ports);
    let old = Broker::play(move |asked| match asked.api {
        Api::Metadata => {
            let [old, new] = *known.lock().unwrap();
            Some(if fetches < 2 { whereabouts(old, (1, 7)) } else { whereabouts(new, (2, 8)) })
        }
        Api::Fetch => {
            fetches += 1;
            Some(match (fetches, asked_for(asked.body)) {
                (1, (7, 10, -1)) => fetched(Code::NONE, &batch(10, &["a", "b"]), b"\0"),
                (2, (7, 12, 3)) => fetched(Code::NOT_LEADER_OR_FOLLOWER, b"", b"\0"),
                (count, asked) => panic!("fetch {count}: {asked:?}"),
            })
        }
        _ => None,
    });
    ports.lock().unwrap()[0] = old.port;
    let mut reader = reader(old.port, no_other());
    assert_eq!(read(&mut reader, 3).unwrap(), (Fetch::Records, ["a", "b", "c"].map(str::to_owned).to_vec()));
    assert_eq!((reader.position(&partition()), reader.end(&partition())), (Some(13), Some(100)));
    assert_eq!(reader.lag(&partition()), Lag::Behind);
}

#[test]
fn a_broker_that_hangs_up_is_asked_again() {
    let mut fetches = 0;
    let broker = leader(move |asked| {
        fetches += 1;
        match (fetches, asked) {
            (1 | 3, _) => Reply::HangUp,
            (2, (7, 10, -1)) => fetched(Code::NONE, &batch(10, &["a"]), b"\0"),
            (4, (7, 11, 3)) => fetched(Code::NONE, &batch(11, &["b"]), b"\0"),
            _ => Reply::Silence,
        }
    });
    let mut reader = reader(broker.port, no_other());
    assert_eq!(read(&mut reader, 2).unwrap().1, ["a", "b"]);
}

#[test]
fn what_is_damaged_is_fetched_again_and_told_if_it_stays_so() {
    let mut fetches = 0;
    let broker = leader(move |(_, offset, _)| {
        fetches += 1;
        let mut records = [batch(10, &["a"]), batch(11, &["b"])].concat();
        match offset {
            10 => {
                // Only the first time.
                if fetches == 1 {
                    records[65] ^= 1;
                }
                fetched(Code::NONE, &records, b"\0")
            }
            _ => {
                let mut records = batch(offset, &["c"]);
                *records.last_mut().unwrap() ^= 1;
                fetched(Code::NONE, &records, b"\0")
            }
        }
    });
    let mut reader = reader(broker.port, no_other());
    assert_eq!(read(&mut reader, 2).unwrap().1, ["a", "b"]);
    let error = read(&mut reader, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "a store is not begun anew for it");
    assert!(error.to_string().contains("could not read t[0] at offset 12"), "{error}");
    assert_eq!(reader.position(&partition()), Some(12));
}

#[test]
fn a_log_that_was_cut_and_goes_on_otherwise_is_out_of_range() {
    let broker = leader(|(_, offset, epoch)| match (offset, epoch) {
        (10, -1) => fetched(Code::NONE, &batch(10, &["a"]), b"\0"),
        // Diverging: epoch 2 ended at offset 9.
        _ => fetched(Code::NONE, b"", b"\x01\0\x0d\0\0\0\x02\0\0\0\0\0\0\0\x09\0"),
    });
    let mut reader = reader(broker.port, no_other());
    assert_eq!(read(&mut reader, 2).unwrap(), (Fetch::OutOfRange, vec!["a".to_owned()]));
    assert_eq!(reader.position(&partition()), Some(11));
}

/// A consumer of which only the assignment counts.
struct Other(Arc<Mutex<Vec<(TopicPartition, i64)>>>);

impl Consumer for Other {
    fn assign(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<()> {
        self.0.lock().unwrap().extend_from_slice(partitions);
        Ok(())
    }

    fn unassign(&mut self, _: &[TopicPartition]) -> Result<()> {
        Ok(())
    }

    fn fetch(&mut self, _: &TopicPartition, _: usize, batch: &mut RecordBatch) -> Result<Fetch> {
        batch.push(11, 0, None, Some(b"from the other"), crate::record::Headers::new())?;
        Ok(Fetch::Records)
    }

    fn position(&self, _: &TopicPartition) -> Option<i64> {
        Some(12)
    }

    fn lag(&self, _: &TopicPartition) -> Lag {
        Lag::CaughtUp
    }

    fn end(&self, _: &TopicPartition) -> Option<i64> {
        Some(12)
    }

    fn wait(&mut self, _: Duration) -> Result<()> {
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        Arc::new(|| {})
    }
}

#[test]
fn what_a_broker_denies_is_left_to_librdkafka_from_the_position() {
    let broker = leader(|(_, offset, _)| match offset {
        10 => fetched(Code::NONE, &batch(10, &["a"]), b"\0"),
        _ => fetched(Code::TOPIC_AUTHORIZATION_FAILED, b"", b"\0"),
    });
    let assigned = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&assigned);
    let mut reader = reader(broker.port, Box::new(move |_| Ok(Box::new(Other(Arc::clone(&seen))))));
    let (_, values) = read(&mut reader, 2).unwrap();
    let start = if values[0] == "a" { 11 } else { 10 };
    assert_eq!(*assigned.lock().unwrap(), [(partition(), start)]);
    assert_eq!(values.last().unwrap(), "from the other");
    assert_eq!((reader.position(&partition()), reader.lag(&partition())), (Some(12), Lag::CaughtUp));
}
