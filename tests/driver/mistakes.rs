//! What the compiler cannot see, `build` refuses: with the name and the remedy.

use crate::*;

#[test]
fn a_name_is_checked() {
    let builder = StreamsBuilder::new();
    let _ = builder.stream("in", text()).named("a b").filter(|_, _| true);
    assert!(build_error(builder).contains("\"a b\" is no legal name"));
}

#[test]
fn a_name_that_no_operator_takes_is_refused() {
    let builder = StreamsBuilder::new();
    let _stream = builder.stream("in", text()).named("lost");
    assert!(build_error(builder).contains("the name lost was given to no operator"));
}

#[test]
fn an_operator_has_one_name() {
    let builder = StreamsBuilder::new();
    builder.stream("in", text()).named("one").to("out", to_text().named("two"));
    assert!(build_error(builder).contains("named twice, one and two"));
}

#[test]
fn two_operators_do_not_share_a_name() {
    let builder = StreamsBuilder::new();
    let stream = builder.stream("in", text());
    let _ = stream.clone().named("n").filter(|_, _| true);
    stream.named("n").map_values(|v| v);
    assert!(build_error(builder).contains("two nodes are called n"));
}

#[test]
fn an_aggregate_needs_a_value_serde() {
    let builder = StreamsBuilder::new();
    builder.stream("in", text()).group_by_key(grouped()).aggregate(
        || 0,
        |_, _, n: i32| n + 1,
        Materialized::named("st"),
    );
    let error = build_error(builder);
    assert!(error.contains("store st has no value serde: give it one with Materialized::with_value_serde"), "{error}");
}

#[test]
fn a_topic_is_read_once_as_a_table() {
    let builder = StreamsBuilder::new();
    builder.stream("in", text()).to("copy", to_text());
    builder.table("in", text(), Materialized::default()).to_stream().to("out", to_text());
    assert!(build_error(builder).contains("topic in is read by"));
}

#[test]
fn two_streams_of_one_topic_agree_about_types_and_resets() {
    let builder = StreamsBuilder::new();
    builder.stream("in", text().with_offset_reset(OffsetReset::Earliest)).to("out", to_text());
    builder.stream("in", text().with_offset_reset(OffsetReset::Latest)).to("out", to_text());
    assert!(build_error(builder).contains("two offset resets"));
    let builder = StreamsBuilder::new();
    builder.stream("in", text()).to("out", to_text());
    builder.stream("in", Consumed::with(Utf8, I64)).to("out", Produced::with(Utf8, I64));
    assert!(build_error(builder).contains("read as two types"));
}

/// Java compares sets, and so do we: one source.
#[test]
fn several_topics_are_the_same_in_whatever_order_they_are_named() {
    let builder = StreamsBuilder::new();
    builder.stream_of(&["a", "b"], text()).to("one", to_text());
    builder.stream_of(&["b", "a", "b"], text()).to("two", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("a", "k", "v", 1), ["one k v @1", "two k v @1"]);
    assert_eq!(driver.pipe("b", "k", "v", 2), ["one k v @2", "two k v @2"]);
    let builder = StreamsBuilder::new();
    builder.stream_of(&["a", "a"], text()).to("out", to_text());
    assert_eq!(Driver::new(builder).pipe("a", "k", "v", 1), ["out k v @1"]);
    let builder = StreamsBuilder::new();
    builder.stream_of(&["a", "b"], text()).to("one", to_text());
    builder.stream("a", text()).to("two", to_text());
    assert!(build_error(builder).contains("topic a is read by"));
}

/// Refused where internal topics are resolved, which the test driver does not do.
#[test]
fn a_repartition_topic_without_partitions_is_built_and_tested_as_in_java() {
    let builder = StreamsBuilder::new();
    let repartitioned = Repartitioned::with(Utf8, Utf8).named("r").with_partitions(0);
    builder.stream("in", text()).repartition(repartitioned).to("out", to_text());
    assert_eq!(Driver::new(builder).pipe("in", "k", "v", 1), ["out k v @1"]);
}

#[test]
fn a_store_must_be_added() {
    struct Nothing;
    impl Processor<String, String> for Nothing {
        type KeyOut = String;
        type ValueOut = String;
        fn process(&mut self, _: Record<String, String>, _: &mut ProcessorContext<'_, String, String>) -> Result<()> {
            Ok(())
        }
    }
    let builder = StreamsBuilder::new();
    builder.stream("in", text()).process(|_| Ok(Nothing), Processed::stores(["nope"])).to("out", to_text());
    assert!(build_error(builder).contains("store nope"));
}

#[test]
fn generated_names_can_be_refused() {
    let builder = StreamsBuilder::new();
    builder.require_names();
    builder.stream("in", text()).group_by(|_, v| v.clone(), grouped()).count(Materialized::default());
    let error = build_error(builder);
    let store = "KSTREAM-AGGREGATE-STATE-STORE-0000000002";
    assert!(error.contains(&format!("store {store} (name it with Materialized::named)")), "{error}");
    assert!(error.contains(&format!("topic {store}-repartition (name it with Grouped::named)")), "{error}");

    let builder = StreamsBuilder::new();
    builder.require_names();
    builder.stream("in", text()).group_by(|_, v| v.clone(), grouped().named("g")).count(Materialized::named("c"));
    builder.build().unwrap();
}

#[test]
fn two_builders_do_not_mix() {
    let (one, other) = (StreamsBuilder::new(), StreamsBuilder::new());
    one.stream("in", text()).merge(other.stream("in2", text())).to("out", to_text());
    assert!(build_error(one).contains("two builders"));
}

#[test]
fn enforced_partition_counts_of_joined_topics_agree() {
    let builder = StreamsBuilder::new();
    let repartitioned =
        |name: &str, partitions| Repartitioned::with(Utf8, Utf8).named(name).with_partitions(partitions);
    let table = builder
        .stream("right", text())
        .repartition(repartitioned("r", 3))
        .to_table(Materialized::with(Utf8, Utf8).with_name("ts"));
    builder
        .stream("left", text())
        .repartition(repartitioned("l", 2))
        .join(&table, |l, r| l + &r, Joined::with(Utf8, Utf8))
        .to("out", to_text());
    assert!(build_error(builder).contains("l-repartition and r-repartition are joined, but have 2 and 3 partitions"));
}
