//! Joins of streams, and of a stream with a table.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Inner,
    Left,
    Outer,
}

const LEFT: usize = 0;
const RIGHT: usize = 1;
const TOPICS: [&str; 2] = ["left", "right"];

#[derive(Debug, Clone, Copy)]
struct Setup {
    kind: Kind,
    before: i64,
    after: i64,
    grace: i64,
    in_memory: bool,
}

fn setups() -> impl Strategy<Value = Setup> {
    let kind = prop_oneof![Just(Kind::Inner), Just(Kind::Left), Just(Kind::Outer)];
    (kind, -5_i64..15, -5_i64..15, 0_i64..10, any::<bool>()).prop_map(|(kind, before, after, grace, in_memory)| {
        let (before, after) = if before + after < 0 { (-before, -after) } else { (before, after) };
        Setup { kind, before, after, grace, in_memory }
    })
}

/// The algorithm of Java's `KStreamKStreamJoin` over lists.
struct StreamModel {
    setup: Setup,
    /// By side: what was put.
    kept: [Vec<(i64, &'static str, String)>; 2],
    store_time: [i64; 2],
    /// By time, side (the right one first) and key.
    unmatched: BTreeMap<(i64, bool, &'static str), Vec<String>>,
    stream_time: i64,
    min_time: Option<i64>,
    out: Vec<Line>,
}

impl StreamModel {
    fn new(setup: Setup) -> StreamModel {
        StreamModel {
            setup,
            kept: [Vec::new(), Vec::new()],
            store_time: [-1, -1],
            unmatched: BTreeMap::new(),
            stream_time: -1,
            min_time: None,
            out: Vec::new(),
        }
    }

    fn goes_alone(&self, side: usize) -> bool {
        self.setup.kind == Kind::Outer || (self.setup.kind == Kind::Left && side == LEFT)
    }

    /// How far back and ahead the partners of a side are.
    fn around(&self, side: usize) -> (i64, i64) {
        let Setup { before, after, .. } = self.setup;
        if side == LEFT { (before, after) } else { (after, before) }
    }

    fn record(&mut self, number: usize, &Input { topic: side, key, value, at }: &Input) -> Vec<Line> {
        let value = value.map(|_| number.to_string());
        self.stream_time = self.stream_time.max(at);
        match (key, value) {
            (Some(key), value) => self.keyed(side, key, value, at),
            (None, Some(value)) if self.goes_alone(side) => self.out.push(joined("-", side, &value, None, at)),
            (None, _) => {}
        }
        std::mem::take(&mut self.out)
    }

    fn keyed(&mut self, side: usize, key: &'static str, value: Option<String>, at: i64) {
        let ((before, after), other_side) = (self.around(side), 1 - side);
        if let Some(value) = value {
            if at == self.stream_time && self.setup.kind != Kind::Inner {
                self.give_up(after);
            }
            let retention = self.setup.before + self.setup.after + self.setup.grace;
            let oldest = (at - before).max(0).max(self.store_time[other_side] - retention + 1);
            let newest = (at + after).max(0);
            let kept = self.kept[other_side].iter();
            let mut others: Vec<_> =
                kept.filter(|(time, k, _)| *k == key && (oldest..=newest).contains(time)).cloned().collect();
            others.sort_by_key(|(time, ..)| *time); // stable: in the order they came
            for (time, _, other) in &others {
                self.unmatched.remove(&(*time, other_side == LEFT, key));
                self.out.push(joined(key, side, &value, Some(other), at.max(*time)));
            }
            if others.is_empty() && self.goes_alone(side) {
                if newest < self.stream_time {
                    self.out.push(joined(key, side, &value, None, at));
                } else {
                    self.min_time = Some(self.min_time.map_or(at, |time| time.min(at)));
                    self.unmatched.entry((at, side == LEFT, key)).or_default().push(value.clone());
                }
            }
            self.kept[side].push((at, key, value));
        }
        self.store_time[side] = self.store_time[side].max(at);
    }

    fn give_up(&mut self, after: i64) {
        // Java's sum wraps around while nothing has been kept.
        let earliest = self.min_time.map_or(i64::MIN, |time| time + after + self.setup.grace);
        if earliest >= self.stream_time {
            return;
        }
        self.min_time = None;
        let mut open = [false, false];
        for (place, values) in self.unmatched.clone() {
            let (at, is_left, key) = place;
            let side = if is_left { LEFT } else { RIGHT };
            self.min_time = Some(at);
            if open == [true, true] {
                break;
            }
            if at + self.around(side).1 + self.setup.grace >= self.stream_time {
                open[side] = true;
                continue;
            }
            self.out.extend(values.iter().map(|value| joined(key, side, value, None, at)));
            self.unmatched.remove(&place);
        }
    }
}

fn joined(key: &str, side: usize, this: &str, other: Option<&str>, at: i64) -> Line {
    let other = other.unwrap_or("-");
    let value = if side == LEFT { format!("{this}+{other}") } else { format!("{other}+{this}") };
    (key.to_owned(), Some(value), at)
}

type Text = Option<String>;

fn nullable() -> Consumed<Text, Text> {
    Consumed::with(Nullable(Utf8), Nullable(Utf8))
}

fn both(left: Option<&Text>, right: Option<&Text>) -> String {
    let shown = |side: Option<&Text>| side.and_then(Option::as_deref).unwrap_or("-").to_owned();
    format!("{}+{}", shown(left), shown(right))
}

fn join_of_streams(setup: Setup) -> StreamsBuilder {
    let builder = StreamsBuilder::new();
    let (left, right) = (builder.stream("left", nullable()), builder.stream("right", nullable()));
    let joined = StreamJoined::with(Nullable(Utf8), Nullable(Utf8), Nullable(Utf8));
    let joined = if setup.in_memory { joined.in_memory() } else { joined };
    let windows = JoinWindows::of_time_difference_and_grace(ms(0), ms(setup.grace));
    let windows = windows.before_ms(setup.before).after_ms(setup.after);
    let stream = match setup.kind {
        Kind::Inner => left.join_stream(right, |l: &Text, r: &Text| both(Some(l), Some(r)), windows, joined),
        Kind::Left => left.left_join_stream(right, |l: &Text, r: Option<&_>| both(Some(l), r), windows, joined),
        Kind::Outer => left.outer_join_stream(right, |l: Option<&_>, r: Option<&_>| both(l, r), windows, joined),
    };
    stream.to("out", Produced::with(Nullable(Utf8), Utf8));
    builder
}

fn join_with_itself(setup: Setup, is_optimised: bool) -> StreamsBuilder {
    let optimization = Optimization::none();
    let optimization = if is_optimised { optimization.single_store_self_join() } else { optimization };
    let builder = StreamsBuilder::with_config(&Config::new("app", "embedded://").optimization(optimization));
    let stream = builder.stream("left", nullable());
    let joined = StreamJoined::with(Nullable(Utf8), Nullable(Utf8), Nullable(Utf8));
    let windows = JoinWindows::of_time_difference_and_grace(ms(0), ms(setup.grace));
    let windows = windows.before_ms(setup.before).after_ms(setup.after);
    stream
        .clone()
        .join_stream(stream, |l: &Text, r: &Text| both(Some(l), Some(r)), windows, joined)
        .to("out", Produced::with(Nullable(Utf8), Utf8));
    builder
}

/// Each record with those before it, as either side, and with itself.
fn lines_with_itself(setup: Setup, inputs: &[Input]) -> Vec<Vec<Line>> {
    let mut earlier: Vec<(usize, Input)> = Vec::new();
    let mut record = |(number, input): (usize, &Input)| {
        let at = input.at;
        let mut lines = Vec::new();
        for side in [LEFT, RIGHT] {
            if side == RIGHT {
                earlier.push((number, *input));
            }
            let (back, ahead) = if side == LEFT { (setup.before, setup.after) } else { (setup.after, setup.before) };
            let near =
                |(_, other): &&(usize, Input)| other.key == input.key && (at - back..=at + ahead).contains(&other.at);
            let mut others: Vec<_> = earlier.iter().filter(near).copied().collect();
            others.sort_by_key(|(_, other)| other.at); // stable: in the order they came
            let line = |(other, Input { at: time, .. }): (usize, Input)| {
                let key = input.key.unwrap_or_default();
                joined(key, side, &number.to_string(), Some(&other.to_string()), at.max(time))
            };
            lines.extend(others.into_iter().map(line));
        }
        lines
    };
    inputs.iter().enumerate().map(&mut record).collect()
}

/// The rows of a table as a stream meets them.
fn join_with_a_table(is_left_join: bool) -> StreamsBuilder {
    let builder = StreamsBuilder::new();
    let rows = Materialized::named("rows");
    let table = builder.table("right", Consumed::with(Nullable(Utf8), Utf8), rows);
    let stream = builder.stream("left", nullable());
    let by = Joined::with(Nullable(Utf8), Nullable(Utf8));
    let stream = match is_left_join {
        true => stream.left_join(&table, |l, r| both(Some(&l), Some(&r)), by),
        false => stream.join(&table, |l, r| both(Some(&l), Some(&Some(r))), by),
    };
    stream.to("out", Produced::with(Nullable(Utf8), Utf8));
    builder
}

fn table_lines(is_left_join: bool, inputs: &[Input]) -> Vec<Vec<Line>> {
    let mut rows: BTreeMap<&str, Option<String>> = BTreeMap::new();
    let mut record = |(number, input): (usize, &Input)| {
        let value = input.value.map(|_| number.to_string());
        match (input.topic, input.key, value) {
            (RIGHT, key, value) => {
                rows.extend(key.map(|key| (key, value)));
                None
            }
            (_, None, Some(value)) => is_left_join.then(|| joined("-", LEFT, &value, None, input.at)),
            (_, Some(key), Some(value)) => {
                let row = rows.get(key).and_then(Option::as_deref);
                (is_left_join || row.is_some()).then(|| joined(key, LEFT, &value, row, input.at))
            }
            (_, _, None) => None,
        }
    };
    inputs.iter().enumerate().map(|input| record(input).into_iter().collect()).collect()
}

/// The rows of a table as they were at the time of a record, which waits for a grace period.
fn join_with_grace(is_left_join: bool, grace: i64) -> StreamsBuilder {
    let builder = StreamsBuilder::new();
    let versions = Materialized::named("versions").as_versioned(ms(1_000));
    let table = builder.table("right", Consumed::with(Utf8, Utf8), versions);
    let stream = builder.stream("left", Consumed::with(Utf8, Nullable(Utf8)));
    let by = Joined::with(Utf8, Nullable(Utf8)).with_grace_period(ms(grace));
    let stream = match is_left_join {
        true => stream.left_join(&table, |l, r| both(Some(&l), Some(&r)), by),
        false => stream.join(&table, |l, r| both(Some(&l), Some(&Some(r))), by),
    };
    stream.to("out", Produced::with(Utf8, Utf8));
    builder
}

fn grace_lines(is_left_join: bool, grace: i64, inputs: &[Input]) -> Vec<Vec<Line>> {
    // By key and time: the last update of a time counts.
    let mut versions: BTreeMap<(&str, i64), Option<String>> = BTreeMap::new();
    // By time, then by the bytes of a row's key: the record's key and a number.
    let mut waiting: BTreeMap<(i64, Vec<u8>), (&str, String)> = BTreeMap::new();
    let (mut observed, mut puts) = (-1, 0_u32);
    let mut record = |(number, input): (usize, &Input)| {
        let value = input.value.map(|_| number.to_string());
        let (Some(key), at) = (input.key, input.at) else { return Vec::new() };
        let mut due = BTreeMap::new();
        if input.topic == RIGHT {
            versions.insert((key, at), value);
        } else if let Some(value) = value {
            if observed - grace > at {
                due.insert((at, Vec::new()), (key, value));
            } else {
                observed = observed.max(at);
                puts += 1;
                waiting.insert((at, [key.as_bytes(), &puts.to_be_bytes()].concat()), (key, value));
                let rest = waiting.split_off(&(observed - grace + 1, Vec::new()));
                due = std::mem::replace(&mut waiting, rest);
            }
        }
        let result = |((at, _), (key, value)): ((i64, Vec<u8>), (&str, String))| {
            let row = versions.range((key, i64::MIN)..=(key, at)).last().and_then(|(_, row)| row.as_deref());
            (is_left_join || row.is_some()).then(|| joined(key, LEFT, &value, row, at))
        };
        due.into_iter().filter_map(result).collect()
    };
    inputs.iter().enumerate().map(&mut record).collect()
}

fn property<'a>(build: &'a dyn Fn() -> StreamsBuilder, inputs: &'a [Input]) -> Property<'a> {
    Property { build, topics: &TOPICS, inputs, value: &numbered, show: &text_line, output: Output::Records }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_join_of_streams_does_what_a_list_does(setup in setups(), mut inputs in inputs(2, 60), run in runs()) {
        // Two last records make everything that waits too old.
        let last = Input { topic: RIGHT, key: KEYS[1], value: Some(0), at: 1_000 };
        inputs.extend([last; 2]);
        let build = || join_of_streams(setup);
        let (property, mut model) = (property(&build, &inputs), StreamModel::new(setup));
        let plain = property.plain();
        let expected: Vec<_> = inputs.iter().enumerate().map(|(number, input)| model.record(number, input)).collect();
        prop_assert_eq!(plain.by_record(), expected);
        property.ends_the_same(run, &plain)?;
    }

    #[test]
    fn a_stream_joined_with_itself_needs_one_store_only(setup in setups(), inputs in inputs(1, 60), run in runs()) {
        // As in Java, one store knows a little longer or shorter than two what expires, and has no times of nulls.
        let setup = Setup { before: setup.before.max(0), after: setup.after.max(0), grace: 100, ..setup };
        let mut inputs = inputs;
        inputs.retain(|input| input.key.is_some() && input.value.is_some());
        let two = || join_with_itself(setup, false);
        let one = || join_with_itself(setup, true);
        let (two, one) = (property(&two, &inputs), property(&one, &inputs));
        let plain = one.plain();
        let expected = lines_with_itself(setup, &inputs);
        prop_assert_eq!(two.plain().by_record(), expected.clone(), "two stores");
        prop_assert_eq!(plain.by_record(), expected, "one store");
        one.ends_the_same(run, &plain)?;
    }

    #[test]
    fn a_stream_joined_with_itself_tells_late_records_after_a_crash(
        setup in setups(), inputs in inputs(1, 60), run in runs(), is_optimised in any::<bool>(),
    ) {
        let setup = Setup { before: setup.before.max(0), after: setup.after.max(0), ..setup };
        let build = || join_with_itself(setup, is_optimised);
        let property = property(&build, &inputs);
        property.ends_the_same(run, &property.plain())?;
    }

    #[test]
    fn a_join_with_a_table_reads_the_row_as_it_is(
        is_left_join in any::<bool>(), inputs in inputs(2, 60), run in runs(),
    ) {
        let build = || join_with_a_table(is_left_join);
        let property = property(&build, &inputs);
        let plain = property.plain();
        prop_assert_eq!(plain.by_record(), table_lines(is_left_join, &inputs));
        property.ends_the_same(run, &plain)?;
    }

    #[test]
    fn a_join_with_a_grace_period_reads_the_row_as_it_was(
        is_left_join in any::<bool>(), grace in 0_i64..20, mut inputs in inputs(2, 60), run in runs(),
    ) {
        inputs.retain(|input| input.key.is_some());
        let build = || join_with_grace(is_left_join, grace);
        let property = property(&build, &inputs);
        let plain = property.plain();
        prop_assert_eq!(plain.by_record(), grace_lines(is_left_join, grace, &inputs));
        property.ends_the_same(run, &plain)?;
    }
}
