//! What an application under faults is given to count, and whether it has counted it exactly.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use kstreams::{Config, ConsumerRecord, TopicClient};

use crate::word_count::{PATIENCE, wait_until};

/// More than there are instances, so that each has something to lose.
const PARTITIONS: i32 = 4;

/// How many words there are beside the one that all lines have.
const WORDS: u64 = 200;

/// How long one look at the output waits for an answer.
const WAIT: Duration = Duration::from_millis(20);

/// How many mistakes are told.
const TOLD_MAX: usize = 12;

/// The lines that were written for a word count, and the counts that came of them.
///
/// Whoever writes and reads here is a process of its own, which nobody kills: what it has written is in the topic once.
pub(crate) struct Ledger {
    name: String,
    bootstrap: String,
    topics: TopicClient,
    lines: u64,
    counted: usize,
}

impl Ledger {
    pub(crate) fn new(bootstrap: &str, name: &str) -> Ledger {
        let mut topics = TopicClient::connect(&Config::new("witness", bootstrap)).unwrap();
        for topic in ["lines", "counts"].map(|topic| format!("{name}-{topic}")) {
            topics.create_topic(&topic, PARTITIONS).unwrap();
            // The broker that is asked next may hear of it later.
            wait_until("there is a topic", || topics.read(&topic, Duration::ZERO, |_| {}).is_ok());
        }
        Ledger { name: name.to_owned(), bootstrap: bootstrap.to_owned(), topics, lines: 0, counted: 0 }
    }

    /// Sends further lines until there are so many. They are in the topic after a flush.
    pub(crate) fn send_up_to(&mut self, lines: u64) {
        let topic = format!("{}-lines", self.name);
        while self.lines < lines {
            let [one, all] = words(self.lines);
            let (key, line) = (format!("line-{}", self.lines), format!("{one} {all}"));
            self.topics.write(&topic, Some(key.as_bytes()), Some(line.as_bytes())).unwrap();
            self.lines += 1;
        }
    }

    /// Waits until all lines are in the topic, for as long as it takes the brokers to come back.
    pub(crate) fn flush(&mut self) {
        let begun = Instant::now();
        while let Err(error) = self.topics.flush() {
            assert!(begun.elapsed() < PATIENCE, "{}: the lines cannot be written: {}", self.name, error.report());
        }
    }

    /// How many counts are committed so far.
    pub(crate) fn counted(&mut self) -> usize {
        self.counted += self.topics.read(&format!("{}-counts", self.name), WAIT, |_| {}).unwrap();
        self.counted
    }

    /// How many counts there have to be for the lines so far.
    pub(crate) fn due(&self) -> usize {
        usize::try_from(self.lines).unwrap() * 2
    }

    /// Compares the input, the output and the changelog as a new reader sees them, after the end of all instances.
    ///
    /// # Errors
    /// The first mistakes, with where they are.
    pub(crate) fn judge(&self) -> Result<(), String> {
        let mut topics = TopicClient::connect(&Config::new("judge", self.bootstrap.as_str())).unwrap();
        let mut mistakes = Mistakes::default();

        let mut written: BTreeMap<String, i64> = BTreeMap::new();
        (0..self.lines).flat_map(words).for_each(|word| *written.entry(word).or_default() += 1);
        let mut found: BTreeMap<String, i64> = BTreeMap::new();
        let tally = |record: &ConsumerRecord<'_>| {
            let line = str::from_utf8(record.value.unwrap()).unwrap();
            line.split(' ').for_each(|word| *found.entry(word.to_owned()).or_default() += 1);
        };
        topics.read(&format!("{}-lines", self.name), PATIENCE, tally).unwrap();
        mistakes.compare("lines in the input with", &found, &written);

        let mut counts: BTreeMap<String, Counted> = BTreeMap::new();
        let output = format!("{}-counts", self.name);
        let follow = |record: &ConsumerRecord<'_>| {
            let (word, count) = word_and_count(record);
            let counted = Counted { count, partition: record.partition, offset: record.offset };
            let last = counts.insert(word.clone(), counted);
            let before = last.as_ref().map_or(0, |last| last.count);
            if count != before + 1 {
                let at = last.map(|last| last.to_string()).unwrap_or("the beginning".to_owned());
                mistakes.note(|| format!("{word}: {counted} comes after {at}"));
            }
        };
        topics.read(&output, PATIENCE, follow).unwrap();
        let last = counts.into_iter().map(|(word, counted)| (word, counted.count)).collect();
        mistakes.compare("the last count of", &last, &written);

        let mut stored = BTreeMap::new();
        let keep = |record: &ConsumerRecord<'_>| {
            let (word, count) = word_and_count(record);
            stored.insert(word, count);
        };
        topics.read(&format!("{}-word-counts-changelog", self.name), PATIENCE, keep).unwrap();
        mistakes.compare("the changelog's count of", &stored, &written);
        mistakes.verdict()
    }
}

/// The words of a line, the same in every run.
fn words(line: u64) -> [String; 2] {
    [format!("word-{}", mix(line) % WORDS), "all".to_owned()]
}

fn word_and_count(record: &ConsumerRecord<'_>) -> (String, i64) {
    let word = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
    (word, i64::from_be_bytes(record.value.unwrap().try_into().unwrap()))
}

/// The finalizer of SplitMix64 after one step: numbers that look random, from a seed and a counter.
pub(crate) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

/// A count where it is in the output.
#[derive(Clone, Copy)]
struct Counted {
    count: i64,
    partition: i32,
    offset: i64,
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at [{}]@{}", self.count, self.partition, self.offset)
    }
}

/// The first of them in words, and how many there are.
#[derive(Default)]
pub(crate) struct Mistakes {
    told: String,
    all: usize,
}

impl Mistakes {
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if self.all < TOLD_MAX {
            writeln!(self.told, "  {}", what()).unwrap();
        }
        self.all += 1;
    }

    fn compare(&mut self, what: &str, found: &BTreeMap<String, i64>, expected: &BTreeMap<String, i64>) {
        for word in found.keys().chain(expected.keys().filter(|word| !found.contains_key(*word))) {
            let [found, expected] = [found, expected].map(|counts| counts.get(word).copied().unwrap_or(0));
            if found != expected {
                self.note(|| format!("{what} {word}: {found} instead of {expected}"));
            }
        }
    }

    pub(crate) fn verdict(self) -> Result<(), String> {
        if self.all == 0 { Ok(()) } else { Err(format!("{} mistakes:\n{}", self.all, self.told)) }
    }
}
