//! What our members tell each other: the user data of the protocol `rs-streams-1`.
//!
//! A group is upgraded one instance after the other, so builds of different ages read each other's bytes. Both formats
//! begin with two versions, the one they are written in and the lowest that can read them. A version adds fields at the
//! end; an older reader skips them. Each member says which version it understands, and the leader tells everybody the
//! lowest of them (`common_version`): what an old member could not do without is not used before all know of it.
//!
//! Metadata and assignments of all members share one record of `__consumer_offsets`, of 1 MiB on a broker as it comes. A
//! hundred members with ten thousand tasks and a standby of each take 450 KiB of it, and with endpoints of 30 bytes 740 KiB;
//! the table of hosts then leaves out which tasks each of them has ([`HostDetail`]).

use uuid::Uuid;

use super::bytes::{Reader, put_short_count, put_varint};
use super::task_set::{Lag, lags, put_lags, put_tasks, tasks};
use crate::error::{Error, Result};
use crate::topology::{TaskId, TopologyFingerprint};

/// The latest version of either format that this build reads, and the one that it writes.
pub(crate) const VERSION: u8 = 1;
/// The lowest version whose readers understand what this build writes.
const READABLE_FROM: u8 = 1;
/// The rules of the leader's assignor, for a leader that wants to know whether all members can follow newer ones.
pub(crate) const ASSIGNOR_VERSION: u8 = 1;

/// What a member tells the leader.
///
/// ```text
///   version 1 | readable from 1 | understands 1 | assignor version 1
///   process 16 | started (ms) v | joins v | generation 4 | flags 1: 1 = leaving, 2 = impaired, 4 = all shall end
///   workers v | topology 8, parts { hash 4 }* | endpoint text | transactional id prefix text | tags { key, value text }*
///   active tasks | promised tasks | standby tasks | lags | sizes as lags
///
///   v      varint                     text   length v, UTF-8
///   { }*   a count v before them      tasks, lags   see `task_set`
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// The latest version that the member reads.
    pub understands: u8,
    pub assignor_version: u8,
    /// Outlives restarts: it lies in the state directory, which one process at a time can lock.
    pub process: Uuid,
    /// When the process was started, in milliseconds since the epoch. Of several members of one process the last one
    /// started is alive.
    pub started_ms: u64,
    /// Counts the joins that shall make the group rebalance: a follower's join with the bytes of its last one is answered
    /// from what the coordinator has.
    pub joins: u64,
    /// In which the tasks that it owns were given to it; −1: none yet.
    pub generation: i32,
    /// It hands its tasks over, and leaves when it has none.
    pub is_leaving: bool,
    /// A thread of it does not come back: it keeps what it claims, and gets nothing new as long as anybody else can. A
    /// leader of an earlier build does not know.
    pub is_impaired: bool,
    /// Every instance of the application is to end.
    pub shuts_down: bool,
    /// Its stream threads.
    pub workers: u32,
    pub topology: TopologyFingerprint,
    /// `host:port` of interactive queries.
    pub endpoint: Option<String>,
    /// Of its producers; the number of a worker follows.
    pub transactional_id_prefix: String,
    /// In the order of the keys.
    pub tags: Vec<(String, String)>,
    /// What runs or restores here: nobody else may get it before a later join leaves it out.
    pub active: Vec<TaskId>,
    /// What the last assignment promised ([`Assignment::awaiting`]) and is not here yet.
    pub promised: Vec<TaskId>,
    pub standby: Vec<TaskId>,
    /// Of each task with state here, standby or at rest. An active task that is not among them has caught up.
    pub lags: Vec<(TaskId, Lag)>,
    /// Of active tasks with state: how many records a process without any of it would have to read. Only small numbers
    /// matter; the others may be left out.
    pub sizes: Vec<(TaskId, Lag)>,
}

