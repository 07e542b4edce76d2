//! Stores as a server asks them: by name, with bytes.

use std::ops::Bound;

use kstreams::{
    CloseOptions, EmbeddedCluster, FailureReason, KafkaStreams, Position, RawAnswer, RawKind, RawQuery, RawRow, State,
    Window,
};

use crate::application::{self, PATIENCE, wait_for};
use crate::queries::{cluster, start, topology, write};

fn clicks(cluster: &EmbeddedCluster) -> Position {
    let users = ["ann", "bob", "cid", "dan", "ann", "ann"].into_iter().enumerate();
    users.fold(Position::new(), |position, (number, user)| {
        position.merge(&write(cluster, "clicks", user, "", number as i64 * 40_000))
    })
}

fn rows(answer: RawAnswer) -> Vec<RawRow> {
    let mut rows: Vec<_> = answer.rows.map(Result::unwrap).collect();
    rows.sort_by(|one, other| (&one.key, one.timestamp).cmp(&(&other.key, other.timestamp)));
    rows
}

fn key(key: &str) -> Vec<u8> {
    key.as_bytes().to_vec()
}

#[test]
fn stores_of_every_kind_are_asked_in_bytes() {
    let cluster = cluster();
    let written = clicks(&cluster);
    let mut lived = Position::new();
    for (town, at) in [("york", 1_000), ("bath", 5_000), ("ely", 9_000)] {
        lived = lived.merge(&write(&cluster, "towns", "ann", town, at));
    }
    let streams = start(application::config(&cluster));
    wait_for(&streams, State::Running);
    let stores = streams.raw_stores();
    let kinds: Vec<_> = stores.list().collect();
    let expected = [
        ("counts", RawKind::TimestampedKeyValue),
        ("customers", RawKind::TimestampedKeyValue),
        ("per-minute", RawKind::TimestampedWindow),
        ("towns", RawKind::Versioned),
        ("visits", RawKind::Session),
    ];
    assert_eq!(kinds, expected);
    let ask = |store: &str, query: RawQuery| {
        let bound = if store == "towns" { &lived } else { &written };
        rows(stores.open(store).unwrap().with_position_bound(bound, PATIENCE).ask(&query).unwrap())
    };

    let found = ask("counts", RawQuery::Get { key: key("ann") });
    assert_eq!((&found[0].value, found[0].timestamp), (&3_i64.to_be_bytes().to_vec(), Some(200_000)));
    assert_eq!(ask("counts", RawQuery::Get { key: key("eve") }), []);
    let (from, to) = (Bound::Excluded(key("ann")), Bound::Included(key("cid")));
    for reverse in [false, true] {
        let found = ask("counts", RawQuery::Range { from: from.clone(), to: to.clone(), reverse });
        assert_eq!(found.iter().map(|row| row.key.as_slice()).collect::<Vec<_>>(), [b"bob", b"cid"]);
    }
    assert_eq!(ask("counts", RawQuery::Prefix { prefix: key("d") }).len(), 1);

    let found = ask("per-minute", RawQuery::Fetch { key: key("ann"), start: 180_000 });
    assert_eq!(found[0].window, Some(Window { start: 180_000, end: 240_000 }));
    let found = ask("per-minute", RawQuery::FetchRange { key: key("ann"), times: (0, 150_000), reverse: true });
    assert_eq!(found.iter().map(|row| row.window.unwrap().end).collect::<Vec<_>>(), [60_000, 180_000]);
    let all = |times| RawQuery::FetchKeys { from: Bound::Unbounded, to: Bound::Unbounded, times, reverse: false };
    assert_eq!(ask("per-minute", all((0, i64::MAX))).len(), 6);

    let window = Window { start: 160_000, end: 200_000 };
    let found = ask("visits", RawQuery::Session { key: key("ann"), window });
    assert_eq!((found[0].window, &found[0].value), (Some(window), &2_i64.to_be_bytes().to_vec()));
    assert_eq!(ask("visits", RawQuery::FetchRange { key: key("ann"), times: (0, 1), reverse: false }).len(), 1);
    assert_eq!(ask("visits", all((0, i64::MAX))).len(), 5);

    assert_eq!(ask("towns", RawQuery::Get { key: key("ann") })[0].value, b"ely");
    let found = ask("towns", RawQuery::GetAsOf { key: key("ann"), time: 4_999 });
    assert_eq!((found[0].value.as_slice(), found[0].valid_to), (b"york".as_slice(), Some(5_000)));
    let found = ask("towns", RawQuery::Versions { key: key("ann"), times: (4_999, 9_000) });
    assert_eq!(found.iter().map(|row| row.timestamp.unwrap()).collect::<Vec<_>>(), [1_000, 5_000, 9_000]);
    assert_eq!(ask("towns", RawQuery::Versions { key: key("ann"), times: (5_000, 8_999) }).len(), 1);
}

#[test]
fn a_refusal_has_a_reason_for_programs() {
    let cluster = cluster();
    let streams = KafkaStreams::new(topology(), application::config(&cluster)).unwrap();
    let stores = streams.raw_stores();
    let refused = |store: &kstreams::RawStore, query| {
        let failure = store.ask(&query).unwrap_err();
        (failure.reason(), failure.reason().is_retriable())
    };
    let get = || RawQuery::Get { key: key("ann") };
    assert_eq!(stores.open("nothing").unwrap_err().reason(), FailureReason::DoesNotExist);
    let counts = stores.open("counts").unwrap();
    assert_eq!(refused(&counts, get()), (FailureReason::NotPresent, true));
    assert!(counts.partitions().is_empty());
    streams.start().unwrap();
    wait_for(&streams, State::Running);
    let fetch = RawQuery::Fetch { key: key("ann"), start: 0 };
    assert_eq!(refused(&counts, fetch), (FailureReason::UnknownQueryType, false));
    let ahead = (0..application::PARTITIONS).fold(Position::new(), |ahead, at| ahead.with("clicks", at, 1_000_000));
    let ahead = counts.with_position_bound(&ahead, std::time::Duration::ZERO);
    assert_eq!(refused(&ahead, get()), (FailureReason::NotUpToBound, true));
    assert_eq!(refused(&counts.with_partition(99), get()), (FailureReason::NotPresent, true));
    assert_eq!(counts.partitions().len(), application::PARTITIONS as usize);
    streams.close(CloseOptions::default()).unwrap();
    assert_eq!(refused(&counts, get()), (FailureReason::NotPresent, true));
}
