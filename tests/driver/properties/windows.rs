//! Windowed aggregations.

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
}

impl Fold {
    fn add(self, row: Option<i64>, value: Option<i64>) -> Option<i64> {
        match self {
            Fold::Count => Some(row.unwrap_or(0) + 1),
            Fold::Reduce => row.map_or(value, |row| Some(row | value.unwrap_or(0))),
            Fold::Aggregate => Some(row.unwrap_or(0) | value.unwrap_or(0)),
        }
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
    (windows, grace, fold, any::<[bool; 2]>()).prop_map(move |(windows, grace, fold, [in_memory, keeps_long])| Setup {
        windows,
        grace,
        fold,
        emit,
        is_suppressed: false,
        in_memory,
        keeps_long,
    })
}

pub(super) fn grid() -> impl Strategy<Value = Windows> {
    let window = (1..20_i64).prop_flat_map(|size| (Just(size), prop_oneof![Just(size), 1..=size]));
    window.prop_map(|(size, advance)| Windows::Time { size, advance })
}

fn sliding() -> impl Strategy<Value = Windows> {
    (1..20_i64).prop_map(|difference| Windows::Sliding { difference })
}

fn sessions() -> impl Strategy<Value = Windows> {
    (0..10_i64).prop_map(|gap| Windows::Session { gap })
}

type Key = Option<String>;

impl Setup {
    fn rows<V: 'static>(self) -> Materialized<Key, V> {
        let rows = Materialized::named("rows");
        let rows = if self.keeps_long { rows.with_retention(ms(1_000_000)) } else { rows };
        if self.in_memory { rows.in_memory() } else { rows }
    }

    pub(super) fn build(self) -> StreamsBuilder {
        let builder = StreamsBuilder::new();
        let stream = builder.stream("in", Consumed::with(Nullable(Utf8), Nullable(I64)));
        let grouped = stream.group_by_key(Grouped::with(Nullable(Utf8), Nullable(I64)));
        match self.windows {
            Windows::Time { size, advance } => {
                let windows = TimeWindows::of_size_and_grace(ms(size), ms(self.grace)).advance_by(ms(advance));
                self.fold_time(grouped.windowed_by(windows), size);
            }
            Windows::Sliding { difference } => {
                let windows = SlidingWindows::of_time_difference_and_grace(ms(difference), ms(self.grace));
                self.fold_time(grouped.windowed_by(windows), difference);
            }
            Windows::Session { gap } => {
                let windows = SessionWindows::of_inactivity_gap_and_grace(ms(gap), ms(self.grace));
                let windowed = grouped.windowed_by(windows).emit_strategy(self.emit);
                let key = SessionWindowedSerde::new(Nullable(Utf8));
                let merge = move |_: &Key, one: i64, other: i64| self.fold.merge(one, other);
                match self.fold {
                    Fold::Count => self.write(windowed.count(self.rows()), key, I64),
                    Fold::Reduce => self.write(windowed.reduce(or, self.rows()), key, Nullable(I64)),
                    Fold::Aggregate => {
                        let rows = self.rows().with_value_serde(I64);
                        self.write(windowed.aggregate(|| 0, add, merge, rows), key, I64);
                    }
                }
            }
        }
        builder
    }

    fn fold_time(self, windowed: TimeWindowedKStream<Key, Option<i64>>, size: i64) {
        let windowed = windowed.emit_strategy(self.emit);
        let key = TimeWindowedSerde::new(Nullable(Utf8), ms(size));
        match self.fold {
            Fold::Count => self.write(windowed.count(self.rows()), key, I64),
            Fold::Reduce => self.write(windowed.reduce(or, self.rows()), key, Nullable(I64)),
            Fold::Aggregate => {
                self.write(windowed.aggregate(|| 0, add, self.rows().with_value_serde(I64)), key, I64);
            }
        }
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
            Windows::Time { .. } => true,
            Windows::Sliding { .. } => self.grace >= 100,
            Windows::Session { .. } => false,
        };
        self.keeps_long && has_no_parts
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
            topics: &["in"],
            inputs,
            value: &bit,
            show: &|record| self.show(record),
            output: match (self.emit, self.is_suppressed, self.fold) {
                (EmitStrategy::OnWindowClose, ..) | (_, true, _) => Output::Records,
                (_, _, Fold::Aggregate) if self.is_idempotent() => Output::IdempotentRows,
                _ => Output::Rows,
            },
        };
        model(&property.plain())?;
        // What is dropped as a null moves the time of the task, and a row that comes and goes behind a cache moves nothing:
        // after a restart the operator's time is known by the window only.
        let has_null_rows = matches!((self.windows, self.fold), (Windows::Sliding { .. }, _) | (_, Fold::Reduce));
        let mut inputs = inputs.to_vec();
        inputs.retain(|input| input.key.is_some() && !(has_null_rows && input.value.is_none()));
        let property = Property { inputs: &inputs, ..property };
        let plain = property.plain();
        // A store behind a cache is told of a time later, and not at all where a row comes and goes. It matters where rows
        // are looked for that expire as early as windows close.
        let is_exact = matches!((self.windows, self.fold), (Windows::Time { .. }, Fold::Count | Fold::Aggregate));
        let cache_bytes = if self.keeps_long || is_exact { run.cache_bytes } else { 0 };
        property.ends_the_same(Run { cache_bytes, ..run }, &plain)
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

