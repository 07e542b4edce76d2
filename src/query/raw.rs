//! Stores by name, with keys and values as bytes: what a server needs that answers for others.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::failure::{FailureReason, QueryFailure};
use super::iter::{Cursor, QueryIter};
use super::position::Position;
use super::raw_rows::{RawCursor, RawValues};
use super::scope::Scope;
use super::staleness::Staleness;
use super::tasks::{LocalTask, LocalTasks, Role};
use crate::error::Result;
use crate::state::StoreKind;
use crate::window::Window;

/// The stores of an application by their names, for a server in front of it: see
/// [`KafkaStreams::raw_stores`](crate::KafkaStreams::raw_stores). Cheap to clone, and good for the life of the client.
#[derive(Debug, Clone)]
pub struct RawStores {
    tasks: Arc<LocalTasks>,
    stores: Arc<[(Arc<str>, StoreKind)]>,
}

/// What is in the rows of a store, and so what it can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RawKind {
    /// `key → value`.
    KeyValue,
    /// `key → value, timestamp`: the stores of tables.
    TimestampedKeyValue,
    /// `key, window → value`.
    Window,
    /// `key, window → value, timestamp`: the stores of windowed tables.
    TimestampedWindow,
    /// `key, session → value`.
    Session,
    /// `key, time → value`.
    Versioned,
}

/// A store of this instance, with keys and values as bytes.
///
/// ```no_run
/// # fn show(streams: &kstreams::KafkaStreams) -> Result<(), kstreams::QueryFailure> {
/// let answer = streams.raw_stores().open("counts")?.ask(&kstreams::RawQuery::Get { key: b"ann".to_vec() })?;
/// for row in answer.rows {
///     println!("{:?} in partition {}", row?.value, answer.position.iter().count());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RawStore {
    scope: Scope,
    kind: StoreKind,
}

/// What is asked of a store. Keys are bytes as the store's serde makes them; times are in milliseconds since the epoch, and
/// both ends of a span are included.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RawQuery {
    /// The row of a key; of a versioned store the newest version.
    Get {
        /// The key.
        key: Vec<u8>,
    },
    /// The version of a key that is valid at a time.
    GetAsOf {
        /// The key.
        key: Vec<u8>,
        /// When.
        time: i64,
    },
    /// The versions of a key that are valid in a span of time, newest first, as far as the history goes.
    Versions {
        /// The key.
        key: Vec<u8>,
        /// The span, both ends included.
        times: (i64, i64),
    },
    /// The rows from one key to another of a key-value store, in the order of their bytes within a partition.
    Range {
        /// The first key.
        from: Bound<Vec<u8>>,
        /// The last key.
        to: Bound<Vec<u8>>,
        /// Last key first.
        reverse: bool,
    },
    /// The rows of a key-value store whose keys begin so.
    Prefix {
        /// How they begin.
        prefix: Vec<u8>,
    },
    /// The row of a key and the window that begins then.
    Fetch {
        /// The key.
        key: Vec<u8>,
        /// The start of the window.
        start: i64,
    },
    /// The rows of a key whose windows begin in a span of time, earliest first. Of a session store: the sessions that end at
    /// the beginning of the span or later, and begin at its end or earlier, by their ends.
    FetchRange {
        /// The key.
        key: Vec<u8>,
        /// The span, both ends included.
        times: (i64, i64),
        /// Latest first.
        reverse: bool,
    },
    /// The same of all keys in a range.
    FetchKeys {
        /// The first key.
        from: Bound<Vec<u8>>,
        /// The last key.
        to: Bound<Vec<u8>>,
        /// The span, both ends included.
        times: (i64, i64),
        /// The other way round.
        reverse: bool,
    },
    /// The session of a key with exactly this start and end.
    Session {
        /// The key.
        key: Vec<u8>,
        /// Its start and end.
        window: Window,
    },
}

/// A row that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawRow {
    /// The partition of the store.
    pub partition: i32,
    /// The key.
    pub key: Vec<u8>,
    /// Of a window or session store.
    pub window: Option<Window>,
    /// The value, without what the library keeps beside it.
    pub value: Vec<u8>,
    /// When the row was written, or from when on a version is valid; none: the store keeps no times.
    pub timestamp: Option<i64>,
    /// Until when a version was valid, not included; none: it is the newest, or no version.
    pub valid_to: Option<i64>,
}

