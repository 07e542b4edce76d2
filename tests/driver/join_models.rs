//! Joins against models that keep everything in plain lists, over random input out of order.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::*;

/// Keys whose bytes begin with each other, and none.
const KEYS: [Option<&str>; 4] = [Some("k"), Some("kk"), Some("k\0\0"), None];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Inner,
    Left,
    Outer,
}

#[derive(Debug, Clone)]
struct Input {
    left: bool,
    key: usize,
    /// A null now and then.
    has_value: bool,
    at: i64,
}

fn inputs(longest: i64) -> impl Strategy<Value = Vec<Input>> {
    let input = (any::<bool>(), 0..KEYS.len(), 0..8_u8, 0..longest);
    let input = input.prop_map(|(left, key, null, at)| Input { left, key, has_value: null > 0, at });
    prop::collection::vec(input, 1..60)
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Inner), Just(Kind::Left), Just(Kind::Outer)]
}

/// The algorithm of Java's `KStreamKStreamJoin` over lists.
struct StreamModel {
    kind: Kind,
    before: i64,
    after: i64,
    grace: i64,
    /// Right and left: what was put.
    kept: [Vec<(i64, String, String)>; 2],
    store_time: [i64; 2],
    unmatched: BTreeMap<(i64, usize, String), Vec<String>>,
    stream_time: i64,
    min_time: Option<i64>,
}

impl StreamModel {
    fn new(kind: Kind, (before, after, grace): (i64, i64, i64)) -> StreamModel {
        let (kept, store_time, unmatched) = ([Vec::new(), Vec::new()], [-1, -1], BTreeMap::new());
        StreamModel { kind, before, after, grace, kept, store_time, unmatched, stream_time: -1, min_time: None }
    }

    fn goes_alone(&self, side: usize) -> bool {
        self.kind == Kind::Outer || (self.kind == Kind::Left && side == 1)
    }

    fn record(&mut self, side: usize, key: Option<&str>, value: Option<&str>, at: i64, out: &mut Vec<String>) {
        let (before, after) = if side == 1 { (self.before, self.after) } else { (self.after, self.before) };
        self.stream_time = self.stream_time.max(at);
        let Some(key) = key else {
            if let Some(value) = value.filter(|_| self.goes_alone(side)) {
                out.push(show(None, side, Some(value), None, at));
            }
            return;
        };
        if let Some(value) = value {
            if at == self.stream_time && self.kind != Kind::Inner {
                self.give_up(after, out);
            }
            let retention = self.before + self.after + self.grace;
            let oldest = (at - before).max(0).max(self.store_time[1 - side] - retention + 1);
            let newest = (at + after).max(0);
            let kept = self.kept[1 - side].iter();
            let mut others: Vec<_> =
                kept.filter(|(time, k, _)| k == key && (oldest..=newest).contains(time)).cloned().collect();
            others.sort_by_key(|(time, ..)| *time); // stable: in the order they came
            for (time, _, other) in &others {
                self.unmatched.remove(&(*time, 1 - side, key.to_owned()));
                out.push(show(Some(key), side, Some(value), Some(other), at.max(*time)));
            }
            if others.is_empty() && self.goes_alone(side) {
                if newest < self.stream_time {
                    out.push(show(Some(key), side, Some(value), None, at));
                } else {
                    self.min_time = Some(self.min_time.map_or(at, |time| time.min(at)));
                    self.unmatched.entry((at, side, key.to_owned())).or_default().push(value.to_owned());
                }
            }
            self.kept[side].push((at, key.to_owned(), value.to_owned()));
        }
        self.store_time[side] = self.store_time[side].max(at);
    }

