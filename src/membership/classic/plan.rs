//! What the leader of a group answers its members: [`assign`] from bytes to bytes.

use std::collections::{HashMap, HashSet};

use rustc_hash::{FxHashMap, FxHashSet};
use uuid::Uuid;

use super::assignor::{AssignmentInput, AssignorMember, AssignorSettings, MemberTasks, Share, TaskToAssign, assign};
use super::protocol::{GroupMember, MemberAssignment};
use super::task_set::Lag;
use super::user_data::{Assignment, Fence, Host, HostDetail, Standing, Subscription, VERSION};
use crate::record::TopicPartition;
use crate::topology::{TaskId, TopologyFingerprint};

/// The tasks of the application, as the leader knows them.
#[derive(Debug, Clone)]
pub(crate) struct TaskCatalog {
    pub topology: TopologyFingerprint,
    pub tasks: Vec<CatalogTask>,
}

#[derive(Debug, Clone)]
pub(crate) struct CatalogTask {
    pub id: TaskId,
    pub is_stateful: bool,
    pub inputs: Vec<TopicPartition>,
}

/// What a plan depends on beside members and tasks.
#[derive(Debug, Clone)]
pub(crate) struct PlanSettings<'a> {
    /// The id of the member that decides.
    pub leader: &'a str,
    pub generation: i32,
    /// The processes of the last assignment that the leader was given: who of them is gone may have to be fenced.
    pub known: &'a [Host],
    pub assignor: &'a AssignorSettings,
    /// What metadata and assignments of the group may take in all: one record of the broker's.
    pub bytes_max: usize,
}

impl PlanSettings<'_> {
    /// A broker takes records of 1 MiB, unless it is told otherwise, and the coordinator writes something around ours.
    pub(crate) const BYTES_MAX: usize = 900 * 1024;
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub assignments: Vec<MemberAssignment>,
    /// Nothing is awaited or warming up.
    pub is_settled: bool,
    /// How much of the table of hosts had room for everybody.
    pub detail: HostDetail,
    /// Those who are no full members, for the log.
    pub refused: Vec<(String, Standing)>,
}

/// Decides for all members. One whose user data cannot be read gets nothing, and is told so; the group goes on.
pub(crate) fn plan(members: &[GroupMember], catalog: &TaskCatalog, settings: &PlanSettings<'_>) -> Plan {
    let told: Vec<Option<Subscription>> =
        members.iter().map(|member| Subscription::decode(&member.user_data).ok()).collect();
    let claims = || told.iter().flatten().flat_map(|told| told.active.iter().map(move |task| (told, task)));
    let is_alike = |(told, task): &(&Subscription, &TaskId)| Alike::new(&catalog.topology, told).is(**task);
    let claimed: FxHashSet<TaskId> = claims().filter(is_alike).map(|(_, task)| *task).collect();
    let (mut given, mut is_settled) = decide(members, &told, catalog, settings.assignor);
    if !claims().all(|claim| is_alike(&claim)) {
        is_settled = false;
        given.iter_mut().for_each(|(_, tasks)| hold_back(tasks, &claimed));
    }

    let hosts = hosts(&told, &given);
    let gone = gone(settings.known, &told);
    let understood = told.iter().flatten().map(|told| told.understands).min().unwrap_or(VERSION).min(VERSION);
    let stateful: FxHashSet<TaskId> =
        catalog.tasks.iter().filter(|task| task.is_stateful).map(|task| task.id).collect();
    let shuts_down = told.iter().flatten().any(|told| told.shuts_down);
    let nobody_stays = told.iter().flatten().all(|told| told.is_leaving || told.topology != catalog.topology);
    let assignment = |((standing, tasks), told): (&(Standing, MemberTasks), &Option<Subscription>)| {
        let mut claims = told.iter().flat_map(|told| &told.active);
        let is_asked_back = claims.any(|task| tasks.active.binary_search(task).is_err());
        // Who is to get a task keeps what it has of its state meanwhile.
        let awaiting = tasks.awaiting.iter().filter(|task| stateful.contains(task));
        Assignment {
            common_version: understood,
            is_alone: nobody_stays && told.as_ref().is_some_and(|told| told.is_leaving),
            shuts_down,
            follow_up: is_asked_back || !tasks.warmup.is_empty(),
            active: tasks.active.clone(),
            awaiting: tasks.awaiting.clone(),
            standby: tasks.standby.iter().chain(awaiting).copied().collect(),
            warmup: tasks.warmup.clone(),
            fence: fences(&gone, &tasks.active, &claimed),
            ..Assignment::nothing(*standing, settings.generation, catalog.topology.whole)
        }
    };
    let mut assignments: Vec<Assignment> = given.iter().zip(&told).map(assignment).collect();

    let inputs: FxHashMap<TaskId, &[TopicPartition]> =
        catalog.tasks.iter().map(|task| (task.id, &*task.inputs)).collect();
    let partitions = |assignment: &Assignment| -> Vec<TopicPartition> {
        assignment.active.iter().filter_map(|task| inputs.get(task)).flat_map(|inputs| inputs.iter().cloned()).collect()
    };
    let partitions: Vec<_> = assignments.iter().map(partitions).collect();
    let blobs = assignments.iter().zip(&partitions);
    let taken: usize = blobs.map(|(own, partitions)| own.encode().len() + size_of_partitions(partitions)).sum();
    let taken = taken + members.iter().map(size_of_member).sum::<usize>();
    let detail = detail(&hosts, members.len(), settings.bytes_max.saturating_sub(taken));
    let leader = members.iter().zip(&told).find(|(member, _)| member.id == settings.leader);
    let leader = leader.and_then(|(_, told)| told.as_ref()).map(|told| told.process);
    for (member, assignment) in members.iter().zip(&mut assignments) {
        assignment.detail = if member.id == settings.leader { HostDetail::Whole } else { detail };
        let is_told = |host: &&Host| assignment.detail != HostDetail::Leader || Some(host.process) == leader;
        assignment.hosts = hosts.iter().filter(is_told).map(|host| at_detail(host, assignment.detail)).collect();
    }

    let refused = members.iter().zip(&given).filter(|(_, (standing, _))| *standing != Standing::Member);
    let refused = refused.map(|(member, (standing, _))| (member.id.clone(), *standing)).collect();
    let assignments = members.iter().zip(assignments).zip(partitions).map(|((member, assignment), partitions)| {
        MemberAssignment { member: member.id.clone(), partitions, user_data: assignment.encode() }
    });
    Plan { assignments: assignments.collect(), is_settled, detail, refused }
}

