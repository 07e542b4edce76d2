//! An exactly-once application of three processes on three brokers, while all of them are killed, stopped and paused.
//!
//! A seed chooses what happens and to whom; when, the application does: a fault waits for output since the one before. Six
//! processes never run the same way twice, so a seed that fails may have to be tried more than once.
//! `KSTREAMS_CHAOS_SEED` and `KSTREAMS_CHAOS_SECONDS` ask for another run, or a longer one.

use std::env;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kstreams::GroupProtocol;

use crate::cluster::TestKafka;
use crate::instance::{Instance, SESSION_TIMEOUT, Setup, WORD_COUNT};
use crate::ledger::{Ledger, mix};
use crate::word_count::PATIENCE;

const INSTANCES: usize = 3;

const BROKERS: u16 = 3;

/// Lines a second. Each takes two records through a repartition topic.
const RATE: u64 = 300;

/// Counts that may be behind before no more is sent: a busy machine has to do less, not wait longer at the end.
const BEHIND_MAX: usize = 10_000;

/// Between two faults, give or take a third.
const EVERY: Duration = Duration::from_millis(2500);

#[derive(Clone, Copy)]
enum Fault {
    /// kill -9 of a broker, and a start on its data.
    Broker,
    Instance(Blow),
}

#[derive(Clone, Copy)]
enum Blow {
    /// kill -9; another process goes on in its place, before or after the session has timed out.
    Kill,
    /// SIGTERM, on which an instance closes; then the same.
    Terminate,
    /// SIGSTOP for longer than the session lasts, then SIGCONT: it wakes up with work that is no longer its own.
    Pause,
}

const ALL: [Fault; 4] =
    [Fault::Broker, Fault::Instance(Blow::Kill), Fault::Instance(Blow::Terminate), Fault::Instance(Blow::Pause)];

#[test]
fn counts_are_exact_while_instances_and_brokers_are_killed_and_paused() {
    run("chaos", GroupProtocol::Sticky, 40);
}

#[test]
fn counts_of_a_streams_group_are_exact_while_instances_and_brokers_are_killed_and_paused() {
    run("chaos-streams", GroupProtocol::Streams, 25);
}

fn run(name: &str, protocol: GroupProtocol, seconds: u64) {
    let Some((kafka, _alone)) = cluster() else { return };
    let seed = number("KSTREAMS_CHAOS_SEED").unwrap_or(1);
    let seconds = Duration::from_secs(number("KSTREAMS_CHAOS_SECONDS").unwrap_or(seconds));
    let mut chaos = Chaos::start(kafka, name, protocol, RATE);
    chaos.say(&format!("seed {seed}, {} s: KSTREAMS_CHAOS_SEED={seed} tries it again", seconds.as_secs()));
    let mut dice = Dice { seed, thrown: 0 };
    let mut deck = Vec::new();
    let (begun, mut counted, mut due) = (Instant::now(), chaos.counted(), Instant::now() + EVERY);
    while begun.elapsed() < seconds || counted == chaos.counted() {
        chaos.step();
        if Instant::now() < due || counted == chaos.counted() {
            continue;
        }
        // As many of each kind, in any order.
        if deck.is_empty() {
            deck = ALL.to_vec();
        }
        let next = dice.below(deck.len());
        if chaos.suffer(deck[next], &mut dice) {
            deck.remove(next);
            counted = chaos.counted();
            due = Instant::now() + EVERY.mul_f64((2.0 + dice.fraction() * 2.0) / 3.0);
        }
    }
    chaos.finish();
}

/// Three brokers for all runs of this binary, which take turns.
pub(crate) fn cluster() -> Option<(&'static TestKafka, MutexGuard<'static, ()>)> {
    static ALONE: Mutex<()> = Mutex::new(());
    static KAFKA: OnceLock<Option<TestKafka>> = OnceLock::new();
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let kafka = KAFKA.get_or_init(|| TestKafka::start(BROKERS)).as_ref()?;
    Some((kafka, alone))
}

pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: a number is expected")))
}

/// Numbers that follow from a seed.
struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    fn throw(&mut self) -> u64 {
        self.thrown += 1;
        mix(mix(self.seed) ^ self.thrown)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.throw() % bound as u64).unwrap()
    }

    fn fraction(&mut self) -> f64 {
        (self.throw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + (most - least).mul_f64(self.fraction())
    }
}