    fn give_up(&mut self, after: i64, out: &mut Vec<String>) {
        // Java's sum wraps around while nothing has been kept.
        let earliest = self.min_time.map_or(i64::MIN, |time| time + after + self.grace);
        if earliest >= self.stream_time {
            return;
        }
        self.min_time = None;
        let mut open = [false, false];
        for (place, values) in self.unmatched.clone() {
            let (at, side, key) = (place.0, place.1, place.2.as_str());
            self.min_time = Some(at);
            if open == [true, true] {
                break;
            }
            let after = if side == 1 { self.after } else { self.before };
            if at + after + self.grace >= self.stream_time {
                open[side] = true;
                continue;
            }
            out.extend(values.iter().map(|value| show(Some(key), side, Some(value), None, at)));
            self.unmatched.remove(&place);
        }
    }
}

fn show(key: Option<&str>, side: usize, this: Option<&str>, other: Option<&str>, at: i64) -> String {
    let (left, right) = if side == 1 { (this, other) } else { (other, this) };
    format!("out {} {}+{} @{at}", key.unwrap_or("-"), left.unwrap_or("-"), right.unwrap_or("-"))
}

fn nullable() -> Consumed<Option<String>, Option<String>> {
    Consumed::with(Nullable(Utf8), Nullable(Utf8))
}

fn or_dash(value: Option<&Option<String>>) -> &str {
    value.and_then(Option::as_deref).unwrap_or("-")
}

fn stream_join(kind: Kind, windows: JoinWindows, in_memory: bool) -> Driver {
    let builder = StreamsBuilder::new();
    let (left, right) = (builder.stream("left", nullable()), builder.stream("right", nullable()));
    let joined = StreamJoined::with(Nullable(Utf8), Nullable(Utf8), Nullable(Utf8));
    let joined = if in_memory { joined.in_memory() } else { joined };
    let stream = match kind {
        Kind::Inner => {
            let joiner = |l: &Option<String>, r: &Option<String>| format!("{}+{}", or_dash(Some(l)), or_dash(Some(r)));
            left.join_stream(right, joiner, windows, joined)
        }
        Kind::Left => {
            let joiner = |l: &Option<String>, r: Option<&_>| format!("{}+{}", or_dash(Some(l)), or_dash(r));
            left.left_join_stream(right, joiner, windows, joined)
        }
        Kind::Outer => {
            let joiner = |l: Option<&_>, r: Option<&_>| format!("{}+{}", or_dash(l), or_dash(r));
            left.outer_join_stream(right, joiner, windows, joined)
        }
    };
    stream.to("out", Produced::with(Nullable(Utf8), Utf8));
    Driver::new(builder)
}

