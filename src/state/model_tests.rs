//! Window, session and versioned stores against naive models: what was put, all of it, and the rules of Kafka Streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::record::{Headers, RecordBatch};
use crate::serdes::Utf8;
use crate::window::{Window, Windowed};

/// The stores of a task, as a processor reaches them.
pub(super) struct Task(pub(super) TaskStores, pub(super) RecordContext);

impl StoreContext for Task {
    fn stores(&mut self) -> (&mut TaskStores, &RecordContext) {
        (&mut self.0, &self.1)
    }
}

/// A changelog record: key, value, timestamp.
type Logged = (Vec<u8>, Option<Vec<u8>>, i64);

/// Where the stores of a test live, and how they come back.
pub(super) trait Place {
    fn open(&self, spec: &Arc<StoreSpec>) -> TaskStores;

    /// Ends them as they are, and opens them again with what the changelog has.
    fn reopen(&self, stores: TaskStores, spec: &Arc<StoreSpec>, log: &[Logged]) -> TaskStores {
        drop(stores);
        let mut stores = self.open(spec);
        restore(&mut stores, log);
        stores
    }
}

pub(super) fn restore(stores: &mut TaskStores, log: &[Logged]) {
    let from = usize::try_from(stores.offset(0).unwrap_or(0)).unwrap();
    let mut batch = RecordBatch::default();
    for (offset, (key, value, timestamp)) in (0..).zip(log).skip(from) {
        batch.push(offset, *timestamp, Some(key), value.as_deref(), Headers::new()).unwrap();
    }
    stores.restore(0, &batch, log.len() as i64).unwrap();
}

struct InMemory(usize);

impl Place for InMemory {
    fn open(&self, spec: &Arc<StoreSpec>) -> TaskStores {
        TaskStores::in_memory(&[Arc::clone(spec)], self.0)
    }
}

fn keys() -> impl Strategy<Value = String> {
    prop_oneof![Just(""), Just("a"), Just("a\0"), Just("aa"), Just("b")].prop_map(str::to_owned)
}

/// Times move on, mostly, over many buckets of a minute.
fn times() -> impl Strategy<Value = i64> {
    prop_oneof![0..40_i64, 60_000..60_003_i64, (0..12_i64).prop_map(|n| n * 30_000), 0..400_000_i64]
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Put { key: String, value: bool, time: i64, length: i64 },
    One { key: String, time: i64, length: i64 },
    Range { key: String, from: i64, to: i64, reverse: bool },
    Keys { keys: (Option<String>, Option<String>), from: i64, to: i64, reverse: bool },
    Commit,
    Abort,
    Reopen,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = || 0..3_i64;
    let span = || (times(), 0..200_000_i64).prop_map(|(from, length)| (from, from + length));
    let bounds = (proptest::option::of(keys()), proptest::option::of(keys()));
    vec(
        prop_oneof![
            8 => (keys(), proptest::bool::weighted(0.8), times(), length())
                .prop_map(|(key, value, time, length)| Step::Put { key, value, time, length }),
            2 => (keys(), times(), length()).prop_map(|(key, time, length)| Step::One { key, time, length }),
            3 => (keys(), span(), any::<bool>())
                .prop_map(|(key, (from, to), reverse)| Step::Range { key, from, to, reverse }),
            2 => (bounds, span(), any::<bool>())
                .prop_map(|(keys, (from, to), reverse)| Step::Keys { keys, from, to, reverse }),
            2 => Just(Step::Commit),
            1 => Just(Step::Abort),
            1 => Just(Step::Reopen),
        ],
        1..80,
    )
}

/// A row as the model knows it: its window has length `length`, which only sessions use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Window { duplicates: bool },
    Session,
}

/// key, time, and the number of a duplicate or the start of a session.
type Name = (String, i64, i64);

/// What a store holds below its cache.
#[derive(Debug, Clone, Default)]
struct Lower {
    rows: BTreeMap<Name, String>,
    observed: i64,
}

struct Model {
    kind: Kind,
    /// 1: rows lie by time.
    bucket_ms: i64,
    caches: bool,
    committed: Lower,
    lower: Lower,
    /// Entries of the cache, in the order of their last updates; whether they have to be written.
    cache: Vec<(Name, Option<String>, bool)>,
    puts: i64,
}

/// A multiple of the steps between times, so that rows lie at its very end.
const RETENTION_MS: i64 = 120_000;

impl Model {
    fn new(kind: Kind, in_memory: bool, caches: bool) -> Model {
        let lower = Lower { rows: BTreeMap::new(), observed: -1 };
        let bucket_ms = if in_memory { 1 } else { (RETENTION_MS / 2).max(60_000) };
        Model { kind, bucket_ms, caches, committed: lower.clone(), lower, cache: Vec::new(), puts: 0 }
    }

