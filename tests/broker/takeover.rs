//! An application moves from Kafka Streams for Java to this library and back, with its offsets and its state.
//!
//! ```text
//!   the same input    Java, then here, then Java again    -->  a-counts, a-windows, …
//!                     Java alone                          -->  b-counts, b-windows, …     the same records
//! ```
//!
//! Every owner starts with an empty state directory, so it lives on what the other one wrote to the changelogs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kstreams::{
    CloseOptions, Config, Consumed, Grouped, I64, JoinWindows, KafkaStreams, Materialized, Produced, SessionWindows,
    State, StreamJoined, StreamsBuilder, TableJoined, TimeWindows, TopicClient, Topology, Utf8, Windowed,
};

use crate::cluster::{TestKafka, output_within};

const MINUTE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(300);
const OUTPUTS: [&str; 5] = ["counts", "windows", "sessions", "joined", "enriched"];

/// The topology of `java/TakeOver.java`, line by line.
fn topology(output: &str) -> Topology {
    let builder = StreamsBuilder::new();
    let strings = || Consumed::with(Utf8, Utf8);
    let left = builder.stream("left", strings()).peek(|_, _| {});
    let right = builder.stream("right", strings());

    left.clone()
        .group_by_key(Grouped::with(Utf8, Utf8))
        .count(Materialized::named("counts"))
        .to_stream()
        .to(format!("{output}counts"), Produced::with(Utf8, I64));
    left.clone()
        .group_by_key(Grouped::with(Utf8, Utf8))
        .windowed_by(TimeWindows::of_size_with_no_grace(MINUTE))
        .count(Materialized::named("windows"))
        .to_stream_by(|key: &Windowed<String>, _| format!("{}@{}", key.key, key.window.start))
        .to(format!("{output}windows"), Produced::with(Utf8, I64));
    left.clone()
        .group_by_key(Grouped::with(Utf8, Utf8))
        .windowed_by(SessionWindows::of_inactivity_gap_with_no_grace(MINUTE))
        .count(Materialized::named("sessions"))
        .to_stream_by(|key: &Windowed<String>, _| format!("{}@{}@{}", key.key, key.window.start, key.window.end))
        .to(format!("{output}sessions"), Produced::with(Utf8, I64));
    left.left_join_stream(
        right,
        |left, right| format!("{left}|{}", right.map_or("null", String::as_str)),
        JoinWindows::of_time_difference_with_no_grace(MINUTE),
        StreamJoined::with(Utf8, Utf8, Utf8).with_store_name("join").named("join"),
    )
    .to(format!("{output}joined"), Produced::with(Utf8, Utf8));
    let orders = builder.table("orders", strings(), Materialized::named("orders"));
    let customers = builder.table("customers", strings(), Materialized::named("customers"));
    orders
        .join_foreign_key(
            &customers,
            |_, order| order.split_once(':').map(|(customer, _)| customer.to_owned()),
            |order, customer| format!("{order}|{customer}"),
            TableJoined::default(),
        )
        .to_stream()
        .peek(|_, _| {})
        .to(format!("{output}enriched"), Produced::with(Utf8, Utf8));
    builder.build().unwrap()
}

/// Records of one phase: times go on where the phase before ended, with some that are out of order but not late.
fn write(client: &mut TopicClient, begin: i64, phase: i64) {
    for n in phase * 300..(phase + 1) * 300 {
        let key = format!("k{}", (n * 7) % 10);
        let time = begin + n * 2_000 - (n % 3) * 500 + (n / 100) * 90_000;
        let bytes = |text: &str| text.as_bytes().to_vec();
        let mut write = |topic: &str, key: &str, value: &str| {
            client.write_at(topic, Some(&bytes(key)), Some(&bytes(value)), time).unwrap();
        };
        write("left", &key, &format!("l{n}"));
        if n % 2 == 0 {
            write("right", &key, &format!("r{n}"));
        }
        write("orders", &format!("o{}", n % 20), &format!("c{}:{n}", n % 5));
        if n % 10 == 0 {
            write("customers", &format!("c{}", n % 7), &format!("name {n}"));
        }
    }
    client.flush().unwrap();
}

