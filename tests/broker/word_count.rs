//! A word count on a real Kafka, what it is fed with, and how its result is judged.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kstreams::{
    Config, Consumed, ConsumerRecord, Grouped, I64, KafkaStreams, Materialized, Produced, RestoreEvent, StreamsBuilder,
    TopicClient, Topology, Utf8,
};

/// How long a test waits for what should happen: long, since it only ends the wait for what never does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// How long one look at the output waits for an answer.
const WAIT: Duration = Duration::from_millis(50);

pub(crate) const PARTITIONS: i32 = 2;

/// Words that are spread over all partitions.
const WORDS: usize = 8;

/// One application with topics and a state directory of its own, and the witness that feeds and reads it.
pub(crate) struct Application {
    pub(crate) name: String,
    pub(crate) bootstrap: String,
    pub(crate) topics: TopicClient,
    pub(crate) folder: tempfile::TempDir,
    /// What readers of the output have seen so far.
    seen: Counts,
    lines: usize,
    written: BTreeMap<String, i64>,
}

/// Every count of each word, in order.
type Counts = BTreeMap<String, Vec<i64>>;

impl Application {
    pub(crate) fn new(bootstrap: &str, name: &str) -> Application {
        log_to_stderr();
        let mut topics = TopicClient::connect(&Config::new("witness", bootstrap)).unwrap();
        topics.create_topic(&format!("{name}-lines"), PARTITIONS).unwrap();
        topics.create_topic(&format!("{name}-counts"), PARTITIONS).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (name, bootstrap) = (name.to_owned(), bootstrap.to_owned());
        Application { name, bootstrap, topics, folder, seen: Counts::new(), lines: 0, written: BTreeMap::new() }
    }

    /// Each line has a key of its own and two words: one of a few, and one that all lines have.
    pub(crate) fn send(&mut self, lines: usize) {
        let topic = format!("{}-lines", self.name);
        for _ in 0..lines {
            let number = self.lines;
            self.lines += 1;
            let words = [format!("word-{}", number % WORDS), "all".to_owned()];
            let (key, line) = (format!("line-{number}"), words.join(" "));
            self.topics.write(&topic, Some(key.as_bytes()), Some(line.as_bytes())).unwrap();
            for word in words {
                *self.written.entry(word).or_default() += 1;
            }
        }
    }

    pub(crate) fn write(&mut self, lines: usize) {
        self.send(lines);
        self.topics.flush().unwrap();
    }

    /// Exactly once, committing often, every update forwarded.
    pub(crate) fn config(&self) -> Config {
        config(&self.bootstrap, &self.name, &self.state_dir())
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn start(&self, config: Config) -> KafkaStreams {
        let streams = KafkaStreams::new(word_count(&self.name), config).unwrap();
        streams.start().unwrap();
        streams
    }

    /// Starts, and notes from where each store resumes.
    pub(crate) fn start_noting(&self) -> (KafkaStreams, Arc<Mutex<Vec<Resumed>>>) {
        let noted: Arc<Mutex<Vec<Resumed>>> = Arc::default();
        let sink = Arc::clone(&noted);
        let streams = KafkaStreams::new(word_count(&self.name), self.config()).unwrap();
        let streams = streams.on_restore(move |event| sink.lock().unwrap().extend(Resumed::of(event)));
        streams.start().unwrap();
        (streams, noted)
    }

    /// Committed counts so far.
    pub(crate) fn counted(&mut self) -> usize {
        read_counts(&mut self.topics, &self.name, &mut self.seen, WAIT);
        self.seen.values().map(Vec::len).sum()
    }

    /// Waits until as many counts are committed as there are words.
    pub(crate) fn wait_until_counted(&mut self, streams: Option<&KafkaStreams>) {
        let words: i64 = self.written.values().sum();
        let words = usize::try_from(words).unwrap();
        let begun = Instant::now();
        while self.counted() < words {
            let error = streams.and_then(KafkaStreams::take_error).map(|error| error.report());
            assert!(error.is_none(), "{}: {}", self.name, error.unwrap_or_default());
            let counted = self.counted();
            assert!(begun.elapsed() < PATIENCE, "{}: {counted} of {words} are counted", self.name);
        }
    }

    /// What a new reader sees after the end of all instances is 1 to n for every word: no gap and nothing twice.
    pub(crate) fn assert_exact(&self) {
        let mut topics = TopicClient::connect(&Config::new("judge", self.bootstrap.as_str())).unwrap();
        let mut seen = Counts::new();
        read_counts(&mut topics, &self.name, &mut seen, PATIENCE);
        for (word, count) in &self.written {
            let steps: Vec<i64> = (1..=*count).collect();
            assert_eq!(seen.get(word), Some(&steps), "{}: counts of {word}", self.name);
        }
        assert_eq!(seen.len(), self.written.len());
    }

    /// Nothing lost; something may have come twice.
    pub(crate) fn is_complete(&mut self) -> bool {
        self.counted();
        self.written.iter().all(|(word, count)| self.seen.get(word).is_some_and(|seen| seen.iter().any(|n| n >= count)))
    }

    /// The offset after the last committed record of the store's changelog, per partition.
    pub(crate) fn changelog_ends(&mut self) -> Vec<i64> {
        let mut ends = vec![0; PARTITIONS as usize];
        let changelog = format!("{}-word-counts-changelog", self.name);
        let note = |record: &ConsumerRecord<'_>| ends[record.partition as usize] = record.offset + 1;
        self.topics.read(&changelog, PATIENCE, note).unwrap();
        ends
    }

    /// What tells a database from one that was made anew, by task.
    pub(crate) fn databases(&self) -> BTreeMap<String, (u64, String)> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(self.state_dir().join(&self.name)).unwrap() {
            let entry = entry.unwrap();
            let task = entry.file_name().into_string().unwrap();
            assert!(!task.contains("corrupt"), "nothing is set aside: {task}");
            let database = entry.path().join("db");
            if let Ok(identity) = fs::read_to_string(database.join("IDENTITY")) {
                found.insert(task, (fs::metadata(&database).unwrap().ino(), identity));
            }
        }
        assert_eq!(found.len(), PARTITIONS as usize, "{found:?}");
        found
    }
}