    fn put(&mut self, key: &str, time: i64, start: i64, value: Option<String>) {
        self.puts += 1;
        let last = match self.kind {
            Kind::Window { duplicates: true } => self.puts,
            Kind::Window { duplicates: false } => 0,
            Kind::Session => start,
        };
        let name = (key.to_owned(), time, last);
        if self.caches {
            self.cache.retain(|(known, ..)| *known != name);
            self.cache.push((name, value, true));
        } else {
            self.write(name, value);
        }
    }

    fn write(&mut self, name: Name, value: Option<String>) {
        self.lower.observed = self.lower.observed.max(name.1);
        let horizon = self.lower.observed - RETENTION_MS;
        let is_live =
            if self.bucket_ms == 1 { name.1 > horizon } else { name.1 / self.bucket_ms >= horizon / self.bucket_ms };
        if is_live {
            match value {
                Some(value) => drop(self.lower.rows.insert(name, value)),
                None => drop(self.lower.rows.remove(&name)),
            }
        }
    }

    fn flush(&mut self) {
        for place in 0..self.cache.len() {
            let (name, value, dirty) = self.cache[place].clone();
            if dirty {
                self.write(name, value);
            }
        }
        self.cache.retain_mut(|(_, value, dirty)| {
            *dirty = false;
            value.is_some()
        });
    }

    fn commit(&mut self) {
        self.flush();
        self.committed = self.lower.clone();
    }

    fn abort(&mut self) {
        self.cache.clear();
        self.lower = self.committed.clone();
    }

    /// Rows in the order of the store.
    fn rows(&self) -> Vec<(Name, String)> {
        let first = self.lower.observed - RETENTION_MS + 1;
        let mut rows = self.lower.rows.clone();
        rows.retain(|name, _| name.1 >= first);
        for (name, value, _) in &self.cache {
            match value {
                Some(value) => drop(rows.insert(name.clone(), value.clone())),
                None => drop(rows.remove(name)),
            }
        }
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_by_key(|((key, time, last), _)| {
            let time_bytes = if self.bucket_ms == 1 { Vec::new() } else { time.to_be_bytes().to_vec() };
            let is_turned = self.kind == Kind::Session && self.bucket_ms == 1;
            let last = if is_turned { !last } else { *last };
            (time / self.bucket_ms, [key.as_bytes(), &time_bytes, &last.to_be_bytes()].concat())
        });
        rows
    }

    fn select(&self, wanted: impl Fn(&Name) -> bool, reverse: bool) -> Vec<(Windowed<String>, String)> {
        let rows = self.rows().into_iter().filter(|(name, _)| wanted(name));
        let window = |time: i64, last: i64| match self.kind {
            Kind::Window { .. } => Window { start: time, end: time + 10 },
            Kind::Session => Window { start: last, end: time },
        };
        let row = |((key, time, last), value): (Name, String)| (Windowed { key, window: window(time, last) }, value);
        let mut rows: Vec<_> = rows.map(row).collect();
        if reverse {
            rows.reverse();
        }
        rows
    }
}

fn in_range(keys: &(Option<String>, Option<String>), key: &str) -> bool {
    keys.0.as_deref().is_none_or(|from| key >= from) && keys.1.as_deref().is_none_or(|to| key <= to)
}

fn bounds(keys: (Option<String>, Option<String>)) -> (std::ops::Bound<String>, std::ops::Bound<String>) {
    let bound = |key: Option<String>| key.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Included);
    (bound(keys.0), bound(keys.1))
}

/// Keeps the log of what is committed, and moves a task on.
struct Committer<'a, P: Place> {
    place: &'a P,
    spec: Arc<StoreSpec>,
    log: Vec<Logged>,
}

impl<P: Place> Committer<'_, P> {
    fn commit(&mut self, task: &mut Task) {
        task.0.flush(0).unwrap();
        let logged = task.0.changelog();
        self.log.extend(logged.map(|record| {
            (record.key.to_vec(), record.value.map(<[u8]>::to_vec), record.timestamp.unwrap_or_default())
        }));
        task.0.clear_changelog();
        task.0.apply(&[Some(self.log.len() as i64)]).unwrap();
    }

    fn reopen(&self, task: &mut Task) {
        let mut stores = std::mem::take(&mut task.0);
        stores.discard();
        task.0 = self.place.reopen(stores, &self.spec, &self.log);
    }
}

