//! One store of a task, as bytes: cache above buffer above engine.

use std::ops::Bound;
use std::sync::Arc;

use super::as_of::AsOf;
use super::buffer_log;
use super::cache::{CacheBudget, Evicted, Ranges, RecordCache, Taken};
use super::engine::{At, Engine, Scan};
use super::expiry::Expiry;
use super::global_store::Sharing;
use super::known_rows::{KnownRows, Names};
use super::lru::LastUses;
use super::merge::{Direction, Page, Rows, is_empty_range, merge};
use super::meta::ChangelogIdentity;
use super::restore_plan::StoreCondition;
use super::retention::{History, Retention};
use super::run::Run;
use super::spec::{EngineKind, LoggedHeaders, StoreSpec};
use super::write_buffer::WriteBuffer;
use crate::error::{Error, Result};
use crate::record::ConsumerRecord;

#[derive(Debug)]
pub(super) struct Store {
    pub(super) spec: Arc<StoreSpec>,
    pub(super) cache: RecordCache,
    pub(super) buffer: WriteBuffer,
    pub(super) engine: Engine,
    /// How it was found when it was opened.
    pub(super) condition: StoreCondition,
    pub(super) changelog: Option<ChangelogIdentity>,
    /// Of a windowed store.
    pub(super) retention: Option<Retention>,
    /// Of a windowed store.
    pub(super) known: Option<KnownRows>,
    /// Of a versioned store.
    pub(super) history: Option<History>,
    /// Of a store whose rows live for some time only.
    pub(super) expiry: Option<Expiry>,
    /// Of a store with a bounded number of rows.
    pub(super) last_uses: Option<LastUses>,
    /// Keeps rows of one key and time apart: the last number, and the last one of a row that is committed.
    pub(super) sequence: Option<u32>,
    pub(super) committed_sequence: Option<u32>,
    /// The number of the last row that was kept.
    pub(super) row_sequence: u32,
    /// The operator that forwards what the cache has held back; none: the cache writes through by itself.
    pub(super) forwards: bool,
    /// The dirty rows of the cache are being taken: nothing is evicted in between.
    pub(super) flushing: bool,
    pub(super) sharing: Sharing,
    pub(super) as_of: AsOf,
    /// Rows of the changelog that are collected while it is restored.
    pub(super) run: Option<Run>,
}

/// How far a changelog is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadTo {
    pub(super) next_offset: i64,
    /// Where the changelog ended then, as far as it is known.
    pub(super) end: i64,
}

/// How rows are given to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Of a commit.
    Batch,
    /// Of the changelog.
    RestoredBatch,
    /// Of the changelog, and many.
    File,
}

impl Store {
    pub(super) fn new(
        spec: &Arc<StoreSpec>,
        changelog: Option<ChangelogIdentity>,
        engine: Engine,
        budget: &CacheBudget,
    ) -> Store {
        let ranges = if spec.kind.windowed().is_some() { Ranges::All } else { Ranges::Dirty };
        let (buffer, cache) = (WriteBuffer::default(), RecordCache::new(budget.clone(), ranges));
        let condition = StoreCondition::Empty;
        let spec = Arc::clone(spec);
        let expiry = spec.ttl_ms.map(Expiry::new);
        let time = engine.stream_time();
        let retention = spec.kind.windowed().map(|(retention_ms, keys)| Retention::new(retention_ms, keys, time));
        let known = spec.kind.windowed().map(|(retention_ms, keys)| KnownRows::new(retention_ms, keys));
        let last_uses = if let EngineKind::Lru(rows_max) = spec.engine { Some(LastUses::new(rows_max)) } else { None };
        let history = spec.kind.versioned().map(|kind| History::new(kind, time));
        let (sequence, forwards, flushing, sharing) = (None, false, false, Sharing::None);
        Store {
            spec,
            cache,
            buffer,
            engine,
            condition,
            changelog,
            retention,
            known,
            history,
            expiry,
            last_uses,
            sequence,
            committed_sequence: None,
            row_sequence: 0,
            forwards,
            flushing,
            sharing,
            as_of: AsOf::default(),
            run: None,
        }
    }

