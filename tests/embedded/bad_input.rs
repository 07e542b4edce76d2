//! What is wrong outside: each case says what and what to do, and loses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kstreams::{
    Config, Consumed, EmbeddedCluster, ErrorHandler, ErrorKind, I64, Joined, KafkaStreams, Processed, Processor,
    ProcessorContext, Produced, Record, State, Stores, StreamsBuilder, TopicCreation, Topology, UncaughtErrorResponse,
    Utf8,
};

use crate::application::{
    PATIENCE, cluster, config, counts, expected, last_counts, start, wait_for, wait_until, word_count, write,
};

#[test]
fn a_missing_source_topic_is_named() {
    let cluster = EmbeddedCluster::new();
    let streams = KafkaStreams::new(word_count(), config(&cluster)).unwrap();
    let error = streams.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("source topic lines does not exist"), "{error}");
    assert_eq!(streams.state(), State::Error);
}

#[test]
fn a_missing_output_topic_is_named() {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("lines", 1).unwrap();
    let error = KafkaStreams::new(word_count(), config(&cluster)).unwrap().start().unwrap_err();
    assert!(error.to_string().contains("output topic counts does not exist"), "{error}");
}

#[test]
fn topics_are_created_when_told_to() {
    let cluster = EmbeddedCluster::new();
    let everything = TopicCreation::Everything { partitions: 3 };
    let streams = start(config(&cluster).create_topics(everything));
    assert_eq!(cluster.partitions("lines").unwrap(), Some(3));
    assert_eq!(cluster.partitions("word-count-by-word-repartition").unwrap(), Some(3));
    assert_eq!(cluster.partitions("word-count-word-counts-changelog").unwrap(), Some(3));
    streams.close(PATIENCE).unwrap();
}

#[test]
fn joined_topics_need_the_same_number_of_partitions() {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("orders", 4).unwrap();
    cluster.create_topic("customers", 3).unwrap();
    cluster.create_topic("out", 1).unwrap();
    let builder = StreamsBuilder::new();
    let customers = builder.table("customers", Consumed::with(Utf8, Utf8), kstreams::Materialized::with(Utf8, Utf8));
    builder
        .stream("orders", Consumed::with(Utf8, Utf8))
        .join(&customers, |order, customer| format!("{order} of {customer}"), Joined::with(Utf8, Utf8))
        .to("out", Produced::with(Utf8, Utf8));
    let error = KafkaStreams::new(builder.build().unwrap(), config(&cluster)).unwrap().start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    assert!(text.contains("orders has 4") && text.contains("customers has 3"), "{text}");
}

#[test]
fn an_internal_topic_with_the_wrong_number_of_partitions_is_named() {
    let cluster = cluster();
    cluster.create_topic("word-count-word-counts-changelog", 2).unwrap();
    let error = KafkaStreams::new(word_count(), config(&cluster)).unwrap().start().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("word-count-word-counts-changelog has 2 partitions and needs 4"), "{text}");
}

#[test]
fn internal_topics_are_only_looked_at_when_they_may_not_be_made() {
    let cluster = cluster();
    let config = config(&cluster).create_topics(TopicCreation::Nothing);
    let error = KafkaStreams::new(word_count(), config).unwrap().start().unwrap_err();
    assert!(error.to_string().contains("word-count-by-word-repartition with 4 partitions"), "{error}");
}

#[test]
fn generated_names_are_refused_when_names_are_required() {
    let builder = StreamsBuilder::new();
    let grouped = builder.stream("lines", Consumed::with(Utf8, Utf8)).select_key(|_, value| value.clone());
    grouped.group_by_key(kstreams::Grouped::with(Utf8, Utf8)).count(kstreams::Materialized::with(Utf8, I64));
    let error = KafkaStreams::new(builder.build().unwrap(), config(&cluster()).require_names(true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("require_names"), "{error}");
}

/// Doubles numbers.
fn numbers(map: impl Fn(i64) -> i64 + Send + Sync + 'static) -> Topology {
    let builder = StreamsBuilder::new();
    builder.stream("lines", Consumed::with(Utf8, I64)).map_values(map).to("counts", Produced::with(Utf8, I64));
    builder.build().unwrap()
}

fn write_numbers(cluster: &EmbeddedCluster, numbers: &[i64]) {
    for number in numbers {
        cluster.produce("lines", Some(b"key"), Some(&number.to_be_bytes()), Some(1)).unwrap();
    }
}

#[test]
fn an_undecodable_record_goes_to_the_dead_letter_topic() {
    let cluster = cluster();
    cluster.create_topic("dead", 1).unwrap();
    write_numbers(&cluster, &[1]);
    cluster.produce("lines", Some(b"key"), Some(b"no number"), Some(2)).unwrap();
    write_numbers(&cluster, &[3]);
    let config = config(&cluster).deserialization_handler(ErrorHandler::log_and_continue()).dead_letter_topic("dead");
    let streams = KafkaStreams::new(numbers(|n| n * 2), config).unwrap();
    streams.start().unwrap();
    wait_until("both numbers are through", || counts(&cluster).get("key").is_some_and(|seen| seen == &[2, 6]));
    streams.close(PATIENCE).unwrap();
    let dead = cluster.read_committed("dead").unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].value.as_deref(), Some(&b"no number"[..]));
    assert_eq!(dead[0].headers.last("__streams.errors.topic"), Some(Some(&b"lines"[..])));
}

