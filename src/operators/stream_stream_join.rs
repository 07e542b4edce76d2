//! Joins two streams over a window of time.
//!
//! ```text
//!   left  -> JoinWindow (keeps it) -> StreamJoin  \
//!                                                  merge -> both look into the other's window
//!   right -> JoinWindow (keeps it) -> StreamJoin  /
//! ```
//!
//! A record first looks for partners and is kept after that, so that it never joins itself. The two sides share a clock, and
//! in a left or outer join a store of records that nothing has joined yet: they go on alone once their window has closed.

use std::cell::Cell;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use super::outer_join_store::{OuterJoinRow, OuterJoinStore};
use crate::error::Result;
use crate::record::{Headers, Record};
use crate::serdes::{DynSerde, encode};
use crate::state::{Side, WindowStore};
use crate::topology::{Processor, ProcessorContext, ProcessorInit};

/// Joins this side's value with the other's, one of which may be missing; none joins nothing.
///
/// By reference: a record joins any number of others, and nothing is copied for it.
pub(crate) type StreamJoiner<K, V, VO, VR> = Arc<dyn Fn(&K, Option<&V>, Option<&VO>) -> Option<VR> + Send + Sync>;

/// Passes a record on and keeps it for those of the other side that come later.
pub(crate) struct JoinWindow<K, V> {
    pub key: DynSerde<K>,
    pub rows: WindowStore<K, V>,
}

impl<K: 'static, V: 'static> Processor<K, V> for JoinWindow<K, V> {
    type KeyOut = K;
    type ValueOut = V;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, V>) -> Result<()> {
        if self.key.is_null(&record.key) {
            return ctx.forward(record);
        }
        // Encoded now, because the record is gone afterwards. What cannot be encoded has been joined all the same.
        let row = self.rows.encode(&record.key, &record.value);
        let (timestamp, headers) = (record.timestamp, record.headers.clone());
        ctx.forward(record)?;
        ctx.task.record.headers = headers;
        self.rows.put_encoded(ctx.task, row?, timestamp)
    }
}

/// What the two sides of a left or outer join have in common, in one task; an inner join has no use for it.
///
/// All but the wall clock's part is committed with the offsets, exactly once. At least once, what is to be given up first is
/// forgotten with the task, as in Java.
#[derive(Debug, Default)]
pub(crate) struct JoinClock {
    /// The largest timestamp of both sides.
    stream_time: Rc<Cell<i64>>,
    /// Not before a record of this time can be given up; a guess that may be too late, as Java's is.
    min_time: Rc<Cell<i64>>,
    /// Not 0: it is known what an earlier life of the task has left in the store.
    has_looked: Rc<Cell<i64>>,
    /// The clock of the machine has to show at least this for another look. Not remembered: it is another machine's clock
    /// after a restart, and a look too many only comes earlier.
    next_emit_ms: Rc<Cell<i64>>,
}

impl JoinClock {
    /// The one of a name. It goes on as it was at the last commit, or else from the time of what one of the sides has kept.
    pub(crate) fn open(init: &mut ProcessorInit<'_>, name: &Arc<str>, guess: i64) -> Result<JoinClock> {
        let next_emit_ms = init.shared(name)?;
        let times = &mut init.task.times;
        Ok(JoinClock {
            stream_time: times.named(&format!("{name}/stream-time"), guess),
            min_time: times.named(&format!("{name}/min-time"), i64::MAX),
            has_looked: times.named(&format!("{name}/has-looked"), 0),
            next_emit_ms,
        })
    }
}

/// How far apart records may be, seen from a side, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub before_ms: i64,
    pub after_ms: i64,
    pub grace_ms: i64,
}

impl Bounds {
    /// As the other side sees it.
    pub(crate) fn reversed(self) -> Bounds {
        Bounds { before_ms: self.after_ms, after_ms: self.before_ms, ..self }
    }

