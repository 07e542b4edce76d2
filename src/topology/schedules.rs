//! When punctuations are due.

use super::NodeId;

/// A schedule, as the processor that made it knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Punctuation(usize);

/// Which clock drives a punctuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PunctuationType {
    /// The timestamps of records. Aligned to zero, so first due with the first record. Without records it stands still.
    StreamTime,
    /// The clock of the machine. First due one interval after it was scheduled; checked between records.
    WallClockTime,
}

/// The schedules of a task; they live as long as its pipeline, and makers schedule anew.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    schedules: Vec<Schedule>,
    /// How often a schedule was put in line.
    queued: u64,
}

#[derive(Debug)]
struct Schedule {
    node: NodeId,
    kind: PunctuationType,
    interval_ms: i64,
    /// None once cancelled. The place is kept: a `Punctuation` is an index.
    next: Option<i64>,
    /// Schedules that are due at the same time come in the order in which they were put in line, as in Java.
    queued: u64,
}

impl Schedules {
    pub fn add(&mut self, node: NodeId, kind: PunctuationType, interval_ms: i64, first: i64) -> Punctuation {
        self.queued += 1;
        let (interval_ms, next) = (interval_ms.max(1), Some(first));
        self.schedules.push(Schedule { node, kind, interval_ms, next, queued: self.queued });
        Punctuation(self.schedules.len() - 1)
    }

    pub fn cancel(&mut self, punctuation: Punctuation) {
        if let Some(schedule) = self.schedules.get_mut(punctuation.0) {
            schedule.next = None;
        }
    }

    /// The earliest time at which something of this kind is due.
    pub fn next_due(&self, kind: PunctuationType) -> Option<i64> {
        self.schedules.iter().filter(|schedule| schedule.kind == kind).filter_map(|schedule| schedule.next).min()
    }

    /// The schedule of this kind that has been due the longest, already moved to its next time: its callback may
    /// cancel or schedule. Missed intervals collapse into one call.
    pub fn take_due(&mut self, kind: PunctuationType, now: i64) -> Option<(NodeId, Punctuation)> {
        let due = |schedule: &Schedule| schedule.next.filter(|next| schedule.kind == kind && *next <= now);
        let line = self.schedules.iter().enumerate().filter_map(|(index, s)| Some((due(s)?, s.queued, index)));
        let (next, _, index) = line.min()?;
        let schedule = self.schedules.get_mut(index)?;
        self.queued += 1;
        schedule.queued = self.queued;
        schedule.next = Some(next + ((now - next) / schedule.interval_ms + 1) * schedule.interval_ms);
        Some((schedule.node, Punctuation(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_intervals_collapse_into_one_call() {
        let mut schedules = Schedules::default();
        let punctuation = schedules.add(NodeId(0), PunctuationType::StreamTime, 10, 0);
        assert_eq!(schedules.take_due(PunctuationType::StreamTime, 35), Some((NodeId(0), punctuation)));
        assert_eq!(schedules.take_due(PunctuationType::StreamTime, 39), None);
        assert_eq!(schedules.next_due(PunctuationType::StreamTime), Some(40));
        assert_eq!(schedules.take_due(PunctuationType::WallClockTime, 100), None);
    }

    #[test]
    fn schedules_of_one_time_come_in_the_order_they_were_put_in_line() {
        let mut schedules = Schedules::default();
        let early = schedules.add(NodeId(0), PunctuationType::StreamTime, 10, 10);
        let late = schedules.add(NodeId(0), PunctuationType::StreamTime, 10, 0);
        let mut take = |now| schedules.take_due(PunctuationType::StreamTime, now).map(|(_, punctuation)| punctuation);
        assert_eq!((take(12), take(12), take(12)), (Some(late), Some(early), None));
        assert_eq!((take(25), take(25), take(25)), (Some(late), Some(early), None));
    }

    #[test]
    fn a_cancelled_schedule_is_never_due() {
        let mut schedules = Schedules::default();
        let punctuation = schedules.add(NodeId(0), PunctuationType::WallClockTime, 10, 10);
        schedules.cancel(punctuation);
        assert_eq!(schedules.take_due(PunctuationType::WallClockTime, 100), None);
    }
}