#[test]
fn an_undecodable_record_ends_the_client_and_is_named() {
    let cluster = cluster();
    write_numbers(&cluster, &[1]);
    let (_, offset) = cluster.produce("lines", Some(b"key"), Some(b"no number"), Some(2)).unwrap();
    let streams = KafkaStreams::new(numbers(|n| n), config(&cluster)).unwrap();
    streams.start().unwrap();
    wait_for(&streams, State::Error);
    let report = streams.take_error().unwrap().report();
    assert!(report.contains(&format!("@{offset}")) && report.contains("deserialization_handler"), "{report}");
    assert!(counts(&cluster).is_empty(), "nothing of the failed transaction is seen");
}

#[test]
fn a_panicking_closure_ends_the_client_with_its_message() {
    let cluster = cluster();
    write_numbers(&cluster, &[1, 7]);
    let topology = numbers(|number| if number == 7 { panic!("seven is bad") } else { number });
    let streams = KafkaStreams::new(topology, config(&cluster)).unwrap();
    streams.start().unwrap();
    wait_for(&streams, State::Error);
    let error = streams.take_error().unwrap();
    assert!(error.report().contains("seven is bad"), "{}", error.report());
}

/// Exactly once the letter belongs to the transaction that is aborted.
#[test]
fn what_ends_the_client_is_a_dead_letter_at_least_once() {
    for (config_of, letters) in [(Config::at_least_once as fn(Config) -> Config, 1), (Config::exactly_once, 0)] {
        let cluster = cluster();
        cluster.create_topic("dead", 1).unwrap();
        write_numbers(&cluster, &[1, 7]);
        let topology = numbers(|number| if number == 7 { panic!("seven is bad") } else { number });
        let config = config_of(config(&cluster)).dead_letter_topic("dead");
        let streams = KafkaStreams::new(topology, config).unwrap();
        streams.start().unwrap();
        wait_for(&streams, State::Error);
        let dead = cluster.read_committed("dead").unwrap();
        assert_eq!(dead.len(), letters);
        for letter in dead {
            assert_eq!(letter.value.as_deref(), Some(&7_i64.to_be_bytes()[..]));
            assert_eq!(letter.headers.last("__streams.errors.topic"), Some(Some(&b"lines"[..])));
        }
    }
}

#[test]
fn a_failing_record_is_dropped_when_the_handler_says_so() {
    let cluster = cluster();
    write_numbers(&cluster, &[1, 7, 8]);
    let topology = numbers(|number| if number == 7 { panic!("seven is bad") } else { number });
    let config = config(&cluster).processing_handler(ErrorHandler::log_and_continue());
    let streams = KafkaStreams::new(topology, config).unwrap();
    streams.start().unwrap();
    wait_until("the others are through", || counts(&cluster).get("key").is_some_and(|seen| seen == &[1, 8]));
    streams.close(PATIENCE).unwrap();
}

#[test]
fn a_replaced_thread_goes_on_from_the_last_commit() {
    let cluster = cluster();
    write_numbers(&cluster, &[1, 7, 8]);
    let failures = Arc::new(AtomicUsize::new(0));
    let failing = Arc::clone(&failures);
    let topology = numbers(move |number| {
        if number == 7 && failing.fetch_add(1, Ordering::SeqCst) < 2 {
            panic!("seven is bad twice");
        }
        number
    });
    let streams = KafkaStreams::new(topology, config(&cluster))
        .unwrap()
        .on_uncaught_error(|_| UncaughtErrorResponse::ReplaceThread);
    streams.start().unwrap();
    wait_until("all are through", || counts(&cluster).get("key").is_some_and(|seen| seen == &[1, 7, 8]));
    wait_for(&streams, State::Running);
    assert_eq!(failures.load(Ordering::SeqCst), 3);
    streams.close(PATIENCE).unwrap();
}

