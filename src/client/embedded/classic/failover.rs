//! What another coordinator of a group finds: the group as it was last written to `__consumer_offsets`.

use std::collections::BTreeMap;

use crate::client::embedded::classic::{ClassicGroup, Member, Phase};

/// A group as it is written when its assignments are complete, when a static member comes back, and when nobody is left.
#[derive(Debug, Default, Clone)]
pub(super) struct Written {
    generation: i32,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
}

impl ClassicGroup {
    pub(super) fn write(&mut self) {
        let (generation, leader, members) = (self.generation, self.leader.clone(), self.members.clone());
        self.written = Written { generation, leader, members };
    }

    /// What was not written is forgotten, and so is everybody who waits. Sessions begin anew.
    pub(in crate::client::embedded) fn reload(&mut self, now: i64) {
        let Written { generation, leader, members } = self.written.clone();
        (self.generation, self.leader, self.members) = (generation, leader, members);
        for member in self.members.values_mut() {
            (member.joining, member.syncing, member.owes_sync, member.is_new) = (None, None, false, false);
            member.renew(now);
        }
        self.phase = if self.members.is_empty() { Phase::Empty } else { Phase::Stable };
        self.pending.clear();
        self.sync_until = None;
        self.answers.clear();
    }
}
