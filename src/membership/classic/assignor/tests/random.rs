//! Random groups: members join, leave, crash, lose their disks and come back.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Join { number: u8, workers: u32, tag: u8 },
    Crash { at: usize },
    Restart { at: usize },
    Leave { at: usize },
    LosesDisk { at: usize },
    RebalanceEarly,
}

fn event() -> impl Strategy<Value = Event> {
    let at = 0..16_usize;
    prop_oneof![
        4 => (0..12_u8, 1..4_u32, 0..4_u8).prop_map(|(number, workers, tag)| Event::Join { number, workers, tag }),
        2 => at.clone().prop_map(|at| Event::Crash { at }),
        1 => at.clone().prop_map(|at| Event::Restart { at }),
        1 => at.clone().prop_map(|at| Event::Leave { at }),
        1 => at.prop_map(|at| Event::LosesDisk { at }),
        1 => Just(Event::RebalanceEarly),
    ]
}

impl Life {
    fn happens(&mut self, event: &Event) {
        let some = |at: usize, life: &Life| (life.members.len() > 1).then(|| at % life.members.len());
        match event {
            Event::Join { number, workers, tag } => {
                let count = self.members.len();
                self.join(*number, *workers);
                if self.members.len() > count && *tag < 3 {
                    self.members[count].tags = vec![(RACK.to_owned(), tag.to_string())];
                }
            }
            Event::Crash { at } => {
                if let Some(at) = some(*at, self) {
                    self.members.remove(at);
                    if let Some(last) = self.last.as_mut().filter(|last| at < last.members.len()) {
                        last.members.remove(at);
                    }
                }
            }
            Event::Restart { at } => {
                if let Some(at) = some(*at, self) {
                    let old = &mut self.members[at];
                    old.started_ms += 1;
                    old.generation = -1;
                    (old.active, old.promised, old.standby) = (Vec::new(), Vec::new(), Vec::new());
                }
            }
            Event::Leave { at } => {
                if let Some(at) = some(*at, self)
                    && self.members[at].share == Share::Full
                    && self.members.iter().filter(|member| member.share == Share::Full).count() > 1
                {
                    self.members[at].share = Share::Leaving;
                }
            }
            Event::LosesDisk { at } => {
                if let Some(at) = some(*at, self) {
                    let old = &mut self.members[at];
                    (old.active, old.promised, old.standby) = (Vec::new(), Vec::new(), Vec::new());
                    self.disks.remove(&self.members[at].process);
                }
            }
            Event::RebalanceEarly => {
                let given = self.rebalance();
                self.check(&given);
            }
        }
        if !self.members.iter().any(|member| member.share == Share::Full) {
            self.members[0].share = Share::Full;
        }
    }
}

fn lives() -> impl Strategy<Value = Life> {
    let shape = vec((1..9_i32, any::<bool>()), 1..5);
    let settings = (0..3_usize, 1..4_usize, 0..3_usize);
    (shape, settings).prop_map(|(shape, (num_standby, max_warmups, tags))| {
        let rack_tags = [RACK, "zone"].iter().take(tags).map(|tag| (*tag).to_owned()).collect();
        let settings = AssignorSettings { num_standby, max_warmups, acceptable_lag: 100, rack_tags };
        Life {
            size: |partition| Some(partition.unsigned_abs().into()).map(|size: u64| size * 30),
            ..Life::new(tasks(&shape), settings)
        }
    })
}

