//! Global tables, and tables that are restored from their own topics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kstreams::{
    Config, Consumed, EmbeddedCluster, Joined, KafkaStreams, Materialized, Optimization, Processed, Processor,
    ProcessorContext, Produced, Record, RestoreEvent, Result, State, Stores, StreamsBuilder, Topology, Utf8,
    WindowStore,
};

use crate::application::{PATIENCE, wait_for, wait_until};

fn cluster() -> EmbeddedCluster {
    let cluster = EmbeddedCluster::new();
    for (topic, partitions) in [("orders", 4), ("customers", 3), ("enriched", 2)] {
        cluster.create_topic(topic, partitions).unwrap();
    }
    cluster
}

fn config(name: &str, cluster: &EmbeddedCluster, folder: &std::path::Path) -> Config {
    Config::new(name, "embedded://")
        .cluster(cluster)
        .commit_interval(Duration::from_millis(20))
        .cache_bytes(0)
        .state_dir(folder)
}

/// Orders, whose values are names of customers, with the customers' towns.
fn enrich() -> Topology {
    let builder = StreamsBuilder::new();
    let customers = builder.global_table("customers", Consumed::with(Utf8, Utf8), Materialized::named("customers"));
    builder
        .stream("orders", Consumed::with(Utf8, Utf8))
        .left_join_global(
            &customers,
            |_order, customer| customer.clone(),
            |customer, town| format!("{customer} of {}", town.as_deref().unwrap_or("nowhere")),
            Joined::with(Utf8, Utf8),
        )
        .to("enriched", Produced::with(Utf8, Utf8));
    builder.build().unwrap()
}

fn write(cluster: &EmbeddedCluster, topic: &str, rows: &[(&str, Option<&str>)]) {
    for (key, value) in rows {
        cluster.produce(topic, Some(key.as_bytes()), value.map(str::as_bytes), Some(1_000)).unwrap();
    }
}

fn read(cluster: &EmbeddedCluster, topic: &str) -> BTreeMap<String, String> {
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).unwrap();
    let records = cluster.read_committed(topic).unwrap().into_iter();
    records.map(|record| (text(record.key), text(record.value))).collect()
}

