//! Windowed aggregations, suppressed tables and cogroups: what Java's vectors do not say.

use std::time::Duration;

use crate::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn show_windowed(key: &Windowed<String>, value: Option<&String>) -> String {
    format!("{key}={}", value.map_or("-", String::as_str))
}

/// The changes of a windowed table as text.
fn write_to_out(table: KTable<Windowed<String>, String>) {
    let stream = table.to_stream().map(|key, value| (key.key.clone(), show_windowed(&key, value.as_ref())));
    stream.to("out", to_text());
}

fn joined(row: &str, value: &str) -> String {
    if row.is_empty() { value.to_owned() } else { format!("{row}{value}") }
}

fn rows() -> Materialized<String, String> {
    Materialized::named("rows").with_value_serde(Utf8)
}

#[test]
fn a_late_record_is_dropped_from_the_windows_that_have_closed_only() {
    let builder = StreamsBuilder::new();
    let windows = TimeWindows::of_size_and_grace(ms(10), ms(2)).advance_by(ms(5));
    let table = builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows);
    write_to_out(table.aggregate(String::new, |_, value, row: String| joined(&row, &value), rows()));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "1", 12), ["out a [a@5/15]=1 @12", "out a [a@10/20]=1 @12"]);
    assert_eq!(driver.pipe("in", "a", "2", 8), ["out a [a@5/15]=12 @12"], "[0, 10) has closed at 12");
    assert_eq!(driver.inner.dropped_records(), 1);
}

#[test]
fn a_row_that_the_aggregator_deletes_begins_anew() {
    let builder = StreamsBuilder::new();
    let windows = TimeWindows::of_size_with_no_grace(ms(10));
    let fold = |_: &String, value: String, row: String| (value != "x").then(|| joined(&row, &value));
    let table = builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows);
    write_to_out(table.aggregate(String::new, fold, rows()));
    let mut driver = Driver::new(builder);
    driver.pipe("in", "a", "1", 1);
    assert_eq!(driver.pipe("in", "a", "x", 2), ["out a [a@0/10]=- @2"]);
    assert_eq!(driver.pipe("in", "a", "2", 3), ["out a [a@0/10]=2 @3"]);
}

#[test]
fn a_session_that_cannot_be_deleted_any_more_is_emitted_when_it_closes() {
    let builder = StreamsBuilder::new();
    let windows = SessionWindows::of_inactivity_gap_and_grace(ms(2), ms(5));
    let fold = |_: &String, value: String, row: String| (value != "x").then(|| joined(&row, &value));
    let sessions = builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows);
    let sessions = sessions.emit_strategy(EmitStrategy::OnWindowClose);
    write_to_out(sessions.aggregate(String::new, fold, |_, one, other| one + &other, rows().in_memory()));
    let mut driver = Driver::new(builder);
    assert!(driver.pipe("in", "a", "1", 19).is_empty());
    assert!(driver.pipe("in", "b", "2", 26).is_empty());
    // The record is not late, but a store in memory has kept rows for seven milliseconds, and takes nothing for older ones.
    assert!(driver.pipe("in", "a", "x", 19).is_empty());
    assert_eq!(driver.pipe("in", "b", "3", 100), ["out a [a@19/19]=1 @19", "out b [b@26/26]=2 @26"]);
}

#[test]
fn a_session_that_a_record_joins_is_deleted_before_the_longer_one_comes() {
    let builder = StreamsBuilder::new();
    let windows = SessionWindows::of_inactivity_gap_and_grace(ms(5), ms(100));
    let table = builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows);
    write_to_out(table.reduce(|one, other| format!("{one}{other}"), Materialized::named("rows")));
    let mut driver = Driver::new(builder);
    driver.pipe("in", "a", "1", 1);
    driver.pipe("in", "a", "2", 10);
    let joined = ["out a [a@1/1]=- @1", "out a [a@10/10]=- @10", "out a [a@1/10]=123 @10"];
    assert_eq!(driver.pipe("in", "a", "3", 6), joined);
}

#[test]
fn results_wait_for_the_end_of_their_window_and_for_the_interval() {
    let builder = StreamsBuilder::new();
    let windows = TimeWindows::of_size_with_no_grace(ms(10));
    let table = builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows);
    let table = table.emit_strategy(EmitStrategy::OnWindowClose);
    write_to_out(table.reduce(|one, other| format!("{one}{other}"), Materialized::named("rows")));
    let config = Config::new("app", "embedded://").cache_bytes(0).window_emit_interval(ms(100));
    let inner = TopologyTestDriver::with_config(&builder.build().unwrap(), &config).unwrap();
    let mut driver = Driver { inner, seen: 0 };
    assert!(driver.pipe("in", "a", "1", 1).is_empty());
    assert!(driver.pipe("in", "a", "2", 12).is_empty(), "the clock stands");
    driver.inner.advance_wall_clock(ms(100)).unwrap();
    assert_eq!(driver.pipe("in", "a", "3", 13), ["out a [a@0/10]=1 @1"]);
}