/// The answer to a [`RawQuery`].
#[derive(Debug)]
#[non_exhaustive]
pub struct RawAnswer {
    /// Partition by partition, in order; read from the store as they are taken, 256 at a time.
    pub rows: QueryIter<RawRow>,
    /// How far the states are at least that answer.
    pub position: Position,
    /// How far behind the one that lacks most is, in records: 0 unless stale stores were asked; none: one of them does not
    /// know.
    pub lag: Option<u64>,
    /// How long ago the one that is oldest lacked nothing: zero unless stale stores were asked; none: one never was whole.
    pub age: Option<Duration>,
}

/// A partition of a store as it is on this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawPartition {
    /// Its number; that of a global store is 0.
    pub partition: i32,
    /// What it is good for.
    pub role: RawRole,
    /// Records that it lacks, as far as that is known.
    pub lag: Option<u64>,
    /// How long ago it lacked nothing; none: it never was whole.
    pub age: Option<Duration>,
    /// How far it is in its inputs; nothing for copies, of which nobody knows.
    pub position: Position,
}

/// What a partition of a store is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RawRole {
    /// Its task runs here.
    Active,
    /// Its task will run here when the store has been restored.
    Restoring,
    /// It follows a task that runs elsewhere.
    Standby,
    /// Every instance has it.
    Global,
}

impl RawStores {
    pub(crate) fn new(tasks: Arc<LocalTasks>, stores: impl Iterator<Item = (Arc<str>, StoreKind)>) -> RawStores {
        RawStores { tasks, stores: stores.collect() }
    }

    /// Every store of the application, whether this instance has some of it or not.
    pub fn list(&self) -> impl Iterator<Item = (&str, RawKind)> {
        self.stores.iter().map(|(name, kind)| (&**name, RawKind::of(*kind)))
    }

    /// A store by its name.
    ///
    /// # Errors
    /// `DoesNotExist`.
    pub fn open(&self, name: &str) -> Result<RawStore, QueryFailure> {
        let found = self.stores.iter().find(|(known, _)| **known == *name);
        let (name, kind) = found.ok_or_else(|| {
            QueryFailure::new(FailureReason::DoesNotExist, format!("there is no store {name}: see RawStores::list"))
        })?;
        Ok(RawStore { scope: Scope::new(Arc::clone(&self.tasks), Arc::clone(name)), kind: *kind })
    }
}

impl RawKind {
    fn of(kind: StoreKind) -> RawKind {
        match (kind, RawValues::of(kind)) {
            (StoreKind::KeyValue, _) => RawKind::KeyValue,
            (StoreKind::TimestampedKeyValue | StoreKind::KeyValueWithHeaders, _) => RawKind::TimestampedKeyValue,
            (StoreKind::Window(_), RawValues::Timed(_)) => RawKind::TimestampedWindow,
            (StoreKind::Window(_), RawValues::Plain(_)) => RawKind::Window,
            (StoreKind::Session(_), _) => RawKind::Session,
            (StoreKind::Versioned(_), _) => RawKind::Versioned,
        }
    }
}

impl RawStore {
    /// The store's name.
    pub fn name(&self) -> &str {
        &self.scope.name
    }

    /// What is in its rows.
    pub fn kind(&self) -> RawKind {
        RawKind::of(self.kind)
    }

    /// Asks one partition only.
    #[must_use]
    pub fn with_partition(&self, partition: i32) -> RawStore {
        RawStore { scope: Scope { partition: Some(partition), ..self.scope.clone() }, ..*self }
    }

    /// Asks copies, too: see [`QueryableStore::with_staleness`](crate::QueryableStore::with_staleness).
    #[must_use]
    pub fn with_staleness(&self, bound: Staleness) -> RawStore {
        RawStore { scope: Scope { stale: Some(bound), ..self.scope.clone() }, ..*self }
    }

    /// The same with a bound in records: see
    /// [`QueryableStore::enable_stale_stores`](crate::QueryableStore::enable_stale_stores).
    #[must_use]
    pub fn enable_stale_stores(&self, records_behind_max: u64) -> RawStore {
        self.with_staleness(Staleness::any().records(records_behind_max))
    }

