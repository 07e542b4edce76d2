//! Instances in a streams group (KIP-1071): the broker decides who has which task, and makes the internal topics.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use kstreams::{
    CloseOptions, Config, Consumed, ErrorKind, GroupProtocol, Grouped, KafkaStreams, Materialized, State,
    StreamsBuilder, Topology, UncaughtErrorResponse, Utf8,
};

use crate::cluster::TestKafka;
use crate::word_count::{Application, wait_until, word_count, word_count_that};

/// What an instance has told of its state.
type Told = Arc<Mutex<Vec<State>>>;

/// Members hear of it with the next answer.
const SHORT_SESSIONS: &str = "streams.heartbeat.interval.ms=500,streams.session.timeout.ms=2000";

fn in_streams_group(app: &Application, number: usize) -> Config {
    app.config().group_protocol(GroupProtocol::Streams).state_dir(app.folder.path().join(number.to_string()))
}

fn start(app: &Application, number: usize) -> (KafkaStreams, Told) {
    start_with(app, in_streams_group(app, number))
}

fn start_with(app: &Application, config: Config) -> (KafkaStreams, Told) {
    start_topology(word_count(&app.name), config)
}

fn start_topology(topology: Topology, config: Config) -> (KafkaStreams, Told) {
    let told = Told::default();
    let sink = Arc::clone(&told);
    let streams = KafkaStreams::new(topology, config).unwrap();
    let streams = streams.on_uncaught_error(|_| UncaughtErrorResponse::ShutdownApplication);
    let streams = streams.on_state_change(move |state, _| sink.lock().unwrap().push(state));
    streams.start().unwrap();
    wait_until("it runs", || streams.state() == State::Running);
    (streams, told)
}

fn wait_until_it_works(app: &mut Application, streams: &KafkaStreams) {
    let before = streams.processed_total();
    wait_until("it works", || {
        app.write(4);
        streams.processed_total() > before
    });
}

#[test]
fn three_instances_share_the_tasks_that_the_broker_gives_them() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "streams-group");
    let mut instances: Vec<_> = (0..3).map(|number| start(&app, number).0).collect();
    for instance in &instances {
        wait_until_it_works(&mut app, instance);
    }
    let topics = kafka.topics(&["--list"]).unwrap();
    assert!(topics.lines().any(|topic| topic.starts_with(&app.name) && topic.ends_with("-changelog")), "{topics}");
    app.send(100);
    instances.remove(0).close(CloseOptions::default().leave_group()).unwrap();
    app.write(20);
    app.wait_until_counted(None);
    // One that is gone without a word, and comes back as itself.
    instances.remove(0).crash();
    instances.push(start(&app, 1).0);
    app.write(20);
    app.wait_until_counted(None);
    drop(instances);
    app.assert_exact();
}

#[test]
fn a_restart_in_place_leaves_the_tasks_of_a_streams_group_where_they_are() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "streams-in-place");
    let mut instances = vec![start(&app, 0), start(&app, 1)];
    for (instance, _) in &instances {
        wait_until_it_works(&mut app, instance);
    }
    for is_clean in [true, false] {
        instances[1].1.lock().unwrap().clear();
        let (first, _) = instances.remove(0);
        if is_clean {
            first.close(CloseOptions::default()).unwrap()
        } else {
            first.crash()
        }
        instances.insert(0, start(&app, 0));
        app.write(20);
        app.wait_until_counted(None);
        wait_until_it_works(&mut app, &instances[0].0);
        assert_eq!(*instances[1].1.lock().unwrap(), [], "closed {is_clean}");
    }
    app.wait_until_counted(None);
    drop(instances);
    app.assert_exact();
}

#[test]
fn what_a_dead_member_of_a_streams_group_has_left_open_is_in_nobodys_way() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "streams-left-open");
    kafka.configure_group(&app.name, SHORT_SESSIONS);
    // Much longer than this test waits: the first one never commits, and nothing that it has begun ends by itself.
    let long = Duration::from_secs(600);
    let config = |number| in_streams_group(&app, number).transaction_timeout(long);
    let (first, _) = start_with(&app, config(0).commit_interval(long));
    let (second, _) = start_with(&app, config(1));
    wait_until_it_works(&mut app, &first);
    first.crash();
    app.write(50);
    app.wait_until_counted(Some(&second));
    second.close(CloseOptions::default()).unwrap();
    app.assert_exact();
}

