//! Global tables and topic patterns on a real Kafka.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kstreams::{
    CloseOptions, Config, Consumed, Joined, KafkaStreams, Materialized, Produced, RestoreEvent, State, StreamsBuilder,
    TopicClient, Topology, Utf8,
};

use crate::cluster::TestKafka;

/// How long a test waits for what should happen.
const PATIENCE: Duration = Duration::from_secs(300);

/// Visits, of any topic that begins so, whose values are names of customers, with the customers' towns.
fn towns() -> Topology {
    let builder = StreamsBuilder::new();
    let customers = builder.global_table("g-customers", Consumed::with(Utf8, Utf8), Materialized::named("customers"));
    builder
        .stream_matching("g-visits-.+", Consumed::with(Utf8, Utf8))
        .left_join_global(
            &customers,
            |_visit, customer| customer.clone(),
            |customer, town| format!("{customer} of {}", town.as_deref().unwrap_or("nowhere")),
            Joined::with(Utf8, Utf8),
        )
        .to("g-towns", Produced::with(Utf8, Utf8));
    builder.build().unwrap()
}

struct Witness {
    topics: TopicClient,
    seen: BTreeMap<String, String>,
}

impl Witness {
    fn write(&mut self, topic: &str, rows: &[(&str, &str)]) {
        for (key, value) in rows {
            self.topics.write(topic, Some(key.as_bytes()), Some(value.as_bytes())).unwrap();
        }
        self.topics.flush().unwrap();
    }

    /// Waits until a visit has this town.
    fn expect(&mut self, visit: &str, town: &str) {
        let begun = Instant::now();
        while self.seen.get(visit).is_none_or(|seen| seen != town) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {visit}: {town}, saw {:?}", self.seen);
            let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
            let seen = &mut self.seen;
            let show = |record: &kstreams::ConsumerRecord<'_>| drop(seen.insert(text(record.key), text(record.value)));
            self.topics.read("g-towns", Duration::from_millis(200), show).unwrap();
        }
    }
}

fn start(config: &Config) -> (KafkaStreams, Arc<Mutex<u64>>) {
    let restored = Arc::new(Mutex::new(0));
    let heard = Arc::clone(&restored);
    let streams = KafkaStreams::new(towns(), config.clone()).unwrap().on_restore(move |event| {
        if let RestoreEvent::Ended { records, .. } = event {
            *heard.lock().unwrap() += records;
        }
    });
    streams.start().unwrap();
    let begun = Instant::now();
    while streams.state() != State::Running {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until it runs: {}", streams.state());
        std::thread::sleep(Duration::from_millis(20));
    }
    (streams, restored)
}

#[test]
fn a_global_table_is_whole_and_goes_on_after_a_restart_and_new_topics_are_found() {
    let Some(kafka) = TestKafka::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let topics = TopicClient::connect(&Config::new("g-witness", kafka.bootstrap())).unwrap();
    let mut witness = Witness { topics, seen: BTreeMap::new() };
    for (topic, partitions) in [("g-customers", 3), ("g-visits-a", 2), ("g-towns", 1)] {
        witness.topics.create_topic(topic, partitions).unwrap();
    }
    witness.write("g-customers", &[("ada", "london"), ("bob", "rome"), ("eve", "oslo"), ("zoe", "paris")]);
    let config = Config::new("g-app", kafka.bootstrap())
        .exactly_once()
        .commit_interval(Duration::from_millis(100))
        .metadata_max_age(Duration::from_secs(1))
        .threads(2)
        .state_dir(folder.path());

    let (streams, restored) = start(&config);
    assert_eq!(*restored.lock().unwrap(), 4);
    witness.write("g-visits-a", &[("1", "ada"), ("2", "bob"), ("3", "eve"), ("4", "zoe"), ("5", "max")]);
    for (visit, town) in [("1", "ada of london"), ("4", "zoe of paris"), ("5", "max of nowhere")] {
        witness.expect(visit, town);
    }
    witness.topics.create_topic("g-visits-b", 2).unwrap();
    witness.write("g-visits-b", &[("6", "bob"), ("7", "eve")]);
    witness.expect("6", "bob of rome");
    witness.expect("7", "eve of oslo");
    streams.close(CloseOptions::default()).unwrap();

    witness.write("g-customers", &[("bob", "bonn")]);
    let (streams, restored) = start(&config);
    // Without RocksDB the rows live in memory, and are read anew.
    assert_eq!(*restored.lock().unwrap(), if cfg!(feature = "rocksdb") { 1 } else { 5 });
    witness.write("g-visits-b", &[("8", "bob"), ("9", "ada")]);
    witness.expect("8", "bob of bonn");
    witness.expect("9", "ada of london");
    streams.close(CloseOptions::default()).unwrap();
}
