//! Processors of the user's between operators of the DSL.

use crate::*;

/// Puts the count of its key behind each value.
struct Number(KeyValueStore<String, i64>);

impl FixedKeyProcessor<String, String> for Number {
    type ValueOut = String;

    fn process(
        &mut self,
        record: FixedKeyRecord<String, String>,
        ctx: &mut FixedKeyContext<'_, '_, String, String>,
    ) -> Result<()> {
        let seen = self.0.get(ctx, record.key())?.unwrap_or(0) + 1;
        self.0.put(ctx, record.key(), &seen)?;
        ctx.forward(record.clone().map_value(|_, value| format!("{value}#{seen}")))?;
        if record.value == "twice" { ctx.forward(record.with_timestamp(99)) } else { Ok(()) }
    }
}

#[test]
fn a_fixed_key_processor_needs_no_repartition_behind_it() {
    let seen = Stores::in_memory_key_value("seen", Utf8, I64);
    let processed = Processed::default().with_store(&seen);
    let builder = StreamsBuilder::new();
    builder
        .stream("in", text())
        .process_values(move |init| Ok(Number(init.store(&seen)?)), processed)
        .group_by_key(grouped())
        .reduce(|_, last| last, Materialized::default())
        .to_stream()
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "k", "a", 1), ["out k a#1 @1"]);
    assert_eq!(driver.pipe("in", "k", "twice", 2), ["out k twice#2 @2", "out k twice @99"]);
    assert!(driver.inner.produced_topics().all(|topic| !topic.ends_with("repartition")));
}

/// Keeps the last record of its key with its headers; a record without a header deletes.
struct Last(TimestampedKeyValueStoreWithHeaders<String, String>);

impl Processor<String, String> for Last {
    type KeyOut = String;
    type ValueOut = String;

    fn process(
        &mut self,
        record: Record<String, String>,
        ctx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        if value == "delete" {
            return self.0.delete(ctx, &key).map(|_| ());
        }
        self.0.put(ctx, &key, &ValueTimestampHeaders { value, timestamp, headers })
    }
}

#[test]
fn a_store_with_headers_logs_them_as_those_of_its_records() {
    for cache_bytes in [0, 1_000_000] {
        let rows = Stores::timestamped_key_value_with_headers("rows", Utf8, Utf8).with_caching();
        let builder = StreamsBuilder::new();
        builder.add_state_store(&rows);
        let store = rows.clone();
        let processed = Processed::stores(["rows"]);
        builder.stream("in", text()).process(move |init| Ok(Last(init.store(&store)?)), processed).to("out", to_text());
        let mut driver = Driver::with_cache(builder, cache_bytes);
        for (value, time) in [("v", 1), ("delete", 2)] {
            let mut headers = Headers::new();
            headers.add("h", value);
            driver.inner.pipe_raw("in", Some(b"k"), Some(value.as_bytes()), time, headers).unwrap();
        }
        let logged = driver.inner.produced().iter().map(|record| {
            assert_eq!(&*record.topic, "app-rows-changelog");
            (record.value.clone(), record.timestamp, record.headers.last("h").flatten().map(<[u8]>::to_vec))
        });
        let expected = [(Some(b"v".to_vec()), 1, Some(b"v".to_vec())), (None, 2, Some(b"delete".to_vec()))];
        assert_eq!(logged.collect::<Vec<_>>(), expected, "cache: {cache_bytes}");
        assert_eq!(driver.inner.store(&rows).unwrap().get(&mut driver.inner, &"k".to_owned()).unwrap(), None);
    }
}

#[test]
fn a_processor_gets_a_store_only_if_it_is_connected() {
    let seen = Stores::key_value("seen", Utf8, I64);
    let builder = StreamsBuilder::new();
    builder.add_state_store(&seen);
    let stream = builder.stream("in", text());
    let connected = seen.clone();
    stream
        .clone()
        .process_values(move |init| Ok(Number(init.store(&connected)?)), Processed::stores(["seen"]))
        .for_each(|_, _| {});
    stream.process_values(move |init| Ok(Number(init.store(&seen)?)), Processed::default()).for_each(|_, _| {});
    let error = TopologyTestDriver::new(&builder.build().unwrap()).unwrap_err();
    assert!(error.to_string().contains("no access to store seen: connect it"), "{error}");
}
