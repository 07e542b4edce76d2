//! Which stream thread of this process has which of the process's tasks.
//!
//! ```text
//!   the group gives the process tasks ──> placed on the seat with the fewest ──> Assigned ──> the thread holds them
//!   asked back, or a seat has two more than another ──> Revoked ──> the thread closes them, acknowledges
//!        ──> the process's still: placed again       ──> not any more: the group is told
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::membership::MembershipEvent;
use crate::topology::TaskId;

#[derive(Debug, Default)]
pub(super) struct Seats {
    /// By the number of the thread.
    seats: BTreeMap<usize, Seat>,
    /// What the group has given and not asked back.
    owned: BTreeSet<TaskId>,
    /// What the process keeps the stores of, beside what it owns.
    standby: BTreeSet<TaskId>,
    /// Closed here and not the process's any more: to be told to the group.
    closed: BTreeSet<TaskId>,
    /// The assignment is complete.
    is_settled: bool,
    /// The process ends: nothing is placed any more.
    is_closing: bool,
}

/// A thread's place, which may wait for its thread.
#[derive(Debug, Default)]
struct Seat {
    /// Told to the thread, and not closed by it.
    held: BTreeSet<TaskId>,
    to_assign: BTreeSet<TaskId>,
    /// Its standbys.
    standby: BTreeSet<TaskId>,
    /// The standbys that its thread has heard of.
    told_standby: BTreeSet<TaskId>,
    /// Of what it holds.
    to_revoke: BTreeSet<TaskId>,
    /// Of what it holds.
    to_lose: BTreeSet<TaskId>,
    /// Of what it holds: told to close, and not acknowledged.
    closing: BTreeSet<TaskId>,
    /// Transactional ids to be fenced before it reads offsets of what it is given.
    fence: BTreeSet<String>,
    /// It has heard that it has what it shall have.
    is_told: bool,
    /// Its thread ends, and another one comes in its place.
    is_ending: bool,
    /// Its thread does not come back: what it holds stays open, and it gets nothing.
    is_hung: bool,
}

/// How tasks are taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Revoke,
    Lose,
}

/// What a thread hears: the event, and what it fences before it acts upon it.
pub(super) type News = (MembershipEvent, Vec<String>);

impl Seat {
    /// What it will have when everything it is to hear has been heard.
    fn load(&self) -> usize {
        self.held.len() + self.to_assign.len() - self.to_revoke.len() - self.to_lose.len() - self.closing.len()
    }
}

impl Seats {
    /// With a seat for each thread that is on its way.
    pub(super) fn new(threads: usize) -> Seats {
        Seats { seats: (1..=threads).map(|index| (index, Seat::default())).collect(), ..Seats::default() }
    }

    /// The group gives tasks to the process.
    pub(super) fn assigned(&mut self, tasks: BTreeSet<TaskId>, fence: &[String]) {
        self.owned.extend(tasks);
        self.place(fence);
    }

    /// The group asks tasks back, or has taken them.
    pub(super) fn taken(&mut self, tasks: &BTreeSet<TaskId>, manner: Manner) {
        self.is_settled = false;
        for task in tasks {
            self.owned.remove(task);
            let holder = self.seats.values_mut().find(|seat| seat.held.contains(task));
            let Some(seat) = holder else {
                // No thread has heard of it.
                self.seats.values_mut().for_each(|seat| _ = seat.to_assign.remove(task));
                self.closed.insert(*task);
                continue;
            };
            if seat.closing.contains(task) {
                continue;
            }
            match manner {
                Manner::Revoke => _ = seat.to_revoke.insert(*task),
                Manner::Lose => {
                    seat.to_revoke.remove(task);
                    seat.to_lose.insert(*task);
                }
            }
        }
    }

    /// All standbys of the process. Each stays on its seat, or where it is still at work.
    pub(super) fn stand_by(&mut self, tasks: BTreeSet<TaskId>) {
        self.seats.values_mut().for_each(|seat| seat.standby.retain(|task| tasks.contains(task)));
        self.standby = tasks;
        self.place_standbys();
    }

    /// The process has all that it shall have.
    pub(super) fn settled(&mut self) {
        self.is_settled = true;
        self.level();
    }

