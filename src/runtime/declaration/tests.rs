//! What Java 4.3.1 declares of the same programs (`StreamThread.initBrokerTopology`, and what its heartbeat makes of that), as
//! lines: `name partitions replication settings…` of each topic, and places of topics that belong together.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::*;
use crate::serdes::Utf8;
use crate::{
    BufferConfig, Consumed, Grouped, JoinWindows, Joined, KStream, KTable, Materialized, Produced, Repartitioned,
    StreamJoined, StreamsBuilder, Suppressed, TableJoined, TimeWindows, Windowed,
};

const JAVA: &str = include_str!("java_4_3_1.txt");

const MINUTE: Duration = Duration::from_secs(60);

type Text = KStream<String, String>;

struct Program(StreamsBuilder);

impl Program {
    fn stream(&self, topic: &str) -> Text {
        self.0.stream(topic, Consumed::with(Utf8, Utf8))
    }

    fn table(&self, topic: &str, store: &str) -> KTable<String, String> {
        self.0.table(topic, Consumed::with(Utf8, Utf8), Materialized::named(store))
    }

    fn count(stream: Text, store: &str) {
        stream.group_by_key(grouped()).count(Materialized::named(store));
    }
}

fn grouped() -> Grouped<String, String> {
    Grouped::with(Utf8, Utf8)
}

fn by_value(stream: Text) -> Text {
    stream.select_key(|_, value| value.clone())
}

fn joined(stream: Text, table: &KTable<String, String>) -> Text {
    stream.join(table, |left, _| left, Joined::with(Utf8, Utf8))
}

fn within() -> JoinWindows {
    JoinWindows::of_time_difference_with_no_grace(MINUTE)
}

fn in_stores() -> StreamJoined<String, String, String> {
    StreamJoined::with(Utf8, Utf8, Utf8).with_store_name("join")
}

fn config() -> Config {
    Config::new("app", "embedded://")
}

fn shown(declared: &TopologyDeclaration) -> String {
    let topic = |topic: &TopicDeclaration| {
        let head = format!("{} {} {}", topic.name, topic.partitions.unwrap_or(0), topic.replication.unwrap_or(-1));
        topic.config.iter().fold(head, |line, (name, value)| format!("{line} {name}={value}"))
    };
    let mut text = String::new();
    for part in &declared.sub_topologies {
        let names = |names: &[Arc<str>]| names.join(" ");
        writeln!(text, "{}\n  sources {}", part.number, names(&part.sources)).unwrap();
        writeln!(text, "  sinks {}", names(&part.repartition_sinks)).unwrap();
        part.changelogs.iter().for_each(|it| writeln!(text, "  changelog {}", topic(it)).unwrap());
        part.repartition_sources.iter().for_each(|it| writeln!(text, "  repartition {}", topic(it)).unwrap());
        for group in &part.together {
            writeln!(text, "  together {:?} {:?}", group.sources, group.repartition_sources).unwrap();
        }
    }
    text
}

fn check_with(name: &str, config: &Config, build: impl FnOnce(&Program)) {
    let program = Program(StreamsBuilder::new());
    build(&program);
    let topology = program.0.build_with(config).unwrap();
    let programs: BTreeMap<_, _> = JAVA.split("# ").filter_map(|part| part.split_once('\n')).collect();
    assert_eq!(shown(&declare(&topology, config)), programs[name], "{name}");
}

fn check(name: &str, build: impl FnOnce(&Program)) {
    check_with(name, &config(), build);
}