proptest! {
    #[test]
    fn a_join_of_streams_does_what_a_list_does(
        inputs in inputs(60),
        kind in kinds(),
        (before, after, grace) in (-5_i64..15, -5_i64..15, 0_i64..10),
        in_memory in any::<bool>(),
    ) {
        let (before, after) = if before + after < 0 { (-before, -after) } else { (before, after) };
        let windows = JoinWindows::of_time_difference_and_grace(Duration::ZERO, Duration::from_millis(grace as u64));
        let mut driver = stream_join(kind, windows.before_ms(before).after_ms(after), in_memory);
        let mut model = StreamModel::new(kind, (before, after, grace));
        // A last record makes everything that waits too old.
        let end = Input { left: false, key: 1, has_value: true, at: 1000 };
        for (number, Input { left, key, has_value, at }) in inputs.into_iter().chain([end.clone(), end]).enumerate() {
            let (key, value) = (KEYS[key], format!("{number}"));
            let value = has_value.then_some(value.as_str());
            let mut expected = Vec::new();
            model.record(usize::from(left), key, value, at, &mut expected);
            let topic = if left { "left" } else { "right" };
            let actual = driver.pipe_raw(topic, key.map(str::as_bytes), value.map(str::as_bytes), at).unwrap();
            prop_assert_eq!(actual, expected);
        }
    }

    #[test]
    fn a_join_with_a_table_reads_the_row_as_it_is(
        inputs in inputs(60),
        left_join in any::<bool>(),
        cache in prop_oneof![Just(0_usize), Just(200), Just(1_000_000)],
    ) {
        let builder = StreamsBuilder::new();
        let table = builder.table("right", Consumed::with(Nullable(Utf8), Utf8), Materialized::default());
        let stream = builder.stream("left", nullable());
        let joined = Joined::with(Nullable(Utf8), Nullable(Utf8));
        let stream = if left_join {
            stream.left_join(&table, |l, r| format!("{}+{}", or_dash(Some(&l)), or_dash(Some(&r))), joined)
        } else {
            stream.join(&table, |l, r| format!("{}+{r}", or_dash(Some(&l))), joined)
        };
        stream.to("out", Produced::with(Nullable(Utf8), Utf8));
        let mut driver = Driver::with_cache(builder, cache);
        let mut rows: BTreeMap<&str, Option<String>> = BTreeMap::new();
        for (number, Input { left, key, has_value, at }) in inputs.into_iter().enumerate() {
            let (key, value) = (KEYS[key], has_value.then(|| format!("{number}")));
            let mut expected = Vec::new();
            if let (true, Some(value)) = (left, &value) {
                let row = key.and_then(|key| rows.get(key)).cloned().flatten();
                if row.is_some() || left_join {
                    expected.push(show(key, 1, Some(value), row.as_deref(), at));
                }
                expected.retain(|_| key.is_some() || left_join);
            } else if let (false, Some(key)) = (left, key) {
                rows.insert(key, value.clone());
            }
            let (topic, value) = (if left { "left" } else { "right" }, value.as_deref().map(str::as_bytes));
            prop_assert_eq!(driver.pipe_raw(topic, key.map(str::as_bytes), value, at).unwrap(), expected);
        }
    }

    #[test]
    fn a_join_with_a_grace_period_reads_the_row_as_it_was(inputs in inputs(60), grace in 0_i64..20) {
        let builder = StreamsBuilder::new();
        let versions = Materialized::named("versions").as_versioned(Duration::from_secs(1));
        let table = builder.table("right", text(), versions);
        let stream = builder.stream("left", Consumed::with(Utf8, Nullable(Utf8)));
        let joined = Joined::with(Utf8, Nullable(Utf8)).with_grace_period(Duration::from_millis(grace as u64));
        stream
            .left_join(&table, |l, r| format!("{}+{}", or_dash(Some(&l)), or_dash(Some(&r))), joined)
            .to("out", to_text());
        let mut driver = Driver::new(builder);
        // By key and time: the last update of a time counts.
        let mut versions: BTreeMap<(&str, i64), Option<String>> = BTreeMap::new();
        // By time, then by the bytes of a row's key: the record's key and a number.
        let mut waiting: BTreeMap<(i64, Vec<u8>), (&str, String)> = BTreeMap::new();
        let (mut observed, mut puts) = (-1, 0_u32);
        for (number, Input { left, key, has_value, at }) in inputs.into_iter().enumerate() {
            let Some(key) = KEYS[key] else { continue };
            let value = has_value.then(|| format!("{number}"));
            let mut expected = Vec::new();
            if !left {
                versions.insert((key, at), value.clone());
            } else if let Some(value) = &value {
                let mut due = BTreeMap::new();
                if observed - grace > at {
                    due.insert((at, Vec::new()), (key, value.clone()));
                } else {
                    observed = observed.max(at);
                    puts += 1;
                    waiting.insert((at, [key.as_bytes(), &puts.to_be_bytes()].concat()), (key, value.clone()));
                    let rest = waiting.split_off(&(observed - grace + 1, Vec::new()));
                    due = std::mem::replace(&mut waiting, rest);
                }
                for ((at, _), (key, value)) in due {
                    let row = versions.range((key, i64::MIN)..=(key, at)).last().and_then(|(_, row)| row.as_deref());
                    expected.push(show(Some(key), 1, Some(&value), row, at));
                }
            }
            let (topic, value) = (if left { "left" } else { "right" }, value.as_deref().map(str::as_bytes));
            prop_assert_eq!(driver.pipe_raw(topic, Some(key.as_bytes()), value, at).unwrap(), expected);
        }
    }
}