#[test]
fn an_instance_that_hangs_steps_aside_and_comes_back() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "streams-hung");
    let hung = Arc::new((Mutex::new(Hung::No), Condvar::new()));
    // Whoever has the task hangs, once.
    let instances = [0, 1].map(|number| {
        let hangs = Arc::clone(&hung);
        let topology = word_count_that(&app.name, move |_| {
            let mut state = hangs.0.lock().unwrap();
            if *state == Hung::ToBe {
                *state = Hung::Yes;
                let _state = hangs.1.wait_while(state, |state| *state == Hung::Yes).unwrap();
            }
        });
        start_topology(topology, in_streams_group(&app, number).max_poll_interval(Duration::from_secs(5))).0
    });
    *hung.0.lock().unwrap() = Hung::ToBe;
    wait_until("it hangs", || {
        app.write(4);
        *hung.0.lock().unwrap() == Hung::Yes
    });
    // By the other one alone, which takes over what the first has read and not committed.
    app.wait_until_counted(None);
    *hung.0.lock().unwrap() = Hung::No;
    hung.1.notify_all();
    instances.iter().for_each(|instance| wait_until_it_works(&mut app, instance));
    app.wait_until_counted(None);
    drop(instances);
    app.assert_exact();
}

#[derive(Debug, PartialEq, Eq)]
enum Hung {
    No,
    ToBe,
    Yes,
}

#[test]
fn one_instance_of_a_streams_group_ends_all_of_them() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "streams-end");
    // Whoever has the task is poisoned, once.
    let is_poisoned = Arc::new(AtomicBool::new(false));
    let instances = [0, 1].map(|number| {
        let is_poisoned = Arc::clone(&is_poisoned);
        let look = move |line: &str| assert!(line != "word-7 all" || is_poisoned.swap(true, Relaxed), "poisoned");
        start_topology(word_count_that(&app.name, look), in_streams_group(&app, number)).0
    });
    wait_until("both have ended", || {
        app.write(8);
        instances.iter().all(|instance| instance.state() == State::Error)
    });
    let reasons = instances.map(|instance| instance.take_error().unwrap().report());
    assert!(reasons.iter().any(|reason| reason.contains("poisoned")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("asked all of them to end")), "{reasons:?}");
}

#[test]
fn an_internal_topic_that_does_not_fit_is_named_in_a_streams_group() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "streams-unfit");
    app.topics.create_topic("streams-unfit-word-counts-changelog", 3).unwrap();
    let streams = KafkaStreams::new(word_count(&app.name), in_streams_group(&app, 0)).unwrap();
    let refused = streams.start().err();
    let error = refused.unwrap_or_else(|| {
        wait_until("it is refused", || streams.state() == State::Error);
        streams.take_error().unwrap()
    });
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.report());
    assert!(error.report().contains("streams-unfit-word-counts-changelog"), "{}", error.report());
}

#[test]
fn another_topology_is_refused_with_what_to_do() {
    let Some(kafka) = TestKafka::shared() else { return };
    let app = Application::new(&kafka.bootstrap(), "streams-other");
    let (first, _) = start(&app, 0);
    let builder = StreamsBuilder::new();
    let lines = builder.stream(&format!("{}-lines", app.name), Consumed::with(Utf8, Utf8));
    lines.group_by_key(Grouped::with(Utf8, Utf8)).count(Materialized::named("others"));
    let other = KafkaStreams::new(builder.build().unwrap(), in_streams_group(&app, 1)).unwrap();
    other.start().unwrap();
    wait_until("it is refused", || other.state() == State::Error);
    let error = other.take_error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.report().contains("another topology"), "{}", error.report());
    assert_eq!(first.state(), State::Running);
}