fn java(kafka: &TestKafka, application: &str, state: &Path, output: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broker/java/TakeOver.java");
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp"]).arg(format!("{}/libs/*", kafka.home())).arg(source);
    command.arg(kafka.bootstrap()).arg(application).arg(state).arg(output);
    let output = output_within(PATIENCE, &mut command).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs here until nothing has come for three seconds.
fn here(kafka: &TestKafka, application: &str, state: &Path, output: &str) {
    let config = Config::new(application, kafka.bootstrap()).exactly_once().cache_bytes(0).state_dir(state);
    let config = config.session_timeout(Duration::from_secs(6));
    let streams = KafkaStreams::new(topology(output), config).unwrap();
    streams.start().unwrap();
    let (mut processed, mut since) = (0, Instant::now());
    let begun = Instant::now();
    while streams.state() != State::Running || processed == 0 || since.elapsed() < Duration::from_secs(3) {
        assert!(begun.elapsed() < PATIENCE, "it does not run: {}", streams.state());
        if processed != streams.processed_total() {
            (processed, since) = (streams.processed_total(), Instant::now());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // A member that stays keeps Java's out until its session is over.
    streams.close(CloseOptions::default().leave_group()).unwrap();
}

type Values = BTreeMap<String, Vec<String>>;

/// What readers see of a topic: the values of each key in order.
fn read(client: &mut TopicClient, topic: &str, is_number: bool) -> Values {
    let mut values = Values::new();
    let show = |bytes: &[u8]| match bytes.try_into() {
        Ok(bytes) if is_number => i64::from_be_bytes(bytes).to_string(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    };
    let mut last = usize::MAX;
    while last > 0 {
        last = client
            .read(topic, Duration::from_secs(3), |record| {
                let key = String::from_utf8_lossy(record.key.unwrap_or_default()).into_owned();
                values.entry(key).or_default().push(record.value.map_or("null".to_owned(), show));
            })
            .unwrap();
    }
    values
}

/// The library's own topics of an application, without its name.
fn internal_topics(kafka: &TestKafka, application: &str) -> BTreeSet<String> {
    let listed = kafka.topics(&["--list"]).unwrap();
    listed.lines().filter_map(|topic| topic.strip_prefix(&format!("{application}-"))).map(str::to_owned).collect()
}

#[test]
fn an_application_moves_from_java_to_here_and_back() {
    let Some(kafka) = TestKafka::start(1) else { return };
    let folder = tempfile::tempdir().unwrap();
    let state = |name: &str| folder.path().join(name);
    let mut client = TopicClient::connect(&Config::new("witness", kafka.bootstrap())).unwrap();
    for topic in ["left", "right", "orders", "customers"] {
        client.create_topic(topic, 2).unwrap();
    }
    for output in OUTPUTS {
        client.create_topic(&format!("a-{output}"), 2).unwrap();
        client.create_topic(&format!("b-{output}"), 2).unwrap();
    }

    // An hour ago, at a full minute: what is older than a week the broker deletes when it likes.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let begin = (now / 60 - 60) * 60_000;
    write(&mut client, begin, 0);
    java(&kafka, "moving", &state("java-1"), "a-");
    write(&mut client, begin, 1);
    here(&kafka, "moving", &state("here"), "a-");
    write(&mut client, begin, 2);
    java(&kafka, "moving", &state("java-2"), "a-");
    java(&kafka, "staying", &state("java-alone"), "b-");

    for output in OUTPUTS {
        let is_number = matches!(output, "counts" | "windows" | "sessions");
        let mut moved = read(&mut client, &format!("a-{output}"), is_number);
        let mut stayed = read(&mut client, &format!("b-{output}"), is_number);
        assert!(!stayed.is_empty(), "{output} is empty");
        match output {
            // Which of two topics is read first is not fixed: the pairs are, their order is not.
            "joined" => [&mut moved, &mut stayed].into_iter().flat_map(BTreeMap::values_mut).for_each(|all| all.sort()),
            // Nor is how often a result is seen on its way.
            "enriched" => [&mut moved, &mut stayed].into_iter().flat_map(BTreeMap::values_mut).for_each(|all| {
                all.drain(..all.len() - 1);
            }),
            _ => {}
        }
        assert_eq!(moved, stayed, "{output}");
    }
    assert_eq!(internal_topics(&kafka, "moving"), internal_topics(&kafka, "staying"));
}
