//! The process that does the work: the generator, the pipeline and the cluster they share. It may crash at any time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use kstreams::{EmbeddedCluster, KafkaStreams, RestoreEvent, State};

use crate::model::{CUSTOMERS, Event, ORDERS, PAYMENTS, Totals, What, events, expected};
use crate::pipeline::{self, Joins};
use crate::results::{committed_totals, hidden_updates};
use crate::screen::{Screen, booking_line, grouped, say, totals_table};

/// Events that happen in the shop per second.
const PACE: f64 = 420.0;
/// The crash comes in a transaction with at least so many updates: nobody may ever see those of it.
const UPDATES_IN_THE_TRANSACTION: usize = 20;
/// When nothing has moved for so long, nothing will.
const STALL: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Closes when every result is committed.
    Clean,
    /// Aborts half way, in the middle of a transaction.
    Crash,
}

pub(crate) fn run(directory: &Path, ending: Ending) -> Result<()> {
    let cluster = EmbeddedCluster::open(directory.join("cluster"))?;
    pipeline::create_topics(&cluster)?;
    let joins = Joins::default();
    let state = directory.join("state");
    let streams = KafkaStreams::new(pipeline::topology(&joins)?, pipeline::config(&cluster, &state))?
        .on_restore(restore_narrator());
    streams.start()?;

    let mut shop = Shop::open(&cluster)?;
    let bookings_expected: u64 = expected().values().map(Totals::bookings).sum();
    let mut screen = Screen::new();
    let (mut done, mut moved) = (0, Instant::now());
    loop {
        std::thread::sleep(Duration::from_millis(50));
        shop.catch_up(&cluster)?;
        if ending == Ending::Crash && shop.is_half_way() && hidden_updates(&cluster)? >= UPDATES_IN_THE_TRANSACTION {
            crash(&cluster)?;
        }
        if matches!(streams.state(), State::Error | State::NotRunning) {
            let error = streams.take_error().map(|error| error.report());
            bail!("the pipeline has ended before its work was done: {}", error.unwrap_or_default());
        }
        let totals = committed_totals(&cluster)?;
        let bookings = totals.values().map(Totals::bookings).sum();
        if done != bookings || !shop.is_closed() {
            (done, moved) = (bookings, Instant::now());
        }
        let (joined, last) = joins.count_and_last();
        let block = || {
            format!(
                "\n  in         {}\n  joined     {}{}\n  committed  {} of {}\n{}",
                shop.counts(),
                grouped(joined),
                last.as_ref().map(|last| format!("   {}", booking_line(last))).unwrap_or_default(),
                grouped(bookings),
                grouped(bookings_expected),
                totals_table(&totals),
            )
        };
        if done >= bookings_expected {
            screen.show_now(&block());
            break;
        }
        if streams.state() == State::Running {
            screen.show(block);
        }
        ensure!(
            moved.elapsed() < STALL,
            "nothing has moved for {STALL:?}: {bookings} of {bookings_expected} committed"
        );
    }
    screen.keep();
    streams.close(Duration::from_secs(10))?;
    say("  the worker has closed");
    Ok(())
}

/// Ends the process the way a power cut would: nothing is flushed, closed, committed or aborted.
fn crash(cluster: &EmbeddedCluster) -> Result<()> {
    say(&format!(
        "\n  half way: {} updates are in a transaction that is not committed. abort()",
        hidden_updates(cluster)?
    ));
    std::process::abort()
}

/// Says from which offset of its changelog each store goes on, the first time it is opened in this process.
fn restore_narrator() -> impl Fn(&RestoreEvent) + Send + Sync + 'static {
    let started = Mutex::new(BTreeMap::new());
    move |event| {
        let mut started = started.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            RestoreEvent::Started { store, partition, from, to } => {
                started.entry((Arc::clone(store), *partition)).or_insert(Some((*from, *to)));
            }
            RestoreEvent::Ended { store, partition, records } => {
                let range = started.get_mut(&(Arc::clone(store), *partition)).and_then(Option::take);
                // A store that is new has nothing to tell.
                if let Some((from, to)) = range.filter(|(_, to)| *to > 0) {
                    say(&format!(
                        "  store {store:<9} partition {partition}: on disk up to offset {from} of its changelog, which \
                         ends at {to}; {records} committed records read"
                    ));
                }
            }
            RestoreEvent::Batch { .. } | RestoreEvent::Suspended { .. } | _ => {}
        }
    }
}

/// The generator at its place in the list of events, which it finds by the ends of the topics.
pub(crate) struct Shop {
    events: Vec<Event>,
    next: usize,
    opened: Instant,
    opened_at: usize,
    orders: u64,
    payments: u64,
}

impl Shop {
    pub(crate) fn open(cluster: &EmbeddedCluster) -> Result<Shop> {
        let events = events();
        let mut next = 0;
        for topic in [CUSTOMERS, ORDERS, PAYMENTS] {
            for partition in 0..cluster.partitions(topic)?.unwrap_or(0) {
                next += usize::try_from(cluster.end_offset(topic, partition)?)?;
            }
        }
        let happened = events.get(..next).unwrap_or(&events);
        let orders = happened.iter().filter(|event| matches!(event.what, What::Order(_))).count() as u64;
        let payments = happened.iter().filter(|event| matches!(event.what, What::Payment(_))).count() as u64;
        Ok(Shop { events, next, opened: Instant::now(), opened_at: next, orders, payments })
    }

    /// Lets everything happen that is due.
    fn catch_up(&mut self, cluster: &EmbeddedCluster) -> Result<()> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of events")]
        let due = self.opened_at + (self.opened.elapsed().as_secs_f64() * PACE) as usize;
        while let Some(event) = self.events.get(self.next).filter(|_| self.next < due) {
            let (topic, key, value) = match &event.what {
                What::Customer(id, customer) => (CUSTOMERS, id.clone(), serde_json::to_vec(customer)?),
                What::Order(order) => (ORDERS, format!("order-{}", order.id), serde_json::to_vec(order)?),
                What::Payment(payment) => {
                    (PAYMENTS, format!("payment-{}", payment.order), serde_json::to_vec(payment)?)
                }
            };
            cluster.produce(topic, Some(key.as_bytes()), Some(&value), Some(event.timestamp))?;
            match event.what {
                What::Order(_) => self.orders += 1,
                What::Payment(_) => self.payments += 1,
                What::Customer(..) => {}
            }
            self.next += 1;
        }
        Ok(())
    }

    pub(crate) fn is_half_way(&self) -> bool {
        self.next * 2 >= self.events.len()
    }

    fn is_closed(&self) -> bool {
        self.next >= self.events.len()
    }

    fn counts(&self) -> String {
        format!("{} orders, {} payments", grouped(self.orders), grouped(self.payments))
    }
}
