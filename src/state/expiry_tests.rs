//! Rows that live for some time only, against a model that keeps everything in a plain map.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::{spec, with_ttl};
use super::*;
use crate::record::{Headers, RecordBatch};

const TTL_MS: i64 = 10;

#[derive(Debug, Clone)]
enum Step {
    /// A row whose time is so much later than the stream time.
    Put {
        key: u8,
        later: i64,
        value: u8,
    },
    Delete {
        key: u8,
    },
    /// The stream time moves by so much, and so many rows are taken at once.
    Advance {
        by: i64,
        at_once: usize,
    },
    Flush,
    Commit,
    Abort,
    /// The stores are made anew from the changelog.
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..6_u8, -15..6_i64, any::<u8>()).prop_map(|(key, later, value)| Step::Put { key, later, value }),
        2 => (0..6_u8).prop_map(|key| Step::Delete { key }),
        6 => (0..8_i64, 1..4_usize).prop_map(|(by, at_once)| Step::Advance { by, at_once }),
        1 => Just(Step::Flush),
        2 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => Just(Step::Restore),
    ]
}

#[derive(Debug, Clone, Default)]
struct Model {
    rows: BTreeMap<u8, (i64, u8)>,
    now: i64,
}

fn row(timestamp: i64, value: u8) -> Vec<u8> {
    [&timestamp.to_be_bytes()[..], &[value]].concat()
}

fn ttl_spec(caching: bool) -> Arc<StoreSpec> {
    with_ttl(&spec("t", StoreKind::TimestampedKeyValue, caching))
}

fn restored(spec: &Arc<StoreSpec>, cache_bytes: usize, log: &RecordBatch, end: i64) -> TaskStores {
    let mut stores = TaskStores::in_memory(&[Arc::clone(spec)], cache_bytes);
    stores.restore(0, log, end).unwrap();
    stores
}

/// Takes everything that has expired, in turns, and gives the keys in their order.
fn expire(stores: &mut TaskStores, now: i64, at_once: usize) -> Vec<u8> {
    stores.set_time(Some(now));
    let context = RecordContext { timestamp: now, ..RecordContext::default() };
    let mut keys = Vec::new();
    loop {
        stores.set_expired_max(at_once);
        while let Some(key) = stores.next_expired(0).unwrap() {
            stores.put(0, &key, None, &context).unwrap();
            keys.push(key[0]);
        }
        if stores.expired_max() > 0 {
            assert!(!stores.may_expire(now));
            return keys;
        }
    }
}

