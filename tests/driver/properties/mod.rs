//! Random records, out of order and with nulls: what a topology gives for them is held against a model that keeps
//! everything in plain lists, and then against itself with a cache, and with a process that is killed at a random record,
//! its stores in memory or on disk.
//!
//! `KSTREAMS_PROPERTY_CASES` sets how many cases each property has. A case that fails is printed, shortened.

mod count_windows;
mod global_joins;
mod stream_joins;
mod suppress;
mod table_joins;
mod windows;

use std::collections::BTreeMap;

use kstreams::*;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

/// Keys whose bytes begin with each other, and none.
const KEYS: [Option<&str>; 4] = [Some("k"), Some("kk"), Some("k\0\0"), None];

/// The cases of each property: more for a long night.
fn cases() -> ProptestConfig {
    let cases = std::env::var("KSTREAMS_PROPERTY_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(100))
}

/// A record of one of the topics of a property.
#[derive(Debug, Clone, Copy)]
struct Input {
    topic: usize,
    key: Option<&'static str>,
    /// None is a null value. What else it is the property says.
    value: Option<u8>,
    at: i64,
}

/// Times are anywhere before `longest`, or go up more or less.
fn inputs(topics: usize, longest: i64) -> impl Strategy<Value = Vec<Input>> {
    let value = prop::option::weighted(0.85, any::<u8>());
    let key = prop::sample::select(&[0, 0, 0, 0, 1, 1, 1, 2, 2, 3][..]);
    let input = (0..topics, key, value, 0..longest);
    let inputs = prop::collection::vec(input, 1..60);
    (inputs, any::<bool>()).prop_map(move |(inputs, goes_up)| {
        let inputs = inputs.into_iter().enumerate().map(|(number, (topic, key, value, at))| {
            let at = if goes_up { number as i64 * longest / 60 + at / 6 } else { at };
            Input { topic, key: KEYS[key], value, at }
        });
        inputs.collect()
    })
}

/// How the records are processed.
#[derive(Debug, Clone, Copy)]
struct Run {
    cache_bytes: usize,
    commit_every: usize,
    /// The process is killed before this record; there may be fewer.
    crash_at: usize,
}

/// Whether the process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    Never,
    Once,
}

/// A cache that nothing has to leave.
const LARGE: usize = 1_000_000;

fn runs() -> impl Strategy<Value = Run> {
    let cache_bytes = prop_oneof![Just(0), Just(300), Just(LARGE)];
    (cache_bytes, 1..20_usize, 0..60_usize).prop_map(|(cache_bytes, commit_every, crash_at)| Run {
        cache_bytes,
        commit_every,
        crash_at,
    })
}

/// What a topology writes to `out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// Rows of a join, which a record that is processed twice does not change either. Their times are those of the last
    /// change, and a cache may leave that out.
    JoinedRows,
    /// Rows: a cache may leave out all but the last of a key. A record that is processed twice changes nothing.
    IdempotentRows,
    /// Rows that a record changes again when it is processed twice.
    Rows,
    /// Every record counts.
    Records,
}

/// A record of `out`: key, value and time.
type Line = (String, Option<String>, i64);

/// A topology, and what it is fed.
struct Property<'a> {
    build: &'a dyn Fn() -> StreamsBuilder,
    topics: &'a [&'a str],
    inputs: &'a [Input],
    /// The bytes of a value, of the record's number and what is random in it.
    value: &'a dyn Fn(usize, u8) -> Vec<u8>,
    show: &'a dyn Fn(&TestRecord) -> Line,
    output: Output,
}

/// The name of a store and its rows.
type StoreRows = (String, Vec<(Vec<u8>, Vec<u8>)>);

/// What there is in the end.
struct Outcome {
    lines: Vec<Line>,
    /// Of the lines, how many there were after each record.
    ends: Vec<usize>,
    rows: Vec<StoreRows>,
}

impl Outcome {
    fn by_record(&self) -> Vec<Vec<Line>> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(start, end)| self.lines[*start..*end].to_vec()).collect()
    }

    fn last(&self) -> Rows {
        let mut rows = Rows::new();
        apply(&self.lines, &mut rows);
        rows
    }
}

type Rows = BTreeMap<String, (String, i64)>;

fn apply(lines: &[Line], rows: &mut Rows) {
    for (key, value, at) in lines {
        match value {
            Some(value) => drop(rows.insert(key.clone(), (value.clone(), *at))),
            None => drop(rows.remove(key)),
        }
    }
}

