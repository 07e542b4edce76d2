//! Operators that keep nothing.

use std::sync::{Arc, Mutex};

use crate::*;

#[test]
fn each_stateless_operator_does_what_its_name_says() {
    let builder = StreamsBuilder::new();
    let stream = || builder.stream("in", text());
    stream().filter(|_, v| v.len() > 1).to("filter", to_text());
    stream().filter_not(|_, v| v.len() > 1).to("filter-not", to_text());
    stream().map(|k, v| (v, k)).to("map", to_text());
    stream().map_values(|v| v.to_uppercase()).to("map-values", to_text());
    stream().map_values_with_key(|k, v| format!("{k}{v}")).to("map-values-with-key", to_text());
    stream().flat_map(|k, v| [(v.clone(), k), (v.clone(), v)]).to("flat-map", to_text());
    stream().flat_map_values(|v| vec![v; 2]).to("flat-map-values", to_text());
    stream().flat_map_values_with_key(|k, v| [k.clone(), v]).to("flat-map-values-with-key", to_text());
    stream().select_key(|_, v| v.len() as i64).to("select-key", Produced::with(I64, Utf8));
    let mut driver = Driver::new(builder);
    assert_eq!(
        driver.pipe("in", "k", "ab", 5),
        [
            "filter k ab @5",
            "map ab k @5",
            "map-values k AB @5",
            "map-values-with-key k kab @5",
            "flat-map ab k @5",
            "flat-map ab ab @5",
            "flat-map-values k ab @5",
            "flat-map-values k ab @5",
            "flat-map-values-with-key k k @5",
            "flat-map-values-with-key k ab @5",
            "select-key 2 ab @5",
        ]
    );
    assert_eq!(driver.pipe("in", "k", "b", 6).first().unwrap(), "filter-not k b @6");
}

#[test]
fn peek_passes_on_what_for_each_ends() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &'static str| {
        let seen = Arc::clone(&seen);
        move |k: &String, v: &String| seen.lock().unwrap().push(format!("{name} {k} {v}"))
    };
    let builder = StreamsBuilder::new();
    let stream = builder.stream("in", text()).peek(note("peek"));
    stream.clone().for_each(note("end"));
    stream.to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "k", "v", 1), ["out k v @1"]);
    assert_eq!(*seen.lock().unwrap(), ["peek k v", "end k v"]);
}

#[test]
fn print_writes_a_line_for_each_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("printed");
    let builder = StreamsBuilder::new();
    let stream = builder.stream("in", text());
    stream.clone().print(Printed::to_file(&path).with_label("words"));
    stream.print(Printed::to_file(dir.path().join("mapped")).with_mapper(|k, v| format!("{k}={v}")));
    let mut driver = Driver::new(builder);
    driver.pipe("in", "k", "v", 1);
    driver.pipe("in", "k", "w", 2);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "[words]: k, v\n[words]: k, w\n");
    let mapped = std::fs::read_to_string(dir.path().join("mapped")).unwrap();
    assert_eq!(mapped, "[KSTREAM-SOURCE-0000000000]: k=v\n[KSTREAM-SOURCE-0000000000]: k=w\n");
}

#[test]
fn repartition_drops_null_keys_and_counts_none() {
    let nullable = || Nullable(Utf8);
    let builder = StreamsBuilder::new();
    builder
        .stream("in", Consumed::with(nullable(), Utf8))
        .repartition(Repartitioned::with(nullable(), Utf8).named("rep").with_partitioner(|_, _, _, _| Some(vec![0])))
        .to("out", Produced::with(nullable(), Utf8));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "k", "v", 3), ["out k v @3"]);
    assert!(driver.pipe_raw("in", None, Some(b"v"), 4).unwrap().is_empty());
    assert_eq!(driver.inner.dropped_records(), 0);
    let through: Vec<_> = driver.inner.produced().iter().map(|r| (&*r.topic, r.partition)).collect();
    assert_eq!(through, [("app-rep-repartition", Some(0)), ("out", None)]);
}

#[test]
fn headers_stay_with_a_record_through_every_operator() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", text())
        .flat_map(|k, v| [(k, v)])
        .filter(|_, _| true)
        .group_by(|_, v| v.clone(), grouped())
        .count(Materialized::default())
        .to_stream()
        .to("out", Produced::with(Utf8, I64));
    let mut driver = Driver::new(builder);
    let mut headers = Headers::new();
    headers.add("h", "1");
    driver.inner.pipe_raw("in", Some(b"k"), Some(b"v"), 1, headers.clone()).unwrap();
    let out = driver.inner.produced().iter().find(|record| &*record.topic == "out").unwrap();
    assert_eq!(out.headers, headers);
}