    /// Forgets what is not in the engine, the read cache too.
    pub(super) fn forget(&mut self) {
        self.drop_run();
        self.buffer.forget();
        self.cache.clear();
        self.sharing.forget();
        if let Some(retention) = &mut self.retention {
            retention.abort();
        }
        self.known.iter_mut().for_each(KnownRows::forget);
        if let Some(history) = &mut self.history {
            history.abort();
        }
        self.expiry.iter_mut().for_each(Expiry::forget);
        self.last_uses.iter_mut().for_each(LastUses::abort);
        // Back too, so that no number is larger than the changelog's offset.
        self.sequence = self.committed_sequence;
        self.forwards = false;
        self.flushing = false;
    }

    /// Forgets everything.
    pub(super) fn wipe(&mut self) -> Result<()> {
        self.forget();
        self.retention.iter_mut().for_each(Retention::wipe);
        self.history.iter_mut().for_each(History::wipe);
        (self.sequence, self.committed_sequence) = (None, None);
        self.condition = StoreCondition::Empty;
        self.engine.wipe()
    }

    /// Takes note of what the thread that writes the store has applied, if it is another one.
    #[inline]
    pub(super) fn follow(&mut self) {
        if let Some(stream_time) = self.sharing.changed() {
            self.buffer.forget();
            self.retention.iter_mut().for_each(|retention| retention.follow(stream_time));
            self.history.iter_mut().for_each(|history| history.follow(stream_time));
        }
    }

    /// The largest time that was put to a store whose rows expire.
    pub(super) fn stream_time(&self) -> i64 {
        let windows = self.retention.as_ref().map(Retention::observed);
        windows.or(self.history.as_ref().map(History::observed)).unwrap_or(-1)
    }

    /// Goes on from the time of an earlier life.
    pub(super) fn resume_time(&mut self, time: i64) {
        self.retention.iter_mut().for_each(|retention| retention.resume(time));
        self.history.iter_mut().for_each(|history| history.resume(time));
    }

    /// Differs from Kafka Streams: there the cache of a windowed store shows rows that the store below does not show any more,
    /// until something else takes their place. What is in a cache is gone after a crash, so results would not be the same.
    pub(super) fn hide_expired(&mut self) {
        self.cache.show_in_ranges(Ranges::Dirty);
    }

    /// Whether a row in the cache is one that is not shown.
    pub(super) fn hides(&self, key: &[u8]) -> bool {
        let Some(retention) = self.retention.as_ref().filter(|_| self.cache.ranges() == Ranges::Dirty) else {
            return false;
        };
        !retention.shows(key) && !self.cache.is_dirty(key)
    }

    /// Rows were applied: says so to those that read them, if anything has changed for them.
    pub(super) fn tell_readers(&self, has_rows: bool) {
        let stream_time = self.stream_time();
        if has_rows || self.sharing.told_time().is_some_and(|told| told != stream_time) {
            self.sharing.change(stream_time);
        }
    }

    /// The row below the cache.
    pub(super) fn get_below(&mut self, key: &[u8]) -> Result<Option<&[u8]>> {
        self.follow();
        if self.retention.as_ref().is_some_and(|retention| !retention.shows(key)) {
            return Ok(None);
        }
        if self.last_uses.is_some() {
            self.known_uses()?.read(key);
        }
        self.buffer.get(key, &mut self.engine)
    }

    /// A row of a windowed store is about to be put, or deleted.
    pub(super) fn note(&mut self, key: &[u8], has_value: bool) -> Result<()> {
        if self.known.as_ref().is_some_and(KnownRows::begins_with_put) {
            self.begin_to_know()?;
        }
        if let (Some(known), Some(retention)) = (&mut self.known, &self.retention) {
            known.put(key, has_value, retention.first_visible());
        }
        Ok(())
    }

    /// Finds the rows of a key of a windowed store in a span of time, as far as they are known: those of the time that is
    /// returned and later. Some may be gone.
    pub(super) fn known_rows(&mut self, key: &[u8], times: (i64, i64), names: &mut Names) -> Result<i64> {
        if self.retention.as_ref().is_none_or(Retention::shows_expired) {
            return Ok(i64::MAX);
        }
        if self.known.as_ref().is_some_and(|known| !known.has_begun()) {
            self.begin_to_know()?;
        }
        Ok(self.known.as_ref().map_or(i64::MAX, |known| known.find(key, times, names)))
    }

