//! What this process tells its group, what it decides as its leader, and how it understands its leader.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::assignor::AssignorSettings;
use super::member::{Assignor, Claim, Decision, Fit};
use super::plan::{PlanSettings, TaskCatalog, plan};
use super::protocol::{GroupMember, MemberAssignment};
use super::task_set::Lag;
use super::user_data::{ASSIGNOR_VERSION, Assignment, Fence, Host, Standing, Subscription, VERSION};
use crate::error::{Error, Result};
use crate::topology::TaskId;

/// What runs here.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub process: Uuid,
    /// In milliseconds since the epoch.
    pub started_ms: u64,
    /// `host:port`, where it can be asked for its state.
    pub endpoint: Option<String>,
    /// In the order of the keys.
    pub tags: Vec<(String, String)>,
    /// Of its producers; empty where there are no transactions.
    pub transactional_id_prefix: String,
    pub catalog: TaskCatalog,
    /// Tasks whose state lies here since a run before.
    pub found: Vec<TaskId>,
}

/// What is here now: threads, and the state of tasks.
#[derive(Debug, Default)]
pub(crate) struct LocalState {
    /// Stream threads.
    pub workers: u32,
    /// One of them does not come back.
    pub is_impaired: bool,
    /// All instances are to end.
    pub shuts_down: bool,
    pub standby: Vec<TaskId>,
    /// Of standbys, and of tasks that are being restored.
    pub lags: Vec<(TaskId, Lag)>,
    /// Of tasks that run: at most so many records.
    pub sizes: Vec<(TaskId, Lag)>,
}

pub(crate) type Look = Box<dyn Fn() -> LocalState + Send>;

/// Hears of the processes of the group.
type Tell = Box<dyn Fn(&[Host]) + Send>;

pub(crate) struct TaskAssignor {
    instance: Instance,
    look: Look,
    settings: AssignorSettings,
    /// What the last assignment promised.
    promised: Vec<TaskId>,
    /// The processes of the group, as the last assignment knew them.
    hosts: Vec<Host>,
    /// Hears of them.
    tell: Tell,
}

impl TaskAssignor {
    pub(crate) fn new(instance: Instance, settings: AssignorSettings, look: Look) -> TaskAssignor {
        // Where its state lies is the best place for a task that nobody runs.
        let promised = instance.found.clone();
        TaskAssignor { instance, look, settings, promised, hosts: Vec::new(), tell: Box::new(|_| {}) }
    }

    pub(crate) fn telling(self, tell: impl Fn(&[Host]) + Send + 'static) -> TaskAssignor {
        TaskAssignor { tell: Box::new(tell), ..self }
    }

    /// Whether the last assignment knows this process as it is. After a restart in place it may tell of the one before.
    fn is_known_as_it_is(&self) -> bool {
        let workers = (self.look)().workers;
        let own = self.hosts.iter().find(|host| host.process == self.instance.process);
        own.is_none_or(|host| host.workers == workers && host.endpoint == self.instance.endpoint)
    }
}

impl Assignor for TaskAssignor {
    fn subscribe(&mut self, claim: &Claim<'_>) -> Vec<u8> {
        let Instance { process, started_ms, endpoint, tags, catalog, transactional_id_prefix, .. } = &self.instance;
        let LocalState { workers, is_impaired, shuts_down, standby, lags, sizes } = (self.look)();
        let subscription = Subscription {
            understands: VERSION,
            assignor_version: ASSIGNOR_VERSION,
            process: *process,
            started_ms: *started_ms,
            joins: claim.joins.into(),
            generation: claim.generation,
            // Without threads it can run nothing.
            is_leaving: claim.is_leaving || workers == 0,
            is_impaired,
            shuts_down,
            workers,
            topology: catalog.topology.clone(),
            endpoint: endpoint.clone(),
            transactional_id_prefix: transactional_id_prefix.clone(),
            tags: tags.clone(),
            active: claim.owned.iter().copied().collect(),
            promised: self.promised.clone(),
            standby,
            lags,
            sizes,
        };
        subscription.encode()
    }

    fn assign(&mut self, leader: &str, generation: i32, members: &[GroupMember]) -> Vec<MemberAssignment> {
        let bytes_max = PlanSettings::BYTES_MAX;
        let settings = PlanSettings { leader, generation, known: &self.hosts, assignor: &self.settings, bytes_max };
        let plan = plan(members, &self.instance.catalog, &settings);
        for (member, standing) in &plan.refused {
            tracing::warn!("member {member} of the group is no full one: {standing:?}");
        }
        plan.assignments
    }

