//! What is run, and what one thread without faults would make of the same input.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{
    Consumed, Grouped, I64, KeyValueStore, Materialized, Processed, Processor, ProcessorContext, Produced, Record,
    Result, Stores, StreamsBuilder, TimeWindows, Topology, Utf8, Windowed,
};

pub(super) const STORE: &str = "counts";
pub(super) const CHANGELOG: &str = "app-counts-changelog";

/// How long deletions stay in the changelog of [`Scenario::Deletions`]. A store that is open is never behind for as long.
const DELETE_RETENTION: Duration = Duration::from_secs(60);

/// How long everything is down at times.
pub(super) const NIGHT: Duration = Duration::from_secs(80);

const WINDOW: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scenario {
    /// One sub-topology.
    Counts,
    /// Two, one of which reads what the other writes.
    Repartition,
    /// Rows are deleted, and the changelog forgets that soon: records of a key are numbered from 1 to 4 again and again.
    Deletions,
    /// Counts in windows without grace: how far time is decides which record is too late, and it lies in the commits.
    Windows,
    /// Without transactions: each record of a key has the next number, which a store remembers.
    AtLeastOnce,
}

impl Scenario {
    pub(super) fn topology(self) -> Topology {
        let builder = StreamsBuilder::new();
        let input = builder.stream("in", Consumed::with(Utf8, Utf8));
        let grouped = Grouped::with(Utf8, Utf8);
        match self {
            Scenario::Counts => {
                let counts = input.group_by_key(grouped).count(Materialized::named(STORE).in_memory());
                counts.to_stream().to("out", Produced::with(Utf8, I64));
            }
            Scenario::Repartition => {
                let grouped = input.group_by(|key: &String, _| key.clone(), grouped.named("by-key"));
                let counts = grouped.count(Materialized::named(STORE).in_memory());
                counts.to_stream().to("out", Produced::with(Utf8, I64));
            }
            Scenario::Deletions => {
                let retention = DELETE_RETENTION.as_millis().to_string();
                let settings = BTreeMap::from([("delete.retention.ms".to_owned(), retention)]);
                let store = Stores::in_memory_key_value(STORE, Utf8, I64).with_logging(settings);
                builder.add_state_store(&store);
                let numbers =
                    input.process(move |init| Ok(Rounds { numbers: init.store(&store)? }), Processed::stores([STORE]));
                numbers.to("out", Produced::with(Utf8, I64));
            }
            Scenario::AtLeastOnce => {
                let store = Stores::in_memory_key_value(STORE, Utf8, I64);
                builder.add_state_store(&store);
                let numbers =
                    input.process(move |init| Ok(Numbers { last: init.store(&store)? }), Processed::stores([STORE]));
                numbers.to("out", Produced::with(Utf8, I64));
            }
            Scenario::Windows => {
                let windows = TimeWindows::of_size_with_no_grace(WINDOW);
                let counts = input.group_by_key(grouped).windowed_by(windows);
                let counts = counts.count(Materialized::named(STORE).in_memory());
                let named =
                    |window: Windowed<String>, count| (format!("{}@{}", window.key, window.window.start), count);
                counts.to_stream().map(named).to("out", Produced::with(Utf8, I64));
            }
        }
        builder.build().unwrap()
    }