impl Property<'_> {
    /// One record after the other, each with all that it causes, and no cache.
    fn plain(&self) -> Outcome {
        self.run(Run { cache_bytes: 0, commit_every: 1, crash_at: 0 }, Guarantee::AtLeastOnce, Crash::Never)
    }

    fn run(&self, run: Run, guarantee: Guarantee, crash: Crash) -> Outcome {
        let config = Config::new("app", "embedded://").cache_bytes(run.cache_bytes);
        let config = if guarantee == Guarantee::ExactlyOnce { config.exactly_once() } else { config };
        let topology = (self.build)().build().unwrap();
        // Some crashes leave files behind, as they are at that moment.
        let crash = Some(guarantee).filter(|_| crash == Crash::Once);
        if cfg!(feature = "rocksdb") && crash.is_some() && run.crash_at.is_multiple_of(8) {
            let folder = tempfile::tempdir().unwrap();
            return self.feed(
                TopologyTestDriver::with_state_in(folder.path(), &topology, &config).unwrap(),
                run,
                crash,
            );
        }
        self.feed(TopologyTestDriver::with_config(&topology, &config).unwrap(), run, crash)
    }

    fn feed(&self, mut driver: TopologyTestDriver, run: Run, mut crash: Option<Guarantee>) -> Outcome {
        let (mut number, mut committed) = (0, 0);
        let mut ends = Vec::new();
        while let Some(Input { topic, key, value, at }) = self.inputs.get(number) {
            if let Some(guarantee) = crash.take_if(|_| number >= run.crash_at.min(self.inputs.len() - 1)) {
                driver.crash(guarantee).unwrap();
                number = committed;
                ends.truncate(number);
                continue;
            }
            let value = value.map(|value| (self.value)(number, value));
            let key = key.map(str::as_bytes);
            driver.enqueue(self.topics[*topic], key, value.as_deref(), *at, Headers::new()).unwrap();
            driver.process_without_commit().unwrap();
            number += 1;
            if number.is_multiple_of(run.commit_every) {
                driver.commit().unwrap();
                committed = number;
            }
            ends.push(driver.produced().iter().filter(|record| &*record.topic == "out").count());
        }
        driver.commit().unwrap();
        let out = driver.produced().iter().filter(|record| &*record.topic == "out");
        let lines = out.map(self.show).collect();
        let mut rows = driver.rows().unwrap();
        // What waits for a grace period is numbered, and differently after a restart.
        for (_, rows) in rows.iter_mut().filter(|(store, _)| store.ends_with("-Buffer")) {
            rows.iter_mut().for_each(|(key, _)| key.truncate(key.len() - 4));
        }
        Outcome { lines, ends, rows }
    }

    /// With a cache it ends as it did without, and with a crash as it did without.
    fn ends_the_same(&self, run: Run, plain: &Outcome) -> TestCaseResult {
        self.ends_as_without_a_cache(run, plain)?;
        self.outlives_a_crash(run)?;
        self.outlives_a_crash_at_least_once(run, plain)
    }

    fn ends_as_without_a_cache(&self, run: Run, plain: &Outcome) -> TestCaseResult {
        let calm = self.run(run, Guarantee::AtLeastOnce, Crash::Never);
        match self.output {
            Output::Records => prop_assert_eq!(&calm.lines, &plain.lines, "with a cache"),
            Output::Rows | Output::IdempotentRows => prop_assert_eq!(calm.last(), plain.last(), "with a cache"),
            Output::JoinedRows => prop_assert_eq!(untimed(calm.last()), untimed(plain.last()), "with a cache"),
        }
        if self.output != Output::JoinedRows {
            prop_assert_eq!(&calm.rows, &plain.rows, "stores with a cache");
        }
        Ok(())
    }

    /// Exactly once, a crash changes neither a record nor the order of records, whatever is late or out of order: the run
    /// without it has committed at the same places.
    fn outlives_a_crash(&self, run: Run) -> TestCaseResult {
        let calm = self.run(run, Guarantee::ExactlyOnce, Crash::Never);
        let crashed = self.run(run, Guarantee::ExactlyOnce, Crash::Once);
        if run.cache_bytes == 0 || run.cache_bytes == LARGE {
            prop_assert_eq!(&crashed.lines, &calm.lines, "exactly once, with a crash");
        } else {
            // What leaves a cache early depends on what was in it.
            prop_assert_eq!(untimed(crashed.last()), untimed(calm.last()), "exactly once, with a crash");
        }
        if run.cache_bytes == 0 || self.output != Output::JoinedRows {
            prop_assert_eq!(&crashed.rows, &calm.rows, "stores exactly once, with a crash");
        }
        Ok(())
    }

    fn outlives_a_crash_at_least_once(&self, run: Run, plain: &Outcome) -> TestCaseResult {
        if matches!(self.output, Output::JoinedRows | Output::IdempotentRows) {
            // As in Java, a row that has left a cache before the crash, while one behind or before it has not, may stay.
            let crashed = self.run(Run { cache_bytes: 0, ..run }, Guarantee::AtLeastOnce, Crash::Once);
            prop_assert_eq!(untimed(crashed.last()), untimed(plain.last()), "at least once, with a crash");
            if self.output == Output::IdempotentRows {
                prop_assert_eq!(&crashed.rows, &plain.rows, "stores at least once, with a crash");
            }
        }
        Ok(())
    }
}

fn untimed(rows: Rows) -> BTreeMap<String, String> {
    rows.into_iter().map(|(key, (row, _))| (key, row)).collect()
}

fn ms(millis: i64) -> std::time::Duration {
    std::time::Duration::from_millis(millis.unsigned_abs())
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A record of text, the null key as `-`.
fn text_line(record: &TestRecord) -> Line {
    let key = record.key.as_deref().map_or("-".to_owned(), text_of);
    (key, record.value.as_deref().map(text_of), record.timestamp)
}

/// A value that says which record it is of.
fn numbered(number: usize, _: u8) -> Vec<u8> {
    number.to_string().into_bytes()
}