/// What is being done to an instance.
#[derive(Clone, Copy)]
enum Condition {
    Up,
    Paused { until: Instant },
    Leaving { since: Instant, back_after: Duration },
    Down { until: Instant },
}

/// Instances under load, whoever breaks them, and what they have counted.
pub(crate) struct Chaos {
    kafka: &'static TestKafka,
    ledger: Ledger,
    instances: Vec<(Instance, Condition)>,
    broker: Option<JoinHandle<Result<(), String>>>,
    rate: u64,
    stepped_at: Instant,
    under_load: Duration,
    counted: usize,
    advanced_at: Instant,
    begun: Instant,
    folder: tempfile::TempDir,
}

impl Chaos {
    /// Starts the instances and waits until all of them are at work.
    pub(crate) fn start(kafka: &'static TestKafka, name: &str, protocol: GroupProtocol, rate: u64) -> Chaos {
        let folder = tempfile::Builder::new().prefix("kstreams-chaos-").tempdir().unwrap();
        if protocol == GroupProtocol::Streams {
            let session = format!("streams.session.timeout.ms={}", SESSION_TIMEOUT.as_millis());
            kafka.group_settings(name, &format!("{session},streams.heartbeat.interval.ms=500")).unwrap();
        }
        let ledger = Ledger::new(&kafka.bootstrap(), name);
        let setup = Setup {
            bootstrap: kafka.bootstrap(),
            name: name.to_owned(),
            protocol,
            folder: folder.path().to_owned(),
            itself: WORD_COUNT,
            first_port: 0,
        };
        let instances = (0..INSTANCES).map(|n| (Instance::start(&setup, n), Condition::Up)).collect();
        let now = Instant::now();
        let mut chaos = Chaos {
            kafka,
            ledger,
            instances,
            broker: None,
            rate,
            stepped_at: now,
            under_load: Duration::ZERO,
            counted: 0,
            advanced_at: now,
            begun: now,
            folder,
        };
        while chaos.counted == 0 || !chaos.instances.iter().all(|(instance, _)| instance.has_been_running()) {
            assert!(now.elapsed() < PATIENCE, "not every instance has come to work");
            chaos.step();
        }
        chaos
    }

    pub(crate) fn counted(&self) -> usize {
        self.counted
    }

