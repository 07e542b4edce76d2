//! Reads of random keys through random instances, while one is killed and another one restarted.
//!
//! `KSTREAMS_READS=100000` asks for a longer run, with a tenth as many reads of what was written through another instance.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use kstreams::{Config, GroupProtocol, TopicClient};
use tokio::runtime::Builder;

use crate::chaos::number;
use crate::cluster::{Ports, TestKafka};
use crate::instance::{Instance, Setup};
use crate::readers::{PER_WRITE, Readers};
use crate::served::{SERVED, STORE, clicks_of};
use crate::word_count::{PATIENCE, wait_until};

const INSTANCES: usize = 3;

/// More than there are instances, so that each has something to lose.
const PARTITIONS: i32 = 6;

const KEYS: usize = 600;

const READERS: u64 = 8;

/// Who click and read that, each on keys of its own.
const WRITERS: usize = 40;

/// Clicks a second on keys that nobody asks for, besides.
const RATE: u64 = 300;

#[test]
fn every_answer_is_right_and_every_refusal_is_for_later_while_instances_are_killed_and_restarted() {
    let Some(kafka) = TestKafka::shared() else { return };
    let reads = number("KSTREAMS_READS").unwrap_or(2_000);
    let (name, begun) = ("reads", Instant::now());
    let say = |what: &str| eprintln!("{:7.1} s  {what}", begun.elapsed().as_secs_f64());
    let topic = clicks_of(name);
    let mut topics = TopicClient::connect(&Config::new("witness", kafka.bootstrap())).unwrap();
    topics.create_topic(&topic, PARTITIONS).unwrap();
    wait_until("there is a topic", || topics.read(&topic, Duration::ZERO, |_| {}).is_ok());

    let ports = Ports::reserve(3);
    let folder = Folder(tempfile::Builder::new().prefix("kstreams-reads-").tempdir().unwrap());
    let setup = Setup {
        bootstrap: kafka.bootstrap(),
        name: name.to_owned(),
        protocol: GroupProtocol::Sticky,
        folder: folder.0.path().to_owned(),
        itself: SERVED,
        first_port: ports.first,
    };
    let mut instances: Vec<Instance> = (0..INSTANCES).map(|n| Instance::start(&setup, n)).collect();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let all: Vec<u16> = (0..3).map(|n| ports.first + 10 * n).collect();
    let readers = Arc::new(Readers::new(&all, &topic, KEYS));
    // Who has the partitions, as one of them says.
    let owners = |asked: usize| -> Vec<String> {
        let told = runtime.block_on(readers.json(asked, &format!("/v1/metadata/{STORE}"))).unwrap_or_default();
        let partitions = told["partitions"].as_array().cloned().unwrap_or_default();
        partitions.iter().filter_map(|known| known["active"].as_str().map(str::to_owned)).collect()
    };
    let is_settled = |asked: usize| {
        let owners = owners(asked);
        owners.len() == PARTITIONS as usize
            && (0..INSTANCES).all(|n| owners.iter().any(|own| own == readers.address(n)))
    };
    wait_until("each instance has partitions, and all know it", || {
        instances.iter().all(Instance::has_been_running) && (0..INSTANCES).all(is_settled)
    });
    say("three instances are at work");

    let mut tasks = Vec::new();
    for reader in 0..READERS {
        let readers = Arc::clone(&readers);
        tasks.push(runtime.spawn(async move { readers.look_around(reader).await }));
    }
    for writer in 0..WRITERS {
        let readers = Arc::clone(&readers);
        tasks.push(runtime.spawn(async move { readers.click_and_look(writer, WRITERS).await }));
    }
    let load = thread::spawn({
        let readers = Arc::clone(&readers);
        move || others_click(&mut topics, &topic, &readers)
    });
    let wait_until_read = |percent: u64| {
        let least = reads * percent / 100;
        wait_until("there is so much read", || {
            assert!(!tasks.iter().any(|task| task.is_finished()), "who reads has failed");
            readers.read.load(Ordering::Relaxed) >= least
                && readers.read_after_write.load(Ordering::Relaxed) >= least / PER_WRITE
        });
    };
    wait_until_read(25);
    instances[0].kill();
    say("instance 0 is killed");
    wait_until("the others have what it had", || {
        let owners = owners(1);
        owners.len() == PARTITIONS as usize && owners.iter().all(|own| own != readers.address(0))
    });
    say("the others have what it had");
    wait_until_read(50);
    instances[0].restart();
    wait_until("it is back", || instances[0].has_been_running());
    say("instance 0 is back");
    wait_until_read(70);
    instances[1].terminate();
    wait_until("instance 1 has closed", || instances[1].ended().is_some_and(|status| status.success()));
    say("instance 1 has closed");
    instances[1].restart();
    wait_until("it is back", || instances[1].has_been_running());
    say("instance 1 is back");
    wait_until_read(100);

    readers.is_over.store(true, Ordering::Relaxed);
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    load.join().unwrap();
    runtime.block_on(readers.look_at_all());
    for instance in &instances {
        instance.terminate();
    }
    wait_until("all have closed", || {
        instances.iter_mut().all(|instance| instance.ended().is_some_and(|status| status.success()))
    });
    say(&format!("all have closed\n{}", readers.report()));
    if let Err(mistakes) = readers.verdict() {
        panic!("{mistakes}");
    }
}

/// Of the instances. A failure leaves the logs.
struct Folder(tempfile::TempDir);

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.disable_cleanup(true);
            eprintln!("-- logs and stores are kept in {}", self.0.path().display());
        }
    }
}

/// Keeps the instances busy.
fn others_click(topics: &mut TopicClient, topic: &str, readers: &Readers) {
    let begun = Instant::now();
    let mut written = 0;
    while !readers.is_over.load(Ordering::Relaxed) {
        while written < u64::try_from(begun.elapsed().as_millis()).unwrap() * RATE / 1_000 {
            topics.write(topic, Some(format!("other-{}", written % 10_000).as_bytes()), Some(b"click")).unwrap();
            written += 1;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let begun = Instant::now();
    while let Err(error) = topics.flush() {
        assert!(begun.elapsed() < PATIENCE, "the clicks cannot be written: {}", error.report());
    }
}
