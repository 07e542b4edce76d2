//! A group of the in-process cluster, as a tool sees it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::client::embedded::state::Shared;
use crate::client::{GroupAdmin, GroupMembers, GroupMetadata, ListedMember};
use crate::error::Result;
use crate::record::{OffsetAndMetadata, TopicPartition};

pub(super) struct EmbeddedGroupAdmin {
    shared: Arc<Shared>,
    group: String,
}

impl EmbeddedGroupAdmin {
    pub(super) fn new(shared: Arc<Shared>, group: &str) -> EmbeddedGroupAdmin {
        EmbeddedGroupAdmin { shared, group: group.to_owned() }
    }
}

impl GroupAdmin for EmbeddedGroupAdmin {
    fn members(&mut self) -> Result<GroupMembers> {
        let state = self.shared.state()?;
        let group = state.groups.get(&self.group);
        let ids = group.into_iter().flat_map(|group| group.members.keys().chain(group.classic.member_ids()));
        let listed = ids.map(|id| ListedMember { id: id.clone(), host: "this cluster's process".to_owned() });
        Ok(GroupMembers::Listed(listed.collect()))
    }

    fn remove_member(&mut self, id: &str) -> Result<()> {
        self.shared.state()?.expire_member(&self.group, id);
        self.shared.wake();
        Ok(())
    }

    fn committed(&mut self) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>> {
        let state = self.shared.state()?;
        let mut partitions: BTreeSet<TopicPartition> =
            state.groups.get(&self.group).into_iter().flat_map(|group| group.committed.keys().cloned()).collect();
        let pending = state.transactions.open.values().flat_map(|open| open.offsets.keys());
        partitions.extend(pending.filter(|(of, _)| *of == self.group).map(|(_, partition)| partition.clone()));
        drop(state);
        let partitions: Vec<_> = partitions.into_iter().collect();
        let committed = self.shared.committed(&self.group, &partitions)?;
        Ok(partitions.into_iter().zip(committed).filter_map(|(partition, at)| Some((partition, at?))).collect())
    }

    fn set_committed(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        self.shared.state()?.commit(&GroupMetadata::from_outside(&self.group), offsets)
    }

    fn groups(&mut self) -> Result<Vec<String>> {
        Ok(self.shared.state()?.groups.keys().cloned().collect())
    }
}
