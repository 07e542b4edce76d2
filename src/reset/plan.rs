//! What a reset does, worked out before anything is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::internal_topics::{is_internal, other_owner};
use super::{ApplicationReset, ResetTo};
use crate::client::{Admin, GroupAdmin, Watermarks};
use crate::error::{Error, Result};
use crate::record::TopicPartition;

/// What an [`ApplicationReset`] would do or has done; its text has a line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResetPlan {
    /// The application.
    pub application_id: String,
    /// Members of the group: those that have to go before it runs, or that were taken out.
    pub members: Vec<String>,
    /// The offsets of all input partitions, in order.
    pub offsets: Vec<ResetOffset>,
    /// Internal topics that are deleted.
    pub deleted_topics: Vec<String>,
    /// Topics that look internal and are left alone.
    pub spared_topics: Vec<SparedTopic>,
    /// The folder whose contents are removed; none where there is no local state.
    pub local_state: Option<PathBuf>,
}

/// The offset of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResetOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset committed before; none if there was none.
    pub from: Option<i64>,
    /// The offset that it gets.
    pub to: i64,
    /// The offset that was asked for, where the log does not hold it.
    pub outside_of_log: Option<i64>,
}

/// A topic whose name may be that of an internal one, and that is more likely of another application: one whose id begins with
/// the id of this one. It is deleted if it is named by [`ApplicationReset::internal_topics`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SparedTopic {
    /// The topic.
    pub topic: String,
    /// The other application.
    pub application_id: String,
}

/// Asks the cluster; changes nothing.
pub(super) fn make(
    reset: &ApplicationReset,
    admin: &mut dyn Admin,
    group: &mut dyn GroupAdmin,
    members: Vec<String>,
    local_state: Option<PathBuf>,
) -> Result<ResetPlan> {
    let committed: BTreeMap<_, _> =
        group.committed()?.into_iter().map(|(partition, at)| (partition, at.offset)).collect();
    let topics: BTreeSet<Arc<str>> = admin.topic_names()?.into_iter().collect();
    let inputs = inputs(reset, &topics, &committed)?;
    let (deleted_topics, spared_topics) = internal_topics(reset, &topics, &inputs, group)?;
    let offsets = offsets(reset, admin, &inputs, &committed)?;
    Ok(ResetPlan {
        application_id: reset.id().to_owned(),
        members,
        offsets,
        deleted_topics,
        spared_topics,
        local_state,
    })
}

fn inputs(
    reset: &ApplicationReset,
    topics: &BTreeSet<Arc<str>>,
    committed: &BTreeMap<TopicPartition, i64>,
) -> Result<BTreeSet<Arc<str>>> {
    let named: BTreeSet<Arc<str>> = match (&reset.input_topics, &reset.to) {
        (Some(named), _) => named.iter().map(|topic| topic.as_str().into()).collect(),
        (None, ResetTo::Offsets(named)) => named.iter().map(|(partition, _)| Arc::clone(&partition.topic)).collect(),
        (None, _) => {
            let is_input = |topic: &&Arc<str>| topics.contains(*topic) && !is_internal(reset.id(), topic);
            return Ok(committed.keys().map(|partition| &partition.topic).filter(is_input).cloned().collect());
        }
    };
    let missing: Vec<&str> = named.difference(topics).map(AsRef::as_ref).collect();
    if missing.is_empty() {
        return Ok(named);
    }
    let missing = missing.join(", ");
    Err(Error::invalid(format!("could not reset {}: these input topics do not exist: {missing}", reset.id())))
}

/// Those to delete, and those that are left alone.
fn internal_topics(
    reset: &ApplicationReset,
    topics: &BTreeSet<Arc<str>>,
    inputs: &BTreeSet<Arc<str>>,
    group: &mut dyn GroupAdmin,
) -> Result<(Vec<String>, Vec<SparedTopic>)> {
    // An input that was named may look internal by chance (KAFKA-7930).
    let is_own = |topic: &str| is_internal(reset.id(), topic) && !inputs.contains(topic);
    if let Some(named) = &reset.internal_topics {
        if let Some(wrong) = named.iter().find(|topic| !is_own(topic)) {
            return Err(Error::invalid(format!(
                "could not reset {}: {wrong} is not an internal topic of it: name some of those that a plan shows",
                reset.id()
            )));
        }
        // One that is gone was deleted by a run before.
        let mut deleted: Vec<_> = named.iter().filter(|topic| topics.contains(topic.as_str())).cloned().collect();
        deleted.sort();
        deleted.dedup();
        return Ok((deleted, Vec::new()));
    }
    let inferred: Vec<String> = topics.iter().filter(|topic| is_own(topic)).map(|topic| topic.to_string()).collect();
    if inferred.is_empty() {
        return Ok((inferred, Vec::new()));
    }
    let groups = group.groups()?;
    let (mut deleted, mut spared) = (Vec::new(), Vec::new());
    for topic in inferred {
        match other_owner(reset.id(), &topic, &groups).map(str::to_owned) {
            None => deleted.push(topic),
            Some(application_id) => spared.push(SparedTopic { topic, application_id }),
        }
    }
    Ok((deleted, spared))
}

fn offsets(
    reset: &ApplicationReset,
    admin: &mut dyn Admin,
    inputs: &BTreeSet<Arc<str>>,
    committed: &BTreeMap<TopicPartition, i64>,
) -> Result<Vec<ResetOffset>> {
    let names: Vec<Arc<str>> = inputs.iter().cloned().collect();
    let mut partitions = Vec::new();
    for (topic, info) in names.iter().zip(admin.topics(&names)?) {
        let count = info.map_or(0, |info| info.partitions);
        partitions.extend((0..count).map(|number| TopicPartition::new(Arc::clone(topic), number)));
    }
    let marks = admin.watermarks(&partitions)?;
    let asked = reset.to.offsets(admin, &partitions, &marks, committed)?;
    let set = |((partition, marks), asked): ((TopicPartition, _), i64)| {
        let Watermarks { start, end } = marks;
        let to = asked.clamp(start, end.max(start));
        let from = committed.get(&partition).copied();
        ResetOffset { partition, from, to, outside_of_log: (to != asked).then_some(asked) }
    };
    Ok(partitions.into_iter().zip(marks).zip(asked).map(set).collect())
}

impl fmt::Display for ResetPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "application {}", self.application_id)?;
        for member in &self.members {
            writeln!(f, "  member  {member}")?;
        }
        for set in &self.offsets {
            writeln!(f, "  offset  {set}")?;
        }
        if self.offsets.is_empty() {
            writeln!(f, "  offset  none: no input is named, and none is committed")?;
        }
        for topic in &self.deleted_topics {
            writeln!(f, "  delete  {topic}")?;
        }
        for SparedTopic { topic, application_id } in &self.spared_topics {
            writeln!(f, "  keep    {topic}: by its name it is of application {application_id}")?;
        }
        match &self.local_state {
            Some(path) => write!(f, "  remove  {}", path.display()),
            None => write!(f, "  remove  no local state"),
        }
    }
}

impl fmt::Display for ResetOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.partition)?;
        match self.from {
            Some(from) => write!(f, "{from} -> {}", self.to)?,
            None => write!(f, "none -> {}", self.to)?,
        }
        match self.outside_of_log {
            Some(asked) => write!(f, " (offset {asked} is not in the log)"),
            None => Ok(()),
        }
    }
}
