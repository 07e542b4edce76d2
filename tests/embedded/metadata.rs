//! Who has what, and where it can be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kstreams::{Config, EmbeddedCluster, ErrorKind, KafkaStreams, State, TimeWindowedSerde, Utf8, Window, Windowed};

use crate::application::{PARTITIONS, cluster, config, start, wait_for, wait_until, write};

const STORE: &str = "word-counts";

fn at(cluster: &EmbeddedCluster, address: &str) -> Config {
    config(cluster).stores_in_memory(true).application_server(address)
}

/// The addresses of the partitions of the repartition topic, which are those of the store.
fn owners(streams: &KafkaStreams) -> BTreeMap<i32, String> {
    let mut owners = BTreeMap::new();
    for instance in streams.all_metadata() {
        for input in instance.topic_partitions.iter().filter(|input| input.topic.ends_with("-repartition")) {
            owners.insert(input.partition, instance.host.to_string());
        }
    }
    owners
}

fn standbys(streams: &KafkaStreams) -> BTreeMap<i32, String> {
    let mut standbys = BTreeMap::new();
    for instance in streams.all_metadata() {
        for input in instance.standby_topic_partitions {
            standbys.insert(input.partition, instance.host.to_string());
        }
    }
    standbys
}

#[test]
fn every_instance_knows_who_has_which_key() {
    let cluster = cluster();
    let first = start(at(&cluster, "one:1"));
    let second = start(at(&cluster, "two:2").threads(2));
    let both = BTreeSet::from(["one:1".to_owned(), "two:2".to_owned()]);
    wait_until("both have something, and know it of each other", || {
        let owners = owners(&first);
        owners.len() == PARTITIONS as usize
            && owners == self::owners(&second)
            && owners.into_values().collect::<BTreeSet<_>>() == both
    });
    wait_for(&first, State::Running);
    wait_for(&second, State::Running);

    write(&cluster, &["all the words that there are"]);
    let changelog = "word-count-word-counts-changelog";
    wait_until("all are counted", || cluster.read_committed(changelog).unwrap().len() == 6);
    let owners = owners(&first);
    for row in cluster.read_committed(changelog).unwrap() {
        let word = String::from_utf8(row.key.unwrap()).unwrap();
        for instance in [&first, &second] {
            let found = instance.metadata_for_key(STORE, &word, &Utf8).unwrap();
            assert_eq!(found.partition, Some(row.partition), "{word}");
            assert_eq!(found.active.to_string(), owners[&row.partition], "{word}");
            let chosen = instance.metadata_for_key_by(STORE, &word, |_, count| row.partition % count).unwrap();
            assert_eq!(chosen, found);
            let windowed = Windowed { key: word.clone(), window: Window { start: 60, end: 120 } };
            let serde = TimeWindowedSerde::new(Utf8, Duration::from_millis(60));
            assert_eq!(
                instance.metadata_for_key(STORE, &windowed, &serde).unwrap(),
                found,
                "a window is where its key is"
            );
        }
    }
    assert_eq!(first.all_metadata_for_store(STORE).unwrap().len(), 2);
    assert_eq!(first.all_metadata_for_store("lost").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(first.metadata_for_key("lost", &"a".to_owned(), &Utf8).unwrap_err().kind(), ErrorKind::Invalid);
    for stray in [-1, PARTITIONS] {
        let error = first.metadata_for_key_by(STORE, "a", |_, _| stray).unwrap_err();
        assert!(error.to_string().contains(&format!("partition {stray} of store {STORE}, which has 4")), "{error}");
    }

    wait_until("the threads tell of their tasks", || {
        let threads = second.metadata_for_local_threads();
        threads.len() == 2 && threads.iter().all(|thread| thread.is_running && !thread.active_tasks.is_empty())
    });
    first.close(Duration::from_secs(30)).unwrap();
    second.close(Duration::from_secs(30)).unwrap();
    assert!(second.metadata_for_local_threads().is_empty());
}

#[test]
fn an_instance_that_comes_back_with_another_address_is_found_there() {
    let cluster = cluster();
    let settings = at(&cluster, "old:1");
    let first = start(settings.clone());
    let second = start(at(&cluster, "other:2"));
    let addresses = || owners(&second).into_values().collect::<BTreeSet<_>>();
    wait_until("both have something", || addresses().len() == 2);
    // It stays a member of the group, and is back in time.
    first.close(Duration::from_secs(30)).unwrap();
    let first = start(settings.application_server("new:1"));
    wait_until("its address is known", || addresses() == BTreeSet::from(["new:1".to_owned(), "other:2".to_owned()]));
    first.close(Duration::from_secs(30)).unwrap();
    second.close(Duration::from_secs(30)).unwrap();
}

#[test]
fn standbys_are_in_another_zone_than_their_tasks() {
    let cluster = cluster();
    let in_zone = |zone: &str, number: u16| {
        let settings = at(&cluster, &format!("{zone}:{number}")).num_standby_replicas(1);
        start(settings.client_tag("zone", zone).rack_aware_assignment_tags(["zone"]))
    };
    let instances = [in_zone("a", 1), in_zone("a", 2), in_zone("b", 3)];
    let zone = |address: &String| address.split(':').next().unwrap().to_owned();
    wait_until("every task has a standby in another zone, and all instances have some", || {
        let (owners, standbys) = (owners(&instances[0]), standbys(&instances[0]));
        let used: BTreeSet<_> = owners.values().chain(standbys.values()).cloned().collect();
        standbys.len() == PARTITIONS as usize
            && owners.len() == PARTITIONS as usize
            && used.len() == 3
            && owners.iter().all(|(partition, owner)| zone(owner) != zone(&standbys[partition]))
    });
    instances.iter().for_each(|instance| instance.close(Duration::from_secs(30)).unwrap());
}

#[test]
fn without_an_address_nobody_is_asked() {
    let streams = start(config(&cluster()));
    wait_for(&streams, State::Running);
    assert!(streams.all_metadata().is_empty());
    let error = streams.metadata_for_key(STORE, &"a".to_owned(), &Utf8).unwrap_err();
    assert!(error.to_string().contains("application_server"), "{error}");
    streams.close(Duration::from_secs(30)).unwrap();
}