    /// The first and the last time of a partner.
    pub(super) fn around(self, timestamp: i64) -> (i64, i64) {
        (timestamp.saturating_sub(self.before_ms).max(0), timestamp.saturating_add(self.after_ms).max(0))
    }
}

/// One side of a join of two streams.
pub(crate) struct StreamJoin<K, V, VO, VR> {
    pub name: Arc<str>,
    pub side: Side,
    pub key: DynSerde<K>,
    pub value: DynSerde<V>,
    pub other_value: DynSerde<VO>,
    pub bounds: Bounds,
    /// Whether a record of this side that nothing joins goes on alone.
    pub is_outer: bool,
    /// The window of the other side.
    pub other: WindowStore<K, VO>,
    /// There in left and outer joins, on both sides.
    pub unmatched: Option<OuterJoinStore>,
    pub emit_interval_ms: i64,
    pub clock: JoinClock,
    pub joiner: StreamJoiner<K, V, VO, VR>,
    /// Scratch.
    pub key_bytes: Vec<u8>,
}

/// Rows of records to give up that are read at once.
const PAGE: usize = 256;

impl<K: Clone + 'static, V: 'static, VO: 'static, VR: 'static> Processor<K, V> for StreamJoin<K, V, VO, VR> {
    type KeyOut = K;
    type ValueOut = VR;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, VR>) -> Result<()> {
        let timestamp = record.timestamp;
        self.clock.stream_time.set(self.clock.stream_time.get().max(timestamp));
        let is_null = self.key.is_null(&record.key);
        if self.value.is_null(&record.value) || (is_null && !self.is_outer) {
            ctx.task.drop_record(&self.name, "its key or value is null");
            return Ok(());
        }
        if is_null {
            return self.forward_alone(record, ctx); // KIP-962
        }
        if timestamp == self.clock.stream_time.get() {
            self.give_up(&record.headers, ctx)?;
        }
        if self.unmatched.is_some() {
            self.key_bytes.clear();
            self.key.serialize(&record.key, &mut self.key_bytes)?;
        }
        let (from, to) = self.bounds.around(timestamp);
        let mut others = self.other.fetch_range(&record.key, from, to)?;
        let Some(mut other) = others.next(ctx.task)? else {
            return if self.is_outer { self.found_nobody(record, to, ctx) } else { Ok(()) };
        };
        let Record { key, value, headers, .. } = record;
        loop {
            let next = others.next(ctx.task)?;
            let (other_time, other_value) = other;
            if let Some(unmatched) = &mut self.unmatched {
                let other = (other_time, self.side.other(), self.key_bytes.as_slice());
                unmatched.remove(other, &mut ctx.task.stores, &ctx.task.record)?;
            }
            let joined = (self.joiner)(&key, Some(&value), Some(&other_value));
            let timestamp = timestamp.max(other_time);
            match (joined, next) {
                // The last one takes the key and the headers with it.
                (Some(value), None) => return ctx.forward(Record { key, value, timestamp, headers }),
                (None, None) => return Ok(()),
                (joined, Some(next)) => {
                    if let Some(value) = joined {
                        ctx.forward(Record { key: key.clone(), value, timestamp, headers: headers.clone() })?;
                    }
                    other = next;
                }
            }
        }
    }
}

impl<K: Clone + 'static, V: 'static, VO: 'static, VR: 'static> StreamJoin<K, V, VO, VR> {
    fn forward_alone(&self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, VR>) -> Result<()> {
        match (self.joiner)(&record.key, Some(&record.value), None) {
            Some(value) => ctx.forward(record.with_value(value)),
            None => Ok(()),
        }
    }