    /// Reads the names of the rows that are there, bucket by bucket, as far as they may be kept.
    fn begin_to_know(&mut self) -> Result<()> {
        let Store { cache, buffer, engine, retention, known, sharing, .. } = self;
        let (Some(known), Some(retention), false) = (known, retention, sharing.is_read_only()) else { return Ok(()) };
        known.begin(retention.newest());
        let first_visible = retention.first_visible();
        while let Some((from, to)) = known.begin_earlier(first_visible.max(0)) {
            let (from, to) = (retention.keys.prefix(from).to_be_bytes(), retention.keys.prefix(to).saturating_add(1));
            let (from, to) = (Bound::Included(&from[..]), to.to_be_bytes());
            let to = Bound::Excluded(&to[..]);
            let mut has_room = true;
            engine.scan(from, to, Direction::Forward, |row, _| {
                has_room = known.put_earlier(row, first_visible);
                if has_room { Scan::Next } else { Scan::Enough }
            })?;
            // A deletion of a row above hides the one below, which is then a name of nothing.
            let mut put =
                |(row, value): (&[u8], Option<&[u8]>)| value.is_none() || known.put_earlier(row, first_visible);
            has_room = has_room && buffer.range(from, to).all(&mut put);
            // Where nothing is held back, nothing has to be put into order.
            has_room = has_room && (cache.is_empty() || cache.range(from, to).all(&mut put));
            if !has_room {
                break;
            }
        }
        Ok(())
    }

    /// Takes a share of the read cache: rows, and what is known of them.
    pub(super) fn set_read_cache(&mut self, bytes: usize) {
        // The rows of a store in memory are at hand already.
        let is_at_hand = matches!(self.engine, Engine::Memory(_) | Engine::Shared(_));
        let mut known_bytes = 0;
        if let Some(known) = &mut self.known {
            known.set_bytes_max(if is_at_hand { usize::MAX } else { bytes / 2 });
            known_bytes = known.bytes();
        }
        self.buffer.set_clean_bytes_max(if is_at_hand { 0 } else { bytes.saturating_sub(known_bytes) });
    }

    /// Notes that a row of a bounded store was written or deleted: the row that has to go for it.
    pub(super) fn make_room(&mut self, key: &[u8], has_value: bool) -> Result<Option<Vec<u8>>> {
        if self.last_uses.is_none() {
            return Ok(None);
        }
        let uses = self.known_uses()?;
        if has_value {
            return Ok(uses.written(key));
        }
        uses.deleted(key);
        Ok(None)
    }

    /// A record of the changelog of a suppressed table as the row of today's format; none: it is that already.
    pub(super) fn converted(&mut self, key: &[u8], record: &ConsumerRecord<'_>) -> Result<Option<Vec<u8>>> {
        let Some(value) = record.value else { return Ok(None) };
        if self.spec.logs_headers != LoggedHeaders::OfFormat || buffer_log::is_of_today(record.headers) {
            return Ok(None);
        }
        let (topic, partition) = self.changelog.as_ref().map_or(("", 0), |log| (&*log.topic, log.partition));
        let before = self.buffer.get(key, &mut self.engine)?;
        let row = buffer_log::row_of(&ConsumerRecord { partition, ..*record }, value, topic, before);
        row.map(Some).map_err(|error| self.unreadable(record).with_source(error))
    }

    /// A record of its changelog that no such store has written.
    ///
    /// IMPORTANT: not `Corrupted`, which is of the store: by that its reader would begin it anew, and come to the same record.
    #[cold]
    pub(super) fn unreadable(&self, record: &ConsumerRecord<'_>) -> Error {
        let (store, offset) = (&self.spec.name, record.offset);
        let (topic, partition) = self.changelog.as_ref().map_or(("", 0), |log| (&*log.topic, log.partition));
        Error::invalid(format!(
            "could not restore store {store}: what is at offset {offset} of {topic}[{partition}] was not written by a store of \
             its kind; if the program has changed, give the store another name, or begin anew with kstreams reset"
        ))
    }

