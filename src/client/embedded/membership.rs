//! A client's place in a group of the in-process cluster, in tasks.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::client::embedded::groups::{GroupEvent, Seat};
use crate::client::embedded::state::Shared;
use crate::client::{GroupMetadata, GroupSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::membership::{LeaveMode, Membership, MembershipEvent};
use crate::record::{OffsetAndMetadata, TopicPartition};
use crate::topology::TaskId;

pub(super) struct EmbeddedMembership {
    shared: Arc<Shared>,
    spec: GroupSpec,
    seat: Seat,
    member: String,
    /// Of the last assignment the client has heard of.
    generation: Option<i32>,
    owned: BTreeSet<TaskId>,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing is owed to the group.
    Member,
    /// Told of `Revoked`, which is not acknowledged yet.
    GivingBack,
    /// Told of `Lost`, which is not acknowledged yet; then it joins again.
    Lost,
    Closed,
}

impl EmbeddedMembership {
    pub(super) fn join(shared: Arc<Shared>, spec: GroupSpec) -> Result<EmbeddedMembership> {
        let mut state = shared.state()?;
        let seat = state.members + 1;
        let member = state.join(seat, &spec)?;
        drop(state);
        shared.wake();
        let (generation, owned, progress) = (None, BTreeSet::new(), Progress::Member);
        Ok(EmbeddedMembership { shared, spec, seat, member, generation, owned, progress })
    }

    pub(super) fn seat(&self) -> (String, Seat) {
        (self.spec.group.clone(), self.seat)
    }

    fn check_open(&self) -> Result<()> {
        if self.progress == Progress::Closed {
            let context = format!("member {} of group {} is closed", self.member, self.spec.group);
            return Err(Error::new(ErrorKind::Closed, context));
        }
        Ok(())
    }

    fn give_back(&mut self) -> Result<()> {
        self.shared.state()?.give_back(&self.spec.group, self.seat);
        self.shared.wake();
        Ok(())
    }

    fn join_again(&mut self) -> Result<()> {
        self.member = self.shared.state()?.join(self.seat, &self.spec)?;
        self.generation = None;
        self.shared.wake();
        Ok(())
    }

    /// What the client hears of an event of the group; none when it has nothing to do.
    fn hear(&mut self, event: GroupEvent) -> Result<Option<MembershipEvent>> {
        match event {
            GroupEvent::Assigned { partitions, generation } => {
                self.generation = Some(generation);
                let active = self.spec.tasks.tasks(&partitions)?;
                self.owned.clone_from(&active);
                Ok(Some(MembershipEvent::Assigned { active }))
            }
            GroupEvent::Revoked if self.owned.is_empty() => {
                self.give_back()?;
                Ok(None)
            }
            GroupEvent::Revoked => {
                self.progress = Progress::GivingBack;
                Ok(Some(MembershipEvent::Revoked { tasks: std::mem::take(&mut self.owned) }))
            }
            GroupEvent::Expired if self.owned.is_empty() => {
                // Tasks that were asked back before are with the client still: it joins when it has let them go.
                match self.progress {
                    Progress::GivingBack => self.progress = Progress::Lost,
                    Progress::Member | Progress::Lost | Progress::Closed => self.join_again()?,
                }
                Ok(None)
            }
            GroupEvent::Expired => {
                self.progress = Progress::Lost;
                Ok(Some(MembershipEvent::Lost { tasks: std::mem::take(&mut self.owned) }))
            }
        }
    }
}

impl Membership for EmbeddedMembership {
    fn poll(&mut self) -> Result<Option<MembershipEvent>> {
        self.check_open()?;
        if self.progress == Progress::Lost {
            return Ok(None);
        }
        // An event that asks nothing of the client is followed by the next at once; two of them come at most.
        for _ in 0..3 {
            let Some(event) = self.shared.state()?.take_event(&self.spec.group, self.seat)? else { break };
            if let Some(event) = self.hear(event)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn acknowledge(&mut self) -> Result<()> {
        self.check_open()?;
        match std::mem::replace(&mut self.progress, Progress::Member) {
            Progress::GivingBack => self.give_back(),
            Progress::Lost => self.join_again(),
            Progress::Member | Progress::Closed => Ok(()),
        }
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        self.shared.committed(&self.spec.group, partitions)
    }

    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        let Some(metadata) = self.group_metadata()? else {
            let context = format!("could not commit offsets of group {}: nothing was assigned yet", self.spec.group);
            return Err(Error::new(ErrorKind::Fenced, context));
        };
        self.shared.state()?.commit(&metadata, offsets)
    }

    fn group_metadata(&mut self) -> Result<Option<GroupMetadata>> {
        self.check_open()?;
        Ok(self.generation.map(|generation| GroupMetadata {
            group: self.spec.group.clone(),
            generation,
            member: self.member.clone(),
            instance: self.spec.instance_id.clone(),
        }))
    }

    fn close(&mut self, mode: LeaveMode) -> Result<()> {
        if self.progress == Progress::Closed {
            return Ok(());
        }
        self.progress = Progress::Closed;
        let mut state = self.shared.state()?;
        match mode {
            LeaveMode::Leave => state.leave(&self.spec.group, self.seat),
            LeaveMode::Stay => state.stay_away(&self.spec.group, self.seat),
        }
        drop(state);
        self.shared.wake();
        Ok(())
    }
}

/// A member that goes without a word is gone at once: nobody else has its handle.
impl Drop for EmbeddedMembership {
    fn drop(&mut self) {
        // A cluster whose directory has failed has no group left to leave.
        let _ = self.close(LeaveMode::Leave);
    }
}