    /// A record waits for partners until its window has closed; if that has been, it goes on alone at once.
    fn found_nobody(
        &mut self,
        record: Record<K, V>,
        window_end: i64,
        ctx: &mut ProcessorContext<'_, K, VR>,
    ) -> Result<()> {
        let Some(unmatched) = self.unmatched.as_mut().filter(|_| window_end >= self.clock.stream_time.get()) else {
            return self.forward_alone(record, ctx);
        };
        self.clock.min_time.set(self.clock.min_time.get().min(record.timestamp));
        let place = (record.timestamp, self.side, self.key_bytes.as_slice());
        let write = |bytes: &mut Vec<u8>| encode(&*self.value, &record.value, bytes).map(|_| ());
        unmatched.add(place, write, &mut ctx.task.stores, &ctx.task.record)
    }

    /// Sends the records on whose window has closed without a partner: at their own time, with the headers of the record
    /// that has moved the time.
    fn give_up(&self, headers: &Headers, ctx: &mut ProcessorContext<'_, K, VR>) -> Result<()> {
        let Some(unmatched) = &self.unmatched else { return Ok(()) };
        let JoinClock { stream_time, min_time, has_looked, next_emit_ms } = &self.clock;
        let Bounds { after_ms, grace_ms, .. } = self.bounds;
        let (earliest, now) = (min_time.get(), ctx.task.wall_clock_ms);
        // Wraps around while nothing is kept: the interval begins all the same, as in Java.
        let is_too_early = earliest.wrapping_add(after_ms).wrapping_add(grace_ms) >= stream_time.get();
        let is_unknown = earliest == i64::MAX && has_looked.get() == 0;
        if (is_too_early && !is_unknown) || now < next_emit_ms.get() {
            return Ok(());
        }
        if !is_too_early {
            next_emit_ms.set(now.saturating_add(self.emit_interval_ms));
        }
        has_looked.set(1);
        if earliest == i64::MAX && !is_unknown {
            return Ok(()); // the store is empty
        }
        min_time.set(i64::MAX);
        let (mut left_is_open, mut right_is_open) = (false, false);
        let mut after = Bound::Unbounded;
        let mut previous: Option<Vec<u8>> = None;
        'store: loop {
            let page = unmatched.page(after.as_ref().map(Vec::as_slice), PAGE, &mut ctx.task.stores)?;
            let more = (page.len() == PAGE).then(|| page.last().map(|row| row.row_key.clone())).flatten();
            for row in page {
                min_time.set(row.timestamp);
                if left_is_open && right_is_open {
                    break 'store;
                }
                if self.is_open(&row) {
                    match row.side {
                        Side::Left => left_is_open = true,
                        Side::Right => right_is_open = true,
                    }
                    continue;
                }
                self.forward_row(&row, headers, ctx)?;
                // Only now that all records of the row before are on their way.
                if let Some(previous) = previous.replace(row.row_key) {
                    unmatched.remove_row(&previous, &mut ctx.task.stores, &ctx.task.record)?;
                }
            }
            match more {
                Some(last) => after = Bound::Excluded(last),
                None => break,
            }
        }
        match previous {
            Some(previous) => unmatched.remove_row(&previous, &mut ctx.task.stores, &ctx.task.record),
            None => Ok(()),
        }
    }

    /// Whether a partner of the row may still come.
    fn is_open(&self, row: &OuterJoinRow) -> bool {
        let bounds = if row.side == self.side { self.bounds } else { self.bounds.reversed() };
        let end = row.timestamp.saturating_add(bounds.after_ms).saturating_add(bounds.grace_ms);
        end >= self.clock.stream_time.get()
    }

    fn forward_row(&self, row: &OuterJoinRow, headers: &Headers, ctx: &mut ProcessorContext<'_, K, VR>) -> Result<()> {
        let timestamp = row.timestamp;
        for value in row.values()? {
            let key = self.key.deserialize(row.key()?)?;
            let joined = if row.side == self.side {
                (self.joiner)(&key, Some(&self.value.deserialize(value)?), None)
            } else {
                (self.joiner)(&key, None, Some(&self.other_value.deserialize(value)?))
            };
            if let Some(value) = joined {
                ctx.forward(Record { key, value, timestamp, headers: headers.clone() })?;
            }
        }
        Ok(())
    }
}
