//! What a real broker refuses, or has not got: the message says which and what to do, and nothing is lost meanwhile.

use std::time::Duration;

use kstreams::{
    CloseOptions, Config, Consumed, Error, ErrorHandler, ErrorKind, GroupProtocol, I64, Joined, KafkaStreams,
    Materialized, Produced, State, StreamsBuilder, TopicClient, Topology, Utf8,
};

use crate::cluster::TestKafka;
use crate::word_count::{Application, config, wait_until, word_count};

const CLOSE: Duration = Duration::from_secs(60);

fn refused(topology: Topology, config: Config) -> Error {
    KafkaStreams::new(topology, config).unwrap().start().unwrap_err()
}

/// Needs no broker.
#[test]
fn an_address_without_a_broker_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = refused(word_count("nobody"), config("127.0.0.1:1", "nobody", folder.path()));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let report = error.report();
    assert!(
        report.contains("no broker answers at 127.0.0.1:1: check the address") && report.contains("Connection refused"),
        "{report}"
    );
}

/// As `user` on the listener that asks who it is.
fn guarded(config: Config, user: &str, password: &str) -> Config {
    config
        .kafka("security.protocol", "sasl_plaintext")
        .kafka("sasl.mechanism", "PLAIN")
        .kafka("sasl.username", user)
        .kafka("sasl.password", password)
}

#[test]
fn wrong_credentials_are_refused_at_once_and_right_ones_find_everything() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "credentials");
    app.write(20);
    let with = |bootstrap: &str, password: &str| {
        guarded(config(bootstrap, "credentials", &app.state_dir()), "alice", password)
    };
    let listener = kafka.bootstrap_with_credentials();
    let right = with(&listener, "secret");

    let error = refused(word_count("credentials"), with(&listener, "wrong"));
    let report = error.report();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{report}");
    assert!(report.contains("refused the credentials") && report.contains("sasl.password"), "{report}");
    assert!(report.contains(&listener) && !report.contains("wrong"), "{report}");

    // A broker that asks for none, and one that is asked without.
    let error = refused(word_count("credentials"), with(&kafka.bootstrap(), "secret"));
    assert!(error.report().contains("security.protocol"), "{}", error.report());
    let error = refused(word_count("credentials"), config(&listener, "credentials", &app.state_dir()));
    assert!(error.report().contains("security.protocol"), "{}", error.report());

    let streams = app.start(right);
    app.wait_until_counted(Some(&streams));
    streams.close(CLOSE).unwrap();
    app.assert_exact();
}

#[test]
fn topics_that_are_missing_or_do_not_fit_are_named() {
    let Some(kafka) = TestKafka::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut topics = TopicClient::connect(&Config::new("witness", kafka.bootstrap())).unwrap();
    let config = |name: &str| config(&kafka.bootstrap(), name, folder.path());

    let text = refused(word_count("fit"), config("fit")).to_string();
    assert!(text.contains("source topic fit-lines does not exist: create it"), "{text}");
    topics.create_topic("fit-lines", 2).unwrap();
    let text = refused(word_count("fit"), config("fit")).to_string();
    assert!(text.contains("output topic fit-counts does not exist: create it"), "{text}");
    topics.create_topic("fit-counts", 2).unwrap();
    topics.create_topic("fit-word-counts-changelog", 3).unwrap();
    let text = refused(word_count("fit"), config("fit")).to_string();
    assert!(text.contains("fit-word-counts-changelog has 3 partitions and needs 2"), "{text}");
    assert!(text.contains("reset the application") && text.contains("new application id"), "{text}");

    topics.create_topic("fit-table", 3).unwrap();
    let builder = StreamsBuilder::new();
    let table = builder.table("fit-table", Consumed::with(Utf8, Utf8), Materialized::named("table"));
    let stream = builder.stream("fit-lines", Consumed::with(Utf8, Utf8));
    let joined = stream.join(&table, |left, right| left + &right, Joined::with(Utf8, Utf8));
    joined.to("fit-counts", Produced::with(Utf8, Utf8));
    let text = refused(builder.build().unwrap(), config("fit-join")).to_string();
    assert!(text.contains("fit-lines has 2") && text.contains("fit-table has 3"), "{text}");
    assert!(text.contains("repartition"), "{text}");
}

