//! Copies of stores on disk that other instances keep, and take over from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kstreams::{
    CloseOptions, Config, Consumed, GroupProtocol, KafkaStreams, Materialized, Optimization, Produced, RestoreEvent,
    StreamsBuilder, Topology, Utf8,
};

use crate::cluster::TestKafka;
use crate::word_count::{Application, wait_until, word_count};

/// Where restorations began, by partition.
type Begun = Arc<Mutex<BTreeMap<i32, i64>>>;

fn settings(app: &Application, number: usize) -> Config {
    app.config()
        .group_protocol(GroupProtocol::Sticky)
        .state_dir(app.folder.path().join(number.to_string()))
        .session_timeout(Duration::from_secs(6))
        .num_standby_replicas(1)
        .acceptable_recovery_lag(0)
}

fn start(topology: Topology, config: Config) -> (KafkaStreams, Begun) {
    let begun = Begun::default();
    let heard = Arc::clone(&begun);
    let streams = KafkaStreams::new(topology, config).unwrap().on_restore(move |event| {
        if let RestoreEvent::Started { partition, from, .. } = event {
            heard.lock().unwrap().insert(*partition, *from);
        }
    });
    streams.start().unwrap();
    (streams, begun)
}

/// The positions of copies that lack nothing, and have something.
fn copies(streams: &KafkaStreams) -> BTreeMap<i32, i64> {
    let lags = streams.lags();
    let caught_up = lags.iter().filter(|store| store.lag() == 0 && store.position > 0);
    caught_up.map(|store| (store.partition, store.position)).collect()
}

/// Crashes the first instance; the second goes on with the copies that it has.
fn take_over(first: KafkaStreams, second: &KafkaStreams, begun: &Begun) {
    begun.lock().unwrap().clear();
    let copies = copies(second);
    first.crash();
    wait_until("the second has taken over", || {
        let begun = begun.lock().unwrap();
        copies.keys().all(|partition| begun.contains_key(partition))
    });
    for (partition, position) in copies {
        let from = begun.lock().unwrap()[&partition];
        assert!(from >= position, "partition {partition} went on from {from}, its copy was at {position}");
    }
}

#[test]
fn a_copy_on_disk_goes_on_where_it_is_when_its_owner_dies() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "copied");
    let [one, other] = [0, 1].map(|number| settings(&app, number));
    goes_on_where_its_copy_is(&mut app, one, other);
}

#[test]
fn the_copies_of_a_streams_group_are_the_brokers_decision_and_go_on_as_well() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "streams-copied");
    kafka.configure_group(
        &app.name,
        "streams.num.standby.replicas=1,streams.heartbeat.interval.ms=500,streams.session.timeout.ms=2000",
    );
    let [one, other] = [0, 1].map(|number| settings(&app, number).group_protocol(GroupProtocol::Streams));
    goes_on_where_its_copy_is(&mut app, one, other);
}

fn goes_on_where_its_copy_is(app: &mut Application, one: Config, other: Config) {
    let (first, _) = start(word_count(&app.name), one);
    app.write(200);
    app.wait_until_counted(Some(&first));
    let (second, begun) = start(word_count(&app.name), other);
    wait_until("each has copies of what the other does", || !copies(&first).is_empty() && !copies(&second).is_empty());
    app.write(200);
    app.wait_until_counted(None);
    wait_until("the second has copies again", || !copies(&second).is_empty());
    take_over(first, &second, &begun);
    app.write(200);
    app.wait_until_counted(Some(&second));
    second.close(CloseOptions::default().leave_group()).unwrap();
    app.assert_exact();
}

#[test]
fn a_copy_of_a_table_that_reads_its_source_topic_goes_on_where_it_is() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "source-copied");
    let topology = |config: &Config| {
        let builder = StreamsBuilder::new();
        let lines = builder.table(&format!("{}-lines", app.name), Consumed::with(Utf8, Utf8), Materialized::named("t"));
        lines.to_stream().to(format!("{}-counts", app.name).as_str(), Produced::with(Utf8, Utf8));
        builder.build_with(config).unwrap()
    };
    let [one, other] = [0, 1].map(|number| settings(&app, number).optimization(Optimization::all()));
    let (first, _) = start(topology(&one), one);
    let (second, begun) = start(topology(&other), other);
    app.write(200);
    wait_until("each has copies of what the other does", || !copies(&first).is_empty() && !copies(&second).is_empty());
    take_over(first, &second, &begun);
    second.close(CloseOptions::default().leave_group()).unwrap();
}
