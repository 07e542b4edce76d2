//! Calls side by side, results in order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kstreams::{
    AsyncCalls, AsyncOrder, Config, Consumed, EmbeddedCluster, Error, ErrorHandler, KafkaStreams, Produced,
    StreamsBuilder, Topology, Utf8,
};
use tokio::sync::Notify;

use crate::application::{PATIENCE, wait_until};

/// Calls that wait until the test lets them go on, by value.
#[derive(Default)]
struct Gate {
    waiting: Mutex<Vec<(String, Arc<Notify>)>>,
    calls: AtomicUsize,
}

impl Gate {
    fn enter(&self, value: &str) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        self.waiting.lock().unwrap().push((value.to_owned(), Arc::clone(&notify)));
        self.calls.fetch_add(1, Ordering::SeqCst);
        notify
    }

    fn is_waiting(&self, value: &str) -> bool {
        self.waiting.lock().unwrap().iter().any(|(known, _)| known == value)
    }

    fn open(&self, value: &str) {
        wait_until(&format!("{value} is called for"), || self.is_waiting(value));
        let mut waiting = self.waiting.lock().unwrap();
        waiting.iter().filter(|(known, _)| known == value).for_each(|(_, notify)| notify.notify_one());
        waiting.retain(|(known, _)| known != value);
    }
}

fn topology(gate: &Arc<Gate>, order: AsyncOrder) -> Topology {
    let gate = Arc::clone(gate);
    let builder = StreamsBuilder::new();
    let call = move |_: &String, value: &String| {
        let (notify, value) = (gate.enter(value), value.to_uppercase());
        async move {
            notify.notified().await;
            Ok::<_, Error>(value)
        }
    };
    let calls = AsyncCalls::at_most(3).with_order(order);
    builder
        .stream("in", Consumed::with(Utf8, Utf8))
        .map_values_async(call, calls)
        .to("out", Produced::with(Utf8, Utf8));
    builder.build().unwrap()
}

fn start(gate: &Arc<Gate>, order: AsyncOrder) -> (EmbeddedCluster, KafkaStreams) {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("in", 1).unwrap();
    cluster.create_topic("out", 1).unwrap();
    for (key, value) in [("k", "a"), ("k", "b"), ("l", "c"), ("l", "d")] {
        cluster.produce("in", Some(key.as_bytes()), Some(value.as_bytes()), Some(1)).unwrap();
    }
    // At least once and hardly a commit: results are seen as soon as they go on.
    let config = Config::new("calls", "embedded://").cluster(&cluster).commit_interval(Duration::from_secs(3600));
    let streams = KafkaStreams::new(topology(gate, order), config).unwrap();
    streams.start().unwrap();
    (cluster, streams)
}

fn out(cluster: &EmbeddedCluster) -> String {
    let records = cluster.read_committed("out").unwrap().into_iter();
    records.map(|record| String::from_utf8(record.value.unwrap()).unwrap()).collect()
}

#[test]
fn results_go_on_in_the_order_of_the_records() {
    let gate = Arc::new(Gate::default());
    let (cluster, streams) = start(&gate, AsyncOrder::Partition);
    gate.open("c");
    gate.open("b");
    assert_eq!(gate.calls.load(Ordering::SeqCst), 3, "no more than three at once");
    assert_eq!(out(&cluster), "");
    gate.open("a");
    wait_until("the first three are there", || out(&cluster) == "ABC");
    gate.open("d");
    wait_until("all are there", || out(&cluster) == "ABCD");
    streams.close(PATIENCE).unwrap();
}

#[test]
fn results_of_other_keys_overtake_where_that_is_allowed() {
    let gate = Arc::new(Gate::default());
    let (cluster, streams) = start(&gate, AsyncOrder::Key);
    gate.open("b");
    gate.open("c");
    wait_until("the one of the other key is there", || out(&cluster) == "C");
    gate.open("a");
    wait_until("the others follow in their order", || out(&cluster) == "CAB");
    gate.open("d");
    wait_until("all are there", || out(&cluster) == "CABD");
    streams.close(PATIENCE).unwrap();
}

#[test]
fn a_commit_waits_for_the_calls_before_it() {
    let gate = Arc::new(Gate::default());
    let (cluster, streams) = start(&gate, AsyncOrder::Partition);
    wait_until("the first three are called for", || ["a", "b", "c"].iter().all(|value| gate.is_waiting(value)));
    let closing = std::thread::spawn(move || streams.close(PATIENCE));
    for value in ["a", "b", "c"] {
        gate.open(value);
    }
    // The fourth one may have come in before the order to close.
    wait_until("it is closed", || {
        if gate.is_waiting("d") {
            gate.open("d");
        }
        closing.is_finished()
    });
    closing.join().unwrap().unwrap();
    let committed = cluster.committed_offset("calls", "in", 0).unwrap();
    assert_eq!(committed, Some(out(&cluster).len() as i64), "what is committed has gone on");
}

#[test]
fn a_record_whose_call_or_what_follows_it_fails_is_a_whole_dead_letter() {
    let gate = Arc::new(Gate::default());
    let builder = StreamsBuilder::new();
    let own = Arc::clone(&gate);
    let call = move |_: &String, value: &String| {
        let (notify, value) = (own.enter(value), value.clone());
        async move {
            notify.notified().await;
            if value == "a" { Err(Error::user("no answer")) } else { Ok(value) }
        }
    };
    let stream = builder.stream("in", Consumed::with(Utf8, Utf8)).map_values_async(call, AsyncCalls::at_most(3));
    stream.filter(|_, value| panic!("boom {value}")).to("out", Produced::with(Utf8, Utf8));
    let cluster = EmbeddedCluster::new();
    for topic in ["in", "out", "dead"] {
        cluster.create_topic(topic, 1).unwrap();
    }
    for (key, value) in [("k", "a"), ("l", "b"), ("m", "c")] {
        cluster.produce("in", Some(key.as_bytes()), Some(value.as_bytes()), Some(1)).unwrap();
    }
    let config = Config::new("calls", "embedded://").cluster(&cluster).commit_interval(Duration::from_secs(3600));
    let config = config.processing_handler(ErrorHandler::log_and_continue()).dead_letter_topic("dead");
    let streams = KafkaStreams::new(builder.build().unwrap(), config).unwrap();
    streams.start().unwrap();
    wait_until("the last one is called for", || gate.is_waiting("c"));
    let dead = || cluster.read_committed("dead").unwrap();
    for (count, (key, value)) in [(1, ("k", "a")), (2, ("l", "b")), (3, ("m", "c"))] {
        gate.open(value);
        wait_until("its letter has come", || dead().len() == count);
        let letter = dead().pop().unwrap();
        assert_eq!((letter.key.as_deref(), letter.value.as_deref()), (Some(key.as_bytes()), Some(value.as_bytes())));
        assert_eq!(letter.headers.last("__streams.errors.offset"), Some(Some((count - 1).to_string().as_bytes())));
    }
    streams.close(PATIENCE).unwrap();
}