fn expected(rows: &[(&str, &str)]) -> BTreeMap<String, String> {
    rows.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

type Events = Arc<Mutex<Vec<RestoreEvent>>>;

fn start(topology: Topology, config: Config) -> (KafkaStreams, Events) {
    let events = Events::default();
    let heard = Arc::clone(&events);
    let streams = KafkaStreams::new(topology, config).unwrap();
    let streams = streams.on_restore(move |event| heard.lock().unwrap().push(event.clone()));
    streams.start().unwrap();
    (streams, events)
}

/// Records that were read to restore a store.
fn restored(events: &Events, name: &str) -> u64 {
    let events = events.lock().unwrap();
    let ended = events.iter().filter_map(|event| {
        let RestoreEvent::Ended { store, records, .. } = event else { return None };
        (**store == *name).then_some(*records)
    });
    ended.sum()
}

#[test]
fn every_thread_of_every_instance_sees_the_whole_global_table() {
    let (cluster, folder) = (cluster(), tempfile::tempdir().unwrap());
    write(&cluster, "customers", &[("ada", Some("london")), ("bob", Some("rome")), ("eve", Some("oslo"))]);
    let of = |instance: &str| config("enrich", &cluster, &folder.path().join(instance)).threads(2);
    let (one, _) = start(enrich(), of("one"));
    let (two, _) = start(enrich(), of("two"));
    wait_for(&one, State::Running);
    wait_for(&two, State::Running);
    let orders: Vec<String> = (0..40).map(|n| format!("order-{n}")).collect();
    let customers = ["ada", "bob", "eve", "zoe"];
    for (order, customer) in orders.iter().zip(customers.iter().cycle()) {
        write(&cluster, "orders", &[(order, Some(customer))]);
    }
    wait_until("all orders are enriched", || read(&cluster, "enriched").len() == 40);
    let towns = ["ada of london", "bob of rome", "eve of oslo", "zoe of nowhere"];
    let expected: BTreeMap<_, _> =
        orders.iter().zip(towns.iter().cycle()).map(|(order, town)| (order.clone(), (*town).to_owned())).collect();
    assert_eq!(read(&cluster, "enriched"), expected);

    write(&cluster, "customers", &[("zoe", Some("paris")), ("ada", None)]);
    wait_until("both have the change", || {
        let more: Vec<String> = (100..108).map(|n| format!("order-{n}")).collect();
        more.iter().for_each(|order| write(&cluster, "orders", &[(order, Some("zoe"))]));
        more.iter().all(|order| read(&cluster, "enriched").get(order).is_some_and(|text| text == "zoe of paris"))
    });
    one.close(PATIENCE).unwrap();
    two.close(PATIENCE).unwrap();
}

#[test]
fn a_restart_goes_on_where_the_global_table_was() {
    let (cluster, folder) = (cluster(), tempfile::tempdir().unwrap());
    write(&cluster, "customers", &[("ada", Some("london")), ("bob", Some("rome")), ("eve", Some("oslo"))]);
    let (first, events) = start(enrich(), config("restart", &cluster, folder.path()));
    wait_for(&first, State::Running);
    assert_eq!(restored(&events, "customers"), 3);
    first.close(PATIENCE).unwrap();

    write(&cluster, "customers", &[("bob", Some("bonn"))]);
    write(&cluster, "orders", &[("1", Some("ada")), ("2", Some("bob"))]);
    let (second, events) = start(enrich(), config("restart", &cluster, folder.path()));
    wait_until("both orders are enriched", || read(&cluster, "enriched").len() == 2);
    assert_eq!(read(&cluster, "enriched"), expected(&[("1", "ada of london"), ("2", "bob of bonn")]));
    // Without RocksDB the rows live in memory, and are read anew.
    assert_eq!(restored(&events, "customers"), if cfg!(feature = "rocksdb") { 1 } else { 4 });
    second.close(PATIENCE).unwrap();

    // Another topic of the same name: what is stored belongs to nobody.
    cluster.delete_topic("customers").unwrap();
    cluster.create_topic("customers", 3).unwrap();
    write(&cluster, "customers", &[("bob", Some("bern"))]);
    write(&cluster, "orders", &[("3", Some("ada")), ("4", Some("bob"))]);
    let (third, _) = start(enrich(), config("restart", &cluster, folder.path()));
    wait_until("all orders are enriched", || read(&cluster, "enriched").len() == 4);
    let all = [("1", "ada of london"), ("2", "bob of bonn"), ("3", "ada of nowhere"), ("4", "bob of bern")];
    assert_eq!(read(&cluster, "enriched"), expected(&all));
    third.close(PATIENCE).unwrap();
}

#[test]
fn a_global_record_that_cannot_be_read_ends_the_client_or_is_skipped() {
    let (cluster, folder) = (cluster(), tempfile::tempdir().unwrap());
    cluster.produce("customers", Some(b"ada"), Some(b"\xff\xfe"), Some(1)).unwrap();
    write(&cluster, "customers", &[("bob", Some("rome"))]);
    write(&cluster, "orders", &[("1", Some("ada")), ("2", Some("bob"))]);
    let (failing, _) = start(enrich(), config("bad", &cluster, folder.path()));
    wait_for(&failing, State::Error);
    let error = failing.take_error().unwrap().report();
    assert!(error.contains("customers") && error.contains("deserialization_handler"), "{error}");
    drop(failing);

    let lenient =
        config("bad", &cluster, folder.path()).deserialization_handler(kstreams::ErrorHandler::log_and_continue());
    let (running, _) = start(enrich(), lenient);
    wait_until("both orders are enriched", || read(&cluster, "enriched").len() == 2);
    assert_eq!(read(&cluster, "enriched"), expected(&[("1", "ada of nowhere"), ("2", "bob of rome")]));
    running.close(PATIENCE).unwrap();
}

#[test]
fn a_client_can_be_closed_while_its_global_stores_are_read() {
    let (cluster, folder) = (cluster(), tempfile::tempdir().unwrap());
    let (streams, _) = start(enrich(), config("closing", &cluster, folder.path()));
    streams.close(PATIENCE).unwrap();
    assert_eq!(streams.state(), State::NotRunning);
}

/// Keeps towns by customer in a table without a changelog, and joins orders, whose keys are customers.
fn enrich_from_source_table(config: &Config) -> Topology {
    let builder = StreamsBuilder::with_config(config);
    let customers = builder.table("towns", Consumed::with(Utf8, Utf8), Materialized::named("towns"));
    builder
        .stream("visits", Consumed::with(Utf8, Utf8))
        .left_join(
            &customers,
            |visit, town| format!("{visit} from {}", town.as_deref().unwrap_or("nowhere")),
            Joined::with(Utf8, Utf8),
        )
        .to("enriched", Produced::with(Utf8, Utf8));
    builder.build().unwrap()
}

#[test]
fn a_table_that_reuses_its_topic_is_restored_from_it_up_to_what_was_committed() {
    assert_eq!(reuse_source_topic(|config| config.stores_in_memory(true)), 5);
}

#[test]
fn a_table_that_reuses_its_topic_goes_on_from_what_is_on_disk() {
    assert_eq!(reuse_source_topic(|config| config), if cfg!(feature = "rocksdb") { 0 } else { 5 });
}

/// How many records were read to restore the table.
fn reuse_source_topic(change: impl Fn(Config) -> Config) -> u64 {
    let cluster = EmbeddedCluster::new();
    for topic in ["towns", "visits", "enriched"] {
        cluster.create_topic(topic, 2).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let config = change(config("reuse", &cluster, folder.path()))
        .optimization(Optimization::all())
        .deserialization_handler(kstreams::ErrorHandler::log_and_continue());
    write(&cluster, "towns", &[("ada", Some("london")), ("bob", Some("rome")), ("eve", Some("oslo")), ("bob", None)]);
    // Skipped when it is read, and so when the table is restored.
    cluster.produce("towns", Some(b"ada"), Some(b"\xff"), Some(1_000)).unwrap();
    let (first, _) = start(enrich_from_source_table(&config), config.clone());
    write(&cluster, "visits", &[("ada", Some("first")), ("bob", Some("first"))]);
    let all = [("ada", "first from london"), ("bob", "first from nowhere")];
    wait_until("the table is used", || read(&cluster, "enriched") == expected(&all));
    first.close(PATIENCE).unwrap();

    write(&cluster, "towns", &[("bob", Some("bonn"))]);
    let (second, events) = start(enrich_from_source_table(&config), config.clone());
    wait_for(&second, State::Running);
    write(&cluster, "visits", &[("ada", Some("second")), ("bob", Some("second")), ("eve", Some("second"))]);
    let all = [("ada", "second from london"), ("bob", "second from bonn"), ("eve", "second from oslo")];
    wait_until("the table is restored", || read(&cluster, "enriched") == expected(&all));
    second.close(PATIENCE).unwrap();
    let internal = "reuse-towns-changelog";
    assert!(cluster.read_committed(internal).is_err(), "{internal} was made");
    // The last record was not committed yet: it was processed, not restored.
    restored(&events, "towns")
}

#[test]
fn an_application_of_nothing_but_global_stores_runs() {
    let (cluster, folder) = (cluster(), tempfile::tempdir().unwrap());
    write(&cluster, "customers", &[("ada", Some("london"))]);
    let builder = StreamsBuilder::new();
    builder.global_table("customers", Consumed::with(Utf8, Utf8), Materialized::named("customers"));
    let (streams, events) = start(builder.build().unwrap(), config("only", &cluster, folder.path()));
    wait_for(&streams, State::Running);
    assert_eq!(restored(&events, "customers"), 1);
    streams.close(PATIENCE).unwrap();
}

/// Keeps every value of a key, or tells how many there are.
struct Values(WindowStore<String, String>);

impl Processor<String, String> for Values {
    type KeyOut = String;
    type ValueOut = String;

    fn process(
        &mut self,
        record: Record<String, String>,
        ctx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<()> {
        if record.value != "count" {
            return self.0.put(ctx, &record.key, &record.value, 1);
        }
        let values = self.0.fetch_range(&record.key, 0, 9)?.collect(ctx)?.len();
        ctx.forward(record.with_value(values.to_string()))
    }
}

#[test]
fn a_global_store_of_duplicates_loses_none_over_a_restart() {
    let (cluster, folder) = (cluster(), tempfile::tempdir().unwrap());
    let topology = || {
        let builder = StreamsBuilder::new();
        let day = Duration::from_secs(86_400);
        let values = Stores::window("values", day, Duration::from_secs(1), true, Utf8, Utf8);
        let (fill, read) = (values.clone(), values.clone());
        let consumed = || Consumed::with(Utf8, Utf8);
        builder.add_global_store(&values, "customers", consumed(), move |init| Ok(Values(init.store(&fill)?)));
        let counted = builder
            .stream("orders", consumed())
            .process(move |init| Ok(Values(init.store(&read)?)), Processed::default());
        counted.to("enriched", Produced::with(Utf8, Utf8));
        builder.build().unwrap()
    };
    for (round, value) in ["x", "y"].into_iter().enumerate() {
        write(&cluster, "customers", &[("ada", Some(value)), ("ada", Some(value))]);
        let (streams, _) = start(topology(), config("values", &cluster, folder.path()));
        wait_for(&streams, State::Running);
        write(&cluster, "orders", &[("ada", Some("count"))]);
        wait_until("they are counted", || cluster.read_committed("enriched").unwrap().len() > round);
        streams.close(PATIENCE).unwrap();
        assert_eq!(read(&cluster, "enriched"), expected(&[("ada", ["2", "4"][round])]));
    }
}