    pub(super) fn internal_topics(self) -> &'static [&'static str] {
        match self {
            Scenario::Repartition => &[CHANGELOG, "app-by-key-repartition"],
            Scenario::Counts | Scenario::Deletions | Scenario::Windows | Scenario::AtLeastOnce => &[CHANGELOG],
        }
    }

    /// What a row on disk is called in the changelog.
    pub(super) fn logged_key(self, key: Vec<u8>) -> Vec<u8> {
        match (self, key.split_first_chunk::<8>()) {
            // Behind its bucket.
            (Scenario::Windows, Some((_, key_and_time))) => [key_and_time, &[0; 4]].concat(),
            _ => key,
        }
    }

    /// The time of a row, by its name in the changelog; none: it does not expire.
    pub(super) fn logged_time(self, key: &[u8]) -> Option<i64> {
        let time = key.split_last_chunk::<4>().and_then(|(rest, _)| rest.last_chunk());
        time.filter(|_| self == Scenario::Windows).map(|time| i64::from_be_bytes(*time))
    }

    /// Whether rows of one time are kept where the newest one has another time.
    pub(super) fn keeps(self, time: Option<i64>, newest: Option<i64>) -> bool {
        let kept_ms = i64::try_from(WINDOW.as_millis()).unwrap();
        time.zip(newest).is_none_or(|(time, newest)| time > newest - kept_ms)
    }

    /// Bytes before what the changelog has of a row, and whether they are the record's timestamp.
    pub(super) fn row_timestamp_len(self) -> usize {
        match self {
            Scenario::Counts | Scenario::Repartition | Scenario::Windows => 8,
            Scenario::Deletions | Scenario::AtLeastOnce => 0,
        }
    }

    pub(super) fn is_exactly_once(self) -> bool {
        self != Scenario::AtLeastOnce
    }

    /// Whether calendars may jump: how old a store is that has not been used is only told by them.
    pub(super) fn may_jump(self) -> bool {
        self != Scenario::Deletions
    }
}

/// Numbers the records of each key from 1 to [`ROUND`].
struct Rounds {
    numbers: KeyValueStore<String, i64>,
}

const ROUND: i64 = 4;

impl Processor<String, String> for Rounds {
    type KeyOut = String;
    type ValueOut = i64;

    fn process(&mut self, record: Record<String, String>, ctx: &mut ProcessorContext<'_, String, i64>) -> Result<()> {
        let number = self.numbers.get(ctx, &record.key)?.unwrap_or(0) + 1;
        if number == ROUND {
            self.numbers.delete(ctx, &record.key)?;
        } else {
            self.numbers.put(ctx, &record.key, &number)?;
        }
        ctx.forward(Record::new(record.key, number, record.timestamp))
    }
}

/// Lets records through in the order of their numbers. One that comes again may have been counted.
struct Numbers {
    last: KeyValueStore<String, i64>,
}

impl Processor<String, String> for Numbers {
    type KeyOut = String;
    type ValueOut = i64;

    fn process(&mut self, record: Record<String, String>, ctx: &mut ProcessorContext<'_, String, i64>) -> Result<()> {
        let number: i64 = record.value.parse().unwrap();
        let last = self.last.get(ctx, &record.key)?.unwrap_or(0);
        self.last.put(ctx, &record.key, &number.max(last))?;
        // Below 0: the store has forgotten what was committed.
        let told = if number > last + 1 { -number } else { number };
        ctx.forward(Record::new(record.key, told, record.timestamp))
    }
}

/// A topology over records one after the other.
#[derive(Debug)]
pub(super) struct Model {
    scenario: Scenario,
    counts: BTreeMap<String, i64>,
    /// Of each partition.
    times: BTreeMap<i32, i64>,
}

impl Model {
    pub(super) fn new(scenario: Scenario) -> Model {
        Model { scenario, counts: BTreeMap::new(), times: BTreeMap::new() }
    }

    /// What a record leads to.
    pub(super) fn takes(&mut self, partition: i32, key: &str, timestamp: i64) -> Option<(String, i64)> {
        let time = self.times.entry(partition).or_insert(timestamp);
        *time = timestamp.max(*time);
        let key = match self.scenario {
            Scenario::Counts | Scenario::Repartition | Scenario::Deletions | Scenario::AtLeastOnce => key.to_owned(),
            Scenario::Windows => {
                let size = i64::try_from(WINDOW.as_millis()).unwrap();
                let start = timestamp - timestamp % size;
                if start + size <= *time {
                    return None;
                }
                format!("{key}@{start}")
            }
        };
        let count = self.counts.entry(key.clone()).or_default();
        *count += 1;
        let counted = *count;
        if self.scenario == Scenario::Deletions && counted == ROUND {
            *count = 0;
        }
        Some((key, counted))
    }
}
