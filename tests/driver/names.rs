//! Names and numbers are Java's: an application that moves over finds its topics.

use crate::*;

fn describe(make: impl FnOnce(&StreamsBuilder)) -> String {
    let builder = StreamsBuilder::new();
    make(&builder);
    builder.build().unwrap().describe()
}

#[test]
fn a_repartition_uses_up_three_numbers() {
    let text = describe(|builder| {
        let stream = builder.stream("in", text());
        stream
            .clone()
            .group_by(|_, v| v.clone(), grouped())
            .count(Materialized::default())
            .to_stream()
            .to("out", Produced::with(Utf8, I64));
        stream.filter(|_, _| true).to("out2", to_text());
    });
    assert_eq!(
        text,
        "Topologies:
   Sub-topology: 0
    Source: KSTREAM-SOURCE-0000000000 (topics: [in])
      --> KSTREAM-KEY-SELECT-0000000001, KSTREAM-FILTER-0000000009
    Processor: KSTREAM-KEY-SELECT-0000000001 (stores: [])
      --> KSTREAM-FILTER-0000000005
      <-- KSTREAM-SOURCE-0000000000
    Processor: KSTREAM-FILTER-0000000005 (stores: [])
      --> KSTREAM-SINK-0000000004
      <-- KSTREAM-KEY-SELECT-0000000001
    Processor: KSTREAM-FILTER-0000000009 (stores: [])
      --> KSTREAM-SINK-0000000010
      <-- KSTREAM-SOURCE-0000000000
    Sink: KSTREAM-SINK-0000000004 (topic: KSTREAM-AGGREGATE-STATE-STORE-0000000002-repartition)
      <-- KSTREAM-FILTER-0000000005
    Sink: KSTREAM-SINK-0000000010 (topic: out2)
      <-- KSTREAM-FILTER-0000000009

  Sub-topology: 1
    Source: KSTREAM-SOURCE-0000000006 (topics: [KSTREAM-AGGREGATE-STATE-STORE-0000000002-repartition])
      --> KSTREAM-AGGREGATE-0000000003
    Processor: KSTREAM-AGGREGATE-0000000003 (stores: [KSTREAM-AGGREGATE-STATE-STORE-0000000002])
      --> KTABLE-TOSTREAM-0000000007
      <-- KSTREAM-SOURCE-0000000006
    Processor: KTABLE-TOSTREAM-0000000007 (stores: [])
      --> KSTREAM-SINK-0000000008
      <-- KSTREAM-AGGREGATE-0000000003
    Sink: KSTREAM-SINK-0000000008 (topic: out)
      <-- KTABLE-TOSTREAM-0000000007

"
    );
}

#[test]
fn a_given_name_leaves_the_numbers_of_the_others_alone() {
    let text = describe(|builder| {
        builder
            .table("table", text(), Materialized::default())
            .group_by(|k, v| (v.clone(), k.clone()), grouped().named("grp"))
            .named("agg")
            .count(Materialized::named("as"))
            .to_stream()
            .to("out", Produced::with(Utf8, I64));
    });
    for line in [
        "Processor: grp (stores: [])",
        "Sink: agg-sink (topic: grp-repartition)",
        "Source: agg-source (topics: [grp-repartition])",
        "Processor: agg (stores: [as])",
        "Processor: KTABLE-TOSTREAM-0000000007 (stores: [])",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

#[test]
fn two_streams_of_one_topic_share_a_source() {
    let text = describe(|builder| {
        let (one, other) = (builder.stream("in", text()), builder.stream("in", text()));
        one.filter(|_, _| true).to("out", to_text());
        other.to("out2", to_text());
    });
    assert!(text.contains("--> KSTREAM-FILTER-0000000002, KSTREAM-SINK-0000000004"), "{text}");
}