    /// Tasks that the group may give to others.
    pub(super) fn take_closed(&mut self) -> BTreeSet<TaskId> {
        std::mem::take(&mut self.closed)
    }

    /// A thread takes its seat.
    pub(super) fn open(&mut self, index: usize) {
        let seat = self.seats.entry(index).or_default();
        *seat = Seat { to_assign: std::mem::take(&mut seat.to_assign), ..Seat::default() };
        self.place(&[]);
        self.level();
    }

    /// A thread has ended, and has nothing open any more.
    pub(super) fn release(&mut self, index: usize) {
        let Some(seat) = self.seats.remove(&index) else { return };
        if seat.is_ending {
            self.seats.insert(index, Seat::default());
        }
        self.closed.extend(seat.held.difference(&self.owned));
        self.place(&[]);
    }

    /// Every thread will end and be followed by another one of its number. Nothing moves meanwhile.
    pub(super) fn expect_others(&mut self) {
        self.seats.values_mut().for_each(|seat| seat.is_ending = true);
    }

    /// A thread does not come back: what it has or was to get, which is to be the group's.
    pub(super) fn hang(&mut self, index: usize) -> BTreeSet<TaskId> {
        let Some(seat) = self.seats.get_mut(&index) else { return BTreeSet::new() };
        seat.is_hung = true;
        seat.held.union(&seat.to_assign).copied().collect()
    }

    /// Its thread is back.
    pub(super) fn come_back(&mut self, index: usize) {
        if let Some(seat) = self.seats.get_mut(&index) {
            seat.is_hung = false;
        }
        self.place(&[]);
        self.level();
    }

