//! Java's order: children as they were attached, each with everything behind it before the next.

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
