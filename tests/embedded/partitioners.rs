//! Stores whose keys are spread in a way of one's own: they are found where they are.

use std::collections::BTreeSet;
use std::time::Duration;

use kstreams::{
    Consumed, EmbeddedCluster, Grouped, I64, KafkaStreams, Materialized, QueryClient, QueryServer, Repartitioned,
    ServedStore, StreamsBuilder, TimeWindowedSerde, TimeWindows, Topology, Utf8, Window, Windowed,
};

use crate::application::{PARTITIONS, PATIENCE, cluster, wait_until, write};
use crate::http_site::{Site, runtime, settings, wait_until_settled};

const MINUTE: Duration = Duration::from_secs(60);

/// By the length of the word; Kafka's clients would take its hash.
fn by_length(word: &str, partitions: i32) -> i32 {
    i32::try_from(word.len()).unwrap() % partitions
}

fn topology() -> Topology {
    let builder = StreamsBuilder::new();
    let spread = Repartitioned::with(Utf8, Utf8)
        .named("by-length")
        .with_partitioner(|_, word: &String, _, partitions| Some(vec![by_length(word, partitions)]));
    let words = builder
        .stream("lines", Consumed::with(Utf8, Utf8))
        .flat_map_values(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .select_key(|_, word| word.clone())
        .repartition(spread)
        .group_by_key(Grouped::with(Utf8, Utf8));
    words
        .clone()
        .count(Materialized::named("counts").with_partitioner(|word: &String, partitions| by_length(word, partitions)));
    let minutes = words.windowed_by(TimeWindows::of_size_with_no_grace(MINUTE));
    minutes.count(
        Materialized::named("per-minute").with_partitioner(|word: &String, partitions| by_length(word, partitions)),
    );
    builder.build().unwrap()
}

fn serve(streams: &KafkaStreams) -> QueryServer {
    QueryServer::new(streams)
        .with_store(ServedStore::new("counts", Utf8, I64))
        .and_then(|server| server.with_store(ServedStore::new("per-minute", Utf8, I64)))
        .unwrap()
}

#[test]
fn a_key_is_found_where_the_partitioner_of_its_store_says() {
    let (runtime, cluster): (_, EmbeddedCluster) = (runtime(), cluster());
    let sites = [(); 2].map(|()| Site::start_of(&runtime, topology(), settings(&cluster), serve));
    wait_until_settled(&[&sites[0], &sites[1]]);
    write(&cluster, &["a bb ccc dddd eeeee a bb ccc dddd a bb ccc a bb a"]);
    let words = ["a", "bb", "ccc", "dddd", "eeeee"].map(str::to_owned);
    let mut owners = BTreeSet::new();
    for site in &sites {
        let streams = site.streams();
        let client = QueryClient::new([&site.address]).unwrap().with_timeout(PATIENCE);
        for word in &words {
            let partition = Some(by_length(word, PARTITIONS));
            let found = streams.metadata_for_key("counts", word, &Utf8).unwrap();
            assert_eq!(found.partition, partition, "{word}");
            assert_eq!(streams.metadata_for_key("per-minute", word, &Utf8).unwrap(), found, "{word}");
            let windowed = Windowed { key: word.clone(), window: Window { start: 0, end: 60_000 } };
            let serde = TimeWindowedSerde::new(Utf8, MINUTE);
            assert_eq!(streams.metadata_for_key("per-minute", &windowed, &serde).unwrap(), found, "{word}");
            assert_eq!(streams.metadata_for_key_by("counts", word.as_str(), by_length).unwrap(), found);
            owners.insert(found.active.to_string());

            let said = site.get(&format!("/v1/metadata/counts/keys/{word}")).json();
            assert_eq!(said["partition"].as_i64(), partition.map(i64::from), "{said}");
            let expected = Some(6 - word.len() as i64);
            wait_until("the word is counted, and any instance says so", || {
                let row = runtime.block_on(client.store("counts", Utf8, I64).get(word)).unwrap();
                row.value == expected
            });
            let rows = client.store("per-minute", Utf8, I64).windows(word, 0, i64::MAX).unwrap();
            let rows = runtime.block_on(rows.collect()).unwrap();
            assert_eq!(rows, [(0, 6 - word.len() as i64)]);
        }
    }
    assert_eq!(owners.len(), 2, "nothing is forwarded otherwise");
}