/// How each member stands, and its tasks.
fn decide(
    members: &[GroupMember],
    told: &[Option<Subscription>],
    catalog: &TaskCatalog,
    settings: &AssignorSettings,
) -> (Vec<(Standing, MemberTasks)>, bool) {
    let tasks = catalog.tasks.iter().map(|task| TaskToAssign { id: task.id, is_stateful: task.is_stateful });
    let readable = members.iter().zip(told).filter_map(|(member, told)| Some((member, told.as_ref()?)));
    let mut candidates: Vec<_> = readable.map(|(member, told)| candidate(member, told, &catalog.topology)).collect();
    if candidates.iter().all(|candidate| candidate.share != Share::Full) {
        // Better one whose thread may come back than nobody.
        let told = told.iter().flatten();
        let is_impaired = told.map(|told| told.is_impaired && !told.is_leaving && told.topology == catalog.topology);
        for (candidate, _) in candidates.iter_mut().zip(is_impaired).filter(|(_, is_impaired)| *is_impaired) {
            candidate.share = Share::Full;
        }
    }
    let input = AssignmentInput { tasks: tasks.collect(), members: candidates, settings: settings.clone() };
    let assignment = assign(&input);

    let mut assigned = assignment.members.into_iter();
    let standing = |told: &Option<Subscription>| {
        let Some(told) = told else { return (Standing::Unreadable, MemberTasks::default()) };
        let tasks = assigned.next().unwrap_or_default();
        let standing = match () {
            () if tasks.is_superseded => Standing::Superseded,
            () if told.topology != catalog.topology => Standing::OtherTopology,
            () => Standing::Member,
        };
        (standing, tasks)
    };
    (told.iter().map(standing).collect(), assignment.is_settled)
}

/// Who runs a sub-topology of another program may read anything in it. Until it has let go of that, nobody gets what they
/// do not have.
fn hold_back(tasks: &mut MemberTasks, claimed: &FxHashSet<TaskId>) {
    let (active, held_back): (Vec<_>, Vec<_>) = tasks.active.drain(..).partition(|task| claimed.contains(task));
    tasks.active = active;
    tasks.awaiting.extend(held_back);
    tasks.awaiting.sort_unstable();
}

/// What a member calls a task is the same task only where the sub-topology is.
struct Alike<'a> {
    ours: &'a TopologyFingerprint,
    theirs: &'a TopologyFingerprint,
}

impl Alike<'_> {
    fn new<'a>(ours: &'a TopologyFingerprint, told: &'a Subscription) -> Alike<'a> {
        Alike { ours, theirs: &told.topology }
    }

    fn is(&self, task: TaskId) -> bool {
        let parts = (self.ours.parts.get(task.sub_topology), self.theirs.parts.get(task.sub_topology));
        matches!(parts, (Some(ours), Some(theirs)) if ours == theirs)
    }

    fn only(&self, tasks: &[TaskId]) -> Vec<TaskId> {
        tasks.iter().copied().filter(|task| self.is(*task)).collect()
    }

    fn lags(&self, lags: &[(TaskId, Lag)]) -> Vec<(TaskId, Lag)> {
        lags.iter().copied().filter(|(task, _)| self.is(*task)).collect()
    }
}

