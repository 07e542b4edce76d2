//! Windowed aggregations, each against a list of the records.

mod grids;
mod sessions;
mod sliding;

pub(super) use grids::{GridModel, grid};

use super::*;

/// Each record is a bit, so that a row says which records are in it.
fn bit(number: usize, _: u8) -> Vec<u8> {
    (1_i64 << number).to_be_bytes().to_vec()
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Fold {
    Count,
    Reduce,
    Aggregate,
    /// Of two streams, each with its own aggregator and time.
    Cogroup,
}

/// What the second aggregator of a cogroup leaves in a row, beside its record.
const SECOND: i64 = 1 << 62;

impl Fold {
    fn add(self, row: Option<i64>, fed: Fed) -> Option<i64> {
        let value = fed.value.unwrap_or(0);
        match self {
            Fold::Count => Some(row.unwrap_or(0) + 1),
            Fold::Reduce => row.map_or(fed.value, |row| Some(row | value)),
            Fold::Cogroup if fed.topic == 1 => Some(row.unwrap_or(0) | value | SECOND),
            Fold::Aggregate | Fold::Cogroup => Some(row.unwrap_or(0) | value),
        }
    }

    /// The row of some records, and its time: that of the last of them.
    fn of_all(self, records: &[Fed]) -> Option<Row> {
        let row = records.iter().fold(None, |row, fed| self.add(row, *fed));
        row.zip(records.iter().map(|fed| fed.at).max())
    }

    fn merge(self, one: i64, other: i64) -> i64 {
        if matches!(self, Fold::Count) { one + other } else { one | other }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Windows {
    Time { size: i64, advance: i64 },
    Sliding { difference: i64 },
    Session { gap: i64 },
    Unlimited { start: i64 },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) windows: Windows,
    pub(super) grace: i64,
    pub(super) fold: Fold,
    pub(super) emit: EmitStrategy,
    pub(super) is_suppressed: bool,
    pub(super) in_memory: bool,
    pub(super) keeps_long: bool,
}

pub(super) fn setups(
    windows: impl Strategy<Value = Windows>,
    grace: impl Strategy<Value = i64>,
    emit: EmitStrategy,
) -> impl Strategy<Value = Setup> {
    let fold = prop_oneof![Just(Fold::Count), Just(Fold::Reduce), Just(Fold::Aggregate)];
    setups_of(fold, windows, grace, emit)
}

/// Cogroups take no other strategy.
fn cogroups(
    windows: impl Strategy<Value = Windows>,
    grace: impl Strategy<Value = i64>,
) -> impl Strategy<Value = Setup> {
    setups_of(Just(Fold::Cogroup), windows, grace, UPDATE)
}

fn setups_of(
    fold: impl Strategy<Value = Fold>,
    windows: impl Strategy<Value = Windows>,
    grace: impl Strategy<Value = i64>,
    emit: EmitStrategy,
) -> impl Strategy<Value = Setup> {
    (windows, grace, fold, any::<[bool; 2]>()).prop_map(move |(windows, grace, fold, [in_memory, keeps_long])| Setup {
        windows,
        grace,
        fold,
        emit,
        is_suppressed: false,
        in_memory,
        // Nothing expires in a window without an end.
        keeps_long: keeps_long && !matches!(windows, Windows::Unlimited { .. }),
    })
}

const UPDATE: EmitStrategy = EmitStrategy::OnWindowUpdate;
const CLOSE: EmitStrategy = EmitStrategy::OnWindowClose;

/// With [`Setup::keeps_long`].
const LONG: i64 = 1_000_000;

type Key = Option<String>;

impl Setup {
    fn rows<V: 'static>(self) -> Materialized<Key, V> {
        let rows = Materialized::named("rows");
        let rows = if self.keeps_long { rows.with_retention(ms(LONG)) } else { rows };
        if self.in_memory { rows.in_memory() } else { rows }
    }

    pub(super) fn build(self) -> StreamsBuilder {
        let builder = StreamsBuilder::new();
        let grouped = |topic| {
            let stream = builder.stream(topic, Consumed::with(Nullable(Utf8), Nullable(I64)));
            stream.group_by_key(Grouped::with(Nullable(Utf8), Nullable(I64)))
        };
        if matches!(self.fold, Fold::Cogroup) {
            self.build_cogroup(grouped("in").cogroup(add).cogroup(grouped("other"), add_second));
            return builder;
        }
        let grouped = grouped("in");
        match self.windows {
            Windows::Time { size, advance } => {
                self.fold_time(grouped.windowed_by(self.time_windows(size, advance)), size);
            }
            Windows::Unlimited { start } => {
                self.fold_time(grouped.windowed_by(UnlimitedWindows::of().start_on(start)), i64::MAX);
            }
            Windows::Sliding { difference } => {
                self.fold_time(grouped.windowed_by(self.sliding_windows(difference)), difference);
            }
            Windows::Session { gap } => {
                let windowed = grouped.windowed_by(self.session_windows(gap)).emit_strategy(self.emit);
                let key = SessionWindowedSerde::new(Nullable(Utf8));
                let merge = move |_: &Key, one: i64, other: i64| self.fold.merge(one, other);
                match self.fold {
                    Fold::Count => self.write(windowed.count(self.rows()), key, I64),
                    Fold::Reduce => self.write(windowed.reduce(or, self.rows()), key, Nullable(I64)),
                    Fold::Aggregate | Fold::Cogroup => {
                        let rows = self.rows().with_value_serde(I64);
                        self.write(windowed.aggregate(|| 0, add, merge, rows), key, I64);
                    }
                }
            }
        }
        builder
    }

    fn time_windows(self, size: i64, advance: i64) -> TimeWindows {
        TimeWindows::of_size_and_grace(ms(size), ms(self.grace)).advance_by(ms(advance))
    }

    fn sliding_windows(self, difference: i64) -> SlidingWindows {
        SlidingWindows::of_time_difference_and_grace(ms(difference), ms(self.grace))
    }

    fn session_windows(self, gap: i64) -> SessionWindows {
        SessionWindows::of_inactivity_gap_and_grace(ms(gap), ms(self.grace))
    }

    fn fold_time(self, windowed: TimeWindowedKStream<Key, Option<i64>>, size: i64) {
        let windowed = windowed.emit_strategy(self.emit);
        let key = TimeWindowedSerde::new(Nullable(Utf8), ms(size));
        match self.fold {
            Fold::Count => self.write(windowed.count(self.rows()), key, I64),
            Fold::Reduce => self.write(windowed.reduce(or, self.rows()), key, Nullable(I64)),
            Fold::Aggregate | Fold::Cogroup => {
                self.write(windowed.aggregate(|| 0, add, self.rows().with_value_serde(I64)), key, I64);
            }
        }
    }

    fn build_cogroup(self, parts: CogroupedKStream<Key, i64>) {
        let rows = self.rows().with_value_serde(I64);
        let (windowed, size) = match self.windows {
            Windows::Time { size, advance } => (parts.windowed_by(self.time_windows(size, advance)), size),
            Windows::Unlimited { start } => (parts.windowed_by(UnlimitedWindows::of().start_on(start)), i64::MAX),
            Windows::Sliding { difference } => (parts.windowed_by(self.sliding_windows(difference)), difference),
            Windows::Session { gap } => {
                let windowed = parts.windowed_by(self.session_windows(gap));
                let table = windowed.aggregate(|| 0, |_, one, other| one | other, rows);
                return self.write(table, SessionWindowedSerde::new(Nullable(Utf8)), I64);
            }
        };
        self.write(windowed.aggregate(|| 0, rows), TimeWindowedSerde::new(Nullable(Utf8), ms(size)), I64);
    }

    fn write<V: Clone + 'static>(
        self,
        table: KTable<Windowed<Key>, V>,
        key: impl Serde<Item = Windowed<Key>>,
        value: impl Serde<Item = V>,
    ) {
        let table = match self.is_suppressed {
            true => table.suppress(Suppressed::until_window_closes(BufferConfig::unbounded())),
            false => table,
        };
        table.to_stream().to("out", Produced::with(key, value));
    }

    fn window(self, bytes: &[u8]) -> (String, Window) {
        let long = |bytes: &[u8]| i64::from_be_bytes(bytes.try_into().unwrap());
        let (key, start) = bytes.split_at(bytes.len() - 8);
        let start = long(start);
        let (key, end) = match self.windows {
            Windows::Time { size, .. } => (key, start + size),
            Windows::Unlimited { .. } => (key, i64::MAX),
            Windows::Sliding { difference } => (key, start + difference),
            Windows::Session { .. } => (&key[..key.len() - 8], long(&key[key.len() - 8..])),
        };
        (text_of(key), Window { start, end })
    }

    fn show(self, record: &TestRecord) -> Line {
        let (key, window) = self.window(record.key.as_deref().unwrap());
        let value = record.value.as_deref().map(|bytes| i64::from_be_bytes(bytes.try_into().unwrap()).to_string());
        (shown(&key, window), value, record.timestamp)
    }

    /// Whether records may come again after a crash, at least once. Not where rows had expired by then; where a record is
    /// too late for some sliding windows, and others depend on those that there were; and where a session has been left by
    /// its records when the crash has come, and the longer one is not there yet.
    fn is_idempotent(self) -> bool {
        let has_no_parts = match self.windows {
            Windows::Time { .. } | Windows::Unlimited { .. } => true,
            Windows::Sliding { .. } => self.grace >= 100,
            Windows::Session { .. } => false,
        };
        (self.keeps_long || matches!(self.windows, Windows::Unlimited { .. })) && has_no_parts
    }

    /// How long the store keeps a row behind its own time, that of the last one.
    fn retention(self) -> i64 {
        match self.windows {
            _ if self.keeps_long => LONG,
            Windows::Time { size, .. } => size + self.grace,
            Windows::Sliding { difference } => 2 * difference + self.grace,
            Windows::Session { gap } => gap + self.grace,
            Windows::Unlimited { .. } => i64::MAX,
        }
    }

    /// The lines that each record causes, and the rows that are there in the end if none expires.
    fn check_lines(self, inputs: &[Input], run: Run, expected: &[Vec<Update>], rows: &[Row]) -> TestCaseResult {
        self.check(inputs, run, |plain| {
            prop_assert_eq!(plain.by_record(), lines(expected));
            self.check_rows(plain, rows)
        })
    }

    /// The rows that are there in the end if none expires. Of the rows of the store, how its keys look is not said here.
    fn check_rows(self, plain: &Outcome, expected: &[Row]) -> TestCaseResult {
        if !self.keeps_long {
            return Ok(());
        }
        let stored = plain.rows.iter().filter(|(store, _)| store == "rows").flat_map(|(_, rows)| rows);
        let mut stored: Vec<_> = stored.map(|(_, row)| row.clone()).collect();
        let bytes = |(row, at): &Row| match self.windows {
            Windows::Session { .. } => row.to_be_bytes().to_vec(),
            Windows::Time { .. } | Windows::Sliding { .. } | Windows::Unlimited { .. } => {
                [at.to_be_bytes(), row.to_be_bytes()].concat()
            }
        };
        let mut expected: Vec<_> = expected.iter().map(bytes).collect();
        stored.sort();
        expected.sort();
        prop_assert_eq!(stored, expected, "rows");
        Ok(())
    }

    /// The property with its plain run.
    pub(super) fn check(
        self,
        inputs: &[Input],
        run: Run,
        model: impl Fn(&Outcome) -> TestCaseResult,
    ) -> TestCaseResult {
        let property = Property {
            build: &|| self.build(),
            topics: &["in", "other"],
            inputs,
            value: &bit,
            show: &|record| self.show(record),
            output: match (self.emit, self.is_suppressed, self.fold) {
                (EmitStrategy::OnWindowClose, ..) | (_, true, _) => Output::Records,
                (_, _, Fold::Aggregate | Fold::Cogroup) if self.is_idempotent() => Output::IdempotentRows,
                _ => Output::Rows,
            },
        };
        let plain = property.plain();
        model(&plain)?;
        // A store behind a cache is told of a time later, and not at all where a row comes and goes. It matters where rows
        // are looked for that expire as early as windows close.
        let is_exact = match self.windows {
            Windows::Time { .. } => matches!(self.fold, Fold::Count | Fold::Aggregate),
            Windows::Unlimited { .. } => true,
            Windows::Sliding { .. } | Windows::Session { .. } => false,
        };
        let cache_bytes = if self.keeps_long || is_exact { run.cache_bytes } else { 0 };
        property.ends_as_without_a_cache(Run { cache_bytes, ..run }, &plain)?;
        // When it is told depends on what leaves a small cache, and that on what was in it.
        let cache_bytes = if run.cache_bytes == LARGE { LARGE } else { cache_bytes };
        property.outlives_a_crash(Run { cache_bytes, ..run })?;
        // At least once, the streams of a cogroup share a store: after a restart nobody knows how far each of them was, and
        // no record may be late.
        let punctual = if matches!(self.fold, Fold::Cogroup) { Setup { grace: 1_000, ..self } } else { self };
        // And what is dropped as a null moves the time of the task, and a row that comes and goes behind a cache moves
        // nothing: the operator's time is known by the window only.
        let has_null_rows = matches!((self.windows, self.fold), (Windows::Sliding { .. }, _) | (_, Fold::Reduce));
        let mut inputs = inputs.to_vec();
        inputs.retain(|input| input.key.is_some() && !(has_null_rows && input.value.is_none()));
        let property = Property { inputs: &inputs, build: &|| punctual.build(), ..property };
        property.outlives_a_crash_at_least_once(run, &property.plain())
    }
}