#[test]
fn a_record_that_is_too_large_is_dropped_when_the_handler_says_so() {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("lines", 1).unwrap();
    cluster.create_topic_with("counts", 1, [("max.message.bytes", "100")]).unwrap();
    let builder = StreamsBuilder::new();
    builder
        .stream("lines", Consumed::with(Utf8, Utf8))
        .map_values(|line| if line == "big" { "x".repeat(200) } else { line })
        .to("counts", Produced::with(Utf8, Utf8));
    let topology = builder.build().unwrap();
    write(&cluster, &["before", "big", "after"]);
    cluster.create_topic("dead", 1).unwrap();
    let dropping = config(&cluster).production_handler(ErrorHandler::log_and_continue()).dead_letter_topic("dead");
    for config in [dropping.clone(), dropping.at_least_once().set("application.id", "at-least-once").unwrap()] {
        let before = cluster.read_committed("counts").unwrap().len();
        let streams = KafkaStreams::new(topology.clone(), config).unwrap();
        streams.start().unwrap();
        wait_until("the others are through", || cluster.read_committed("counts").unwrap().len() >= before + 2);
        streams.close(PATIENCE).unwrap();
        assert_eq!(cluster.read_committed("counts").unwrap().len(), before + 2);
        let letter = cluster.read_committed("dead").unwrap().pop().unwrap();
        assert_eq!(letter.value, Some("x".repeat(200).into_bytes()));
        assert_eq!(
            letter.headers.last("__streams.errors.topic"),
            Some(None),
            "nobody knows the source record any more"
        );
    }
}

#[test]
fn no_broker_or_a_wrong_address_is_said() {
    let config = config(&cluster()).set("bootstrap.servers", "embedded:nowhere").unwrap();
    let mut lonely = kstreams::Config::new("app", "embedded:nowhere");
    lonely = lonely.commit_interval(Duration::from_secs(1));
    let error = KafkaStreams::new(word_count(), lonely).unwrap().start().unwrap_err();
    assert!(error.to_string().contains("embedded://"), "{error}");
    drop(config);
}

#[test]
fn counts_survive_a_thread_that_is_replaced() {
    let cluster = cluster();
    let failed = Arc::new(AtomicUsize::new(0));
    let failing = Arc::clone(&failed);
    let builder = StreamsBuilder::new();
    builder
        .stream("lines", Consumed::with(Utf8, Utf8))
        .peek(move |_, line| {
            if line.contains("boom") && failing.fetch_add(1, Ordering::SeqCst) == 0 {
                panic!("boom");
            }
        })
        .group_by_key(kstreams::Grouped::with(Utf8, Utf8))
        .count(kstreams::Materialized::named("lines-by-key"))
        .to_stream()
        .to("counts", Produced::with(Utf8, I64));
    let streams = KafkaStreams::new(builder.build().unwrap(), config(&cluster))
        .unwrap()
        .on_uncaught_error(|_| UncaughtErrorResponse::ReplaceThread);
    streams.start().unwrap();
    write(&cluster, &["one", "two"]);
    wait_until("two are counted", || last_counts(&cluster).len() == 2);
    write(&cluster, &["boom", "two"]);
    wait_until("all are counted", || last_counts(&cluster) == expected(&[("line-0", 2), ("line-1", 2)]));
    streams.close(PATIENCE).unwrap();
}

#[test]
fn a_processor_without_its_store_is_refused_before_anything_starts() {
    struct Forward;
    impl Processor<String, String> for Forward {
        type KeyOut = String;
        type ValueOut = String;

        fn process(
            &mut self,
            record: Record<String, String>,
            ctx: &mut ProcessorContext<'_, String, String>,
        ) -> kstreams::Result<()> {
            ctx.forward(record)
        }
    }

    let seen = Stores::key_value("seen", Utf8, I64);
    let builder = StreamsBuilder::new();
    builder
        .stream("lines", Consumed::with(Utf8, Utf8))
        .process(move |init| init.store(&seen).map(|_| Forward), Processed::default())
        .to("counts", Produced::with(Utf8, Utf8));
    let error = KafkaStreams::new(builder.build().unwrap(), config(&cluster())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let report = error.report();
    assert!(report.contains("KSTREAM-PROCESSOR-0000000001: no access to store seen: connect it"), "{report}");
}