pub(super) fn line((key, window, row, at): Update) -> Line {
    (shown(key, window), row.map(|row| row.to_string()), at)
}

/// Number, key, value and time of each record that is aggregated.
fn numbered_inputs(inputs: &[Input]) -> impl Iterator<Item = (usize, &'static str, Option<i64>, i64)> {
    let known = inputs.iter().enumerate().filter_map(|(number, input)| Some((number, input, input.key?)));
    known.map(|(number, input, key)| (number, key, input.value.map(|_| 1 << number), input.at))
}

/// A key, a window, its row and the time of that.
pub(super) type Update = (&'static str, Window, Option<i64>, i64);

/// What each record updates, and what has closed before that.
pub(super) struct GridModel {
    pub(super) updates: Vec<Vec<Update>>,
    closed: Vec<Vec<Update>>,
}

impl GridModel {
    pub(super) fn of(setup: Setup, inputs: &[Input]) -> GridModel {
        let Windows::Time { size, advance } = setup.windows else { panic!("a grid") };
        let mut rows: BTreeMap<(i64, &'static str), (i64, i64)> = BTreeMap::new();
        let (mut updates, mut closed) = (vec![Vec::new(); inputs.len()], vec![Vec::new(); inputs.len()]);
        let mut time = -1;
        for (number, key, value, at) in numbered_inputs(inputs) {
            time = time.max(at);
            let close_time = time - setup.grace;
            let open = rows.split_off(&(close_time - size + 1, ""));
            for ((start, key), (row, at)) in std::mem::replace(&mut rows, open) {
                closed[number].push((key, Window::new(start, start + size), Some(row), at));
            }
            for start in (0..=at).filter(|start| start % advance == 0 && at < start + size && start + size > close_time)
            {
                let old = rows.remove(&(start, key));
                let at = old.map_or(at, |(_, last)| at.max(last));
                let row = setup.fold.add(old.map(|(row, _)| row), value);
                if let Some(row) = row {
                    rows.insert((start, key), (row, at));
                }
                updates[number].push((key, Window::new(start, start + size), row, at));
            }
        }
        GridModel { updates, closed }
    }
}

fn lines(updates: &[Vec<Update>]) -> Vec<Vec<Line>> {
    updates.iter().map(|updates| updates.iter().copied().map(line).collect()).collect()
}

/// Every difference of records begins and ends a window: what is in each after the first so many records.
fn sliding_rows(setup: Setup, difference: i64, inputs: &[Input]) -> Vec<Rows> {
    let mut seen: Vec<(&str, i64, i64)> = Vec::new();
    let mut after = vec![Rows::new(); inputs.len()];
    for (number, key, value, at) in numbered_inputs(inputs) {
        let Some(value) = value else { continue };
        seen.push((key, value, at));
        for (key, _, at) in &seen {
            for start in [(at - difference).max(0), at + 1] {
                let inside = || {
                    let of_key = seen.iter().filter(|(other, ..)| other == key);
                    of_key.filter(|(.., at)| (start..=start + difference).contains(at))
                };
                let row = inside().fold(None, |row, (_, value, _)| setup.fold.add(row, Some(*value)));
                let last = inside().map(|(.., at)| *at).max();
                if let (Some(row), Some(last)) = (row, last) {
                    let window = Window::new(start, start + difference);
                    after[number].insert(shown(key, window), (row.to_string(), last));
                }
            }
        }
    }
    for number in 1..after.len() {
        if after[number].is_empty() {
            after[number] = after[number - 1].clone();
        }
    }
    after
}

/// What each record updates.
fn session_lines(setup: Setup, gap: i64, inputs: &[Input]) -> Vec<Vec<Line>> {
    let mut sessions: Vec<(&'static str, Window, i64)> = Vec::new();
    let mut lines = vec![Vec::new(); inputs.len()];
    let (mut time, mut last_end) = (-1, -1);
    let retention = if setup.keeps_long { 1_000_000 } else { gap + setup.grace };
    for (number, key, value, at) in numbered_inputs(inputs) {
        time = time.max(at);
        // The store has a time of its own, that of the last session.
        sessions.retain(|(_, window, _)| window.end > last_end - retention);
        let near = |(k, window, _): &(&'static str, Window, i64)| {
            *k == key && window.end >= at - gap && window.start <= at + gap
        };
        let mut merged: Vec<_> = sessions.iter().filter(|session| near(session)).copied().collect();
        merged.sort_by_key(|(_, window, _)| window.end);
        let (start, end) =
            merged.iter().fold((at, at), |(start, end), (_, window, _)| (start.min(window.start), end.max(window.end)));
        if end < time - setup.grace - gap {
            continue;
        }
        sessions.retain(|session| !near(session));
        last_end = last_end.max(end);
        let window = Window { start, end };
        if start != end {
            lines[number].extend(merged.iter().map(|(_, window, _)| line((key, *window, None, window.end))));
        }
        let rows = merged.iter().map(|(.., row)| *row);
        let row = setup.fold.add(rows.reduce(|one, other| setup.fold.merge(one, other)), value);
        sessions.extend(row.map(|row| (key, window, row)));
        lines[number].push(line((key, window, row, end)));
    }
    lines
}

const UPDATE: EmitStrategy = EmitStrategy::OnWindowUpdate;
const CLOSE: EmitStrategy = EmitStrategy::OnWindowClose;

/// The last record closes all windows before it.
fn ended(mut inputs: Vec<Input>) -> Vec<Input> {
    inputs.push(Input { topic: 0, key: KEYS[0], value: Some(0), at: 10_000 });
    inputs
}

/// Emitted when it closes is what a window holds at last: the rows of the same setup that emits updates.
fn final_rows(setup: Setup, inputs: &[Input]) -> Rows {
    let updating = Setup { emit: UPDATE, ..setup };
    let property = Property {
        build: &|| updating.build(),
        topics: &["in"],
        inputs,
        value: &bit,
        show: &|record| updating.show(record),
        output: Output::Rows,
    };
    let mut rows = property.plain().last();
    rows.retain(|_, (_, at)| *at < 10_000);
    rows
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_record_is_in_every_window_of_the_grid_that_is_open(
        setup in setups(grid(), 0..30_i64, UPDATE), inputs in inputs(1, 80), run in runs(),
    ) {
        setup.check(&inputs, run, |plain| {
            prop_assert_eq!(plain.by_record(), lines(&GridModel::of(setup, &inputs).updates));
            Ok(())
        })?;
    }

    #[test]
    fn windows_that_close_are_emitted_once_and_never_before_their_time(
        setup in setups(grid(), 0..10_i64, CLOSE), inputs in inputs(1, 200), run in runs(),
    ) {
        setup.check(&inputs, run, |plain| {
            prop_assert_eq!(plain.by_record(), lines(&GridModel::of(setup, &inputs).closed));
            Ok(())
        })?;
    }

    #[test]
    fn every_record_begins_and_ends_a_sliding_window(
        setup in setups(sliding(), Just(100), UPDATE), inputs in inputs(1, 60), run in runs(),
    ) {
        let Windows::Sliding { difference } = setup.windows else { return Ok(()) };
        setup.check(&inputs, run, |plain| {
            let mut rows = Rows::new();
            for (lines, expected) in plain.by_record().iter().zip(sliding_rows(setup, difference, &inputs)) {
                apply(lines, &mut rows);
                prop_assert_eq!(&rows, &expected);
            }
            Ok(())
        })?;
    }

    #[test]
    fn late_records_miss_sliding_windows_that_have_closed(
        setup in setups(sliding(), 0..30_i64, UPDATE), inputs in inputs(1, 60), run in runs(),
    ) {
        setup.check(&inputs, run, |_| Ok(()))?;
    }

    #[test]
    fn a_sliding_window_is_emitted_when_it_closes(
        setup in setups(sliding(), 0..30_i64, CLOSE), inputs in inputs(1, 200), run in runs(),
    ) {
        let inputs = ended(inputs);
        setup.check(&inputs, run, |plain| {
            let emitted = plain.last();
            prop_assert_eq!(emitted.len(), plain.lines.len(), "each window once");
            prop_assert_eq!(emitted, final_rows(setup, &inputs));
            Ok(())
        })?;
    }

    #[test]
    fn sessions_grow_and_merge_and_late_records_are_left_out(
        setup in setups(sessions(), prop_oneof![0..60_i64, Just(200)], UPDATE), inputs in inputs(1, 120), run in runs(),
    ) {
        let Windows::Session { gap } = setup.windows else { return Ok(()) };
        setup.check(&inputs, run, |plain| {
            prop_assert_eq!(plain.by_record(), session_lines(setup, gap, &inputs));
            Ok(())
        })?;
    }

    #[test]
    fn a_session_is_emitted_when_it_closes(
        setup in setups(sessions(), 0..30_i64, CLOSE), inputs in inputs(1, 200), run in runs(),
    ) {
        // As in Java, a session that has just been open is not kept any more by the default.
        let (setup, inputs) = (Setup { keeps_long: true, ..setup }, ended(inputs));
        setup.check(&inputs, run, |plain| {
            let emitted = plain.last();
            prop_assert_eq!(emitted.len(), plain.lines.len(), "each session once");
            // A record that is not late itself may still join a session that has been emitted: the longer one comes, too.
            for (session, row) in final_rows(setup, &inputs) {
                prop_assert_eq!(emitted.get(&session), Some(&row));
            }
            Ok(())
        })?;
    }
}