/// What `RUST_LOG` asks for, to see why a test fails.
pub(crate) fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // Whoever comes first has done it for all tests.
    let _ = subscriber.with_writer(std::io::stderr).try_init();
}

/// Appends what has been committed since the last time.
fn read_counts(topics: &mut TopicClient, name: &str, seen: &mut Counts, patience: Duration) {
    let show = |record: &ConsumerRecord<'_>| {
        let word = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
        let count = i64::from_be_bytes(record.value.unwrap().try_into().unwrap());
        seen.entry(word).or_default().push(count);
    };
    topics.read(&format!("{name}-counts"), patience, show).unwrap();
}

/// Where a store went on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resumed {
    pub(crate) partition: i32,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl Resumed {
    pub(crate) fn of(event: &RestoreEvent) -> Option<Resumed> {
        let RestoreEvent::Started { partition, from, to, .. } = event else { return None };
        Some(Resumed { partition: *partition, from: *from, to: *to })
    }
}

/// Every partition's store went on from what it held: from the end of its changelog when it was last closed, or behind
/// it. The last thing there is a commit marker, which a store does not count.
pub(crate) fn assert_resumed(name: &str, resumed: &[Resumed], stored: &[i64]) {
    for (partition, stored) in (0..).zip(stored) {
        let of_partition: Vec<_> = resumed.iter().filter(|one| one.partition == partition).collect();
        assert!(!of_partition.is_empty(), "{name}: the store of partition {partition} is not opened");
        for Resumed { from, to, .. } in of_partition {
            assert!(
                *from > 0 && from + 1 >= *stored && from <= to,
                "{name}[{partition}]: {from} to {to}, stored {stored}"
            );
        }
    }
}

pub(crate) fn config(bootstrap: &str, name: &str, state_dir: &Path) -> Config {
    Config::new(name, bootstrap)
        .exactly_once()
        .commit_interval(Duration::from_millis(50))
        .cache_bytes(0)
        .transaction_timeout(Duration::from_secs(5))
        .session_timeout(Duration::from_secs(2))
        .state_dir(state_dir)
}

pub(crate) fn word_count(name: &str) -> Topology {
    word_count_that(name, |_| {})
}

/// One that looks at each line before it counts.
pub(crate) fn word_count_that(name: &str, look: impl Fn(&str) + Send + Sync + 'static) -> Topology {
    let builder = StreamsBuilder::new();
    builder
        .stream(&format!("{name}-lines"), Consumed::with(Utf8, Utf8))
        .flat_map_values(move |line| {
            look(&line);
            line.split(' ').map(str::to_owned).collect::<Vec<_>>()
        })
        .group_by(|_line, word| word.clone(), Grouped::with(Utf8, Utf8).named("by-word"))
        .count(Materialized::named("word-counts"))
        .to_stream()
        .to(format!("{name}-counts"), Produced::with(Utf8, I64));
    builder.build().unwrap()
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