pub(super) fn shown(key: &str, window: Window) -> String {
    format!("{key} {}..{}", window.start, window.end)
}

fn or(row: Option<i64>, value: Option<i64>) -> Option<i64> {
    row.map(|row| row | value.unwrap_or(0))
}

fn add(_: &Key, value: Option<i64>, row: i64) -> i64 {
    row | value.unwrap_or(0)
}

fn add_second(_: &Key, value: Option<i64>, row: i64) -> i64 {
    row | value.unwrap_or(0) | SECOND
}

pub(super) fn line((key, window, row, at): Update) -> Line {
    (shown(key, window), row.map(|row| row.to_string()), at)
}

/// A row and its time.
type Row = (i64, i64);

/// A record that is aggregated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fed {
    number: usize,
    topic: usize,
    key: &'static str,
    value: Option<i64>,
    at: i64,
}

fn fed(inputs: &[Input]) -> impl Iterator<Item = Fed> {
    let fed = |(number, input): (usize, &Input)| {
        let value = input.value.map(|_| 1 << number);
        Some(Fed { number, topic: input.topic, key: input.key?, value, at: input.at })
    };
    inputs.iter().enumerate().filter_map(fed)
}

/// A key, a window, its row and the time of that.
pub(super) type Update = (&'static str, Window, Option<i64>, i64);

fn lines(updates: &[Vec<Update>]) -> Vec<Vec<Line>> {
    updates.iter().map(|updates| updates.iter().copied().map(line).collect()).collect()
}

/// The last record closes all windows before it.
fn ended(mut inputs: Vec<Input>) -> Vec<Input> {
    inputs.push(Input { topic: 0, key: KEYS[0], value: Some(0), at: 10_000 });
    inputs
}