    fn known_uses(&mut self) -> Result<&mut LastUses> {
        let stale = self.last_uses.as_ref().is_some_and(LastUses::is_stale);
        let rows = if stale { self.page(Bound::Unbounded, Bound::Unbounded, false, usize::MAX)? } else { Rows::new() };
        let uses = self.last_uses.get_or_insert_with(|| LastUses::new(usize::MAX));
        if stale {
            uses.refresh(rows.into_iter().map(|(key, _)| key).collect());
        }
        Ok(uses)
    }

    /// Rows in byte order, as the task sees them.
    pub(super) fn page(&mut self, from: Bound<&[u8]>, to: Bound<&[u8]>, reverse: bool, limit: usize) -> Result<Rows> {
        if is_empty_range(from, to) {
            return Ok(Rows::new());
        }
        self.follow();
        let Store { cache, buffer, engine, retention, .. } = self;
        let page = Page { from, to, direction: Direction::of(reverse), limit };
        let Some(retention) = retention else {
            return merge(cache.range(from, to), buffer.range(from, to), engine, &page, |_| true);
        };
        let rows = buffer.range(from, to).filter(|(key, _)| retention.shows(key));
        // Expired rows lie before it, as many as have not been cleared away yet.
        let first = retention.first_key();
        let from_first = match from {
            Bound::Included(from) | Bound::Excluded(from) if *from >= first[..] => page.from,
            Bound::Included(_) | Bound::Excluded(_) | Bound::Unbounded => Bound::Included(&first[..]),
        };
        let nothing = (Bound::Included(&b""[..]), Bound::Excluded(&b""[..]));
        let (from_first, to_last) = if is_empty_range(from_first, to) { nothing } else { (from_first, to) };
        let page = Page { from: from_first, to: to_last, ..page };
        merge(cache.range(from, to), rows, engine, &page, |key| retention.shows(key))
    }

    /// The next row of a flush. The first call of a flush makes room, if this store is the one that has to.
    pub(super) fn next_dirty(&mut self, is_written: bool) -> Option<Taken> {
        if is_written && !self.flushing && self.cache.evict() == Evicted::Clean && self.cache.dirty_bytes() == 0 {
            return None;
        }
        let taken = self.cache.take_dirty();
        self.flushing = taken.is_some();
        taken
    }

    /// Makes the buffer committed rows.
    pub(super) fn apply(&mut self, at: At<'_>) -> Result<()> {
        self.write(at, Form::Batch)
    }

    /// The same for rows of the changelog, which have come as far as an offset.
    pub(super) fn write_as(&mut self, to: ReadTo, now_ms: i64, form: Form) -> Result<()> {
        let mut as_of = self.as_of;
        let as_of_ms = Some(as_of.read_to(to.next_offset, to.end, now_ms));
        self.write(At { next_offset: Some(to.next_offset), now_ms, as_of_ms, ..At::default() }, form)?;
        self.as_of = as_of;
        self.tell_readers(true);
        Ok(())
    }

    fn write(&mut self, at: At<'_>, form: Form) -> Result<()> {
        if self.buffer.dirty_len() > 0 || at.next_offset.is_some() || !at.positions.is_empty() {
            self.buffer.sort();
            let windows = self.retention.as_ref().map(Retention::observed);
            let stream_time = windows.or(self.history.as_ref().map(History::observed));
            let (rows, at) = (self.buffer.dirty(), At { stream_time, ..at });
            match form {
                Form::Batch => self.engine.apply(rows, at)?,
                Form::RestoredBatch => self.engine.restore(rows, at)?,
                Form::File => self.engine.take_run(rows, at)?,
            }
            self.buffer.commit();
            self.has_written(stream_time)?;
        }
        Ok(())
    }

    /// The engine has what was put up to a time.
    pub(super) fn has_written(&mut self, stream_time: Option<i64>) -> Result<()> {
        self.committed_sequence = self.sequence;
        let Some(stream_time) = stream_time else { return Ok(()) };
        // IMPORTANT: the time after a crash. The rows of the commits that are read again then may ask for what has expired
        // since: a late version that follows a deletion must meet it.
        let durable = |observed| self.engine.durable_stream_time(observed);
        let expired = match (&mut self.retention, &mut self.history) {
            (Some(retention), _) => retention.commit(stream_time, durable)?,
            (None, Some(history)) => history.commit(stream_time, durable)?,
            (None, None) => None,
        };
        if let Some(expired) = expired {
            self.engine.clear(expired)?;
        }
        Ok(())
    }
}
