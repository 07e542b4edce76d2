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
    /// Never shrinks: a `Punctuation` is an index.
    all: Vec<Schedule>,
    stream_time: Queue,
    wall_clock: Queue,
}

#[derive(Debug)]
struct Schedule {
    node: NodeId,
    kind: PunctuationType,
    interval_ms: i64,
    next: i64,
    cancelled: bool,
}

impl Schedules {
    pub(crate) fn add(&mut self, node: NodeId, kind: PunctuationType, interval_ms: i64, first: i64) -> Punctuation {
        let punctuation = Punctuation(self.all.len());
        self.all.push(Schedule { node, kind, interval_ms: interval_ms.max(1), next: first, cancelled: false });
        self.queue(kind).push(first, punctuation);
        punctuation
    }

    pub(crate) fn cancel(&mut self, punctuation: Punctuation) {
        if let Some(schedule) = self.all.get_mut(punctuation.0) {
            schedule.cancelled = true; // leaves the queue when it is due
        }
    }

    /// Takes the schedule of this kind that has been due the longest. The caller gives it [back](Schedules::put_back) when
    /// it has been called: its callback may cancel it or schedule others.
    pub(crate) fn take_due(&mut self, kind: PunctuationType, now: i64) -> Option<(NodeId, Punctuation)> {
        loop {
            let (_, punctuation) = self.queue(kind).pop_until(now)?;
            if let Some(schedule) = self.all.get(punctuation.0).filter(|schedule| !schedule.cancelled) {
                return Some((schedule.node, punctuation));
            }
        }
    }

    /// Moves a schedule that was taken to its next time. Missed intervals collapse into one call.
    pub(crate) fn put_back(&mut self, punctuation: Punctuation, now: i64) {
        let Some(schedule) = self.all.get_mut(punctuation.0).filter(|schedule| !schedule.cancelled) else { return };
        let missed = now.saturating_sub(schedule.next) / schedule.interval_ms;
        schedule.next = schedule.next.saturating_add((missed + 1).saturating_mul(schedule.interval_ms));
        let (kind, next) = (schedule.kind, schedule.next);
        self.queue(kind).push(next, punctuation);
    }

    fn queue(&mut self, kind: PunctuationType) -> &mut Queue {
        match kind {
            PunctuationType::StreamTime => &mut self.stream_time,
            PunctuationType::WallClockTime => &mut self.wall_clock,
        }
    }
}

/// The binary heap of Java's `PriorityQueue`, step by step: which of two schedules that are due at the same time comes
/// first follows from how it sifts, and shows in the order of records. The heap of the standard library sifts otherwise.
#[derive(Debug, Default)]
struct Queue(Vec<(i64, Punctuation)>);

#[expect(clippy::indexing_slicing, reason = "places in a heap are computed from its length")]
impl Queue {
    fn push(&mut self, time: i64, punctuation: Punctuation) {
        self.0.push((time, punctuation));
        let mut place = self.0.len() - 1;
        while place > 0 {
            let parent = (place - 1) / 2;
            if time >= self.0[parent].0 {
                break;
            }
            self.0.swap(place, parent);
            place = parent;
        }
    }

    /// The first one, if its time has come.
    fn pop_until(&mut self, now: i64) -> Option<(i64, Punctuation)> {
        if self.0.first()?.0 > now {
            return None;
        }
        let first = self.0.swap_remove(0);
        let (mut place, len) = (0, self.0.len());
        while 2 * place + 1 < len {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let child = if right < len && self.0[right].0 < self.0[left].0 { right } else { left };
            if self.0[place].0 <= self.0[child].0 {
                break;
            }
            self.0.swap(place, child);
            place = child;
        }
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(schedules: &mut Schedules, now: i64) -> Vec<Punctuation> {
        let mut taken = Vec::new();
        while let Some((_, punctuation)) = schedules.take_due(PunctuationType::StreamTime, now) {
            taken.push(punctuation);
            schedules.put_back(punctuation, now);
        }
        taken
    }

    #[test]
    fn missed_intervals_collapse_into_one_call() {
        let mut schedules = Schedules::default();
        let punctuation = schedules.add(NodeId(0), PunctuationType::StreamTime, 10, 0);
        assert_eq!(due(&mut schedules, 35), [punctuation]);
        assert_eq!(due(&mut schedules, 39), []);
        assert_eq!(due(&mut schedules, 40), [punctuation]);
        assert_eq!(schedules.take_due(PunctuationType::WallClockTime, 100), None);
    }

    #[test]
    fn a_cancelled_schedule_is_never_due() {
        let mut schedules = Schedules::default();
        let punctuation = schedules.add(NodeId(0), PunctuationType::WallClockTime, 10, 10);
        schedules.cancel(punctuation);
        assert_eq!(schedules.take_due(PunctuationType::WallClockTime, 100), None);
    }

    #[test]
    fn schedules_of_the_same_time_come_in_the_order_of_java() {
        let mut schedules = Schedules::default();
        let add = |schedules: &mut Schedules| schedules.add(NodeId(0), PunctuationType::StreamTime, 10, 0);
        let one = add(&mut schedules);
        assert_eq!(due(&mut schedules, 3), [one]);
        let two = add(&mut schedules);
        assert_eq!(due(&mut schedules, 12), [two, one]);
        let three = add(&mut schedules);
        assert_eq!(due(&mut schedules, 25), [three, two, one]);
    }
}