    /// Answers only from a state that has what is at this position: see
    /// [`QueryableStore::with_position_bound`](crate::QueryableStore::with_position_bound). Blocks the caller so long.
    #[must_use]
    pub fn with_position_bound(&self, bound: &Position, patience: Duration) -> RawStore {
        RawStore { scope: Scope { bound: bound.clone(), patience, ..self.scope.clone() }, ..*self }
    }

    /// The partitions that are on this instance now, whatever they are good for.
    pub fn partitions(&self) -> Vec<RawPartition> {
        let partition = |task: LocalTask| RawPartition {
            partition: task.id.partition,
            role: match task.role {
                Role::Active => RawRole::Active,
                Role::Restoring(_) => RawRole::Restoring,
                Role::Standby(_) => RawRole::Standby,
                Role::Global => RawRole::Global,
            },
            lag: task.role.lag(),
            age: task.age(),
            position: task.position,
        };
        self.scope.tasks.with_store(&self.scope.name).into_iter().map(partition).collect()
    }

    /// Asks the store.
    ///
    /// # Errors
    /// The reason, and what to do about it. A query for rows that come as they are taken may fail in the course of that, with
    /// an [`Error`](crate::Error) that is `Unavailable` when the store has moved.
    pub fn ask(&self, query: &RawQuery) -> Result<RawAnswer, QueryFailure> {
        if !self.answers(query) {
            return Err(self.scope.of_another_kind(query.name()));
        }
        let found = self.scope.find()?;
        let position = found.position();
        let lag = found.tasks.iter().map(|task| task.role.lag()).reduce(|one, other| Some(one?.max(other?)));
        let age = found.tasks.iter().map(LocalTask::age).reduce(|one, other| Some(one?.max(other?)));
        if !found.is_whole {
            return Err(self.scope.not_ready());
        }
        let mut cursors = Vec::with_capacity(found.tasks.len());
        for task in found.tasks {
            let (index, kind) = task.place(&self.scope.name).ok_or_else(|| self.scope.not_here())?;
            let mut cursor = RawCursor::begin(query, index, kind, task.id.partition)?;
            if query.is_of_one_row() {
                // At once, so that a failure has a reason.
                cursor = RawCursor::read(self.scope.read(&task, |ctx| cursor.next(ctx))?);
            }
            let cursor: Box<dyn Cursor<RawRow>> = Box::new(cursor);
            cursors.push((cursor, task));
        }
        Ok(RawAnswer { rows: self.scope.rows(cursors), position, lag: lag.flatten(), age: age.flatten() })
    }

    fn answers(&self, query: &RawQuery) -> bool {
        match query {
            RawQuery::Get { .. } => self.kind.is_key_value() || matches!(self.kind, StoreKind::Versioned(_)),
            RawQuery::GetAsOf { .. } | RawQuery::Versions { .. } => matches!(self.kind, StoreKind::Versioned(_)),
            RawQuery::Range { .. } | RawQuery::Prefix { .. } => self.kind.is_key_value(),
            RawQuery::Fetch { .. } => matches!(self.kind, StoreKind::Window(_)),
            RawQuery::FetchRange { .. } | RawQuery::FetchKeys { .. } => {
                matches!(self.kind, StoreKind::Window(_) | StoreKind::Session(_))
            }
            RawQuery::Session { .. } => matches!(self.kind, StoreKind::Session(_)),
        }
    }
}

impl RawQuery {
    /// How messages call it.
    fn name(&self) -> &'static str {
        match self {
            RawQuery::Get { .. } => "get",
            RawQuery::GetAsOf { .. } => "get as of",
            RawQuery::Versions { .. } => "versions",
            RawQuery::Range { .. } => "range",
            RawQuery::Prefix { .. } => "prefix",
            RawQuery::Fetch { .. } => "fetch",
            RawQuery::FetchRange { .. } => "fetch range",
            RawQuery::FetchKeys { .. } => "fetch keys",
            RawQuery::Session { .. } => "session",
        }
    }

    fn is_of_one_row(&self) -> bool {
        matches!(
            self,
            RawQuery::Get { .. } | RawQuery::GetAsOf { .. } | RawQuery::Fetch { .. } | RawQuery::Session { .. }
        )
    }
}
