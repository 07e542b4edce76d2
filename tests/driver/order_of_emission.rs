//! Java's order: children as they were attached, each with everything behind it before the next.

use std::time::Duration;

use crate::*;

#[test]
fn children_receive_in_the_order_they_were_attached() {
    let builder = StreamsBuilder::new();
    let stream = builder.stream("in", text());
    stream.clone().to("out-1", to_text());
    let filtered = stream.clone().filter(|_, _| true);
    stream.to("out-3", to_text());
    filtered.to("out-2", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "1", 1), ["out-1 a 1 @1", "out-2 a 1 @1", "out-3 a 1 @1"]);
}

#[test]
fn a_diamond_is_walked_depth_first() {
    let builder = StreamsBuilder::new();
    let stream = builder.stream("in", text());
    let filtered = stream.clone().filter(|_, _| true);
    let merged = stream.merge(filtered.clone());
    filtered.to("out-f", to_text());
    merged.to("out-m", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "1", 1), ["out-m a 1 @1", "out-f a 1 @1", "out-m a 1 @1"]);
}

#[test]
fn the_first_record_of_a_flat_map_is_through_before_the_second() {
    let builder = StreamsBuilder::new();
    let words =
        builder.stream("in", text()).flat_map_values(|line| line.split(' ').map(String::from).collect::<Vec<_>>());
    words.clone().to("out-1", to_text());
    words.to("out-2", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "k", "a b", 7), ["out-1 k a @7", "out-2 k a @7", "out-1 k b @7", "out-2 k b @7"]);
}

/// Those that end at the same time: in memory by key, on disk by start, as the rows of Java's stores.
#[test]
fn closed_sessions_come_in_the_order_of_their_store() {
    let materialized = || Materialized::named("sessions").with_retention(Duration::from_secs(100));
    let cases = [
        (materialized().in_memory(), ["a@25/30", "aa@21/30", "b@20/30"]),
        (materialized().persistent(), ["b@20/30", "aa@21/30", "a@25/30"]),
    ];
    for (materialized, expected) in cases {
        let builder = StreamsBuilder::new();
        let gap = Duration::from_millis(10);
        let windows = SessionWindows::of_inactivity_gap_and_grace(gap, Duration::from_secs(1));
        let windowed = builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows);
        let counted = windowed.emit_strategy(EmitStrategy::OnWindowClose).count(materialized);
        let named = |session: Windowed<String>, _| {
            let Window { start, end } = session.window;
            (format!("{}@{start}/{end}", session.key), String::new())
        };
        counted.to_stream().map(named).to("out", to_text());
        let mut driver = Driver::new(builder);
        for (key, at) in [("b", 20), ("a", 25), ("a", 30), ("b", 30), ("aa", 30), ("aa", 21)] {
            assert!(driver.pipe("in", key, "v", at).is_empty());
        }
        let expected = expected.map(|session| format!("out {session}  @30"));
        assert_eq!(driver.pipe("in", "z", "v", 5000), expected);
    }
}
