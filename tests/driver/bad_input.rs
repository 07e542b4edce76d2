//! What a user's functions do wrong, and stores that make no sense.

use std::time::Duration;

use crate::*;

const SECOND: Duration = Duration::from_secs(1);

fn boom(one: &str, other: &str) -> String {
    if one == "bad" || other == "bad" { panic!("boom {one} {other}") } else { format!("{one}{other}") }
}

fn tables(builder: &StreamsBuilder) -> (KTable<String, String>, KTable<String, String>) {
    let table = |topic: &str| builder.table(topic, text(), Materialized::named(&format!("{topic}-rows")));
    (table("left"), table("right"))
}

/// A topology of `left` and `right`, and the node that joins them.
fn joins() -> Vec<(&'static str, StreamsBuilder)> {
    let within = || JoinWindows::of_time_difference_with_no_grace(SECOND);
    let mut joins = Vec::new();
    let mut join = |name, build: &dyn Fn(&StreamsBuilder) -> KStream<String, String>| {
        let builder = StreamsBuilder::new();
        build(&builder).to("out", to_text());
        joins.push((name, builder));
    };
    join("streams-this-join", &|builder| {
        let (left, right) = (builder.stream("left", text()), builder.stream("right", text()));
        let joined = StreamJoined::with(Utf8, Utf8, Utf8).named("streams");
        left.join_stream(right, |l, r| boom(l, r), within(), joined)
    });
    join("table", &|builder| {
        let (left, right) = (builder.stream("left", text()), tables_right(builder));
        left.join(&right, |l, r| boom(&l, &r), Joined::with(Utf8, Utf8).named("table"))
    });
    join("global", &|builder| {
        let right = builder.global_table("right", text(), Materialized::named("rows"));
        let left = builder.stream("left", text());
        left.join_global(&right, |key, _| key.clone(), |l, r| boom(&l, &r), Joined::with(Utf8, Utf8).named("global"))
    });
    join("KTABLE-JOINTHIS-", &|builder| {
        let (left, right) = tables(builder);
        left.join(&right, |l, r| boom(&l, &r)).to_stream().map_values(Option::unwrap_or_default)
    });
    join("SUBSCRIPTION-RESPONSE-RESOLVER", &|builder| {
        let (left, right) = tables(builder);
        let own_key = |key: &String, _: &String| Some(key.clone());
        left.join_foreign_key(&right, own_key, |l, r| boom(&l, &r), TableJoined::default())
            .to_stream()
            .map_values(Option::unwrap_or_default)
    });
    joins
}

fn tables_right(builder: &StreamsBuilder) -> KTable<String, String> {
    builder.table("right", text(), Materialized::named("right-rows"))
}

#[test]
fn a_joiner_that_panics_fails_its_record_and_names_its_node() {
    for (node, builder) in joins() {
        let topology = builder.build().unwrap();
        let config = Config::new("app", "embedded://").cache_bytes(0);
        let driver = |config: &Config| {
            let inner = TopologyTestDriver::with_config(&topology, config).unwrap();
            let mut driver = Driver { inner, seen: 0 };
            driver.pipe("right", "a", "1", 1);
            driver
        };
        let error = driver(&config).pipe_raw("left", Some(b"a"), Some(b"bad"), 2).unwrap_err();
        let report = error.report();
        assert!(report.contains("boom bad 1") && report.contains(node), "{node}: {report}");
        assert_eq!(error.kind(), ErrorKind::User, "{node}");

        let mut lenient = driver(&config.clone().processing_handler(ErrorHandler::log_and_continue()));
        assert!(lenient.pipe("left", "a", "bad", 2).is_empty(), "{node}");
        assert_eq!(lenient.inner.dropped_records(), 1, "{node}");
        assert_eq!(lenient.pipe("left", "a", "x", 3), ["out a x1 @3"], "{node}");
    }
}

#[test]
fn a_session_that_its_aggregator_or_its_merger_deletes_is_gone() {
    let builder = StreamsBuilder::new();
    let sessions = builder.stream("in", text()).group_by_key(grouped());
    let row = |row: String, value: &str| (value != "delete").then(|| row + value);
    sessions
        .windowed_by(SessionWindows::of_inactivity_gap_with_no_grace(SECOND))
        .aggregate(
            String::new,
            move |_, value, aggregate| row(aggregate, &value),
            move |_, one, other| row(one, &other),
            Materialized::named("rows").with_value_serde(Utf8),
        )
        .to_stream()
        .map(|key, value| (key.key.clone(), value.unwrap_or_else(|| "gone".to_owned())))
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "x", 1), ["out a x @1"]);
    assert_eq!(driver.pipe("in", "a", "delete", 1).last().map(String::as_str), Some("out a gone @1"));
    assert_eq!(driver.pipe("in", "a", "y", 2), ["out a y @2"], "begins anew");
}

#[test]
fn stores_that_make_no_sense_are_refused_with_the_remedy() {
    let error_of = |add: &dyn Fn(&mut TopologyBuilder)| {
        let mut builder = TopologyBuilder::new();
        add(&mut builder);
        builder.build().unwrap_err().to_string()
    };
    let short = error_of(&|builder| {
        builder.add_state_store(&Stores::window("short", SECOND, 2 * SECOND, false, Utf8, Utf8), &[]);
    });
    assert!(short.contains("store short keeps windows of 2000 ms for 1000 ms only"), "{short}");
    let segments = error_of(&|builder| {
        let store = Stores::versioned_key_value("fine", SECOND, Utf8, Utf8).with_segment_interval(Duration::ZERO);
        builder.add_state_store(&store, &[]);
    });
    assert!(segments.contains("store fine has segments of 0 ms: they need at least one"), "{segments}");
}

#[test]
fn two_tables_do_not_share_a_store_by_accident() {
    let builder = StreamsBuilder::new();
    for topic in ["one", "two"] {
        builder.table(topic, text(), Materialized::named("same")).to_stream().to("out", to_text());
    }
    let error = build_error(builder);
    assert!(error.contains("same"), "{error}");
}

#[test]
fn a_window_that_is_kept_shorter_than_it_takes_records_is_refused() {
    let builder = StreamsBuilder::new();
    let minute = TimeWindows::of_size_and_grace(SECOND, 2 * SECOND);
    let short = Materialized::named("short").with_retention(SECOND);
    builder.stream("in", text()).group_by_key(grouped()).windowed_by(minute).count(short);
    let error = build_error(builder);
    assert!(error.contains("short") && error.contains("retention"), "{error}");
}
