//! A partition that is being read: what was asked for, what is buffered, what is known of its end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::codec::Malformed;
use super::super::now;
use super::aborted::Aborted;
use super::records::{Chunk, Then, Tools, survey};
use super::wire::{Fetched, Wanted};
use crate::client::{Fetch, Isolation, Lag};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{RecordBatch, TopicPartition};

/// Answers that are buffered: one that is read, and one ahead.
const CHUNKS_MAX: usize = 2;

/// How often the same records are fetched again when they are damaged, and the pause after that: another leader may have them
/// whole.
const DAMAGE_MAX: u32 = 3;
const DAMAGE_PAUSE: Duration = Duration::from_secs(10);

/// The pause before a partition is asked for again that could not be read; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Memory of chunks that are used up, for the next ones.
#[derive(Debug, Default)]
pub(super) struct Spare(Vec<Vec<u8>>);

impl Spare {
    const PIECES_MAX: usize = 4;
    const BYTES_MAX: usize = 8 << 20;

    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    fn give(&mut self, chunk: Chunk) {
        for mut piece in chunk.into_parts() {
            if self.0.len() < Spare::PIECES_MAX && (1..=Spare::BYTES_MAX).contains(&piece.capacity()) {
                piece.clear();
                self.0.push(piece);
            }
        }
    }
}

/// Who leads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) broker: i32,
    pub(super) epoch: i32,
}

/// What a broker's word on a partition leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Something that a caller waits for, or not.
    New,
    Nothing,
    /// Something that is not read here.
    Foreign,
}

#[derive(Debug)]
pub(super) struct Reading {
    /// Other than that of every earlier assignment.
    pub(super) assignment: u64,
    /// The offset after everything given or skipped.
    pub(super) position: i64,
    /// The offset after what is buffered, which is asked for next, and the leader epoch of the batch before it; -1: none.
    pub(super) next: i64,
    pub(super) fetched_epoch: i32,
    chunks: VecDeque<Chunk>,
    /// The offset after what may be seen, by the last answer.
    end: Option<i64>,
    pub(super) leader: Option<Leader>,
    /// A broker is asked for it.
    pub(super) is_asked: bool,
    /// Something was given since it was last looked at.
    pub(super) is_taken: bool,
    /// It is not asked for before.
    pub(super) not_before: Option<Instant>,
    /// Failures in a row.
    tries: u32,
    /// Who got something longer ago is served first.
    pub(super) served: u64,
    /// Since when brokers say that it does not exist.
    pub(super) missing_since: Option<Instant>,
    is_out_of_range: bool,
    /// How often what is at the position was damaged in a row, and in what way.
    damage: u32,
    damaged: Option<Malformed>,
}

impl Reading {
    /// `leader`: the last one that is known.
    pub(super) fn new(assignment: u64, position: i64, leader: Option<Leader>) -> Reading {
        Reading {
            assignment,
            position,
            next: position,
            fetched_epoch: -1,
            chunks: VecDeque::new(),
            end: None,
            leader,
            is_asked: false,
            is_taken: false,
            not_before: None,
            tries: 0,
            served: 0,
            missing_since: None,
            is_out_of_range: false,
            damage: 0,
            damaged: None,
        }
    }

    pub(super) fn end(&self) -> Option<i64> {
        self.end
    }

    pub(super) fn lag(&self) -> Lag {
        match self.end {
            None => Lag::Unknown,
            Some(end) if self.position >= end => Lag::CaughtUp,
            Some(_) => Lag::Behind,
        }
    }

    /// Whether more of it may be buffered.
    pub(super) fn has_room(&self) -> bool {
        self.chunks.len() < CHUNKS_MAX && !self.is_out_of_range && self.damage < DAMAGE_MAX
    }

    pub(super) fn is_led_by(&self, broker: i32) -> bool {
        self.leader.is_some_and(|leader| leader.broker == broker)
    }

    /// Whether this broker is to be asked for more of it now.
    pub(super) fn is_wanted(&self, broker: i32, now: Instant) -> bool {
        self.is_led_by(broker) && !self.is_asked && self.has_room() && !self.is_paused(now)
    }