impl Subscription {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, READABLE_FROM, self.understands, self.assignor_version];
        out.extend_from_slice(self.process.as_bytes());
        put_varint(self.started_ms, &mut out);
        put_varint(self.joins, &mut out);
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.push(u8::from(self.is_leaving) | u8::from(self.is_impaired) << 1 | u8::from(self.shuts_down) << 2);
        put_varint(self.workers.into(), &mut out);
        out.extend_from_slice(&self.topology.whole.to_be_bytes());
        put_short_count(self.topology.parts.len(), &mut out);
        self.topology.parts.iter().for_each(|part| out.extend_from_slice(&part.to_be_bytes()));
        put_text(self.endpoint.as_deref().unwrap_or_default(), &mut out);
        put_text(&self.transactional_id_prefix, &mut out);
        put_short_count(self.tags.len(), &mut out);
        self.tags.iter().flat_map(|(key, value)| [key, value]).for_each(|text| put_text(text, &mut out));
        [&self.active, &self.promised, &self.standby].into_iter().for_each(|tasks| put_tasks(tasks, &mut out));
        [&self.lags, &self.sizes].into_iter().for_each(|lags| put_lags(lags, &mut out));
        out
    }

    /// # Errors
    /// `Corrupted` for bytes that are no such thing, `Invalid` for those of a build that this one cannot read any more.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Subscription> {
        let mut reader = Reader::new(bytes, "the user data of a member");
        let version = version(&mut reader)?;
        let [understands, assignor_version] = reader.array()?;
        let flags: u8;
        let subscription = Subscription {
            understands,
            assignor_version,
            process: reader.array().map(Uuid::from_bytes)?,
            started_ms: reader.varint()?,
            joins: reader.varint()?,
            generation: reader.i32()?,
            is_leaving: {
                [flags] = reader.array()?;
                flags & 1 != 0
            },
            is_impaired: flags & 2 != 0,
            shuts_down: flags & 4 != 0,
            workers: number(&mut reader)?,
            topology: TopologyFingerprint {
                whole: reader.array().map(u64::from_be_bytes)?,
                parts: many(&mut reader, |reader| reader.array().map(u32::from_be_bytes))?,
            },
            endpoint: Some(text(&mut reader)?).filter(|endpoint| !endpoint.is_empty()),
            transactional_id_prefix: text(&mut reader)?,
            tags: many(&mut reader, |reader| Ok((text(reader)?, text(reader)?)))?,
            active: tasks(&mut reader)?,
            promised: tasks(&mut reader)?,
            standby: tasks(&mut reader)?,
            lags: lags(&mut reader)?,
            sizes: lags(&mut reader)?,
        };
        end(&reader, version)?;
        Ok(subscription)
    }
}

/// What the leader tells a member.
///
/// ```text
///   version 1 | readable from 1 | common version 1 | standing 1 | flags 1: 1 = follow up, 2 = alone, 4 = end | generation 4 | topology 8
///   active tasks | awaiting tasks | standby tasks | warm-up tasks
///   detail 1 | hosts { process 16, workers v, prefix, endpoint text, active tasks, standby tasks }*
///   fence { transactional id prefix text, workers v }*
///
///   prefix   flags 1: 1 = the process as text ends it, 2 = what is before that is as in the host before
///            | what is before that, text, without flag 2
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The lowest version that all members understand.
    pub common_version: u8,
    pub standing: Standing,
    /// Join again when a warm-up has caught up, or when what is not active here any more is closed. Without it, nothing is
    /// under way here.
    pub follow_up: bool,
    /// It leaves, and nobody stays who could take over. A leader of an earlier build never says so.
    pub is_alone: bool,
    /// Somebody has said that every instance is to end.
    pub shuts_down: bool,
    pub generation: i32,
    /// The leader's.
    pub topology: u64,
    /// To run now.
    pub active: Vec<TaskId>,
    /// To run once those who have them let them go, which is told in a later assignment. Among the standbys as well where
    /// they have state. To be repeated as [`Subscription::promised`].
    pub awaiting: Vec<TaskId>,
    pub standby: Vec<TaskId>,
    /// Standbys that will run here once they have caught up.
    pub warmup: Vec<TaskId>,
    pub detail: HostDetail,
    pub hosts: Vec<Host>,
    /// Processes that are gone, and may have left transactions open on what this member takes over.
    pub fence: Vec<Fence>,
}

/// How a member stands with its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Member,
    /// It runs another topology than the leader: it keeps what it has of the sub-topologies that are alike.
    OtherTopology,
    /// A later start of the same process is in the group as well.
    Superseded,
    /// The leader cannot read its user data.
    Unreadable,
    /// Something that a newer leader says.
    Other(u8),
}