    fn read(&mut self, user_data: &[u8]) -> Result<Decision> {
        let assignment = Assignment::decode(user_data)?;
        let reason = |error: Option<Error>| error.map(|error| error.to_string()).unwrap_or_default();
        match assignment.standing {
            Standing::Member => {}
            // The leader gives what both have, and the rest goes on where it can.
            Standing::OtherTopology => tracing::warn!("{}", reason(assignment.standing.error())),
            Standing::Superseded | Standing::Unreadable | Standing::Other(_) => {
                return Err(Error::invalid(reason(assignment.standing.error())));
            }
        }
        // A run before this one had something that others wait for, if the assignment was made for that one.
        let is_asked_back = assignment.follow_up && assignment.warmup.is_empty();
        let tasks = &self.instance.catalog.tasks;
        let is_known = |task: &TaskId| tasks.iter().any(|known| known.id == *task);
        self.promised = assignment.awaiting;
        self.hosts = assignment.hosts;
        (self.tell)(&self.hosts);
        let is_alike = assignment.topology == self.instance.catalog.topology.whole && self.is_known_as_it_is();
        let is_current = !is_asked_back && is_alike;
        let active: BTreeSet<_> = assignment.active.into_iter().filter(is_known).collect();
        let warmup: BTreeSet<_> = assignment.warmup.into_iter().filter(is_known).collect();
        let standby = assignment.standby.into_iter().filter(is_known).chain(warmup.iter().copied());
        Ok(Decision {
            generation: assignment.generation,
            standby: standby.filter(|task| !active.contains(task)).collect(),
            active,
            warmup,
            fence: assignment.fence.iter().flat_map(Fence::transactional_ids).collect(),
            is_alone: assignment.is_alone,
            shuts_down: assignment.shuts_down,
            fit: if is_current { Fit::Current } else { Fit::Outdated },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::membership::classic::plan::CatalogTask;
    use crate::topology::TopologyFingerprint;

    fn task(partition: i32) -> TaskId {
        TaskId { sub_topology: 0, partition }
    }

    /// A process whose program has two tasks, with the state of one.
    fn assignor(topology: u64) -> TaskAssignor {
        let topology = TopologyFingerprint { whole: topology, parts: vec![1] };
        let known = |partition| CatalogTask { id: task(partition), is_stateful: false, inputs: Vec::new() };
        let instance = Instance {
            process: Uuid::from_u128(1),
            started_ms: 0,
            endpoint: Some("here:1".to_owned()),
            tags: vec![("zone".to_owned(), "a".to_owned())],
            transactional_id_prefix: "app-1".to_owned(),
            catalog: TaskCatalog { topology, tasks: vec![known(0), known(1)] },
            found: vec![task(1)],
        };
        TaskAssignor::new(
            instance,
            AssignorSettings::default(),
            Box::new(|| LocalState { workers: 1, ..LocalState::default() }),
        )
    }

    fn subscription(assignor: &mut TaskAssignor, owned: &BTreeSet<TaskId>) -> Subscription {
        Subscription::decode(&assignor.subscribe(&Claim { generation: 3, owned, joins: 7, is_leaving: false })).unwrap()
    }

    fn assignment(topology: u64) -> Assignment {
        Assignment { active: vec![task(0), task(9)], ..Assignment::nothing(Standing::Member, 4, topology) }
    }

    #[test]
    fn a_process_asks_for_the_tasks_whose_state_it_has_found_until_it_is_told_more() {
        let mut assignor = assignor(5);
        assert_eq!(subscription(&mut assignor, &BTreeSet::new()).promised, [task(1)]);
        assignor.read(&Assignment { awaiting: vec![task(0)], ..assignment(5) }.encode()).unwrap();
        let told = subscription(&mut assignor, &BTreeSet::from([task(1)]));
        assert_eq!((told.promised, told.active), (vec![task(0)], vec![task(1)]));
        assert_eq!((told.generation, told.joins), (3, 7));
    }

    #[test]
    fn a_task_that_this_program_does_not_have_is_not_taken() {
        let decision = assignor(5).read(&assignment(5).encode()).unwrap();
        assert_eq!((decision.generation, decision.active), (4, BTreeSet::from([task(0)])));
    }

    #[test]
    fn an_assignment_for_another_topology_is_out_of_date() {
        assert_eq!(assignor(5).read(&assignment(5).encode()).unwrap().fit, Fit::Current);
        assert_eq!(assignor(6).read(&assignment(5).encode()).unwrap().fit, Fit::Outdated);
    }

    #[test]
    fn an_assignment_that_asks_something_back_of_the_run_before_is_out_of_date() {
        let asked_back = Assignment { follow_up: true, ..assignment(5) };
        assert_eq!(assignor(5).read(&asked_back.encode()).unwrap().fit, Fit::Outdated);
        let warming = Assignment { warmup: vec![task(1)], ..asked_back };
        let decision = assignor(5).read(&warming.encode()).unwrap();
        assert_eq!((decision.fit, decision.standby), (Fit::Current, BTreeSet::from([task(1)])));
    }

    #[test]
    fn whoever_has_no_place_in_the_group_is_told_the_remedy() {
        let superseded = Assignment::nothing(Standing::Superseded, 4, 5).encode();
        let error = assignor(5).read(&superseded).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("state directory"), "{error}");
        assert_eq!(assignor(5).read(&[1, 1, 0]).unwrap_err().kind(), ErrorKind::Corrupted);
    }

    #[test]
    fn a_leader_gives_what_it_alone_may_have_and_fences_who_has_gone() {
        let mut leader = assignor(5);
        let host = Host {
            process: Uuid::from_u128(2),
            workers: 1,
            transactional_id_prefix: "app-2".to_owned(),
            endpoint: None,
            active: Vec::new(),
            standby: Vec::new(),
        };
        leader.read(&Assignment { hosts: vec![host], ..assignment(5) }.encode()).unwrap();
        let claim = Claim { generation: -1, owned: &BTreeSet::new(), joins: 1, is_leaving: false };
        let user_data = leader.subscribe(&claim);
        let member = GroupMember { id: "a-1".to_owned(), instance: None, topics: Vec::new(), user_data };
        let given = leader.assign("a-1", 5, &[member]);
        let decision = leader.read(&given[0].user_data).unwrap();
        assert_eq!(decision.active, BTreeSet::from([task(0), task(1)]));
        assert_eq!(decision.fence, ["app-2-1"]);
    }
}
