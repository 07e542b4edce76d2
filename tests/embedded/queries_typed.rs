//! Queries partition by partition (KIP-796): their answers, positions and reasons of failure.

use std::collections::BTreeMap;

use kstreams::{
    Config, Error, FailureReason, I64, KafkaStreams, KeyQuery, KeyValueStore, MultiVersionedKeyQuery, Position, Query,
    QueryableStore, QueryableStoreTypes, RangeQuery, State, StateQueryRequest, TimestampedKeyQuery,
    TimestampedRangeQuery, Utf8, VersionedKeyQuery, WindowKeyQuery, WindowRangeQuery, Windowed,
};

use crate::application::{self, PARTITIONS, PATIENCE, wait_for, wait_until};
use crate::queries::{cluster, start, text, write};

fn running(config: Config) -> KafkaStreams {
    let streams = start(config);
    wait_for(&streams, State::Running);
    streams
}

/// Rows of all partitions, sorted.
fn sorted<T: Ord, S: 'static, Q>(streams: &KafkaStreams, request: &StateQueryRequest<S, Q>) -> Vec<T>
where
    Q: Query<S, Answer = kstreams::QueryIter<T>>,
{
    let results = streams.query(request).unwrap().into_partition_results();
    let mut rows: Vec<T> =
        results.into_values().flat_map(|rows| rows.into_result().unwrap()).map(Result::unwrap).collect();
    rows.sort();
    rows
}