#[test]
fn a_table_of_windows_is_grouped_again_by_something_else() {
    let builder = StreamsBuilder::new();
    let windows = TimeWindows::of_size_with_no_grace(ms(10));
    builder
        .stream("in", text())
        .group_by_key(grouped())
        .windowed_by(windows)
        .count(Materialized::named("rows"))
        .group_by(|key, count| Some((key.window.start, *count)), Grouped::with(I64, I64))
        .reduce(|sum, count| sum + count, |sum, count| sum - count, Materialized::named("sums"))
        .to_stream()
        .to("out", Produced::with(I64, I64));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "1", 1), ["out 0 1 @1"]);
    assert_eq!(driver.pipe("in", "b", "1", 2), ["out 0 2 @2"]);
    assert_eq!(driver.pipe("in", "a", "2", 3), ["out 0 3 @3"]);
}

#[test]
fn windows_of_one_table_are_joined_with_those_of_another() {
    let builder = StreamsBuilder::new();
    let windows = TimeWindows::of_size_with_no_grace(ms(10));
    let counted = |topic: &str, store: &str| {
        builder.stream(topic, text()).group_by_key(grouped()).windowed_by(windows).count(Materialized::named(store))
    };
    let both = counted("left", "l").join(&counted("right", "r"), |left, right| format!("{left}+{right}"));
    write_to_out(both);
    let mut driver = Driver::new(builder);
    assert!(driver.pipe("left", "a", "1", 1).is_empty());
    assert_eq!(driver.pipe("right", "a", "1", 3), ["out a [a@0/10]=1+1 @3"]);
    assert_eq!(driver.pipe("left", "a", "1", 2), ["out a [a@0/10]=2+1 @3"]);
}

#[test]
fn a_reader_of_a_suppressed_table_sees_what_has_come_through() {
    let builder = StreamsBuilder::new();
    let table = builder.table("table", text(), Materialized::named("rows"));
    let held = table.suppress(Suppressed::until_time_limit(ms(10), BufferConfig::unbounded()));
    builder
        .stream("in", text())
        .left_join(
            &held,
            |value, row| format!("{value}{}", row.unwrap_or_else(|| "-".to_owned())),
            Joined::with(Utf8, Utf8),
        )
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("table", "a", "1", 0);
    assert_eq!(driver.pipe("in", "a", "x", 1), ["out a x- @1"]);
    driver.pipe("table", "b", "1", 20);
    assert_eq!(driver.pipe("in", "a", "x", 21), ["out a x1 @21"]);
}

#[test]
fn a_buffer_that_may_not_let_go_fails_when_it_is_full() {
    let builder = StreamsBuilder::new();
    let buffer = BufferConfig::max_records(1).shut_down_when_full();
    let table = builder.table("table", text(), Materialized::named("rows"));
    table.suppress(Suppressed::until_time_limit(ms(10), buffer)).to_stream().to("out", Produced::with(Utf8, Utf8));
    let mut driver = Driver::new(builder);
    driver.pipe("table", "a", "1", 0);
    let error = driver.pipe_raw("table", Some(b"b"), Some(b"1"), 0).unwrap_err();
    assert!(error.to_string().contains("holds 2 of 1 records"), "{error}");
}

#[test]
fn what_fails_behind_a_buffer_is_a_dead_letter_of_its_own_record() {
    let builder = StreamsBuilder::new();
    let table = builder.table("table", text(), Materialized::named("rows"));
    let held = table.suppress(Suppressed::until_time_limit(ms(10), BufferConfig::unbounded()));
    held.to_stream().filter(|key, _| panic!("boom {key}")).to("out", to_text());
    let config = Config::new("app", "embedded://").cache_bytes(0).dead_letter_topic("dead");
    let config = config.processing_handler(ErrorHandler::log_and_continue());
    let inner = TopologyTestDriver::with_config(&builder.build().unwrap(), &config).unwrap();
    let mut driver = Driver { inner, seen: 0 };
    assert!(driver.pipe("table", "a", "1", 0).is_empty());
    assert_eq!(driver.pipe("table", "b", "1", 10), ["dead a 1 @0"], "the record in hand is b");
}

