//! An application that crashes on a real Kafka, with Kafka's own producer and consumer as witnesses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kstreams::{
    CloseOptions, Config, Consumed, Grouped, I64, KafkaStreams, Materialized, Produced, RestoreEvent, State,
    StreamsBuilder, Topology, Utf8,
};

use crate::cluster::TestKafka;

/// How long a test waits for what should happen.
const PATIENCE: Duration = Duration::from_secs(300);

const WORDS: [&str; 5] = ["to", "be", "or", "not", "question"];

fn word_count(name: &str) -> Topology {
    let builder = StreamsBuilder::new();
    builder
        .stream(&format!("{name}-lines"), Consumed::with(Utf8, Utf8))
        .flat_map_values(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .group_by(|_line, word| word.clone(), Grouped::with(Utf8, Utf8).named("by-word"))
        .count(Materialized::named("word-counts"))
        .to_stream()
        .to(format!("{name}-counts"), Produced::with(Utf8, I64));
    builder.build().unwrap()
}

struct Application<'a> {
    kafka: &'a TestKafka,
    name: &'a str,
    folder: tempfile::TempDir,
}

impl Application<'_> {
    fn new<'a>(kafka: &'a TestKafka, name: &'a str) -> Application<'a> {
        // `RUST_LOG=kstreams=debug cargo test … -- --nocapture` shows what the library does.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
        for topic in ["lines", "counts"] {
            kafka.topics(&["--create", "--topic", &format!("{name}-{topic}"), "--partitions", "2"]).unwrap();
        }
        Application { kafka, name, folder: tempfile::tempdir().unwrap() }
    }

    /// An instance; those of one number share a state directory.
    fn config(&self, instance: usize) -> Config {
        Config::new(self.name, self.kafka.bootstrap())
            .exactly_once()
            .commit_interval(Duration::from_millis(100))
            .cache_bytes(0)
            .state_dir(self.folder.path().join(instance.to_string()))
    }

    fn start(&self, instance: usize) -> KafkaStreams {
        let streams = KafkaStreams::new(word_count(self.name), self.config(instance)).unwrap();
        streams.start().unwrap();
        streams
    }

    /// Writes every word `times` times, one line each time.
    fn write(&self, times: usize) {
        let lines: Vec<String> = (0..times).map(|n| format!("{n}:{}", WORDS.join(" "))).collect();
        self.kafka.produce(&format!("{}-lines", self.name), &lines).unwrap();
    }

    fn counts(&self) -> BTreeMap<String, Vec<i64>> {
        let mut counts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (word, count) in self.kafka.committed_counts(&format!("{}-counts", self.name)).unwrap() {
            counts.entry(word).or_default().push(count);
        }
        counts
    }

    /// Waits until readers see every word so many times, and looks for gaps and repetitions.
    fn expect_counts(&self, times: i64) {
        let (begun, mut seen) = (Instant::now(), BTreeMap::new());
        while begun.elapsed() < PATIENCE {
            seen = self.counts();
            if WORDS.iter().all(|word| seen.get(*word).is_some_and(|counts| counts.len() as i64 >= times)) {
                break;
            }
        }
        let expected: BTreeMap<_, _> = WORDS.iter().map(|word| ((*word).to_owned(), (1..=times).collect())).collect();
        assert_eq!(seen, expected);
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_crashed_instance_goes_on_from_its_state() {
    let Some(kafka) = TestKafka::shared() else { return };
    let application = Application::new(kafka, "crashing");
    application.write(20);
    let streams = application.start(1);
    wait_until("everything is counted", || streams.processed_total() >= 20 * 6);
    application.expect_counts(20);
    // In the middle of the next lines.
    application.write(20);
    streams.crash();
    application.write(20);
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let streams = KafkaStreams::new(word_count("crashing"), application.config(1))
        .unwrap()
        .on_restore(move |event| sink.lock().unwrap().push(event.clone()));
    streams.start().unwrap();
    wait_until("it runs", || streams.state() == State::Running);
    application.expect_counts(60);
    streams.close(CloseOptions::default()).unwrap();
    if cfg!(feature = "rocksdb") {
        let events = events.lock().unwrap();
        let resumed = events.iter().any(|event| matches!(event, RestoreEvent::Started { from, .. } if *from > 0));
        assert!(resumed, "nothing was wiped: {events:?}");
    }
}