/// The fewest tasks with state that have to leave their owners so that loads differ by at most one per worker.
fn fewest_moves(has: &[u32], workers: &[u32]) -> u32 {
    let total: u32 = has.iter().sum();
    // All ways to share them out that D'Hondt's rule allows; the groups of this test are small.
    fn search(left: u32, rest: &[(u32, u32)], quota: &mut Vec<u32>, all: &[(u32, u32)]) -> Option<u32> {
        let Some(_) = rest.first() else {
            let load = |i: usize, more: u32| f64::from(quota[i] + more) / f64::from(all[i].1);
            let is_balanced =
                left == 0 && (0..all.len()).all(|i| (0..all.len()).all(|j| load(i, 0) <= load(j, 1) + 1e-9));
            return is_balanced
                .then(|| all.iter().zip(quota.iter()).map(|((has, _), quota)| has.saturating_sub(*quota)).sum());
        };
        let mut best = None;
        for mine in 0..=left {
            quota.push(mine);
            let found = search(left - mine, &rest[1..], quota, all);
            quota.pop();
            best = [best, found].into_iter().flatten().min();
        }
        best
    }
    let all: Vec<(u32, u32)> = has.iter().copied().zip(workers.iter().copied()).collect();
    search(total, &all, &mut Vec::new(), &all).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_group_settles_after_whatever_happens(mut life in lives(), events in vec((event(), any::<bool>()), 1..12)) {
        life.join(0, 1);
        for (event, is_settling) in &events {
            life.happens(event);
            if *is_settling {
                life.settle();
                life.catch_up();
                life.check_sticky();
            }
        }
        let stateful = life.tasks.iter().filter(|task| task.is_stateful).count();
        let rounds = life.settle();
        prop_assert!(rounds <= stateful.div_ceil(life.settings.max_warmups) + 3, "{rounds} rounds for {stateful} tasks");
        life.catch_up();
        life.check_sticky();
    }

    #[test]
    fn the_order_of_the_members_does_not_matter(
        mut life in lives(),
        events in vec(event(), 1..10),
        by in any::<prop::sample::Index>(),
    ) {
        life.join(0, 1);
        events.iter().for_each(|event| life.happens(event));
        let input = life.input();
        let mut turned = input.clone();
        let by = by.index(turned.members.len());
        turned.members.rotate_left(by);
        turned.tasks.reverse();
        let mut given = assign(&turned).members;
        given.rotate_right(by);
        prop_assert_eq!(given, assign(&input).members);
    }

    #[test]
    fn no_more_tasks_move_than_balance_asks_for(
        has in vec((0..5_u32, 1..4_u32), 1..5),
        new in vec(1..4_u32, 0..2),
    ) {
        let all: Vec<(u32, u32)> = has.iter().copied().chain(new.iter().map(|workers| (0, *workers))).collect();
        let mut partitions = 0..;
        let members: Vec<AssignorMember> = all.iter().zip(0_u8..).map(|((has, workers), number)| {
            let active = partitions.by_ref().take(*has as usize).map(|partition| task(0, partition)).collect();
            AssignorMember { active, generation: 1, ..member(number, *workers) }
        }).collect();
        let count: u32 = all.iter().map(|(has, _)| has).sum();
        let (has, workers): (Vec<u32>, Vec<u32>) = all.into_iter().unzip();
        for is_stateful in [true, false] {
            let mut life = Life::new(tasks(&[(i32::try_from(count).unwrap(), is_stateful)]), settings(0));
            life.members.clone_from(&members);
            life.generation = 1;
            life.settle();
            let given = life.last.clone().unwrap();
            let stays = |(member, tasks): (&AssignorMember, &MemberTasks)| {
                u32::try_from(member.active.iter().filter(|id| tasks.active.contains(id)).count()).unwrap()
            };
            let stay: u32 = members.iter().zip(&given.members).map(stays).sum();
            prop_assert_eq!(count - stay, fewest_moves(&has, &workers));
        }
    }

    #[test]
    fn whatever_is_claimed_every_task_is_somewhere_once(
        claims in vec((vec((0..4_usize, 0..6_i32), 0..20), vec((0..4_usize, 0..6_i32), 0..20), -1..5_i32, 0..3_u8), 1..6),
        mut life in lives(),
    ) {
        let ids = |ids: &[(usize, i32)]| ids.iter().map(|(sub, partition)| task(*sub, *partition)).collect::<Vec<_>>();
        for ((active, standby, generation, promised), number) in claims.iter().zip(0_u8..) {
            let mut member = AssignorMember {
                active: ids(active),
                standby: ids(standby),
                generation: *generation,
                ..member(number, u32::from(number))
            };
            match promised {
                0 => member.promised = ids(standby),
                1 => member.lags = ids(active).into_iter().map(|id| (id, None)).collect(),
                _ => {}
            }
            life.members.push(member);
        }
        let given = assign(&life.input());
        for task in &life.tasks {
            let count = given.members.iter().flat_map(|it| it.active.iter().chain(&it.awaiting)).filter(|id| **id == task.id);
            prop_assert_eq!(count.count(), 1);
        }
    }
}