    pub(super) fn wanted<'a>(&self, partition: &'a TopicPartition) -> Wanted<'a> {
        Wanted {
            partition,
            offset: self.next,
            leader_epoch: self.leader.map_or(-1, |leader| leader.epoch),
            fetched_epoch: self.fetched_epoch,
        }
    }

    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|time| now < time)
    }

    /// Whether a caller would get something.
    pub(super) fn has_more(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// It cannot be read for now; its leader may be another one.
    pub(super) fn failed(&mut self, now: Instant) {
        let pause = PAUSE_MIN.saturating_mul(1 << self.tries.min(10)).min(PAUSE_MAX);
        self.tries = self.tries.saturating_add(1);
        self.not_before = Some(now + pause);
        self.leader = None;
    }

    /// What is not in the log (any more).
    pub(super) fn out_of_range(&mut self) {
        self.is_out_of_range = true;
    }

    /// Takes what the leader has answered, without an error.
    pub(super) fn heard(&mut self, fetched: &mut Fetched<'_>, isolation: Isolation, spare: &mut Spare) -> Heard {
        self.tries = 0;
        self.not_before = None;
        self.missing_since = None;
        let surveyed = survey(fetched.records).and_then(|survey| match survey.end {
            Some((end, _)) if end <= self.next => Err(Malformed("its batches lie before what was asked for")),
            _ => Ok(survey),
        });
        let survey = match surveyed {
            Ok(survey) => survey,
            Err(malformed) => {
                self.damage(malformed, spare);
                return Heard::New;
            }
        };
        let before = (self.lag(), self.end);
        let is_stable = isolation == Isolation::ReadCommitted && fetched.stable_end >= 0;
        self.end = Some(if is_stable { fetched.stable_end } else { fetched.high_watermark });
        let Some((end, epoch)) = survey.end else {
            return match survey.then {
                Then::Foreign => Heard::Foreign,
                Then::Nothing if before == (self.lag(), self.end) => Heard::Nothing,
                Then::Nothing => Heard::New,
            };
        };
        let mut bytes = spare.take();
        bytes.extend_from_slice(fetched.records.get(..survey.bytes).unwrap_or_default());
        self.chunks.push_back(Chunk::new(bytes, end, Aborted::new(std::mem::take(&mut fetched.aborted)), spare.take()));
        (self.next, self.fetched_epoch) = (end, epoch);
        Heard::New
    }

    /// Forgets what is buffered: it is fetched again.
    fn damage(&mut self, malformed: Malformed, spare: &mut Spare) {
        self.chunks.drain(..).for_each(|chunk| spare.give(chunk));
        (self.next, self.fetched_epoch) = (self.position, -1);
        self.damage += 1;
        self.damaged = Some(malformed);
    }

    /// Appends records. See [`Consumer::fetch`](crate::client::Consumer::fetch).
    pub(super) fn fetch(
        &mut self,
        partition: &TopicPartition,
        records_max: usize,
        (tools, spare): (&mut Tools, &mut Spare),
        batch: &mut RecordBatch,
    ) -> Result<Fetch> {
        let before = batch.len();
        let full = before.saturating_add(records_max);
        while batch.len() < full
            && let Some(chunk) = self.chunks.front_mut()
        {
            self.is_taken = true;
            match chunk.read(&mut self.position, full - batch.len(), tools, batch) {
                Ok(false) => {}
                Ok(true) => {
                    self.chunks.pop_front().into_iter().for_each(|chunk| spare.give(chunk));
                    self.damage = 0;
                }
                Err(malformed) => self.damage(malformed, spare),
            }
        }
        if batch.len() > before || !self.chunks.is_empty() {
            return Ok(Fetch::Records);
        }
        if self.damage >= DAMAGE_MAX
            && let Some(malformed) = self.damaged.take()
        {
            // IMPORTANT: not `Corrupted`, by which a caller would begin its store anew, from records that are no better.
            self.damage = 0;
            self.not_before = Some(now() + DAMAGE_PAUSE);
            self.leader = None;
            let context = format!(
                "could not read {partition} at offset {}, fetched {DAMAGE_MAX} times: {malformed}; look at the log of its \
                 leader with kafka-dump-log",
                self.position
            );
            // Whoever waits for it tries again without a word.
            tracing::warn!("{context}");
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        Ok(if self.is_out_of_range { Fetch::OutOfRange } else { Fetch::Records })
    }
}
