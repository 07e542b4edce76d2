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

#[test]
fn a_branch_may_go_through_a_function_and_is_in_the_map_only_if_that_gives_it_back() {
    let builder = StreamsBuilder::new();
    let upper = |branch: KStream<String, String>| branch.map_values(|v| v.to_uppercase());
    let mut branches = builder
        .stream("in", text())
        .named("x-")
        .split()
        .branch(|_, v| v.contains('a'), Branched::default().with_consumer(|branch| branch.to("a", to_text())))
        .branch(|_, v| v.contains('b'), Branched::named("b").with_function(upper))
        .default_branch(Branched::default());
    assert_eq!(branches.keys().collect::<Vec<_>>(), ["x-0", "x-b"]);
    branches.remove("x-b").unwrap().to("b", to_text());
    branches.remove("x-0").unwrap().to("rest", to_text());
    let topology = builder.build().unwrap();
    // Java makes what follows a branch before the next branch, so its number comes before.
    let description = topology.describe();
    for name in ["KSTREAM-SINK-0000000003", "KSTREAM-MAPVALUES-0000000005"] {
        assert!(description.to_string().contains(name), "{description}");
    }
    let mut driver = Driver { inner: TopologyTestDriver::new(&topology).unwrap(), seen: 0 };
    assert_eq!(driver.pipe("in", "k", "ab", 1), ["a k ab @1"]);
    assert_eq!(driver.pipe("in", "k", "b", 2), ["b k B @2"]);
    assert_eq!(driver.pipe("in", "k", "c", 3), ["rest k c @3"]);
}