#[test]
fn every_query_is_answered_by_its_kind_of_store() {
    let cluster = cluster();
    let mut written = Position::new();
    for (number, user) in ["ann", "bob", "cid", "dan", "ann", "ann"].into_iter().enumerate() {
        written = written.merge(&write(&cluster, "clicks", user, "", number as i64 * 40_000));
    }
    let mut lived = Position::new();
    for (town, at) in [("york", 1_000), ("bath", 5_000), ("ely", 9_000)] {
        lived = lived.merge(&write(&cluster, "towns", "ann", town, at));
    }
    let customer = write(&cluster, "customers", "7", "ann", 0);
    let streams = running(application::config(&cluster));

    let counts = || StateQueryRequest::in_store("counts", QueryableStoreTypes::key_value(Utf8, I64));
    let ann = counts().with_query(KeyQuery::with_key(text("ann"))).with_position_bound(&written).wait_at_most(PATIENCE);
    let result = streams.query(&ann.enable_execution_info()).unwrap();
    assert_eq!(result.partition_results().len(), PARTITIONS as usize);
    assert!(result.position().covers(&written) && result.global_result().is_none());
    let found = result.only_partition_result().unwrap().unwrap();
    assert_eq!((found.result(), found.execution_info().len()), (Some(&Some(3)), 1));
    let nobody = counts().with_query(KeyQuery::with_key(text("eve")));
    assert!(streams.query(&nobody).unwrap().only_partition_result().unwrap().is_none());
    let keys = |range: RangeQuery<String>| {
        let rows: Vec<(String, i64)> = sorted(&streams, &counts().with_query(range));
        rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(keys(RangeQuery::with_range(text("bob"), text("cid"))), ["bob", "cid"]);
    assert_eq!(keys(RangeQuery::with_lower_bound(text("cid")).with_descending_keys()), ["cid", "dan"]);
    assert_eq!(keys(RangeQuery::with_upper_bound(text("ann"))), ["ann"]);
    assert_eq!(keys(RangeQuery::with_no_bounds()).len(), 4);

    let timed = || StateQueryRequest::in_store("counts", QueryableStoreTypes::timestamped_key_value(Utf8, I64));
    let found = streams.query(&timed().with_query(TimestampedKeyQuery::with_key(text("ann")))).unwrap();
    let row = found.only_partition_result().unwrap().unwrap().into_result().unwrap().unwrap();
    assert_eq!((row.value, row.timestamp), (3, 200_000));
    let all = streams.query(&timed().with_query(TimestampedRangeQuery::with_no_bounds())).unwrap();
    let rows = all.into_partition_results().into_values().flat_map(|rows| rows.into_result().unwrap());
    assert_eq!(rows.map(|row| row.unwrap().1.value).sum::<i64>(), 6);

    let windows = || StateQueryRequest::in_store("per-minute", QueryableStoreTypes::window(Utf8, I64));
    let of_ann = windows().with_query(WindowKeyQuery::with_key_and_window_start_range(text("ann"), 0, 150_000));
    assert_eq!(sorted::<(i64, i64), _, _>(&streams, &of_ann), [(0, 1), (120_000, 1)]);
    let starts = windows().with_query(WindowRangeQuery::with_window_start_range(0, 60_000));
    type Rows = kstreams::QueryIter<(Windowed<String>, i64)>;
    let count = |results: BTreeMap<i32, kstreams::QueryResult<Rows>>| {
        results.into_values().flat_map(|rows| rows.into_result().unwrap()).count()
    };
    assert_eq!(count(streams.query(&starts).unwrap().into_partition_results()), 3);
    let refused = streams.query(&windows().with_query(WindowRangeQuery::with_key(text("ann")))).unwrap();
    let reasons = refused.partition_results().values().map(|result| result.failure_reason());
    assert!(reasons.into_iter().all(|reason| reason == Some(FailureReason::UnknownQueryType)));

    let visits = StateQueryRequest::in_store("visits", QueryableStoreTypes::session(Utf8, I64));
    let of_ann = visits.with_query(WindowRangeQuery::with_key(text("ann")));
    assert_eq!(count(streams.query(&of_ann).unwrap().into_partition_results()), 2);

    let towns = || StateQueryRequest::in_store("towns", QueryableStoreTypes::versioned(Utf8, Utf8));
    let town = |query: VersionedKeyQuery<String>| {
        let request = towns().with_query(query).with_position_bound(&lived).wait_at_most(PATIENCE);
        let found = streams.query(&request).unwrap().only_partition_result().unwrap().unwrap();
        found.into_result().unwrap().unwrap().value
    };
    assert_eq!(town(VersionedKeyQuery::with_key(text("ann"))), "ely");
    assert_eq!(town(VersionedKeyQuery::with_key(text("ann")).as_of(8_999)), "bath");
    let towns = |query: MultiVersionedKeyQuery<String>| {
        let results = streams.query(&towns().with_query(query)).unwrap().into_partition_results();
        let versions = results.into_values().flat_map(|rows| rows.into_result().unwrap());
        versions.map(|version| version.unwrap().value).collect::<Vec<_>>()
    };
    let ann = || MultiVersionedKeyQuery::with_key(text("ann"));
    assert_eq!(towns(ann()), ["ely", "bath", "york"]);
    assert_eq!(towns(ann().from_time(5_000).with_ascending_timestamps()), ["bath", "ely"]);
    assert_eq!(towns(ann().to_time(4_999)), ["york"]);

    let customers = StateQueryRequest::in_store("customers", QueryableStoreTypes::key_value(Utf8, Utf8));
    let seven = customers.with_query(KeyQuery::with_key(text("7"))).with_position_bound(&customer);
    let result = streams.query(&seven.wait_at_most(PATIENCE)).unwrap();
    assert!(result.partition_results().is_empty());
    assert_eq!(result.global_result().unwrap().result(), Some(&Some(text("ann"))));
}

/// How many rows a partition has, about.
struct CountQuery;

impl Query<KeyValueStore<String, i64>> for CountQuery {
    type Answer = u64;

    fn ask(&self, store: &QueryableStore<KeyValueStore<String, i64>>) -> Result<u64, Error> {
        store.approximate_num_entries()
    }
}

#[test]
fn a_partition_that_does_not_answer_says_why() {
    let cluster = cluster();
    let streams = running(application::config(&cluster));
    let counts = || StateQueryRequest::in_store("counts", QueryableStoreTypes::key_value(Utf8, I64));
    let request = counts().with_query(CountQuery).with_partitions([0, -1, PARTITIONS]);
    let result = streams.query(&request).unwrap();
    let reasons: Vec<_> = result.partition_results().values().map(|result| result.failure_reason()).collect();
    let missing = Some(FailureReason::DoesNotExist);
    assert_eq!(reasons, [missing, None, missing]);
    let ahead = Position::at("clicks", 0, 1_000_000);
    let request = counts().with_query(CountQuery).with_partitions([0]).with_position_bound(&ahead);
    let result = streams.query(&request).unwrap();
    assert_eq!(result.partition_results()[&0].failure_reason(), Some(FailureReason::NotUpToBound));
    assert!(result.only_partition_result().is_err());
    let other_kind = StateQueryRequest::in_store("visits", QueryableStoreTypes::key_value(Utf8, I64));
    let result = streams.query(&other_kind.with_query(CountQuery).with_partitions([0])).unwrap();
    assert_eq!(result.partition_results()[&0].failure_reason(), Some(FailureReason::UnknownQueryType));
    let unknown = StateQueryRequest::in_store("nothing", QueryableStoreTypes::key_value(Utf8, I64));
    assert!(streams.query(&unknown.with_query(CountQuery)).is_err());
}

#[test]
fn a_copy_is_asked_unless_the_query_requires_what_runs() {
    let cluster = cluster();
    let config = || {
        let config = application::config(&cluster).num_standby_replicas(1).acceptable_recovery_lag(0);
        config.session_timeout(std::time::Duration::from_secs(2))
    };
    let (first, second) = (start(config()), start(config()));
    let counts = || StateQueryRequest::in_store("counts", QueryableStoreTypes::key_value(Utf8, I64));
    type Counting = StateQueryRequest<KeyValueStore<String, i64>, CountQuery>;
    let reasons = |streams: &KafkaStreams, request: &Counting| -> Vec<Option<FailureReason>> {
        let result = streams.query(request).unwrap();
        result.partition_results().values().map(|result| result.failure_reason()).collect()
    };
    wait_until("both have every partition, half of them as copies", || {
        [&first, &second].into_iter().all(|streams| {
            let all = reasons(streams, &counts().with_query(CountQuery));
            let active = reasons(streams, &counts().with_query(CountQuery).require_active());
            let refused = active.iter().filter(|reason| **reason == Some(FailureReason::NotActive)).count();
            all.len() == PARTITIONS as usize && all.iter().all(Option::is_none) && refused > 0 && refused < active.len()
        })
    });
    let here = reasons(&first, &counts().with_query(CountQuery).with_partitions(0..PARTITIONS));
    assert_eq!(here.len(), PARTITIONS as usize);
}