#[test]
fn streams_of_a_cogroup_have_values_of_their_own_types() {
    let builder = StreamsBuilder::new();
    let numbers = builder.stream("numbers", Consumed::with(Utf8, I64)).group_by_key(Grouped::with(Utf8, I64));
    let words = builder.stream("words", text()).group_by_key(grouped());
    let table = words
        .cogroup(|_, word, row: String| joined(&row, &word))
        .cogroup(numbers, |_, number, row: String| joined(&row, &number.to_string()))
        .windowed_by(TimeWindows::of_size_with_no_grace(ms(10)))
        .aggregate(String::new, rows());
    write_to_out(table);
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("words", "a", "x", 1), ["out a [a@0/10]=x @1"]);
    let number = 7_i64.to_be_bytes();
    assert_eq!(driver.pipe_raw("numbers", Some(b"a"), Some(&number), 2).unwrap(), ["out a [a@0/10]=x7 @2"]);
}

#[test]
fn windows_without_sense_are_refused_with_the_remedy() {
    let refused = |windows: TimeWindows| {
        let builder = StreamsBuilder::new();
        let table = builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows);
        let _ = table.count(Materialized::named("rows").with_retention(ms(12)));
        build_error(builder)
    };
    assert!(refused(TimeWindows::of_size_with_no_grace(ms(0))).contains("size of zero"));
    assert!(refused(TimeWindows::of_size_with_no_grace(ms(10)).advance_by(ms(11))).contains("advance by 11 ms"));
    assert!(refused(TimeWindows::of_size_and_grace(ms(10), ms(3))).contains("take records for 13 ms"));

    let builder = StreamsBuilder::new();
    let table = builder.stream("in", text()).group_by_key(grouped()).windowed_by(UnlimitedWindows::of());
    let _ = table.emit_strategy(EmitStrategy::OnWindowClose).count(Materialized::named("rows"));
    assert!(build_error(builder).contains("unlimited windows never close"));

    let builder = StreamsBuilder::new();
    let keys = Consumed::with(TimeWindowedSerde::new(Utf8, ms(10)), Utf8);
    let table = builder.table("windows", keys, Materialized::named("rows"));
    write_to_out(table.suppress(Suppressed::until_window_closes(BufferConfig::unbounded())));
    assert!(build_error(builder).contains("windowed_by"));
}

#[test]
fn late_records_go_a_way_of_their_own_with_the_window_they_have_missed() {
    let to_late = |late: KStream<Windowed<String>, String>| {
        late.map(|key, value| (key.key.clone(), format!("{key}={value}"))).to("late", to_text());
    };
    let builder = StreamsBuilder::new();
    let windows = TimeWindows::of_size_with_no_grace(ms(10)).advance_by(ms(5));
    let windowed = builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows).on_late(to_late);
    write_to_out(windowed.reduce(|one, other| format!("{one}{other}"), Materialized::named("rows")));
    let mut driver = Driver::new(builder);
    driver.pipe("in", "a", "1", 12);
    assert_eq!(driver.pipe("in", "a", "2", 8), ["out a [a@5/15]=12 @12", "late a [a@0/10]=2 @8"]);
    assert_eq!(driver.pipe("in", "a", "3", 2), ["late a [a@0/10]=3 @2"]);
    assert_eq!(driver.inner.dropped_records(), 2, "they are counted all the same");

    let builder = StreamsBuilder::new();
    let windows = SessionWindows::of_inactivity_gap_with_no_grace(ms(5));
    let windowed = builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows).on_late(to_late);
    write_to_out(windowed.reduce(|one, other| format!("{one}{other}"), Materialized::named("rows")));
    let mut driver = Driver::new(builder);
    driver.pipe("in", "a", "1", 12);
    assert_eq!(driver.pipe("in", "a", "2", 2), ["late a [a@2/2]=2 @2"]);
    assert!(driver.pipe("in", "a", "3", 13).iter().all(|line| line.starts_with("out")), "it is not late");

    let builder = StreamsBuilder::new();
    let windows = SlidingWindows::of_time_difference_with_no_grace(ms(5));
    let windowed = builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows).on_late(to_late);
    write_to_out(windowed.reduce(|one, other| format!("{one}{other}"), Materialized::named("rows")));
    let mut driver = Driver::new(builder);
    driver.pipe("in", "a", "1", 20);
    assert_eq!(driver.pipe("in", "a", "2", 10), ["late a [a@5/10]=2 @10"]);
}

#[test]
fn a_record_that_was_late_is_late_after_a_crash_too() {
    let builder = StreamsBuilder::new();
    let windows = TimeWindows::of_size_with_no_grace(ms(10));
    let table = builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows);
    let rows = rows().with_retention(ms(1_000));
    write_to_out(table.aggregate(String::new, |_, value, row: String| joined(&row, &value), rows));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "1", 25), ["out a [a@20/30]=1 @25"]);
    driver.inner.crash(Guarantee::ExactlyOnce).unwrap();
    assert!(driver.pipe("in", "a", "2", 5).is_empty());
    assert_eq!(driver.pipe("in", "a", "3", 21), ["out a [a@20/30]=13 @25"]);
}
