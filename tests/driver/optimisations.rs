//! What `topology.optimization` makes of a topology. Names are those of Java's vectors; here is what they leave out.

use kstreams::*;

use super::Driver;

fn optimised(builder: StreamsBuilder, optimization: Optimization) -> Topology {
    builder.build_with(&Config::new("app", "embedded://").optimization(optimization)).unwrap()
}

fn rekeyed() -> (StreamsBuilder, KStream<String, String>) {
    let builder = StreamsBuilder::new();
    let stream = builder.stream("in", Consumed::with(Utf8, Utf8)).select_key(|_, value| value.clone());
    (builder, stream)
}

fn grouped(name: &str) -> Grouped<String, String> {
    Grouped::with(Utf8, Utf8).named(name)
}

fn repartition_topics(topology: &Topology) -> Vec<String> {
    let parts = topology.sub_topologies("app");
    parts.into_iter().flat_map(|part| part.repartition_topics).map(|topic| topic.name).collect()
}

#[test]
fn what_stands_between_the_key_and_two_groupings_stands_behind_the_one_topic() {
    let build = |optimization| {
        let (builder, stream) = rekeyed();
        let long = stream.filter(|_, value| value.len() > 1);
        long.clone()
            .group_by_key(grouped("one"))
            .count(Materialized::named("c"))
            .to_stream()
            .to("counts", Produced::with(Utf8, I64));
        long.group_by_key(grouped("two"))
            .reduce(|row, value| row + &value, Materialized::named("r"))
            .to_stream()
            .to("texts", Produced::with(Utf8, Utf8));
        optimised(builder, optimization)
    };
    let run = |topology: &Topology| {
        let config = Config::new("app", "embedded://").cache_bytes(0);
        let mut driver = Driver { inner: TopologyTestDriver::with_config(topology, &config).unwrap(), seen: 0 };
        let mut out = driver.pipe("in", "k", "ab", 1);
        out.extend(driver.pipe("in", "k", "x", 2));
        out.extend(driver.pipe("in", "k", "ab", 3));
        out
    };
    let (plain, merged) = (build(Optimization::none()), build(Optimization::none().merge_repartition_topics()));
    assert_eq!(repartition_topics(&plain), ["app-one-repartition", "app-two-repartition"]);
    assert_eq!(repartition_topics(&merged), ["app-one-repartition"]);
    let expected = ["counts ab 1 @1", "texts ab ab @1", "counts ab 2 @3", "texts ab abab @3"];
    assert_eq!(run(&plain), expected);
    assert_eq!(run(&merged), expected);
}

#[test]
fn a_change_of_the_value_keeps_its_topic_where_it_was() {
    let (builder, stream) = rekeyed();
    stream.clone().map_values(|value| value + "!").group_by_key(grouped("one")).count(Materialized::named("c"));
    stream.group_by_key(grouped("two")).count(Materialized::named("d"));
    let topology = optimised(builder, Optimization::all());
    // The one that could be merged stands right behind the change of the key.
    assert_eq!(repartition_topics(&topology), ["app-two-repartition", "app-one-repartition"]);
}

#[test]
fn a_topic_that_was_asked_for_is_left_alone() {
    let (builder, stream) = rekeyed();
    let own = stream.clone().repartition(Repartitioned::with(Utf8, Utf8).named("own").with_partitions(3));
    own.to("out", Produced::with(Utf8, Utf8));
    stream.group_by_key(grouped("one")).count(Materialized::named("c"));
    let topology = optimised(builder, Optimization::all());
    assert_eq!(repartition_topics(&topology), ["app-one-repartition", "app-own-repartition"]);
}

#[test]
fn a_left_join_behind_a_repartition_topic_gets_records_with_a_null_key() {
    let builder = StreamsBuilder::new();
    let table = builder.table("table", Consumed::with(Nullable(Utf8), Utf8), Materialized::default());
    builder
        .stream("in", Consumed::with(Nullable(Utf8), Utf8))
        .map(|_, value: String| (None::<String>, value))
        .repartition(Repartitioned::with(Nullable(Utf8), Utf8).named("own"))
        .left_join(&table, |value, row| format!("{value} {row:?}"), Joined::with(Nullable(Utf8), Utf8))
        .to("out", Produced::with(Nullable(Utf8), Utf8));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "k", "v", 1), ["out - v None @1"]);
}

#[test]
fn an_optimisation_that_is_not_known_is_refused() {
    for text in ["none,merge.repartition.topics", "all,none", "merge", ""] {
        let error = Config::new("app", "embedded://").set("topology.optimization", text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let list = "merge.repartition.topics, single.store.self.join".parse::<Optimization>().unwrap();
    assert_eq!(list, Optimization::none().merge_repartition_topics().single_store_self_join());
}

#[test]
fn both_sides_of_a_join_behind_one_change_of_the_key_share_its_topic() {
    let build = |optimization| {
        let (builder, stream) = rekeyed();
        let long = stream.clone().filter(|_, value| value.len() > 1);
        let windows = JoinWindows::of_time_difference_with_no_grace(std::time::Duration::from_millis(5));
        stream
            .join_stream(long, |left, right| format!("{left}+{right}"), windows, StreamJoined::with(Utf8, Utf8, Utf8))
            .to("out", Produced::with(Utf8, Utf8));
        optimised(builder, optimization)
    };
    let (plain, merged) = (build(Optimization::none()), build(Optimization::none().merge_repartition_topics()));
    assert_eq!((repartition_topics(&plain).len(), repartition_topics(&merged).len()), (2, 1), "{merged:?}");
    let parts = merged.sub_topologies("app");
    assert_eq!(parts[1].copartitions.len(), 1);
    assert_eq!(parts[1].copartitions[0], parts[1].sources, "{parts:?}");
    for topology in [plain, merged] {
        let mut driver = Driver { inner: TopologyTestDriver::new(&topology).unwrap(), seen: 0 };
        let mut out = driver.pipe("in", "k", "ab", 1);
        out.extend(driver.pipe("in", "l", "ab", 3));
        out.sort();
        assert_eq!(out, ["out ab ab+ab @1", "out ab ab+ab @3", "out ab ab+ab @3", "out ab ab+ab @3"]);
    }
}

#[test]
fn a_lone_repartition_topic_is_named_as_java_names_it() {
    let (builder, stream) = rekeyed();
    stream.to_table(Materialized::with(Utf8, Utf8)).to_stream().to("out", Produced::with(Utf8, Utf8));
    let text = optimised(builder, Optimization::all()).describe();
    assert!(text.contains("KSTREAM-TOTABLE-0000000002-repartition-source (topics"), "{text}");
    assert!(text.contains("KSTREAM-TOTABLE-0000000002-repartition-filter"), "{text}");
}