/// How much of the table of hosts everybody is told: as much as has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostDetail {
    /// The leader alone, which has the whole table, and can be asked.
    Leader,
    /// All processes, without their tasks. The leader has the whole table.
    Processes,
    /// All processes with their active tasks.
    Active,
    /// All processes with active and standby tasks.
    Whole,
}

/// A process of the group, for key discovery, and for whoever has to clear up behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub process: Uuid,
    pub workers: u32,
    pub transactional_id_prefix: String,
    pub endpoint: Option<String>,
    pub active: Vec<TaskId>,
    pub standby: Vec<TaskId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fence {
    pub transactional_id_prefix: String,
    pub workers: u32,
}

impl Fence {
    /// Nobody has more stream threads: what a broken assignment says is no reason to ask a broker a billion times.
    const WORKERS_MAX: u32 = 1024;

    /// The transactional ids of its producers, one per worker.
    pub(crate) fn transactional_ids(&self) -> impl Iterator<Item = String> + '_ {
        (1..=self.workers.min(Fence::WORKERS_MAX)).map(|worker| format!("{}-{worker}", self.transactional_id_prefix))
    }
}

impl Standing {
    /// What the member has to tell its user, if it is no full member.
    pub(crate) fn error(self) -> Option<Error> {
        let message = match self {
            Standing::Member => return None,
            Standing::OtherTopology => {
                "the leader of the group runs another topology, and gives this instance no tasks but those it already has: \
                 start the same program everywhere"
                    .to_owned()
            }
            Standing::Superseded => {
                "another member of the group has the same process id and was started later: give each instance a state \
                 directory of its own"
                    .to_owned()
            }
            Standing::Unreadable => {
                "the leader of the group cannot read what this instance tells it: upgrade the other instances, or let \
                 nothing else use the group"
                    .to_owned()
            }
            Standing::Other(code) => format!("the leader of the group refuses this instance with code {code}: upgrade it"),
        };
        Some(Error::invalid(message))
    }

    fn code(self) -> u8 {
        match self {
            Standing::Member => 0,
            Standing::OtherTopology => 1,
            Standing::Superseded => 2,
            Standing::Unreadable => 3,
            Standing::Other(code) => code,
        }
    }

    fn of(code: u8) -> Standing {
        match code {
            0 => Standing::Member,
            1 => Standing::OtherTopology,
            2 => Standing::Superseded,
            3 => Standing::Unreadable,
            code => Standing::Other(code),
        }
    }
}

impl HostDetail {
    fn code(self) -> u8 {
        match self {
            HostDetail::Leader => 0,
            HostDetail::Processes => 1,
            HostDetail::Active => 2,
            HostDetail::Whole => 3,
        }
    }
}

impl Assignment {
    /// What a member is told that the leader gives nothing.
    pub(crate) fn nothing(standing: Standing, generation: i32, topology: u64) -> Assignment {
        Assignment {
            common_version: VERSION,
            standing,
            follow_up: false,
            is_alone: false,
            shuts_down: false,
            generation,
            topology,
            active: Vec::new(),
            awaiting: Vec::new(),
            standby: Vec::new(),
            warmup: Vec::new(),
            detail: HostDetail::Leader,
            hosts: Vec::new(),
            fence: Vec::new(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let flags = u8::from(self.follow_up) | u8::from(self.is_alone) << 1 | u8::from(self.shuts_down) << 2;
        let mut out = vec![VERSION, READABLE_FROM, self.common_version, self.standing.code(), flags];
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.topology.to_be_bytes());
        let lists = [&self.active, &self.awaiting, &self.standby, &self.warmup];
        lists.into_iter().for_each(|tasks| put_tasks(tasks, &mut out));
        out.push(self.detail.code());
        put_short_count(self.hosts.len(), &mut out);
        let mut lead = String::new();
        self.hosts.iter().for_each(|host| host.encode(&mut lead, &mut out));
        put_short_count(self.fence.len(), &mut out);
        for fence in &self.fence {
            put_text(&fence.transactional_id_prefix, &mut out);
            put_varint(fence.workers.into(), &mut out);
        }
        out
    }

    /// # Errors
    /// `Corrupted` for bytes that are no such thing, `Invalid` for those of a build that this one cannot read any more.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Assignment> {
        let mut reader = Reader::new(bytes, "the assignment of a member");
        let version = version(&mut reader)?;
        let [common_version, standing, flags] = reader.array()?;
        let mut lead = String::new();
        let assignment = Assignment {
            common_version,
            standing: Standing::of(standing),
            follow_up: flags & 1 != 0,
            is_alone: flags & 2 != 0,
            shuts_down: flags & 4 != 0,
            generation: reader.i32()?,
            topology: reader.array().map(u64::from_be_bytes)?,
            active: tasks(&mut reader)?,
            awaiting: tasks(&mut reader)?,
            standby: tasks(&mut reader)?,
            warmup: tasks(&mut reader)?,
            detail: match reader.array()? {
                [1] => HostDetail::Processes,
                [2] => HostDetail::Active,
                [3] => HostDetail::Whole,
                [_] => HostDetail::Leader,
            },
            hosts: many(&mut reader, |reader| Host::decode(&mut lead, reader))?,
            fence: many(&mut reader, |reader| {
                Ok(Fence { transactional_id_prefix: text(reader)?, workers: number(reader)? })
            })?,
        };
        end(&reader, version)?;
        Ok(assignment)
    }
}