#[test]
fn stores_and_repartition_topics_are_declared_as_in_java() {
    check("count", |p| Program::count(p.stream("in"), "counts"));
    check("count-rekeyed", |p| Program::count(by_value(p.stream("in")), "counts"));
    check("unlogged", |p| {
        p.stream("in").group_by_key(grouped()).count(Materialized::named("counts").without_logging());
    });
    check("logged", |p| {
        let settings = [("segment.ms".to_owned(), "5".to_owned())].into();
        p.stream("in").group_by_key(grouped()).count(Materialized::named("counts").with_logging(settings));
    });
    check("merged", |p| {
        let both = p.stream("in").merge(p.stream("other"));
        by_value(both).group_by_key(grouped().named("by-value")).count(Materialized::named("counts"));
    });
    let windowed = |p: &Program| {
        let windows = TimeWindows::of_size_with_no_grace(MINUTE);
        p.stream("in").group_by_key(grouped()).windowed_by(windows).count(Materialized::named("counts"))
    };
    check("windows", |p| drop(windowed(p)));
    check("suppressed", |p| {
        let late = Suppressed::<Windowed<String>, i64>::until_window_closes(BufferConfig::unbounded());
        let _ = windowed(p).suppress(late.with_name("late"));
    });
    check("eleven-parts", |p| {
        (0..11).for_each(|part| Program::count(p.stream(&format!("in{part}")), &format!("s{part}")));
    });
}

#[test]
fn settings_of_topics_are_declared_as_in_java() {
    let config =
        config().topic("segment.ms", "1000").topic("retention.ms", "77").set("replication.factor", "2").unwrap();
    check_with("settings", &config, |p| Program::count(by_value(p.stream("in")), "counts"));
}

#[test]
fn topics_that_belong_together_stand_in_javas_order() {
    check("stream-stream", |p| {
        p.stream("left").join_stream(p.stream("right"), |left, _| left.clone(), within(), in_stores());
    });
    check("self-join", |p| {
        let stream = p.stream("in");
        let other = p.stream("in");
        stream.join_stream(other, |left, _| left.clone(), within(), in_stores());
    });
    check("stream-table", |p| drop(joined(p.stream("left"), &p.table("right", "right"))));
    check("three-joined", |p| {
        let (customers, prices) = (p.table("customers", "c"), p.table("prices", "p"));
        joined(joined(p.stream("orders"), &customers), &prices);
    });
    check("two-groups", |p| {
        joined(p.stream("a1"), &p.table("a2", "a"));
        joined(p.stream("b1"), &p.table("b2", "b"));
        joined(p.stream("clicks"), &p.table("users", "u")).to("out", Produced::with(Utf8, Utf8));
    });
    check("merged-joins", |p| {
        let a = joined(p.stream("a1"), &p.table("a2", "a"));
        let b = joined(p.stream("b1"), &p.table("b2", "b"));
        let c = joined(p.stream("clicks"), &p.table("users", "u"));
        a.merge(b).merge(c).to("out", Produced::with(Utf8, Utf8));
    });
    check("same-bucket", |p| {
        let stream = p.stream("AaAa");
        joined(joined(stream, &p.table("BBBB", "t")), &p.table("AaBB", "u"));
    });
    check("cogrouped", |p| {
        let add = |_: &String, _: String, all: String| all;
        let first = p.stream("in").group_by_key(grouped()).cogroup(add);
        let both = first.cogroup(p.stream("other").group_by_key(grouped()), add);
        both.aggregate(String::new, Materialized::with(Utf8, Utf8).with_name("together"));
    });
    check("repartitioned-join", |p| {
        let by_ref = Repartitioned::with(Utf8, Utf8).named("by-ref").with_partitions(3);
        let orders = by_value(p.stream("orders")).repartition(by_ref);
        joined(orders, &p.table("right", "right"));
    });
    check("foreign-key", |p| {
        let (left, right) = (p.table("left", "left"), p.table("right", "right"));
        left.join_foreign_key_materialized(
            &right,
            |_: &String, value: &String| value.clone(),
            |left: String, _: String| left,
            TableJoined::named("fk"),
            Materialized::with(Utf8, Utf8).with_name("joined"),
        );
    });
}

#[test]
fn a_source_topic_in_the_place_of_a_changelog_is_declared_and_a_global_one_is_not() {
    let all = config().set("topology.optimization", "all").unwrap();
    check_with("table-reused", &all, |p| drop(joined(p.stream("left"), &p.table("right", "right"))));
    check("global", |p| {
        let left = p.stream("left");
        let table = p.0.global_table("right", Consumed::with(Utf8, Utf8), Materialized::named("g"));
        let joined = left.join_global(&table, |_, value| value.clone(), |left, _| left, Joined::with(Utf8, Utf8));
        joined.to("out", Produced::with(Utf8, Utf8));
    });
}
