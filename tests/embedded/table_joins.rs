//! Joins of tables over partitions and instances.

use std::collections::BTreeMap;
use std::time::Duration;

use kstreams::{
    Consumed, EmbeddedCluster, KafkaStreams, Materialized, Produced, State, StreamsBuilder, TableJoined, Topology, Utf8,
};

use crate::application::{config, wait_for, wait_until};

const ORDERS: i32 = 3;
const CUSTOMERS: i32 = 5;

/// Orders name their customer; the topics have different numbers of partitions.
fn orders_with_customers() -> Topology {
    let builder = StreamsBuilder::new();
    let orders = builder.table("orders", Consumed::with(Utf8, Utf8), Materialized::named("orders"));
    let customers = builder.table("customers", Consumed::with(Utf8, Utf8), Materialized::named("customers"));
    let rows = Materialized::named("joined").with_value_serde(Utf8);
    let joined = orders.left_join_foreign_key_materialized(
        &customers,
        |_order, customer| customer.clone(),
        |customer, city: Option<String>| format!("{customer} in {}", city.unwrap_or_default()),
        TableJoined::named("customer"),
        rows,
    );
    joined.to_stream().to("joined-out", Produced::with(Utf8, Utf8));
    builder.build().unwrap()
}

fn write(cluster: &EmbeddedCluster, topic: &str, rows: impl IntoIterator<Item = (String, Option<String>)>, at: i64) {
    for (key, row) in rows {
        cluster.produce(topic, Some(key.as_bytes()), row.as_deref().map(str::as_bytes), Some(at)).unwrap();
    }
}

fn last_rows(cluster: &EmbeddedCluster) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for record in cluster.read_committed("joined-out").unwrap() {
        let key = String::from_utf8(record.key.unwrap()).unwrap();
        match record.value {
            Some(row) => rows.insert(key, String::from_utf8(row).unwrap()),
            None => rows.remove(&key),
        };
    }
    rows
}

fn start(cluster: &EmbeddedCluster) -> KafkaStreams {
    let streams = KafkaStreams::new(orders_with_customers(), config(cluster)).unwrap();
    streams.start().unwrap();
    streams
}

#[test]
fn rows_find_each_other_across_partitions_and_after_a_takeover() {
    let cluster = EmbeddedCluster::new();
    for (topic, partitions) in [("orders", ORDERS), ("customers", CUSTOMERS), ("joined-out", ORDERS)] {
        cluster.create_topic(topic, partitions).unwrap();
    }
    let order = |number: usize, customers: usize| (format!("o{number}"), Some(format!("c{}", number % customers)));
    let expected = |customers: usize, city: &str| -> BTreeMap<String, String> {
        let row = |number: usize| format!("c{} in {city}{}", number % customers, number % customers);
        (0..40).map(|number| (format!("o{number}"), row(number))).collect()
    };
    let cities = |city: &'static str| (0..10).map(move |n| (format!("c{n}"), Some(format!("{city}{n}"))));

    write(&cluster, "customers", cities("oslo"), 1);
    write(&cluster, "orders", (0..40).map(|number| order(number, 10)), 2);
    let first = start(&cluster);
    wait_until("all orders are joined", || last_rows(&cluster) == expected(10, "oslo"));
    let second = start(&cluster);
    wait_for(&second, State::Running);
    wait_for(&first, State::Running);
    write(&cluster, "customers", cities("rome"), 3);
    wait_until("all have moved", || last_rows(&cluster) == expected(10, "rome"));
    first.close(Duration::from_secs(30)).unwrap();
    write(&cluster, "orders", (0..40).map(|number| order(number, 3)), 4);
    wait_until("the orders have other customers", || last_rows(&cluster) == expected(3, "rome"));
    write(&cluster, "orders", (0..40).map(|number| (format!("o{number}"), None)), 5);
    wait_until("the orders are gone", || last_rows(&cluster).is_empty());
    second.close(Duration::from_secs(30)).unwrap();
}
