//! Rows of a store, and who waits for them to become something.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use super::writer::not_started;
use crate::error::{Error, ErrorKind, Result};
use crate::query::{Position, QueryableStore};
use crate::state::KeyValueStore;

/// Between two looks at how far the store is. While nobody waits, nobody looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What has become of a row that was waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched<V> {
    /// It is as wanted; none: it is wanted that there is none.
    Reached(Option<V>),
    /// The time is over; this is the row then, if there is one.
    TimedOut(Option<V>),
}

/// Waits for rows of a store of this instance: [`Gateway::watch`](crate::Gateway::watch). Where the key of a row belongs to
/// another instance, its caller is sent there
/// ([`metadata_for_key`](crate::KafkaStreams::metadata_for_key)); a caller whose row moves away while it waits is told so.
///
/// One thread looks at all rows that are waited for, after each commit of the store's tasks.
pub struct StateWatch<K, V> {
    shared: Arc<Shared<K, V>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<K, V> {
    store: QueryableStore<KeyValueStore<K, V>>,
    waiters: Mutex<Waiters<K, V>>,
    changed: Condvar,
    waiters_max: usize,
}

/// What a look at a row has shown.
enum Look<V> {
    AsWanted(Option<V>),
    NotYet,
}

struct Waiters<K, V> {
    waiting: Vec<Waiter<K, V>>,
    /// Those whose rows are being looked at.
    looked_at: usize,
    /// There are some since the last look.
    is_new: bool,
    is_over: bool,
}

type Until<V> = dyn Fn(Option<&V>) -> bool + Send;

struct Waiter<K, V> {
    key: K,
    partition: Option<i32>,
    bound: Position,
    until: Box<Until<V>>,
    done: oneshot::Sender<Result<Option<V>>>,
}

impl<K: Send + 'static, V: Send + 'static> StateWatch<K, V> {
    pub(super) fn start(
        client_id: &str,
        store: QueryableStore<KeyValueStore<K, V>>,
        waiters_max: usize,
    ) -> Result<StateWatch<K, V>> {
        let waiters = Mutex::new(Waiters { waiting: Vec::new(), looked_at: 0, is_new: false, is_over: false });
        let shared = Arc::new(Shared { store, waiters, changed: Condvar::new(), waiters_max });
        let name = format!("{client_id}-watch");
        let watching = Arc::clone(&shared);
        let thread = Builder::new().name(name.clone()).spawn(move || watching.run());
        let thread = Some(thread.map_err(|error| not_started(&name, error))?);
        Ok(StateWatch { shared, thread })
    }

    /// Waits until the row of a key is as wanted, in a state that has what is at the bound; at most so long. Of the
    /// partition that is given, or any that is here. Dropped, it waits no more.
    ///
    /// ```no_run
    /// # use kstreams::*;
    /// # use std::time::Duration;
    /// # async fn wait(gateway: &Gateway, counts: QueryableStore<KeyValueStore<String, i64>>) -> Result<()> {
    /// let counts = gateway.watch(counts)?;
    /// let ten = |count: Option<&i64>| count >= Some(&10);
    /// match counts.until("ada".to_owned(), None, &Position::new(), ten, Duration::from_secs(20)).await? {
    ///     Watched::Reached(count) => println!("{count:?} clicks"),
    ///     Watched::TimedOut(count) => println!("{count:?} clicks only"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Unavailable`: too many wait, the row is not on this instance (any more), or the state is not at the bound when the
    /// time is over: ask again, where the row is now. `Closed`: nobody looks any more. What the serdes fail with.
    pub async fn until(
        &self,
        key: K,
        partition: Option<i32>,
        bound: &Position,
        until: impl Fn(Option<&V>) -> bool + Send + 'static,
        timeout: Duration,
    ) -> Result<Watched<V>>
    where
        K: Clone,
    {
        let (done, answered) = oneshot::channel();
        let waiter = Waiter { key: key.clone(), partition, bound: bound.clone(), until: Box::new(until), done };
        self.shared.add(waiter)?;
        match tokio::time::timeout(timeout, answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(self.shared.closed())).map(Watched::Reached),
            Err(_) => {
                // A look at memory or a few blocks of a disk; nothing waits in it.
                let row = self.shared.store_of(partition).with_position_bound(bound, Duration::ZERO).get(&key)?;
                Ok(Watched::TimedOut(row))
            }
        }
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        let waiters = self.shared.waiters();
        waiters.waiting.iter().filter(|waiter| !waiter.done.is_closed()).count() + waiters.looked_at
    }
}