#[test]
fn an_undecodable_record_stops_the_client_until_it_is_decided_about() {
    let Some(kafka) = TestKafka::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut topics = TopicClient::connect(&Config::new("witness", kafka.bootstrap())).unwrap();
    for topic in ["numbers", "numbers-copy", "numbers-dead"] {
        topics.create_topic(topic, 1).unwrap();
    }
    for value in [&1_i64.to_be_bytes()[..], b"no number", &3_i64.to_be_bytes()] {
        topics.write("numbers", Some(b"k"), Some(value)).unwrap();
    }
    topics.flush().unwrap();
    let copy = || {
        let builder = StreamsBuilder::new();
        builder.stream("numbers", Consumed::with(Utf8, I64)).to("numbers-copy", Produced::with(Utf8, I64));
        builder.build().unwrap()
    };
    let config = config(&kafka.bootstrap(), "numbers", folder.path());

    let streams = KafkaStreams::new(copy(), config.clone()).unwrap();
    streams.start().unwrap();
    wait_until("it has stopped", || streams.state() == State::Error);
    let report = streams.take_error().unwrap().report();
    assert!(report.contains("numbers[0]@1") && report.contains("Config::deserialization_handler"), "{report}");

    let deciding = config.deserialization_handler(ErrorHandler::log_and_continue()).dead_letter_topic("numbers-dead");
    let streams = KafkaStreams::new(copy(), deciding).unwrap();
    streams.start().unwrap();
    let (mut copied, mut dead) = (Vec::new(), Vec::new());
    wait_until("both are copied", || {
        let show = |record: &kstreams::ConsumerRecord<'_>| copied.push(record.value.map(<[u8]>::to_vec));
        topics.read("numbers-copy", Duration::from_millis(100), show).unwrap();
        copied.len() >= 2
    });
    streams.close(CLOSE).unwrap();
    assert_eq!(copied, [Some(1_i64.to_be_bytes().to_vec()), Some(3_i64.to_be_bytes().to_vec())]);
    let show = |record: &kstreams::ConsumerRecord<'_>| dead.push(record.value.map(<[u8]>::to_vec));
    topics.read("numbers-dead", CLOSE, show).unwrap();
    assert_eq!(dead, [Some(b"no number".to_vec())]);
}

#[test]
fn a_right_that_is_taken_away_ends_it_with_the_remedy_and_is_all_it_waits_for() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "rights");
    kafka.acls("--add", &["--topic", "--group", "--transactional-id"], "rights").unwrap();
    let config = guarded(config(&kafka.bootstrap_with_credentials(), "rights", &app.state_dir()), "bob", "secret");
    app.write(20);
    let mut streams = app.start(config.clone());
    app.wait_until_counted(Some(&streams));
    for (right, remedy) in [("--group", "READ on"), ("--topic", "grant"), ("--transactional-id", "grant")] {
        kafka.acls("--remove", &[right], "rights").unwrap();
        wait_until(&format!("{right} is missed"), || {
            app.write(1);
            streams.state() == State::Error
        });
        let error = streams.take_error().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{right}: {}", error.report());
        assert!(error.report().contains(remedy), "{right}: {}", error.report());
        kafka.acls("--add", &[right], "rights").unwrap();
        drop(streams);
        streams = app.start(config.clone());
        app.write(10);
        app.wait_until_counted(Some(&streams));
    }
    streams.close(CLOSE).unwrap();
    app.assert_exact();
}

/// librdkafka's own members are what any plain consumer is to the group.
#[test]
fn a_group_that_a_plain_consumer_uses_is_waited_for() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "plain");
    app.write(20);
    let plain = app.start(app.config().group_protocol(GroupProtocol::Range));
    app.wait_until_counted(Some(&plain));
    let sticky = app.start(app.config().state_dir(app.folder.path().join("sticky")));
    app.write(20);
    app.wait_until_counted(Some(&plain));
    assert_eq!((sticky.state(), sticky.processed_total()), (State::Rebalancing, 0));
    plain.close(CloseOptions::from(CLOSE).leave_group()).unwrap();
    app.write(20);
    app.wait_until_counted(Some(&sticky));
    sticky.close(CLOSE).unwrap();
    app.assert_exact();
}

#[test]
fn a_broker_without_streams_groups_says_so_and_runs_the_protocol_that_it_has() {
    let Some(kafka) = TestKafka::start_with("group.coordinator.rebalance.protocols=classic,consumer\n") else {
        return;
    };
    let mut app = Application::new(&kafka.bootstrap(), "old");
    app.write(20);
    let streams = KafkaStreams::new(word_count("old"), app.config().group_protocol(GroupProtocol::Streams)).unwrap();
    let error = match streams.start() {
        Err(error) => error,
        Ok(()) => {
            wait_until("it has ended", || streams.state() == State::Error);
            streams.take_error().unwrap()
        }
    };
    assert_eq!((error.kind(), streams.state()), (ErrorKind::Invalid, State::Error));
    assert!(error.report().contains("or set GroupProtocol::Sticky"), "{}", error.report());
    drop(streams);
    let streams = app.start(app.config());
    app.wait_until_counted(Some(&streams));
    streams.close(CLOSE).unwrap();
    app.assert_exact();
}