pub(super) fn check_windows(
    place: &impl Place,
    (duplicates, in_memory, caching): (bool, bool, bool),
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let (retention, size) = (Duration::from_millis(RETENTION_MS as u64), Duration::from_millis(10));
    let builder = match in_memory {
        true => Stores::in_memory_window("w", retention, size, duplicates, Utf8, Utf8),
        false => Stores::window("w", retention, size, duplicates, Utf8, Utf8),
    };
    let builder = if caching { builder.with_caching() } else { builder };
    let (mut model, mut store) = (Model::new(Kind::Window { duplicates }, in_memory, caching), builder.open(0));
    let mut committer = Committer { place, spec: Arc::clone(&builder.spec), log: Vec::new() };
    let mut task = Task(place.open(&builder.spec), RecordContext::default());
    let starts = |rows: Vec<(Windowed<String>, String)>| -> Vec<(i64, String)> {
        rows.into_iter().map(|(key, value)| (key.window.start, value)).collect()
    };
    for step in steps {
        match step {
            Step::Put { key, value: true, time, .. } => {
                let value = format!("v{}", model.puts);
                store.put(&mut task, &key, &value, time).unwrap();
                model.put(&key, time, 0, Some(value));
            }
            Step::Put { key, time, .. } => {
                store.delete(&mut task, &key, time).unwrap();
                if duplicates {
                    // Only moves the time.
                    model.lower.observed = model.lower.observed.max(time);
                } else {
                    model.put(&key, time, 0, None);
                }
            }
            Step::One { key, time, .. } if !duplicates => {
                let found = store.fetch(&mut task, &key, time).unwrap();
                let expected = model.select(|(k, t, _)| *k == key && *t == time, false);
                prop_assert_eq!(found, expected.into_iter().next().map(|(_, value)| value));
            }
            Step::One { .. } => {}
            Step::Range { key, from, to, reverse } => {
                let rows =
                    if reverse { store.backward_fetch(&key, from, to) } else { store.fetch_range(&key, from, to) };
                let expected = model.select(|(k, t, _)| *k == key && (from..=to).contains(t), reverse);
                prop_assert_eq!(rows.unwrap().collect(&mut task).unwrap(), starts(expected));
            }
            Step::Keys { keys, from, to, reverse } => {
                let expected = model.select(|(k, t, _)| in_range(&keys, k) && (from..=to).contains(t), reverse);
                let rows = match reverse {
                    true => store.backward_fetch_keys(bounds(keys), from, to).unwrap(),
                    false => store.fetch_keys(bounds(keys), from, to).unwrap(),
                };
                prop_assert_eq!(rows.collect(&mut task).unwrap(), expected);
            }
            Step::Commit => {
                committer.commit(&mut task);
                model.commit();
            }
            Step::Abort => {
                task.0.discard();
                model.abort();
            }
            Step::Reopen => {
                committer.reopen(&mut task);
                model.abort();
            }
        }
        let all = store.all().collect(&mut task).unwrap();
        prop_assert_eq!(all, model.select(|_| true, false));
    }
    Ok(())
}

pub(super) fn check_sessions(
    place: &impl Place,
    (in_memory, caching): (bool, bool),
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let retention = Duration::from_millis(RETENTION_MS as u64);
    let builder = match in_memory {
        true => Stores::in_memory_session("s", retention, Utf8, Utf8),
        false => Stores::session("s", retention, Utf8, Utf8),
    };
    let builder = if caching { builder.with_caching() } else { builder };
    let (mut model, mut store) = (Model::new(Kind::Session, in_memory, caching), builder.open(0));
    let mut committer = Committer { place, spec: Arc::clone(&builder.spec), log: Vec::new() };
    let mut task = Task(place.open(&builder.spec), RecordContext::default());
    for step in steps {
        match step {
            Step::Put { key, value, time, length } => {
                let session = Windowed { key, window: Window { start: time, end: time + length * 20_000 } };
                let text = value.then(|| format!("v{}", model.puts));
                match &text {
                    Some(text) => store.put(&mut task, &session, text).unwrap(),
                    None => store.remove(&mut task, &session).unwrap(),
                }
                model.put(&session.key, session.window.end, session.window.start, text);
            }
            Step::One { key, time, length } => {
                let (start, end) = (time, time + length * 20_000);
                let found = store.fetch_session(&mut task, &key, start, end).unwrap();
                let expected = model.select(|(k, e, s)| *k == key && *e == end && *s == start, false);
                prop_assert_eq!(found, expected.into_iter().next().map(|(_, value)| value));
            }
            Step::Range { key, from, to, reverse } => {
                let rows = match reverse {
                    true => store.backward_find_sessions(&key, from, to).unwrap(),
                    false => store.find_sessions(&key, from, to).unwrap(),
                };
                let expected = model.select(|(k, end, start)| *k == key && *end >= from && *start <= to, reverse);
                prop_assert_eq!(rows.collect(&mut task).unwrap(), expected);
            }
            Step::Keys { keys, from, to, reverse } => {
                let expected =
                    model.select(|(k, end, start)| in_range(&keys, k) && *end >= from && *start <= to, reverse);
                let rows = match reverse {
                    true => store.backward_find_sessions_of_keys(bounds(keys), from, to).unwrap(),
                    false => store.find_sessions_of_keys(bounds(keys), from, to).unwrap(),
                };
                prop_assert_eq!(rows.collect(&mut task).unwrap(), expected);
            }
            Step::Commit => {
                committer.commit(&mut task);
                model.commit();
            }
            Step::Abort => {
                task.0.discard();
                model.abort();
            }
            Step::Reopen => {
                committer.reopen(&mut task);
                model.abort();
            }
        }
        prop_assert_eq!(store.all().collect(&mut task).unwrap(), model.select(|_| true, false));
    }
    Ok(())
}