    /// Every thread will end.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
    }

    /// What a thread has to hear. What it has heard last and has to acknowledge comes first.
    pub(super) fn poll(&mut self, index: usize) -> Option<News> {
        let is_settled = self.is_settled;
        let seat = self.seats.get_mut(&index)?;
        if !seat.closing.is_empty() || seat.is_ending {
            return None;
        }
        // One that becomes active keeps its stores open until its thread hears of that.
        let promoted = seat.told_standby.intersection(&seat.to_assign);
        let standby: BTreeSet<_> = seat.standby.iter().chain(promoted).copied().collect();
        if standby != seat.told_standby {
            seat.told_standby.clone_from(&standby);
            return Some((MembershipEvent::Standby { tasks: standby }, Vec::new()));
        }
        if !seat.to_lose.is_empty() {
            seat.is_told = false;
            seat.closing = std::mem::take(&mut seat.to_lose);
            return Some((MembershipEvent::Lost { tasks: seat.closing.clone() }, Vec::new()));
        }
        if !seat.to_revoke.is_empty() {
            seat.is_told = false;
            seat.closing = std::mem::take(&mut seat.to_revoke);
            return Some((MembershipEvent::Revoked { tasks: seat.closing.clone() }, Vec::new()));
        }
        if seat.to_assign.is_empty() && (seat.is_told || !is_settled) {
            return None;
        }
        seat.is_told |= is_settled;
        let active = std::mem::take(&mut seat.to_assign);
        seat.held.extend(active.iter().copied());
        seat.told_standby.retain(|task| !active.contains(task));
        let fence = std::mem::take(&mut seat.fence).into_iter().collect();
        Some((MembershipEvent::Assigned { active }, fence))
    }

    /// What the thread was told to close is closed.
    pub(super) fn acknowledge(&mut self, index: usize) {
        let Some(seat) = self.seats.get_mut(&index) else { return };
        for task in std::mem::take(&mut seat.closing) {
            seat.held.remove(&task);
            if !self.owned.contains(&task) {
                self.closed.insert(task);
            }
        }
        self.place(&[]);
    }

    /// Whether everything that the thread works at is the process's.
    pub(super) fn is_within(&self, index: usize, owned: &BTreeSet<TaskId>) -> bool {
        self.seats.get(&index).is_some_and(|seat| seat.held.is_subset(owned))
    }

    /// Gives what lies on no seat to the one that has its stores open, or to those with the fewest; alike ones apart.
    fn place(&mut self, fence: &[String]) {
        if self.is_closing || self.seats.values().any(|seat| seat.is_ending) {
            return;
        }
        let seated: BTreeSet<_> =
            self.seats.values().flat_map(|seat| seat.held.iter().chain(&seat.to_assign)).copied().collect();
        for task in self.owned.difference(&seated) {
            let alike = |seat: &Seat| {
                let tasks = seat.held.iter().chain(&seat.to_assign);
                tasks.filter(|other| other.sub_topology == task.sub_topology).count()
            };
            let is_elsewhere = |seat: &Seat| !seat.standby.contains(task);
            let seats = self.seats.values_mut().filter(|seat| !seat.is_hung);
            let best = seats.min_by_key(|seat| (is_elsewhere(seat), seat.load(), alike(seat)));
            if let Some(seat) = best {
                seat.to_assign.insert(*task);
                seat.fence.extend(fence.iter().cloned());
                seat.standby.remove(task);
                self.standby.remove(task);
            }
        }
        self.place_standbys();
    }

    fn place_standbys(&mut self) {
        if self.is_closing || self.seats.values().any(|seat| seat.is_ending) {
            return;
        }
        let seated: BTreeSet<_> = self.seats.values().flat_map(|seat| &seat.standby).copied().collect();
        for task in self.standby.difference(&seated) {
            // IMPORTANT: its thread closes it, and keeps its stores: two threads cannot have them open.
            let is_elsewhere = |seat: &Seat| !seat.held.contains(task) && !seat.to_assign.contains(task);
            let seats = self.seats.values_mut().filter(|seat| !seat.is_hung);
            let best = seats.min_by_key(|seat| (is_elsewhere(seat), seat.standby.len()));
            if let Some(seat) = best {
                seat.standby.insert(*task);
            }
        }
    }

    /// Moves tasks from a seat that has two more than another: less is not worth opening a task again.
    fn level(&mut self) {
        if self.is_closing || !self.is_settled || self.seats.values().any(|seat| seat.is_ending) {
            return;
        }
        loop {
            // What is on its way from seat to seat will come to those with the fewest.
            let in_the_air = self.seats.values().flat_map(|seat| seat.closing.union(&seat.to_revoke));
            let mut in_the_air = in_the_air.filter(|task| self.owned.contains(task)).count();
            let seats = self.seats.iter().filter(|(_, seat)| !seat.is_hung);
            let mut loads: Vec<_> = seats.map(|(index, seat)| (seat.load(), *index)).collect();
            while let Some(fewest) = loads.iter_mut().min()
                && in_the_air > 0
            {
                fewest.0 += 1;
                in_the_air -= 1;
            }
            let (Some((fewest, _)), Some((most, from))) = (loads.iter().min(), loads.iter().max()) else { return };
            if most - fewest < 2 {
                return;
            }
            let Some(seat) = self.seats.get_mut(from) else { return };
            if seat.to_assign.pop_last().is_some() {
                self.place(&[]);
                continue;
            }
            let is_staying = |task: &&TaskId| !seat.to_revoke.contains(task) && !seat.closing.contains(task);
            let Some(task) = seat.held.iter().rev().find(is_staying).copied() else { return };
            if seat.to_lose.contains(&task) {
                return;
            }
            seat.to_revoke.insert(task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(partitions: impl IntoIterator<Item = i32>) -> BTreeSet<TaskId> {
        partitions.into_iter().map(|partition| TaskId { sub_topology: 0, partition }).collect()
    }

    /// Every thread hears everything, and closes what it shall at once.
    fn hear(seats: &mut Seats, threads: &[usize]) -> Vec<String> {
        let mut heard = Vec::new();
        for _ in 0..3 {
            for index in threads {
                while let Some((event, _)) = seats.poll(*index) {
                    let (what, tasks) = match event {
                        MembershipEvent::Assigned { active } => ('+', active),
                        MembershipEvent::Revoked { tasks } => ('-', tasks),
                        MembershipEvent::Lost { tasks } => ('!', tasks),
                        MembershipEvent::Standby { tasks } => ('~', tasks),
                    };
                    let names: Vec<_> = tasks.iter().map(|task| task.partition.to_string()).collect();
                    heard.push(format!("{index}{what}{}", names.join(",")));
                    if matches!(what, '-' | '!') {
                        seats.acknowledge(*index);
                    }
                }
            }
        }
        heard
    }

    fn two_threads() -> Seats {
        let mut seats = Seats::new(2);
        seats.assigned(tasks(0..4), &[]);
        seats.settled();
        seats.open(1);
        seats.open(2);
        assert_eq!(hear(&mut seats, &[1, 2]), ["1+0,2", "2+1,3"]);
        seats
    }

    #[test]
    fn tasks_are_spread_over_threads_that_are_still_on_their_way() {
        two_threads();
    }

    #[test]
    fn sub_topologies_are_spread_each_by_itself() {
        let mut seats = Seats::new(2);
        let ids = [(0, 0), (1, 0), (1, 1), (1, 2)];
        seats.assigned(ids.map(|(sub_topology, partition)| TaskId { sub_topology, partition }).into(), &[]);
        let loads = seats.seats.values().map(|seat| seat.to_assign.iter().filter(|t| t.sub_topology == 1).count());
        assert_eq!(loads.collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_thread_without_tasks_hears_that_it_has_all_it_gets() {
        let mut seats = Seats::new(1);
        seats.open(1);
        assert_eq!(hear(&mut seats, &[1]), Vec::<String>::new());
        seats.settled();
        assert_eq!(hear(&mut seats, &[1]), ["1+"]);
    }

    #[test]
    fn what_the_group_asks_back_is_told_to_it_when_its_thread_has_closed_it() {
        let mut seats = two_threads();
        seats.taken(&tasks([0]), Manner::Revoke);
        assert_eq!(seats.take_closed(), tasks([]));
        assert_eq!(hear(&mut seats, &[1, 2]), ["1-0"]);
        assert_eq!(seats.take_closed(), tasks([0]));
        // The thread that has closed something hears when that was all.
        seats.settled();
        assert_eq!(hear(&mut seats, &[1, 2]), ["1+"]);
    }

    #[test]
    fn what_no_thread_has_heard_of_is_closed_already() {
        let mut seats = two_threads();
        seats.assigned(tasks([7]), &[]);
        seats.taken(&tasks([7]), Manner::Lose);
        assert_eq!(seats.take_closed(), tasks([7]));
        assert_eq!(hear(&mut seats, &[1, 2]), Vec::<String>::new());
    }

    #[test]
    fn what_is_lost_while_it_is_asked_back_is_lost() {
        let mut seats = two_threads();
        seats.taken(&tasks([0]), Manner::Revoke);
        seats.taken(&tasks([0, 1, 2, 3]), Manner::Lose);
        assert_eq!(hear(&mut seats, &[1, 2]), ["1!0,2", "2!1,3"]);
        assert_eq!(seats.take_closed(), tasks(0..4));
    }

    #[test]
    fn a_thread_hears_nothing_new_before_it_has_acknowledged() {
        let mut seats = two_threads();
        seats.taken(&tasks([0]), Manner::Revoke);
        assert!(seats.poll(1).is_some());
        seats.taken(&tasks([2]), Manner::Revoke);
        assert_eq!(seats.poll(1), None);
        seats.acknowledge(1);
        assert_eq!(seats.take_closed(), tasks([0]));
        assert_eq!(hear(&mut seats, &[1]), ["1-2"]);
    }

    #[test]
    fn the_tasks_of_a_thread_that_ends_go_to_the_others_and_half_of_them_back_to_its_successor() {
        let mut seats = two_threads();
        seats.release(2);
        assert_eq!(hear(&mut seats, &[1]), ["1+1,3"]);
        seats.open(2);
        assert_eq!(hear(&mut seats, &[1, 2]), ["1-2,3", "1+", "2+2,3"]);
        assert_eq!(seats.take_closed(), tasks([]));
    }

    #[test]
    fn the_only_thread_gets_its_tasks_again_when_it_comes_back() {
        let mut seats = Seats::new(1);
        seats.assigned(tasks([0, 1]), &[]);
        seats.settled();
        seats.open(1);
        hear(&mut seats, &[1]);
        seats.release(1);
        assert_eq!(seats.take_closed(), tasks([]));
        seats.taken(&tasks([1]), Manner::Revoke);
        assert_eq!(seats.take_closed(), tasks([1]));
        seats.settled();
        seats.open(1);
        assert_eq!(hear(&mut seats, &[1]), ["1+0"]);
    }

    #[test]
    fn a_difference_of_one_moves_nothing_and_more_is_levelled_when_the_group_has_settled() {
        let mut seats = two_threads();
        seats.taken(&tasks([1]), Manner::Revoke);
        seats.settled();
        assert_eq!(hear(&mut seats, &[1, 2]), ["2-1", "2+"]);
        seats.taken(&tasks([3]), Manner::Revoke);
        assert_eq!(hear(&mut seats, &[1, 2]), ["2-3"]);
        seats.settled();
        assert_eq!(hear(&mut seats, &[1, 2]), ["1-2", "1+", "2+2"]);
    }

    #[test]
    fn threads_that_are_followed_by_others_keep_their_tasks_until_all_have_ended() {
        let mut seats = two_threads();
        seats.expect_others();
        seats.release(1);
        seats.open(1);
        assert_eq!(hear(&mut seats, &[1, 2]), ["1+"]);
        seats.release(2);
        assert_eq!(hear(&mut seats, &[1]), ["1+0,2"]);
        seats.open(2);
        assert_eq!(hear(&mut seats, &[1, 2]), ["2+1,3"]);
    }

    #[test]
    fn a_process_that_ends_places_nothing_any_more() {
        let mut seats = two_threads();
        seats.close();
        seats.release(1);
        assert_eq!(hear(&mut seats, &[2]), Vec::<String>::new());
    }

    #[test]
    fn every_thread_fences_before_it_takes_what_a_dead_process_had() {
        let mut seats = Seats::new(1);
        seats.open(1);
        seats.assigned(tasks([0]), &["dead-1".to_owned()]);
        let (_, fence) = seats.poll(1).unwrap();
        assert_eq!(fence, ["dead-1"]);
    }

    #[test]
    fn a_standby_becomes_active_where_it_is_and_hears_of_it_first() {
        let mut seats = two_threads();
        seats.stand_by(tasks([7, 8]));
        assert_eq!(hear(&mut seats, &[1, 2]), ["1~7", "2~8"]);
        // Both are told, first as what is still kept and then as what has come.
        seats.stand_by(tasks([7, 8]));
        seats.assigned(tasks([8]), &[]);
        assert_eq!(hear(&mut seats, &[1, 2]), ["2+8"]);
        seats.assigned(tasks([7]), &[]);
        seats.stand_by(tasks([]));
        assert_eq!(hear(&mut seats, &[1, 2]), ["1+7"]);
    }

    #[test]
    fn what_is_taken_and_stays_as_a_standby_stays_on_its_thread() {
        let mut seats = two_threads();
        seats.stand_by(tasks([3]));
        seats.taken(&tasks([3]), Manner::Revoke);
        assert_eq!(hear(&mut seats, &[1, 2]), ["2~3", "2-3"]);
        assert_eq!(seats.take_closed(), tasks([3]));
    }

    #[test]
    fn the_standbys_of_a_thread_that_ends_go_to_the_others() {
        let mut seats = two_threads();
        seats.stand_by(tasks([7, 8]));
        hear(&mut seats, &[1, 2]);
        seats.release(2);
        assert_eq!(hear(&mut seats, &[1]), ["1~7,8", "1+1,3"]);
    }

    #[test]
    fn a_thread_that_does_not_come_back_gets_nothing_and_closes_what_it_had_when_it_does() {
        let mut seats = two_threads();
        let abandoned = seats.hang(1);
        assert_eq!(abandoned, tasks([0, 2]));
        seats.taken(&abandoned, Manner::Lose);
        seats.assigned(tasks([7, 8]), &[]);
        seats.settled();
        assert_eq!(hear(&mut seats, &[2]), ["2+7,8"]);
        assert_eq!(seats.take_closed(), tasks([]));
        seats.come_back(1);
        assert_eq!(hear(&mut seats, &[1, 2]), ["1!0,2", "1+", "2-7,8", "2+", "1+7,8"]);
        assert_eq!(seats.take_closed(), tasks([0, 2]));
    }

    #[test]
    fn a_commit_is_of_the_processs_own_tasks_only() {
        let seats = two_threads();
        assert!(seats.is_within(1, &tasks(0..4)));
        assert!(!seats.is_within(1, &tasks([0, 1, 3])));
        assert!(!seats.is_within(9, &tasks(0..4)));
    }
}
