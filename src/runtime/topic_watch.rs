//! Whether the topics are still those that the tasks were made for: looked at from time to time, since nobody tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::application::Application;
use super::clock::Now;
use super::supervisor::Supervisor;
use crate::error::{Error, Result};

/// A broker that has just started may not know of every topic: what is found is looked at once more.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The looks at the topics of an application.
pub(super) struct TopicWatch {
    last_look: Now,
    /// What was wrong when it was looked last.
    suspicion: Option<String>,
}

/// What a topic was when the tasks were made.
#[derive(Default)]
struct Known {
    /// Of what tasks read.
    partitions: Option<i32>,
    /// Of internal topics: what is in another one of the name is not what was written.
    id: Option<Uuid>,
    is_internal: bool,
}

impl TopicWatch {
    pub(super) fn new(now: Now) -> TopicWatch {
        TopicWatch { last_look: now, suspicion: None }
    }
}

impl Supervisor {
    /// Ends the client when a topic is not what it was. Topics that come to match a pattern are another matter.
    pub(super) fn watch_topics(&mut self, now: Now) {
        let age = self.app.config.metadata_max_age;
        let interval = if self.topics.suspicion.is_some() { age.min(LOOK_AGAIN) } else { age };
        if self.closing.is_some() || !self.has_begun || now.since(self.topics.last_look) < interval {
            return;
        }
        self.topics.last_look = now;
        let found = match look(&self.app) {
            Ok(found) => found,
            Err(error) => return tracing::debug!("could not look at the topics: {}", error.report()),
        };
        match found {
            Some(found) if self.topics.suspicion.as_ref() == Some(&found) => {
                tracing::error!("the client ends: {found}");
                self.give_up(Error::invalid(found), super::stream_thread::Order::Leave);
            }
            found => self.topics.suspicion = found,
        }
    }
}

/// What is wrong with a topic, and what to do.
fn look(app: &Application) -> Result<Option<String>> {
    if !app.awaited.are_known() {
        // The broker has not made them yet, or may not.
        return Ok(None);
    }
    let known = known(app);
    let names: Vec<_> = known.keys().map(Arc::clone).collect();
    let infos = app.with_admin(|admin| admin.topics(&names))?;
    let mut found = known.into_iter().zip(infos).filter_map(|((topic, known), info)| {
        let Some(info) = info else {
            // One of a pattern is not read any more.
            return match known.is_internal {
                true => Some(lost(app, &topic, "was deleted")),
                false if app.topology.has_patterns() => None,
                false => Some(format!("source topic {topic} was deleted while the application runs: create it and start again")),
            };
        };
        if let Some(before) = known.partitions
            && before != info.partitions
        {
            let now = info.partitions;
            return Some(format!(
                "topic {topic} has {now} partitions, and had {before} when this instance started: the tasks are made by \
                 them. Start all instances again; one with internal topics says then that they do not fit, and has to be \
                 reset, because its keys are in other partitions"
            ));
        }
        let is_another = known.id.zip(info.id).is_some_and(|(before, now)| before != now);
        (known.is_internal && is_another).then(|| lost(app, &topic, "was deleted and made again"))
    });
    Ok(found.next())
}

fn lost(app: &Application, topic: &str, what: &str) -> String {
    format!(
        "internal topic {topic} {what} while the application runs, and what it held is lost: end all instances and reset \
         the application {} (`kstreams reset`, or ApplicationReset)",
        app.id()
    )
}

fn known(app: &Application) -> BTreeMap<Arc<str>, Known> {
    let mut known: BTreeMap<Arc<str>, Known> = BTreeMap::new();
    for (topic, partitions) in app.layout.partitions() {
        known.entry(topic).or_default().partitions = Some(partitions);
    }
    let repartition = app.topology.repartition_topics().keys().map(|name| app.topology.full_name(app.id(), name));
    let repartition = repartition.filter(|topic| app.input_ids.contains_key(topic)).collect::<Vec<_>>();
    for topic in repartition {
        let id = app.input_ids.get(&topic).copied();
        let known = known.entry(topic).or_default();
        (known.id, known.is_internal) = (id, true);
    }
    for (topic, changelog) in &app.changelogs {
        let known = known.entry(Arc::clone(topic)).or_default();
        (known.id, known.is_internal) = (changelog.id.or_else(|| app.awaited.id(topic)), true);
    }
    known
}