fn candidate(member: &GroupMember, told: &Subscription, topology: &TopologyFingerprint) -> AssignorMember {
    let alike = Alike::new(topology, told);
    AssignorMember {
        member: member.id.clone(),
        process: told.process,
        started_ms: told.started_ms,
        generation: told.generation,
        workers: told.workers,
        tags: told.tags.clone(),
        share: match (told.is_leaving, told.topology == *topology && !told.is_impaired) {
            (true, _) => Share::Leaving,
            (false, true) => Share::Full,
            (false, false) => Share::Kept,
        },
        active: alike.only(&told.active),
        promised: alike.only(&told.promised),
        standby: alike.only(&told.standby),
        lags: alike.lags(&told.lags),
        sizes: alike.lags(&told.sizes),
    }
}

/// All processes, in the order of their ids.
fn hosts(told: &[Option<Subscription>], given: &[(Standing, MemberTasks)]) -> Vec<Host> {
    let alive = told.iter().zip(given).filter(|(_, (standing, _))| *standing != Standing::Superseded);
    let host = |(told, (_, tasks)): (&Option<Subscription>, &(Standing, MemberTasks))| {
        let told = told.as_ref()?;
        Some(Host {
            process: told.process,
            workers: told.workers,
            transactional_id_prefix: told.transactional_id_prefix.clone(),
            endpoint: told.endpoint.clone(),
            active: tasks.active.clone(),
            standby: tasks.standby.clone(),
        })
    };
    let mut hosts: Vec<Host> = alive.filter_map(host).collect();
    hosts.sort_unstable_by_key(|host| host.process);
    hosts
}

/// Where nobody can be asked, nobody needs to know what is there.
fn at_detail(host: &Host, detail: HostDetail) -> Host {
    let tasks = |least: HostDetail, tasks: &Vec<TaskId>| {
        if detail >= least && host.endpoint.is_some() { tasks.clone() } else { Vec::new() }
    };
    Host {
        process: host.process,
        workers: host.workers,
        transactional_id_prefix: host.transactional_id_prefix.clone(),
        endpoint: host.endpoint.clone(),
        active: tasks(HostDetail::Active, &host.active),
        standby: tasks(HostDetail::Whole, &host.standby),
    }
}

/// The most of the table for which there is room in everybody's assignment; the leader has all of it in any case.
fn detail(hosts: &[Host], members: usize, room: usize) -> HostDetail {
    let size = |detail| {
        let hosts = hosts.iter().map(|host| at_detail(host, detail)).collect();
        Assignment { hosts, ..Assignment::nothing(Standing::Member, 0, 0) }.encode().len()
    };
    let whole = size(HostDetail::Whole);
    let fits = |detail: &HostDetail| size(*detail) * members.saturating_sub(1) + whole <= room;
    let details = [HostDetail::Whole, HostDetail::Active, HostDetail::Processes];
    details.into_iter().find(fits).unwrap_or(HostDetail::Leader)
}

/// The processes that are gone.
fn gone<'a>(known: &'a [Host], told: &[Option<Subscription>]) -> Vec<&'a Host> {
    let here: HashSet<Uuid> = told.iter().flatten().map(|told| told.process).collect();
    let has_transactions = |host: &&Host| !host.transactional_id_prefix.is_empty();
    known.iter().filter(|host| !here.contains(&host.process)).filter(has_transactions).collect()
}

/// Those who had, as far as is known, what comes here and nobody claims.
fn fences(gone: &[&Host], active: &[TaskId], claimed: &FxHashSet<TaskId>) -> Vec<Fence> {
    let taken_over: FxHashSet<TaskId> = active.iter().filter(|task| !claimed.contains(task)).copied().collect();
    if taken_over.is_empty() {
        return Vec::new();
    }
    let concerns = |host: &&&Host| host.active.is_empty() || host.active.iter().any(|task| taken_over.contains(task));
    let fence =
        |host: &&Host| Fence { transactional_id_prefix: host.transactional_id_prefix.clone(), workers: host.workers };
    gone.iter().filter(concerns).map(fence).collect()
}

/// What the coordinator keeps of a member's join, about.
fn size_of_member(member: &GroupMember) -> usize {
    // Ids appear twice, and client id, host and lengths are beside them.
    let topics: usize = member.topics.iter().map(|topic| topic.len() + 2).sum();
    let instance = member.instance.as_ref().map_or(0, String::len);
    member.user_data.len() + topics + member.id.len() + 2 * instance + 150
}

fn size_of_partitions(partitions: &[TopicPartition]) -> usize {
    let mut topics: HashMap<&str, usize> = HashMap::new();
    partitions.iter().for_each(|partition| *topics.entry(&partition.topic).or_default() += 1);
    topics.into_iter().map(|(topic, count)| topic.len() + 6 + 4 * count).sum()
}

#[cfg(test)]
mod tests;