impl<K, V> Waiters<K, V> {
    fn count(&self) -> usize {
        self.waiting.len() + self.looked_at
    }
}

impl<K: 'static, V: 'static> Shared<K, V> {
    fn add(&self, waiter: Waiter<K, V>) -> Result<()> {
        let mut waiters = self.waiters();
        if waiters.is_over {
            return Err(self.closed());
        }
        if waiters.count() >= self.waiters_max {
            // Those that have gone away since the last look are no reason to refuse anybody.
            waiters.waiting.retain(|waiter| !waiter.done.is_closed());
        }
        if waiters.count() >= self.waiters_max {
            let context = format!("too many wait for rows of store {}: try again later", self.store.name());
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        waiters.waiting.push(waiter);
        waiters.is_new = true;
        drop(waiters);
        self.changed.notify_all();
        Ok(())
    }

    fn run(&self) {
        let mut seen = None;
        while let Some(is_new) = self.next_look() {
            let position = self.store.position().ok();
            // Without a position the rows are not here: whoever waits is told.
            if is_new || position.is_none() || position != seen {
                seen = position;
                self.look();
            }
        }
        self.waiters().waiting.clear();
    }

    /// When it is time for a look, whether somebody new waits; none: it is over.
    fn next_look(&self) -> Option<bool> {
        let idle = |waiters: &mut Waiters<K, V>| waiters.waiting.is_empty() && !waiters.is_over;
        let waiters = self.changed.wait_while(self.waiters(), idle).unwrap_or_else(PoisonError::into_inner);
        let calm = |waiters: &mut Waiters<K, V>| !waiters.is_new && !waiters.is_over;
        let waited = self.changed.wait_timeout_while(waiters, LOOK_EVERY, calm);
        let (mut waiters, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (!waiters.is_over).then(|| std::mem::take(&mut waiters.is_new))
    }

    /// IMPORTANT: nothing is read under the lock: who comes to wait would wait for the disk.
    fn look(&self) {
        let mut waiters = self.waiters();
        let waiting = std::mem::take(&mut waiters.waiting);
        waiters.looked_at = waiting.len();
        drop(waiters);
        let mut left = Vec::with_capacity(waiting.len());
        for waiter in waiting {
            if waiter.done.is_closed() {
                continue;
            }
            match self.row(&waiter) {
                Ok(Look::AsWanted(row)) => drop(waiter.done.send(Ok(row))),
                Ok(Look::NotYet) => left.push(waiter),
                Err(error) => drop(waiter.done.send(Err(error))),
            }
        }
        let mut waiters = self.waiters();
        left.append(&mut waiters.waiting);
        waiters.waiting = left;
        waiters.looked_at = 0;
    }

    fn row(&self, waiter: &Waiter<K, V>) -> Result<Look<V>> {
        let store = self.store_of(waiter.partition);
        match store.with_position_bound(&waiter.bound, Duration::ZERO).get(&waiter.key) {
            Ok(row) if (waiter.until)(row.as_ref()) => Ok(Look::AsWanted(row)),
            Ok(_) => Ok(Look::NotYet),
            // Behind its bound, which is waited for, or not here.
            Err(error) if error.kind() == ErrorKind::Unavailable => store.get(&waiter.key).map(|_| Look::NotYet),
            Err(error) => Err(error),
        }
    }

    fn store_of(&self, partition: Option<i32>) -> QueryableStore<KeyValueStore<K, V>> {
        partition.map_or_else(|| self.store.clone(), |partition| self.store.with_partition(partition))
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters<K, V>> {
        // Every change is one push, one take or one flag: a panic leaves nothing half done.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn closed(&self) -> Error {
        let context = format!("rows of store {} are not watched any more: ask another instance", self.store.name());
        Error::new(ErrorKind::Closed, context)
    }
}

impl<K, V> Drop for StateWatch<K, V> {
    fn drop(&mut self) {
        self.shared.waiters.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<K, V> fmt::Debug for StateWatch<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateWatch").field("store", &self.shared.store).finish_non_exhaustive()
    }
}
