//! What this process tells its group, what it decides as its leader, and how it understands its leader.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::assignor::AssignorSettings;
use super::member::{Assignor, Claim, Decision, Fit};
use super::plan::{PlanSettings, TaskCatalog, plan};
use super::protocol::{GroupMember, MemberAssignment};
use super::user_data::{ASSIGNOR_VERSION, Assignment, Fence, Host, Standing, Subscription, VERSION};
use crate::error::{Error, Result};
use crate::topology::TaskId;

/// What runs here.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub process: Uuid,
    /// In milliseconds since the epoch.
    pub started_ms: u64,
    /// Stream threads.
    pub workers: u32,
    /// Of its producers; empty where there are no transactions.
    pub transactional_id_prefix: String,
    pub catalog: TaskCatalog,
    /// Tasks whose state lies here since a run before.
    pub found: Vec<TaskId>,
}

pub(crate) struct TaskAssignor {
    instance: Instance,
    settings: AssignorSettings,
    /// What the last assignment promised.
    promised: Vec<TaskId>,
    /// The processes of the group, as the last assignment knew them.
    hosts: Vec<Host>,
}

impl TaskAssignor {
    pub(crate) fn new(instance: Instance, settings: AssignorSettings) -> TaskAssignor {
        // Where its state lies is the best place for a task that nobody runs.
        let promised = instance.found.clone();
        TaskAssignor { instance, settings, promised, hosts: Vec::new() }
    }
}

impl Assignor for TaskAssignor {
    fn subscribe(&mut self, claim: &Claim<'_>) -> Vec<u8> {
        let Instance { process, started_ms, workers, catalog, transactional_id_prefix, .. } = &self.instance;
        let subscription = Subscription {
            understands: VERSION,
            assignor_version: ASSIGNOR_VERSION,
            process: *process,
            started_ms: *started_ms,
            joins: claim.joins.into(),
            generation: claim.generation,
            is_leaving: false,
            workers: *workers,
            topology: catalog.topology.clone(),
            endpoint: None,
            transactional_id_prefix: transactional_id_prefix.clone(),
            tags: Vec::new(),
            active: claim.owned.iter().copied().collect(),
            promised: self.promised.clone(),
            standby: Vec::new(),
            lags: Vec::new(),
            sizes: Vec::new(),
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
        let is_current = assignment.topology == self.instance.catalog.topology.whole;
        let tasks = &self.instance.catalog.tasks;
        let is_known = |task: &TaskId| tasks.iter().any(|known| known.id == *task);
        self.promised = assignment.awaiting;
        self.hosts = assignment.hosts;
        Ok(Decision {
            generation: assignment.generation,
            active: assignment.active.into_iter().filter(is_known).collect::<BTreeSet<_>>(),
            fence: assignment.fence.iter().flat_map(Fence::transactional_ids).collect(),
            fit: if is_current { Fit::Current } else { Fit::Outdated },
        })
    }
}