/// Versions of each key, by their times; none: a deletion.
#[derive(Debug, Clone, Default)]
struct Versions {
    of: BTreeMap<String, BTreeMap<i64, Option<String>>>,
    observed: i64,
}

impl Versions {
    fn put(&mut self, key: &str, value: Option<String>, time: i64) -> VersionPut {
        if time < self.observed - RETENTION_MS {
            return VersionPut::NotPut;
        }
        self.observed = self.observed.max(time);
        let versions = self.of.entry(key.to_owned()).or_default();
        versions.insert(time, value);
        versions.range(time + 1..).next().map_or(VersionPut::Latest, |(next, _)| VersionPut::ValidTo(*next))
    }

    fn get(&self, key: &str, as_of: i64) -> Option<VersionedRecord<String>> {
        let versions = self.of.get(key)?;
        let (timestamp, value) = versions.range(..=as_of).next_back()?;
        let valid_to = versions.range(timestamp + 1..).next().map(|(next, _)| *next);
        if valid_to.is_some() && as_of < self.observed - RETENTION_MS {
            return None;
        }
        Some(VersionedRecord { value: value.clone()?, timestamp: *timestamp, valid_to })
    }
}

pub(super) fn check_versions(place: &impl Place, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let builder = Stores::versioned_key_value("v", Duration::from_millis(RETENTION_MS as u64), Utf8, Utf8);
    let mut store = builder.open(0);
    let mut committer = Committer { place, spec: Arc::clone(&builder.spec), log: Vec::new() };
    let mut task = Task(place.open(&builder.spec), RecordContext::default());
    let mut model = Versions { observed: -1, ..Versions::default() };
    let mut committed = model.clone();
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Put { key, value, time, .. } => {
                let value = value.then(|| format!("v{n}"));
                let put = store.put(&mut task, &key, value.as_ref(), time).unwrap();
                prop_assert_eq!(put, model.put(&key, value, time));
            }
            Step::One { key, time, .. } => {
                let old = model.get(&key, time);
                let put = model.put(&key, None, time);
                let deleted = store.delete(&mut task, &key, time).unwrap();
                prop_assert_eq!(deleted, old.filter(|_| put != VersionPut::NotPut));
            }
            Step::Range { key, from, .. } => {
                let found = store.get_as_of(&mut task, &key, from).unwrap();
                prop_assert_eq!(found, model.get(&key, from));
            }
            Step::Keys { .. } => {}
            Step::Commit => {
                committer.commit(&mut task);
                committed = model.clone();
            }
            Step::Abort => {
                task.0.discard();
                model = committed.clone();
            }
            Step::Reopen => {
                committer.reopen(&mut task);
                model = committed.clone();
            }
        }
        for key in ["", "a", "a\0", "aa", "b"] {
            prop_assert_eq!(store.get(&mut task, &key.to_owned()).unwrap(), model.get(key, i64::MAX - 1));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_window_store_does_as_its_model(steps in steps(), in_memory: bool, caching: bool) {
        check_windows(&InMemory(if caching { 1 << 20 } else { 0 }), (false, in_memory, caching), steps)?;
    }

    #[test]
    fn a_window_store_with_duplicates_does_as_its_model(steps in steps(), in_memory: bool) {
        check_windows(&InMemory(0), (true, in_memory, false), steps)?;
    }

    #[test]
    fn a_session_store_does_as_its_model(steps in steps(), in_memory: bool, caching: bool) {
        check_sessions(&InMemory(if caching { 1 << 20 } else { 0 }), (in_memory, caching), steps)?;
    }

    #[test]
    fn a_versioned_store_does_as_its_model(steps in steps()) {
        check_versions(&InMemory(0), steps)?;
    }
}
