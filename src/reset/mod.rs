//! An application begins anew: inputs from another offset, without what it knew.
//!
//! ```text
//!   ask     members ── none? ──> topics, committed offsets ──> ResetPlan          changes nothing: `plan`
//!   change  delete internal topics ──> remove local state ──> set the offsets     `run`
//! ```
//!
//! The offsets are last. What may fail before has not moved them, so that running it again does the same, also by steps
//! relative to them; and the broker takes them only if no member has joined meanwhile.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::client::{Admin, GroupAdmin, GroupMembers};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::record::OffsetAndMetadata;
use crate::state::IdleState;

mod internal_topics;
mod plan;
mod target;
#[cfg(test)]
mod tests;

pub use plan::{ResetOffset, ResetPlan, SparedTopic};
pub use target::ResetTo;

/// For so long it is watched whether members that were taken out come back, which they do with their next heartbeat if they
/// run: looks, and the time between two of them. Java's heartbeats come every 3 s.
const WATCHES: usize = 40;
const BETWEEN_WATCHES: Duration = Duration::from_millis(100);

/// Until deleted topics are gone everywhere: looks, and the time between two of them.
const LOOKS_MAX: usize = 300;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Resets a stopped application, as `kafka-streams-application-reset` does: sets the committed offsets of its input topics,
/// deletes its internal topics and its local state. Output topics are left alone.
///
/// | it sets | by default | else |
/// |---|---|---|
/// | offsets of | every input that the group has committed | [`input_topics`](ApplicationReset::input_topics) |
/// | to | the earliest offset | [`to`](ApplicationReset::to) |
/// | and deletes | its changelog, repartition and foreign-key topics | [`internal_topics`](ApplicationReset::internal_topics) |
/// | and | its state below the configured directory | [`keep_local_state`](ApplicationReset::keep_local_state) |
///
/// Metadata of the offsets is removed: partition times begin anew. State on other machines has to be removed there.
///
/// ```
/// use kstreams::{ApplicationReset, Config, EmbeddedCluster, ResetTo};
///
/// # fn main() -> kstreams::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// let cluster = EmbeddedCluster::new();
/// cluster.create_topic("orders", 1)?;
/// cluster.produce("orders", Some(b"ada"), Some(b"3 apples"), None)?;
///
/// let config = Config::new("balances", "embedded://").cluster(&cluster);
/// # let config = config.state_dir(directory.path());
/// let reset = ApplicationReset::new(config).input_topics(["orders"]).to(ResetTo::Latest);
/// println!("{}", reset.plan()?); // what would be done
/// assert_eq!(cluster.committed_offset("balances", "orders", 0)?, None);
/// reset.run()?;
/// assert_eq!(cluster.committed_offset("balances", "orders", 0)?, Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ApplicationReset {
    config: Config,
    to: ResetTo,
    /// None: those with committed offsets.
    input_topics: Option<Vec<String>>,
    /// None: all that look like it.
    internal_topics: Option<Vec<String>>,
    local_state: LocalState,
    members: Members,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LocalState {
    Remove,
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Members {
    Refuse,
    Remove,
}

impl ApplicationReset {
    /// A reset of the application with this configuration: its id, its cluster and its state directory count.
    pub fn new(config: Config) -> ApplicationReset {
        ApplicationReset {
            config,
            to: ResetTo::Earliest,
            input_topics: None,
            internal_topics: None,
            local_state: LocalState::Remove,
            members: Members::Refuse,
        }
    }

    /// Where the inputs are read from next; from the earliest offset by default.
    pub fn to(self, to: ResetTo) -> ApplicationReset {
        ApplicationReset { to, ..self }
    }

    /// The inputs whose offsets are set, all partitions of each. By default those that the group has committed and that are
    /// not internal; with [`ResetTo::Offsets`] those that it names.
    ///
    /// Differs from Kafka Streams: there no offset is set if no input is named.
    pub fn input_topics(self, topics: impl IntoIterator<Item = impl Into<String>>) -> ApplicationReset {
        ApplicationReset { input_topics: Some(topics.into_iter().map(Into::into).collect()), ..self }
    }

    /// Deletes these internal topics only. By default all whose names are `<application id>-…-changelog`, `…-repartition` or
    /// those of a foreign-key join, but for inputs that were named, and for those of an application whose id begins with this one's
    /// ([`SparedTopic`]).
    pub fn internal_topics(self, topics: impl IntoIterator<Item = impl Into<String>>) -> ApplicationReset {
        ApplicationReset { internal_topics: Some(topics.into_iter().map(Into::into).collect()), ..self }
    }

    /// Leaves the state directory alone. State that stays is found to be of other changelogs by the next start and is
    /// restored; but that of a table that reuses its source topic (an optimisation) is taken as it is.
    pub fn keep_local_state(self) -> ApplicationReset {
        ApplicationReset { local_state: LocalState::Keep, ..self }
    }

    /// Takes members out of the group where there are some (`--force`): for those that were stopped and whose sessions last.
    /// For 4 s it is watched whether one joins again, which means that it runs: then the reset fails, and nothing is changed.
    pub fn remove_members(self) -> ApplicationReset {
        ApplicationReset { members: Members::Remove, ..self }
    }

    /// What [`run`](ApplicationReset::run) would do now. Changes nothing; the application may run.
    ///
    /// # Errors
    /// As `run`, but for members and for a state directory in use.
    pub fn plan(&self) -> Result<ResetPlan> {
        let (mut admin, mut group) = self.connect()?;
        let members = described(group.members()?);
        let state = match self.local_state {
            LocalState::Remove => IdleState::find(&self.config.state_dir_or_default(), self.id())?,
            LocalState::Keep => None,
        };
        plan::make(self, admin.as_mut(), group.as_mut(), members, state)
    }

    /// Resets the application and returns what was done. It may be run again, also after it has failed.
    ///
    /// Blocks while a transaction that would change the offsets is open, up to 30 s.
    ///
    /// # Errors
    /// * `Unavailable`: the group has members, a process uses the state directory, a transaction stays open, or the cluster does
    ///   not answer. What was done until then is in the message.
    /// * `Fenced`: a member joined while it ran.
    /// * `Invalid`: a topic or an offset that is not there, or a right that is missing.
    pub fn run(&self) -> Result<ResetPlan> {
        let (mut admin, mut group) = self.connect()?;
        self.run_on(admin.as_mut(), group.as_mut())
    }

    fn run_on(&self, admin: &mut dyn Admin, group: &mut dyn GroupAdmin) -> Result<ResetPlan> {
        let idle = match self.local_state {
            LocalState::Remove => IdleState::hold(&self.config.state_dir_or_default(), self.id())?,
            LocalState::Keep => None,
        };
        let removed = self.empty_group(group)?;
        let state = idle.as_ref().map(|idle| idle.path().to_owned());
        let plan = plan::make(self, admin, group, removed, state)?;
        delete_topics(admin, &plan.deleted_topics)?;
        if let Some(idle) = idle {
            idle.remove()
                .map_err(|error| error.and("; internal topics are deleted, offsets unchanged: run it again"))?;
        }
        let begin = |offset| OffsetAndMetadata { offset, metadata: String::new() };
        let offsets: Vec<_> = plan.offsets.iter().map(|set| (set.partition.clone(), begin(set.to))).collect();
        if !offsets.is_empty() {
            group.set_committed(&offsets).map_err(|error| self.offsets_refused(error))?;
        }
        tracing::info!(application = self.id(), "the application is reset");
        Ok(plan)
    }

    fn id(&self) -> &str {
        &self.config.application_id
    }

    fn connect(&self) -> Result<(Box<dyn Admin>, Box<dyn GroupAdmin>)> {
        self.config.check()?;
        let cluster = crate::runtime::cluster(&self.config)?;
        let group = cluster.group_admin(self.id(), &format!("{}-reset", self.id()))?;
        Ok((cluster.admin()?, group))
    }

    /// Who was taken out.
    fn empty_group(&self, group: &mut dyn GroupAdmin) -> Result<Vec<String>> {
        let listed = match (group.members()?, self.members) {
            (GroupMembers::Listed(listed), _) if listed.is_empty() => return Ok(Vec::new()),
            (GroupMembers::Listed(listed), Members::Remove) => listed,
            (members @ (GroupMembers::Listed(_) | GroupMembers::OfProtocol(_)), _) => return Err(self.alive(members)),
        };
        for member in &listed {
            tracing::warn!(member = member.id, host = member.host, "taken out of the group");
            group.remove_member(&member.id)?;
        }
        for _ in 0..WATCHES {
            let back = described(group.members()?).join(", ");
            if !back.is_empty() {
                let context = format!(
                    "could not reset {}: members that were taken out of its group have joined again, as they run: {back}; stop \
                     every instance",
                    self.id()
                );
                return Err(Error::new(ErrorKind::Unavailable, context));
            }
            thread::park_timeout(BETWEEN_WATCHES);
        }
        Ok(described(GroupMembers::Listed(listed)))
    }

    fn alive(&self, members: GroupMembers) -> Error {
        let remedy = match members {
            GroupMembers::Listed(_) => {
                "stop every instance; one that has stopped without leaving stays a member until its session times out, or is \
                 taken out by force"
            }
            GroupMembers::OfProtocol(_) => "stop every instance and wait until its session times out",
        };
        let members = described(members).join(", ");
        let context = format!("could not reset {}: its group has members: {members}; {remedy}", self.id());
        Error::new(ErrorKind::Unavailable, context)
    }

    fn offsets_refused(&self, error: Error) -> Error {
        let done = "; internal topics and local state are deleted, offsets unchanged";
        if error.kind() != ErrorKind::Fenced {
            return error.and(done).and(": run it again");
        }
        let context = format!(
            "could not set the offsets of {}: a member has joined{done}: stop every instance and run it again",
            self.id()
        );
        Error::new(ErrorKind::Fenced, context).with_source(error)
    }
}

fn described(members: GroupMembers) -> Vec<String> {
    match members {
        GroupMembers::Listed(members) => {
            members.into_iter().map(|member| format!("{} at {}", member.id, member.host)).collect()
        }
        GroupMembers::OfProtocol(protocol) => vec![format!("some of the {protocol} protocol")],
    }
}

/// Returns when they are gone: an application that starts at once would take the old ones for its own.
fn delete_topics(admin: &mut dyn Admin, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let names: Vec<Arc<str>> = names.iter().map(|name| name.as_str().into()).collect();
    let undone = "; some internal topics may be deleted, nothing else is changed: run it again";
    let failed = |error: Error| error.and(undone);
    admin.delete_topics(&names).map_err(failed)?;
    for _ in 0..LOOKS_MAX {
        if admin.topics(&names).map_err(failed)?.iter().all(Option::is_none) {
            return Ok(());
        }
        thread::park_timeout(BETWEEN_LOOKS);
    }
    let context = format!("could not wait until these topics are deleted: {}{undone}", names.join(", "));
    Err(Error::new(ErrorKind::Unavailable, context))
}
