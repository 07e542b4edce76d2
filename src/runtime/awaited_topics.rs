//! Internal topics that the broker makes, once the first member of a streams group has told it of them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use uuid::Uuid;

use super::application::Application;
use super::start::missing_topics;
use crate::client::NewTopic;
use crate::error::{Error, ErrorKind, Result};

/// Known when tasks are opened, for the broker gives out none before its topics are there.
#[derive(Default)]
pub(super) struct AwaitedTopics {
    topics: Vec<NewTopic>,
    ids: OnceLock<BTreeMap<Arc<str>, Uuid>>,
}

impl AwaitedTopics {
    pub(super) fn new(topics: Vec<NewTopic>) -> AwaitedTopics {
        AwaitedTopics { topics, ids: OnceLock::new() }
    }

    /// Whether they are there, and what they are.
    pub(super) fn are_known(&self) -> bool {
        self.topics.is_empty() || self.ids.get().is_some()
    }

    /// Where the cluster has ids.
    pub(super) fn id(&self, topic: &Arc<str>) -> Option<Uuid> {
        self.ids.get()?.get(topic).copied()
    }
}

impl Application {
    /// Looks at the internal topics, if that was left to be done.
    ///
    /// # Errors
    /// `Unavailable` while one is not known to be there; `Invalid` for one with another number of partitions than this
    /// process counts on.
    pub(super) fn look_at_awaited_topics(&self) -> Result<()> {
        if self.awaited.are_known() {
            return Ok(());
        }
        let missing = self.with_admin(|admin| missing_topics(admin, &self.awaited.topics))?;
        if let Some(topic) = missing.first() {
            let context = format!("internal topic {} is not there yet, which the broker makes", topic.name);
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        let names: Vec<_> = self.awaited.topics.iter().map(|topic| Arc::clone(&topic.name)).collect();
        let infos = self.with_admin(|admin| admin.topics(&names))?;
        let ids = names.into_iter().zip(infos).filter_map(|(name, info)| Some((name, info?.id?)));
        // Another thread may have been faster, with the same result.
        let _ = self.awaited.ids.set(ids.collect());
        Ok(())
    }
}
