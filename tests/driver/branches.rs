//! Splitting a stream.

use crate::*;

#[test]
fn a_split_gives_each_record_to_the_first_branch_that_takes_it() {
    struct Unique(String); // not Clone: a split copies nothing
    let builder = StreamsBuilder::new();
    let mut branches = builder
        .stream("in", text())
        .map_values(Unique)
        .named("x-")
        .split()
        .branch(|_, v| v.0.contains('a'), Branched::default())
        .branch(|_, v| v.0.contains('b'), Branched::named("bees"))
        .default_branch(Branched::default());
    for (name, topic) in [("x-1", "out-a"), ("x-bees", "out-b"), ("x-0", "out-rest")] {
        branches.remove(name).unwrap().map_values(|v| v.0).to(topic, to_text());
    }
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "k", "ab", 1), ["out-a k ab @1"]);
    assert_eq!(driver.pipe("in", "k", "b", 2), ["out-b k b @2"]);
    assert_eq!(driver.pipe("in", "k", "c", 3), ["out-rest k c @3"]);
}

#[test]
fn what_no_branch_takes_is_gone_and_not_counted() {
    let builder = StreamsBuilder::new();
    let branches =
        builder.stream("in", text()).split().branch(|_, v| v == "a", Branched::default()).no_default_branch();
    assert_eq!(branches.keys().collect::<Vec<_>>(), ["KSTREAM-BRANCH-00000000011"]);
    branches.into_values().for_each(|branch| branch.to("out", to_text()));
    let mut driver = Driver::new(builder);
    assert!(driver.pipe("in", "k", "b", 1).is_empty());
    assert_eq!(driver.inner.dropped_records(), 0);
}
