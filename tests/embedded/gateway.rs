//! Requests that are written as events, and what becomes of them.

use std::time::Duration;

use kstreams::{
    Config, Consumed, CorrelateBy, EmbeddedCluster, ErrorKind, Gateway, GatewayLimits, Grouped, I64, IdempotencyKey,
    KafkaStreams, Materialized, Position, Produced, QueryableStoreTypes, State, StreamsBuilder, Topology, Utf8,
    Watched,
};

use crate::application::{self, PARTITIONS, PATIENCE, wait_for, wait_until};

fn cluster() -> EmbeddedCluster {
    let cluster = application::cluster();
    for topic in ["questions", "answers"] {
        cluster.create_topic(topic, PARTITIONS).unwrap();
    }
    cluster
}

/// Answers in upper case, and counts by key.
fn topology() -> Topology {
    let builder = StreamsBuilder::new();
    let questions = builder.stream("questions", Consumed::with(Utf8, Utf8));
    questions.clone().map_values(|text| text.to_uppercase()).to("answers", Produced::with(Utf8, Utf8));
    questions.group_by_key(Grouped::with(Utf8, Utf8)).count(Materialized::named("counts"));
    builder.build().unwrap()
}

fn start(config: &Config) -> KafkaStreams {
    let streams = KafkaStreams::new(topology(), config.clone()).unwrap();
    streams.start().unwrap();
    wait_for(&streams, State::Running);
    streams
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn text(text: &str) -> String {
    text.to_owned()
}

#[test]
fn an_answer_finds_who_has_asked_by_header_and_by_key() {
    let cluster = cluster();
    let config = application::config(&cluster);
    let _streams = start(&config);
    let gateway = Gateway::open(&config).unwrap();
    let questions = gateway.topic("questions", Utf8, Utf8).unwrap();
    let by_header = gateway.answers("answers", CorrelateBy::Header, Utf8).unwrap();
    let by_key = gateway.answers("answers", CorrelateBy::Key, Utf8).unwrap();
    block_on(async {
        for number in 0..50 {
            let (id, key) = (IdempotencyKey::random(), format!("k{}", number % 5));
            let (header, row) = (by_header.expect(id.as_str()).unwrap(), by_key.expect(&key).unwrap());
            let written = questions.write(&key, &format!("q{number}"), Some(&id)).await.unwrap();
            let (place, _) = written.iter().next().unwrap();
            assert_eq!(place.partition, questions.partition(&key).unwrap());
            assert_eq!(header.within(PATIENCE).await.unwrap(), format!("Q{number}"));
            assert_eq!(row.within(PATIENCE).await.unwrap(), format!("Q{number}"));
        }
    });
    assert_eq!((by_header.waiting(), by_key.waiting()), (0, 0));
}

#[test]
fn requests_that_are_written_side_by_side_are_each_in_the_log_once_at_their_position() {
    let cluster = cluster();
    let gateway = Gateway::open(&application::config(&cluster)).unwrap();
    let questions = gateway.topic("questions", Utf8, Utf8).unwrap();
    block_on(async {
        let mut writes = tokio::task::JoinSet::new();
        for number in 0..500 {
            let questions = questions.clone();
            writes.spawn(async move {
                let key = format!("k{number}");
                (key.clone(), questions.write(&key, &text("?"), None).await.unwrap())
            });
        }
        while let Some(written) = writes.join_next().await {
            let (key, position) = written.unwrap();
            let (place, offset) = position.iter().next().unwrap();
            let records = cluster.records("questions").unwrap();
            let record = records.iter().find(|record| record.key.as_deref() == Some(key.as_bytes())).unwrap();
            assert_eq!(record.partition, place.partition);
            assert!(record.offset <= offset);
        }
    });
    assert_eq!(cluster.records("questions").unwrap().len(), 500);
}

#[test]
fn a_state_is_waited_for_from_the_position_of_the_request_on() {
    let cluster = cluster();
    let config = application::config(&cluster);
    let streams = start(&config);
    let gateway = Gateway::open(&config).unwrap();
    let questions = gateway.topic("questions", Utf8, Utf8).unwrap();
    let counts = streams.store("counts", QueryableStoreTypes::key_value(Utf8, I64)).unwrap();
    let counts = gateway.watch(counts).unwrap();
    block_on(async {
        let number_of_ann = questions.partition(&text("ann")).unwrap();
        let partition = Some(number_of_ann);
        for number in 1..=20 {
            let written = questions.write(&text("ann"), &text("?"), None).await.unwrap();
            let any = |_: Option<&i64>| true;
            let row = counts.until(text("ann"), partition, &written, any, PATIENCE).await.unwrap();
            assert_eq!(row, Watched::Reached(Some(number)));
        }
        let more = |count: Option<&i64>| count > Some(&1_000);
        let short = Duration::from_millis(20);
        let row = counts.until(text("ann"), partition, &Position::new(), more, short).await.unwrap();
        assert_eq!(row, Watched::TimedOut(Some(20)));
        let future = Position::at("questions", number_of_ann, 1_000_000);
        let refused = counts.until(text("ann"), partition, &future, |_| true, short).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        let elsewhere = counts.until(text("ann"), Some(PARTITIONS), &Position::new(), |_| true, PATIENCE).await;
        assert_eq!(elsewhere.unwrap_err().kind(), ErrorKind::Unavailable);
    });
}

#[test]
fn who_waits_has_a_bounded_place_and_gives_it_back() {
    let cluster = cluster();
    let config = application::config(&cluster);
    let streams = start(&config);
    let limits = GatewayLimits::default().waiters(2).record_bytes(100);
    let gateway = Gateway::with_limits(&config, limits).unwrap();
    let answers = gateway.answers("answers", CorrelateBy::Header, Utf8).unwrap();
    let (first, second) = (answers.expect("1").unwrap(), answers.expect("1").unwrap());
    assert_eq!(answers.expect("2").unwrap_err().kind(), ErrorKind::Unavailable);
    drop(first);
    let third = answers.expect("2").unwrap();
    block_on(async {
        let late = third.within(Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Unavailable);
        assert_eq!(answers.waiting(), 1);

        let counts = streams.store("counts", QueryableStoreTypes::key_value(Utf8, I64)).unwrap();
        let counts = gateway.watch(counts).unwrap();
        let anywhere = Position::new();
        let never = || counts.until(text("ann"), None, &anywhere, |_| false, PATIENCE);
        let mut waits = [Box::pin(never()), Box::pin(never())];
        for wait in &mut waits {
            assert!(tokio::time::timeout(Duration::from_millis(1), wait).await.is_err());
        }
        assert_eq!(never().await.unwrap_err().kind(), ErrorKind::Unavailable);
        drop(waits);
        let nobody = counts.until(text("ann"), None, &Position::new(), |_| false, Duration::from_millis(1)).await;
        assert_eq!(nobody.unwrap(), Watched::TimedOut(None));

        let questions = gateway.topic("questions", Utf8, Utf8).unwrap();
        let large = questions.write(&text("ann"), &"x".repeat(100), None).await.unwrap_err();
        assert_eq!(large.kind(), ErrorKind::Invalid);
    });
    assert_eq!(gateway.topic("nowhere", Utf8, Utf8).unwrap_err().kind(), ErrorKind::Invalid);
    // Who waits when it ends is told so.
    drop(answers);
    assert_eq!(block_on(second.within(PATIENCE)).unwrap_err().kind(), ErrorKind::Closed);
    wait_until("the application is there", || streams.state() == State::Running);
}