    pub(crate) fn say(&self, what: &str) {
        eprintln!("{:7.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    /// The instances that nothing is being done to.
    pub(crate) fn up(&self) -> impl Iterator<Item = (usize, &Instance)> {
        let all = self.instances.iter().enumerate();
        all.filter(|(_, (_, condition))| matches!(condition, Condition::Up)).map(|(n, (instance, _))| (n, instance))
    }

    /// Writes what is due, reads what there is, and looks after whoever is down.
    pub(crate) fn step(&mut self) {
        let since = self.stepped_at.elapsed();
        self.stepped_at += since;
        if self.ledger.due() < self.counted + BEHIND_MAX {
            self.under_load += since;
            let ms = u64::try_from(self.under_load.as_millis()).unwrap();
            self.ledger.send_up_to(ms * self.rate / 1000);
        }
        self.look();
    }

    fn look(&mut self) {
        let counted = self.ledger.counted();
        if counted > self.counted {
            (self.counted, self.advanced_at) = (counted, Instant::now());
        }
        assert!(self.advanced_at.elapsed() < PATIENCE, "{counted} of {} counts, and no more", self.ledger.due());
        (0..self.instances.len()).for_each(|n| self.look_after(n));
        if self.broker.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(broker) = self.broker.take()
        {
            broker.join().unwrap().unwrap();
            self.say("the broker is back");
        }
        thread::sleep(Duration::from_millis(10));
    }

    fn look_after(&mut self, n: usize) {
        let (instance, condition) = &mut self.instances[n];
        let now = Instant::now();
        match *condition {
            Condition::Up => {
                let ended = instance.ended();
                assert!(ended.is_none(), "instance {n} has ended by itself: {}", ended.unwrap());
            }
            Condition::Paused { until } if now >= until => {
                instance.go_on();
                *condition = Condition::Up;
                self.say(&format!("instance {n} wakes up"));
            }
            Condition::Leaving { since, back_after } => {
                if let Some(status) = instance.ended() {
                    assert!(status.success(), "instance {n} did not close cleanly: {status}");
                    *condition = Condition::Down { until: now + back_after };
                    self.say(&format!("instance {n} has closed"));
                } else {
                    assert!(since.elapsed() < PATIENCE, "instance {n} does not close");
                }
            }
            Condition::Down { until } if now >= until => {
                instance.restart();
                *condition = Condition::Up;
                self.say(&format!("instance {n} starts"));
            }
            Condition::Paused { .. } | Condition::Down { .. } => {}
        }
    }

    /// Whether it could be done now.
    fn suffer(&mut self, fault: Fault, dice: &mut Dice) -> bool {
        match fault {
            Fault::Broker => self.kill_broker(dice),
            Fault::Instance(blow) => self.strike(blow, dice),
        }
    }

    /// One at a time: with two of three brokers gone, nothing can be written.
    fn kill_broker(&mut self, dice: &mut Dice) -> bool {
        if self.broker.is_some() {
            return false;
        }
        let broker = u16::try_from(1 + dice.below(usize::from(BROKERS))).unwrap();
        let pause = dice.between(Duration::ZERO, SESSION_TIMEOUT);
        let kafka = self.kafka;
        self.broker = Some(thread::spawn(move || {
            kafka.kill(broker)?;
            thread::sleep(pause);
            kafka.restart(broker)
        }));
        self.say(&format!("broker {broker} is killed, for {:.1} s", pause.as_secs_f64()));
        true
    }

    /// One instance is always left alone.
    fn strike(&mut self, blow: Blow, dice: &mut Dice) -> bool {
        let up: Vec<usize> = self.up().map(|(n, _)| n).collect();
        if up.len() < 2 {
            return false;
        }
        let n = up[dice.below(up.len())];
        let back_after = dice.between(Duration::ZERO, 2 * SESSION_TIMEOUT);
        let (instance, condition) = &mut self.instances[n];
        let now = Instant::now();
        match blow {
            Blow::Kill => {
                instance.kill();
                *condition = Condition::Down { until: now + back_after };
                self.say(&format!("instance {n} is killed, for {:.1} s", back_after.as_secs_f64()));
            }
            Blow::Terminate => {
                if !instance.has_been_running() {
                    return false;
                }
                self.terminate(n, back_after);
            }
            Blow::Pause => {
                instance.stop();
                let pause = SESSION_TIMEOUT + back_after;
                *condition = Condition::Paused { until: now + pause };
                self.say(&format!("instance {n} is paused, for {:.1} s", pause.as_secs_f64()));
            }
        }
        true
    }

    /// Asks an instance to close. Another process goes on in its place.
    pub(crate) fn terminate(&mut self, n: usize, back_after: Duration) {
        let (instance, condition) = &mut self.instances[n];
        instance.terminate();
        *condition = Condition::Leaving { since: Instant::now(), back_after };
        self.say(&format!("instance {n} is told to close, for {:.1} s", back_after.as_secs_f64()));
    }

    /// Lets everything come back and be counted, closes the instances, and judges.
    pub(crate) fn finish(mut self) {
        self.ledger.flush();
        self.say("no more is written");
        self.advanced_at = Instant::now();
        let at_work = |chaos: &Chaos| chaos.up().filter(|(_, instance)| instance.has_been_running()).count();
        while self.counted < self.ledger.due() || at_work(&self) < INSTANCES || self.broker.is_some() {
            self.look();
        }
        (0..INSTANCES).for_each(|n| self.terminate(n, PATIENCE));
        self.advanced_at = Instant::now();
        while self.instances.iter().any(|(_, condition)| !matches!(condition, Condition::Down { .. })) {
            self.look();
        }
        if let Err(mistakes) = self.ledger.judge() {
            panic!("{} counts are due. {mistakes}", self.ledger.due());
        }
        self.say(&format!("{} counts, and all of them right", self.counted));
    }
}

impl Drop for Chaos {
    /// A failure leaves the logs.
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        self.folder.disable_cleanup(true);
        for (n, (instance, _)) in self.instances.iter().enumerate() {
            eprintln!("-- instance {n}, the end of its log\n{}", instance.tail());
        }
        eprintln!("-- logs and stores are kept in {}", self.folder.path().display());
    }
}