proptest! {
    #[test]
    fn a_row_leaves_with_its_time_whatever_happens_in_between(
        steps in vec(step(), 1..120),
        caching in any::<bool>(),
        cache_bytes in prop_oneof![Just(0), Just(150), Just(100_000)],
    ) {
        let spec = ttl_spec(caching);
        let mut stores = TaskStores::in_memory(&[Arc::clone(&spec)], cache_bytes);
        let (mut log, mut end) = (RecordBatch::default(), 0);
        let (mut seen, mut committed) = (Model::default(), Model::default());
        stores.set_time(Some(0));
        for step in steps {
            match step {
                Step::Put { key, later, value } => {
                    let timestamp = seen.now + later;
                    let context = RecordContext { timestamp: seen.now, ..RecordContext::default() };
                    stores.put(0, &[key], Some(&row(timestamp, value)), &context).unwrap();
                    if timestamp < seen.now - TTL_MS {
                        seen.rows.remove(&key);
                    } else {
                        seen.rows.insert(key, (timestamp, value));
                    }
                }
                Step::Delete { key } => {
                    stores.put(0, &[key], None, &RecordContext::default()).unwrap();
                    seen.rows.remove(&key);
                }
                Step::Advance { by, at_once } => {
                    seen.now += by;
                    let mut gone: Vec<(i64, u8)> = seen.rows.iter().map(|(key, (time, _))| (*time, *key)).collect();
                    gone.retain(|(time, _)| *time < seen.now - TTL_MS);
                    gone.sort_unstable();
                    seen.rows.retain(|_, (time, _)| *time >= seen.now - TTL_MS);
                    let expected: Vec<u8> = gone.into_iter().map(|(_, key)| key).collect();
                    prop_assert_eq!(expire(&mut stores, seen.now, at_once), expected);
                }
                Step::Flush => stores.flush(0).unwrap(),
                Step::Commit => {
                    stores.flush(0).unwrap();
                    for record in stores.changelog() {
                        let timestamp = record.timestamp.unwrap();
                        log.push(end, timestamp, Some(record.key), record.value, Headers::new()).unwrap();
                        end += 1;
                    }
                    stores.clear_changelog();
                    stores.apply(&[Some(end)]).unwrap();
                    prop_assert_eq!(stores.uncommitted_bytes(), 0);
                    prop_assert_eq!(stores.approximate_len(0), seen.rows.len() as u64, "each row is there as two");
                    committed = seen.clone();
                }
                Step::Abort => {
                    stores.discard();
                    seen = committed.clone();
                    stores.set_time(Some(seen.now));
                }
                Step::Restore => {
                    stores = restored(&spec, cache_bytes, &log, end);
                    seen = committed.clone();
                    stores.set_time(Some(seen.now));
                }
            }
            let expected: Vec<_> = seen.rows.iter().map(|(key, (time, value))| (vec![*key], row(*time, *value))).collect();
            prop_assert_eq!(stores.page(0, Bound::Unbounded, Bound::Unbounded, false, 9).unwrap(), expected);
            for key in 0..6_u8 {
                let expected = seen.rows.get(&key).map(|(time, value)| row(*time, *value));
                prop_assert_eq!(stores.get(0, &[key]).unwrap(), expected.as_deref());
            }
        }
    }
}

#[test]
fn more_rows_than_are_kept_in_mind_expire_in_order() {
    let mut stores = TaskStores::in_memory(&[ttl_spec(false)], 0);
    stores.set_time(Some(0));
    let key = |number: u32| number.to_be_bytes();
    for number in (0..1_000_u32).rev() {
        let time = i64::from(number);
        stores.put(0, &key(number), Some(&row(time, 0)), &RecordContext::default()).unwrap();
        if number % 100 == 0 {
            stores.apply(&[Some(1)]).unwrap();
        }
    }
    stores.set_time(Some(700 + TTL_MS));
    stores.set_expired_max(usize::MAX);
    for number in 0..700 {
        assert_eq!(stores.next_expired(0).unwrap().as_deref(), Some(&key(number)[..]));
        stores.put(0, &key(number), None, &RecordContext::default()).unwrap();
    }
    assert_eq!(stores.next_expired(0).unwrap(), None);
    stores.apply(&[Some(2)]).unwrap();
    assert_eq!(stores.approximate_len(0), 300);
}

#[test]
fn a_row_that_was_to_expire_when_a_task_moved_expires_where_it_comes_to() {
    let mut log = RecordBatch::default();
    for (offset, key, time) in [(0, b"a", 5), (1, b"b", 50), (2, b"c", 7), (3, b"a", 6)] {
        log.push(offset, time, Some(key), Some(b"\0"), Headers::new()).unwrap();
    }
    let mut stores = restored(&ttl_spec(false), 0, &log, 4);
    assert_eq!(stores.get(0, b"c").unwrap(), Some(&row(7, 0)[..]), "nobody has been told yet");
    assert_eq!(expire(&mut stores, 50, 100), [b'a', b'c']);
    let logged: Vec<_> =
        stores.changelog().map(|record| (record.key.to_vec(), record.value, record.timestamp)).collect();
    assert_eq!(logged, [(b"a".to_vec(), None, Some(50)), (b"c".to_vec(), None, Some(50))]);
}

#[cfg(feature = "rocksdb")]
#[test]
fn rows_that_expire_have_a_layout_of_their_own_which_stays_as_it_is() {
    let plain = spec("t", StoreKind::TimestampedKeyValue, false);
    assert_eq!((plain.layout().kind, with_ttl(&plain).layout().kind), (1, 0x81));
}
