//! A group as a tool sees it: what is asked of its coordinator, and the names of all groups.

use std::sync::Arc;

use super::REQUEST_TIMEOUT;
use super::group::explain;
use super::side::SideOffsets;
use super::sys::Client;
use crate::client::{GroupAdmin, GroupMembers};
use crate::error::Result;
use crate::record::{OffsetAndMetadata, TopicPartition};

#[derive(Debug)]
pub(super) struct KafkaGroupAdmin {
    /// At the group's coordinator.
    side: SideOffsets,
    /// Knows every broker, each of which lists the groups that it coordinates.
    client: Arc<Client>,
}

impl KafkaGroupAdmin {
    pub(super) fn new(side: SideOffsets, client: Arc<Client>) -> KafkaGroupAdmin {
        KafkaGroupAdmin { side, client }
    }
}

impl GroupAdmin for KafkaGroupAdmin {
    fn members(&mut self) -> Result<GroupMembers> {
        self.side.members()
    }

    fn remove_member(&mut self, id: &str) -> Result<()> {
        self.side.remove_member(id)
    }

    fn committed(&mut self) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>> {
        self.side.all_committed()
    }

    fn set_committed(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        self.side.set_committed(offsets)
    }

    fn groups(&mut self) -> Result<Vec<String>> {
        let names = self.client.group_names(REQUEST_TIMEOUT);
        names.map_err(|failure| explain(Some(&self.client), failure).while_doing("could not list the groups"))
    }
}