impl Host {
    const PROCESS_ENDS_PREFIX: u8 = 1;
    const LEAD_AS_BEFORE: u8 = 2;

    fn encode(&self, lead: &mut String, out: &mut Vec<u8>) {
        out.extend_from_slice(self.process.as_bytes());
        put_varint(self.workers.into(), out);
        let process = self.process.to_string();
        let (own_lead, ends) = match self.transactional_id_prefix.strip_suffix(&process) {
            Some(own_lead) => (own_lead, Host::PROCESS_ENDS_PREFIX),
            None => (&*self.transactional_id_prefix, 0),
        };
        if own_lead == lead {
            out.push(ends | Host::LEAD_AS_BEFORE);
        } else {
            out.push(ends);
            put_text(own_lead, out);
            own_lead.clone_into(lead);
        }
        put_text(self.endpoint.as_deref().unwrap_or_default(), out);
        put_tasks(&self.active, out);
        put_tasks(&self.standby, out);
    }

    fn decode(lead: &mut String, reader: &mut Reader<'_>) -> Result<Host> {
        let process = reader.array().map(Uuid::from_bytes)?;
        let workers = number(reader)?;
        let [flags] = reader.array()?;
        if flags & Host::LEAD_AS_BEFORE == 0 {
            *lead = text(reader)?;
        }
        let ends = flags & Host::PROCESS_ENDS_PREFIX != 0;
        Ok(Host {
            process,
            workers,
            transactional_id_prefix: if ends { format!("{lead}{process}") } else { lead.clone() },
            endpoint: Some(text(reader)?).filter(|endpoint| !endpoint.is_empty()),
            active: tasks(reader)?,
            standby: tasks(reader)?,
        })
    }
}

/// The version the bytes are written in, if this build can read them.
fn version(reader: &mut Reader<'_>) -> Result<u8> {
    let [version, readable_from] = reader.array()?;
    if version == 0 || readable_from == 0 || readable_from > version {
        return Err(reader.broken("it begins with no version"));
    }
    if readable_from > VERSION {
        return Err(Error::invalid(format!(
            "a member of the group writes version {version} of its user data, and version {VERSION} is the latest known \
             here: upgrade this instance"
        )));
    }
    Ok(version)
}

/// Only a later version may go on behind the fields that are known.
fn end(reader: &Reader<'_>, version: u8) -> Result<()> {
    if version > VERSION || reader.is_at_end() { Ok(()) } else { Err(reader.broken("it goes on behind its end")) }
}

fn many<T>(reader: &mut Reader<'_>, mut one: impl FnMut(&mut Reader<'_>) -> Result<T>) -> Result<Vec<T>> {
    // Not collected: the count would be taken for a size, and room made for what may not be there.
    let mut all = Vec::new();
    for _ in 0..reader.short_count()? {
        all.push(one(reader)?);
    }
    Ok(all)
}

fn number(reader: &mut Reader<'_>) -> Result<u32> {
    u32::try_from(reader.varint()?).map_err(|_| reader.broken("it has a number that is too large"))
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_short_count(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn text(reader: &mut Reader<'_>) -> Result<String> {
    let length = reader.short_count()?;
    reader.text(length).map(str::to_owned)
}

#[cfg(test)]
mod tests;
